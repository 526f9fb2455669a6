// Transactions: all of it or nothing, for readers of committed records and for the positions of groups.
#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <span>

#include "unit/client/transaction_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(TransactionTest, RecordsAreVisibleTogetherOnceCommitted) {
  create("out", small(), 2);
  Producer writer = transactional("t", "out");
  Consumer reader = committed_reader("out");
  expect(writer.begin());
  ASSERT_TRUE(writer.send({.value = "a", .partition = PartitionId(0)}));
  ASSERT_TRUE(writer.send({.value = "b", .partition = PartitionId(1)}));
  EXPECT_THAT(drain(reader), IsEmpty());
  expect(writer.commit());
  EXPECT_THAT(take(reader, 2), ::testing::UnorderedElementsAre("a", "b"));
}

TEST_F(TransactionTest, AbortedRecordsAreNeverSeen) {
  create("out", small());
  Producer writer = transactional("t", "out");
  Consumer reader = committed_reader("out");
  expect(writer.begin());
  ASSERT_TRUE(writer.send("no"));
  expect(writer.abort());
  expect(writer.begin());
  ASSERT_TRUE(writer.send("yes"));
  expect(writer.commit());
  EXPECT_THAT(take(reader, 1), ElementsAre("yes"));
  EXPECT_THAT(drain(reader), IsEmpty());
}

TEST_F(TransactionTest, SendsBelongIntoTransactions) {
  create("out", small());
  Producer writer = transactional("t", "out");
  EXPECT_EQ(writer.send("v").error(), SendError::no_transaction);
  EXPECT_EQ(writer.commit().error().code, Code::invalid_argument);
  expect(writer.begin());
  EXPECT_EQ(writer.begin().error().code, Code::invalid_argument);
  Producer plain = producer("out");
  EXPECT_EQ(plain.begin().error().code, Code::invalid_argument);
}

// Which notes on disk that the partition has transactions.
TEST_F(TransactionTest, TheFirstSendWaitsForAKeeperNoLongerThanItMay) {
  create("out", small());
  LogOptions watching = options();
  watching.keeper = KeeperMode::none;
  const Log watcher = Log::open(watching).value();
  const ProducerOptions impatient{.topic = "out", .max_block = milliseconds(50), .transactional_id = "t"};
  auto opened = Producer::open(watcher, impatient);
  while (!opened && opened.error().code == Code::timed_out) opened = Producer::open(watcher, impatient);
  Producer writer = std::move(opened).value();
  expect(writer.begin());
  log_.reset();
  auto sent = writer.send("v");
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error(), SendError::timed_out);
  EXPECT_EQ(writer.error().code, Code::timed_out);
  log_.emplace(open_log().value());
  while (!sent && sent.error() == SendError::timed_out) sent = writer.send("v");
  EXPECT_TRUE(sent) << to_string(writer.error());
}

TEST_F(TransactionTest, OpeningWaitsForAKeeperNoLongerThanItMay) {
  create("out", small());
  LogOptions watching = options();
  watching.keeper = KeeperMode::none;
  const Log watcher = Log::open(watching).value();
  log_.reset();
  ProducerOptions wanted{.topic = "out", .max_block = milliseconds(50), .transactional_id = "t"};
  const auto began = std::chrono::steady_clock::now();
  const auto opened = Producer::open(watcher, wanted);
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(10));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::no_keeper) << to_string(opened.error());
  log_.emplace(open_log().value());
  wanted.max_block = seconds(60);
  EXPECT_TRUE(Producer::open(watcher, wanted));
}

// For ever in milliseconds is no time in nanoseconds.
TEST_F(TransactionTest, WhoWaitsForEverWaits) {
  create("in", small());
  create("out", small());
  send("in", "1");
  Producer writer = transactional("t", "out", {.max_block = milliseconds::max()});
  expect(writer.begin());
  const auto sent = writer.send("v");  // which notes on disk that the partition has transactions
  EXPECT_TRUE(sent) << to_string(writer.error());
  expect(writer.commit());
  Consumer input = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 1; });
  expect(input.commit_sync(milliseconds::max()));
}

