// The coordinator on etcd, while etcd works: joining, leaving, changing records, following them.
#include "replication/etcd_coordinator.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "replication/records.h"
#include "unit/replication/etcd_test_support.h"
#include "unit/replication/nodes.h"

namespace ringtail::replication {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class EtcdCoordinatorTest : public EtcdTest {};

TEST_F(EtcdCoordinatorTest, ANodeThatJoinsIsSeenByAllAndOneThatLeavesIsGoneAtOnce) {
  const auto one = coordinator();
  const auto two = coordinator();
  EXPECT_EQ(one->lease_deadline_ns(), 0);
  ASSERT_TRUE(one->join(node_record(1)));
  ASSERT_TRUE(two->join(node_record(2)));
  EXPECT_TRUE(sees(*two, kOne));  // joined before
  EXPECT_TRUE(eventually([&] { return sees(*one, kTwo); }));
  EXPECT_EQ(one->state()->nodes.at(kTwo).record, node_record(2));
  EXPECT_EQ(one->state()->live.at(kTwo), node_record(2).incarnation);
  EXPECT_GT(one->lease_deadline_ns(), boottime_ns());
  EXPECT_THAT(one->state()->cluster_id, SizeIs(32));
  EXPECT_EQ(one->state()->cluster_id, two->state()->cluster_id);
  EXPECT_TRUE(one->health().reachable);
  EXPECT_EQ(one->health().endpoint, etcd_.endpoint());
  EXPECT_GE(one->health().seconds_since_contact, 0);

  const std::int64_t left_ns = boottime_ns();
  const std::int64_t deadline_ns = two->lease_deadline_ns();
  ASSERT_TRUE(two->leave());
  EXPECT_EQ(two->lease_deadline_ns(), 0);
  EXPECT_TRUE(eventually([&] { return !sees(*one, kTwo); }));
  EXPECT_GT(deadline_ns, left_ns);
  EXPECT_TRUE(one->state()->nodes.contains(kTwo));  // known still, though not alive
  EXPECT_EQ(find_live(*one->state(), kTwo), nullptr);
}

TEST_F(EtcdCoordinatorTest, ALeaseIsKeptAliveForLongerThanItsTime) {
  const auto one = coordinator();
  const auto watcher = observer();
  ASSERT_TRUE(one->join(node_record(1)));
  const std::int64_t first_ns = one->lease_deadline_ns();
  EXPECT_TRUE(eventually([&] { return boottime_ns() > first_ns + 500'000'000; }));
  EXPECT_GT(one->lease_deadline_ns(), boottime_ns());
  EXPECT_TRUE(sees(*watcher, kOne));
}

TEST_F(EtcdCoordinatorTest, AnIdInUseIsRefusedWithTheHostThatUsesIt) {
  const auto one = coordinator();
  ASSERT_TRUE(one->join(node_record(1)));
  NodeRecord other = node_record(1, "", 77);
  other.replication.host = "10.9.9.9";
  const auto two = coordinator();
  const Status joined = two->join(other);
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::already_exists);
  EXPECT_THAT(joined.error().message, HasSubstr("node 1 is in use by a living daemon at 10.0.0.1:9290"));
  EXPECT_THAT(joined.error().message, HasSubstr("another id"));
  EXPECT_EQ(two->lease_deadline_ns(), 0);
  EXPECT_EQ(one->state()->live.at(kOne), node_record(1).incarnation);
}

TEST_F(EtcdCoordinatorTest, ADaemonThatBeganAnewSupersedesTheLeaseOfItsPredecessor) {
  auto before = coordinator();
  ASSERT_TRUE(before->join(node_record(1)));
  before.reset();  // without leaving
  const auto after = coordinator();
  ASSERT_TRUE(after->join(node_record(1, "", 77)));
  EXPECT_EQ(after->state()->live.at(kOne), 77u);
  EXPECT_EQ(after->state()->nodes.at(kOne).record.incarnation, 77u);
}

