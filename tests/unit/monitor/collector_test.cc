// Snapshots of a real log.
#include "monitor/collector.h"

#include <fstream>

#include "base/files.h"
#include "client/log_core.h"
#include "unit/client/client_test_support.h"

namespace ringtail::monitor {
namespace {

using ::testing::Contains;
using ::testing::Field;

class CollectorTest : public ClientTest {
 protected:
  Snapshot collect() {
    auto snapshot = Collector(*log_).collect();
    EXPECT_TRUE(snapshot) << to_string(snapshot.error());
    return std::move(*snapshot);
  }
  static const TopicSnapshot& topic(const Snapshot& snapshot, const std::string& name) {
    const auto found = std::ranges::find(snapshot.topics, name, &TopicSnapshot::name);
    EXPECT_NE(found, snapshot.topics.end()) << name;
    return *found;
  }
};

TEST_F(CollectorTest, HasTheEndsOfEveryPartition) {
  create("orders", small(), 2);
  create("quotes", small({{"storage", "memory"}}));
  {
    Producer orders = producer("orders", {.durable = true});
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(orders.send({.value = "x", .partition = PartitionId(1)}));
    Producer quotes = producer("quotes");
    ASSERT_TRUE(quotes.send("y"));
  }
  const Snapshot snapshot = collect();
  const TopicSnapshot& orders = topic(snapshot, "orders");
  ASSERT_EQ(orders.partitions.size(), 2u);
  EXPECT_TRUE(orders.on_disk);
  EXPECT_EQ(orders.partitions[0].is.log_end_offset, Offset(0));
  EXPECT_EQ(orders.partitions[1].is.log_end_offset, Offset(5));
  EXPECT_EQ(orders.partitions[1].durable_lag_records(), 0u);
  EXPECT_EQ(orders.partitions[1].is.ring_fill(), 0);
  EXPECT_GT(orders.partitions[1].is.ring_bytes, 0u);
  const TopicSnapshot& quotes = topic(snapshot, "quotes");
  EXPECT_FALSE(quotes.on_disk);
  EXPECT_EQ(quotes.partitions[0].is.log_end_offset, Offset(1));
  EXPECT_EQ(snapshot.log_id, log_->id());
  EXPECT_GT(snapshot.disk_total_bytes, 0u);
  EXPECT_GT(snapshot.shared_memory_total_bytes, 0u);
}

TEST_F(CollectorTest, CountsWhatHasComeAndBeginsAnewWithATopicMadeAnew) {
  Collector collector(*log_);
  const auto total = [&] {
    const auto snapshot = collector.collect();
    EXPECT_TRUE(snapshot) << to_string(snapshot.error());
    const PartitionSnapshot& p = topic(*snapshot, "orders").partitions.at(0);
    EXPECT_EQ(p.bytes_total, p.is.log_end_position.value());
    return p.records_total;
  };
  const auto send = [&](int count) {
    Producer orders = producer("orders");
    for (int i = 0; i < count; ++i) EXPECT_TRUE(orders.send("x"));
  };
  ASSERT_TRUE(collector.collect());  // what comes from here on counts
  create("orders", small());
  send(5);
  EXPECT_EQ(total(), 5u);
  send(2);
  EXPECT_EQ(total(), 7u);
  ASSERT_TRUE(admin().delete_topic("orders"));
  create("orders", small());
  send(3);
  EXPECT_EQ(total(), 3u);
}

TEST_F(CollectorTest, CountsEachSyncOfTheKeeperHere) {
  create("orders", small());
  const Latencies before = collect().syncs;
  Producer orders = producer("orders", {.durable = true});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(orders.send("x"));
  const Latencies since = collect().syncs - before;
  EXPECT_GE(since.count(), 3u);  // one after the other: each waited for its own
  EXPECT_GT(since.total_ns, 0u);
  const auto median = since.percentile(50);
  ASSERT_TRUE(median);
  EXPECT_LE(*median, *since.percentile(99));
}

TEST_F(CollectorTest, ShowsGroupsWithTheirLagAndWhoIsAttached) {
  create("orders", small());
  {
    Producer orders = producer("orders");
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(orders.send("x"));
  }
  auto member = Consumer::open(*log_, {.group_id = "billing", .enable_auto_commit = false});
  ASSERT_TRUE(member) << to_string(member.error());
  ASSERT_TRUE(member->subscribe("orders"));
  for (std::size_t got = 0; got < 3;) got += member->poll(seconds(10)).value().size();
  const Snapshot snapshot = collect();
  ASSERT_EQ(snapshot.groups.size(), 1u);
  EXPECT_EQ(snapshot.groups[0].id, "billing");
  ASSERT_EQ(snapshot.groups[0].partitions.size(), 1u);
  EXPECT_EQ(snapshot.groups[0].partitions[0].lag, 3u);
  EXPECT_THAT(snapshot.processes, Contains(Field(&ProcessDescription::role, ProcessRole::consumer)));
  EXPECT_GE(snapshot.slots_in_use, 1u);
  EXPECT_GT(snapshot.slots, snapshot.slots_in_use);
}

// Who looks at figures wants to know of just such trouble.
TEST_F(CollectorTest, WaitsNeitherForAPartitionThatIsSaidToBeOpenedNorForPositionsThatAreNotRestored) {
  create("orders", small());
  {
    Producer orders = producer("orders");
    ASSERT_TRUE(orders.send("x"));
  }
  const LogCore& core = *log_->core();
  shm::Partition& entry =
      core.find_partition(core.catalog().load_topic("orders").value(), PartitionId(0)).value().entry();
  auto& ready = core.control().groups().ready;
  while (ready.load() == 0) std::this_thread::yield();
  entry.state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  ready.store(0);
  const auto began = std::chrono::steady_clock::now();
  const Snapshot snapshot = collect();
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(10));
  EXPECT_EQ(topic(snapshot, "orders").partitions[0].is.log_end_offset, Offset(1));
  EXPECT_TRUE(snapshot.groups.empty());
  ready.store(1);
  entry.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
}

TEST_F(CollectorTest, KnowsWhoKeepsTheLog) {
  create("orders", small());  // which takes the keeper a round
  const KeeperSnapshot here = Collector(*log_).keeper();
  EXPECT_TRUE(here.here);
  EXPECT_EQ(here.pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_TRUE(here.idle_ns);
  // A second log of the same process stands by.
  const Log second = open_log().value();
  const KeeperSnapshot there = Collector(second).keeper();
  EXPECT_FALSE(there.here);
  EXPECT_EQ(there.pid, static_cast<std::uint32_t>(::getpid()));
}

TEST(LatenciesTest, PercentilesLieInTheirBucket) {
  log::LatencyCounts counts;
  for (int i = 0; i < 99; ++i) counts.record(150'000);  // of the bucket up to 200 us
  counts.record(60'000'000'000);                        // of the last one
  Latencies latencies;
  for (std::size_t i = 0; i < latencies.counts.size(); ++i) latencies.counts[i] = counts.count(i);
  EXPECT_EQ(latencies.count(), 100u);
  EXPECT_GT(*latencies.percentile(50), 100'000);
  EXPECT_LE(*latencies.percentile(50), 200'000);
  EXPECT_EQ(*latencies.percentile(100), static_cast<double>(log::LatencyCounts::kBounds.back()));
  EXPECT_FALSE(Latencies{}.percentile(50));
  EXPECT_EQ((latencies - latencies).count(), 0u);
}

TEST(LatenciesTest, ABucketHoldsWhatItsBoundSays) {
  log::LatencyCounts counts;
  for (const std::int64_t bound : log::LatencyCounts::kBounds) counts.record(bound);
  for (const std::int64_t bound : log::LatencyCounts::kBounds) counts.record(bound + 1);
  EXPECT_EQ(counts.count(0), 1u);
  for (std::size_t i = 1; i + 1 < log::LatencyCounts::kBuckets; ++i) EXPECT_EQ(counts.count(i), 2u) << i;
  EXPECT_EQ(counts.count(log::LatencyCounts::kBuckets - 1), 1u);
  EXPECT_EQ(log::LatencyCounts::kBounds.front(), 10'000);
  EXPECT_EQ(log::LatencyCounts::kBounds.back(), 10'000'000'000);
}

// Of the others it shows what there is.
TEST_F(CollectorTest, ATopicWhoseDescriptionIsDamagedIsCounted) {
  create("orders", small());
  create("other", small());
  auto reader = Consumer::open(*log_, {.group_id = "billing"});
  ASSERT_TRUE(reader && reader->subscribe("orders"));
  while (reader->assignment().empty()) ASSERT_TRUE(reader->poll(milliseconds(10)));
  EXPECT_EQ(collect().unreadable_topics, 0u);
  const auto path = options().dir / "topics" / "other" / "topic.toml";
  std::string healthy;
  std::getline(std::ifstream(path), healthy, '\0');
  ASSERT_TRUE(write_file_atomically(path, "nonsense"));
  const Snapshot snapshot = collect();
  EXPECT_EQ(snapshot.unreadable_topics, 1u);
  EXPECT_EQ(snapshot.topics.size(), 1u);
  EXPECT_EQ(topic(snapshot, "orders").partitions.size(), 1u);
  ASSERT_EQ(snapshot.groups.size(), 1u);
  EXPECT_EQ(snapshot.groups.front().partitions.size(), 1u);
  ASSERT_TRUE(write_file_atomically(path, healthy));
}

}  // namespace
}  // namespace ringtail::monitor
