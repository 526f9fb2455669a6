#include "log/ring_keeper.h"

#include <thread>

#include <gmock/gmock.h>

#include "base/crc32c.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint32_t kEighth = kTestTerm / 8;

class RingKeeperTest : public RingScene {
 protected:
  // A record of `bytes` in all, committed by somebody who goes on living.
  static void commit(const Ring& ring, shm::OwnedSlot slot, std::uint32_t bytes) {
    HandClaim claim(ring, std::move(slot), bytes);
    claim.write_header().commit();
    claim.finish();
  }
  void commit(const Ring& ring, std::uint32_t bytes) { commit(ring, new_slot(), bytes); }

  // As PartitionKeeper::on_slot_stuck.
  void give_up(const Ring& ring, std::uint32_t slot) {
    ring.header().scribbled.store(1);
    control_.slot(slot).given_up.store(control_.slot(slot).op.load());
  }

  // Repairs until done, which must not take more than two steps once nobody is waited for.
  void repair(RingKeeper& keeper) {
    for (const std::uint32_t slot : monitor_.find_deaths()) dead_.push_back(slot);
    keeper.begin_inquiry();
    auto complete = keeper.step_inquiry(monitor_);
    ASSERT_TRUE(complete) << complete.error().message;
    ASSERT_TRUE(*complete);
    for (const std::uint32_t slot : dead_) monitor_.release_dead(slot);
    dead_.clear();
  }

  std::vector<std::uint32_t> dead_;
};

// --- Scan ----------------------------------------------------------------------------------------

TEST_F(RingKeeperTest, ScansWhatIsResolvedAndFillsInItsChecksums) {
  make_ring();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->append({.value = "one", .timestamp_ns = 50}));
  ASSERT_TRUE((*producer)->append({.key = "k", .value = "two", .timestamp_ns = 40}));
  auto open = (*producer)->claim({}, 100);
  ASSERT_TRUE(open);
  RingKeeper keeper = keeper_of(open_ring());
  auto run = keeper.scan(1 << 20);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->position, Position(0));
  EXPECT_EQ(run->bytes, 80u);
  EXPECT_EQ(run->first_offset, Offset(0));
  EXPECT_EQ(run->next_offset, Offset(2));
  EXPECT_EQ(run->max_timestamp_ns, 50);
  EXPECT_TRUE(keeper.has_unresolved());
  for (const std::uint64_t at : {0u, 40u}) {
    const std::byte* frame = keeper.ring().data() + at;
    EXPECT_EQ(format::check_frame({frame, 40}, at == 0 ? 0 : 1), format::FrameFault::none);
  }
  EXPECT_EQ(keeper.scan(1 << 20)->bytes, 0u);
  ASSERT_TRUE((*producer)->commit(*open));
  EXPECT_EQ(keeper.scan(1 << 20)->bytes, 136u);
  EXPECT_FALSE(keeper.has_unresolved());
}

TEST_F(RingKeeperTest, ScansTermByTermAndNeverIntoOneThatIsNotOpen) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE((*producer)->append({.value = std::string(8000, 'v')}));
  // What a term holds before it is opened is of no concern.
  std::memset(ring.term_data(3), 0x77, kTestTerm);
  RingKeeper keeper = keeper_of(open_ring());
  std::uint64_t offset = 0;
  for (std::uint64_t term = 0;; ++term) {
    auto run = keeper.scan(1 << 20);
    ASSERT_TRUE(run);
    if (run->bytes == 0) break;
    EXPECT_EQ(run->position, ring.term_start(term));
    EXPECT_EQ(run->first_offset, Offset(offset));
    offset = run->next_offset.value();
  }
  EXPECT_EQ(offset, 20u);
}

TEST_F(RingKeeperTest, ScanSaysCorruptOfWordsThatCannotBe) {
  for (const std::uint64_t word : {format::committed_word(31, format::FrameType::data, 0),
                                   format::committed_word(kTestTerm + 8, format::FrameType::data, 0),
                                   format::committed_word(64, format::FrameType{9}, 0),
                                   format::aborted_word(24), format::aborted_word(kTestTerm + 8)}) {
    const Ring ring = make_ring();
    format::state_word(ring.data()).store(word);
    RingKeeper keeper = keeper_of(open_ring());
    auto run = keeper.scan(1 << 20);
    ASSERT_FALSE(run);
    EXPECT_EQ(run.error().code, Code::corrupt);
  }
}

