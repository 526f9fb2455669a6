// Who leads a partition, and how one moves to other nodes.
#include <map>

#include "replication/placement.h"
#include "replication/records.h"
#include "support/crash_process.h"
#include "unit/replication/cluster_test_support.h"
#include "unit/replication/nodes.h"

namespace ringtail::replication {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Nodes 1 to 4, alive; a partition on 1, 2 and 3, led by 1.
class ElectionTest : public ::testing::Test {
 protected:
  ElectionTest() {
    for (std::uint32_t id = 1; id <= 4; ++id) add_node(state_, node_record(id));
  }

  void kill(NodeId id) { state_.live.erase(id); }
  void drain(NodeId id) { state_.nodes.at(id).record.draining = true; }
  // Its daemon began anew; what it had in memory only is lost when its host crashed.
  void restart(NodeId id, bool host_crashed) {
    NodeRecord& record = state_.nodes.at(id).record;
    record.incarnation += 1'000;
    if (host_crashed) record.life = "beef";
    state_.live[id] = record.incarnation;
  }
  void leave_isr(NodeId id) {
    std::erase_if(record_.isr, [&](const IsrMember& member) { return member.node == id; });
  }
  std::optional<PartitionRecord> elected(bool unclean = false) const {
    return elect(record_, state_, unclean);
  }

  ClusterState state_;
  PartitionRecord record_ = partition_record("t", 0, {1, 2, 3});
};

TEST_F(ElectionTest, ALeaderThatLivesStays) {
  EXPECT_TRUE(is_led(record_, state_));
  EXPECT_EQ(elected(), std::nullopt);
  kill(kTwo);
  EXPECT_EQ(elected(true), std::nullopt);
}

TEST_F(ElectionTest, TheFirstReplicaThatLivesAndIsInSyncSucceedsADeadLeader) {
  kill(kOne);
  EXPECT_FALSE(is_led(record_, state_));
  const auto next = elected();
  ASSERT_TRUE(next);
  PartitionRecord expected = record_;
  expected.leader = kTwo;
  expected.leader_incarnation = node_record(2).incarnation;
  expected.leader_epoch = record_.leader_epoch + 1;
  expected.partition_epoch = record_.partition_epoch + 1;
  EXPECT_EQ(*next, expected);  // the ISR with its dead member is the new leader's to shrink
  EXPECT_EQ(elect(*next, state_, true), std::nullopt);
  leave_isr(kTwo);
  EXPECT_EQ(elected()->leader, kThree);
  drain(kThree);
  EXPECT_EQ(elected()->leader, kThree);  // better than nobody
}

TEST_F(ElectionTest, ALeaderThatBeganAnewIsElectedAnewIfItHasLostNothing) {
  restart(kOne, false);
  const auto next = elected();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->leader, kOne);
  EXPECT_EQ(next->leader_incarnation, state_.live.at(kOne));
  EXPECT_EQ(next->leader_epoch, record_.leader_epoch + 1);
  EXPECT_THAT(next->isr, SizeIs(3));
}

TEST_F(ElectionTest, ALeaderWhoseHostCrashedIsNoLongerInSync) {
  restart(kOne, true);
  const auto next = elected();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->leader, kTwo);
  EXPECT_THAT(next->isr, ElementsAre(record_.isr[1], record_.isr[2]));
}

TEST_F(ElectionTest, ADrainingLeaderHandsOverIfAnotherCanLead) {
  drain(kOne);
  EXPECT_EQ(elected()->leader, kTwo);
  drain(kTwo);
  EXPECT_EQ(elected()->leader, kThree);
  drain(kThree);
  EXPECT_EQ(elected(true), std::nullopt);
  leave_isr(kTwo);
  leave_isr(kThree);
  EXPECT_EQ(elected(true), std::nullopt);
}

// He may give it away because he cannot lead; and so may the next one.
TEST_F(ElectionTest, EachReplicaHasItsTurnWhenLeadersGiveTheLeadershipAway) {
  std::vector<NodeId> leaders;
  for (int i = 0; i < 3; ++i) {
    const NodeId leader = *record_.leader;
    drain(leader);
    record_ = elected().value();
    state_.nodes.at(leader).record.draining = false;
    leaders.push_back(*record_.leader);
  }
  EXPECT_THAT(leaders, ElementsAre(kTwo, kThree, kOne));
  drain(kOne);
  kill(kTwo);
  EXPECT_EQ(elected()->leader, kThree);
  // Of one that is gone, nothing is known: the record's order counts.
  record_.leader = kTwo;
  EXPECT_EQ(elected()->leader, kThree);
  state_.nodes.at(kOne).record.draining = false;
  EXPECT_EQ(elected()->leader, kOne);
}

