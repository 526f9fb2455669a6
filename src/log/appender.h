// One producer's hold on one partition: claim, write, commit, and the waits around them.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bounded_time.h"
#include "base/clock.h"
#include "log/partition_ref.h"
#include "log/ring.h"
#include "ringtail/producer.h"
#include "shm/light_fence.h"
#include "shm/slots.h"

namespace ringtail::log {

// The claim of a producer that was superseded must not succeed: a word in shared memory, and the value
// that it must have. Whoever changes it then waits for claims that are under way (shm::Slot::op).
struct Guard {
  const shm::Shared<std::uint64_t>* word = nullptr;  // null: no guard
  std::uint64_t expected = 0;
  std::uint64_t mask = ~std::uint64_t{0};

  // To be asked behind the full barrier of announce_fenced. Wait-free.
  bool holds() const {
    // SYNC: pairs with whoever changes the word and then, behind a full barrier, looks at the slot's op:
    // either this sees the change, or he sees the op under way.
    return word == nullptr || (word->load(std::memory_order_seq_cst) & mask) == expected;
  }
};

// What a producer with an id writes into the extension of its records; one for all its appenders, who
// number the records of their partitions themselves.
struct Stamp {
  std::uint64_t producer_id = 0;
  std::uint32_t producer_epoch = 0;
  std::uint32_t transaction = 0;  // the one under way; 0: none
  Guard guard = {};
};

// Thread safety: one thread; all appenders of a producer share its slot and its clock.
// Process safety: any number of appenders. A death at any instruction leaves at worst a hole that
// the keeper repairs.
class Appender {
 public:
  // A claim whose header is written and whose body is the caller's to fill.
  struct Open {
    std::byte* frame = nullptr;
    std::byte* value = nullptr;
    std::uint32_t length = 0;   // exact
    std::uint32_t claimed = 0;  // aligned
    std::uint8_t attributes = 0;
    std::uint64_t sequence = 0;  // of a stamped record
    RecordMetadata metadata;
  };

  // `exclusive`: it is to have the partition for itself, until release_exclusive, which whoever opened it has to
  // call; where this host may append it blocks until it has. While a ring is replaced it blocks, too; at most
  // `max_block`. Errors: held_exclusively, unsupported (transactions), timed_out, not_found (no ring).
  static Result<Appender> open(const PartitionRef& partition, shm::OwnedSlot& slot, WallClock& clock,
                               std::chrono::milliseconds max_block, bool exclusive = false);
  // Others may append again. Lock-free.
  void release_exclusive();

  // Append one record, or several with one claim and one commit. Wait-free within a term, lock-free
  // beyond, but for waiting on space under on.full=block. Nothing is durable on return.
  SendResult<RecordMetadata> append(const ProducerRecord& record);
  SendResult<RecordMetadata> append_batch(std::span<const ProducerRecord> records);

  // Claims a record to be written in place. commit and abort end it; lock-free.
  SendResult<Open> claim(std::string_view key, std::size_t value_bytes);
  SendResult<RecordMetadata> commit(const Open& open);
  void abort(const Open& open);

  // From now on each record carries the extension that `stamp` tells at that moment, and appends are
  // refused with `fenced` when its guard no longer holds; null: records are plain. It must outlive this.
  void set_stamp(const Stamp* stamp) {
    stamp_ = stamp;
    plain_hot_ = stamp_ == nullptr && !exclusive_ ? hot_seen_ : kNeverHot;
  }
  // The sequence of the next stamped record; it rises by one with each that was committed.
  std::uint64_t next_sequence() const { return next_sequence_; }
  void set_next_sequence(std::uint64_t sequence) { next_sequence_ = sequence; }
  // Appends under another epoch than that are refused with not_leader: its numbers were read under that one. Nothing:
  // under any.
  void expect_epoch(std::optional<LeaderEpoch> epoch) { expected_epoch_ = epoch; }
  // Whether, since this was asked last, an append ended with timed_out though it may be in the log: then the next
  // sequence may be taken.
  bool take_unknown() { return std::exchange(unknown_, false); }

  // Appends a control frame: the end of the transaction that `extension` names. Not subject to the guard.
  // Progress and durability: as append.
  SendResult<RecordMetadata> append_marker(format::MarkerKind kind, const format::Extension& extension);

