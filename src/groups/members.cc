// The coordinator's members: who joins, who leaves, who has died, who does not poll any more.
#include <fmt/format.h>

#include "base/clock.h"
#include "base/logger.h"
#include "groups/coordinator.h"
#include "groups/membership.h"
#include "groups/tenure.h"
#include "shm/futex.h"

namespace ringtail::groups {

using shm::MemberStatus;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

Status Coordinator::join(std::uint32_t slot, std::int64_t now_ns) {
  shm::Member& member = control_.member(slot);
  const std::string id = member.group_id.load();
  const std::string assignor = member.assignor.load();
  auto topics = resolve_subscription(member.subscription.load(),
                                     member.by_pattern.load(memory_order_relaxed) != 0, topics_);
  if (!topics) return std::unexpected(topics.error());
  if (const auto known = members_.find(slot);
      known != members_.end() && groups_[known->second.group].id != id)
    remove_member(slot, "left");
  auto index = find_or_make_group(id);
  if (!index) return std::unexpected(index.error());
  Group& group = groups_[*index];
  const bool alone = group.members.empty() || (group.members.size() == 1 && group.members.contains(slot));
  if (!alone && group.assignor != assignor)
    return fail(
        Code::inconsistent_assignor,
        fmt::format("group '{}' uses the assignor '{}', not '{}'; all of its members must use the same", id,
                    group.assignor, assignor));
  group.assignor = assignor;
  unbalance(group);
  group.members.insert(slot);
  shm::Group& entry = table_.groups[*index];
  entry.assignor.store(assignor);
  entry.members.store(static_cast<std::uint32_t>(group.members.size()), memory_order_relaxed);
  const bool is_new = !members_.contains(slot);
  if (is_new) {
    member.slot_word.store(member.asker.load(memory_order_relaxed), memory_order_relaxed);
    member.joined_ns.store(wall_clock_ns(), memory_order_relaxed);
    member.polled_ns.store(now_ns, memory_order_relaxed);
  }
  member.status.store(static_cast<std::uint32_t>(MemberStatus::joined), memory_order_relaxed);
  member.group.store(*index + 1, memory_order_release);  // SYNC: pairs with load_assignment_input
  members_[slot] = watch_of(slot, *index, now_ns);
  if (is_new) logger().info("group '{}': member {} joined", id, member_id_of(control_, slot));
  return {};
}

// Takes from a member what it has; if it lives, it learns that from its entry.
void Coordinator::remove_member(std::uint32_t slot, const char* why) {
  const auto known = members_.find(slot);
  if (known == members_.end()) return;
  const std::uint32_t index = known->second.group;
  Group& group = groups_[index];
  shm::Member& member = control_.member(slot);
  logger().info("group '{}': member {} {}", group.id, member_id_of(control_, slot), why);
  member.group.store(0, memory_order_relaxed);
  members_.erase(known);
  group.members.erase(slot);
  for (const auto& [key, at] : group.entries) {
    shm::GroupPartition& entry = table_.partitions[at];
    if (load_standing(entry).owner() == slot + 1) {
      change_owner(entry, 0);
      // SYNC: behind the full barrier of the change; pairs with add_offsets, which looks at the owner again
      // once its position is pending.
      transactions_.abort(entry.pending.load(std::memory_order_seq_cst));
    }
    if (shm::assignment_owner(table_.assignments[at].load(memory_order_relaxed)) == slot + 1)
      table_.assignments[at].store(shm::assignment_word(index, 0), memory_order_relaxed);
  }
  unbalance(group);
  note_remaining(index);
}

// How many members a group has left; and when that is none, since when.
void Coordinator::note_remaining(std::uint32_t index) {
  const Group& group = groups_[index];
  shm::Group& entry = table_.groups[index];
  entry.members.store(static_cast<std::uint32_t>(group.members.size()), memory_order_relaxed);
  if (!group.members.empty()) return;
  const auto empty = static_cast<std::uint32_t>(shm::GroupState::empty);
  if (entry.state.load(memory_order_relaxed) != empty) {
    entry.empty_since_ns.store(wall_clock_ns(), memory_order_relaxed);
    entry.state.store(empty, memory_order_relaxed);
  }
  // Nothing was committed: there is nothing to remember.
  for (const auto& [key, at] : group.entries) {
    const shm::GroupPartition& position = table_.partitions[at];
    if (load_standing(position).committed != shm::kNoOffset) return;
    if (transactions_.holds(position.pending.load(memory_order_acquire))) return;  // SYNC: with add_offsets
  }
  free_group(index);
}

void Coordinator::watch_members(std::int64_t now_ns) {
  const bool thoroughly = now_ns >= watch_due_ns_;
  if (thoroughly) watch_due_ns_ = now_ns + kWatchPeriodNs;
  std::vector<std::uint32_t> dead, stuck;
  for (auto& [slot, watched] : members_) {
    shm::Member& member = control_.member(slot);
    // The keeper looks, too, and takes the slot away; in between only the lock itself tells.
    // SYNC: pairs with the CASes of the slot's word.
    if (control_.slot(slot).word.load(memory_order_acquire) != watched.slot_word ||
        (thoroughly && !is_alive(slot))) {
      dead.push_back(slot);
      continue;
    }
    const std::uint32_t polls = member.polls.load(memory_order_relaxed);
    if (polls != watched.polls) {
      watched.polls = polls;
      watched.polled_ns = now_ns;
      member.polled_ns.store(now_ns, memory_order_relaxed);
    } else if (now_ns - watched.polled_ns > watched.max_poll_interval_ns) {
      stuck.push_back(slot);
      continue;
    }
    if (watched.auto_commit_interval_ns == 0 || now_ns < watched.commit_due_ns) continue;
    watched.commit_due_ns = now_ns + watched.auto_commit_interval_ns;
    member.commit_due.fetch_add(1, memory_order_relaxed);
    call(slot);
  }
  for (const std::uint32_t slot : dead) remove_member(slot, "is gone");
  for (const std::uint32_t slot : stuck) {
    // It is told before it is no member any more: afterwards, the coordinator after us would not know it.
    control_.member(slot).status.store(static_cast<std::uint32_t>(MemberStatus::expelled),
                                       memory_order_relaxed);
    call(slot);
    remove_member(slot, "was expelled: it has not polled for max.poll.interval.ms");
  }
}

bool Coordinator::is_alive(std::uint32_t slot) const {
  const auto locked = attachment_.locks().is_locked(slot);
  return !locked || *locked;  // not known to be dead
}

// Makes a member look.
void Coordinator::call(std::uint32_t slot) const {
  shm::Member& member = control_.member(slot);
  member.attention.fetch_add(1, memory_order_release);  // SYNC: pairs with the load in Membership::look
  shm::futex_wake_all(member.attention);
}

}  // namespace ringtail::groups
