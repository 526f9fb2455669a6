// Groups made up for tests of assignors, and what is counted of an assignment.
#pragma once

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ringtail/assignor.h"

namespace ringtail {

inline TopicPartition tp(std::string topic, std::uint32_t partition) {
  return {std::move(topic), PartitionId(partition)};
}

inline GroupMember member(std::string id, std::vector<std::string> topics,
                          std::vector<TopicPartition> owned = {}) {
  return {.id = std::move(id), .client_id = {}, .topics = std::move(topics), .owned = std::move(owned)};
}

struct Group {
  std::vector<GroupMember> members;
  std::vector<GroupTopic> topics;
};

inline Assignment assign(const Assignor& assignor, const Group& group) {
  Assignment assignment = assignor.assign(group.members, group.topics);
  const Status checked = check_assignment(group.members, group.topics, assignment);
  EXPECT_TRUE(checked) << to_string(checked.error());
  return assignment;
}

// Gives the members what was assigned to them.
inline void adopt(Group& group, const Assignment& assignment) {
  for (std::size_t m = 0; m < group.members.size(); ++m) group.members[m].owned = assignment[m];
}

inline bool may_have(const GroupMember& candidate, const TopicPartition& partition) {
  return std::ranges::binary_search(candidate.topics, partition.topic);
}

// How many partitions go to a member that did not have them, while another that may keep them had.
inline std::size_t moves(const Group& group, const Assignment& assignment) {
  std::size_t count = 0;
  for (std::size_t m = 0; m < assignment.size(); ++m) {
    for (const TopicPartition& partition : assignment[m]) {
      const auto had = [&](const GroupMember& one) {
        return may_have(one, partition) && std::ranges::binary_search(one.owned, partition);
      };
      if (!had(group.members[m]) && std::ranges::any_of(group.members, had)) ++count;
    }
  }
  return count;
}

inline std::vector<std::size_t> loads(const Assignment& assignment) {
  std::vector<std::size_t> counts;
  for (const auto& partitions : assignment) counts.push_back(partitions.size());
  return counts;
}

inline std::size_t squares(const std::vector<std::size_t>& counts) {
  std::size_t sum = 0;
  for (const std::size_t count : counts) sum += count * count;
  return sum;
}

inline std::size_t assigned(const Assignment& assignment) {
  std::size_t count = 0;
  for (const auto& partitions : assignment) count += partitions.size();
  return count;
}

// How many partitions have somebody who may have them.
inline std::size_t assignable(const Group& group) {
  std::size_t count = 0;
  for (const GroupTopic& topic : group.topics) {
    const auto wants = [&](const GroupMember& one) { return may_have(one, tp(topic.name, 0)); };
    if (std::ranges::any_of(group.members, wants)) count += topic.partitions;
  }
  return count;
}

using Random = std::mt19937_64;

// A generator that differs with each run, and says how to have the same again.
inline Random make_random() {
  const std::uint64_t seed = std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return Random(seed);
}

inline std::size_t up_to(Random& random, std::size_t most) {
  return std::uniform_int_distribution<std::size_t>(0, most)(random);
}

// "m07": in the order of the numbers, up to 99.
inline std::string numbered(std::string name, std::size_t number) {
  return name + (number < 10 ? "0" : "") + std::to_string(number);
}

// Topics t00, t01, ...; members m00, m01, ..., that subscribe to all of them or to any.
struct GroupShape {
  std::size_t most_members = 8;
  std::size_t most_topics = 4;
  std::size_t most_partitions = 12;
  bool equal = true;
};

inline Group random_group(Random& random, const GroupShape& shape) {
  Group group;
  const std::size_t topics = 1 + up_to(random, shape.most_topics - 1);
  for (std::size_t t = 0; t < topics; ++t) {
    const auto partitions = static_cast<std::uint32_t>(up_to(random, shape.most_partitions));
    group.topics.push_back({numbered("t", t), partitions});
  }
  const std::size_t members = 1 + up_to(random, shape.most_members - 1);
  for (std::size_t m = 0; m < members; ++m) {
    std::vector<std::string> wanted;
    for (const GroupTopic& topic : group.topics) {
      if (shape.equal || up_to(random, 1) == 0) wanted.push_back(topic.name);
    }
    group.members.push_back(member(numbered("m", m), wanted));
  }
  return group;
}

// Gives every partition to one member, to two who both claim it, or to nobody; also ones that do not exist.
inline void give_at_random(Random& random, Group& group) {
  for (const GroupTopic& topic : group.topics) {
    for (std::uint32_t p = 0; p < topic.partitions + 1; ++p) {
      for (std::size_t claims = up_to(random, 9) == 0   ? 2
                                : up_to(random, 3) == 0 ? 0
                                                        : 1;
           claims > 0; --claims) {
        auto& owned = group.members[up_to(random, group.members.size() - 1)].owned;
        if (std::ranges::find(owned, tp(topic.name, p)) == owned.end()) owned.push_back(tp(topic.name, p));
      }
    }
  }
  for (GroupMember& one : group.members) std::ranges::sort(one.owned);
}

}  // namespace ringtail