  // Has readers that sleep look again, although nothing was appended. Lock-free.
  void wake_readers() { notify_slowly(entry_->hot.load(std::memory_order_relaxed)); }

  // Called from within an operation that has noticed a change: of configuration, of the topic's partitions.
  void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }

  // Whether records can become durable: not in a memory topic.
  bool can_be_durable() const { return durable_possible_; }
  // Waits on a futex until the record, and with it all before it, is synced. Errors: timed_out, storage_failed,
  // closed, lost_leadership, invalid_record (a memory topic is never durable).
  SendResult<void> wait_durable(const RecordMetadata& record);
  // The same for all that this appender has sent. Once lost_leadership is told, no more of that is asked for.
  SendResult<void> flush();
  // This record counts as sent by this appender: it was, or by one that it takes the place of.
  void note_sent(const RecordMetadata& record);
  // Nothing that was sent up to now is waited for by flush: its outcome has been told.
  void forget_sent() {
    sent_ = synced_ = Position(0);
    unconfirmed_.clear();
    forgotten_ = false;
  }
  // Before an append that is to be confirmed by all replicas: whether that can be had now; on a host without
  // replication that is min.insync.replicas=1. Errors: not_enough_replicas, not_leader, and those of append.
  SendResult<void> check_replicas();
  // The epoch under which the last check_replicas found this host to lead; 0: the partition is not replicated.
  LeaderEpoch checked_epoch() const { return LeaderEpoch(leader_epoch_); }
  // Waits on a futex until every in-sync replica has all below `end`, which was appended since check_replicas.
  // At once in a partition that is not replicated. Errors: timed_out, lost_leadership, storage_failed, closed.
  SendResult<void> wait_replicated(Position end);

  // What a failure was about, as a sentence.
  Error describe(SendError error) const;
  // The failure of the last append, if it failed and was not forgotten.
  std::optional<SendError> last_error() const { return last_error_; }
  void forget_error() { last_error_ = std::nullopt; }
  const PartitionRef& partition() const { return partition_; }

 private:
  struct Claimed {
    std::byte* frame;
    Position position;
    Offset offset;
    std::int64_t timestamp_ns;  // of the claim, in topics with append time
  };

  Appender(const PartitionRef& partition, shm::OwnedSlot& slot, WallClock& clock,
           std::chrono::milliseconds max_block)
      : partition_(partition),
        entry_(&partition.entry()),
        slot_(&slot),
        clock_(&clock),
        max_block_(std::chrono::duration_cast<std::chrono::milliseconds>(bounded_time(max_block))) {}

  // Whether there is nothing to do but to append a plain record: no stamp, and nothing new to notice.
  bool is_plain() const {
    const std::uint64_t hot = entry_->hot.load(std::memory_order_relaxed);
    return (hot & ~shm::kHotFlagsMask) == plain_hot_;
  }
  // Begin of every operation: notices configuration, failure and deletion.
  std::optional<SendError> check_entry() {
    const std::uint64_t hot = entry_->hot.load(std::memory_order_relaxed);
    if ((hot & ~shm::kHotFlagsMask) == hot_seen_) [[likely]]
      return std::nullopt;
    return reload_entry();
  }
  std::optional<SendError> reload_entry();
  Status begin();

  // Each operation in four kinds: of a producer without a stamp, which pays nothing for the other, and of
  // one with; one beside others, and one alone.
  enum class Kind : std::uint8_t { plain, stamped, alone, stamped_alone };
  static constexpr bool is_stamped(Kind kind) { return kind == Kind::stamped || kind == Kind::stamped_alone; }
  static constexpr bool is_alone(Kind kind) { return kind == Kind::alone || kind == Kind::stamped_alone; }
  template <Kind kKind>
  SendResult<RecordMetadata> append_as(const ProducerRecord& record);
  template <Kind kKind>
  SendResult<RecordMetadata> append_batch_as(std::span<const ProducerRecord> records);
  template <Kind kKind>
  SendResult<Open> claim_as(std::string_view key, std::size_t value_bytes);
  SendResult<RecordMetadata> append_slowly(const ProducerRecord& record);
  SendResult<RecordMetadata> append_batch_slowly(std::span<const ProducerRecord> records);
  SendResult<Open> claim_slowly(std::string_view key, std::size_t value_bytes);
  format::Extension next_extension() const {
    return {stamp_->producer_id, stamp_->producer_epoch, stamp_->transaction, next_sequence_};
  }

