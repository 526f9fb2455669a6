#include "log/appender.h"

#include <algorithm>
#include <thread>

#include <gmock/gmock.h>

#include "unit/log/ring_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AppenderTest : public RingScene {};

// --- Records -------------------------------------------------------------------------------------

TEST_F(AppenderTest, WritesKeyValueAndHeadersAsTheyWereGiven) {
  const Ring ring = make_ring(4, Position(kTestTerm), Offset(10));
  auto producer = new_producer();
  const std::array<Header, 2> headers{Header{"a", "1"}, Header{"b", {}}};
  const auto sent =
      (*producer)->append({.key = "key", .value = "value", .headers = headers, .timestamp_ns = -5});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(10));
  EXPECT_EQ(sent->timestamp_ns, -5);
  EXPECT_EQ(sent->partition, PartitionId(0));
  const Record record = record_at(ring, 0);
  EXPECT_EQ(record.offset, Offset(10));
  EXPECT_EQ(record.key, "key");
  EXPECT_EQ(record.value, "value");
  EXPECT_EQ(record.timestamp_ns, -5);
  std::vector<std::string> seen;
  for (const Header& header : record.headers)
    seen.push_back(std::string(header.key) +
                   (header.value.data() == nullptr ? " null" : "=" + std::string(header.value)));
  EXPECT_THAT(seen, ElementsAre("a=1", "b null"));
  EXPECT_EQ(sent->end, Position(kTestTerm) + frames_of(ring, 0).front().extent);
}

TEST_F(AppenderTest, TellsNullFromEmpty) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->append({}));
  ASSERT_TRUE((*producer)->append({.key = "", .value = ""}));
  const Record null = record_at(ring, 0);
  EXPECT_FALSE(null.has_key());
  EXPECT_TRUE(null.is_tombstone());
  const Record empty = record_at(ring, 32);
  EXPECT_TRUE(empty.has_key());
  EXPECT_FALSE(empty.is_tombstone());
  EXPECT_TRUE(empty.key.empty() && empty.value.empty());
}

TEST_F(AppenderTest, TakesRecordsUpToTheConfiguredSizeAndNotAByteMore) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  const std::string most(kTestTerm / 8, 'm');
  ASSERT_TRUE((*producer)->append({.value = most}));
  EXPECT_EQ(record_at(ring, 0).value, most);
  EXPECT_EQ((*producer)->append({.key = "k", .value = most}).error(), SendError::record_too_large);
  EXPECT_EQ((*producer)->claim("k", most.size()).error(), SendError::record_too_large);
  EXPECT_EQ(frames_of(ring, 0).size(), 1u);
  EXPECT_THAT((*producer)->describe(SendError::record_too_large).message, HasSubstr("8192 bytes"));
}

TEST_F(AppenderTest, ABatchIsOneClaimAndStandsInARow) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  const std::vector<ProducerRecord> batch{{.value = "a"}, {.key = "k", .value = "bb"}, {.value = {}}};
  const auto sent = (*producer)->append_batch(batch);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(2));
  EXPECT_EQ(sent->end, Position(40 + 40 + 32));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 40, 0), data_at(40, 40, 1), data_at(80, 32, 2)));
  EXPECT_EQ(record_at(ring, 40).key, "k");
  EXPECT_EQ(record_at(ring, 40).value, "bb");
}

TEST_F(AppenderTest, RefusesBatchesThatAreEmptyOrTooLarge) {
  make_ring();
  auto producer = new_producer();
  EXPECT_EQ((*producer)->append_batch({}).error(), SendError::invalid_record);
  const std::vector<ProducerRecord> many(kMaxBatchRecords + 1);
  EXPECT_EQ((*producer)->append_batch(many).error(), SendError::record_too_large);
  const std::string half(kTestTerm / 16, 'h');
  const std::vector<ProducerRecord> heavy{{.value = half}, {.value = half}};
  EXPECT_EQ((*producer)->append_batch(heavy).error(), SendError::record_too_large);
  EXPECT_EQ((*producer)->append({.value = "fits"})->offset, Offset(0));
}

TEST_F(AppenderTest, AClaimIsInvisibleUntilCommittedAndAHoleInTheOffsetsWhenAborted) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  auto claim = (*producer)->claim("k", 8);
  ASSERT_TRUE(claim);
  EXPECT_TRUE(frames_of(ring, 0).empty());
  std::memcpy(claim->value, "in place", 8);
  ASSERT_TRUE((*producer)->commit(*claim));
  EXPECT_EQ(record_at(ring, 0).value, "in place");
  claim = (*producer)->claim({}, 8);
  ASSERT_TRUE(claim);
  (*producer)->abort(*claim);
  EXPECT_EQ((*producer)->append({.value = "v"})->offset, Offset(2));
  EXPECT_THAT(frames_of(ring, 0),
              ElementsAre(data_at(0, 48, 0), aborted_at(48, 40, 1, 1), data_at(88, 40, 2)));
}

