// Topics that get more partitions while they are in use.
#include <array>
#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "base/files.h"
#include "client/log_core.h"
#include "unit/client/group_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class NewPartitionsTest : public GroupTest {
 protected:
  void grow(const std::string& topic, std::uint32_t total) {
    const Status grown = admin().create_partitions(topic, total);
    ASSERT_TRUE(grown) << to_string(grown.error());
  }
};

TEST_F(NewPartitionsTest, AreEmptyAndOpenWhenTheCallReturns) {
  create("orders", small());
  send("orders", "one", 0);
  grow("orders", 3);
  const auto topic = admin().describe_topic("orders");
  ASSERT_TRUE(topic);
  ASSERT_EQ(topic->partitions.size(), 3u);
  EXPECT_EQ(topic->partitions[0].log_end_offset, Offset(1));
  EXPECT_EQ(topic->partitions[2].log_end_offset, Offset(0));
  EXPECT_GT(topic->partitions[2].ring_bytes, 0u);
  EXPECT_FALSE(topic->partitions[2].failure);
  grow("orders", 3);  // no change
}

TEST_F(NewPartitionsTest, AProducerOfOnePartitionBeginsToUseThem) {
  create("orders", small());
  Producer p = producer("orders");
  ASSERT_TRUE(p.send("before"));
  grow("orders", 3);
  std::set<std::uint32_t> used;
  for (int i = 0; i < 9; ++i) {
    const auto sent = p.send("after");
    ASSERT_TRUE(sent);
    used.insert(sent->partition.value());
  }
  EXPECT_THAT(used, ElementsAre(0, 1, 2));
  EXPECT_EQ(p.partitions(), 3u);
}

TEST_F(NewPartitionsTest, AProducerOfSeveralBeginsToUseThem) {
  create("orders", small(), 2);
  Producer p = producer("orders");
  ASSERT_TRUE(p.send({.key = "k", .value = "before"}));
  grow("orders", 5);
  std::map<std::string, PartitionId> chosen;
  for (int i = 0; i < 100; ++i) {
    const std::string key = std::to_string(i);
    const auto sent = p.send({.key = key, .value = "after"});
    ASSERT_TRUE(sent);
    chosen.emplace(key, sent->partition);
  }
  std::set<PartitionId> used;
  Producer fresh = producer("orders");
  for (const auto& [key, partition] : chosen) {
    used.insert(partition);
    if (key == "0") continue;  // sent as the producer noticed
    EXPECT_EQ(fresh.partition_for(key), partition) << key;
  }
  EXPECT_EQ(used.size(), 5u);
}

TEST_F(NewPartitionsTest, CanBeNamedAtOnce) {
  create("orders", small());
  Producer p = producer("orders");
  Producer batches = producer("orders");
  Producer claims = producer("orders");
  EXPECT_EQ(p.send({.value = "v", .partition = PartitionId(1)}).error(), SendError::invalid_record);
  EXPECT_THAT(p.error().message, HasSubstr("0 to 0"));
  grow("orders", 2);
  EXPECT_TRUE(p.send({.value = "v", .partition = PartitionId(1)}));
  const std::vector<ProducerRecord> records(3, ProducerRecord{.value = "v"});
  EXPECT_TRUE(batches.send_batch(PartitionId(1), records));
  auto claim = claims.try_claim(1, {}, PartitionId(1));
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->commit()->offset, Offset(4));
  EXPECT_EQ(p.send({.value = "v", .partition = PartitionId(2)}).error(), SendError::invalid_record);
}

TEST_F(NewPartitionsTest, AnOpenClaimIsFinishedWhereItBegan) {
  create("orders", small());
  Producer p = producer("orders");
  auto claim = p.try_claim(3, {});
  ASSERT_TRUE(claim);
  grow("orders", 2);
  EXPECT_EQ(p.send({.value = "v", .partition = PartitionId(1)}).error(), SendError::invalid_record);
  const auto committed = claim->commit();
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->partition, PartitionId(0));
  EXPECT_TRUE(p.send({.value = "v", .partition = PartitionId(1)}));
}

TEST_F(NewPartitionsTest, AFailureOfTheFirstSendAfterAChangeCanBeExplained) {
  create("orders", small());
  Producer p = producer("orders");
  ASSERT_TRUE(p.send("before"));
  ASSERT_TRUE(admin().alter_topic("orders", {{"max.message.bytes", "1024"}}));
  const std::string large(2000, 'x');
  const auto sent = p.send(large);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error(), SendError::record_too_large);
  EXPECT_THAT(p.error().message, HasSubstr("1024"));
}

