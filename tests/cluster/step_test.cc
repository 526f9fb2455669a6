// A daemon dies, or stands still for longer than its lease, right before or behind one of the system calls by which it
// writes, syncs, renames and sends: as the leader that ships, as a follower that is shipped to, and as the one that is
// being elected. Nothing that was acknowledged is lost, and the hosts' logs end alike.
//
// RINGTAIL_CRASH_STEPS: how many of them (one a test unless told). RINGTAIL_SEED repeats a run.
#include <random>

#include "cluster/scene.h"
#include "support/crash_process.h"
#include "support/tracer.h"

namespace ringtail::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<long, 14> kDaemonCalls{
    SYS_pwrite64, SYS_fdatasync, SYS_fsync,  SYS_io_uring_enter, SYS_fallocate, SYS_ftruncate, SYS_renameat,
    SYS_unlinkat, SYS_linkat,    SYS_openat, SYS_rename,         SYS_sendmsg,   SYS_sendto,    SYS_write};

class StepTest : public ClusterTest {
 protected:
  void SetUp() override {
    random_.seed(print_seed());
    ClusterTest::SetUp();
  }

  static std::uint64_t rounds() { return number_from_environment("RINGTAIL_CRASH_STEPS", 1); }

  // Leads a daemon to a call of its own choosing, some way on.
  std::unique_ptr<Tracer> stop_somewhere(int node) {
    auto tracer = std::make_unique<Tracer>(cluster_.pid_of(node), kDaemonCalls);
    EXPECT_TRUE(tracer->is_tracing());
    const std::uint64_t aim = 1 + random_() % 150;
    // Who has nothing to do makes no calls.
    const auto until = Clock::now() + milliseconds(1'500);
    std::string last = "no call";
    const std::uint64_t met = tracer->lead(
        aim,
        [&](const Call& call) {
          last = (call.ended ? "the end of " : "the beginning of ") + name_of_call(call.number);
          return true;
        },
        [&] { return Clock::now() > until; });
    std::printf("[ stop     ] node %d, at stop %lu: %s\n", node, met, last.c_str());
    return tracer;
  }
  void kill_somewhere(int node) {
    const auto tracer = stop_somewhere(node);
    tracer->kill();
    cluster_.kill_node(node);  // which is gone, but not yet buried
  }
  int a_follower() {
    const int leader = *cluster_.leader(kTopic);
    const auto others = static_cast<std::uint64_t>(cluster_.size() - 1);
    return 1 + (leader + static_cast<int>(random_() % others)) % cluster_.size();
  }
  void expect_to_go_on() {
    wait_for_acks(20);
    ASSERT_TRUE(cluster_.wait_until_whole(kTopic)) << cluster_.describe();
  }

  std::mt19937_64 random_;
};

TEST_F(StepTest, ALeaderThatDiesAtACallLosesNothing) {
  for (std::uint64_t round = 0; round < rounds() && !HasFatalFailure(); ++round) {
    const int leader = *cluster_.leader(kTopic);
    kill_somewhere(leader);
    ASSERT_TRUE(cluster_.wait_for_leader_but(kTopic, leader)) << cluster_.describe();
    cluster_.start_node(leader);
    expect_to_go_on();
  }
  expect_promises_kept();
}

TEST_F(StepTest, AFollowerThatDiesAtACallLosesNothing) {
  for (std::uint64_t round = 0; round < rounds() && !HasFatalFailure(); ++round) {
    const int follower = a_follower();
    kill_somewhere(follower);
    cluster_.start_node(follower);
    expect_to_go_on();
  }
  expect_promises_kept();
}

TEST_F(StepTest, WhoDiesWhileItIsBeingElectedLosesNothing) {
  for (std::uint64_t round = 0; round < rounds() && !HasFatalFailure(); ++round) {
    const int leader = *cluster_.leader(kTopic);
    const int heir = a_follower();
    cluster_.kill_node(leader);
    kill_somewhere(heir);
    for (const int node : {heir, leader}) cluster_.start_node(node);
    expect_to_go_on();
  }
  expect_promises_kept();
}

TEST_F(StepTest, ALeaderThatStandsStillAtACallDoesNoHarm) {
  for (std::uint64_t round = 0; round < std::max<std::uint64_t>(1, rounds() / 2) && !HasFatalFailure();
       ++round) {
    const int leader = *cluster_.leader(kTopic);
    const auto tracer = stop_somewhere(leader);
    tracer->freeze();
    ASSERT_TRUE(cluster_.wait_for_leader_but(kTopic, leader)) << cluster_.describe();
    wait_for_acks(20);
    tracer->let_go();
    expect_to_go_on();
  }
  expect_promises_kept();
}

}  // namespace
}  // namespace ringtail::test