// --- Across terms --------------------------------------------------------------------------------

TEST_F(AppenderTest, PassesTheEndOfATermAlone) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  for (std::uint64_t i = 0; i < 14; ++i)
    ASSERT_EQ((*producer)->append({.value = value_of_eighth()})->offset, Offset(i));
  EXPECT_EQ(ring.header().active_term.load(), 1u);
  EXPECT_EQ(frames_of(ring, 0).back(), pad_at(7 * kEighth, kEighth, 7));
  EXPECT_EQ(frames_of(ring, 1).size(), 7u);
}

// An appender knows a term, sleeps, and wakes when its line holds a later one.
class SleptAppender : public AppenderTest {
 protected:
  // Puts `number` in the place of term 0, as if that many terms had gone by.
  static void jump_to(const Ring& ring, std::uint64_t number, std::uint64_t base_offset) {
    TermLine& line = ring.line(number);
    std::memset(ring.term_data(number), 0, ring.term_bytes());
    ring.header().active_term.store(number);
    ring.header().term_limit.store(number + 3);
    line.number.store(number);
    line.base_offset.store(base_offset);
    line.tail.store(make_tail(ring.lap(number), 0, 0));
  }
};

TEST_F(SleptAppender, FindsItsPlaceInWhateverTermItWakesIn) {
  for (const std::uint64_t laps : {1u, 2u, 511u, 512u, 513u, 1024u}) {
    SCOPED_TRACE(laps);
    const Ring ring = make_ring();
    auto sleeper = new_producer();
    ASSERT_TRUE((*sleeper)->append({.value = "early"}));
    jump_to(ring, laps * 4, 5'000);
    for (const std::uint64_t n : {0u, 1u}) {
      const auto sent = (*sleeper)->append({.value = "late"});
      ASSERT_TRUE(sent);
      EXPECT_EQ(sent->offset, Offset(5'000 + n));
      EXPECT_EQ(sent->end, Position(laps * 4 * kTestTerm + (n + 1) * 40));
    }
    EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 40, 5'000), data_at(40, 40, 5'001)));
  }
}

