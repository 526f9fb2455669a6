// What becomes of an append: waiting for the sync or the replicas, and failures as sentences.

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/clock.h"
#include "log/appender.h"
#include "log/epoch_list.h"
#include "shm/doorbell.h"
#include "shm/futex.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::int64_t kLeaseLookNs = 50'000'000;
constexpr std::size_t kMostUnconfirmed = 1024;

}  // namespace

// --- Durability ----------------------------------------------------------------------------------

// What was appended under another epoch is in the log where the list of epochs says so, which the keeper stores before
// it publishes the next one.
bool Appender::outlived(const RecordMetadata& record) const {
  const auto epochs = EpochList::load(partition_.disk_dir);
  return epochs && epochs->has(record.epoch, record.end);
}

// A position tells of a record as long as the leadership is the one under which it was appended: under another one
// the log may have been cut off before it, and have another record there.
SendResult<void> Appender::wait_durable(const RecordMetadata& record) {
  if (!durable_possible_) return std::unexpected(SendError::invalid_record);
  const std::int64_t deadline_ns = monotonic_ns() + std::chrono::nanoseconds(max_block_).count();
  for (;;) {
    const std::uint32_t seq = entry_->durable_seq.load(memory_order_acquire);  // SYNC: pairs with the bump
    const LeaderEpoch epoch = partition_.epoch();
    if (epoch != record.epoch && !outlived(record))
      return std::unexpected(partition_.is_current() ? SendError::lost_leadership : SendError::closed);
    // SYNC: pairs with the keeper's release store after the sync.
    const bool synced = entry_->durable_position.load(memory_order_acquire) >= record.end.value();
    // Behind the position: the keeper stores topic and epoch before it counts what came under them as synced.
    if (!partition_.is_current()) return std::unexpected(SendError::closed);
    if (partition_.epoch() != epoch) continue;
    if (synced) {
      if (record.epoch == epoch_) synced_ = std::max(synced_, record.end);
      return {};
    }
    // What is appended becomes durable whoever may append now; but for what the next leader lacks.
    if (auto error = check_entry(); error && *error != SendError::held_exclusively)
      return std::unexpected(*error == SendError::not_leader ? SendError::lost_leadership : *error);
    // SYNC: a full barrier between raising the flag and looking again; pairs with notify_waiters.
    entry_->durable_waiters.exchange(1, std::memory_order_seq_cst);
    // SYNC: as above
    if (entry_->durable_position.load(memory_order_acquire) >= record.end.value()) continue;
    if (monotonic_ns() >= deadline_ns) return std::unexpected(SendError::timed_out);
    partition_.control->wake_keeper();
    shm::futex_wait(entry_->durable_seq, seq, deadline_ns);
  }
}

SendResult<void> Appender::flush() {
  std::ignore = check_entry();  // which notices another leadership
  bool lost = forgotten_;
  while (!unconfirmed_.empty()) {
    const RecordMetadata last = unconfirmed_.back();
    unconfirmed_.pop_back();  // first, for whoever waits may add another
    const auto durable = wait_durable(last);
    if (durable) continue;
    if (durable.error() != SendError::lost_leadership) {
      unconfirmed_.push_back(last);
      return durable;
    }
    lost = true;
  }
  if (!lost && sent_ != Position(0)) {
    auto durable = wait_durable({.partition = partition_.partition, .epoch = epoch_, .end = sent_});
    if (durable || durable.error() != SendError::lost_leadership) return durable;
    lost = true;
  }
  if (!lost) return {};
  forget_sent();
  return std::unexpected(SendError::lost_leadership);
}

// More leaderships than that, each with a record of this producer, no log has between two flushes; but another process
// may write one number after the other.
void Appender::note_unconfirmed(const RecordMetadata& record) {
  if (unconfirmed_.size() == kMostUnconfirmed) {
    unconfirmed_.erase(unconfirmed_.begin());
    forgotten_ = true;
  }
  unconfirmed_.push_back(record);
}

RecordMetadata Appender::commit_of_earlier_epoch(const Open& open) {
  note_unconfirmed(open.metadata);
  return open.metadata;
}

void Appender::note_sent(const RecordMetadata& record) {
  std::ignore = check_entry();
  if (record.epoch == epoch_)
    sent_ = std::max(sent_, record.end);
  else
    note_unconfirmed(record);
}

// --- Replication ---------------------------------------------------------------------------------

