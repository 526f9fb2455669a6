#include "ringtail/producer.h"

#include <array>
#include <map>

#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using ProducerTest = ClientTest;

// --- Opening -------------------------------------------------------------------------------------

TEST_F(ProducerTest, OfATopicThatIsNotThereIsNotFound) {
  auto opened = Producer::open(*log_, {.topic = "nowhere"});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::not_found);
  EXPECT_THAT(opened.error().message, HasSubstr("nowhere"));
}

TEST_F(ProducerTest, DurableIsUnsupportedInMemory) {
  create("t", {{"storage", "memory"}});
  auto opened = Producer::open(*log_, {.topic = "t", .durable = true});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::unsupported);
}

// --- Sending -------------------------------------------------------------------------------------

TEST_F(ProducerTest, ReturnsWhereTheRecordStands) {
  create("t");
  Producer p = producer("t");
  const auto first = p.send("one");
  const auto second = p.send({.value = "two", .timestamp_ns = 42});
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->offset, Offset(0));
  EXPECT_EQ(second->offset, Offset(1));
  EXPECT_EQ(second->timestamp_ns, 42);
  EXPECT_GT(second->end, first->end);
  EXPECT_GT(first->timestamp_ns, 1'600'000'000'000'000'000);
}

TEST_F(ProducerTest, KeysStayTogetherAndRecordsWithoutGoRound) {
  create("t", {}, 4);
  Producer p = producer("t");
  EXPECT_EQ(p.partitions(), 4u);
  std::map<std::uint32_t, int> counts;
  for (int i = 0; i < 8; ++i) ++counts[p.send("v")->partition.value()];
  EXPECT_THAT(counts, ElementsAre(std::pair(0u, 2), std::pair(1u, 2), std::pair(2u, 2), std::pair(3u, 2)));
  std::map<std::string, PartitionId> where;
  for (int round = 0; round < 3; ++round) {
    for (int k = 0; k < 100; ++k) {
      const std::string key = "key" + std::to_string(k);
      const auto sent = p.send({.key = key, .value = "v"});
      ASSERT_TRUE(sent);
      EXPECT_EQ(where.emplace(key, sent->partition).first->second, sent->partition);
      EXPECT_EQ(p.partition_for(key), sent->partition);
    }
  }
  std::map<std::uint32_t, int> spread;
  for (const auto& [key, partition] : where) ++spread[partition.value()];
  for (const auto& [partition, keys] : spread) EXPECT_GT(keys, 10);
}

TEST_F(ProducerTest, AnEmptyKeyIsAKey) {
  create("t", {}, 4);
  Producer p = producer("t");
  const PartitionId first = p.send({.key = "", .value = "v"})->partition;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(p.send({.key = "", .value = "v"})->partition, first);
}

TEST_F(ProducerTest, AUsersPartitionerIsAskedAndNotBelieved) {
  create("t", {}, 3);
  std::uint32_t answer = 2;
  Producer p = producer("t", {.partitioner = [&](std::string_view key, std::uint32_t partitions) {
                          EXPECT_EQ(key, "k");
                          EXPECT_EQ(partitions, 3u);
                          return answer;
                        }});
  EXPECT_EQ(p.send({.key = "k", .value = "v"})->partition, PartitionId(2));
  answer = 3;
  EXPECT_EQ(p.send({.key = "k", .value = "v"}).error(), SendError::invalid_record);
  EXPECT_THAT(p.error().message, HasSubstr("partitions 0 to 2"));
  EXPECT_EQ(p.send({.key = "other", .value = "v", .partition = PartitionId(1)})->partition, PartitionId(1));
}

TEST_F(ProducerTest, APartitionThatIsNotThereIsInvalid) {
  create("t");
  Producer p = producer("t");
  EXPECT_EQ(p.send({.value = "v", .partition = PartitionId(1)}).error(), SendError::invalid_record);
  EXPECT_EQ(p.send_batch(PartitionId(7), std::array{ProducerRecord{.value = "v"}}).error(),
            SendError::invalid_record);
  EXPECT_EQ(p.try_claim(8, {}, PartitionId(7)).error(), SendError::invalid_record);
  EXPECT_EQ(p.send("v")->offset, Offset(0));
}

TEST_F(ProducerTest, ARecordTooLargeSaysHowLargeItMayBe) {
  create("t", {{"max.message.bytes", "1000"}});
  Producer p = producer("t");
  EXPECT_TRUE(p.send(std::string(1000, 'v')));
  EXPECT_EQ(p.send(std::string(1001, 'v')).error(), SendError::record_too_large);
  EXPECT_EQ(p.error().code, Code::limit_exceeded);
  EXPECT_THAT(p.error().message, HasSubstr("1000 bytes in all (max.message.bytes)"));
  EXPECT_EQ(p.try_claim(1001).error(), SendError::record_too_large);
}

