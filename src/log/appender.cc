#include "log/appender.h"

#include <fmt/format.h>

#include <thread>

#include "base/topic_config.h"
#include "shm/futex.h"

namespace ringtail::log {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

Result<Appender> Appender::open(const PartitionRef& partition, shm::OwnedSlot& slot, WallClock& clock,
                                std::chrono::milliseconds max_block) {
  Appender appender(partition, slot, clock, max_block);
  if (auto error = appender.reload_entry()) return std::unexpected(appender.describe(*error));
  if (auto opened = appender.open_ring(); !opened) return std::unexpected(opened.error());
  return appender;
}

std::optional<SendError> Appender::reload_entry() {
  // SYNC: pairs with the keeper's bump of the version after it stored what this reads.
  const std::uint64_t hot = entry_->hot.load(memory_order_acquire) & ~shm::kHotFlagsMask;
  if (!partition_.is_current()) return SendError::closed;
  if (entry_->state.load(memory_order_relaxed) == static_cast<std::uint32_t>(shm::PartitionState::failed))
    return SendError::storage_failed;
  hot_seen_ = hot;
  max_record_bytes_ = entry_->max_message_bytes.load(memory_order_relaxed);
  on_full_ = entry_->on_full.load(memory_order_relaxed);
  min_insync_replicas_ = entry_->min_insync_replicas.load(memory_order_relaxed);
  append_time_ = entry_->timestamp_type.load(memory_order_relaxed) ==
                 static_cast<std::uint8_t>(TimestampType::log_append_time);
  durable_possible_ = entry_->storage.load(memory_order_relaxed) == static_cast<std::uint8_t>(Storage::disk);
  return std::nullopt;
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

static inline void write_body(std::byte* frame, const ProducerRecord& record) {
  if (record.key.empty() && record.headers.empty()) [[likely]] {
    if (!record.value.empty())
      std::memcpy(frame + format::kFrameHeaderBytes, record.value.data(), record.value.size());
  } else {
    format::write_body(frame, record.key, record.value.data(), record.value.size(), record.headers);
  }
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

SendResult<RecordMetadata> Appender::append(const ProducerRecord& record) {
  std::optional<SendError> error = check_entry();
  if (error) [[unlikely]]
    return refuse(*error);
  const auto length = static_cast<std::uint32_t>(frame_length(record, error));
  if (error) [[unlikely]]
    return refuse(*error);
  const std::uint32_t claimed_bytes = format::align_frame(length);
  Claimed claimed;
  error = take(claimed_bytes, 1, claimed);
  if (error) [[unlikely]]
    return refuse(*error);
  const std::int64_t timestamp_ns = timestamp_of(record, claimed);
  write_claim_header(claimed.frame, claimed_bytes, claimed.offset, timestamp_ns,
                     static_cast<std::uint32_t>(record.key.size()), slot_->owner());
  write_body(claimed.frame, record);
  prefetch_behind(claimed.frame + claimed_bytes);
  if (!commit_word(claimed.frame, claimed_bytes, length, attributes_of(record))) [[unlikely]]
    return refuse(SendError::claim_expired);
  sent_ = claimed.position + claimed_bytes;
  return RecordMetadata{partition_.partition, claimed.offset, sent_, timestamp_ns};
}

SendResult<RecordMetadata> Appender::append_batch(std::span<const ProducerRecord> records) {
  if (auto error = check_entry()) return refuse(*error);
  if (records.empty()) return refuse(SendError::invalid_record);
  if (records.size() > kMaxBatchRecords) return refuse(SendError::record_too_large);
  std::optional<SendError> error;
  std::uint64_t bytes = 0;
  for (const ProducerRecord& record : records) {
    bytes += (frame_length(record, error) + 7) & ~std::uint64_t{7};
    if (error) return refuse(*error);
  }
  if (bytes > ring_.term_bytes() / 8) return refuse(SendError::record_too_large);
  const auto claimed_bytes = static_cast<std::uint32_t>(bytes);
  const auto count = static_cast<std::uint32_t>(records.size());
  Claimed claimed;
  error = take(claimed_bytes, count, claimed);
  if (error) return refuse(*error);

  std::byte* frame = claimed.frame;
  std::uint32_t first_length = 0;
  std::int64_t timestamp_ns = 0;
  // One reading of the clock serves the whole batch, as it becomes visible as a whole.
  const std::int64_t now_ns = append_time_ ? claimed.timestamp_ns : clock_->now_ns();
  for (std::uint32_t i = 0; i < count; ++i) {
    const ProducerRecord& record = records[i];
    const auto length = static_cast<std::uint32_t>(frame_length(record, error));
    timestamp_ns = append_time_ || !record.timestamp_ns ? now_ns : *record.timestamp_ns;
    const auto key_length = static_cast<std::uint32_t>(record.key.size());
    if (i == 0) {
      write_claim_header(frame, claimed_bytes, claimed.offset, timestamp_ns, key_length, slot_->owner());
      first_length = length;
    } else {
      // Behind the first frame's claim nobody looks: plain stores will do.
      write_words(frame, format::committed_word(length, format::FrameType::data, attributes_of(record)),
                  claimed.offset.value() + i, static_cast<std::uint64_t>(timestamp_ns),
                  std::uint64_t{key_length});
    }
    write_body(frame, record);
    frame += format::align_frame(length);
    prefetch_behind(frame);
  }
  if (!commit_word(claimed.frame, claimed_bytes, first_length, attributes_of(records[0])))
    return refuse(SendError::claim_expired);
  sent_ = claimed.position + claimed_bytes;
  return RecordMetadata{partition_.partition, claimed.offset + (count - 1), sent_, timestamp_ns};
}

// --- Claim in place ------------------------------------------------------------------------------

SendResult<Appender::Open> Appender::claim(std::string_view key, std::size_t value_bytes) {
  if (auto error = check_entry()) return std::unexpected(*error);
  if (key.size() + value_bytes > max_record_bytes_) return std::unexpected(SendError::record_too_large);
  Open open;
  open.length = static_cast<std::uint32_t>(format::data_frame_bytes(key.size(), value_bytes, 0));
  open.claimed = format::align_frame(open.length);
  open.attributes = key.data() != nullptr ? format::kHasKey : 0;
  Claimed claimed;
  if (auto error = take(open.claimed, 1, claimed)) return std::unexpected(*error);
  const std::int64_t timestamp_ns = timestamp_of({}, claimed);
  write_claim_header(claimed.frame, open.claimed, claimed.offset, timestamp_ns,
                     static_cast<std::uint32_t>(key.size()), slot_->owner());
  open.frame = claimed.frame;
  open.value = format::write_body(claimed.frame, key, nullptr, value_bytes, {});
  open.metadata = {partition_.partition, claimed.offset, claimed.position + open.claimed, timestamp_ns};
  slot_->announce_open(partition_.index, claimed.position.value());
  return open;
}

SendResult<RecordMetadata> Appender::commit(const Open& open) {
  if (!commit_word(open.frame, open.claimed, open.length, open.attributes))
    return refuse(SendError::claim_expired);
  sent_ = open.metadata.end;
  return open.metadata;
}

void Appender::abort(const Open& open) {
  // Fails only when the keeper has aborted it already.
  publish_filler(open.frame, format::claimed_word(open.claimed), format::FrameType::aborted, open.claimed,
                 open.metadata.offset, 1);
  slot_->finish();
  notify();
}

// The keeper was giving this claim up while it was committed. What counts is what the ring says when
// the keeper is done: whether a committed frame starts exactly here.
bool Appender::was_kept(const std::byte* frame) {
  while (!slot_->given_up_done()) {
    partition_.control->wake_keeper();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (const std::byte* at = term_data_; at < frame;) {
    const std::uint64_t word = format::load_state_word(at, memory_order_acquire);  // SYNC: see commit_word
    // What is still claimed belongs to somebody who lives and writes in place: his to resolve, later.
    if (format::word_is_resolved(word))
      at += format::word_extent(word);
    else if (format::word_length(word) < 0)
      at += format::claimed_bytes(word);
    else
      return false;
    if (at == frame)
      return format::word_type(format::load_state_word(at, memory_order_acquire)) ==
             format::FrameType::data;  // SYNC: as above
  }
  return false;
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
}

// --- Durability ----------------------------------------------------------------------------------

SendResult<void> Appender::wait_durable(Position end) {
  if (!durable_possible_) return std::unexpected(SendError::invalid_record);
  const std::int64_t deadline_ns = monotonic_ns() + std::chrono::nanoseconds(max_block_).count();
  for (;;) {
    const std::uint32_t seq = entry_->durable_seq.load(memory_order_acquire);  // SYNC: pairs with the bump
    // SYNC: pairs with the keeper's release store after the sync.
    if (entry_->durable_position.load(memory_order_acquire) >= end.value()) return {};
    if (auto error = check_entry()) return std::unexpected(*error);
    // SYNC: a full barrier between raising the flag and looking again; pairs with notify_waiters.
    entry_->durable_waiters.exchange(1, std::memory_order_seq_cst);
    if (entry_->durable_position.load(memory_order_acquire) >= end.value()) return {};  // SYNC: as above
    if (monotonic_ns() >= deadline_ns) return std::unexpected(SendError::timed_out);
    partition_.control->wake_keeper();
    shm::futex_wait(entry_->durable_seq, seq, deadline_ns);
  }
}

SendResult<void> Appender::check_replicas() {
  if (auto error = check_entry()) return std::unexpected(*error);
  if (min_insync_replicas_ > 1) return std::unexpected(SendError::not_enough_replicas);
  return {};
}

// --- Sentences -----------------------------------------------------------------------------------

Error Appender::describe(SendError error) const {
  const std::string where =
      fmt::format("topic '{}' partition {}", partition_.topic, partition_.partition.value());
  switch (error) {
    case SendError::would_block:
      return {Code::would_block, 0, where + ": the ring is full and on.full=fail; send again later"};
    case SendError::timed_out:
      return {Code::timed_out, 0,
              fmt::format("{}: nothing happened within max_block ({} ms); is the disk too slow, or no keeper "
                          "attached?",
                          where, max_block_.count())};
    case SendError::record_too_large:
      return {
          Code::limit_exceeded, 0,
          fmt::format("{}: key, value and headers may have {} bytes in all (max.message.bytes), a batch {} "
                      "bytes and {} records",
                      where, max_record_bytes_, ring_ ? ring_.term_bytes() / 8 : 0, kMaxBatchRecords)};
    case SendError::invalid_record:
      return {Code::invalid_argument, 0,
              where + ": the record or batch is malformed, or durability was asked of a memory topic"};
    case SendError::claim_expired:
      return {Code::claim_expired, 0,
              fmt::format(
                  "{}: the claim was held for longer than claim.timeout.ms ({}) and given up; nothing was "
                  "appended",
                  where, entry_->claim_timeout_ms.load(memory_order_relaxed))};
    case SendError::not_enough_replicas:
      return {Code::not_enough_replicas, 0,
              fmt::format("{}: min.insync.replicas is {}, but this host is the only replica", where,
                          min_insync_replicas_)};
    case SendError::storage_failed: {
      std::string cause;
      for (const auto& c : entry_->failure_text) {
        const char letter = c.load(memory_order_relaxed);
        if (letter == 0) break;
        cause += letter;
      }
      return {Code::storage_failed, entry_->failure_errno.load(memory_order_relaxed),
              fmt::format("{} refuses writes since a write failed: {}; mend the cause and restart the keeper",
                          where, cause)};
    }
    case SendError::claim_open:
      return {Code::invalid_argument, 0,
              where + ": a claim of this producer is still open; commit or abort it"};
    case SendError::closed:
      return {Code::closed, 0,
              fmt::format("{} was deleted or the handle is closed{}{}", where, cause_.empty() ? "" : ": ",
                          cause_)};
  }
  return {Code::system, 0, where};
}

}  // namespace ringtail::log