SendResult<void> Appender::check_replicas() {
  if (auto error = check_entry()) return std::unexpected(*error);
  // SYNC: before the append; wait_replicated compares it behind the watermark that it finds.
  leader_epoch_ = entry_->leader_epoch.load(memory_order_acquire);
  const auto role = static_cast<shm::ReplicaRole>(entry_->role.load(memory_order_acquire));  // SYNC: as above
  if (role == shm::ReplicaRole::alone) {
    leader_epoch_ = 0;
    if (min_insync_replicas_ > 1) return std::unexpected(SendError::not_enough_replicas);
    return {};
  }
  if (role != shm::ReplicaRole::leader) return std::unexpected(SendError::not_leader);
  if (entry_->in_sync.load(memory_order_relaxed) < min_insync_replicas_)
    return std::unexpected(SendError::not_enough_replicas);
  return {};
}

// The epoch was the same before the append and behind the watermark that covers it, so all of it happened
// under one leader: the watermark tells of this record and of no other.
bool Appender::still_leads() const {
  // SYNC: pairs with PartitionKeeper's stores of role and epoch, which come before anything it does with the
  // log or the watermark in another role.
  return entry_->role.load(memory_order_acquire) == static_cast<std::uint32_t>(shm::ReplicaRole::leader) &&
         entry_->leader_epoch.load(memory_order_acquire) == leader_epoch_ &&
         boottime_ns() < entry_->lease_deadline_ns.load(memory_order_acquire);
}

SendResult<void> Appender::wait_replicated(Position end) {
  if (leader_epoch_ == 0) return {};
  const std::int64_t deadline_ns = monotonic_ns() + std::chrono::nanoseconds(max_block_).count();
  for (;;) {
    const std::uint32_t seq = entry_->replicated_seq.load(memory_order_acquire);  // SYNC: pairs with the bump
    // SYNC: a full barrier between raising the flag and the look; pairs with notify_waiters, and with
    // LeadingPartition::rest: one of both sees the other's flag.
    const std::uint32_t flags = entry_->replicated_waiters.fetch_or(1, std::memory_order_seq_cst);
    // SYNC: pairs with the release store in set_high_watermark (replication.pml, WAIT_REPLICATED).
    const bool replicated = entry_->high_watermark.load(memory_order_acquire) >= end.value();
    // Behind the watermark, as in wait_durable.
    if (!partition_.is_current()) return std::unexpected(SendError::closed);
    if (!still_leads()) return std::unexpected(SendError::lost_leadership);
    if (replicated) return {};
    const std::int64_t now = monotonic_ns();
    if (now >= deadline_ns) return std::unexpected(SendError::timed_out);
    if ((flags & shm::kShipperRests) != 0) shm::ring_doorbell(partition_.shm_dir, partition_.index);
    // Nobody wakes those who wait for a host that stands still: the lease's end is looked for.
    shm::futex_wait(entry_->replicated_seq, seq, std::min(deadline_ns, now + kLeaseLookNs));
  }
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
              fmt::format("{}: min.insync.replicas is {}, but {} in sync; nothing was appended", where,
                          min_insync_replicas_,
                          leader_epoch_ == 0 ? std::string("this host is the only replica, and alone")
                                             : fmt::format("only {} of {} replicas are",
                                                           entry_->in_sync.load(memory_order_relaxed),
                                                           entry_->replicas.load(memory_order_relaxed)))};
    case SendError::not_leader: {
      const std::uint32_t node = entry_->leader_node.load(memory_order_relaxed);
      return {Code::not_leader, 0,
              fmt::format("{}: {}; nothing was appended. See `ringtail cluster status`", where,
                          node == 0 ? std::string("no host leads it now, or its ringtaild does not run")
                                    : fmt::format("node {} leads it, not this host", node))};
    }
    case SendError::lost_leadership:
      return {
          Code::lost_leadership, 0,
          where +
              ": this host ceased to lead before every in-sync replica, or its disk, had the record; whether "
              "the next leader has it is not known. Send it there again, with the same sequence"};
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
    case SendError::held_exclusively: {
      const std::uint32_t holder = entry_->exclusive.load(memory_order_relaxed);
      const bool known = shm::is_active_owner(*partition_.control, holder);
      const std::uint32_t pid =
          known ? partition_.control->slot(shm::owner_slot(holder)).pid.load(memory_order_relaxed) : 0;
      return {Code::held_exclusively, 0,
              fmt::format("{}: {}; nothing was appended", where,
                          known ? fmt::format("the producer of pid {} has it for itself", pid)
                                : std::string("it could not be given to this producer alone, or was given to "
                                              "another one meanwhile"))};
    }
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
    case SendError::corrupt:
      return {Code::corrupt, 0,
              where +
                  ": the words of its ring in shared memory are impossible: some process wrote where it must "
                  "not; nothing was appended. Restart the keeper, and check with `ringtail log verify`"};
    case SendError::closed:
      return {Code::closed, 0,
              fmt::format("{} was deleted or the handle is closed{}{}", where, cause_.empty() ? "" : ": ",
                          cause_)};
  }
  return {Code::system, 0, where};
}

}  // namespace ringtail::log
