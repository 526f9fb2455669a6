// That the checker would notice: from outside, shared memory is made to say what a faulty leader would, and the
// run has to be condemned.
#include <algorithm>

#include "base/clock.h"
#include "client/log_core.h"
#include "cluster/scene.h"

namespace ringtail::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class TamperTest : public ClusterTest {
 protected:
  // Raises the watermark of a host to the end of its log, whatever its followers have, until so many more records
  // have been acknowledged; with `extend_lease`, the host's leadership never ends, either.
  void raise_watermark(int node, std::size_t more_acks, bool extend_lease) {
    auto log =
        Log::open({.dir = cluster_.log_dir(node), .create_if_missing = false, .keeper = KeeperMode::none});
    ASSERT_TRUE(log) << to_string(log.error());
    const auto topic = log->core()->catalog().load_topic(kTopic);
    ASSERT_TRUE(topic) << to_string(topic.error());
    const auto partition = log->core()->find_partition(*topic, PartitionId(0));
    ASSERT_TRUE(partition) << to_string(partition.error());
    shm::Partition& entry = partition->entry();
    const std::size_t aim = acks_on(node) + more_acks;
    ASSERT_TRUE(Cluster::wait_until([&] {
      for (int i = 0; i < 20; ++i) {
        if (extend_lease) entry.lease_deadline_ns.store(boottime_ns() + 60'000'000'000);
        const auto now = Admin(*log).describe_topic(kTopic);
        if (!now) return false;
        const PartitionDescription& ends = now->partitions.front();
        shm::set_high_watermark(entry, ends.log_end_position.value(), ends.log_end_offset.value());
        pause_for(milliseconds(1));
      }
      return acks_on(node) >= aim;
    })) << cluster_.describe();
    entry.lease_deadline_ns.store(0);
  }
  std::size_t acks_on(int node) const {
    return static_cast<std::size_t>(std::ranges::count_if(history(), [&](const Event& event) {
      return event.kind == Event::Kind::acked && event.who.starts_with("p" + std::to_string(node));
    }));
  }
  std::vector<std::string> judge() {
    settle(true);
    const std::vector<Event> seen = history();
    std::vector<std::string> violations = check(seen, log_);
    std::printf("[ condemned] %s\n", report(seen, log_, violations).c_str());
    return violations;
  }
};

TEST_F(TamperTest, AWatermarkThatRisesTooEarlyIsFound) {
  const int first = *cluster_.leader(kTopic);
  for (int node = 1; node <= cluster_.size(); ++node)
    if (node != first)
      cluster_.signal_node(node, SIGSTOP);  // and still in the ISR, until its lease has run out
  raise_watermark(first, 20, false);
  if (HasFatalFailure()) return;
  cluster_.kill_node(first);
  for (int node = 1; node <= cluster_.size(); ++node)
    if (node != first) {
      cluster_.kill_node(node);
      cluster_.start_node(node);
    }
  ASSERT_TRUE(cluster_.wait_for_leader_but(kTopic, first)) << cluster_.describe();
  wait_for_acks(50);
  cluster_.start_node(first);
  const std::vector<std::string> violations = judge();
  EXPECT_THAT(violations, Contains(HasSubstr("an acknowledged record is lost")));
  EXPECT_THAT(violations, Contains(HasSubstr("what was read was taken back")));
}

// Its daemon stands still, and the deadline that covers for it is moved on and on.
TEST_F(TamperTest, ALostFenceIsFound) {
  const int first = *cluster_.leader(kTopic);
  cluster_.signal_node(first, SIGSTOP);
  raise_watermark(first, 1, true);
  if (HasFatalFailure()) return;
  ASSERT_TRUE(cluster_.wait_for_leader_but(kTopic, first)) << cluster_.describe();
  wait_for_acks(50);
  raise_watermark(first, 50, true);
  if (HasFatalFailure()) return;
  cluster_.signal_node(first, SIGCONT);
  const std::vector<std::string> violations = judge();
  EXPECT_THAT(violations, Contains(HasSubstr("an offset had two contents")));
  EXPECT_THAT(violations, Contains(HasSubstr("an acknowledged record is lost")));
}

}  // namespace
}  // namespace ringtail::test
