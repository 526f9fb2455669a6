// What a rebalance costs its coordinator: 1,000 partitions and 64 members, the first time, when one joins
// and when one leaves.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "ringtail/assignor.h"

namespace ringtail::bench {
namespace {

constexpr std::size_t kMembers = 64;
constexpr std::uint32_t kTopics = 10;
constexpr std::uint32_t kPartitions = 100;

struct Group {
  std::vector<GroupMember> members;
  std::vector<GroupTopic> topics;
};

GroupMember member(std::size_t number, const Group& group) {
  GroupMember made{.id = "member-" + std::to_string(number), .client_id = {}, .topics = {}, .owned = {}};
  for (const GroupTopic& topic : group.topics) made.topics.push_back(topic.name);
  return made;
}

Group group_of(std::size_t members) {
  Group group;
  for (std::uint32_t t = 0; t < kTopics; ++t)
    group.topics.push_back({"topic-" + std::to_string(t), kPartitions});
  for (std::size_t m = 0; m < members; ++m) group.members.push_back(member(m, group));
  return group;
}

// A group that has what `assignor` gave it.
Group settled_group(const Assignor& assignor) {
  Group group = group_of(kMembers);
  const Assignment assignment = assignor.assign(group.members, group.topics);
  for (std::size_t m = 0; m < kMembers; ++m) group.members[m].owned = assignment[m];
  return group;
}

void measure(benchmark::State& state, const Assignor& assignor, const Group& group) {
  for (auto _ : state) benchmark::DoNotOptimize(assignor.assign(group.members, group.topics));
}

void full(benchmark::State& state, const Assignor& assignor) { measure(state, assignor, group_of(kMembers)); }

void one_joins(benchmark::State& state, const Assignor& assignor) {
  Group group = settled_group(assignor);
  group.members.push_back(member(kMembers, group));
  measure(state, assignor, group);
}

void one_leaves(benchmark::State& state, const Assignor& assignor) {
  Group group = settled_group(assignor);
  group.members.erase(group.members.begin() + kMembers / 2);
  measure(state, assignor, group);
}

// Each member subscribes to half of the topics, each to other ones, and one had all it may have.
void unequal(benchmark::State& state, const Assignor& assignor) {
  Group group = group_of(kMembers);
  for (std::size_t m = 0; m < kMembers; ++m) {
    std::size_t bit = 0;
    std::erase_if(group.members[m].topics,
                  [&](const std::string&) { return (m * 37 >> bit++ % 6 & 1) != 0; });
  }
  for (const std::string& topic : group.members.front().topics)
    for (std::uint32_t p = 0; p < kPartitions; ++p)
      group.members.front().owned.push_back({topic, PartitionId(p)});
  measure(state, assignor, group);
}

BENCHMARK_CAPTURE(full, range, range_assignor());
BENCHMARK_CAPTURE(full, roundrobin, round_robin_assignor());
BENCHMARK_CAPTURE(full, sticky, sticky_assignor());
BENCHMARK_CAPTURE(one_joins, range, range_assignor());
BENCHMARK_CAPTURE(one_joins, roundrobin, round_robin_assignor());
BENCHMARK_CAPTURE(one_joins, sticky, sticky_assignor());
BENCHMARK_CAPTURE(one_leaves, range, range_assignor());
BENCHMARK_CAPTURE(one_leaves, roundrobin, round_robin_assignor());
BENCHMARK_CAPTURE(one_leaves, sticky, sticky_assignor());
BENCHMARK_CAPTURE(unequal, sticky, sticky_assignor());

}  // namespace
}  // namespace ringtail::bench