TEST_F(RingKeeperTest, ScanSaysCorruptOfAnOffsetThatDoesNotFollow) {
  const Ring ring = make_ring();
  HandClaim claim(ring, new_slot(), 64);
  claim.write_header().commit();
  const std::uint64_t wrong = 1;
  std::memcpy(claim.frame() + 8, &wrong, sizeof wrong);
  claim.finish();
  RingKeeper keeper = keeper_of(open_ring());
  auto run = keeper.scan(1 << 20);
  ASSERT_FALSE(run);
  EXPECT_THAT(run.error().message, HasSubstr("has offset 1, expected 0"));
}

// --- Repair --------------------------------------------------------------------------------------

// Where a producer dies, and what repair makes of it.
TEST_F(RingKeeperTest, FillsTheHoleOfADeadClaimWhereverItsOwnerDied) {
  const auto die_at = [&](const Ring& ring, int step) {
    HandClaim claim(ring, new_slot(), 128);
    if (step >= 1) claim.write_length();
    if (step >= 2) claim.write_header();
    if (step >= 3) claim.write_body();
    if (step >= 4) claim.open();
  };
  for (int step = 0; step <= 4; ++step) {
    SCOPED_TRACE(step);
    const Ring ring = make_ring();
    commit(ring, 64);
    die_at(ring, step);
    commit(ring, 96);
    RingKeeper keeper = keeper_of(open_ring());
    ASSERT_EQ(keeper.scan(1 << 20)->bytes, 64u);
    repair(keeper);
    EXPECT_THAT(frames_of(ring, 0),
                ElementsAre(data_at(0, 64, 0), aborted_at(64, 128, 1, 1), data_at(192, 96, 2)));
    EXPECT_EQ(keeper.repaired_records(), 1u);
    ASSERT_EQ(keeper.scan(1 << 20)->next_offset, Offset(3));
    EXPECT_FALSE(keeper.has_unresolved());
  }
}

TEST_F(RingKeeperTest, ADeadClaimAtTheVeryEndIsFilledToTheTail) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), 128);
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1)));
  commit(ring, 64);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1), data_at(128, 64, 1)));
}

TEST_F(RingKeeperTest, AdjacentDeadClaimsOfEveryKindBecomeOneHole) {
  for (int first = 0; first < 3; ++first) {
    for (int second = 0; second < 3; ++second) {
      SCOPED_TRACE(::testing::Message() << first << ' ' << second);
      const Ring ring = make_ring();
      for (const int kind : {first, second}) {
        HandClaim claim(ring, new_slot(), 128, kind == 1 ? 5 : 1);
        if (kind == 1) claim.write_length();  // a batch of five
        if (kind == 2) claim.open();
      }
      commit(ring, 64);
      RingKeeper keeper = keeper_of(open_ring());
      repair(keeper);
      const std::uint64_t records = (first == 1 ? 5u : 1u) + (second == 1 ? 5u : 1u);
      EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 256, 0, records), data_at(256, 64, records)));
    }
  }
}

TEST_F(RingKeeperTest, ADeadBatchUsesUpAllItsOffsets) {
  const Ring ring = make_ring();
  commit(ring, 64);
  HandClaim(ring, new_slot(), 4096, 40);
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 64, 0), aborted_at(64, 4096, 1, 40)));
  EXPECT_EQ(keeper.repaired_records(), 40u);
}

TEST_F(RingKeeperTest, OpenClaimsOfTheLivingAreLeftAloneBetweenHoles) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), 128);
  HandClaim living(ring, new_slot(), 64);
  living.open();
  HandClaim(ring, new_slot(), 256);
  commit(ring, 64);
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1)));
  EXPECT_TRUE(living.commit());
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1), data_at(128, 64, 1),
                                              aborted_at(192, 256, 2, 1), data_at(448, 64, 3)));
  living.finish();
}

