#include "log/ring_keeper.h"

#include <gmock/gmock.h>

#include "unit/log/ring_keeper_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::ElementsAre;

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

// So it is for a keeper that has not filled that frame itself, and where several lie side by side.
TEST_F(RingKeeperTest, TheNextKeeperKnowsWhatAbortedFramesUseUpThoughTheirOwnersWroteOverThem) {
  for (const bool sealed : {false, true}) {
    SCOPED_TRACE(sealed);
    const Ring ring = make_ring();
    std::vector<std::byte> copy(ring.ring_bytes());
    HandClaim late(ring, new_slot(), 128, 5);
    RingKeeper first = keeper_of(open_ring());
    give_up(ring, late.slot().index());
    repair(first);
    HandClaim later(ring, new_slot(), 64, 3);
    give_up(ring, later.slot().index());
    repair(first);
    late.write_header(77);
    RingKeeper next = keeper_of(open_ring());
    next.walk_into(copy.data());
    if (sealed) {
      ring.fence();
      const auto seal = ring.seal_point();
      ring.finish_seal(seal.position, seal.offset);
    } else {
      commit(ring, 64);
    }
    std::uint64_t used = 0;
    for (std::uint64_t at = 0; at < 192;) {
      auto run = next.scan(1);
      ASSERT_TRUE(run) << run.error().message;
      ASSERT_GT(run->bytes, 0u);
      EXPECT_EQ(run->first_offset, Offset(used));
      ASSERT_EQ(format::check_frame({copy.data() + at, run->bytes}, static_cast<std::int64_t>(used)),
                format::FrameFault::none);
      used += format::load_header(copy.data() + at).key_length;
      at += run->bytes;
    }
    EXPECT_EQ(used, 8u);
    ASSERT_TRUE(next.scan(1 << 20));
    EXPECT_EQ(next.frontier_offset(), Offset(sealed ? 8 : 9));
    late.finish();
    later.finish();
  }
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

// A keeper may die between taking a hole and filling it; its owner, who was given up, may wake there.
TEST_F(RingKeeperTest, AHoleThatIsTakenIsNobodysUntilItIsFilled) {
  const Ring ring = make_ring();
  HandClaim late(ring, new_slot(), 64);
  late.write_header();
  commit(ring, 64);
  format::state_word(late.frame()).store(format::seized_word(64));
  EXPECT_FALSE(late.commit());
  late.write_header();  // one that wrote it late
  EXPECT_FALSE(late.commit());
  EXPECT_THAT(frames_of(ring, 0), ElementsAre());
  RingKeeper next = keeper_of(open_ring());
  give_up(ring, late.slot().index());
  repair(next);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 64, 0, 1), data_at(64, 64, 1)));
  late.finish();
}

// --- A fenced ring -------------------------------------------------------------------------------

// Who claims behind its begin and before the fence has not been asked for.
TEST_F(RingKeeperTest, AnInquiryFromBeforeTheFenceFillsNothingThatWasClaimedSince) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), 64);
  RingKeeper keeper = keeper_of(open_ring());
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  HandClaim living(ring, new_slot(), 128);
  ring.fence();
  const auto seal = ring.seal_point();
  ring.finish_seal(seal.position, seal.offset);
  EXPECT_TRUE(*keeper.step_inquiry(monitor_));
  living.write_header();
  EXPECT_TRUE(living.commit());
  living.finish();
  EXPECT_THAT(frames_of(ring, 0),
              ElementsAre(aborted_at(0, 64, 0, 1), data_at(64, 128, 1), pad_at(192, 4096 - 192, 2)));
}

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

}  // namespace
}  // namespace ringtail::log