TEST_F(ElectionTest, WithoutAReplicaInSyncNobodyLeadsUnlessLossIsAllowed) {
  leave_isr(kTwo);
  leave_isr(kThree);
  kill(kOne);
  EXPECT_EQ(elected(), std::nullopt);
  drain(kTwo);
  const auto next = elected(true);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->leader, kThree);
  EXPECT_TRUE(next->unclean);
  EXPECT_THAT(next->isr, ElementsAre(IsrMember{kThree, node_record(3).life}));
  EXPECT_EQ(next->leader_epoch, record_.leader_epoch + 1);
  kill(kThree);
  EXPECT_EQ(elected(true)->leader, kTwo);
  kill(kTwo);
  EXPECT_EQ(elected(true), std::nullopt);
}

TEST_F(ElectionTest, HoldsForAnyCluster) {
  std::mt19937_64 random(test::print_seed());
  int clean = 0;
  int unclean = 0;
  for (int round = 0; round < 2'000; ++round) {
    const ClusterState state = random_cluster(random);
    for (const auto& [name, stored] : state.partitions) {
      const PartitionRecord& before = stored.record;
      const auto next = elect(before, state, true);
      if (!next) continue;
      ASSERT_TRUE(check_record({*next}));
      ASSERT_TRUE(is_led(*next, state));
      ASSERT_EQ(next->leader_epoch, before.leader_epoch + 1);
      ASSERT_EQ(next->partition_epoch, before.partition_epoch + 1);
      ASSERT_EQ(next->replicas, before.replicas);
      const IsrMember leader{*next->leader, state.nodes.at(*next->leader).record.life};
      ASSERT_THAT(next->isr, ::testing::Contains(leader));
      const bool was_in_sync = std::ranges::find(before.isr, leader) != before.isr.end();
      ASSERT_EQ(next->unclean, !was_in_sync);
      ++(next->unclean ? unclean : clean);
      if (next->unclean) {
        ASSERT_EQ(elect(before, state, false), std::nullopt);
        ASSERT_THAT(next->isr, SizeIs(1));
      }
      for (const IsrMember& member : next->isr)
        ASSERT_TRUE(next->unclean || std::ranges::find(before.isr, member) != before.isr.end());
    }
  }
  EXPECT_GT(clean, 0);
  EXPECT_GT(unclean, 0);
}

TEST_F(ElectionTest, LeadershipsGoBackToPreferredLeadersThatCanLead) {
  for (std::uint32_t i = 0; i < 4; ++i) {
    PartitionRecord record = partition_record("t", i, {1, 2, 3});
    record.leader = kTwo;
    record.leader_incarnation = node_record(2).incarnation;
    if (i == 1) record.isr.erase(record.isr.begin());  // not in sync
    if (i == 2) record.leader_incarnation = 5;         // not led: a matter of elect
    add_partition(state_, std::move(record));
  }
  add_partition(state_, partition_record("u", 0, {1, 2}));  // led by it already
  auto moves = move_to_preferred_leaders(state_, 10);
  ASSERT_THAT(moves, SizeIs(2));
  EXPECT_EQ(moves[0].partition, PartitionId(0));
  EXPECT_EQ(moves[1].partition, PartitionId(3));
  EXPECT_EQ(moves[0].leader, kOne);
  EXPECT_EQ(moves[0].leader_epoch, LeaderEpoch(5));
  EXPECT_THAT(move_to_preferred_leaders(state_, 1), SizeIs(1));
  drain(kOne);
  EXPECT_THAT(move_to_preferred_leaders(state_, 10), IsEmpty());
}

TEST_F(ElectionTest, AReassignmentAddsWaitsHandsOverAndThenRemoves) {
  const auto begun = begin_reassignment(record_, state_, std::vector{kFour, kTwo});
  ASSERT_TRUE(begun);
  EXPECT_THAT(begun->replicas, ElementsAre(kFour, kTwo, kOne, kThree));
  EXPECT_THAT(begun->adding, ElementsAre(kFour));
  EXPECT_THAT(begun->removing, ElementsAre(kOne, kThree));
  EXPECT_EQ(begun->partition_epoch, record_.partition_epoch + 1);
  EXPECT_EQ(begun->leader, kOne);
  EXPECT_TRUE(check_record({*begun}));
  EXPECT_EQ(step_reassignment(*begun, state_), std::nullopt);  // 4 has nothing yet

  PartitionRecord caught_up = *begun;
  caught_up.isr.push_back({kFour, "another life"});
  EXPECT_EQ(step_reassignment(caught_up, state_), std::nullopt);
  caught_up.isr.back().life = node_record(4).life;
  const auto handed_over = step_reassignment(caught_up, state_);
  ASSERT_TRUE(handed_over);
  EXPECT_EQ(handed_over->leader, kFour);
  EXPECT_EQ(handed_over->leader_epoch, record_.leader_epoch + 1);
  const auto done = step_reassignment(*handed_over, state_);
  ASSERT_TRUE(done);
  EXPECT_THAT(done->replicas, ElementsAre(kFour, kTwo));
  EXPECT_THAT(done->isr, ElementsAre(record_.isr[1], IsrMember{kFour, node_record(4).life}));
  EXPECT_THAT(done->adding, IsEmpty());
  EXPECT_THAT(done->removing, IsEmpty());
  EXPECT_EQ(done->leader, kFour);
  EXPECT_EQ(done->leader_epoch, handed_over->leader_epoch);
  EXPECT_EQ(done->partition_epoch, record_.partition_epoch + 3);
  EXPECT_EQ(step_reassignment(*done, state_), std::nullopt);
}