TEST_F(RingKeeperTest, AClaimerWhoLivesIsWaitedForUntilHisFrameTellsWhoseItIs) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), 128);
  HandClaim slow(ring, new_slot(), 64);
  RingKeeper keeper = keeper_of(open_ring());
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  EXPECT_FALSE(*keeper.step_inquiry(monitor_));
  EXPECT_TRUE(frames_of(ring, 0).empty());
  slow.open();
  EXPECT_TRUE(*keeper.step_inquiry(monitor_));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1)));
  EXPECT_TRUE(slow.commit());
  slow.finish();
}

TEST_F(RingKeeperTest, AClaimMadeDuringTheInquiryIsNotItsConcern) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), 128);
  RingKeeper keeper = keeper_of(open_ring());
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  HandClaim young(ring, new_slot(), 64);
  EXPECT_TRUE(*keeper.step_inquiry(monitor_));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1)));
  EXPECT_TRUE(young.write_header().commit());
  young.finish();
  EXPECT_EQ(frames_of(ring, 0).size(), 2u);
}

TEST_F(RingKeeperTest, ATermWhoseTripperDiedIsClosedBehindTheLastClaim) {
  for (const bool hole_before : {false, true}) {
    SCOPED_TRACE(hole_before);
    const Ring ring = make_ring();
    for (int i = 0; i < 6; ++i) commit(ring, kEighth);
    if (hole_before)
      HandClaim(ring, new_slot(), kEighth);
    else
      commit(ring, kEighth);
    ASSERT_TRUE(HandClaim(ring, new_slot(), kEighth).tripped());
    RingKeeper keeper = keeper_of(open_ring());
    keeper.help_rotate();
    EXPECT_EQ(ring.header().active_term.load(), 0u);
    repair(keeper);
    EXPECT_EQ(ring.header().active_term.load(), 1u);
    const auto frames = frames_of(ring, 0);
    const std::uint64_t from = hole_before ? 6 * kEighth : 7 * kEighth;
    const std::uint64_t offset = hole_before ? 6 : 7;
    ASSERT_EQ(frames.size(), offset + 2);
    // Of a hole that reaches to an unknown end nobody knows how many offsets were claimed: none was seen.
    EXPECT_EQ(frames[frames.size() - 2],
              aborted_at(from, static_cast<std::uint32_t>(ring.usable_term_bytes() - from), offset, 0));
    EXPECT_EQ(frames.back(), pad_at(ring.usable_term_bytes(), kTermReserve, offset));
    EXPECT_EQ(ring.line(1).base_offset.load(), offset);
    commit(ring, 64);
    EXPECT_THAT(frames_of(ring, 1), ElementsAre(data_at(0, 64, offset)));
    std::uint64_t scanned = 0;
    while (const std::uint32_t bytes = keeper.scan(1 << 20)->bytes) scanned += bytes;
    EXPECT_EQ(scanned, kTestTerm + 64);
  }
}

TEST_F(RingKeeperTest, ATermWhoseTripperDiedWithNoRoomForAFrameIsClosedByThePadAlone) {
  const Ring ring = make_ring();
  for (int i = 0; i < 7; ++i) commit(ring, kEighth);
  commit(ring, kEighth - 32 - 24);  // 24 bytes are left before the reserve
  ASSERT_TRUE(HandClaim(ring, new_slot(), 32).tripped());
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_EQ(frames_of(ring, 0).back(), pad_at(kTestTerm - 56, 56, 8));
  EXPECT_EQ(ring.line(1).base_offset.load(), 8u);
}

TEST_F(RingKeeperTest, ATermWithADeadTripperAndALiveOpenClaimIsClosedBehindTheClaim) {
  const Ring ring = make_ring();
  for (int i = 0; i < 6; ++i) commit(ring, kEighth);
  HandClaim living(ring, new_slot(), kEighth);
  living.open();
  ASSERT_TRUE(HandClaim(ring, new_slot(), kEighth).tripped());
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_EQ(ring.header().active_term.load(), 1u);
  EXPECT_EQ(frames_of(ring, 0).size(), 6u);
  EXPECT_TRUE(living.commit());
  living.finish();
  EXPECT_EQ(frames_of(ring, 0).size(), 9u);
  EXPECT_EQ(ring.line(1).base_offset.load(), 7u);
}

