// The coordinator's assignments: computing who is to have what, and seeing to it that it comes to pass.
#include <fmt/format.h>

#include "base/clock.h"
#include "base/logger.h"
#include "groups/coordinator.h"
#include "groups/membership.h"
#include "groups/tenure.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// What was proposed for the state before is void.
void Coordinator::unbalance(Group& group) {
  group.unbalanced = true;
  group.proposal.reset();
}

void Coordinator::rebalance(std::uint32_t index) {
  Group& group = groups_[index];
  const AssignmentInput input = load_assignment_input(control_, index, topics_, &group.members);
  if (input.members.empty()) {
    install(index, input, {});
    return;
  }
  std::optional<Assignment> assignment;
  if (const auto assignor = find_assignor(group.assignor)) {
    assignment = assignor->assign(input.members, input.topics);
  } else {
    assignment = take_proposal(group, input);
    if (!assignment && !group.proposal) ask_leader(index, input);
    if (!assignment) return;  // until the member has made one, or is gone
    group.proposal.reset();
  }
  if (auto valid = check_assignment(input.members, input.topics, *assignment); !valid) {
    logger().error("group '{}': assignor '{}': {}", group.id, group.assignor, valid.error().message);
    group.unbalanced = false;  // until something changes
    return;
  }
  install(index, input, *assignment);
}

// Publishes an assignment: one store a partition, then a call to every member.
void Coordinator::install(std::uint32_t index, const AssignmentInput& input, const Assignment& assignment) {
  Group& group = groups_[index];
  group.unbalanced = false;
  group.unsettled = true;
  std::map<TopicPartition, std::uint32_t> owners;
  for (std::size_t m = 0; m < assignment.size(); ++m)
    for (const TopicPartition& partition : assignment[m]) owners[partition] = input.slots[m] + 1;

  std::map<PartitionKey, std::uint32_t> wanted;  // -> owner
  for (const GroupTopic& topic : input.topics) {
    const auto entry = std::ranges::find(topics_, topic.name, &log::TopicEntry::name);
    for (std::uint32_t p = 0; p < topic.partitions; ++p) {
      const auto owner = owners.find({topic.name, PartitionId(p)});
      wanted[{entry->topic_id, p}] = owner == owners.end() ? 0 : owner->second;
    }
  }
  shm::Group& shared = table_.groups[index];
  shared.generation.fetch_add(1, memory_order_relaxed);
  if (!group.members.empty())
    shared.state.store(static_cast<std::uint32_t>(shm::GroupState::rebalancing), memory_order_relaxed);
  std::size_t without_entry = 0;
  for (const auto& [key, owner] : wanted) {
    const auto at = find_or_make_entry(index, key);
    // SYNC: pairs with Membership::look.
    if (at) table_.assignments[*at].store(shm::assignment_word(index, owner), memory_order_release);
    without_entry += at ? 0 : 1;
  }
  group.crowded_out.reset();
  if (without_entry > 0)
    group.crowded_out =
        Error{Code::limit_exceeded, 0,
              fmt::format("{} partitions of group '{}' have no member: the table of positions is "
                          "full ({} for all groups); delete groups that are not used any more",
                          without_entry, group.id, shm::kMaxGroupPartitions)};
  clear_trouble(index);
  for (const auto& [key, at] : group.entries)
    if (!wanted.contains(key))
      table_.assignments[at].store(shm::assignment_word(index, 0), memory_order_release);  // SYNC: as above
  forget_vanished(index);
  for (const std::uint32_t slot : group.members) call(slot);
}

// Of an assignor that only the members know: the one that joined first is to apply it.
void Coordinator::ask_leader(std::uint32_t index, const AssignmentInput& input) {
  std::uint32_t leader = input.slots.front();
  for (const std::uint32_t slot : input.slots)
    if (control_.member(slot).joined_ns.load(memory_order_relaxed) <
        control_.member(leader).joined_ns.load(memory_order_relaxed))
      leader = slot;
  // It proposes for the entries there are.
  for (const GroupTopic& topic : input.topics) {
    const auto entry = std::ranges::find(topics_, topic.name, &log::TopicEntry::name);
    for (std::uint32_t p = 0; p < topic.partitions; ++p) find_or_make_entry(index, {entry->topic_id, p});
  }
  shm::Member& member = control_.member(leader);
  const std::uint32_t due = member.assign_due.load(memory_order_relaxed) + 1;
  groups_[index].proposal = Proposal{leader, due};
  member.assign_due.store(due, memory_order_release);  // SYNC: pairs with Membership::look
  call(leader);
}

std::optional<Assignment> Coordinator::take_proposal(Group& group, const AssignmentInput& input) const {
  if (!group.proposal) return std::nullopt;
  const shm::Member& member = control_.member(group.proposal->slot);
  // SYNC: pairs with the release store in Membership::propose.
  if (member.assigned.load(memory_order_acquire) != group.proposal->due) return std::nullopt;
  std::map<std::uint32_t, std::size_t> member_of_owner;
  for (std::size_t m = 0; m < input.slots.size(); ++m) member_of_owner[input.slots[m] + 1] = m;
  Assignment assignment(input.members.size());
  for (const auto& [partition, entry] : input.entries) {
    const auto to = member_of_owner.find(table_.proposals[entry].load(memory_order_relaxed));
    if (to != member_of_owner.end()) assignment[to->second].push_back(partition);
  }
  return assignment;
}

// Gives what is free to whom it is meant for. What still has an owner comes free when he gives it back, or
// is found dead or expelled.
void Coordinator::settle(std::uint32_t index) {
  Group& group = groups_[index];
  std::set<std::uint32_t> granted;
  bool settled = true;
  for (const auto& [key, at] : group.entries) {
    shm::GroupPartition& entry = table_.partitions[at];
    const std::uint32_t target = shm::assignment_owner(table_.assignments[at].load(memory_order_relaxed));
    // Others can write to the table: whoever it names has to be a member.
    if (target != 0 && !group.members.contains(target - 1)) {
      unbalance(group);
      settled = false;
      continue;
    }
    std::uint32_t owner = load_standing(entry).owner();
    if (owner == target) continue;
    if (owner != 0 && !group.members.contains(owner - 1)) {
      change_owner(entry, 0);
      owner = 0;
    }
    // Where the next owner begins is up to a transaction of the last one's.
    const bool undecided =
        transactions_.holds(entry.pending.load(memory_order_acquire));  // SYNC: with add_offsets
    if (owner != 0 || undecided) {
      settled = false;
    } else if (target != 0) {
      change_owner(entry, target);
      granted.insert(target - 1);
    }
  }
  for (const std::uint32_t slot : granted) call(slot);
  if (!settled || group.unbalanced) return;
  group.unsettled = false;
  if (!group.members.empty())
    table_.groups[index].state.store(static_cast<std::uint32_t>(shm::GroupState::stable),
                                     memory_order_relaxed);
}

}  // namespace ringtail::groups
