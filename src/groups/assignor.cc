#include "ringtail/assignor.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "groups/member_order.h"
#include "groups/sticky.h"

namespace ringtail {

namespace {

using groups::by_id;
using groups::find_topic;
using groups::subscribes;

Assignment assign_ranges(std::span<const GroupMember> members, std::span<const GroupTopic> topics) {
  Assignment assignment(members.size());
  const std::vector<std::size_t> order = by_id(members);
  for (const GroupTopic& topic : topics) {
    std::vector<std::size_t> subscribers;
    for (const std::size_t member : order) {
      if (subscribes(members[member], topic.name)) subscribers.push_back(member);
    }
    if (subscribers.empty()) continue;
    const auto count = static_cast<std::uint32_t>(subscribers.size());
    const std::uint32_t share = topic.partitions / count;
    const std::uint32_t larger_shares = topic.partitions % count;
    std::uint32_t next = 0;
    for (std::uint32_t rank = 0; rank < count; ++rank) {
      const std::uint32_t end = next + share + (rank < larger_shares ? 1 : 0);
      for (; next < end; ++next) assignment[subscribers[rank]].push_back({topic.name, PartitionId(next)});
    }
  }
  return assignment;
}

Assignment assign_in_turn(std::span<const GroupMember> members, std::span<const GroupTopic> topics) {
  Assignment assignment(members.size());
  const std::vector<std::size_t> order = by_id(members);
  std::size_t turn = 0;
  for (const GroupTopic& topic : topics) {
    const auto wants = [&](std::size_t member) { return subscribes(members[member], topic.name); };
    if (std::none_of(order.begin(), order.end(), wants)) continue;
    for (std::uint32_t p = 0; p < topic.partitions; ++p) {
      while (!wants(order[turn])) turn = (turn + 1) % order.size();
      assignment[order[turn]].push_back({topic.name, PartitionId(p)});
      turn = (turn + 1) % order.size();
    }
  }
  return assignment;
}

}  // namespace

Assignor range_assignor() { return {"range", assign_ranges}; }
Assignor round_robin_assignor() { return {"roundrobin", assign_in_turn}; }
Assignor sticky_assignor() { return {"cooperative-sticky", groups::assign_sticky}; }

std::optional<Assignor> find_assignor(std::string_view name) {
  for (Assignor& assignor : std::vector{range_assignor(), round_robin_assignor(), sticky_assignor()}) {
    if (assignor.name == name) return std::move(assignor);
  }
  return std::nullopt;
}

Status check_assignment(std::span<const GroupMember> members, std::span<const GroupTopic> topics,
                        const Assignment& assignment) {
  if (assignment.size() != members.size())
    return fail(Code::invalid_argument, fmt::format("the assignment has {} entries for {} members",
                                                    assignment.size(), members.size()));
  std::set<TopicPartition> given;
  for (std::size_t m = 0; m < members.size(); ++m) {
    for (const TopicPartition& partition : assignment[m]) {
      const std::string what = fmt::format("the assignment gives member '{}' partition {} of topic '{}'",
                                           members[m].id, partition.partition.value(), partition.topic);
      const GroupTopic* topic = find_topic(topics, partition.topic);
      if (topic == nullptr) return fail(Code::invalid_argument, what + ", which is no topic of the group's");
      if (partition.partition.value() >= topic->partitions)
        return fail(Code::invalid_argument, fmt::format("{}, which has {}", what, topic->partitions));
      if (!subscribes(members[m], partition.topic))
        return fail(Code::invalid_argument, what + ", to which it does not subscribe");
      if (!given.insert(partition).second)
        return fail(Code::invalid_argument, what + ", which has been given already");
    }
  }
  return {};
}

}  // namespace ringtail