TEST_F(RingKeeperTest, ADeadClaimBeforeAKnownEndIsFilledUpToIt) {
  const Ring ring = make_ring();
  for (int i = 0; i < 6; ++i) commit(ring, kEighth);
  HandClaim(ring, new_slot(), kEighth, 3);
  HandClaim(ring, new_slot(), kEighth).publish_end();
  RingKeeper keeper = keeper_of(open_ring());
  keeper.help_rotate();
  EXPECT_EQ(ring.header().active_term.load(), 1u);
  repair(keeper);
  EXPECT_EQ(frames_of(ring, 0)[6], aborted_at(6 * kEighth, kEighth, 6, 3));
  EXPECT_EQ(frames_of(ring, 0)[7], pad_at(7 * kEighth, kEighth, 9));
  EXPECT_EQ(ring.line(1).base_offset.load(), 9u);
}

TEST_F(RingKeeperTest, HolesInSeveralTermsAreFilledAtOnce) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), kEighth);
  for (int i = 0; i < 6; ++i) commit(ring, kEighth);
  HandClaim(ring, new_slot(), kEighth).publish_end();
  ASSERT_EQ(ring.rotate(0), Ring::Rotation::done);
  HandClaim(ring, new_slot(), 64);
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_EQ(frames_of(ring, 0).front(), aborted_at(0, kEighth, 0, 1));
  EXPECT_THAT(frames_of(ring, 1), ElementsAre(aborted_at(0, 64, 7, 1)));
  EXPECT_EQ(keeper.scan(1 << 20)->next_offset, Offset(7));
  EXPECT_EQ(keeper.scan(1 << 20)->next_offset, Offset(8));
}

// --- Giving up -----------------------------------------------------------------------------------

TEST_F(RingKeeperTest, AClaimThatWasGivenUpIsAHoleThoughItsOwnerLives) {
  for (const int step : {0, 1, 2}) {
    SCOPED_TRACE(step);
    const Ring ring = make_ring();
    HandClaim still(ring, new_slot(), 128);
    if (step == 1) still.write_length();
    if (step == 2) still.open();
    commit(ring, 64);
    RingKeeper keeper = keeper_of(open_ring());
    give_up(ring, still.slot().index());
    repair(keeper);
    EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1), data_at(128, 64, 1)));
    if (step < 2) still.write_header();
    EXPECT_FALSE(still.commit());
    still.finish();
  }
}

// A slot whose operation was given up goes on: its next claim is anybody's equal.
TEST_F(RingKeeperTest, OnlyTheOperationThatStoodStillIsGivenUp) {
  const Ring ring = make_ring();
  shm::OwnedSlot slot = new_slot();
  slot.announce(shm::Phase::claiming, 0);
  const std::uint32_t index = slot.index();
  RingKeeper keeper = keeper_of(open_ring());
  give_up(ring, index);
  HandClaim(ring, new_slot(), 128);  // a dead neighbour
  HandClaim next(ring, std::move(slot), 64);
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  EXPECT_FALSE(*keeper.step_inquiry(monitor_)) << "the claim under way must be waited for";
  next.open();
  EXPECT_TRUE(*keeper.step_inquiry(monitor_));
  EXPECT_TRUE(next.commit());
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 128, 0, 1), data_at(128, 64, 1)));
  next.finish();
}

// The owner wakes after his claim was aborted, and writes his header over the aborted frame's.
TEST_F(RingKeeperTest, ALateHeaderOverAnAbortedFrameMisleadsNoScan) {
  const Ring ring = make_ring();
  HandClaim late(ring, new_slot(), 128);
  HandClaim(ring, new_slot(), 64);
  commit(ring, 64);
  RingKeeper keeper = keeper_of(open_ring());
  give_up(ring, late.slot().index());
  repair(keeper);
  ASSERT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 192, 0, 2), data_at(192, 64, 2)));
  late.write_header(77).write_body();
  EXPECT_FALSE(late.commit());
  std::vector<std::byte> copy(ring.ring_bytes());
  keeper.walk_into(copy.data());
  auto run = keeper.scan(1 << 20);
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_EQ(run->bytes, 256u);
  EXPECT_EQ(run->next_offset, Offset(3));
  EXPECT_EQ(format::check_frame({copy.data(), 192}, 0), format::FrameFault::none);
  EXPECT_EQ(format::load_header(copy.data()).key_length, 2u);
  EXPECT_EQ(format::load_header(copy.data()).length, 192);
  // And no later repair behind it.
  HandClaim(ring, new_slot(), 96);
  repair(keeper);
  EXPECT_EQ(frames_of(ring, 0).back(), aborted_at(256, 96, 3, 1));
  late.finish();
}

