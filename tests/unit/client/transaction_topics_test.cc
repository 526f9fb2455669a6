// Transactions over several topics: producers that share a transactional id, or only a slot.
#include <unistd.h>

#include <atomic>

#include "client/log_core.h"
#include "support/crash_process.h"
#include "unit/client/transaction_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TransactionTopicsTest : public TransactionTest {
 protected:
  void SetUp() override {
    create("a", small());
    create("b", small(), 2);
  }
  static Producer other(const Producer& producer, const std::string& topic) {
    auto opened = producer.for_topic(topic);
    EXPECT_TRUE(opened) << to_string(opened.error());
    return std::move(*opened);
  }
  std::size_t attached() {
    auto processes = admin().list_processes();
    EXPECT_TRUE(processes) << to_string(processes.error());
    return processes->size();
  }
};

TEST_F(TransactionTopicsTest, RecordsOfAllTopicsAreVisibleOnceCommitted) {
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  Consumer of_a = committed_reader("a");
  Consumer of_b = committed_reader("b");
  expect(a.begin());
  ASSERT_TRUE(a.send("1"));
  ASSERT_TRUE(b.send({.value = "2", .partition = PartitionId(0)}));
  ASSERT_TRUE(b.send({.value = "3", .partition = PartitionId(1)}));
  EXPECT_THAT(drain(of_a), IsEmpty());
  EXPECT_THAT(drain(of_b), IsEmpty());
  expect(b.commit());
  EXPECT_THAT(take(of_a, 1), ElementsAre("1"));
  EXPECT_THAT(take(of_b, 2), ::testing::UnorderedElementsAre("2", "3"));
}

// Nobody was told of it, and its producer is gone.
TEST_F(TransactionTopicsTest, ARecordThatWasRefusedWithoutAWordKeepsTheOthersFromBeingCommitted) {
  Producer a = transactional("t", "a", {.acks = Acks::none});
  const std::string too_large(64 << 10, 'v');
  expect(a.begin());
  ASSERT_TRUE(a.send("no"));
  ASSERT_TRUE(other(a, "b").send({.value = too_large, .partition = PartitionId(0)}));
  auto committed = a.commit();
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code, Code::invalid_argument);
  EXPECT_THAT(committed.error().message, HasSubstr("a record was refused; abort the transaction"));
  expect(a.abort());
  expect(a.begin());
  ASSERT_TRUE(a.send("yes"));
  expect(a.commit());
  Consumer of_a = committed_reader("a");
  EXPECT_THAT(take(of_a, 1), ElementsAre("yes"));
  EXPECT_THAT(drain(of_a), IsEmpty());
}

TEST_F(TransactionTopicsTest, WhatWasRefusedInAnAbortedOneIsNotToldInTheNext) {
  Producer a = transactional("t", "a", {.acks = Acks::none});
  expect(a.begin());
  ASSERT_TRUE(a.send(std::string(64 << 10, 'v')));
  expect(a.abort());
  expect(a.begin());
  EXPECT_TRUE(a.send("yes"));
  expect(a.commit());
}

TEST_F(TransactionTopicsTest, NothingOfAnAbortedOneIsSeenInAnyTopic) {
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  for (const bool commits : {false, true}) {
    expect(b.begin());
    ASSERT_TRUE(b.send({.value = commits ? "yes" : "no", .partition = PartitionId(0)}));
    ASSERT_TRUE(a.send(commits ? "yes" : "no"));
    expect(commits ? a.commit() : a.abort());
  }
  Consumer of_a = committed_reader("a");
  Consumer of_b = committed_reader("b");
  EXPECT_THAT(take(of_a, 1), ElementsAre("yes"));
  EXPECT_THAT(take(of_b, 1), ElementsAre("yes"));
  EXPECT_THAT(drain(of_a), IsEmpty());
  EXPECT_THAT(drain(of_b), IsEmpty());
}

TEST_F(TransactionTopicsTest, ItIsOneTransactionWhicheverIsAsked) {
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  EXPECT_EQ(b.send("v").error(), SendError::no_transaction);
  expect(a.begin());
  EXPECT_EQ(b.begin().error().code, Code::invalid_argument);
  expect(b.commit());
  EXPECT_EQ(a.commit().error().code, Code::invalid_argument);
  EXPECT_EQ(a.send("v").error(), SendError::no_transaction);
}