TEST_F(ProducerTest, SendsABatchAsOne) {
  create("t", {}, 2);
  Producer p = producer("t");
  std::vector<std::string> values;
  for (int i = 0; i < 100; ++i) values.push_back("value " + std::to_string(i));
  std::vector<ProducerRecord> batch;
  for (const std::string& value : values) batch.push_back({.value = value, .partition = PartitionId(0)});
  const auto sent = p.send_batch(PartitionId(1), batch);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->partition, PartitionId(1));
  EXPECT_EQ(sent->offset, Offset(99));
  Consumer c = consumer("t");
  EXPECT_EQ(take(c, 100), values);
  EXPECT_EQ(p.send_batch(PartitionId(1), {}).error(), SendError::invalid_record);
}

TEST_F(ProducerTest, AppendTimeIsTheLogsAndNotTheProducers) {
  create("t", {{"message.timestamp.type", "LogAppendTime"}});
  Producer p = producer("t");
  EXPECT_GT(p.send({.value = "v", .timestamp_ns = 5})->timestamp_ns, 1'600'000'000'000'000'000);
}

// --- Claims --------------------------------------------------------------------------------------

TEST_F(ProducerTest, AClaimIsWrittenInPlace) {
  create("t");
  Producer p = producer("t");
  auto claim = p.try_claim(5, "key");
  ASSERT_TRUE(claim);
  ASSERT_EQ(claim->value().size(), 5u);
  std::memcpy(claim->value().data(), "hello", 5);
  EXPECT_EQ(claim->commit()->offset, Offset(0));
  EXPECT_EQ(claim->commit().error(), SendError::closed) << "once only";
  Consumer c = consumer("t");
  EXPECT_THAT(take(c, 1), ElementsAre("hello"));
}

TEST_F(ProducerTest, OneClaimAtATime) {
  create("t", {}, 2);
  Producer p = producer("t");
  auto claim = p.try_claim(5);
  ASSERT_TRUE(claim);
  EXPECT_EQ(p.send("v").error(), SendError::claim_open);
  EXPECT_EQ(p.try_claim(5).error(), SendError::claim_open);
  EXPECT_EQ(p.send_batch(PartitionId(0), std::array{ProducerRecord{.value = "v"}}).error(),
            SendError::claim_open);
  EXPECT_THAT(p.error().message, HasSubstr("still open"));
  EXPECT_TRUE(claim->commit());
  EXPECT_TRUE(p.send("v"));
}

TEST_F(ProducerTest, AClaimThatGoesIsAbortedAndItsOffsetStaysUnused) {
  create("t");
  Producer p = producer("t");
  {
    auto dropped = p.try_claim(8);
  }
  auto aborted = p.try_claim(8);
  aborted->abort();
  aborted->abort();
  auto first = p.try_claim(3);
  Claim moved = std::move(*first);
  EXPECT_EQ(first->commit().error(), SendError::closed);
  std::memcpy(moved.value().data(), "abc", 3);
  EXPECT_EQ(moved.commit()->offset, Offset(2));
  auto replaced = p.try_claim(4);
  *replaced = Claim();
  EXPECT_EQ(p.send("def")->offset, Offset(4));
  Consumer c = consumer("t");
  EXPECT_THAT(take(c, 2), ElementsAre("abc", "def"));
}

TEST_F(ProducerTest, AClaimHeldTooLongIsGivenUp) {
  create("t", {{"claim.timeout.ms", "20"}});
  Producer p = producer("t");
  Producer other = producer("t");
  auto claim = p.try_claim(8);
  ASSERT_TRUE(claim);
  ASSERT_TRUE(other.send("behind it"));
  Consumer c = consumer("t");
  EXPECT_THAT(take(c, 1), ElementsAre("behind it"));  // so the keeper has given it up
  EXPECT_EQ(claim->commit().error(), SendError::claim_expired);
  EXPECT_EQ(p.error().code, Code::claim_expired);
  EXPECT_THAT(p.error().message, HasSubstr("claim.timeout.ms (20)"));
  ASSERT_TRUE(p.send("next"));
  EXPECT_THAT(take(c, 1), ElementsAre("next"));
}

// --- Acks and durability -------------------------------------------------------------------------