TEST_F(RingKeeperTest, ATripperWhoWasGivenUpButSaysTheEndFirstIsHeard) {
  const Ring ring = make_ring();
  for (int i = 0; i < 6; ++i) commit(ring, kEighth);
  HandClaim(ring, new_slot(), kEighth, 3);
  HandClaim tripper(ring, new_slot(), kEighth);
  RingKeeper keeper = keeper_of(open_ring());
  give_up(ring, tripper.slot().index());
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  tripper.publish_end();
  EXPECT_TRUE(*keeper.step_inquiry(monitor_));
  EXPECT_EQ(frames_of(ring, 0)[6], aborted_at(6 * kEighth, kEighth, 6, 3));
  tripper.finish();
}

TEST_F(RingKeeperTest, ATripperWhoWasGivenUpAndWakesLateChangesNothing) {
  const Ring ring = make_ring();
  for (int i = 0; i < 6; ++i) commit(ring, kEighth);
  HandClaim(ring, new_slot(), kEighth, 3);
  HandClaim tripper(ring, new_slot(), kEighth);
  RingKeeper keeper = keeper_of(open_ring());
  give_up(ring, tripper.slot().index());
  repair(keeper);
  const std::uint64_t end = ring.line(0).end.load();
  EXPECT_FALSE(ring.publish_end(0, tripper.tail()));
  EXPECT_EQ(ring.line(0).end.load(), end);
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::done);
  EXPECT_EQ(ring.line(1).base_offset.load(), 6u);
  tripper.finish();
}

// --- A fenced ring -------------------------------------------------------------------------------

TEST_F(RingKeeperTest, NothingIsFilledBehindTheSealThoughFailedClaimsMovedTheTail) {
  for (const int late_claims : {1, 9}) {  // within the term, and beyond its end
    SCOPED_TRACE(late_claims);
    const Ring ring = make_ring();
    commit(ring, 64);
    HandClaim(ring, new_slot(), 64);
    ring.fence();
    const auto seal = ring.seal_point();
    const Position next = ring.finish_seal(seal.position, seal.offset);
    ASSERT_EQ(next, Position(4096));
    for (int i = 0; i < late_claims; ++i) HandClaim(ring, new_slot(), kEighth).finish();
    RingKeeper keeper = keeper_of(open_ring());
    repair(keeper);
    EXPECT_THAT(frames_of(ring, 0),
                ElementsAre(data_at(0, 64, 0), aborted_at(64, 64, 1, 1), pad_at(128, 4096 - 128, 2)));
    while (keeper.scan(1 << 20)->bytes > 0) {
    }
    EXPECT_EQ(keeper.frontier(), next);
    EXPECT_FALSE(keeper.has_unresolved());
  }
}

TEST_F(RingKeeperTest, WhatFailedClaimsTookBetweenFenceAndSealLeavesNoGap) {
  for (const int late_claims : {1, 9}) {  // within the term, and beyond its end
    SCOPED_TRACE(late_claims);
    const Ring ring = make_ring();
    commit(ring, 64);
    ring.fence();
    for (int i = 0; i < late_claims; ++i) HandClaim(ring, new_slot(), kEighth).finish();
    RingKeeper keeper = keeper_of(open_ring());
    repair(keeper);
    EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 64, 0)));
    ring.fence();  // by the next keeper
    const auto seal = ring.seal_point();
    ASSERT_TRUE(seal.known);
    EXPECT_EQ(seal.position, Position(64));
    EXPECT_EQ(seal.offset, Offset(1));
    ring.finish_seal(seal.position, seal.offset);
    EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 64, 0), pad_at(64, 4096 - 64, 1)));
  }
}

