// Another process has written over words of a ring: who finds them says so, or gives up in time, and touches
// nothing that is not his.
#include <atomic>
#include <limits>
#include <thread>

#include <gmock/gmock.h>

#include "shm/futex.h"
#include "unit/log/partition_test_support.h"
#include "unit/log/replica_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

// --- Appenders -----------------------------------------------------------------------------------

// Where a test would fail, the append does not return, and ctest ends it.
class ScribbledAppender : public RingScene {
 protected:
  void expect_timed_out(Producer& producer) {
    EXPECT_EQ(producer->append({.value = "v"}).error(), SendError::timed_out);
    EXPECT_EQ(producer.slot.phase(), shm::Phase::idle);
  }
};

TEST_F(ScribbledAppender, ASealedRingIsNotItsOwnSuccessorWhateverTheEntrySays) {
  const Ring ring = make_ring();
  auto producer = new_producer(milliseconds(20));
  ring.header().state.store(static_cast<std::uint32_t>(RingState::sealed));
  entry().ring_generation.store(99);
  expect_timed_out(*producer);
}

TEST_F(ScribbledAppender, NorIsAFencedOne) {
  const Ring ring = make_ring();
  auto producer = new_producer(milliseconds(20));
  ASSERT_TRUE((*producer)->append({.value = "v"}));
  ring.fence();
  entry().ring_generation.store(99);
  expect_timed_out(*producer);
}

TEST_F(ScribbledAppender, AnActiveTermBeyondTheLimitIsImpossible) {
  for (const std::uint64_t active : {std::uint64_t{4}, kMost - 1, kMost}) {
    const Ring ring = make_ring();
    ring.header().active_term.store(active);
    auto producer = new_producer();
    EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::corrupt);
    EXPECT_EQ(producer->slot.phase(), shm::Phase::idle);
    const Error error = (*producer)->describe(SendError::corrupt);
    EXPECT_EQ(error.code, Code::corrupt);
    EXPECT_THAT(error.message, HasSubstr("some process wrote where it must not"));
  }
}

TEST_F(ScribbledAppender, ARecordLargerThanAnyPlaceForItIsRefusedWhateverTheEntrySays) {
  entry().max_message_bytes.store(~0u);
  make_ring();
  auto producer = new_producer();
  const std::string large(kTestTerm, 'l');
  EXPECT_EQ((*producer)->append({.value = large}).error(), SendError::record_too_large);
  entry().hot.fetch_add(shm::kHotVersion);
  EXPECT_EQ((*producer)->append({.value = large}).error(), SendError::record_too_large);
  EXPECT_TRUE((*producer)->append({.value = std::string_view(large).substr(0, kEighth)}));
}

// --- How long an append may take -----------------------------------------------------------------

// Each time that there is a new term, others have used it up.
TEST_F(ScribbledAppender, AllWaitsOfAnAppendHaveOneDeadline) {
  const Ring ring = make_ring();
  ring.header().term_limit.store(1);
  ring.line(0).tail.store(make_tail(0, 1, ring.usable_term_bytes()));
  std::atomic<bool> done{false};
  std::thread others([&] {
    for (std::uint64_t term = 1; !done.load(); ++term) {
      ring.line(term).number.store(term);
      ring.line(term).tail.store(make_tail(ring.lap(term), 1, ring.usable_term_bytes()));
      ring.header().term_limit.store(term + 1);
      shm::notify_waiters(entry().space_seq, entry().space_waiters);
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  auto producer = new_producer(milliseconds(40));
  expect_timed_out(*producer);
  done.store(true);
  others.join();
}

// --- Claims that were given up by a keeper that died ----------------------------------------------

class LeftAlone : public ScribbledAppender {
 protected:
  void give_up(Producer& producer) {
    shm::Slot& slot = control_.slot(producer.slot.index());
    slot.given_up.store(slot.op.load());
  }
};

TEST_F(LeftAlone, AnOwnerHearsThatNobodyAnswersAndTheNextKeeperFindsHisRecord) {
  const Ring ring = make_ring();
  auto producer = new_producer(milliseconds(20));
  auto claim = (*producer)->claim({}, 32);
  ASSERT_TRUE(claim);
  give_up(*producer);
  EXPECT_EQ((*producer)->commit(*claim).error(), SendError::timed_out);
  EXPECT_EQ((*producer)->append({.value = "next"})->offset, Offset(1));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 64, 0), data_at(64, 40, 1)));
}