TEST_F(TransactionTest, ANewHolderOfTheIdFencesTheOld) {
  create("out", small());
  Producer old = transactional("t", "out");
  expect(old.begin());
  ASSERT_TRUE(old.send("of the old"));
  Producer young = transactional("t", "out");
  EXPECT_EQ(old.send("late").error(), SendError::fenced);
  EXPECT_EQ(old.error().code, Code::fenced);
  EXPECT_EQ(old.commit().error().code, Code::fenced);
  EXPECT_EQ(old.begin().error().code, Code::invalid_argument);
  EXPECT_EQ(old.abort().error().code, Code::fenced);
  EXPECT_EQ(old.begin().error().code, Code::fenced);
  expect(young.begin());
  ASSERT_TRUE(young.send("of the young"));
  expect(young.commit());
  Consumer reader = committed_reader("out");
  EXPECT_THAT(take(reader, 1), ElementsAre("of the young"));
  EXPECT_THAT(drain(reader), IsEmpty());
}

TEST_F(TransactionTest, ANewHolderOfTheIdDoesNotWaitForAnOpenClaimOfTheOld) {
  create("out", small());
  Producer old = transactional("t", "out");
  expect(old.begin());
  auto claim = old.try_claim(4);
  ASSERT_TRUE(claim);
  std::memcpy(claim->value().data(), "late", 4);
  Producer young = transactional("t", "out");
  EXPECT_TRUE(claim->commit());  // its place is ahead of the end that its transaction was given
  expect(young.begin());
  ASSERT_TRUE(young.send("of the young"));
  expect(young.commit());
  Consumer reader = committed_reader("out");
  EXPECT_THAT(take(reader, 1), ElementsAre("of the young"));
  EXPECT_THAT(drain(reader), IsEmpty());
}

// It is whom the coordinator takes for the holder: the others may come and go.
TEST_F(TransactionTest, OfManyThatOpenAnIdAtOnceOneHoldsIt) {
  create("out", small());
  warm_up("out");
  for (int round = 0; round < 10; ++round) {
    std::vector<std::optional<Producer>> rivals(8);
    std::vector<std::thread> threads;
    for (std::optional<Producer>& rival : rivals)
      threads.emplace_back([&] {
        auto opened = Producer::open(*log_, {.topic = "out", .transactional_id = "t"});
        if (opened)
          rival.emplace(std::move(*opened));
        else
          EXPECT_EQ(opened.error().code, Code::fenced) << to_string(opened.error());
      });
    for (std::thread& thread : threads) thread.join();
    int holders = 0;
    for (std::optional<Producer>& rival : rivals) {
      const Status begun = rival ? rival->begin() : Status{};
      if (rival && begun)
        ++holders;
      else
        rival.reset();
      if (!begun) {
        EXPECT_EQ(begun.error().code, Code::fenced) << to_string(begun.error());
      }
    }
    ASSERT_EQ(holders, 1) << "in round " << round;
    for (int i = 0; i < 2; ++i) transactional("other", "out");  // the coordinator has looked who is there
    const auto holder = std::ranges::find_if(rivals, &std::optional<Producer>::has_value);
    ASSERT_TRUE((*holder)->send(std::to_string(round))) << "in round " << round;
    expect((*holder)->commit());
  }
  Consumer reader = committed_reader("out");
  EXPECT_EQ(take(reader, 10).size(), 10u);
  EXPECT_THAT(drain(reader), IsEmpty());
}

TEST_F(TransactionTest, ATransactionThatTakesTooLongIsAborted) {
  create("out", small());
  warm_up("out");
  Producer writer = transactional("t", "out", {.transaction_timeout = milliseconds(300)});
  Consumer reader = committed_reader("out");
  expect(writer.begin());
  ASSERT_TRUE(writer.send("late"));
  while (writer.send("more")) std::this_thread::sleep_for(milliseconds(1));
  auto committed = writer.commit();
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code, Code::fenced);
  expect(writer.abort());
  expect(writer.begin());
  ASSERT_TRUE(writer.send("in time"));
  expect(writer.commit());
  EXPECT_THAT(take(reader, 1), ElementsAre("in time"));
}

