// What becomes of an append: waiting for the sync or the replicas, and failures as sentences.

#include <fmt/format.h>

#include "log/appender.h"
#include "shm/futex.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;

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
      if (compacted_)
        return {
            Code::invalid_argument, 0,
            where +
                ": the topic has cleanup.policy=compact, so each record needs a key (and a batch a record)"};
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
    case SendError::fenced:
      return {Code::fenced, 0,
              where +
                  ": another producer with the same id has taken over, or this one's transaction was ended "
                  "for it; nothing was appended"};
    case SendError::out_of_order_sequence:
      return {Code::out_of_order_sequence, 0,
              where + ": the record's sequence is not the one that follows the last; nothing was appended"};
    case SendError::claim_open:
      return {Code::invalid_argument, 0,
              where +
                  ": a claim is still open in this producer, or in one that shares its slot; commit or "
                  "abort it"};
    case SendError::no_transaction:
      return {Code::invalid_argument, 0,
              where + ": a producer with a transactional id sends within transactions; call begin first"};
    case SendError::closed:
      return {Code::closed, 0,
              fmt::format("{} was deleted or the handle is closed{}{}", where, cause_.empty() ? "" : ": ",
                          cause_)};
  }
  return {Code::system, 0, where};
}

}  // namespace ringtail::log