TEST_F(LeftAlone, AnOwnerWhoseFrameWasSeizedHearsThatItIsGoneAndTheNextKeeperFillsIt) {
  const Ring ring = make_ring();
  RingKeeper next_keeper = keeper_of(open_ring());
  for (const bool commits : {true, false}) {
    auto producer = new_producer(milliseconds(20));
    auto claim = (*producer)->claim({}, 32);
    ASSERT_TRUE(claim);
    give_up(*producer);
    format::state_word(claim->frame).store(format::seized_word(claim->claimed));
    if (commits) {
      EXPECT_EQ((*producer)->commit(*claim).error(), SendError::claim_expired);
    } else {
      (*producer)->abort(*claim);
    }
    // He lives, and has gone on to other things.
    next_keeper.begin_inquiry();
    ASSERT_TRUE(*next_keeper.step_inquiry(monitor_));
    EXPECT_EQ(next_keeper.open_claims(), 0u);
  }
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 64, 0, 1), aborted_at(64, 64, 1, 1)));
}

TEST_F(LeftAlone, AFrameWithoutLengthBeforeTheClaimIsNoEndlessWay) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->append({.value = "first"}));
  auto claim = (*producer)->claim({}, 32);
  ASSERT_TRUE(claim);
  give_up(*producer);
  control_.slot(producer->slot.index()).given_up_done.store(control_.slot(producer->slot.index()).op.load());
  format::state_word(ring.data()).store(format::aborted_word(0));
  EXPECT_EQ((*producer)->commit(*claim).error(), SendError::claim_expired);
}

// --- A ring without end --------------------------------------------------------------------------

// From `from` on, in the first term, there are pads, one in each term, that use up no offset, and no term is said to be
// the last.
void fill_with_pads(const Ring& ring, Position from, Offset next) {
  const auto pad = [&](Position at, Position end) {
    format::write_filler(ring.at(at), format::FrameType::pad, static_cast<std::uint32_t>(end - at), next, 0);
  };
  pad(from, ring.term_start(1));
  for (std::uint64_t term = 1; term <= ring.term_count(); ++term)
    pad(ring.term_start(term), ring.term_start(term + 1));
  ring.header().active_term.store(std::uint64_t{1} << 62);
}

class RingOfPads : public PartitionScene {
 protected:
  void open_with_a_record(Storage storage) {
    config_.storage = storage;
    open_keeper();
    ASSERT_TRUE((*new_producer())->append({.value = "8 bytes."}));
  }
  void fill() { fill_with_pads(open_ring(), Position(40), Offset(1)); }
};

TEST_F(RingOfPads, AReaderGoesRoundItOnce) {
  open_with_a_record(Storage::memory);
  auto reader = new_reader();
  std::array<Record, 4> records;
  ASSERT_EQ(*reader->poll(records), 1u);
  fill();
  EXPECT_EQ(*reader->poll(records), 0u);
  EXPECT_EQ(*reader->poll(records), 0u);
}

TEST_F(RingOfPads, AndSoDoesOneThatShips) {
  open_with_a_record(Storage::memory);
  auto reader =
      PartitionReader::open_for_shipping(ref_, 401, 4096, LogPoint{Position(40), Offset(1)}).value();
  fill();
  std::uint64_t bytes = 0;
  for (int round = 0; round < 100; ++round) bytes += reader->poll_frames(1 << 20, false).value().bytes.size();
  EXPECT_LE(bytes, 5 * kTestTerm);
}

TEST_F(RingOfPads, AKeeperThatFlushesItSaysCorrupt) {
  open_with_a_record(Storage::disk);
  turn_until_durable(Offset(1));
  fill();
  keeper_->flush_blocking();
  ASSERT_TRUE(failed());
  EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::corrupt));
}

// --- Readers -------------------------------------------------------------------------------------

class ScribbledReader : public PartitionScene {
 protected:
  ScribbledReader() { config_.storage = Storage::memory; }
};

TEST_F(ScribbledReader, AWatermarkWithinAFrameIsCorruptAndNothingBehindItIsGiven) {
  open_keeper();
  auto producer = new_producer();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE((*producer)->append({.value = "8 bytes."}));
  for (const std::uint64_t watermark : {41u, 48u, 72u, 79u}) {
    entry().high_watermark.store(watermark);
    auto reader = new_reader();
    std::array<Record, 4> records;
    ASSERT_EQ(*reader->poll(records), 1u);
    const auto polled = reader->poll(records);
    ASSERT_FALSE(polled) << watermark;
    EXPECT_EQ(polled.error().code, Code::corrupt);
    EXPECT_THAT(polled.error().message, HasSubstr("position 40"));
  }
}

TEST_F(ScribbledReader, APositionBetweenTwoWordsIsCorrupt) {
  open_keeper();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->append({.value = "v"}));
  for (const std::uint64_t position : {1u, 4u, 36u}) {
    const auto reader =
        PartitionReader::open_for_shipping(ref_, 401, 4096, LogPoint{Position(position), Offset(0)});
    ASSERT_FALSE(reader) << position;
    EXPECT_EQ(reader.error().code, Code::corrupt);
  }
}

