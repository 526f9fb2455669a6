#include "log/appender.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <thread>

#include "base/clock.h"
#include "base/topic_config.h"
#include "shm/doorbell.h"
#include "shm/futex.h"

namespace ringtail::log {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

Result<Appender> Appender::open(const PartitionRef& partition, shm::OwnedSlot& slot, WallClock& clock,
                                std::chrono::milliseconds max_block, bool exclusive) {
  Appender appender(partition, slot, clock, max_block);
  if (exclusive)
    if (auto asked = appender.ask_exclusive(); !asked) return std::unexpected(asked.error());
  auto opened = appender.begin();
  if (opened) return appender;
  if (exclusive) appender.release_exclusive();
  return std::unexpected(opened.error());
}

// While a ring is replaced there is none in its place, for as long as a keeper that dies just then leaves it so.
Status Appender::open_first_ring(Patience& patience) {
  for (;;) {
    auto opened = open_ring();
    if (opened || opened.error().code != Code::not_found || is_late(patience, monotonic_ns())) return opened;
    if (auto error = check_entry(); error && *error != SendError::not_leader)
      return std::unexpected(describe(*error));
    partition_.control->wake_keeper();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

Status Appender::begin() {
  const auto error = reload_entry();
  // Where another host leads, sends are refused until this one does.
  if (error && *error != SendError::not_leader) return std::unexpected(describe(*error));
  Patience patience;
  if (auto opened = open_first_ring(patience); !opened) return opened;
  if (!exclusive_ || error) return {};
  if (auto late = wait_for_grant(patience)) return std::unexpected(describe(*late));
  return {};
}

std::optional<SendError> Appender::reload_entry() {
  // SYNC: pairs with the keeper's bump of the version after it stored what this reads.
  const std::uint64_t hot = entry_->hot.load(memory_order_acquire) & ~shm::kHotFlagsMask;
  if (!partition_.is_current()) return SendError::closed;
  durable_possible_ = entry_->storage.load(memory_order_relaxed) == static_cast<std::uint8_t>(Storage::disk);
  if (entry_->state.load(memory_order_relaxed) == static_cast<std::uint32_t>(shm::PartitionState::failed))
    return SendError::storage_failed;
  const auto role = static_cast<shm::ReplicaRole>(entry_->role.load(memory_order_relaxed));
  if (role == shm::ReplicaRole::follower || role == shm::ReplicaRole::fenced) return SendError::not_leader;
  const std::uint32_t exclusive = entry_->exclusive.load(memory_order_relaxed);
  if (exclusive != 0 && exclusive != slot_->owner()) return SendError::held_exclusively;
  const LeaderEpoch epoch = partition_.epoch();
  if (expected_epoch_ && *expected_epoch_ != epoch) return SendError::not_leader;
  hot_seen_ = hot;
  if (epoch != epoch_) {
    if (sent_ > synced_) note_unconfirmed({.partition = partition_.partition, .epoch = epoch_, .end = sent_});
    sent_ = synced_ = Position(0);
    epoch_ = epoch;
  }
  // After a change of roles, the term may be another one though it has the same number.
  line_ = nullptr;
  exhausted_ = true;
  if (on_change_) on_change_();
  set_stamp(stamp_);
  compacted_ =
      entry_->cleanup_policy.load(memory_order_relaxed) != static_cast<std::uint8_t>(CleanupPolicy::remove);
  limit_records();
  on_full_ = entry_->on_full.load(memory_order_relaxed);
  min_insync_replicas_ = entry_->min_insync_replicas.load(memory_order_relaxed);
  append_time_ = entry_->timestamp_type.load(memory_order_relaxed) ==
                 static_cast<std::uint8_t>(TimestampType::log_append_time);
  return std::nullopt;
}

// What the entry says may have been written over: a frame longer than an eighth of a term could find no
// place in any.
void Appender::limit_records() {
  const std::uint64_t most = (ring_ ? ring_.term_bytes() : std::uint64_t{format::kMaxFrameBytes}) / 8;
  max_record_bytes_ = std::min<std::uint64_t>(entry_->max_message_bytes.load(memory_order_relaxed), most);
  unchecked_bytes_ = compacted_ ? 0 : max_record_bytes_ + 1;
}

// --- Append --------------------------------------------------------------------------------------

static inline std::uint8_t attributes_of(const ProducerRecord& record) {
  return static_cast<std::uint8_t>((record.key.data() != nullptr ? format::kHasKey : 0) |
                                   (record.value.data() == nullptr ? format::kNullValue : 0) |
                                   (record.headers.empty() ? 0 : format::kHasHeaders));
}

// One store a word: gathered in an array first, they would be read back wider than they were written,
// which no store buffer forwards (12 cycles a record).
template <class... Words>
static inline void write_words(std::byte* at, Words... words) {
  ((std::memcpy(at, &words, sizeof words), at += sizeof words), ...);
}

// Marks the claim as ours. From here on a reader of the ring knows how long it is and whose.
static inline void write_claim_header(std::byte* frame, std::uint32_t claimed, Offset offset,
                                      std::int64_t timestamp_ns, std::uint32_t key_length,
                                      std::uint32_t owner) {
  // Only the low half of the state word: if the keeper has given this claim up, its mark in the high
  // half stays.
  std::atomic_ref<std::int32_t>(*reinterpret_cast<std::int32_t*>(frame))
      .store(-static_cast<std::int32_t>(claimed), memory_order_relaxed);
  // SYNC: x86 keeps stores in order, the compiler must: whoever sees any other byte of the claim
  // sees its length. Partner: the keeper's repair.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  write_words(frame + 8, offset.value(), static_cast<std::uint64_t>(timestamp_ns),
              std::uint64_t{key_length} | std::uint64_t{owner} << 32);
}

// The same of who has the ring for himself: nobody looks at his frame before it is committed.
static inline void write_plain_header(std::byte* frame, Offset offset, std::int64_t timestamp_ns,
                                      std::uint32_t key_length) {
  write_words(frame + 8, offset.value(), static_cast<std::uint64_t>(timestamp_ns), std::uint64_t{key_length});
}

template <bool kAlone>
static inline void write_header(std::byte* frame, std::uint32_t claimed, Offset offset,
                                std::int64_t timestamp_ns, std::uint32_t key_length, std::uint32_t owner) {
  if constexpr (kAlone)
    write_plain_header(frame, offset, timestamp_ns, key_length);
  else
    write_claim_header(frame, claimed, offset, timestamp_ns, key_length, owner);
}

static inline void write_body(std::byte* frame, const ProducerRecord& record) {
  if (record.key.empty() && record.headers.empty()) [[likely]] {
    if (!record.value.empty())
      std::memcpy(frame + format::kFrameHeaderBytes, record.value.data(), record.value.size());
  } else {
    format::write_body(frame, record.key, record.value.data(), record.value.size(), record.headers);
  }
}

// With the extension of a stamped record in front of the body, and the attributes that belong to it.
static inline std::uint8_t write_stamped_body(std::byte* frame, const format::Extension& extension,
                                              const ProducerRecord& record) {
  format::write_extended_body(frame, extension, record.key, record.value.data(), record.value.size(),
                              record.headers);
  return static_cast<std::uint8_t>(attributes_of(record) | format::extension_attributes(extension));
}

// The lines behind a claim, which the next ones will write to, were last written by the keeper, when it
// zeroed them. Taking them over begins now, or the locked instruction of a coming commit waits for it.
static inline void prefetch_behind(const std::byte* claim_end) {
  constexpr std::size_t ahead = 256;
  const std::byte* const next = claim_end + ahead;
  // Not __builtin_prefetch, which without -mprfchw asks for a line to read. A hint: it cannot fault.
  asm volatile("prefetchw %0" : : "m"(next[0]));
  asm volatile("prefetchw %0" : : "m"(next[64]));
}

template <Appender::Kind kKind>
inline SendResult<RecordMetadata> Appender::append_as(const ProducerRecord& record) {
  constexpr bool kStamped = is_stamped(kKind);
  std::optional<SendError> error;
  const auto length =
      static_cast<std::uint32_t>(frame_length(record, error)) + (kStamped ? format::kExtensionBytes : 0);
  if (error) [[unlikely]]
    return refuse(*error);
  const std::uint32_t claimed_bytes = format::align_frame(length);
  Claimed claimed;
  error = take_as<kKind>(claimed_bytes, 1, claimed);
  if (error) [[unlikely]]
    return refuse(*error);
  const std::int64_t timestamp_ns = timestamp_of(record, claimed);
  write_header<is_alone(kKind)>(claimed.frame, claimed_bytes, claimed.offset, timestamp_ns,
                                static_cast<std::uint32_t>(record.key.size()), slot_->owner());
  std::uint8_t attributes;
  if constexpr (kStamped) {
    attributes = write_stamped_body(claimed.frame, next_extension(), record);
  } else {
    write_body(claimed.frame, record);
    attributes = attributes_of(record);
  }
  prefetch_behind(claimed.frame + claimed_bytes);
  note_place(claimed.frame, claimed.frame + claimed_bytes);
  if (!commit_as<is_alone(kKind)>(claimed.frame, claimed_bytes, 1, length, attributes)) [[unlikely]]
    return refuse_commit();
  if constexpr (kStamped) ++next_sequence_;
  sent_ = claimed.position + claimed_bytes;
  return RecordMetadata{partition_.partition, epoch_, claimed.offset, sent_, timestamp_ns};
}

SendResult<RecordMetadata> Appender::append(const ProducerRecord& record) {
  prefetch_next();
  if (!is_plain()) [[unlikely]]
    return append_slowly(record);
  return append_as<Kind::plain>(record);
}

// With a stamp, alone, or something new to notice.
SendResult<RecordMetadata> Appender::append_slowly(const ProducerRecord& record) {
  if (auto error = check_entry()) [[unlikely]]
    return refuse(*error);
  if (exclusive_)
    return stamp_ == nullptr ? append_as<Kind::alone>(record) : append_as<Kind::stamped_alone>(record);
  return stamp_ == nullptr ? append(record) : append_as<Kind::stamped>(record);
}

template <Appender::Kind kKind>
inline SendResult<RecordMetadata> Appender::append_batch_as(std::span<const ProducerRecord> records) {
  constexpr bool kStamped = is_stamped(kKind);
  constexpr std::uint32_t extension_bytes = kStamped ? format::kExtensionBytes : 0;
  if (records.empty()) return refuse(SendError::invalid_record);
  if (records.size() > kMaxBatchRecords) return refuse(SendError::record_too_large);
  std::optional<SendError> error;
  std::uint64_t bytes = 0;
  for (const ProducerRecord& record : records) {
    bytes += (frame_length(record, error) + extension_bytes + 7) & ~std::uint64_t{7};
    if (error) return refuse(*error);
  }
  if (bytes > ring_.term_bytes() / 8) return refuse(SendError::record_too_large);
  const auto claimed_bytes = static_cast<std::uint32_t>(bytes);
  const auto count = static_cast<std::uint32_t>(records.size());
  Claimed claimed;
  error = take_as<kKind>(claimed_bytes, count, claimed);
  if (error) return refuse(*error);

  std::byte* frame = claimed.frame;
  std::uint32_t first_length = 0;
  format::Extension extension{};
  if constexpr (kStamped) extension = next_extension();
  // To be set in each record's attributes.
  const std::uint8_t stamped = kStamped ? format::extension_attributes(extension) : 0;
  std::int64_t timestamp_ns = 0;
  // One reading of the clock serves the whole batch, as it becomes visible as a whole.
  const std::int64_t now_ns = append_time_ ? claimed.timestamp_ns : clock_->now_ns();
  for (std::uint32_t i = 0; i < count; ++i) {
    const ProducerRecord& record = records[i];
    const auto length = static_cast<std::uint32_t>(frame_length(record, error)) + extension_bytes;
    timestamp_ns = append_time_ || !record.timestamp_ns ? now_ns : *record.timestamp_ns;
    const auto key_length = static_cast<std::uint32_t>(record.key.size());
    if (i == 0) {
      write_header<is_alone(kKind)>(frame, claimed_bytes, claimed.offset, timestamp_ns, key_length,
                                    slot_->owner());
      first_length = length;
    } else {
      // Behind the first frame's claim nobody looks: plain stores will do.
      write_words(frame,
                  format::committed_word(length, format::FrameType::data,
                                         static_cast<std::uint8_t>(attributes_of(record) | stamped)),
                  claimed.offset.value() + i, static_cast<std::uint64_t>(timestamp_ns),
                  std::uint64_t{key_length});
    }
    if constexpr (kStamped) {
      write_stamped_body(frame, extension, record);
      ++extension.sequence;
    } else {
      write_body(frame, record);
    }
    frame += format::align_frame(length);
    prefetch_behind(frame);
  }
  note_place(claimed.frame, frame);
  const auto first_attributes = static_cast<std::uint8_t>(attributes_of(records[0]) | stamped);
  if (!commit_as<is_alone(kKind)>(claimed.frame, claimed_bytes, count, first_length, first_attributes))
    return refuse_commit();
  if constexpr (kStamped) next_sequence_ += count;
  sent_ = claimed.position + claimed_bytes;
  return RecordMetadata{partition_.partition, epoch_, claimed.offset + (count - 1), sent_, timestamp_ns};
}

SendResult<RecordMetadata> Appender::append_batch(std::span<const ProducerRecord> records) {
  prefetch_next();
  if (!is_plain()) [[unlikely]]
    return append_batch_slowly(records);
  return append_batch_as<Kind::plain>(records);
}

SendResult<RecordMetadata> Appender::append_batch_slowly(std::span<const ProducerRecord> records) {
  if (auto error = check_entry()) return refuse(*error);
  if (exclusive_)
    return stamp_ == nullptr ? append_batch_as<Kind::alone>(records)
                             : append_batch_as<Kind::stamped_alone>(records);
  return stamp_ == nullptr ? append_batch(records) : append_batch_as<Kind::stamped>(records);
}

SendResult<RecordMetadata> Appender::append_marker(format::MarkerKind kind,
                                                   const format::Extension& extension) {
  assert(!exclusive_);
  if (auto error = check_entry()) return refuse(*error);
  constexpr std::uint32_t bytes = format::align_frame(format::kMarkerFrameBytes);
  Claimed claimed;
  if (auto error = take(bytes, 1, claimed)) return refuse(*error);
  const std::int64_t timestamp_ns = timestamp_of({}, claimed);
  write_claim_header(claimed.frame, bytes, claimed.offset, timestamp_ns, 0, slot_->owner());
  format::write_marker_body(claimed.frame, extension, kind);
  if (!commit_word(claimed.frame, bytes, format::kMarkerFrameBytes, format::extension_attributes(extension),
                   format::FrameType::control))
    return refuse_commit();
  sent_ = claimed.position + bytes;
  return RecordMetadata{partition_.partition, epoch_, claimed.offset, sent_, timestamp_ns};
}

// --- Claim in place ------------------------------------------------------------------------------

template <Appender::Kind kKind>
inline SendResult<Appender::Open> Appender::claim_as(std::string_view key, std::size_t value_bytes) {
  constexpr bool kStamped = is_stamped(kKind);
  const std::uint64_t body = key.size() + std::min<std::uint64_t>(value_bytes, format::kMaxFrameBytes);
  if (body >= unchecked_bytes_) [[unlikely]]
    if (auto error = judge(key, body)) return std::unexpected(*error);
  constexpr std::uint64_t overhead = format::kFrameHeaderBytes + (kStamped ? format::kExtensionBytes : 0);
  Open open;
  open.length = static_cast<std::uint32_t>(overhead + body);
  open.claimed = format::align_frame(open.length);
  open.attributes = key.data() != nullptr ? format::kHasKey : 0;
  Claimed claimed;
  if (auto error = take_as<kKind>(open.claimed, 1, claimed)) [[unlikely]]
    return std::unexpected(*error);
  const std::int64_t timestamp_ns = timestamp_of({}, claimed);
  write_header<is_alone(kKind)>(claimed.frame, open.claimed, claimed.offset, timestamp_ns,
                                static_cast<std::uint32_t>(key.size()), slot_->owner());
  open.frame = claimed.frame;
  if constexpr (kStamped) {
    const format::Extension extension = next_extension();
    open.attributes |= format::extension_attributes(extension);
    open.sequence = next_sequence_++;
    open.value = format::write_extended_body(claimed.frame, extension, key, nullptr, value_bytes, {});
  } else {
    open.value = claimed.frame + format::kFrameHeaderBytes + key.size();
    if (!key.empty()) std::memcpy(claimed.frame + format::kFrameHeaderBytes, key.data(), key.size());
  }
  open.metadata = {partition_.partition, epoch_, claimed.offset, claimed.position + open.claimed,
                   timestamp_ns};
  prefetch_behind(claimed.frame + open.claimed);
  note_place(claimed.frame, claimed.frame + open.claimed);
  slot_->announce_open(partition_.index, claimed.position.value());
  return open;
}

SendResult<Appender::Open> Appender::claim(std::string_view key, std::size_t value_bytes) {
  prefetch_next();
  if (!is_plain()) [[unlikely]]
    return claim_slowly(key, value_bytes);
  return claim_as<Kind::plain>(key, value_bytes);
}

SendResult<Appender::Open> Appender::claim_slowly(std::string_view key, std::size_t value_bytes) {
  if (auto error = check_entry()) return std::unexpected(*error);
  if (exclusive_)
    return stamp_ == nullptr ? claim_as<Kind::alone>(key, value_bytes)
                             : claim_as<Kind::stamped_alone>(key, value_bytes);
  return stamp_ == nullptr ? claim(key, value_bytes) : claim_as<Kind::stamped>(key, value_bytes);
}

SendResult<RecordMetadata> Appender::commit(const Open& open) {
  const bool kept = exclusive_ ? commit_as<true>(open.frame, open.claimed, 1, open.length, open.attributes)
                               : commit_as<false>(open.frame, open.claimed, 1, open.length, open.attributes);
  if (!kept) [[unlikely]] {
    take_back_sequence(open);
    return refuse_commit();
  }
  if (open.metadata.epoch != epoch_) [[unlikely]]
    return commit_of_earlier_epoch(open);
  sent_ = open.metadata.end;
  return open.metadata;
}

void Appender::abort(const Open& open) {
  if (exclusive_) {
    store_filler_fields(open.frame, open.metadata.offset, 1);
    commit_alone(open.frame, open.claimed, 1, format::aborted_word(open.claimed));
    return take_back_sequence(open);
  }
  // Fails only when the keeper has aborted it already.
  publish_filler(open.frame, format::claimed_word(open.claimed), format::FrameType::aborted, open.claimed,
                 open.metadata.offset, 1);
  slot_->finish();
  take_back_sequence(open);
  notify();
}

// The claim did not become a record: the next one has its sequence.
void Appender::take_back_sequence(const Open& open) {
  // Unless the log has been asked meanwhile.
  if ((open.attributes & format::kHasExtension) && next_sequence_ == open.sequence + 1)
    next_sequence_ = open.sequence;
}

// The claim did not become a record, or nobody says whether it did.
std::unexpected<SendError> Appender::refuse_commit() {
  if (!std::exchange(unanswered_, false)) return refuse(SendError::claim_expired);
  unknown_ = true;
  return refuse(SendError::timed_out);
}

// The keeper was giving this claim up while it was committed. What counts is what the ring says when
// the keeper is done: whether a committed frame starts exactly here. A keeper may have died over it, and no
// other come.
bool Appender::was_kept(const std::byte* frame, bool committed) {
  Patience patience;
  while (!slot_->given_up_done()) {
    if (is_late(patience, monotonic_ns())) {
      unanswered_ = committed;
      if (committed) notify();
      return false;
    }
    partition_.control->wake_keeper();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const std::byte* at = term_data_;
  while (at < frame) {
    const std::uint64_t word = format::load_state_word(at, memory_order_acquire);  // SYNC: see commit_word
    // What is still claimed belongs to somebody who lives and writes in place: his to resolve, later.
    if (format::word_is_resolved(word) && format::word_extent(word) > 0)
      at += format::word_extent(word);
    else if (format::word_length(word) < 0)
      at += format::claimed_bytes(word);
    else
      return false;
  }
  const std::uint64_t word = format::load_state_word(frame, memory_order_acquire);  // SYNC: as above
  return at == frame && format::word_type(word) != format::FrameType::aborted;
}

void Appender::notify_slowly(std::uint64_t hot) {
  if (hot & shm::kDataWaiter) {
    // SYNC: takes the flag before the bump: a waiter that sets it afterwards sees the new record.
    entry_->hot.fetch_and(~std::uint64_t{shm::kDataWaiter}, memory_order_acq_rel);
    entry_->data_seq.fetch_add(1,
                               memory_order_release);  // SYNC: pairs with the waiter's load before its look
    shm::futex_wake_all(entry_->data_seq);
  }
  if (hot & shm::kKeeperWaits) {
    entry_->hot.fetch_and(~std::uint64_t{shm::kKeeperWaits}, memory_order_acq_rel);  // SYNC: as above
    partition_.control->wake_keeper();
  }
  if (hot & shm::kShipperWaits) {
    entry_->hot.fetch_and(~std::uint64_t{shm::kShipperWaits}, memory_order_acq_rel);  // SYNC: as above
    shm::ring_doorbell(partition_.shm_dir, partition_.index);
  }
}

}  // namespace ringtail::log