TEST_F(SleptAppender, TripsTheTermItWakesInAndSaysSo) {
  for (const std::uint64_t laps : {1u, 512u}) {
    SCOPED_TRACE(laps);
    const Ring ring = make_ring();
    auto sleeper = new_producer();
    ASSERT_TRUE((*sleeper)->append({.value = "early"}));
    jump_to(ring, laps * 4, 5'000);
    HandClaim claim(ring, new_slot(), 100);
    for (int i = 0; i < 7; ++i) HandClaim(ring, new_slot(), kEighth).finish();
    ring.line(laps * 4 + 1).tail.store(make_tail(kLapMask - 1, 0, kTestTerm));
    const auto sent = (*sleeper)->append({.value = value_of_eighth()});
    ASSERT_TRUE(sent);
    EXPECT_EQ(sent->offset, Offset(5'008));
    EXPECT_EQ(ring.header().active_term.load(), laps * 4 + 1);
    claim.finish();
  }
}

// A helper has noted the next term's number on the line, but has not opened it: the old term is still
// the one that is tripped, and the sleeper must not take itself for a user of the next.
TEST_F(SleptAppender, IsNotMisledByANumberThatIsAheadOfItsTerm) {
  const Ring ring = make_ring();
  auto sleeper = new_producer();
  ASSERT_TRUE((*sleeper)->append({.value = "early"}));
  jump_to(ring, 4, 5'000);
  for (int i = 0; i < 7; ++i) HandClaim(ring, new_slot(), kEighth).finish();
  for (std::uint64_t term = 4; term < 7; ++term) {  // terms 5 to 7 go by
    ASSERT_TRUE(ring.publish_end(term, ring.line(term).tail.load()));
    ring.header().term_limit.store(term + 2);
    if (term > 4) ring.line(term).tail.store(make_tail(ring.lap(term), 0, 2 * kTestTerm));
    ASSERT_EQ(ring.rotate(term), Ring::Rotation::done);
  }
  ring.line(4).tail.fetch_add(make_tail(0, 0, kTestTerm));
  ring.line(8).number.store(8);
  const auto sent = (*sleeper)->append({.value = "late"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->end, Position(7 * kTestTerm + 40));
}

// --- Append time ---------------------------------------------------------------------------------

TEST_F(AppenderTest, AppendTimeNeverRunsBackwardsAmongThreadsAndTerms) {
  entry().timestamp_type.store(static_cast<std::uint8_t>(TimestampType::log_append_time));
  const Ring ring = make_ring(64);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      auto producer = new_producer();
      std::int64_t last = 0;
      for (int i = 0; i < 5'000; ++i) {
        const auto sent =
            (*producer)->append({.value = "0123456789abcdef0123456789abcdef", .timestamp_ns = 1});
        ASSERT_TRUE(sent);
        ASSERT_GE(sent->timestamp_ns, last);
        last = sent->timestamp_ns;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::int64_t last = 0;
  std::uint64_t records = 0;
  for (std::uint64_t term = 0; term <= ring.header().active_term.load(); ++term) {
    for (const SeenFrame& frame : frames_of(ring, term)) {
      if (frame.type != format::FrameType::data) continue;
      const std::int64_t now = format::load_header(ring.term_data(term) + frame.at).timestamp_ns;
      ASSERT_GE(now, last);
      last = now;
      ++records;
    }
  }
  EXPECT_EQ(records, 20'000u);
  EXPECT_GT(last, 1'600'000'000'000'000'000);
}

TEST_F(AppenderTest, AppendTimeGoesOnFromTheLastRecordWhenTheClockStandsBehindIt) {
  entry().timestamp_type.store(static_cast<std::uint8_t>(TimestampType::log_append_time));
  const Ring ring = make_ring();
  constexpr std::int64_t kFuture = 4'000'000'000'000'000'000;
  ring.line(0).last_append_ns.store(kFuture);
  auto producer = new_producer();
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ((*producer)->append({.value = value_of_eighth()})->timestamp_ns, kFuture);
  EXPECT_EQ(ring.header().active_term.load(), 1u);
}

// --- Configuration and state ---------------------------------------------------------------------

TEST_F(AppenderTest, NoticesANewConfigurationAtItsNextOperation) {
  make_ring();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->append({.value = "12345678"}));
  entry().max_message_bytes.store(4);
  entry().hot.fetch_add(shm::kHotVersion);
  EXPECT_EQ((*producer)->append({.value = "12345678"}).error(), SendError::record_too_large);
  EXPECT_TRUE((*producer)->append({.value = "1234"}));
}

TEST_F(AppenderTest, RefusesWithTheCauseWhenTheStorageHasFailed) {
  make_ring();
  auto producer = new_producer();
  const std::string cause = "the disk is on fire";
  for (std::size_t i = 0; i < cause.size(); ++i) entry().failure_text[i].store(cause[i]);
  entry().failure_errno.store(EIO);
  entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  entry().hot.fetch_add(shm::kHotVersion);
  EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::storage_failed);
  const Error error = (*producer)->describe(SendError::storage_failed);
  EXPECT_THAT(error.message, HasSubstr(cause));
  EXPECT_EQ(error.os_errno, EIO);
  EXPECT_FALSE(Appender::open(ref_, producer->slot, producer->clock, milliseconds(1)));
}

TEST_F(AppenderTest, AcksOfAllNeedTheReplicasTheTopicAsksFor) {
  make_ring();
  entry().min_insync_replicas.store(2);
  auto producer = new_producer();
  EXPECT_EQ((*producer)->check_replicas().error(), SendError::not_enough_replicas);
  EXPECT_THAT((*producer)->describe(SendError::not_enough_replicas).message,
              HasSubstr("min.insync.replicas is 2"));
}

TEST_F(AppenderTest, WaitingForDurabilityIsRefusedInMemoryAndBoundedOnDisk) {
  make_ring();
  auto producer = new_producer(milliseconds(20));
  EXPECT_EQ((*producer)->wait_durable({.end = Position(1)}).error(), SendError::invalid_record);
  entry().storage.store(static_cast<std::uint8_t>(Storage::disk));
  entry().hot.fetch_add(shm::kHotVersion);
  auto of_disk = new_producer(milliseconds(20));
  entry().durable_position.store(100);
  EXPECT_TRUE((*of_disk)->wait_durable({.end = Position(100)}));
  EXPECT_EQ((*of_disk)->wait_durable({.end = Position(101)}).error(), SendError::timed_out);
}

}  // namespace
}  // namespace ringtail::log
