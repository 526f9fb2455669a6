// Where replicas of new partitions come to be.
#include "replication/placement.h"

#include <algorithm>
#include <map>
#include <random>
#include <ranges>
#include <set>

#include "support/crash_process.h"
#include "unit/replication/cluster_test_support.h"

namespace ringtail::replication {
namespace {

using ::testing::HasSubstr;

using Placed = std::vector<std::vector<NodeId>>;

struct Counts {
  std::map<NodeId, std::int64_t> replicas;
  std::map<NodeId, std::int64_t> leaders;
};

Counts count(const ClusterState& state, const Placed& placed) {
  Counts counts;
  for (const auto& [id, node] : state.nodes) {
    if (find_live(state, id) == nullptr || node.record.draining) continue;
    counts.replicas[id] = counts.leaders[id] = 0;
  }
  for (const auto& replicas : placed) {
    ++counts.leaders.at(replicas.front());
    for (const NodeId node : replicas) ++counts.replicas.at(node);
  }
  return counts;
}

std::int64_t spread(const std::map<NodeId, std::int64_t>& counts) {
  const auto [least, most] = std::ranges::minmax(counts | std::views::values);
  return most - least;
}

std::size_t racks_of(const ClusterState& state, const std::vector<NodeId>& nodes) {
  std::set<std::string> racks;
  for (const NodeId node : nodes) racks.insert(state.nodes.at(node).record.rack);
  return racks.size();
}

TEST(PlacementTest, NeverPutsTwoReplicasOnOneNodeAndUsesAsManyRacksAsThereAre) {
  std::mt19937_64 random(test::print_seed());
  for (int round = 0; round < 300; ++round) {
    const ClusterState state = random_cluster(random);
    std::vector<NodeId> usable;
    for (const auto& [id, node] : state.nodes)
      if (find_live(state, id) != nullptr && !node.record.draining) usable.push_back(id);
    const auto factor = static_cast<std::uint32_t>(1 + random() % 5);
    const auto placed = place_replicas(state, static_cast<std::uint32_t>(1 + random() % 40), factor);
    ASSERT_EQ(placed.has_value(), usable.size() >= factor);
    if (!placed) {
      EXPECT_EQ(placed.error().code, Code::not_enough_replicas);
      continue;
    }
    const std::size_t racks = std::min<std::size_t>(factor, racks_of(state, usable));
    for (const auto& replicas : *placed) {
      ASSERT_EQ(replicas.size(), factor);
      ASSERT_EQ(std::set(replicas.begin(), replicas.end()).size(), factor);
      for (const NodeId node : replicas) ASSERT_TRUE(std::ranges::find(usable, node) != usable.end());
      ASSERT_EQ(racks_of(state, replicas), racks) << "round " << round;
    }
  }
}

TEST(PlacementTest, NodesAlikeGetAsManyReplicasAndLeadershipsAsEachOtherGiveOrTakeOne) {
  std::mt19937_64 random(test::print_seed());
  for (int round = 0; round < 300; ++round) {
    const auto racks = static_cast<std::uint32_t>(1 + random() % 4);
    const auto nodes_of_rack = static_cast<std::uint32_t>(1 + random() % 4);
    ClusterState state;
    for (std::uint32_t i = 0; i < racks * nodes_of_rack; ++i)
      add_node(state, node_record(i + 1, "rack" + std::to_string(i % racks)));
    // As many on each rack, so that spreading over racks and over nodes do not contradict each other.
    const auto factor =
        static_cast<std::uint32_t>(racks == 1 ? 1 + random() % nodes_of_rack : 1 + random() % racks);
    const auto partitions = static_cast<std::uint32_t>(1 + random() % 60);
    const auto placed = place_replicas(state, partitions, factor);
    ASSERT_TRUE(placed);
    const Counts counts = count(state, *placed);
    ASSERT_LE(spread(counts.replicas), 1)
        << racks << " racks of " << nodes_of_rack << ", " << factor << " of " << partitions;
    ASSERT_LE(spread(counts.leaders), 1)
        << racks << " racks of " << nodes_of_rack << ", " << factor << " of " << partitions;
    ASSERT_EQ(place_replicas(state, partitions, factor), *placed);  // whoever decides decides alike
  }
}

TEST(PlacementTest, CountsWhatNodesHaveAlready) {
  ClusterState state;
  for (std::uint32_t id = 1; id <= 3; ++id) add_node(state, node_record(id));
  for (std::uint32_t i = 0; i < 6; ++i) add_partition(state, partition_record("t", i, {i % 2 + 1}));
  const auto placed = place_replicas(state, 3, 1);
  ASSERT_TRUE(placed);
  EXPECT_EQ(*placed, Placed(3, {NodeId(3)}));
}

TEST(PlacementTest, LeadershipsOfANodeThatDiesGoToMany) {
  ClusterState state;
  for (std::uint32_t id = 1; id <= 4; ++id) add_node(state, node_record(id));
  const auto placed = place_replicas(state, 24, 2);
  ASSERT_TRUE(placed);
  std::set<NodeId> successors;
  for (const auto& replicas : *placed)
    if (replicas.front() == NodeId(1)) successors.insert(replicas.back());
  EXPECT_EQ(successors.size(), 3u);
}

TEST(PlacementTest, TellsHowManyNodesAreMissing) {
  ClusterState state;
  add_node(state, node_record(1));
  NodeRecord draining = node_record(2);
  draining.draining = true;
  add_node(state, draining);
  const auto placed = place_replicas(state, 1, 3);
  ASSERT_FALSE(placed);
  EXPECT_THAT(placed.error().message, HasSubstr("3 replicas"));
  EXPECT_THAT(placed.error().message, HasSubstr("1 are alive"));
  EXPECT_EQ(place_replicas(state, 1, 0).error().code, Code::invalid_argument);
}

}  // namespace
}  // namespace ringtail::replication
