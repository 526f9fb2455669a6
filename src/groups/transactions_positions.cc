// The positions that go with transactions: how they move, and when they may come to the disk.
#include <algorithm>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/logger.h"
#include "groups/tenure.h"
#include "groups/transactions.h"
#include "log/wide_cas.h"

namespace ringtail::groups {

using shm::TransactionState;
using std::memory_order_acquire;
using std::memory_order_relaxed;

bool Transactions::holds(std::uint64_t pending) const {
  if (pending == 0 || shm::pending_entry(pending) >= shm::kMaxTransactionalIds) return false;
  // SYNC: pairs with the stores that end a transaction.
  const std::uint64_t word =
      control_.transactional_id(shm::pending_entry(pending)).word.load(memory_order_acquire);
  const TransactionState state = shm::transaction_state(word);
  return shm::is_pending_of(pending, word) && state != TransactionState::ready &&
         state != TransactionState::none;
}

void Transactions::abort(std::uint64_t pending) {
  if (!holds(pending)) return;
  shm::TransactionalId& entry = control_.transactional_id(shm::pending_entry(pending));
  std::uint64_t word = entry.word.load(memory_order_relaxed);
  if (!shm::is_pending_of(pending, word) || shm::transaction_state(word) != TransactionState::ongoing) return;
  logger().warn("transactional id '{}': transaction {} is aborted: its consumer has lost a partition",
                entry.id.load(), shm::transaction_number(word));
  // SYNC: against the producer's own end of it; pairs with Guard::holds.
  entry.word.compare_exchange_strong(word, shm::with_state(word, TransactionState::aborting),
                                     std::memory_order_seq_cst);
  busy_ = true;
}

// Moves, or leaves, the positions that were added to a transaction. Returns the entries that moved.
std::set<std::uint32_t> Transactions::apply_positions(std::uint32_t index, std::uint64_t word) {
  std::set<std::uint32_t> moved;
  shm::GroupTableLayout& table = control_.groups();
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_relaxed), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    shm::GroupPartition& entry = table.partitions[i];
    log::WideWord seen = log::wide_load(&entry.pending_offset);
    if (seen.high == 0 || shm::pending_entry(seen.high) != index || !shm::is_pending_of(seen.high, word))
      continue;
    if (shm::transaction_state(word) == TransactionState::committing) {
      entry.transactional.store(1, memory_order_relaxed);
      Standing standing = load_standing(entry);
      while (!exchange_standing(entry, standing, {seen.low, standing.tenure})) {
      }
      moved.insert(i);
    }
    // SYNC: behind the move; whoever finds nothing pending finds the position moved.
    log::wide_compare_exchange(&entry.pending_offset, seen, {0, 0});
  }
  return moved;
}

// A position stands for the records of every transaction that has moved it since it was written down.
void Transactions::hold_back(std::uint32_t entry, const Ends& ends) {
  Ends& held = held_back_[entry];
  for (const auto& [partition, end] : ends) {
    End& known = held.try_emplace(partition, end).first->second;
    if (known.topic_id != end.topic_id || known.position < end.position) known = end;
  }
}

bool Transactions::may_persist(std::uint32_t index, bool urgent) {
  const shm::GroupPartition& entry = control_.groups().partitions[index];
  const std::uint64_t pending = entry.pending.load(memory_order_acquire);  // SYNC: with add_offsets
  if (holds(pending) &&
      shm::transaction_state(
          control_.transactional_id(shm::pending_entry(pending)).word.load(memory_order_relaxed)) ==
          TransactionState::committing)
    return false;
  if (!taken_up_.empty() && entry.transactional.load(memory_order_relaxed) != 0) {
    if (urgent) request_sync(taken_up_);
    if (!are_synced(taken_up_)) return false;
    taken_up_.clear();
  }
  const auto held = held_back_.find(index);
  if (held == held_back_.end()) return true;
  if (urgent) request_sync(held->second);
  if (!are_synced(held->second)) return false;
  held_back_.erase(held);
  return true;
}

void Transactions::wait_synced(std::int64_t deadline_ns) {
  const auto is_done = [this] {
    return are_synced(taken_up_) &&
           std::ranges::all_of(held_back_, [this](const auto& held) { return are_synced(held.second); });
  };
  while (!is_done() && monotonic_ns() < deadline_ns) {
    request_sync(taken_up_);
    for (const auto& [entry, ends] : held_back_) request_sync(ends);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void Transactions::note_written(const std::set<std::uint32_t>& left) {
  for (Closing& closing : closing_) {
    if (closing.positions_end) continue;
    const bool written =
        closing.moved
            ? std::ranges::none_of(*closing.moved, [&](std::uint32_t entry) { return left.contains(entry); })
            : left.empty();
    if (!written) continue;
    // Where another coordinator has appended them, they may be in memory only.
    if (!closing.moved && !offsets_end_known_) {
      if (auto included = offsets_.include_others(); !included) {
        announce(included.error());
        continue;
      }
      offsets_end_known_ = true;
    }
    closing.positions_end = offsets_.end();
  }
}

// Of a decision whose marker a failed partition does not have, the rest stands for that partition alone: its positions
// must not come again after the next reboot, whatever has become of the group by then.
void Transactions::close_decisions() {
  std::vector<KeyValue> changed;
  std::vector<Closing> open;
  for (Closing& closing : closing_) {
    const bool done = closing.positions_end && offsets_.is_synced(*closing.positions_end) &&
                      are_synced(closing.markers_end);
    if (done && closing.unmarked.empty()) {
      changed.push_back({closing.key, {}});
      continue;
    }
    if (done && !std::exchange(closing.is_rest, true)) changed.push_back({closing.key, encode_rest(closing)});
    open.push_back(std::move(closing));
  }
  closing_ = std::move(open);
  if (changed.empty()) return;
  // Should this fail, they are completed once more after a reboot: no harm, but for markers of nothing.
  if (auto appended = topic_.append(changed); !appended) announce(appended.error());
}

}  // namespace ringtail::groups