TEST_F(EtcdCoordinatorTest, ALogDirectoryThatIsAnotherIsRefusedUnlessItReplaces) {
  const auto one = coordinator();
  ASSERT_TRUE(one->join(node_record(1)));
  ASSERT_TRUE(one->leave());
  NodeRecord fresh = node_record(1, "", 77);
  fresh.log_id = std::string(32, 'f');
  const auto two = coordinator();
  const Status refused = two->join(fresh);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
  EXPECT_THAT(refused.error().message, HasSubstr(node_record(1).log_id));
  EXPECT_THAT(refused.error().message, HasSubstr("replace"));
  ASSERT_TRUE(two->join(fresh, {.replace = true}));
  EXPECT_EQ(two->state()->nodes.at(kOne).record, fresh);
}

TEST_F(EtcdCoordinatorTest, AMalformedNodeIsRefusedBeforeAnythingIsSent) {
  NodeRecord record = node_record(1);
  record.log_id = "short";
  const Status joined = coordinator()->join(record);
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::invalid_argument);
  EXPECT_THAT(joined.error().message, HasSubstr("log_id"));
}

TEST_F(EtcdCoordinatorTest, ANodeThatFallsSilentIsGoneForTheOthersOnceItsDeadlineHasPassed) {
  const auto watcher = observer();
  auto one = coordinator();
  ASSERT_TRUE(one->join(node_record(1)));
  ASSERT_TRUE(eventually([&] { return sees(*watcher, kOne); }));
  const std::int64_t deadline_ns = one->lease_deadline_ns();
  one.reset();  // as if it had crashed
  ASSERT_TRUE(eventually([&] { return !sees(*watcher, kOne); }));
  EXPECT_GE(boottime_ns(), deadline_ns);
}