TEST_F(ProducerTest, WithoutAcksARefusalIsToldByTheNextCall) {
  create("t", {{"max.message.bytes", "100"}});
  Producer p = producer("t", {.acks = Acks::none});
  EXPECT_TRUE(p.send("fine"));
  EXPECT_TRUE(p.send(std::string(101, 'v')));
  EXPECT_EQ(p.send("not sent either").error(), SendError::record_too_large);
  EXPECT_THAT(p.error().message, HasSubstr("max.message.bytes"));
  EXPECT_EQ(p.send("fine again")->offset, Offset(1));
  EXPECT_TRUE(p.send(std::string(101, 'v')));
  EXPECT_EQ(p.try_claim(8).error(), SendError::record_too_large);
}

TEST_F(ProducerTest, WithoutAcksARefusalIsToldByFlush) {
  create("t", {{"max.message.bytes", "100"}});
  Producer p = producer("t", {.acks = Acks::none});
  EXPECT_TRUE(p.send("fine"));
  EXPECT_TRUE(p.send(std::string(101, 'v')));
  EXPECT_EQ(p.flush().error(), SendError::record_too_large);
  EXPECT_TRUE(p.flush());
  const auto refused = p.send(std::string(101, 'v'));
  EXPECT_EQ(p.wait_durable(*refused).error(), SendError::record_too_large);
  EXPECT_EQ(p.wait_durable(*refused).error(), SendError::invalid_record) << "it is nowhere";
  EXPECT_TRUE(p.flush());
  EXPECT_TRUE(p.send("fine again"));
}

TEST_F(ProducerTest, AcksOfAllNeedMinInsyncReplicas) {
  create("one");
  Producer p = producer("one", {.acks = Acks::all});
  EXPECT_TRUE(p.send("v"));
  create("two", {{"min.insync.replicas", "2"}});
  Producer alone = producer("two", {.acks = Acks::all});
  EXPECT_EQ(alone.send("v").error(), SendError::not_enough_replicas);
  EXPECT_EQ(alone.try_claim(8).error(), SendError::not_enough_replicas);
  EXPECT_EQ(alone.error().code, Code::not_enough_replicas);
  Producer leader = producer("two", {.acks = Acks::leader});
  EXPECT_EQ(leader.send("v")->offset, Offset(0)) << "what was refused was not appended";
}

TEST_F(ProducerTest, DurableReturnsWhenTheRecordIsOnDisk) {
  create("t", {{"flush.ms", "1h"}});
  Producer p = producer("t", {.durable = true});
  for (std::uint64_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(p.send("v"));
    EXPECT_GE(admin().describe_topic("t")->partitions[0].durable_offset, Offset(i + 1));
  }
}

TEST_F(ProducerTest, FlushAndWaitDurableWaitForWhatWasSent) {
  create("t", {{"flush.ms", "1h"}}, 2);
  Producer p = producer("t");
  EXPECT_TRUE(p.flush()) << "nothing was sent";
  RecordMetadata last;
  for (int i = 0; i < 10; ++i) last = *p.send("v");
  EXPECT_TRUE(p.wait_durable(last));
  EXPECT_GE(admin().describe_topic("t")->partitions[last.partition.value()].durable_offset, last.offset + 1);
  EXPECT_TRUE(p.flush());
  const auto described = admin().describe_topic("t");
  for (const auto& partition : described->partitions) EXPECT_EQ(partition.durable_offset, Offset(5));
  last.partition = PartitionId(9);
  EXPECT_EQ(p.wait_durable(last).error(), SendError::invalid_record);
}

TEST_F(ProducerTest, WaitingForDurabilityOfMemoryIsInvalid) {
  create("t", {{"storage", "memory"}});
  Producer p = producer("t");
  const auto sent = p.send("v");
  EXPECT_EQ(p.wait_durable(*sent).error(), SendError::invalid_record);
  EXPECT_EQ(p.flush().error(), SendError::invalid_record);
}

// --- A full ring ---------------------------------------------------------------------------------

