#include "log/ring_keeper.h"

#include <gmock/gmock.h>

#include "unit/log/ring_keeper_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

TEST_F(RingKeeperTest, RepairEndsAtAWordThatHasNoLength) {
  const Ring ring = make_ring();
  HandClaim(ring, new_slot(), 64);
  commit(ring, 64);
  format::state_word(ring.data()).store(std::uint64_t{1} << 32);  // of a type, neither claimed nor committed
  RingKeeper keeper = keeper_of(open_ring());
  static_cast<void>(monitor_.find_deaths());
  keeper.begin_inquiry();
  const auto complete = keeper.step_inquiry(monitor_);
  ASSERT_TRUE(complete) << complete.error().message;
  EXPECT_TRUE(*complete);
  EXPECT_EQ(keeper.repaired_records(), 1u);
}

// The frame of a try_claim whose owner lives: its state word is nobody's claim now, whoever the frame names.
TEST_F(RingKeeperTest, RepairEndsAtAWordThatHasNoLengthInTheFrameOfAnOpenClaim) {
  const Ring ring = make_ring();
  HandClaim claim(ring, new_slot(), 64);
  claim.open();
  commit(ring, 64);
  format::state_word(claim.frame()).store(std::uint64_t{1} << 32);
  RingKeeper keeper = keeper_of(open_ring());
  keeper.begin_inquiry();
  const auto complete = keeper.step_inquiry(monitor_);
  ASSERT_FALSE(complete);
  EXPECT_EQ(complete.error().code, Code::corrupt);
}

TEST_F(RingKeeperTest, ARingEndsOnlyWhereClaimsCan) {
  const Ring ring = make_ring();
  const Position from(3 * kTestTerm);
  EXPECT_TRUE(ring.can_end_at(from, from));
  EXPECT_TRUE(ring.can_end_at(from + 64, from));
  EXPECT_TRUE(ring.can_end_at(from + ring.usable_term_bytes(), from));
  for (const std::uint64_t impossible : {from.value() - 8, from.value() + 4, from.value() + kTestTerm - 8,
                                         from.value() + 5 * kTestTerm, ~std::uint64_t{7}})
    EXPECT_FALSE(ring.can_end_at(Position(impossible), from)) << impossible;
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

// Between a keeper's recycling and its look at the ring's end, in one round, producers may use up all that is clean.
TEST_F(RingRecycling, ARingMayEndWhereItsLastCleanTermDoes) {
  const Ring ring = make_ring(4);
  RingKeeper keeper = keeper_of(open_ring());
  for (int laps = 0; laps < 3; ++laps) {
    fill_until(ring, limit(ring) - 1);
    keeper.recycle(kAll, monitor_);
    fill_until(ring, limit(ring) - 1);
    auto last = new_producer(std::chrono::milliseconds(0));
    while ((*last)->append({.value = std::string(1000, 'r')})) {
    }
    const auto end = ring.exact_end();
    ASSERT_TRUE(end);
    EXPECT_GT(end->position + kTestTerm / 8, Position(ring.term_start(limit(ring))))
        << "all of it is used up";
    EXPECT_TRUE(keeper.can_end_at(ring.term_start(limit(ring))));
    recycle(keeper, kAll);
  }
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