TEST_F(TransactionTest, AProducerThatGoesLeavesNothingOpen) {
  create("out", small());
  Consumer reader = committed_reader("out");
  {
    Producer writer = transactional("t", "out");
    expect(writer.begin());
    ASSERT_TRUE(writer.send("v"));
  }
  send("out", "plain");
  EXPECT_THAT(take(reader, 1), ElementsAre("plain"));
}

TEST_F(TransactionTest, PositionsMoveWithTheRecords) {
  create("in", small());
  create("out", small());
  for (const char* value : {"1", "2", "3"}) send("in", value);
  Consumer input = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 3; });
  Producer writer = transactional("t", "out");
  const TopicPartition partition{"in", PartitionId(0)};
  const OffsetCommit two[] = {{partition, Offset(2), {}}};
  expect(writer.begin());
  ASSERT_TRUE(writer.send("1+2"));
  expect(writer.add_offsets(two, input.group_metadata()));
  EXPECT_FALSE(*input.committed(partition));
  expect(writer.commit());
  EXPECT_EQ((*input.committed(partition))->offset, Offset(2));
  const OffsetCommit three[] = {{partition, Offset(3), {}}};
  expect(writer.begin());
  expect(writer.add_offsets(three, input.group_metadata()));
  expect(writer.abort());
  EXPECT_EQ((*input.committed(partition))->offset, Offset(2));
}

TEST_F(TransactionTest, APositionWithMetadataIsRefusedSinceThatWouldNotBeKept) {
  create("in", small());
  create("out", small());
  send("in", "1");
  Consumer input = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 1; });
  Producer writer = transactional("t", "out");
  const OffsetCommit one[] = {{{"in", PartitionId(0)}, Offset(1), "half"}};
  expect(writer.begin());
  const Status added = writer.add_offsets(one, input.group_metadata());
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, Code::invalid_argument);
  EXPECT_EQ(writer.commit().error().code, Code::invalid_argument);
  expect(writer.abort());
  EXPECT_FALSE(*input.committed({"in", PartitionId(0)}));
}

// It stands for "nothing was committed".
TEST_F(TransactionTest, APositionBehindAllOffsetsIsRefused) {
  create("in", small());
  create("out", small());
  send("in", "1");
  Consumer input = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 1; });
  const OffsetCommit none[] = {{{"in", PartitionId(0)}, Offset(~std::uint64_t{0}), {}}};
  expect(input.commit_sync());
  const Status committed = input.commit_async(none);
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code, Code::invalid_argument);
  Producer writer = transactional("t", "out");
  expect(writer.begin());
  const Status added = writer.add_offsets(none, input.group_metadata());
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, Code::invalid_argument);
  EXPECT_EQ(writer.commit().error().code, Code::invalid_argument);
  expect(writer.abort());
  EXPECT_EQ((*input.committed({"in", PartitionId(0)}))->offset, Offset(1));
}

// The transaction would move it once more, behind the reset.
TEST_F(TransactionTest, APositionThatATransactionIsAboutToMoveIsNotReset) {
  create("in", small());
  create("out", small());
  for (const char* value : {"1", "2"}) send("in", value);
  Consumer input = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 2; });
  Producer writer = transactional("t", "out");
  const OffsetCommit one[] = {{{"in", PartitionId(0)}, Offset(1), {}}};
  expect(writer.begin());
  ASSERT_TRUE(writer.send("1"));
  expect(writer.add_offsets(one, input.group_metadata()));
  expect(input.unsubscribe());
  const auto reset = [this] {
    return admin().reset_group_offsets("copiers", "in", {}, {.to = OffsetReset::To::latest}, false);
  };
  const auto refused = reset();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::group_not_empty) << to_string(refused.error());
  expect(writer.commit());
  const auto changed = reset();
  ASSERT_TRUE(changed) << to_string(changed.error());
  EXPECT_EQ(changed->front().from, Offset(1));
  EXPECT_EQ(changed->front().to, Offset(2));
}