TEST_F(TransactionTopicsTest, EachTransactionIsNotedInEachTopicAnew) {
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  Consumer of_b = committed_reader("b");
  std::vector<std::string> sent;
  for (int i = 0; i < 5; ++i) {
    expect(a.begin());
    ASSERT_TRUE(a.send("v"));
    if (i % 2 == 0) {
      sent.push_back(std::to_string(i));
      ASSERT_TRUE(b.send({.value = sent.back(), .partition = PartitionId(0)}));
    }
    expect(a.commit());
  }
  EXPECT_EQ(take(of_b, sent.size()), sent);
}

TEST_F(TransactionTopicsTest, PositionsMoveWithTheRecordsOfAllTopics) {
  create("in", small());
  for (const char* value : {"1", "2"}) send("in", value);
  Consumer input = member("splitters", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 2; });
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  const TopicPartition partition{"in", PartitionId(0)};
  for (const std::uint64_t offset : {1u, 2u}) {
    const OffsetCommit position[] = {{partition, Offset(offset), {}}};
    expect(a.begin());
    ASSERT_TRUE(a.send("v"));
    ASSERT_TRUE(b.send("v"));
    expect(b.add_offsets(position, input.group_metadata()));
    expect(offset == 1 ? a.commit() : b.abort());
    EXPECT_EQ((*input.committed(partition))->offset, Offset(1));
  }
}

TEST_F(TransactionTopicsTest, TheFirstMayGoBeforeTheOthers) {
  std::optional<Producer> a = transactional("t", "a");
  Producer b = other(*a, "b");
  expect(a->begin());
  ASSERT_TRUE(a->send("1"));
  a.reset();
  ASSERT_TRUE(b.send({.value = "2", .partition = PartitionId(0)}));
  expect(b.commit());
  Consumer of_a = committed_reader("a");
  Consumer of_b = committed_reader("b");
  EXPECT_THAT(take(of_a, 1), ElementsAre("1"));
  EXPECT_THAT(take(of_b, 1), ElementsAre("2"));
}

TEST_F(TransactionTopicsTest, TheLastToGoLeavesNothingOpen) {
  std::optional<Producer> a = transactional("t", "a");
  std::optional<Producer> b = other(*a, "b");
  Consumer of_a = committed_reader("a");
  Consumer of_b = committed_reader("b");
  expect(b->begin());
  ASSERT_TRUE(a->send("no"));
  ASSERT_TRUE(b->send({.value = "no", .partition = PartitionId(0)}));
  b.reset();
  ASSERT_TRUE(a->send("nor this"));
  a.reset();
  send("a", "plain");
  send("b", "plain");
  EXPECT_THAT(take(of_a, 1), ElementsAre("plain"));
  EXPECT_THAT(take(of_b, 1), ElementsAre("plain"));
}

TEST_F(TransactionTopicsTest, TheDeathOfTheProcessAbortsItInAllTopics) {
  log_.reset();
  {
    test::SharedPage<std::atomic<bool>> sent;
    test::Process process("writer", [&] {
      auto log = open_log();
      if (!log) return 1;
      auto a = Producer::open(*log, {.topic = "a", .transactional_id = "t"});
      if (!a) return 2;
      auto b = a->for_topic("b");
      if (!b || !a->begin() || !a->send("no")) return 3;
      if (!b->send({.value = "no", .partition = PartitionId(0)})) return 4;
      *sent = true;
      for (;;) ::pause();
    });
    ASSERT_TRUE(test::wait_until([&] { return sent->load(); }, "records in both topics"));
    process.kill();
  }
  log_.emplace(open_log().value());
  Consumer of_a = committed_reader("a");
  Consumer of_b = committed_reader("b");
  send("a", "plain");
  send("b", "plain");
  EXPECT_THAT(take(of_a, 1), ElementsAre("plain"));
  EXPECT_THAT(take(of_b, 1), ElementsAre("plain"));
}