  // How long one call has tried to get its place: all its waits share one deadline.
  struct Patience {
    std::int64_t deadline_ns = 0;  // 0: it has not waited yet
    unsigned turns = 0;
  };

  // Claims [position, position + bytes) and `records` offsets. On success the slot is in
  // Phase::claiming; on failure it is idle.
  std::optional<SendError> take(std::uint32_t bytes, std::uint32_t records, Claimed& out) {
    if (!exhausted_ && !append_time_) [[likely]] {
      slot_->announce(shm::Phase::claiming, partition_.index);
      // SYNC: acquires what the opener of the term published; a full barrier behind the slot's op
      // (ring.pml, CLAIM).
      const std::uint64_t old =
          line_->tail.fetch_add(make_tail(0, records, bytes), std::memory_order_acq_rel);
      const std::uint64_t at = tail_bytes(old);
      // Laps recur after 512; the term's number does not, and stands for as long as the claim does.
      const bool known = !tail_fenced(old) && line_->number.load(std::memory_order_relaxed) == term_;
      if (known && at + bytes <= usable_) [[likely]] {
        const std::uint64_t base = line_->base_offset.load(std::memory_order_relaxed);
        out = {term_data_ + at, Position(start_ + at), Offset(base + tail_records(old)), 0};
        return std::nullopt;
      }
      if (place(old, bytes, out)) return std::nullopt;
    }
    return take_slowly(bytes, records, out);
  }
  template <Kind kKind>
  std::optional<SendError> take_as(std::uint32_t bytes, std::uint32_t records, Claimed& out) {
    if constexpr (kKind == Kind::plain) return take(bytes, records, out);
    if constexpr (kKind == Kind::stamped) return take_guarded(bytes, records, out);
    if constexpr (is_alone(kKind)) return take_alone(bytes, out);
  }

  // Begins to take over the line that the next frame is supposed to begin in. A reader that has caught up looks at it
  // all the time, and to get it back takes as long as all that comes before the first store to it (performance.md,
  // "The next line"). A hint: it cannot fault.
  void prefetch_next() const { asm volatile("prefetchw %0" : : "m"(*next_frame_)); }
  // This appender's frames stand from `frame` to `end`.
  void note_place(const std::byte* frame, const std::byte* end) {
    // With others' frames in between, the next place is probably another's too, who would lose the line that he
    // writes to: then something of its own is asked for.
    next_frame_ = frame == last_end_ ? end : reinterpret_cast<const std::byte*>(slot_);
    last_end_ = end;
  }

  // --- Alone (appender_alone.cc) ---

  // The place behind what this appender has committed; nobody else takes one. On success the slot is in
  // Phase::claiming, on failure it is idle. Asks no guard: those are of transactions, which nobody has alone.
  std::optional<SendError> take_alone(std::uint32_t bytes, Claimed& out) {
    announce_alone();
    if (has_grant() && alone_.used + bytes <= usable_) [[likely]] {
      out = place_alone();
      return std::nullopt;
    }
    return take_alone_slowly(bytes, out);
  }
  Claimed place_alone() {
    return {term_data_ + alone_.used, Position(start_ + alone_.used), Offset(alone_.next),
            append_time_ ? next_append_time() : 0};
  }
  std::uint64_t tail_alone() const {
    return make_tail(alone_.lap, alone_.next - alone_.base, alone_.used) | kFence;
  }
  void announce_alone() {
    slot_->announce(shm::Phase::claiming, partition_.index);
    // SYNC: between the announcement and the look at the grant; pairs with the wait between the fence and the look at
    // the announcement (PartitionKeeper::owner_rests; exclusive.pml, ANNOUNCE).
    shm::light_fence();
  }
  bool has_grant() const {
    return line_ != nullptr && ring_.header().grant.load(std::memory_order_relaxed) == alone_.grant;
  }
  std::optional<SendError> take_alone_slowly(std::uint32_t bytes, Claimed& out);
  std::int64_t next_append_time();
  // Makes what stands at the place taken last visible, as `records` records. Ends the slot's operation. False: the
  // keeper had given it up before.
  bool commit_alone(std::byte* frame, std::uint32_t claimed, std::uint32_t records, std::uint64_t word) {
    // SYNC: pairs with the acquire loads of state words by readers and the keeper: they see the whole frame.
    format::state_word(frame).store(word, std::memory_order_release);
    alone_.used += claimed;
    alone_.next += records;
    // SYNC: pairs with claimed_tail: the frames are there.
    alone_.line->fenced.store(tail_alone(), std::memory_order_release);
    // SYNC: between the commit and the looks at given_up and hot; pairs with the waits of who gives up
    // (PartitionKeeper::owner_rests), and of who raises a flag and looks once more before he sleeps
    // (exclusive.pml, COMMIT, WAKE).
    shm::light_fence();
    const bool kept = !slot_->given_up() || was_kept_alone(frame);
    slot_->finish();
    if (kept) [[likely]]
      notify();
    return kept;
  }
  bool was_kept_alone(const std::byte* frame);
  Status ask_exclusive();
  std::optional<SendError> wait_for_grant(Patience& patience);
  std::optional<SendError> adopt_alone();
  bool end_term_alone();