TEST_F(ProducerTest, AFullRingRefusesUnderFail) {
  create("t", small({{"storage", "memory"}, {"on.full", "fail"}}));
  Producer p = producer("t");
  Consumer c = consumer("t");
  const std::string value(1'000, 'v');
  std::size_t sent = 0;
  while (p.send(value)) ++sent;
  EXPECT_EQ(p.send(value).error(), SendError::would_block);
  EXPECT_EQ(p.error().code, Code::would_block);
  EXPECT_GT(sent, 200u);
  EXPECT_EQ(take(c, sent).size(), sent);
  EXPECT_TRUE(c.poll(milliseconds(0))->empty());
  while (!p.send(value)) std::this_thread::yield();
}

TEST_F(ProducerTest, AFullRingBlocksUntilItsReaderHasGoneOnOrTheTimeIsUp) {
  create("t", small({{"storage", "memory"}}));
  Producer p = producer("t", {.max_block = milliseconds(50)});
  Consumer c = consumer("t");
  const std::string value(1'000, 'v');
  std::size_t sent = 0;
  SendResult<RecordMetadata> last;
  while ((last = p.send(value))) ++sent;
  EXPECT_EQ(last.error(), SendError::timed_out);
  EXPECT_THAT(p.error().message, HasSubstr("max_block (50 ms)"));
  std::thread reading([&] {
    EXPECT_EQ(take(c, sent).size(), sent);
    c.poll(milliseconds(0)).value();
  });
  Producer patient = producer("t");
  EXPECT_TRUE(patient.send(value));
  reading.join();
}

TEST_F(ProducerTest, AReaderOfTheTopicThatWasThereBeforeHoldsNothing) {
  create("t", small({{"storage", "memory"}}));
  Consumer of_before = consumer("t");
  ASSERT_TRUE(admin().delete_topic("t"));
  create("t", small({{"storage", "memory"}}));
  Producer p = producer("t", {.max_block = milliseconds(5'000)});
  const std::string value(1'000, 'v');
  for (int i = 0; i < 2'000; ++i) ASSERT_TRUE(p.send(value)) << i << ": " << p.error().message;
  EXPECT_EQ(of_before.poll(milliseconds(0)).error().code, Code::closed);
}

TEST_F(ProducerTest, ManyProducersShareAPartition) {
  create("t", small());
  constexpr int kThreads = 4;
  constexpr int kEach = 3'000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      Producer p = producer("t");
      for (int i = 0; i < kEach; ++i) ASSERT_TRUE(p.send(std::to_string(t) + ' ' + std::to_string(i)));
    });
  }
  Consumer c = consumer("t");
  std::array<int, kThreads> next{};
  for (const std::string& value : take(c, kThreads * kEach)) {
    const auto t = static_cast<std::size_t>(value[0] - '0');
    ASSERT_EQ(std::stoi(value.substr(2)), next[t]++);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admin().describe_topic("t")->partitions[0].log_end_offset, Offset(kThreads * kEach));
}

// --- Ends ----------------------------------------------------------------------------------------

TEST_F(ProducerTest, OfADeletedTopicIsClosed) {
  create("t");
  Producer p = producer("t");
  ASSERT_TRUE(p.send("v"));
  ASSERT_TRUE(admin().delete_topic("t"));
  EXPECT_EQ(p.send("v").error(), SendError::closed);
  EXPECT_EQ(p.error().code, Code::closed);
  create("t");
  EXPECT_EQ(p.send("v").error(), SendError::closed) << "another topic of the same name";
  EXPECT_EQ(producer("t").send("v")->offset, Offset(0));
}

TEST_F(ProducerTest, InAForkedChildIsClosed) {
  create("t");
  Producer p = producer("t");
  ASSERT_TRUE(p.send("v"));
  shm::Child child([&](const shm::Line&) {
    EXPECT_EQ(p.send("from the child").error(), SendError::closed);
    EXPECT_EQ(p.error().code, Code::closed);
    EXPECT_EQ(p.flush().error(), SendError::closed);
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(p.send("v")->offset, Offset(1));
}

TEST_F(ProducerTest, WithoutAFailureSaysSo) {
  create("t");
  EXPECT_THAT(producer("t").error().message, HasSubstr("no operation of this producer has failed"));
}

TEST(SendErrorNames, AreTheirEnumerators) {
  EXPECT_EQ(to_string(SendError::would_block), "would_block");
  EXPECT_EQ(to_string(SendError::closed), "closed");
  EXPECT_EQ(to_string(SendError::not_enough_replicas), "not_enough_replicas");
}

TEST_F(ProducerTest, ARecordThatWasRefusedWithoutAWordIsToldOfItsOwnPartition) {
  create("t", small(), 2);
  Producer p = producer("t", {.acks = Acks::none});
  const std::string large(1 << 20, 'v');
  ASSERT_TRUE(p.send({.value = large, .partition = PartitionId(1)}));
  const auto next = p.send({.value = "v", .partition = PartitionId(0)});
  ASSERT_FALSE(next);
  EXPECT_EQ(next.error(), SendError::record_too_large);
  EXPECT_THAT(p.error().message, HasSubstr("partition 1"));
}

}  // namespace
}  // namespace ringtail
