// Three hosts, and one thing at a time that happens to them: no acknowledged record is lost, no offset has two
// contents, and somebody leads again.
#include "cluster/scene.h"

namespace ringtail::test {
namespace {

using ::testing::Ne;
using ::testing::Optional;

class FailoverTest : public ClusterTest {};

TEST_F(FailoverTest, AnotherLeadsWhenTheLeaderIsKilled) {
  const int first = *cluster_.leader(kTopic);
  cluster_.kill_node(first);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_for_acks(100);
  cluster_.start_node(first);
  expect_promises_kept();
}

TEST_F(FailoverTest, TheSameHostLeadsWhenItIsBackBeforeItsLeaseHasRunOut) {
  const int first = *cluster_.leader(kTopic);
  cluster_.kill_node(first);
  cluster_.start_node(first);
  wait_for_acks(100);
  expect_promises_kept();
}

TEST_F(FailoverTest, ALeaderThatStandsStillIsReplacedAndLeadsNothingWhenItGoesOn) {
  const int first = *cluster_.leader(kTopic);
  cluster_.signal_node(first, SIGSTOP);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_for_acks(100);
  cluster_.signal_node(first, SIGCONT);
  wait_for_acks(100);
  expect_promises_kept();
}

TEST_F(FailoverTest, AHostThatStandsStillWithAllItsProcessesWakesUpToItsSuccessor) {
  const int first = *cluster_.leader(kTopic);
  signal_actors(first, SIGSTOP);
  cluster_.signal_node(first, SIGSTOP);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_for_acks(100);
  signal_actors(first, SIGCONT);  // its producers are the first to go on
  pause_for(milliseconds(200));
  cluster_.signal_node(first, SIGCONT);
  wait_for_acks(100);
  expect_promises_kept();
}

TEST_F(FailoverTest, ALeaderThatIsToldToEndHandsOver) {
  const int first = *cluster_.leader(kTopic);
  EXPECT_EQ(cluster_.stop_node(first), 0);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_for_acks(100);
  cluster_.start_node(first);
  expect_promises_kept();
}

// As an operator does before he restarts a host.
TEST_F(FailoverTest, ANodeThatIsDrainedLeadsNothingUntilThatIsUndone) {
  const int first = *cluster_.leader(kTopic);
  ASSERT_TRUE(cluster_.create_topic("more", first, configs())) << cluster_.trouble();
  const auto run = [&](std::vector<std::string> command) {
    const std::vector<std::string> at = {"--etcd", cluster_.etcd().endpoint(), "--cluster", "test"};
    command.insert(command.begin(), {"timeout", "90", RINGTAIL_BINARY, "cluster"});
    command.insert(command.end(), at.begin(), at.end());
    return run_command(command);
  };
  const CommandResult drained = run({"drain", std::to_string(first), "--wait"});
  EXPECT_EQ(drained.exit_code, 0) << drained.out << drained.err << cluster_.describe();
  for (const char* const topic : {kTopic, "more"})
    EXPECT_THAT(cluster_.leader(topic), Optional(Ne(first))) << topic << cluster_.describe();
  wait_for_acks(100);
  const CommandResult undone = run({"drain", std::to_string(first), "--undo"});
  EXPECT_EQ(undone.exit_code, 0) << undone.out << undone.err;
  const CommandResult elected = run({"elect", "--topic", kTopic});
  EXPECT_EQ(elected.exit_code, 0) << elected.out << elected.err;
  EXPECT_TRUE(Cluster::wait_until([&] { return cluster_.leader(kTopic) == first; })) << cluster_.describe();
  wait_for_acks(100);
  expect_promises_kept();
}

TEST_F(FailoverTest, NobodyAcknowledgesAnythingWithoutEtcdForLongAndAllGoOnWhenItIsBack) {
  cluster_.etcd().kill();
  pause_for(milliseconds(4'000));  // the lease has run out
  const std::size_t before = acks();
  pause_for(milliseconds(1'000));
  EXPECT_EQ(acks(), before);
  ASSERT_TRUE(cluster_.etcd().start()) << cluster_.etcd().trouble();
  wait_for_acks(100);
  expect_promises_kept();
}

// Nobody has to wait for a lease to run out where a daemon is known to have died.
class LongLeaseTest : public ClusterTest {
 protected:
  LongLeaseTest() : ClusterTest({.daemon = RINGTAILD_BINARY, .lease_ttl = milliseconds(600'000)}) {}
};

TEST_F(LongLeaseTest, ADaemonThatDiesIsReplacedBeforeItsLeaseRunsOut) {
  const int first = *cluster_.leader(kTopic);
  cluster_.kill_node(first);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_for_acks(100);
  cluster_.start_node(first);
  expect_promises_kept();
}

// Its records are in memory, which its daemon's death does not take.
class MemoryFailoverTest : public ClusterTest {
 protected:
  TopicConfigs configs() const override {
    TopicConfigs configs = ClusterTest::configs();
    configs["replica.ack"] = "memory";
    configs["min.insync.replicas"] = "1";
    return configs;
  }
};

TEST_F(MemoryFailoverTest, TheLastOneInSyncLeadsAgainWhenItsDaemonIsBack) {
  const int last = *cluster_.leader(kTopic);
  for (int node = 1; node <= cluster_.size(); ++node)
    if (node != last) cluster_.kill_node(node);
  ASSERT_TRUE(Cluster::wait_until([&] { return cluster_.partition(kTopic)->isr.size() == 1; }))
      << cluster_.describe();
  wait_for_acks(50);
  cluster_.kill_node(last);
  cluster_.start_node(last);
  wait_for_acks(50);
  for (int node = 1; node <= cluster_.size(); ++node)
    if (node != last) cluster_.start_node(node);
  expect_promises_kept();
}

TEST_F(FailoverTest, ALeaderThatIsCutOffIsReplaced) {
  if (cluster_.network() == nullptr) GTEST_SKIP() << cluster_.no_network();
  const int first = *cluster_.leader(kTopic);
  cluster_.network()->isolate(first);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_for_acks(100);
  cluster_.network()->rejoin(first);
  expect_promises_kept();
}

// Its lease stands, and it sends; but it hears neither of its followers.
TEST_F(FailoverTest, ALeaderThatNobodyAnswersShrinksTheIsrAndNothingIsLost) {
  if (cluster_.network() == nullptr) GTEST_SKIP() << cluster_.no_network();
  const int first = *cluster_.leader(kTopic);
  const int other = first % cluster_.size() + 1;
  cluster_.network()->cut(other, first);
  wait_for_acks(100);
  cluster_.network()->heal(other, first);
  expect_promises_kept();
}

}  // namespace
}  // namespace ringtail::test