TEST_F(EtcdCoordinatorTest, OneThatIsKnownToBeDeadIsExpelledBeforeItsLeaseRunsOut) {
  EtcdCoordinatorOptions slow = options();
  slow.lease_ttl = Milliseconds(600'000);
  auto dead = open_coordinator(slow);
  auto alive = coordinator();
  ASSERT_TRUE(dead->join(node_record(1)));
  ASSERT_TRUE(alive->join(node_record(2)));
  const std::uint64_t incarnation = node_record(1).incarnation;
  dead.reset();
  EXPECT_FALSE(alive->expel(kOne, incarnation + 1).value());
  EXPECT_TRUE(sees(*alive, kOne));
  EXPECT_TRUE(alive->expel(kOne, incarnation).value());
  EXPECT_TRUE(eventually([&] { return !sees(*alive, kOne); }));
  EXPECT_FALSE(alive->expel(kOne, incarnation).value());
}

TEST_F(EtcdCoordinatorTest, OneThatIsExpelledAndLivesRegistersAnew) {
  std::atomic<bool> gone{false};
  auto one = coordinator();
  auto two = coordinator();
  two->set_on_change([&](const std::shared_ptr<const ClusterState>& state) {
    if (state->nodes.contains(kOne) && !state->live.contains(kOne)) gone = true;
  });
  ASSERT_TRUE(one->join(node_record(1)));
  ASSERT_TRUE(two->join(node_record(2)));
  EXPECT_TRUE(two->expel(kOne, node_record(1).incarnation).value());
  EXPECT_TRUE(eventually([&] { return gone && sees(*two, kOne); }));
  EXPECT_EQ(two->state()->live.find(kOne)->second, node_record(1).incarnation);
}

TEST_F(EtcdCoordinatorTest, ACommitMakesAllItsChangesOrNone) {
  const auto one = coordinator();
  const auto two = observer();
  ASSERT_TRUE(one->join(node_record(1)));
  const std::vector<Change> creation{{topic_record("t")}, {partition_record("t", 0, {1, 2})}};
  ASSERT_EQ(one->commit(creation), true);
  ASSERT_TRUE(eventually([&] { return two->state()->partitions.contains({"t", PartitionId(0)}); }));
  const auto seen = two->state();
  EXPECT_EQ(seen->topics.at("t").record, topic_record("t"));
  EXPECT_EQ(seen->partitions.at({"t", PartitionId(0)}).record, partition_record("t", 0, {1, 2}));
  EXPECT_EQ(one->commit(creation), false);  // they are there

  PartitionRecord led = partition_record("t", 0, {1, 2});
  ++led.partition_epoch;
  const std::int64_t revision = seen->partitions.at({"t", PartitionId(0)}).revision;
  ASSERT_EQ(one->commit(std::vector<Change>{{led, revision}}), true);
  // Who has seen the record before changes neither it nor what else he meant to.
  const std::vector<Change> late{{led, revision}, {topic_record("u")}};
  EXPECT_EQ(two->commit(late), false);
  ASSERT_TRUE(eventually([&] { return two->state()->partitions.begin()->second.revision > revision; }));
  EXPECT_FALSE(two->state()->topics.contains("u"));

  const auto state = two->state();
  const std::vector<Change> removal{{topic_record("t"), state->topics.at("t").revision, true},
                                    {led, state->partitions.begin()->second.revision, true}};
  ASSERT_EQ(two->commit(removal), true);
  EXPECT_TRUE(eventually([&] { return one->state()->topics.empty() && one->state()->partitions.empty(); }));
}

TEST_F(EtcdCoordinatorTest, OfManyWhoChangeOneRecordAtOnceEachChangeCounts) {
  constexpr int kWriters = 4;
  constexpr int kChanges = 10;
  std::vector<std::unique_ptr<EtcdCoordinator>> writers;
  for (int i = 0; i < kWriters; ++i) writers.push_back(observer());
  ASSERT_EQ(writers[0]->commit(std::vector<Change>{{ClusterSettings{}}}), true);
  std::vector<std::thread> threads;
  for (const auto& writer : writers) {
    threads.emplace_back([&writer] {
      for (int made = 0; made < kChanges;) {
        Stored<ClusterSettings> settings = writer->state()->settings;
        ++settings.record.replication_throttle_bytes_per_s;
        const auto committed = writer->commit(std::vector<Change>{{settings.record, settings.revision}});
        if (committed && *committed) ++made;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(eventually([&] {
    return writers[0]->state()->settings.record.replication_throttle_bytes_per_s == kWriters * kChanges;
  }));
}

TEST_F(EtcdCoordinatorTest, TooManyChangesOrOneRecordTwiceAreRefusedAndTheMostAreMade) {
  const auto one = observer();
  std::vector<Change> changes;
  for (std::uint32_t i = 0; i < Coordinator::kMaxChanges; ++i)
    changes.push_back({partition_record("t", i, {1, 2})});
  changes.push_back({topic_record("t")});
  const auto refused = one->commit(changes);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::limit_exceeded);
  changes.pop_back();
  changes.back() = changes.front();
  EXPECT_EQ(one->commit(changes).error().code, Code::invalid_argument);
  changes.back() = {topic_record("t")};
  ASSERT_TRUE(one->join(node_record(1)));
  EXPECT_EQ(one->commit(changes), true);
  EXPECT_TRUE(eventually([&] { return one->state()->partitions.size() == Coordinator::kMaxChanges - 1; }));
}

TEST_F(EtcdCoordinatorTest, WhoHasLostItsLeaseWritesNothing) {
  std::atomic<bool> busy{false};
  std::atomic<bool> entered{false};
  const auto one = coordinator();
  one->set_on_change([&](const auto&) {
    entered = busy.load();
    while (busy) std::this_thread::sleep_for(Milliseconds(1));
  });
  ASSERT_TRUE(one->join(node_record(1)));
  // While its own thread is busy with a change, it cannot learn that its registration is gone.
  busy = true;
  put("/ringtail/test/settings", encode(ClusterSettings{}));
  ASSERT_TRUE(eventually([&] { return entered.load(); }));
  ASSERT_TRUE(post("/v3/kv/deleterange", {{"key", to_base64("/ringtail/test/live/1")}}));
  const auto committed = one->commit(std::vector<Change>{{topic_record("t")}});
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code, Code::fenced);
  busy = false;
  EXPECT_TRUE(eventually([&] { return one->commit(std::vector<Change>{{topic_record("t")}}) == true; }));
  EXPECT_TRUE(eventually([&] { return sees(*one, kOne) && one->lease_deadline_ns() > boottime_ns(); }));
  ASSERT_TRUE(one->leave());
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("u")}}).error().code, Code::closed);
}