// The keeper died between the fence and the note of what it found there. The bytes are nobody's, and repair
// gives them away.
TEST_F(RingKeeperTest, WhatFailedClaimsTookIsFilledWhenTheFencesPlaceIsNotKnown) {
  const Ring ring = make_ring();
  commit(ring, 64);
  ring.fence();
  ring.line(0).fenced.store(0);
  HandClaim(ring, new_slot(), 256).finish();
  const auto seal = ring.seal_point();
  ASSERT_TRUE(seal.known);
  ring.finish_seal(seal.position, seal.offset);
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  EXPECT_THAT(frames_of(ring, 0),
              ElementsAre(data_at(0, 64, 0), aborted_at(64, 256, 1, 1), pad_at(320, 4096 - 320, 2)));
}

TEST_F(RingKeeperTest, FailedClaimsThatMoveTheTailBeyondTheTermLeaveTheSealToRepair) {
  const Ring ring = make_ring();
  commit(ring, 64);
  ring.fence();
  ring.line(0).fenced.store(0);
  for (int i = 0; i < 9; ++i) HandClaim(ring, new_slot(), kEighth).finish();
  EXPECT_FALSE(ring.seal_point().known);
  RingKeeper keeper = keeper_of(open_ring());
  repair(keeper);
  const auto seal = ring.seal_point();
  ASSERT_TRUE(seal.known);
  EXPECT_EQ(seal.position, Position(kTestTerm));
  EXPECT_EQ(seal.offset, Offset(1));
  ring.finish_seal(seal.position, seal.offset);
  while (keeper.scan(1 << 20)->bytes > 0) {
  }
  EXPECT_EQ(keeper.frontier(), Position(kTestTerm));
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(RingKeeperTest, RepairSaysCorruptOfWhatCannotBe) {
  const auto error_after = [&](void (*damage)(const Ring&)) {
    const Ring ring = make_ring();
    commit(ring, 64);
    HandClaim(ring, new_slot(), 64);
    commit(ring, 64);
    damage(ring);
    RingKeeper keeper = keeper_of(open_ring());
    static_cast<void>(monitor_.find_deaths());
    keeper.begin_inquiry();
    auto complete = keeper.step_inquiry(monitor_);
    EXPECT_FALSE(complete);
    return complete ? Code::system : complete.error().code;
  };
  // An active term out of reach; a frame behind the hole with an offset before it; a term's end beyond it.
  EXPECT_EQ(error_after([](const Ring& ring) { ring.header().active_term.store(1'000); }), Code::corrupt);
  EXPECT_EQ(error_after([](const Ring& ring) { std::memset(ring.data() + 128 + 8, 0, 8); }), Code::corrupt);
  EXPECT_EQ(error_after([](const Ring& ring) {
              ring.header().active_term.store(1);
              ring.line(0).end.store(make_tail(0, 3, 2 * kTestTerm));
            }),
            Code::corrupt);
}

// --- Recycling -----------------------------------------------------------------------------------

class RingRecycling : public RingKeeperTest {
 protected:
  // Appends until `term` is the active one.
  void fill_until(const Ring& ring, std::uint64_t term) {
    auto producer = new_producer();
    while (ring.header().active_term.load() < term)
      ASSERT_TRUE((*producer)->append({.value = std::string(1000, 'r')}));
  }
  // Calls recycle until it comes to a stop, and returns its last word.
  RingKeeper::Recycled recycle(RingKeeper& keeper, Position reusable) {
    for (;;) {
      const auto result = keeper.recycle(reusable, monitor_);
      if (result.zeroed == 0) return result;
    }
  }
  static std::uint64_t limit(const Ring& ring) { return ring.header().term_limit.load(); }
  static constexpr Position kAll{~std::uint64_t{0} >> 1};
};

TEST_F(RingRecycling, KeepsHalfTheRingCleanAheadAndTheRestAsItIs) {
  const Ring ring = make_ring(8);
  RingKeeper keeper = keeper_of(open_ring());
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 8u);
  fill_until(ring, 3);
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 8u);
  fill_until(ring, 5);
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 10u);
  EXPECT_EQ(ring.header().head.load(), 2 * kTestTerm);
  const std::byte zero[kTestTerm] = {};
  EXPECT_EQ(std::memcmp(ring.term_data(0), zero, kTestTerm), 0);
  EXPECT_EQ(std::memcmp(ring.term_data(1), zero, kTestTerm), 0);
  EXPECT_NE(std::memcmp(ring.term_data(2), zero, kTestTerm), 0);
}

TEST_F(RingRecycling, TakesOnlyWhatMayBeReused) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  fill_until(ring, 3);
  EXPECT_TRUE(recycle(keeper, Position(kTestTerm - 1)).starving);
  EXPECT_EQ(limit(ring), 4u);
  EXPECT_EQ(ring.header().head.load(), 0u);
  recycle(keeper, Position(kTestTerm));
  EXPECT_EQ(limit(ring), 5u);
}

TEST_F(RingRecycling, WaitsForEverybodyWhoWasAtWorkWhenTheTermWasLeft) {
  for (const shm::Phase phase : {shm::Phase::claiming, shm::Phase::helping}) {
    const Ring ring = make_ring(4);
    RingKeeper keeper = keeper_of(open_ring());
    fill_until(ring, 3);
    shm::OwnedSlot busy = new_slot();
    busy.announce_fenced(phase, 0);
    recycle(keeper, kAll);
    EXPECT_EQ(limit(ring), 4u);
    busy.finish();
    recycle(keeper, kAll);
    EXPECT_EQ(limit(ring), 6u);
  }
}

TEST_F(RingRecycling, DoesNotWaitForOtherPartitionsNorForTheDead) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  fill_until(ring, 3);
  shm::OwnedSlot other = new_slot();
  other.announce_fenced(shm::Phase::claiming, 1);
  {
    shm::OwnedSlot dead = new_slot();
    dead.announce_fenced(shm::Phase::helping, 0);
  }
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 4u);
  EXPECT_EQ(monitor_.find_deaths().size(), 1u);
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 6u);
  other.finish();
}