TEST_F(NewPartitionsTest, GroupsShareThem) {
  create("orders", small());
  Consumer first = member("billing", "orders");
  Consumer second = member("billing", "orders");
  poll_until({&first, &second},
             [&](const Got&) { return first.assignment().size() + second.assignment().size() == 1; });
  grow("orders", 4);
  wait_assigned({&first, &second}, {2, 2});
  for (std::uint32_t p = 0; p < 4; ++p) send("orders", std::to_string(p), p);
  const Got got = poll_until({&first, &second}, [](const Got& g) { return count(g) == 4; });
  std::vector<std::string> all = got[0];
  all.insert(all.end(), got[1].begin(), got[1].end());
  EXPECT_THAT(all, UnorderedElementsAre("0", "1", "2", "3"));
}

TEST_F(NewPartitionsTest, SurviveReopening) {
  create("orders", small());
  grow("orders", 2);
  send("orders", "kept", 1);
  log_.reset();
  log_.emplace(open_log().value());
  Consumer c = consumer("orders");
  EXPECT_EQ(c.assignment().size(), 2u);
  EXPECT_THAT(take(c, 1), ElementsAre("kept"));
}

// Producers that send all the while lose nothing, and come to use all.
TEST_F(NewPartitionsTest, ComeWhileProducersRun) {
  create("orders", small());
  std::atomic<bool> stop{false};
  std::array<std::uint64_t, 3> sent{};
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < sent.size(); ++t)
      threads.emplace_back([&, t] {
        Producer p = producer("orders");
        std::set<PartitionId> used;
        while (!stop || used.size() < 6) {
          const auto one = p.send("v");
          if (!one) {
            ADD_FAILURE() << p.error().message;
            return;
          }
          used.insert(one->partition);
          ++sent[t];
        }
      });
    for (std::uint32_t total = 2; total <= 6; ++total) grow("orders", total);
    stop = true;
  }
  const auto topic = admin().describe_topic("orders");
  ASSERT_TRUE(topic);
  std::uint64_t records = 0;
  for (const PartitionDescription& p : topic->partitions) records += p.log_end_offset.value();
  EXPECT_EQ(records, sent[0] + sent[1] + sent[2]);
}

TEST_F(NewPartitionsTest, AreRefusedWhereTheyMakeNoSense) {
  create("orders", small(), 3);
  for (const std::uint32_t total : {0u, 2u, 5000u})
    EXPECT_FALSE(admin().create_partitions("orders", total)) << total;
  EXPECT_EQ(admin().create_partitions("orders", 2).error().code, Code::invalid_argument);
  EXPECT_EQ(admin().create_partitions("orders", 4097).error().code, Code::invalid_argument);
  create("others");
  EXPECT_EQ(admin().create_partitions("orders", 4096).error().code, Code::limit_exceeded);
  EXPECT_EQ(admin().create_partitions("nowhere", 2).error().code, Code::not_found);
  EXPECT_EQ(admin().describe_topic("orders")->partitions.size(), 3u);
}

// A keeper that cannot read the catalog opens none.
TEST_F(NewPartitionsTest, ThatAreNotOpenYetAreToldAsSuchAndUsedOnceTheyAre) {
  create("orders", small());
  create("other", small());
  Producer p = producer("orders", {.max_block = milliseconds(50)});
  ASSERT_TRUE(p.send("before"));
  const auto path = options().dir / "topics" / "other" / "topic.toml";
  std::string healthy;
  std::getline(std::ifstream(path), healthy, '\0');
  ASSERT_TRUE(write_file_atomically(path, "nonsense"));
  ASSERT_TRUE(log_->core()->catalog().add_partitions("orders", 2));
  const ProducerRecord record{.value = "v", .partition = PartitionId(1)};
  const auto early = p.send(record);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error(), SendError::timed_out);
  EXPECT_THAT(p.error().message, HasSubstr("is new, and cannot be used yet"));
  ASSERT_TRUE(write_file_atomically(path, healthy));
  const auto give_up = std::chrono::steady_clock::now() + seconds(60);
  while (!p.send(record)) ASSERT_LT(std::chrono::steady_clock::now(), give_up);
  EXPECT_EQ(p.send({.value = "v", .partition = PartitionId(7)}).error(), SendError::invalid_record);
}

}  // namespace
}  // namespace ringtail