TEST_F(EtcdCoordinatorTest, AMalformedRecordIsLeftOutAndNamedAndTheRestIsRead) {
  const auto one = observer();
  put("/ringtail/test/topics/bad", "{\"version\":1,\"name\":\"bad\"}");
  put("/ringtail/test/nodes/x", "no JSON at all");
  ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("good")}}), true);
  ASSERT_TRUE(eventually([&] { return one->state()->topics.contains("good"); }));
  for (const auto& state : {one->state(), observer()->state()}) {
    EXPECT_THAT(state->topics, SizeIs(1));
    ASSERT_THAT(state->malformed, SizeIs(2));
    EXPECT_THAT(state->malformed.at("topics/bad").why, HasSubstr("topics/bad"));
    EXPECT_THAT(state->malformed.at("topics/bad").why, HasSubstr("topic_id"));
  }
  const std::int64_t revision = one->state()->malformed.at("topics/bad").revision;
  ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("bad"), revision}}), true);
  EXPECT_TRUE(eventually([&] { return one->state()->topics.contains("bad"); }));
  EXPECT_THAT(one->state()->malformed, SizeIs(1));
}

// Another identity would tell all others that etcd has lost its records.
TEST_F(EtcdCoordinatorTest, WhatAnotherReleaseKeepsIsNotReplacedByWhoJoins) {
  for (const std::string key : {"identity", "nodes/1", "live/1"}) {
    SCOPED_TRACE(key);
    put("/ringtail/test/" + key, R"({"version":2,"id":"of tomorrow"})");
    const auto before = observer()->state()->malformed;
    ASSERT_TRUE(before.contains(key));
    const Status joined = coordinator()->join(node_record(1), {.replace = true});
    ASSERT_FALSE(joined);
    EXPECT_EQ(joined.error().code, Code::incompatible_layout) << joined.error().message;
    EXPECT_THAT(joined.error().message, HasSubstr("'" + key + "' has version 2"));
    EXPECT_EQ(observer()->state()->malformed, before);
    ASSERT_TRUE(post("/v3/kv/deleterange", {{"key", to_base64("/ringtail/test/" + key)}}));
  }
  EXPECT_TRUE(coordinator()->join(node_record(1)));
}

TEST_F(EtcdCoordinatorTest, OfOtherClustersInOneEtcdNothingIsSeen) {
  const auto one = coordinator();
  ASSERT_TRUE(one->join(node_record(1)));
  auto others = options();
  others.cluster = "test2";
  const auto other = open_coordinator(others);
  ASSERT_TRUE(other->join(node_record(1, "", 99)));
  EXPECT_EQ(one->state()->live.at(kOne), node_record(1).incarnation);
  EXPECT_NE(one->state()->cluster_id, other->state()->cluster_id);
}

TEST_F(EtcdCoordinatorTest, MoreRecordsThanOneAnswerHoldsAreReadAsOfOneRevision) {
  const auto one = observer();
  for (std::uint32_t first = 0; first < 1'100; first += 110) {
    std::vector<Change> changes;
    for (std::uint32_t i = first; i < first + 110; ++i) changes.push_back({partition_record("t", i, {1, 2})});
    ASSERT_EQ(one->commit(changes), true);
  }
  EXPECT_THAT(observer()->state()->partitions, SizeIs(1'100));
}

TEST_F(EtcdCoordinatorTest, TheCallbackIsToldOfEachStateInOrder) {
  std::mutex mutex;
  std::vector<std::int64_t> revisions;
  std::shared_ptr<const ClusterState> last;
  const auto one = coordinator();
  one->set_on_change([&](std::shared_ptr<const ClusterState> state) {
    const std::lock_guard lock(mutex);
    revisions.push_back(state->revision);
    last = std::move(state);
  });
  ASSERT_TRUE(one->join(node_record(1)));
  auto two = coordinator();
  ASSERT_TRUE(two->join(node_record(2)));
  ASSERT_TRUE(two->leave());
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return last && last->nodes.contains(kTwo) && !last->live.contains(kTwo);
  }));
  const std::lock_guard lock(mutex);
  EXPECT_TRUE(std::ranges::is_sorted(revisions));
  EXPECT_GE(revisions.size(), 3u);
}

}  // namespace
}  // namespace ringtail::replication