  // --- Beside others ---

  bool is_late(Patience& patience, std::int64_t now_ns) const;
  std::optional<SendError> take_slowly(std::uint32_t bytes, std::uint32_t records, Claimed& out);
  std::optional<SendError> take_guarded(std::uint32_t bytes, std::uint32_t records, Claimed& out);
  bool place(std::uint64_t tail, std::uint32_t bytes, Claimed& out);
  std::uint64_t advance_tail(std::uint32_t bytes, std::uint32_t records, std::int64_t& timestamp_ns);
  void adopt();
  void attach_term(std::uint64_t term);
  std::optional<SendError> next_term(Patience& patience);
  SendError refuse_for_room();
  std::optional<SendError> next_ring(Patience& patience);
  std::optional<SendError> leave_to_keeper(Patience& patience);
  std::optional<SendError> wait_for_space(Patience& patience);
  Status open_ring();
  Status open_first_ring(Patience& patience);
  void limit_records();

  std::uint64_t frame_length(const ProducerRecord& record, std::optional<SendError>& error) const {
    const std::uint64_t headers = record.headers.empty() ? 0 : format::encoded_headers_bytes(record.headers);
    const std::uint64_t body = record.key.size() + record.value.size() + headers;
    if (body >= unchecked_bytes_) [[unlikely]]
      error = judge(record.key, body);
    return format::kFrameHeaderBytes + body;
  }
  // What is wrong with a record of that key and size. Compaction needs a key.
  std::optional<SendError> judge(std::string_view key, std::uint64_t body) const {
    if (body > max_record_bytes_) return SendError::record_too_large;
    if (compacted_ && key.data() == nullptr) return SendError::invalid_record;
    return std::nullopt;
  }
  std::int64_t timestamp_of(const ProducerRecord& record, const Claimed& claimed) {
    if (append_time_) [[unlikely]]
      return claimed.timestamp_ns;
    return record.timestamp_ns ? *record.timestamp_ns : clock_->now_ns();
  }