// The ring begins within its first term, and what tells so has been written over.
TEST_F(ScribbledReader, AHeadBeforeTheRingsBeginIsNoPlaceInAnotherRing) {
  entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  const Ring ring = make_ring(4, Position(kTestTerm + 4096), Offset(10));
  entry().log_start_offset.store(10);
  auto reader = new_reader();
  ring.header().head.store(kTestTerm);
  format::state_word(ring.data()).store(0);
  std::array<Record, 4> records;
  ASSERT_TRUE(reader->seek(Offset(10)));
  EXPECT_EQ(*reader->poll(records), 0u);
}

// --- Keepers -------------------------------------------------------------------------------------

TEST_F(ScribbledAppender, ACutLooksAtEachTermOnce) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE((*producer)->append({.value = "8 bytes."}));
  ring.fence();
  ring.follow({Position(120), Offset(3)});
  ring.header().active_term.store(kMost);
  ring.cut({Position(40), Offset(1)});
  EXPECT_EQ(ring.header().active_term.load(), 0u);
  EXPECT_EQ(ring.claimed_end().position, Position(40));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 40, 0)));
}

// A keeper died between the decision where a ring ends and the next ring.
TEST_F(ScribbledReader, AnEndThatNoRingCanHaveFailsThePartition) {
  for (const std::uint64_t end : {std::uint64_t{12}, 2 * kTestTerm - 8, 1'000 * kTestTerm, kMost - 7}) {
    open_keeper();
    kill_keeper();
    const Ring ring = open_ring();
    ring.fence();
    ring.header().sealed_position.store(end);
    ring.header().state.store(static_cast<std::uint32_t>(RingState::sealed));
    entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
    open_keeper();
    turn_until([&] { return failed(); });
    EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::corrupt)) << end;
    kill_keeper();
    std::filesystem::remove(ring_path(dir_.path(), ref_.topic, ref_.partition));
    entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  }
}

// The next term is said to be there, a block of it full, and all before it recycled.
TEST_F(RingOfPads, WhatDoesNotFollowTheFilesIsNotWrittenBehindThem) {
  open_with_a_record(Storage::disk);
  turn_until_durable(Offset(1));
  const Ring ring = open_ring();
  const Position next = ring.term_start(1);
  ring.line(1).base_offset.store(1);
  format::write_filler(ring.at(next), format::FrameType::pad, 4096, Offset(1), 0);
  ring.line(1).tail.store(make_tail(0, 0, 4096));
  ring.header().active_term.store(1);
  ring.header().head.store(next.value());
  turn_until([&] { return failed(); });
  EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::corrupt));
}

TEST_F(ScribbledReader, AKeeperDoesNotBeginWithinATerm) {
  open_keeper();
  kill_keeper();
  const Ring ring = open_ring();
  ring.header().head.store(4 * kTestTerm - 4);
  ring.header().active_term.store(3);
  ring.line(3).tail.store(make_tail(0, 0, kTestTerm));
  ring.header().sealed_position.store(4 * kTestTerm);
  ring.header().state.store(static_cast<std::uint32_t>(RingState::sealed));
  entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  open_keeper();
  ASSERT_TRUE(failed());
  EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::corrupt));
}

TEST_F(ScribbledReader, ARoleThatTheKeeperNeverTookIsNothingToGoBy) {
  open_keeper();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->claim({}, 8));
  entry().role.store(static_cast<std::uint32_t>(ReplicaRole::follower));
  const std::uint32_t slot = producer->slot.index();
  keeper_->on_slot_stuck(slot, control_.slot(slot).op.load());
  turn_until([&] { return failed() || generation() == 2; });
  EXPECT_FALSE(failed());
}

// --- What another host ships ---------------------------------------------------------------------

TEST(ScribbledReplica, AFrameThatUsesUpMoreOffsetsThanATermHasIsCorrupt) {
  ReplicaHost leader(Storage::memory);
  ReplicaHost follower(Storage::memory);
  leader.lead(1);
  follower.follow(leader, 1);
  ReplicaWriter& writer = *follower.outcome().writer;
  const auto filler = [](std::uint64_t offset, std::uint32_t records) {
    std::vector<std::uint64_t> words(8);
    format::write_filler(words.data(), format::FrameType::aborted, 64, Offset(offset), records);
    const auto bytes = std::as_bytes(std::span(words));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  for (const std::uint32_t records : {static_cast<std::uint32_t>(kRecordsMask + 1), ~0u}) {
    const auto refused = writer.append(LeaderEpoch(1), Position(0), filler(0, records));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::corrupt);
  }
  ASSERT_TRUE(writer.append(LeaderEpoch(1), Position(0), filler(0, kRecordsMask)));
  EXPECT_EQ(follower.end(), (LogPoint{Position(64), Offset(kRecordsMask)}));
  EXPECT_FALSE(writer.append(LeaderEpoch(1), Position(64), filler(kRecordsMask, 1)));
}

}  // namespace
}  // namespace ringtail::log
