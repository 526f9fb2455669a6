#include "groups/assignment_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <set>

#include "groups/membership.h"
#include "groups/tenure.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::string_view kInternalPrefix = "__";

// States that an expression may come to, about: the library walks them by recursion, and anybody who may
// attach can hand in an expression for the coordinator to walk.
constexpr std::uint64_t kMostStates = 16384;

// The bytes of the expression times all its repetition counts, which is more than it has states.
std::uint64_t states_of(std::string_view pattern) {
  std::uint64_t states = pattern.size();
  for (std::size_t at = 0; (at = pattern.find('{', at)) != std::string_view::npos; ++at) {
    std::uint64_t most = 1;
    std::uint64_t number = 0;
    for (std::size_t i = at + 1; i < pattern.size() && pattern[i] != '}'; ++i) {
      const bool digit = pattern[i] >= '0' && pattern[i] <= '9';
      number =
          digit ? std::min(number * 10 + static_cast<std::uint64_t>(pattern[i] - '0'), kMostStates + 1) : 0;
      most = std::max(most, number);
    }
    states = std::min(states * most, kMostStates + 1);
  }
  return states;
}

Result<std::vector<std::string>> resolve_pattern(const std::string& pattern,
                                                 const std::vector<log::TopicEntry>& topics) {
  std::vector<std::string> names;
  if (states_of(pattern) > kMostStates)
    return fail(Code::invalid_argument,
                fmt::format("'{}' repeats too much; use smaller counts in braces", pattern));
  try {
    // Polynomial: no expression takes longer than its length times that of a name. (A name of libstdc++'s.)
    const std::regex expression(pattern, std::regex::extended | std::regex_constants::__polynomial);
    for (const log::TopicEntry& topic : topics)
      if (!topic.name.starts_with(kInternalPrefix) && std::regex_match(topic.name, expression))
        names.push_back(topic.name);
  } catch (const std::regex_error& error) {
    return fail(Code::invalid_argument,
                fmt::format("'{}' is no extended regular expression: {}", pattern, error.what()));
  }
  return names;
}

}  // namespace

Result<std::vector<std::string>> resolve_subscription(const std::string& subscription, bool by_pattern,
                                                      const std::vector<log::TopicEntry>& topics) {
  if (by_pattern) return resolve_pattern(subscription, topics);
  std::set<std::string> wanted;
  for (std::size_t begin = 0; begin < subscription.size();) {
    const std::size_t end = std::min(subscription.find('\n', begin), subscription.size());
    wanted.insert(subscription.substr(begin, end - begin));
    begin = end + 1;
  }
  std::vector<std::string> names;
  for (const log::TopicEntry& topic : topics)
    if (wanted.contains(topic.name)) names.push_back(topic.name);
  return names;
}

AssignmentInput load_assignment_input(const shm::Control& control, std::uint32_t group,
                                      const std::vector<log::TopicEntry>& topics,
                                      const std::set<std::uint32_t>* members) {
  AssignmentInput input;
  std::set<std::string> subscribed;
  std::map<std::uint32_t, std::size_t> member_of_owner;
  const auto slots = static_cast<std::uint32_t>(control.slots().size());
  for (std::uint32_t slot = 0; slot < slots; ++slot) {
    if (members != nullptr && !members->contains(slot)) continue;
    const shm::Member& member = control.member(slot);
    if (member.group.load(memory_order_acquire) != group + 1 ||  // SYNC: pairs with the coordinator's store
        member.status.load(memory_order_relaxed) != static_cast<std::uint32_t>(shm::MemberStatus::joined))
      continue;
    auto names = resolve_subscription(member.subscription.load(),
                                      member.by_pattern.load(memory_order_relaxed) != 0, topics);
    if (!names) names = std::vector<std::string>();
    subscribed.insert(names->begin(), names->end());
    member_of_owner[slot + 1] = input.members.size();
    input.members.push_back({member_id_of(control, slot), member.client_id.load(), std::move(*names), {}});
    input.slots.push_back(slot);
  }
  std::map<std::uint64_t, const log::TopicEntry*> by_id;
  for (const log::TopicEntry& topic : topics) {
    by_id[topic.topic_id] = &topic;
    if (subscribed.contains(topic.name)) input.topics.push_back({topic.name, topic.partitions});
  }
  const shm::GroupTableLayout& table = control.groups();
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_acquire), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    const std::uint32_t word = table.assignments[i].load(memory_order_acquire);  // SYNC: pairs with rebalance
    if (word == 0 || shm::assignment_group(word) != group) continue;
    const shm::GroupPartition& entry = table.partitions[i];
    const auto topic = by_id.find(entry.topic_id.load(memory_order_relaxed));
    if (topic == by_id.end()) continue;
    TopicPartition partition{topic->second->name, PartitionId(entry.partition.load(memory_order_relaxed))};
    // Who is meant to have it, rather than who has it still: so a quick second change moves no more.
    const std::uint32_t owner = shm::assignment_owner(word);
    if (const auto member = member_of_owner.find(owner); member != member_of_owner.end())
      input.members[member->second].owned.push_back(partition);
    input.entries.emplace(std::move(partition), i);
  }
  for (GroupMember& member : input.members) std::ranges::sort(member.owned);
  return input;
}

Result<AssignmentInput> load_assignment_input(const log::Attachment& attachment, std::uint32_t group) {
  auto topics = attachment.catalog().list_topics();
  if (!topics) return std::unexpected(topics.error());
  return load_assignment_input(attachment.control(), group, *topics);
}

}  // namespace ringtail::groups