  // Turns the claim into a record, unless the keeper gave it up. Ends the slot's operation.
  bool commit_word(std::byte* frame, std::uint32_t claimed, std::uint32_t length, std::uint8_t attributes,
                   format::FrameType type = format::FrameType::data) {
    std::uint64_t expected = format::claimed_word(claimed);
    // SYNC: pairs with the acquire loads of state words by readers and the keeper: they see the whole
    // frame (ring.pml, COMMIT). A full barrier, ahead of given_up and of the look at hot.
    const bool committed = format::state_word(frame).compare_exchange_strong(
        expected, format::committed_word(length, type, attributes), std::memory_order_seq_cst,
        std::memory_order_acquire);
    const bool kept = slot_->given_up() ? was_kept(frame, committed) : committed;
    slot_->finish();
    if (kept) [[likely]]
      notify();
    return kept;
  }
  template <bool kAlone>
  bool commit_as(std::byte* frame, std::uint32_t claimed, std::uint32_t records, std::uint32_t length,
                 std::uint8_t attributes) {
    if constexpr (kAlone)
      return commit_alone(frame, claimed, records,
                          format::committed_word(length, format::FrameType::data, attributes));
    else
      return commit_word(frame, claimed, length, attributes);
  }
  bool was_kept(const std::byte* frame, bool committed);
  std::unexpected<SendError> refuse_commit();
  bool still_leads() const;
  void note_unconfirmed(const RecordMetadata& record);
  RecordMetadata commit_of_earlier_epoch(const Open& open);
  bool outlived(const RecordMetadata& record) const;
  void take_back_sequence(const Open& open);
  std::unexpected<SendError> refuse(SendError error) {
    last_error_ = error;
    return std::unexpected(error);
  }
  void notify() {
    // SYNC: ordered behind the commit by its compare-and-set (a full barrier); pairs with the
    // waiter's fetch_or of its flag followed by its look at the ring.
    const std::uint64_t hot = entry_->hot.load(std::memory_order_seq_cst);
    if (hot != hot_seen_) [[unlikely]]
      notify_slowly(hot);
  }
  void notify_slowly(std::uint64_t hot);

  PartitionRef partition_;
  shm::Partition* entry_;
  shm::OwnedSlot* slot_;
  WallClock* clock_;
  Ring ring_;

  // The term that claims go to, as far as this appender knows.
  TermLine* line_ = nullptr;
  std::byte* term_data_ = nullptr;
  std::uint64_t start_ = 0;  // position of the term
  std::uint64_t usable_ = 0;
  std::uint64_t term_ = 0;
  bool exhausted_ = true;                // this appender has overshot the term: it must not claim there again
  const std::byte* last_end_ = nullptr;  // behind the frames that it wrote last
  const std::byte* next_frame_ = reinterpret_cast<const std::byte*>(slot_);  // see prefetch_next

  // Of one that has the ring for itself. What is counted is kept apart: next to each other, both would be read in one
  // go behind two stores, which no store buffer forwards.
  struct Alone {
    std::uint64_t grant = 0;  // under which it has the ring
    std::uint64_t used = 0;   // bytes of the term that it, or others before it, have committed
    std::uint64_t base = 0;   // offset of the term's first record
    std::uint64_t next = 0;   // of the next record
    std::uint64_t lap = 0;
    TermLine* line = nullptr;  // of the term; of an open claim also when line_ has been forgotten meanwhile
  };
  Alone alone_;
  bool exclusive_ = false;

  static constexpr std::uint64_t kNeverHot = 1;  // no version looks like this
  std::uint64_t plain_hot_ = kNeverHot;          // hot_seen_, but never with a stamp or alone: see is_plain
  std::uint64_t hot_seen_ = kNeverHot;           // the first operation reloads
  std::uint64_t max_record_bytes_ = 0;
  std::uint64_t unchecked_bytes_ = 0;  // records of fewer bytes need no further look
  bool compacted_ = false;
  bool append_time_ = false;
  bool durable_possible_ = true;
  std::uint8_t on_full_ = 0;
  std::uint32_t min_insync_replicas_ = 1;
  std::uint32_t leader_epoch_ = 0;  // as check_replicas found it; 0: not replicated
  std::chrono::milliseconds max_block_;
  const Stamp* stamp_ = nullptr;
  std::uint64_t next_sequence_ = 0;
  std::optional<LeaderEpoch> expected_epoch_;
  // As reload_entry found it: what is appended is appended under this one, or a later one.
  LeaderEpoch epoch_{0};
  Position sent_{0};    // behind the last record that was committed under it; 0 before the first
  Position synced_{0};  // up to where that is known to be synced
  std::vector<RecordMetadata>
      unconfirmed_;         // of each earlier epoch the last, where it was never known to be synced
  bool forgotten_ = false;  // one of them, for there were too many
  std::optional<SendError> last_error_;
  std::int64_t room_bell_ns_ = 0;  // before, the keeper is not rung for again
  bool unanswered_ = false;        // no keeper has said what became of the last commit
  bool unknown_ = false;           // nor of one since take_unknown
  std::string cause_;              // of the last failure that has one
  std::function<void()> on_change_;
};

}  // namespace ringtail::log