TEST_F(TransactionTopicsTest, AClaimOfOneRefusesSendsOfTheOthers) {
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  expect(a.begin());
  auto claim = a.try_claim(2);
  ASSERT_TRUE(claim);
  EXPECT_EQ(b.send("v").error(), SendError::claim_open);
  EXPECT_EQ(b.try_claim(1).error(), SendError::claim_open);
  EXPECT_EQ(b.commit().error().code, Code::invalid_argument);
  std::memcpy(claim->value().data(), "in", 2);
  ASSERT_TRUE(claim->commit());
  ASSERT_TRUE(b.send({.value = "v", .partition = PartitionId(0)}));
  auto aborted = b.try_claim(2);
  ASSERT_TRUE(aborted);
  expect(a.abort());
  EXPECT_EQ(aborted->commit().error(), SendError::closed);
  expect(b.begin());
  ASSERT_TRUE(a.send("after"));
  expect(b.commit());
  Consumer of_a = committed_reader("a");
  EXPECT_THAT(take(of_a, 1), ElementsAre("after"));
}

TEST_F(TransactionTopicsTest, ANewHolderOfTheIdFencesThemAll) {
  Producer a = transactional("t", "a");
  Producer b = other(a, "b");
  expect(a.begin());
  ASSERT_TRUE(a.send("of the old"));
  ASSERT_TRUE(b.send("of the old"));
  Producer young = transactional("t", "b");
  EXPECT_EQ(a.send("late").error(), SendError::fenced);
  EXPECT_EQ(b.send("late").error(), SendError::fenced);
  EXPECT_EQ(b.error().code, Code::fenced);
  EXPECT_EQ(b.commit().error().code, Code::fenced);
  Producer c = other(young, "a");
  expect(c.begin());
  ASSERT_TRUE(c.send("of the young"));
  expect(young.commit());
  Consumer of_a = committed_reader("a");
  EXPECT_THAT(take(of_a, 1), ElementsAre("of the young"));
}

TEST_F(TransactionTopicsTest, ADurableCommitOfAllTopicsSurvivesAHostCrash) {
  create("c", small({{"segment.bytes", "1MiB"}}));
  create("d", small({{"segment.bytes", "1MiB"}}));
  {
    Producer c = transactional("t", "c", {.durable = true});
    Producer d = other(c, "d");
    expect(c.begin());
    ASSERT_TRUE(c.send("1"));
    ASSERT_TRUE(d.send("2"));
    expect(d.commit());
    take_image();
  }
  crash_host();
  Consumer of_c = committed_reader("c");
  Consumer of_d = committed_reader("d");
  EXPECT_THAT(take(of_c, 1), ElementsAre("1"));
  EXPECT_THAT(take(of_d, 1), ElementsAre("2"));
}

TEST_F(TransactionTopicsTest, DurableTransactionsAreNotForMemoryTopics) {
  create("m", {{"storage", "memory"}});
  Producer a = transactional("t", "a", {.durable = true});
  auto opened = a.for_topic("m");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::unsupported);
}

TEST_F(TransactionTopicsTest, ATopicHasOneProducerAndItsNumbersGoOn) {
  Producer a = transactional("t", "a");
  EXPECT_EQ(a.for_topic("a").error().code, Code::invalid_argument);
  EXPECT_EQ(a.for_topic("nowhere").error().code, Code::not_found);
  std::optional<Producer> b = other(a, "b");
  expect(a.begin());
  ASSERT_TRUE(b->send({.value = "1", .partition = PartitionId(0)}));
  auto again = a.for_topic("b");
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message, HasSubstr("'b' already"));
  b.reset();
  b = other(a, "b");
  EXPECT_EQ(b->next_sequence(PartitionId(0)), 1u);
  EXPECT_EQ(b->send({.value = "1", .partition = PartitionId(0), .sequence = 0}).error(),
            SendError::out_of_order_sequence)
      << "only the producer that sent it knows where it stands";
  ASSERT_TRUE(b->send({.value = "2", .partition = PartitionId(0), .sequence = 1}));
  expect(a.commit());
  Consumer of_b = committed_reader("b");
  EXPECT_THAT(take(of_b, 2), ElementsAre("1", "2"));
}