TEST_F(TransactionTest, AMemberThatLostThePartitionCannotAddItsPosition) {
  create("in", small());
  create("out", small());
  warm_up("out");
  send("in", "1");
  Consumer slow =
      member("copiers", "in", {.enable_auto_commit = false, .max_poll_interval = milliseconds(500)});
  poll_until({&slow}, [](const Got& g) { return count(g) == 1; });
  Producer writer = transactional("t", "out");
  const OffsetCommit one[] = {{{"in", PartitionId(0)}, Offset(1), {}}};
  expect(writer.begin());
  ASSERT_TRUE(writer.send("by the slow"));
  expect(writer.add_offsets(one, slow.group_metadata()));
  Consumer quick = member("copiers", "in", {.enable_auto_commit = false});
  const Got got = poll_until({&quick}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("1"));
  EXPECT_EQ(writer.commit().error().code, Code::fenced);
  expect(writer.abort());
  expect(writer.begin());
  auto added = writer.add_offsets(one, slow.group_metadata());
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, Code::stale_generation);
  EXPECT_EQ(writer.commit().error().code, Code::invalid_argument);
  expect(writer.abort());
  EXPECT_FALSE(*quick.committed({"in", PartitionId(0)}));
}

TEST_F(TransactionTest, TheNextOwnerWaitsForTheTransactionOfTheLast) {
  create("in", small());
  create("out", small());
  for (const char* value : {"1", "2"}) send("in", value);
  std::optional<Consumer> first = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&*first}, [](const Got& g) { return count(g) == 2; });
  Producer writer = transactional("t", "out");
  const OffsetCommit one[] = {{{"in", PartitionId(0)}, Offset(1), {}}};
  expect(writer.begin());
  ASSERT_TRUE(writer.send("1"));
  expect(writer.add_offsets(one, first->group_metadata()));
  expect(first->unsubscribe());
  Consumer second = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&second}, [&, rounds = 0](const Got&) mutable { return ++rounds > 30; });
  EXPECT_THAT(second.assignment(), IsEmpty());
  expect(writer.commit());
  const Got got = poll_until({&second}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("2"));
}

TEST_F(TransactionTest, AHostCrashAbortsWhatWasOpen) {
  create("out", small({{"segment.bytes", "1MiB"}}));
  {
    Producer writer = transactional("t", "out");
    expect(writer.begin());
    auto sent = writer.send("open");
    ASSERT_TRUE(sent);
    ASSERT_TRUE(writer.wait_durable(*sent));
    take_image();
  }
  crash_host();
  send("out", "plain");
  Consumer reader = committed_reader("out");
  EXPECT_THAT(take(reader, 1), ElementsAre("plain"));
}

TEST_F(TransactionTest, ADurableCommitSurvivesAHostCrash) {
  create("in", small({{"segment.bytes", "1MiB"}}));
  create("out", small({{"segment.bytes", "1MiB"}}), 2);
  send("in", "1");
  {
    Consumer input = member("copiers", "in", {.enable_auto_commit = false});
    poll_until({&input}, [](const Got& g) { return count(g) == 1; });
    Producer writer = transactional("t", "out", {.durable = true});
    expect(writer.begin());
    ASSERT_TRUE(writer.send({.value = "a", .partition = PartitionId(0)}));
    ASSERT_TRUE(writer.send({.value = "b", .partition = PartitionId(1)}));
    const OffsetCommit one[] = {{{"in", PartitionId(0)}, Offset(1), {}}};
    expect(writer.add_offsets(one, input.group_metadata()));
    expect(writer.commit());
    take_image();
  }
  crash_host();
  Consumer reader = committed_reader("out");
  EXPECT_THAT(take(reader, 2), ::testing::UnorderedElementsAre("a", "b"));
  Consumer input = member("copiers", "in");
  auto committed = input.committed({"in", PartitionId(0)});
  ASSERT_TRUE(committed && *committed);
  EXPECT_EQ((*committed)->offset, Offset(1));
}

