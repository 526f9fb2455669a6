// States of clusters, made by hand and at random.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <utility>

#include "unit/replication/replication_test_support.h"

namespace ringtail::replication {

// Registered, and alive unless told otherwise.
inline void add_node(ClusterState& state, NodeRecord record, bool alive = true) {
  const NodeId id = record.id;
  if (alive) state.live[id] = record.incarnation;
  state.nodes[id] = {std::move(record), 1};
}

inline void add_partition(ClusterState& state, PartitionRecord record) {
  const TopicPartition name{record.topic, record.partition};
  state.partitions[name] = {std::move(record), 1};
}

// Up to 12 nodes on up to 4 racks, some of them dead, draining, or in another life; and partitions that are in
// whatever state.
inline ClusterState random_cluster(std::mt19937_64& random) {
  ClusterState state;
  const auto nodes = static_cast<std::uint32_t>(1 + random() % 12);
  const std::uint64_t racks = 1 + random() % 4;
  for (std::uint32_t id = 1; id <= nodes; ++id) {
    NodeRecord record = node_record(id, "rack" + std::to_string(random() % racks));
    record.draining = random() % 5 == 0;
    if (random() % 6 == 0) record.life = "ffff";
    if (random() % 6 == 0) record.incarnation += 1;
    add_node(state, std::move(record), random() % 4 != 0);
  }
  for (std::uint32_t i = 0; i < 10; ++i) {
    std::vector<std::uint32_t> replicas;
    for (std::uint32_t id = 1; id <= nodes; ++id) replicas.push_back(id);
    std::ranges::shuffle(replicas, random);
    replicas.resize(1 + random() % std::min<std::size_t>(nodes, 4));
    PartitionRecord record = partition_record("t", i, replicas);
    if (random() % 3 == 0) record.isr.pop_back();
    if (random() % 6 == 0) record.leader.reset();
    add_partition(state, std::move(record));
  }
  return state;
}

}  // namespace ringtail::replication
