// What is shown of a cluster whose records lag behind what has happened.
#include "daemon/cluster_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace ringtail::daemon {
namespace {

using namespace ringtail::replication;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::IsEmpty;
using ::testing::Optional;

const TopicPartition kOrders{"orders", PartitionId(0)};

// Three nodes that live, of which 2 leads; all replicas are in sync.
ClusterState three_nodes() {
  ClusterState state;
  for (std::uint32_t id = 1; id <= 3; ++id) {
    NodeRecord node;
    node.id = NodeId(id);
    node.incarnation = id * 100;
    state.nodes[node.id] = {node, 1};
    state.live[node.id] = node.incarnation;
  }
  PartitionRecord record;
  record.topic = kOrders.topic;
  record.replicas = {NodeId(2), NodeId(1), NodeId(3)};
  for (const NodeId node : record.replicas) record.isr.push_back({node, "life"});
  record.leader = NodeId(2);
  record.leader_incarnation = 200;
  record.leader_epoch = LeaderEpoch(4);
  state.partitions[kOrders] = {record, 1};
  return state;
}

// As a replicator tells it: the partition as its record says.
monitor::ReplicaFigures orders_in(const ClusterState& state) {
  const PartitionRecord& record = state.partitions.at(kOrders).record;
  ReplicaStatus one;
  one.partition = kOrders;
  one.epoch = record.leader_epoch;
  one.leader = record.leader;
  one.replicas = record.replicas;
  for (const IsrMember& member : record.isr) one.isr.push_back(member.node);
  one.elections = 3;
  one.lag = {{NodeId(3), 17}};
  ReplicatorStatus status;
  status.cluster = std::make_shared<ClusterState>(state);
  status.partitions = {one};
  const monitor::ClusterFigures figures = cluster_figures("main", status, NodeId(1));
  EXPECT_EQ(figures.partitions.size(), 1u);
  return figures.partitions.empty() ? monitor::ReplicaFigures() : figures.partitions.front();
}

TEST(ClusterFiguresTest, ShowAPartitionAsItsRecordHasIt) {
  const monitor::ReplicaFigures orders = orders_in(three_nodes());
  EXPECT_EQ(orders.topic, "orders");
  EXPECT_THAT(orders.leader, Optional(2u));
  EXPECT_THAT(orders.replicas, ElementsAre(2, 1, 3));
  EXPECT_THAT(orders.isr, ElementsAre(2, 1, 3));
  EXPECT_EQ(orders.epoch, LeaderEpoch(4));
  EXPECT_EQ(orders.elections, 3u);
  EXPECT_THAT(orders.lag_records, ElementsAre(::testing::Pair(3, 17)));
}

TEST(ClusterFiguresTest, WhoIsDeadNeitherLeadsNorIsInSync) {
  ClusterState state = three_nodes();
  state.live.erase(NodeId(2));
  const monitor::ReplicaFigures orders = orders_in(state);
  EXPECT_THAT(orders.leader, Eq(std::nullopt));
  EXPECT_THAT(orders.replicas, ElementsAre(2, 1, 3));
  EXPECT_THAT(orders.isr, ElementsAre(1, 3));
}

TEST(ClusterFiguresTest, WhoBeganAnewLeadsOnlyOnceItWasElected) {
  ClusterState state = three_nodes();
  state.nodes.at(NodeId(2)).record.incarnation = state.live.at(NodeId(2)) = 201;
  EXPECT_THAT(orders_in(state).leader, Eq(std::nullopt));
  state.partitions.at(kOrders).record.leader_incarnation = 201;
  EXPECT_THAT(orders_in(state).leader, Optional(2u));
}

TEST(ClusterFiguresTest, ShowWhoLivesAndWhyThereIsNoConnection) {
  ReplicatorStatus status;
  ClusterState state = three_nodes();
  state.live.erase(NodeId(3));
  status.cluster = std::make_shared<ClusterState>(state);
  status.peers = {{NodeId(2), kConnected}, {NodeId(3), "refused"}};
  const monitor::ClusterFigures figures = cluster_figures("main", status, NodeId(1));
  EXPECT_EQ(figures.name, "main");
  EXPECT_THAT(figures.partitions, IsEmpty());
  ASSERT_EQ(figures.nodes.size(), 3u);
  EXPECT_TRUE(figures.nodes[0].self);
  EXPECT_TRUE(figures.nodes[1].live);
  EXPECT_EQ(figures.nodes[1].trouble, "");
  EXPECT_FALSE(figures.nodes[2].live);
  EXPECT_EQ(figures.nodes[2].trouble, "refused");
}

}  // namespace
}  // namespace ringtail::daemon