// The next transaction's decision must not replace one whose markers are still on their way to the disk.
TEST_F(TransactionTest, EachDecisionStandsUntilItIsComplete) {
  create("out", small({{"segment.bytes", "1MiB"}}));
  {
    Producer writer = transactional("t", "out", {.durable = true});
    for (int i = 0; i < 3; ++i) {
      expect(writer.begin());
      ASSERT_TRUE(writer.send(std::to_string(i)));
      expect(writer.commit());
    }
  }
  Consumer decisions = consumer("__transaction_state");
  std::set<std::string> keys;
  while (keys.size() < 3) {
    auto polled = decisions.poll(seconds(5));
    ASSERT_TRUE(polled && !polled->empty()) << "the decisions have only " << keys.size() << " keys";
    for (const Record& record : *polled)
      if (record.key.find("transaction") != std::string_view::npos) keys.emplace(record.key);
  }
}

TEST_F(TransactionTest, OfSeveralDecisionsAboutAPositionTheLastCountsAfterAHostCrash) {
  create("in", small({{"segment.bytes", "1MiB"}}));
  create("out", small({{"segment.bytes", "1MiB"}}));
  constexpr std::uint64_t kLast = 12;
  for (std::uint64_t i = 0; i < kLast; ++i) send("in", std::to_string(i));
  {
    Consumer input = member("copiers", "in", {.enable_auto_commit = false});
    poll_until({&input}, [](const Got& g) { return count(g) == kLast; });
    Producer writer = transactional("t", "out", {.durable = true});
    for (std::uint64_t i = 1; i <= kLast; ++i) {
      expect(writer.begin());
      ASSERT_TRUE(writer.send(std::to_string(i)));
      const OffsetCommit position[] = {{{"in", PartitionId(0)}, Offset(i), {}}};
      expect(writer.add_offsets(position, input.group_metadata()));
      expect(writer.commit());
    }
    take_image();
  }
  crash_host();
  Consumer input = member("copiers", "in");
  auto committed = input.committed({"in", PartitionId(0)});
  ASSERT_TRUE(committed && *committed);
  EXPECT_EQ((*committed)->offset, Offset(kLast));
}

TEST_F(TransactionTest, PositionsDoNotWaitForADeletedTopic) {
  create("in", small());
  create("out", small({{"flush.ms", "1h"}}));
  send("in", "1");
  Consumer input = member("copiers", "in", {.enable_auto_commit = false});
  poll_until({&input}, [](const Got& g) { return count(g) == 1; });
  {
    Producer writer = transactional("t", "out");
    expect(writer.begin());
    ASSERT_TRUE(writer.send("1"));
    const OffsetCommit one[] = {{{"in", PartitionId(0)}, Offset(1), {}}};
    expect(writer.add_offsets(one, input.group_metadata()));
    expect(writer.commit());
  }
  expect(Admin(*log_).delete_topic("out"));
  expect(input.commit_sync(seconds(30)));
}

TEST_F(TransactionTest, ADecisionIsClosedByTheNextCoordinatorWhenTheLastOneDidNot) {
  create("out", small({{"segment.bytes", "1MiB"}}));
  {
    Producer writer = transactional("t", "out", {.durable = true});
    expect(writer.begin());
    ASSERT_TRUE(writer.send("v"));
    expect(writer.commit());
  }
  log_.reset();
  log_.emplace(open_log().value());
  Consumer decisions = consumer("__transaction_state");
  std::set<std::string> open;
  bool seen = false;
  for (const auto end = std::chrono::steady_clock::now() + seconds(60); !seen || !open.empty();) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "the decision stays open";
    auto polled = decisions.poll(milliseconds(100));
    ASSERT_TRUE(polled) << to_string(polled.error());
    for (const Record& record : *polled) {
      if (record.key.find("transaction") == std::string_view::npos) continue;
      seen = true;
      if (record.is_tombstone())
        open.erase(std::string(record.key));
      else
        open.emplace(record.key);
    }
  }
}