TEST_F(ElectionTest, AReassignmentIsCancelledByTheOldReplicas) {
  const auto begun = begin_reassignment(record_, state_, std::vector{kFour});
  ASSERT_TRUE(begun);
  const auto back = begin_reassignment(*begun, state_, std::vector{kOne, kTwo, kThree});
  ASSERT_TRUE(back);
  EXPECT_THAT(back->adding, IsEmpty());
  EXPECT_THAT(back->removing, ElementsAre(kFour));
  const auto done = step_reassignment(*back, state_);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->replicas, record_.replicas);
  EXPECT_EQ(done->isr, record_.isr);
  EXPECT_EQ(done->leader_epoch, record_.leader_epoch);
}

TEST_F(ElectionTest, WhereItWasIsKeptInItsOrderUntilTheReassignmentEnds) {
  const auto begun = begin_reassignment(record_, state_, std::vector{kTwo, kOne, kFour});
  ASSERT_TRUE(begun);
  EXPECT_EQ(begun->origin, record_.replicas);
  const auto other = begin_reassignment(*begun, state_, std::vector{kFour, kTwo});
  ASSERT_TRUE(other);
  EXPECT_EQ(other->origin, record_.replicas);
  const auto back = begin_reassignment(*other, state_, other->origin);
  ASSERT_TRUE(back);
  const auto done = step_reassignment(*back, state_);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->replicas, record_.replicas);
  EXPECT_THAT(done->origin, IsEmpty());
  EXPECT_THAT(begin_reassignment(*done, state_, std::vector{kTwo, kOne, kThree})->origin, IsEmpty());
}

TEST_F(ElectionTest, WhoIsWantedAgainAfterACancelledReassignmentMustCatchUpAsBefore) {
  const auto begun = begin_reassignment(record_, state_, std::vector{kTwo, kFour});
  ASSERT_TRUE(begun);
  const auto back = begin_reassignment(*begun, state_, record_.replicas);
  ASSERT_TRUE(back);
  const auto again = begin_reassignment(*back, state_, std::vector{kTwo, kFour});
  ASSERT_TRUE(again);
  EXPECT_THAT(again->adding, ElementsAre(kFour));
  EXPECT_EQ(step_reassignment(*again, state_), std::nullopt);
}

TEST_F(ElectionTest, AReplicaThatIsToGoLeadsOnlyIfNobodyElseCan) {
  record_.removing = {kOne, kTwo};
  kill(kOne);
  EXPECT_EQ(elected()->leader, kThree);
  kill(kThree);
  EXPECT_EQ(elected()->leader, kTwo);
}

TEST_F(ElectionTest, AWishForALeaderEndsWhenItLeadsOrIsNoReplicaAnyMore) {
  record_.wanted_leader = kTwo;
  PartitionRecord behind = record_;
  std::swap(behind.replicas[1], behind.replicas[2]);
  kill(kOne);
  EXPECT_EQ(elected()->wanted_leader, std::nullopt);
  EXPECT_EQ(elect(behind, state_, false)->leader, kThree);
  EXPECT_EQ(elect(behind, state_, false)->wanted_leader, kTwo);
  const auto begun = begin_reassignment(behind, state_, std::vector{kOne, kThree});
  ASSERT_TRUE(begun);
  EXPECT_EQ(begun->wanted_leader, kTwo);
  const auto done = step_reassignment(*begun, state_);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->wanted_leader, std::nullopt);
  EXPECT_TRUE(check_record({*done}));
}

TEST_F(ElectionTest, AReassignmentToNobodyOrTwiceOrToStrangersIsRefused) {
  const auto refused = [&](const std::vector<NodeId>& target) {
    const auto begun = begin_reassignment(record_, state_, target);
    return begun ? std::string() : begun.error().message;
  };
  EXPECT_THAT(refused({}), HasSubstr("no node"));
  EXPECT_THAT(refused({kOne, kOne}), HasSubstr("node 1 is named twice"));
  EXPECT_THAT(refused({NodeId(9)}), HasSubstr("there is no node 9"));
  EXPECT_THAT(refused({NodeId(9)}), HasSubstr("t-0"));
}

}  // namespace
}  // namespace ringtail::replication
