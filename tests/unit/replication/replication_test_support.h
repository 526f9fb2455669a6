// Records for tests.
#pragma once

#include <gmock/gmock.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "replication/coordinator.h"

namespace ringtail::replication {

inline NodeRecord node_record(std::uint32_t id, std::string rack = "", std::uint64_t incarnation = 0) {
  return {.id = NodeId(id),
          .incarnation = incarnation != 0 ? incarnation : 0xabc0'0000 + id,
          .started_ns = 1'700'000'000'000'000'000,
          .replication = {"10.0.0." + std::to_string(id), 9'290},
          .http = {"10.0.0." + std::to_string(id), 9'464},
          .rack = std::move(rack),
          .log_id = to_hex(std::uint64_t{id}) + to_hex(std::uint64_t{id}),
          .life = to_hex(std::uint64_t{id}),
          .draining = false,
          .release = "0.1.0"};
}

inline TopicRecord topic_record(std::string name) {
  return {.name = std::move(name),
          .topic_id = 0xfedc'ba98'7654'3210,
          .partitions = 3,
          .replication_factor = 2,
          .configs = {{"retention.ms", "-1"}, {"storage", "disk"}},
          .created_ns = 1'700'000'000'000'000'001};
}

// All replicas are in the ISR, in the lives of node_record; the first leads.
inline PartitionRecord partition_record(std::string topic, std::uint32_t partition,
                                        const std::vector<std::uint32_t>& replicas) {
  PartitionRecord record{.topic = std::move(topic),
                         .topic_id = 0xfedc'ba98'7654'3210,
                         .partition = PartitionId(partition),
                         .replicas = {},
                         .isr = {},
                         .leader = NodeId(replicas.front()),
                         .leader_incarnation = node_record(replicas.front()).incarnation,
                         .leader_epoch = LeaderEpoch(4),
                         .partition_epoch = 9,
                         .unclean = false,
                         .adding = {},
                         .removing = {}};
  for (const std::uint32_t id : replicas) {
    record.replicas.emplace_back(id);
    record.isr.push_back({NodeId(id), node_record(id).life});
  }
  return record;
}

}  // namespace ringtail::replication