TEST_F(TransactionTest, ARepeatedNumberIsNoSecondRecord) {
  create("out", small());
  Producer writer = producer("out", {.enable_idempotence = true});
  EXPECT_EQ(writer.next_sequence(PartitionId(0)), 0u);
  auto first = writer.send({.value = "a", .sequence = 0});
  ASSERT_TRUE(first);
  auto again = writer.send({.value = "a", .sequence = 0});
  ASSERT_TRUE(again);
  EXPECT_EQ(again->offset, first->offset);
  EXPECT_EQ(writer.send({.value = "c", .sequence = 2}).error(), SendError::out_of_order_sequence);
  ASSERT_TRUE(writer.send("b"));
  EXPECT_EQ(writer.next_sequence(PartitionId(0)), 2u);
  Consumer reader = consumer("out");
  EXPECT_THAT(take(reader, 2), ElementsAre("a", "b"));
  EXPECT_THAT(drain(reader), IsEmpty());
}

// Of what was aborted nothing counts: what is sent again under the same numbers is appended.
TEST_F(TransactionTest, TheNumbersOfAnAbortedTransactionComeOnceMore) {
  create("out", small());
  Producer writer = transactional("t", "out");
  const PartitionId first(0);
  const auto send = [&](std::string_view value, std::uint64_t sequence) {
    const auto sent = writer.send({.value = value, .sequence = sequence});
    EXPECT_TRUE(sent) << to_string(writer.error());
    return sent ? sent->offset : Offset(0);
  };
  expect(writer.begin());
  const Offset of_a = send("a", 0);
  expect(writer.commit());
  expect(writer.begin());
  send("b", 1);
  send("c", 2);
  auto claim = writer.try_claim(1);
  ASSERT_TRUE(claim);
  *claim->value().data() = std::byte{'d'};
  ASSERT_TRUE(claim->commit());
  EXPECT_EQ(writer.next_sequence(first), 4U);
  expect(writer.abort());
  EXPECT_EQ(writer.next_sequence(first), 1U);
  expect(writer.begin());
  EXPECT_EQ(send("a", 0), of_a) << "that one was committed";
  EXPECT_EQ(writer.send({.value = "c", .sequence = 2}).error(), SendError::out_of_order_sequence);
  const Offset of_b = send("b", 1);
  send("c", 2);
  EXPECT_EQ(send("b", 1), of_b);
  expect(writer.commit());
  Consumer reader = committed_reader("out");
  EXPECT_THAT(take(reader, 3), ElementsAre("a", "b", "c"));
  EXPECT_THAT(drain(reader), IsEmpty());
}

// A claim that an abort has ended has nothing to do with the next one.
TEST_F(TransactionTest, AClaimThatAnAbortHasEndedEndsNoOther) {
  create("orders", small());
  Producer writer = transactional("gateway", "orders");
  expect(writer.begin());
  auto stale = writer.try_claim(5);
  ASSERT_TRUE(stale);
  expect(writer.abort());
  expect(writer.begin());
  auto claim = writer.try_claim(5);
  ASSERT_TRUE(claim);
  const auto committed = stale->commit();
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error(), SendError::closed);
  std::ranges::copy(std::as_bytes(std::span("value", 5)), claim->value().begin());
  const auto sent = claim->commit();
  ASSERT_TRUE(sent) << to_string(writer.error());
  expect(writer.commit());
  Consumer reader = committed_reader("orders");
  EXPECT_THAT(take(reader, 1), ::testing::ElementsAre("value"));
}

TEST_F(TransactionTest, AClaimThatAnAbortHasEndedMayGoOutOfScopeBesideAnother) {
  create("orders", small());
  Producer writer = transactional("gateway", "orders");
  expect(writer.begin());
  std::optional<Claim> stale = std::move(*writer.try_claim(5));
  expect(writer.abort());
  expect(writer.begin());
  auto claim = writer.try_claim(5);
  ASSERT_TRUE(claim);
  stale.reset();
  EXPECT_TRUE(claim->commit());
  expect(writer.abort());
}

}  // namespace
}  // namespace ringtail
