// What a producer's numbers promise: of one process, of those after it, and when a partition's leader changes.
#include "unit/client/idempotence_test_support.h"

namespace ringtail {
namespace {

using shm::ReplicaRole;
using ::testing::ElementsAre;

TEST_F(IdempotenceTest, ARepeatedSendIsNoSecondRecord) {
  create("t");
  Producer p = producer("t", numbered(0));
  const RecordMetadata first = send(p, "a", 0);
  send(p, "b", 1);
  EXPECT_EQ(send(p, "a", 0).offset, first.offset);
  EXPECT_EQ(p.next_sequence(kFirst), 2U);
  EXPECT_THAT(all("t"), ElementsAre("a", "b"));
}

TEST_F(IdempotenceTest, ANumberThatLeavesAGapIsRefused) {
  create("t");
  Producer p = producer("t", numbered(0));
  send(p, "a");
  EXPECT_EQ(p.send({.value = "c", .sequence = 2}).error(), SendError::out_of_order_sequence);
  EXPECT_THAT(all("t"), ElementsAre("a"));
}

TEST_F(IdempotenceTest, ASuccessorWithTheSameIdKnowsWhatWasSent) {
  create("t");
  RecordMetadata last;
  {
    Producer p = producer("t", numbered());
    for (const char* value : {"a", "b", "c"}) last = send(p, value);
  }
  Producer successor = producer("t", numbered());
  EXPECT_EQ(successor.next_sequence(kFirst), 3U);
  const RecordMetadata again = send(successor, "c", 2);
  EXPECT_EQ(again.offset, last.offset);
  EXPECT_EQ(again.end, last.end);
  EXPECT_EQ(again.timestamp_ns, last.timestamp_ns);
  send(successor, "d");
  EXPECT_THAT(all("t"), ElementsAre("a", "b", "c", "d"));
}

TEST_F(IdempotenceTest, ASuccessorKnowsItFromFilesAlone) {
  create("t");
  {
    Producer p = producer("t", numbered());
    for (int i = 0; i < 1'000; ++i) send(p, std::to_string(i));
    ASSERT_TRUE(p.flush());
  }
  log_.reset();
  std::filesystem::remove_all(shm_.path());  // as the host's crash does
  std::filesystem::create_directories(shm_.path());
  log_.emplace(open_log().value());
  Producer successor = producer("t", numbered());
  EXPECT_EQ(successor.next_sequence(kFirst), 1'000U);
  EXPECT_EQ(send(successor, "999", 999).offset, Offset(999));
  EXPECT_EQ(send(successor, "1000").offset, Offset(1'000));
}

TEST_F(IdempotenceTest, OtherIdsAreOtherNumbers) {
  create("t");
  {
    Producer mine = producer("t", numbered(1));
    Producer theirs = producer("t", numbered(2));
    for (int i = 0; i < 10; ++i) send(mine, "m");
    for (int i = 0; i < 3; ++i) send(theirs, "t");
  }
  EXPECT_EQ(producer("t", numbered(1)).next_sequence(kFirst), 10U);
  EXPECT_EQ(producer("t", numbered(2)).next_sequence(kFirst), 3U);
  EXPECT_EQ(producer("t", numbered(3)).next_sequence(kFirst), 0U);
}

TEST_F(IdempotenceTest, AnIdOfWhichTheLogHasNothingBeginsWhereItIsTold) {
  create("t");
  Producer p = producer("t", numbered());
  send(p, "a", 100);
  EXPECT_EQ(p.next_sequence(kFirst), 101U);
  EXPECT_EQ(p.send({.value = "b", .sequence = 99}).error(), SendError::out_of_order_sequence);
  EXPECT_EQ(p.send({.value = "b", .sequence = 102}).error(), SendError::out_of_order_sequence);
  send(p, "b", 101);
  EXPECT_THAT(all("t"), ElementsAre("a", "b"));
}

TEST_F(IdempotenceTest, OfALongLogTheEndIsRead) {
  create("t", {{"term.bytes", "8MiB"}});
  {
    Producer old = producer("t", numbered(1));
    Producer young = producer("t", numbered(2));
    const std::string value(256 << 10, 'v');
    send(old, value);
    for (int i = 0; i < 400; ++i) send(young, value);
  }
  EXPECT_EQ(producer("t", numbered(2)).next_sequence(kFirst), 400U);
  EXPECT_EQ(producer("t", numbered(1)).next_sequence(kFirst), 0U);
}

TEST_F(IdempotenceTest, OfAMemoryTopicWhatTheRingHoldsIsRead) {
  for (const char* const on_full : {"overwrite", "block"}) {
    const std::string topic = on_full;
    create(topic, small({{"storage", "memory"}, {"on.full", on_full}}));
    {
      Producer p = producer(topic, numbered());
      const std::string value(100, 'v');
      for (int i = 0; i < 10'000; ++i) send(p, value);  // laps of the ring
    }
    Producer successor = producer(topic, numbered());
    EXPECT_EQ(successor.next_sequence(kFirst), 10'000U) << on_full;
    EXPECT_EQ(send(successor, "again", 9'999).offset, Offset(9'999)) << on_full;
  }
}

TEST_F(IdempotenceTest, CompactedRecordsAreKnown) {
  create("t", small({{"cleanup.policy", "compact"},
                     {"segment.bytes", "1MiB"},
                     {"min.cleanable.dirty.ratio", "0.01"}}));
  {
    Producer p = producer("t", numbered());
    const std::string value(1'000, 'v');
    for (int i = 0; i < 3'000; ++i) send(p, value);
    ASSERT_TRUE(p.flush());
  }
  while (first_offset("t") == Offset(0)) std::this_thread::sleep_for(milliseconds(10));  // until compacted
  Producer successor = producer("t", numbered());
  EXPECT_EQ(successor.next_sequence(kFirst), 3'000U);
  EXPECT_EQ(send(successor, "v", 2'999).offset, Offset(2'999));
  EXPECT_EQ(send(successor, "v").offset, Offset(3'000));
}

TEST_F(IdempotenceTest, AnOpenClaimOfAnotherIsWaitedFor) {
  create("t", {{"claim.timeout.ms", "60000"}});
  Producer other = producer("t");
  auto claim = other.try_claim(8);
  ASSERT_TRUE(claim);
  ProducerOptions options = numbered();
  options.topic = "t";
  options.max_block = milliseconds(20);
  const auto impatient = Producer::open(*log_, options);
  ASSERT_FALSE(impatient);
  EXPECT_EQ(impatient.error().code, Code::timed_out);
  ASSERT_TRUE(claim->commit());
  EXPECT_TRUE(Producer::open(*log_, options));
}

TEST_F(IdempotenceTest, AProducerIdIsForProducersThatNumber) {
  create("t");
  for (const ProducerOptions& options :
       {ProducerOptions{.topic = "t", .producer_id = 1},
        ProducerOptions{.topic = "t", .enable_idempotence = true, .producer_id = 1, .transactional_id = "x"},
        ProducerOptions{.topic = "t", .enable_idempotence = true, .producer_id = ~std::uint64_t{0}}}) {
    const auto opened = Producer::open(*log_, options);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Code::invalid_argument);
  }
}

// --- When nobody tells what became of an append --------------------------------------------------

TEST_F(IdempotenceOfUnknownTest, TheRepetitionOfASendThatWasKeptIsNoSecondRecord) {
  for (const bool exclusive : {false, true}) {
    for (const std::uint64_t id : {std::uint64_t{0}, kId}) {
      SCOPED_TRACE(std::to_string(id) + (exclusive ? ", exclusive" : ""));
      const std::string topic = "t" + std::to_string(id) + (exclusive ? "e" : "");
      create(topic);
      ProducerOptions options = impatient(id);
      options.exclusive = exclusive;
      Producer p = producer(topic, options);
      give_up_next(p);
      EXPECT_EQ(failed_send(p, "a", 0), SendError::timed_out);
      EXPECT_EQ(send(p, "a", 0).offset, Offset(1));  // behind the claim that was aborted
      EXPECT_EQ(send(p, "a", 0).offset, Offset(1));
      give_up_next(p);
      EXPECT_EQ(failed_send(p, "b", 1), SendError::timed_out);
      EXPECT_EQ(send(p, "c", 2).offset, Offset(4));
      EXPECT_EQ(send(p, "b", 1).offset, Offset(3));
      Consumer reader = consumer(topic);
      EXPECT_THAT(take(reader, 3), ElementsAre("a", "b", "c"));
    }
  }
}

TEST_F(IdempotenceOfUnknownTest, AsLongAsNothingIsDecidedTheRepetitionIsRefused) {
  create("t", {{"claim.timeout.ms", "60000"}});
  Producer other = producer("t");
  Producer p = producer("t", impatient(0));
  give_up_next(p);
  auto before = other.try_claim(8);
  ASSERT_TRUE(before);
  EXPECT_EQ(failed_send(p, "a", 0), SendError::timed_out);
  EXPECT_EQ(failed_send(p, "a", 0), SendError::timed_out);
  ASSERT_TRUE(before->commit());
  EXPECT_EQ(send(p, "a", 0).offset, Offset(2));
  EXPECT_EQ(send(p, "b").offset, Offset(3));
}

// Those before it under the same id have had the same numbers.
TEST_F(IdempotenceOfUnknownTest, OfATransactionalIdTheRecordsOfThisProducerCount) {
  create("t");
  ProducerOptions options{.max_block = seconds(30), .transactional_id = "billing"};
  {
    Producer former = producer("t", options);
    ASSERT_TRUE(former.begin());
    for (int i = 0; i < 5; ++i) send(former, "former");
    ASSERT_TRUE(former.commit());
  }
  options.max_block = seconds(1);
  Producer p = producer("t", options);
  ASSERT_TRUE(p.begin());
  give_up_next(p);
  EXPECT_EQ(failed_send(p, "a", 0), SendError::timed_out);
  EXPECT_EQ(p.next_sequence(kFirst), 1U);
  const RecordMetadata again = send(p, "a", 0);
  EXPECT_EQ(send(p, "b").offset, again.offset + 1);
  ASSERT_TRUE(p.commit());
}

// What the log has of aborted ones it has under numbers that come once more.
TEST_F(IdempotenceOfUnknownTest, OfATransactionalIdAbortedRecordsDoNotCount) {
  create("t");
  Producer p = producer("t", {.max_block = seconds(1), .transactional_id = "billing"});
  ASSERT_TRUE(p.begin());
  send(p, "a", 0);
  give_up_next(p);  // what became of it is asked when the next one begins
  EXPECT_EQ(failed_send(p, "b", 1), SendError::timed_out);
  ASSERT_TRUE(p.commit());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(p.begin());
    for (std::uint64_t sequence = 2; sequence < 6; ++sequence) send(p, "aborted", sequence);
    if (i == 1) {
      give_up_next(p);
      EXPECT_EQ(failed_send(p, "aborted", 6), SendError::timed_out);
    }
    ASSERT_TRUE(p.abort());
    EXPECT_EQ(p.next_sequence(kFirst), 2U);
  }
  ASSERT_TRUE(p.begin());
  give_up_next(p);
  EXPECT_EQ(failed_send(p, "c", 2), SendError::timed_out);
  EXPECT_EQ(p.next_sequence(kFirst), 3U);
  const RecordMetadata c = send(p, "c", 2);
  EXPECT_EQ(send(p, "d", 3).offset, c.offset + 1);
  ASSERT_TRUE(p.commit());
  Consumer reader = consumer("t", {.isolation_level = IsolationLevel::read_committed});
  EXPECT_THAT(take(reader, 4), ElementsAre("a", "b", "c", "d"));
}

// They had all places of what is remembered.
TEST_F(IdempotenceTest, BehindAnAbortOfManyRecordsThoseBeforeItAreKnown) {
  create("t");
  Producer p = producer("t", {.transactional_id = "billing"});
  ASSERT_TRUE(p.begin());
  const RecordMetadata a = send(p, "a", 0);
  ASSERT_TRUE(p.commit());
  ASSERT_TRUE(p.begin());
  for (std::size_t i = 0; i < log::SentRecords::kRemembered; ++i) send(p, "aborted");
  ASSERT_TRUE(p.abort());
  EXPECT_EQ(p.next_sequence(kFirst), 1U);
  ASSERT_TRUE(p.begin());
  EXPECT_EQ(send(p, "a", 0).offset, a.offset);
  send(p, "b", 1);
  ASSERT_TRUE(p.commit());
  Consumer reader = consumer("t", {.isolation_level = IsolationLevel::read_committed});
  EXPECT_THAT(take(reader, 2), ElementsAre("a", "b"));
}

// --- When the leader changes ---------------------------------------------------------------------

TEST_F(IdempotenceOfEpochsTest, WhatTheLogLostIsAppendedByTheRetry) {
  Producer p = producer("t", numbered(0));
  const RecordMetadata kept = send(p, "a");
  send(p, "b");
  lead_anew_without(behind(kept));
  EXPECT_EQ(p.next_sequence(kFirst), 1U);
  EXPECT_EQ(send(p, "b", 1).offset, Offset(1));
  EXPECT_EQ(send(p, "b", 1).offset, Offset(1));
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(4)});
  EXPECT_EQ(send(p, "b", 1).offset, Offset(1));
  EXPECT_EQ(p.next_sequence(kFirst), 2U);
}

TEST_F(IdempotenceOfEpochsTest, WhatTheLogKeptIsNotAppendedByTheRetry) {
  Producer p = producer("t", numbered(0));
  send(p, "a");
  const RecordMetadata kept = send(p, "b");
  lead_anew_without(behind(kept));
  const RecordMetadata again = send(p, "b", 1);
  EXPECT_EQ(again.offset, kept.offset);
  EXPECT_EQ(again.end, kept.end);
  EXPECT_EQ(send(p, "c").offset, Offset(2));
}

// What stood at that place before is no answer to whether the record is there now.
TEST_F(IdempotenceOfEpochsTest, AnothersRecordAtTheSamePlaceIsNotItsOwn) {
  Producer p = producer("t", numbered(0));
  const RecordMetadata kept = send(p, "a");
  send(p, "b");
  lead_anew_without(behind(kept));
  Producer other = producer("t", numbered(99));
  EXPECT_EQ(send(other, "x", 0).offset, Offset(1));
  EXPECT_EQ(send(p, "b", 1).offset, Offset(2));
}

TEST_F(IdempotenceOfEpochsTest, AStandbyGoesOnWhereItsPredecessorEnded) {
  Producer active = producer("t", numbered());
  change({.role = ReplicaRole::fenced, .epoch = LeaderEpoch(2)});
  Producer standby = producer("t", numbered());
  EXPECT_EQ(standby.send({.value = "no"}).error(), SendError::not_leader);
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(3)});
  send(active, "a");
  send(active, "b");
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(4)});
  EXPECT_EQ(standby.next_sequence(kFirst), 2U);
  EXPECT_EQ(send(standby, "b", 1).offset, Offset(1));
  EXPECT_EQ(send(standby, "c").offset, Offset(2));
}

// A host leads for a moment before a follower is in sync with it.
TEST_F(IdempotenceOfEpochsTest, WhatOthersSentSinceItLedIsReadHoweverFarBack) {
  Producer standby = producer("t", numbered(7));
  send(standby, "a");
  Producer active = producer("t", numbered(7));
  const RecordMetadata repeated = send(active, "b");
  send(active, "c");
  send_more_than_is_recalled();
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(2)});
  EXPECT_EQ(standby.next_sequence(kFirst), 3U);
  EXPECT_EQ(send(standby, "b", 1).offset, repeated.offset);
}

TEST_F(IdempotenceOfEpochsTest, WhatItSentLongAgoIsRefusedAndNotAppended) {
  Producer p = producer("t", numbered(7));
  send(p, "a");
  send(p, "b");
  for (std::uint32_t epoch = 2; epoch < 5; ++epoch) {
    send_more_than_is_recalled();
    change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(epoch)});
    EXPECT_EQ(p.next_sequence(kFirst), 2U) << epoch;
  }
  EXPECT_EQ(p.send({.value = "b", .sequence = 1}).error(), SendError::out_of_order_sequence);
  send(p, "c", 2);
}

TEST_F(IdempotenceOfEpochsTest, AStandbyKnowsTheNumberBeforeThereAreEnoughReplicas) {
  Producer active = producer("t", numbered());
  ProducerOptions options = numbered();
  options.acks = Acks::all;
  Producer standby = producer("t", options);
  ASSERT_EQ(standby.next_sequence(kFirst), 0U);
  send(active, "a");
  send(active, "b");
  entry().in_sync.store(0, std::memory_order_relaxed);
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(2)});
  EXPECT_EQ(standby.send({.value = "c"}).error(), SendError::not_enough_replicas);
  EXPECT_EQ(standby.next_sequence(kFirst), 2U);
}

}  // namespace
}  // namespace ringtail