TEST_F(TransactionTopicsTest, AnAbortTakesBackTheNumbersOfAProducerThatHasEnded) {
  Producer a = transactional("t", "a");
  std::optional<Producer> b = other(a, "b");
  const PartitionId first(0);
  expect(a.begin());
  ASSERT_TRUE(b->send({.value = "1", .partition = first}));
  expect(a.commit());
  expect(a.begin());
  ASSERT_TRUE(b->send({.value = "no", .partition = first}));
  b.reset();
  b = other(a, "b");
  ASSERT_TRUE(b->send({.value = "no", .partition = first, .sequence = 2}));
  b.reset();
  expect(a.abort());
  b = other(a, "b");
  EXPECT_EQ(b->next_sequence(first), 1U);
  expect(a.begin());
  ASSERT_TRUE(b->send({.value = "no", .partition = first, .sequence = 1}));
  b.reset();
  b = other(a, "b");
  ASSERT_TRUE(b->send({.value = "no", .partition = first}));
  expect(a.abort());
  EXPECT_EQ(b->next_sequence(first), 1U);
  expect(a.begin());
  ASSERT_TRUE(b->send({.value = "2", .partition = first, .sequence = 1}));
  expect(a.commit());
  Consumer of_b = committed_reader("b");
  EXPECT_THAT(take(of_b, 2), ElementsAre("1", "2"));
  EXPECT_THAT(drain(of_b), IsEmpty());
}

// --- Without a transactional id ------------------------------------------------------------------

TEST_F(TransactionTopicsTest, PlainProducersShareASlot) {
  Producer a = producer("a");
  const std::size_t before = attached();
  Producer b = other(a, "b");
  Producer more = other(b, "a");
  EXPECT_EQ(attached(), before);
  ASSERT_TRUE(a.send("1"));
  ASSERT_TRUE(b.send({.value = "2", .partition = PartitionId(1)}));
  auto claim = b.try_claim(1);
  ASSERT_TRUE(claim);
  EXPECT_EQ(a.send("refused").error(), SendError::claim_open);
  EXPECT_EQ(more.send("refused").error(), SendError::claim_open);
  claim->abort();
  ASSERT_TRUE(more.send("3"));
  ASSERT_TRUE(a.send("4"));
  EXPECT_EQ(b.begin().error().code, Code::invalid_argument);
  Consumer of_a = consumer("a");
  EXPECT_THAT(take(of_a, 3), ElementsAre("1", "3", "4"));
}

TEST_F(TransactionTopicsTest, IdempotentProducersNumberForThemselves) {
  Producer a = producer("a", {.enable_idempotence = true});
  Producer b = other(a, "b");
  ASSERT_TRUE(a.send("1"));
  ASSERT_TRUE(a.send("2"));
  EXPECT_EQ(b.next_sequence(PartitionId(0)), 0u);
  auto first = b.send({.value = "3", .partition = PartitionId(0), .sequence = 0});
  auto again = b.send({.value = "3", .partition = PartitionId(0), .sequence = 0});
  ASSERT_TRUE(first && again);
  EXPECT_EQ(first->offset, again->offset);
}

TEST_F(TransactionTopicsTest, AGroupThatCeasedToBeHasNoPositionsToMove) {
  Producer a = transactional("t", "a");
  const OffsetCommit position[] = {{{"b", PartitionId(0)}, Offset(1), {}}};
  for (const auto& [member_id, code] :
       {std::pair{"m", Code::stale_generation}, std::pair{"", Code::not_found}}) {
    expect(a.begin());
    const GroupMetadata member{.group_id = "gone", .member_id = member_id, .generation = 0};
    EXPECT_EQ(a.add_offsets(position, member).error().code, code);
    EXPECT_EQ(a.commit().error().code, Code::invalid_argument);
    expect(a.abort());
  }
}

TEST_F(TransactionTopicsTest, AReplicatedTopicHasNoPartInThem) {
  ASSERT_TRUE(log_->core()->catalog().adopt_topic({.name = "replicated",
                                                   .topic_id = 7,
                                                   .partitions = 1,
                                                   .replication_factor = 2,
                                                   .overrides = small(),
                                                   .created_ns = 1}));
  ASSERT_TRUE(log_->core()->apply_catalog());
  const auto opened = Producer::open(*log_, {.topic = "replicated", .transactional_id = "t"});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::unsupported);
  EXPECT_THAT(opened.error().message, HasSubstr("producer_id"));
  Producer a = transactional("t", "a");
  EXPECT_EQ(a.for_topic("replicated").error().code, Code::unsupported);
}

}  // namespace
}  // namespace ringtail
