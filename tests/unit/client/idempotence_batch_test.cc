// What the numbers of batches and of claims promise, as idempotence_test.cc of single sends.
#include <cstring>

#include "unit/client/idempotence_test_support.h"

namespace ringtail {
namespace {

using shm::ReplicaRole;
using ::testing::ElementsAre;

TEST_F(IdempotenceTest, ARepeatedBatchIsNoSecondOne) {
  create("t");
  Producer p = producer("t", numbered(0));
  const auto batch = batch_of({"a", "b", "c"}, 0);
  const RecordMetadata first = send_batch(p, batch);
  send(p, "d");
  const RecordMetadata again = send_batch(p, batch);
  EXPECT_EQ(again.offset, first.offset);
  EXPECT_EQ(again.end, first.end);
  EXPECT_EQ(again.timestamp_ns, first.timestamp_ns);
  EXPECT_EQ(p.next_sequence(kFirst), 4U);
  EXPECT_THAT(all("t"), ElementsAre("a", "b", "c", "d"));
}

TEST_F(IdempotenceTest, ARecordOfABatchOrAClaimIsKnownByItsNumber) {
  create("t");
  Producer p = producer("t", numbered(0));
  send_batch(p, batch_of({"a", "b", "c"}));
  auto claim = p.try_claim(1);
  ASSERT_TRUE(claim);
  std::memcpy(claim->value().data(), "d", 1);
  const auto committed = claim->commit();
  ASSERT_TRUE(committed);
  EXPECT_EQ(send(p, "b", 1).offset, Offset(1));
  EXPECT_EQ(send(p, "d", 3).offset, committed->offset);
  EXPECT_EQ(send(p, "d", 3).end, committed->end);
  EXPECT_EQ(send_batch(p, batch_of({"c", "d"}, 2)).offset, committed->offset);
  EXPECT_EQ(p.next_sequence(kFirst), 4U);
  EXPECT_THAT(all("t"), ElementsAre("a", "b", "c", "d"));
}

TEST_F(IdempotenceTest, WhatIsRememberedOfABatchIsWhatTheLogSays) {
  const Header headers[] = {{"name", "value"}, {"none", {}}};
  const std::vector<ProducerRecord> one{{.value = "first"},
                                        {.key = "key", .value = "a longer one", .headers = headers},
                                        {.value = "last", .timestamp_ns = 17}};
  const std::vector<ProducerRecord> other{
      {.value = "first", .timestamp_ns = 18}, {.key = "key", .headers = headers}, {.value = "last"}};
  for (const char* const type : {"CreateTime", "LogAppendTime"}) {
    create(type, {{"message.timestamp.type", type}});
    Producer p = producer(type, numbered());
    send_batch(p, one);
    send_batch(p, other);
    Producer successor = producer(type, numbered());
    for (std::uint64_t number = 0; number < 6; ++number) {
      SCOPED_TRACE(std::string(type) + ", " + std::to_string(number));
      const RecordMetadata remembered = send(p, "again", number);
      const RecordMetadata read = send(successor, "again", number);
      EXPECT_EQ(read.offset, Offset(number));
      EXPECT_EQ(remembered.offset, read.offset);
      EXPECT_EQ(remembered.end, read.end);
      EXPECT_EQ(remembered.timestamp_ns, read.timestamp_ns);
    }
  }
}

TEST_F(IdempotenceTest, OfALongBatchItsLastRecordsHaveToBeRemembered) {
  create("t", {{"term.bytes", "8MiB"}});
  Producer p = producer("t", numbered(0));
  std::vector<ProducerRecord> batch(3'000, {.value = "v"});
  batch.front().sequence = 0;
  send_batch(p, batch);
  EXPECT_EQ(send_batch(p, batch).offset, Offset(2'999));
  EXPECT_EQ(p.next_sequence(kFirst), 3'000U);
  send(p, "v");
  EXPECT_EQ(p.send_batch(kFirst, batch).error(), SendError::out_of_order_sequence);
  EXPECT_EQ(p.next_sequence(kFirst), 3'001U);
}

TEST_F(IdempotenceTest, ABatchThatLeavesAGapOrOfWhichSomeWereSentIsRefused) {
  create("t");
  Producer p = producer("t", numbered(0));
  send(p, "a");
  send(p, "b");
  EXPECT_EQ(p.send_batch(kFirst, batch_of({"b", "c"}, 1)).error(), SendError::out_of_order_sequence);
  EXPECT_EQ(p.send_batch(kFirst, batch_of({"d", "e"}, 3)).error(), SendError::out_of_order_sequence);
  EXPECT_THAT(all("t"), ElementsAre("a", "b"));
}

TEST_F(IdempotenceTest, TheNumbersOfABatchAreConsecutive) {
  create("t");
  Producer p = producer("t", numbered(0));
  std::vector<ProducerRecord> batch = batch_of({"a", "b", "c"}, 0);
  for (const std::uint64_t third : {0u, 1u, 3u}) {
    batch[2].sequence = third;
    EXPECT_EQ(p.send_batch(kFirst, batch).error(), SendError::invalid_record) << third;
  }
  batch[0].sequence.reset();
  batch[2].sequence = 1;
  EXPECT_EQ(p.send_batch(kFirst, batch).error(), SendError::invalid_record) << "the first would be below 0";
  batch[2].sequence = 2;
  EXPECT_EQ(send_batch(p, batch).offset, Offset(2));
  EXPECT_EQ(send_batch(p, batch).offset, Offset(2));
  EXPECT_EQ(p.send_batch(kFirst, {}).error(), SendError::invalid_record);
  EXPECT_THAT(all("t"), ElementsAre("a", "b", "c"));
}

TEST_F(IdempotenceTest, BatchesAndClaimsAreNumberedOnToo) {
  create("t");
  {
    Producer p = producer("t", numbered());
    const std::vector<ProducerRecord> batch(5, {.value = "b"});
    ASSERT_TRUE(p.send_batch(kFirst, batch));
    ASSERT_TRUE(p.try_claim(8).value().commit());
    p.try_claim(8).value().abort();
  }
  EXPECT_EQ(producer("t", numbered()).next_sequence(kFirst), 6U);
}

TEST_F(IdempotenceTest, AnIdOfWhichTheLogHasNothingMayBeginWithABatchOrAClaim) {
  create("batch");
  Producer of_batch = producer("batch", numbered());
  send_batch(of_batch, batch_of({"a", "b"}, 100));
  EXPECT_EQ(of_batch.next_sequence(kFirst), 102U);
  EXPECT_EQ(send(of_batch, "a", 100).offset, Offset(0));
  EXPECT_EQ(of_batch.send({.value = "c", .sequence = 7}).error(), SendError::out_of_order_sequence);
  EXPECT_THAT(all("batch"), ElementsAre("a", "b"));
  create("claim");
  Producer of_claim = producer("claim", numbered());
  ASSERT_TRUE(of_claim.try_claim(8).value().commit());
  EXPECT_EQ(send(of_claim, "again", 0).offset, Offset(0));
  EXPECT_EQ(of_claim.next_sequence(kFirst), 1U);
}

// --- When nobody tells what became of an append --------------------------------------------------

TEST_F(IdempotenceOfUnknownTest, TheRepetitionOfABatchThatWasKeptIsNoSecondOne) {
  for (const bool exclusive : {false, true}) {
    const std::string topic = exclusive ? "alone" : "shared";
    SCOPED_TRACE(topic);
    create(topic);
    ProducerOptions options = impatient(0);
    options.exclusive = exclusive;
    Producer p = producer(topic, options);
    const auto batch = batch_of({"a", "b", "c"}, 0);
    give_up_next(p);
    EXPECT_EQ(p.send_batch(kFirst, batch).error(), SendError::timed_out);
    EXPECT_EQ(send_batch(p, batch).offset, Offset(3));  // behind the claim that was aborted
    EXPECT_EQ(send_batch(p, batch).offset, Offset(3));
    EXPECT_EQ(send(p, "b", 1).offset, Offset(2));
    EXPECT_EQ(p.next_sequence(kFirst), 3U);
    Consumer reader = consumer(topic);
    EXPECT_THAT(take(reader, 3), ElementsAre("a", "b", "c"));
  }
}

TEST_F(IdempotenceOfUnknownTest, BatchesAndClaimsThatWereKeptHaveTheirNumbers) {
  create("t");
  Producer p = producer("t", impatient(0));
  const std::vector<ProducerRecord> batch(3, {.value = "b"});
  give_up_next(p);
  EXPECT_EQ(p.send_batch(kFirst, batch).error(), SendError::timed_out);
  EXPECT_EQ(p.next_sequence(kFirst), 3U);
  give_up_next(p);
  EXPECT_EQ(p.try_claim(8).value().commit().error(), SendError::timed_out);
  EXPECT_EQ(p.next_sequence(kFirst), 4U);
  EXPECT_EQ(send(p, "again", 3).offset, Offset(5));  // behind the batch and two claims that were aborted
  EXPECT_EQ(p.next_sequence(kFirst), 4U);
}

// --- When the leader changes ---------------------------------------------------------------------

TEST_F(IdempotenceOfEpochsTest, OfABatchTheLogSaysWhetherItIsThere) {
  Producer p = producer("t", numbered(0));
  const RecordMetadata kept = send(p, "a");
  const auto batch = batch_of({"b", "c"}, 1);
  send_batch(p, batch);
  lead_anew_without(behind(kept));
  EXPECT_EQ(send_batch(p, batch).offset, Offset(2));
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(4)});
  EXPECT_EQ(send_batch(p, batch).offset, Offset(2));
  EXPECT_EQ(p.next_sequence(kFirst), 3U);
}

// Another host led, which had got only the first of its records.
TEST_F(IdempotenceOfEpochsTest, ABatchThatTheLogHasInPartIsRefusedAndTheRestIsSent) {
  Producer p = producer("t", numbered(0));
  const auto batch = batch_of({"a", "b", "c"}, 0);
  send_batch(p, batch);
  lead_anew_without(behind(send(p, "a", 0)));
  EXPECT_EQ(p.send_batch(kFirst, batch).error(), SendError::out_of_order_sequence);
  EXPECT_EQ(p.next_sequence(kFirst), 1U);
  EXPECT_EQ(send_batch(p, batch_of({"b", "c"}, 1)).offset, Offset(2));
  EXPECT_EQ(p.next_sequence(kFirst), 3U);
}

TEST_F(IdempotenceOfEpochsTest, WhatABatchOrAClaimSentLongAgoIsNotAppendedAgain) {
  Producer p = producer("t", numbered(0));
  send_batch(p, batch_of({"a", "b"}));
  ASSERT_TRUE(p.try_claim(8).value().commit());
  send_more_than_is_recalled();
  change({.role = ReplicaRole::leader, .epoch = LeaderEpoch(2)});
  EXPECT_EQ(send(p, "b", 1).offset, Offset(1));
  EXPECT_EQ(send(p, "again", 2).offset, Offset(2));
  EXPECT_EQ(p.next_sequence(kFirst), 3U);
}

TEST_F(IdempotenceOfEpochsTest, ABatchThatWasNotReplicatedInTimeIsWaitedForAgain) {
  entry().in_sync.store(1, std::memory_order_relaxed);
  ProducerOptions options = numbered(0);
  options.acks = Acks::all;
  options.max_block = milliseconds(50);
  Producer p = producer("t", options);
  const auto batch = batch_of({"a", "b"}, 0);
  for (int i = 0; i < 2; ++i) {
    const auto sent = p.send_batch(kFirst, batch);
    ASSERT_FALSE(sent);
    EXPECT_EQ(sent.error(), SendError::timed_out) << to_string(p.error());
  }
  Producer other = producer("t", numbered(99));
  const RecordMetadata last = send(other, "c");
  EXPECT_EQ(last.offset, Offset(2));
  shm::set_high_watermark(entry(), last.end.value(), last.offset.value() + 1);
  EXPECT_EQ(send_batch(p, batch).offset, Offset(1));
}

}  // namespace
}  // namespace ringtail