// In a memory topic nothing but this holds the space of a claim that its owner keeps open.
TEST_F(RingRecycling, AClaimThatBecomesAnOpenOneHoldsItsTermStill) {
  const Ring ring = make_ring(4);
  HandClaim slow(ring, new_slot(), 128);
  RingKeeper keeper = keeper_of(open_ring());
  fill_until(ring, 3);
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 4u);
  slow.open();
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 4u) << "the claim is still open";
  EXPECT_TRUE(slow.commit());
  slow.finish();
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 6u);
}

TEST_F(RingRecycling, AnOpenClaimBehindTheTermDoesNotHoldIt) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  fill_until(ring, 3);
  HandClaim open(ring, new_slot(), 128);
  open.open();
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 6u);
  EXPECT_TRUE(open.commit());
  open.finish();
}

TEST_F(RingRecycling, APinHoldsTheTermItIsInAndTheHeadSaysThatItIsWanted) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  shm::Reader& reader = control_.reader(3);
  control_.use_reader(3);
  reader.ring_generation.store(1);
  reader.pin.store(kTestTerm - 8);
  reader.owner.store(1);
  fill_until(ring, 3);
  const auto blocked = recycle(keeper, kAll);
  EXPECT_TRUE(blocked.blocked_by_pin);
  EXPECT_TRUE(blocked.starving);
  EXPECT_EQ(limit(ring), 4u);
  EXPECT_EQ(ring.header().head.load(), kTestTerm);
  EXPECT_EQ(frames_of(ring, 0).size(), frames_of(ring, 1).size());
  reader.ring_generation.store(2);  // the same position of another ring
  recycle(keeper, kAll);
  EXPECT_EQ(limit(ring), 6u);
  reader.owner.store(0);
}

TEST_F(RingRecycling, DuringAnInquiryDoesNotTurnCleanTermsIntoHoles) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  HandClaim(ring, new_slot(), 128);
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  fill_until(ring, 3);
  recycle(keeper, kAll);
  ASSERT_EQ(limit(ring), 6u);
  EXPECT_TRUE(*keeper.step_inquiry(monitor_));
  EXPECT_TRUE(frames_of(ring, 0).empty());
  fill_until(ring, 5);
  EXPECT_EQ(frames_of(ring, 4).front().offset, ring.line(4).base_offset.load());
}

TEST_F(RingRecycling, OfImpossibleNumbersDoesNothing) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  commit(ring, 64);
  ring.header().active_term.store(1'000'000);
  recycle(keeper, kAll);
  ring.header().active_term.store(0);
  ring.header().term_limit.store(0);
  recycle(keeper, kAll);
  EXPECT_EQ(frames_of(ring, 0).size(), 1u);
}

}  // namespace
}  // namespace ringtail::log
