#include "log/ring.h"

#include <algorithm>
#include <cerrno>
#include <thread>

#include <gmock/gmock.h>

#include "support/no_descriptors.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// --- The tail word -------------------------------------------------------------------------------

TEST(TailWord, HoldsEveryFieldAtItsLimitBesideTheOthers) {
  const std::uint64_t most_bytes = kUnitsMask * format::kFrameAlignment;
  for (const std::uint64_t lap : {std::uint64_t{0}, std::uint64_t{1}, kLapMask}) {
    for (const std::uint64_t records : {std::uint64_t{0}, std::uint64_t{1}, kRecordsMask}) {
      for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{8}, most_bytes}) {
        for (const std::uint64_t fence : {std::uint64_t{0}, kFence}) {
          const std::uint64_t tail = make_tail(lap, records, bytes) | fence;
          EXPECT_EQ(tail_lap(tail), lap);
          EXPECT_EQ(tail_records(tail), records);
          EXPECT_EQ(tail_bytes(tail), bytes);
          EXPECT_EQ(tail_fenced(tail), fence != 0);
        }
      }
    }
  }
}

TEST(TailWord, WhenEverySlotOvershootsTheLargestTermNoFieldReachesTheNext) {
  const std::uint64_t term = format::kMaxFrameBytes;
  std::uint64_t tail = make_tail(3, term / format::kFrameHeaderBytes, term);
  for (std::uint32_t i = 0; i < shm::kMaxSlots; ++i)
    tail += make_tail(0, kMaxBatchRecords, term / 8 + format::kFrameHeaderBytes);
  EXPECT_EQ(tail_lap(tail), 3u);
  EXPECT_FALSE(tail_fenced(tail));
  EXPECT_EQ(tail_records(tail), term / format::kFrameHeaderBytes + shm::kMaxSlots * kMaxBatchRecords);
  EXPECT_EQ(tail_bytes(tail), term + shm::kMaxSlots * (term / 8 + format::kFrameHeaderBytes));
}

TEST(ClaimedBytes, IsTheAlignedMagnitudeOfAnyNegativeLength) {
  EXPECT_EQ(format::claimed_bytes(format::claimed_word(32)), 32u);
  EXPECT_EQ(format::claimed_bytes(format::claimed_word(33)), 40u);
  EXPECT_EQ(format::claimed_bytes(0x80000000u), 0x80000000u);
  EXPECT_EQ(format::claimed_bytes(0xffffffffu), 8u);
}

// --- Files ---------------------------------------------------------------------------------------

class RingFile : public RingScene {
 protected:
  std::filesystem::path path() const { return ring_path(dir_.path(), "topic", PartitionId(0)); }
  Error error_after(void (*damage)(RingHeader&)) {
    damage(make_ring().header());
    auto opened = Ring::open(path(), false);
    EXPECT_FALSE(opened);
    return opened ? Error{} : opened.error();
  }
};

TEST_F(RingFile, OpensWithWhatItWasMadeWith) {
  make_ring(5, Position(8192), Offset(99), 12);
  const Ring ring = open_ring();
  EXPECT_EQ(ring.generation(), 12u);
  EXPECT_EQ(ring.term_bytes(), kTestTerm);
  EXPECT_EQ(ring.term_count(), 5u);
  EXPECT_EQ(ring.base_position(), Position(0));
  EXPECT_EQ(ring.first_position(), Position(8192));
  EXPECT_EQ(ring.claimed_end().position, Position(8192));
  EXPECT_EQ(ring.claimed_end().offset, Offset(99));
  EXPECT_FALSE(ring.sealed());
  const auto header = Ring::open_header(path());
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->claimed_end().position, Position(8192));
  EXPECT_EQ(header->ring_bytes(), 5 * kTestTerm);
  EXPECT_EQ(header->data(), nullptr);
}

TEST_F(RingFile, OfAnotherLayoutVersionIsRefusedWithBothVersions) {
  const Error error = error_after([](RingHeader& header) { header.version = 9; });
  EXPECT_EQ(error.code, Code::incompatible_layout);
  EXPECT_THAT(error.message, HasSubstr("version 9"));
  EXPECT_THAT(error.message, HasSubstr("has 3"));
  EXPECT_THAT(error.message, HasSubstr(path().string()));
}

TEST_F(RingFile, WithADamagedHeaderIsCorrupt) {
  EXPECT_EQ(error_after([](RingHeader& header) { header.magic ^= 1; }).code, Code::corrupt);
  EXPECT_EQ(error_after([](RingHeader& header) { header.term_bytes = 1 << 30; }).code, Code::corrupt);
  EXPECT_EQ(error_after([](RingHeader& header) { header.first_offset ^= 1; }).code, Code::corrupt);
  EXPECT_EQ(error_after([](RingHeader& header) { header.crc32c ^= 1; }).code, Code::corrupt);
}

TEST_F(RingFile, CutShortIsCorrupt) {
  make_ring();
  for (const std::uintmax_t bytes :
       {kRingHeaderBytes + 4 * kTestTerm - 4096, kRingHeaderBytes, std::uintmax_t{4096}}) {
    std::filesystem::resize_file(path(), bytes);
    auto opened = Ring::open(path(), false);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Code::corrupt);
  }
  EXPECT_EQ(Ring::open_header(path()).error().code, Code::corrupt);
}

// A replica's log may begin anywhere, also in the first block of a term, with an offset of any size.
TEST_F(RingFile, BeginsInTheMidstOfABlockThatHasNothingBefore) {
  constexpr std::uint64_t kBegin = 96;  // of the log, from the start of a term
  const Offset offset(5ull << 24);
  alignas(8) std::array<std::byte, kBegin + 32> block{};
  const auto ends_at = [&](std::uint64_t used, Offset end) {
    auto ring = Ring::create(path(), {.log_id = kTestLogId,
                                      .topic_id = ref_.topic_id,
                                      .term_bytes = kTestTerm,
                                      .term_count = 4,
                                      .generation = 1});
    ASSERT_TRUE(ring);
    const Position first(7 * kTestTerm + used);
    ring->set_base(first, end, 0, std::span(block).first(used));
    const Ring::End claimed = ring->claimed_end();
    EXPECT_EQ(claimed.position, first);
    EXPECT_EQ(claimed.offset, end);
    EXPECT_EQ(ring->line(0).base_offset.load(), offset.value());
    EXPECT_EQ(format::word_extent(format::load_state_word(ring->data(), std::memory_order_relaxed)), kBegin);
  };
  ends_at(kBegin, offset);
  // One record behind the beginning is there already.
  format::write_filler(block.data() + kBegin, format::FrameType::aborted, 32, offset, 1);
  ends_at(kBegin + 32, offset + 1);
}

TEST_F(RingFile, MissingIsNotFound) { EXPECT_EQ(Ring::open(path(), true).error().code, Code::not_found); }

// Who took them for none would take their records for lost.
TEST_F(RingFile, RetiredRingsThatCannotBeListedAreAnError) {
  std::fclose(std::fopen((dir_ / "topic-0.3.ring.retired").c_str(), "w"));
  const testing::NoDescriptors none;
  const auto listed = retired_rings(dir_.path(), "topic", PartitionId(0));
  ASSERT_FALSE(listed);
  EXPECT_EQ(listed.error().os_errno, EMFILE);
}

TEST_F(RingFile, WhereThereIsNoFolderThereAreNoRetiredRings) {
  EXPECT_TRUE(retired_rings(dir_ / "nowhere", "topic", PartitionId(0)).value().empty());
}

TEST_F(RingFile, RetiredRingsAreThoseOfThisPartitionOnly) {
  for (const char* name : {"topic-0.3.ring.retired", "topic-0.12.ring.retired", "topic-01.3.ring.retired",
                           "topic-0.3.ring", "topic-0.x3.ring.retired", "topic-0..ring.retired",
                           "other-topic-0.3.ring.retired", "topic-0.3.ring.retired.old"})
    std::fclose(std::fopen((dir_ / name).c_str(), "w"));
  std::vector<std::string> found;
  const auto retired = retired_rings(dir_.path(), "topic", PartitionId(0)).value();
  for (const auto& file : retired) found.push_back(file.filename());
  EXPECT_THAT(found, ::testing::UnorderedElementsAre("topic-0.3.ring.retired", "topic-0.12.ring.retired"));
}

// --- Rotation ------------------------------------------------------------------------------------

using RingRotation = RingScene;

// Seven eighths of the active term, committed; the next eighth trips over the reserve at its end.
void fill(RingScene&, const Ring& ring, shm::OwnedSlot slot) {
  for (int i = 0; i < 7; ++i) {
    HandClaim claim(ring, std::move(slot), kEighth);
    claim.write_header().commit();
    slot = std::move(claim.finish().slot());
  }
}

TEST_F(RingRotation, CannotBeCompletedBeforeTheTripperSaidWhereTheTermEnds) {
  const Ring ring = make_ring();
  fill(*this, ring, new_slot());
  HandClaim tripper(ring, new_slot(), kEighth);
  ASSERT_TRUE(tripper.tripped());
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::unknown_end);
  EXPECT_FALSE(ring.exact_end());
  EXPECT_EQ(ring.claimed_end().position, Position(0));  // no more is known for sure
  EXPECT_EQ(ring.header().active_term.load(), 0u);
}

void expect_rotated(const Ring& ring) {
  EXPECT_EQ(ring.header().active_term.load(), 1u);
  EXPECT_EQ(ring.line(1).number.load(), 1u);
  EXPECT_EQ(ring.line(1).base_offset.load(), 7u);
  EXPECT_EQ(ring.line(1).tail.load(), make_tail(0, 0, 0));
  EXPECT_EQ(frames_of(ring, 0).back(), pad_at(7 * kEighth, kEighth, 7));
  const auto end = ring.exact_end();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->position, Position(kTestTerm));
  EXPECT_EQ(end->offset, Offset(7));
}

// The tripper stops behind each of its steps; a helper does the rest, and so would the tripper.
TEST_F(RingRotation, IsCompletedByAnybodyFromEveryStepOn) {
  enum Step { end, pad, base, tail, last };
  for (int step = end; step < last; ++step) {
    SCOPED_TRACE(step);
    const Ring ring = make_ring();
    fill(*this, ring, new_slot());
    HandClaim tripper(ring, new_slot(), kEighth);
    tripper.publish_end();
    if (step >= pad)
      publish_filler(ring.term_data(0) + 7 * kEighth, 0, format::FrameType::pad, kEighth, Offset(7), 0);
    if (step >= base) {
      ring.line(1).number.store(1);
      ring.line(1).base_offset.store(7);
    }
    if (step >= tail) ring.line(1).tail.store(make_tail(0, 0, 0));
    EXPECT_EQ(ring.rotate(0), Ring::Rotation::done);
    expect_rotated(ring);
    EXPECT_EQ(ring.rotate(0), Ring::Rotation::done);  // the tripper, late
    expect_rotated(ring);
  }
}

TEST_F(RingRotation, OnlyTheFirstToSayWhereATermEndsCounts) {
  const Ring ring = make_ring();
  EXPECT_TRUE(ring.publish_end(0, make_tail(0, 3, 96)));
  EXPECT_FALSE(ring.publish_end(0, make_tail(0, 4, 128)));
  EXPECT_EQ(ring.line(0).end.load(), make_tail(0, 3, 96));
  EXPECT_TRUE(ring.publish_end(4, make_tail(1, 5, 160)));  // the same line, a lap later
}

TEST_F(RingRotation, StopsAtTheTermLimitAndGoesOnWhenItRises) {
  const Ring ring = make_ring();
  ring.header().term_limit.store(1);
  fill(*this, ring, new_slot());
  HandClaim(ring, new_slot(), kEighth).publish_end();
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::full);
  EXPECT_EQ(ring.header().active_term.load(), 0u);
  EXPECT_EQ(ring.claimed_end().position, Position(7 * kEighth));
  ring.header().term_limit.store(2);
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::done);
  expect_rotated(ring);
}

// Whoever opened term 1 died before he said so; somebody who knew its line claimed there, and tripped.
TEST_F(RingRotation, CatchesUpWithAnActiveTermThatWasNotToldOf) {
  const Ring ring = make_ring();
  fill(*this, ring, new_slot());
  HandClaim(ring, new_slot(), kEighth).publish_end();
  ASSERT_EQ(ring.rotate(0), Ring::Rotation::done);
  fill(*this, ring, new_slot());
  ring.header().active_term.store(0);
  ASSERT_TRUE(ring.publish_end(1, ring.line(1).tail.load()));
  EXPECT_EQ(ring.rotate(1), Ring::Rotation::done);
  EXPECT_EQ(ring.header().active_term.load(), 2u);
  EXPECT_EQ(ring.line(2).base_offset.load(), 14u);
}

TEST_F(RingRotation, AnImpossibleEndIsNotBelieved) {
  const Ring ring = make_ring();
  ring.line(0).end.store(make_tail(0, 1, kTestTerm));
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::unknown_end);
}

TEST_F(RingRotation, ManyThreadsAcrossManyTermsLeaveNoGapAndNoOverlap) {
  constexpr int kThreads = 4;
  constexpr std::uint64_t kEach = 6'000;
  const std::uint64_t seed = shm::print_seed();
  const Ring ring = make_ring(64);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, seed] {
      std::mt19937_64 random(seed + static_cast<std::uint64_t>(t));
      auto producer = new_producer();
      std::string value(200, static_cast<char>('a' + t));
      for (std::uint64_t i = 0; i < kEach; ++i) {
        std::memcpy(value.data(), &i, sizeof i);
        const std::size_t bytes = 9 + random() % 150;
        ASSERT_TRUE((*producer)->append({.value = std::string_view(value).substr(0, bytes)}));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::uint64_t next_offset = 0;
  std::array<std::uint64_t, kThreads> next{};
  for (std::uint64_t term = 0; term <= ring.header().active_term.load(); ++term) {
    EXPECT_EQ(ring.line(term).base_offset.load(), next_offset);
    const auto frames = frames_of(ring, term);
    for (const SeenFrame& frame : frames) {
      ASSERT_EQ(frame.offset, next_offset);
      next_offset += frame.records;
      if (frame.type != format::FrameType::data) continue;
      const Record record = format::decode_record(ring.term_data(term) + frame.at, nullptr);
      std::uint64_t number;
      std::memcpy(&number, record.value.data(), sizeof number);
      ASSERT_EQ(number, next[static_cast<std::size_t>(record.value.back() - 'a')]++);
    }
    ASSERT_FALSE(frames.empty());
    if (term < ring.header().active_term.load()) {
      ASSERT_EQ(frames.back().at + frames.back().extent, kTestTerm);
    }
  }
  EXPECT_EQ(next_offset, kThreads * kEach);
  EXPECT_EQ(ring.claimed_end().offset, Offset(kThreads * kEach));
}

// --- Fence and seal ------------------------------------------------------------------------------

using RingSeal = RingScene;

TEST_F(RingSeal, OfAnEmptyRingIsAtItsBase) {
  const Ring ring = make_ring(4, Position(4096), Offset(5));
  ring.fence();
  const auto seal = ring.seal_point();
  ASSERT_TRUE(seal.known);
  EXPECT_EQ(seal.position, Position(4096));
  EXPECT_EQ(seal.offset, Offset(5));
  EXPECT_EQ(ring.finish_seal(seal.position, seal.offset), Position(4096));
  EXPECT_TRUE(ring.sealed());
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(pad_at(0, 4096, 5)));
}

TEST_F(RingSeal, OfATermPartlyFilledPadsToTheNextBlockWithRoomForItsHeader) {
  struct Case {
    std::uint32_t bytes;
    std::uint64_t next;
  };
  for (const auto [bytes, next] : {Case{32, 4096}, {4064, 4096}, {4072, 8192}, {4096, 4096}, {4104, 8192}}) {
    SCOPED_TRACE(bytes);
    const Ring ring = make_ring();
    HandClaim claim(ring, new_slot(), bytes);
    claim.write_header().commit();
    claim.finish();
    ring.fence();
    const auto seal = ring.seal_point();
    ASSERT_TRUE(seal.known);
    EXPECT_EQ(seal.position, Position(bytes));
    EXPECT_EQ(ring.finish_seal(seal.position, seal.offset), Position(next));
    if (next == bytes)
      EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, bytes, 0)));
    else
      EXPECT_THAT(
          frames_of(ring, 0),
          ElementsAre(data_at(0, bytes, 0), pad_at(bytes, static_cast<std::uint32_t>(next - bytes), 1)));
  }
}

TEST_F(RingSeal, OfATrippedTermIsAtItsEndOnceThatIsKnown) {
  const Ring ring = make_ring();
  fill(*this, ring, new_slot());
  HandClaim tripper(ring, new_slot(), kEighth);
  ring.fence();
  EXPECT_FALSE(ring.seal_point().known);
  tripper.publish_end();  // he does not look at the fence again
  const auto seal = ring.seal_point();
  ASSERT_TRUE(seal.known);
  EXPECT_EQ(seal.position, Position(kTestTerm));
  EXPECT_EQ(seal.offset, Offset(7));
  EXPECT_EQ(frames_of(ring, 0).back(), pad_at(7 * kEighth, kEighth, 7));
  EXPECT_EQ(ring.finish_seal(seal.position, seal.offset), Position(kTestTerm));
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::sealed);
}

TEST_F(RingSeal, WhoHelpsStoresNothingBehindTheFence) {
  const Ring ring = make_ring();
  fill(*this, ring, new_slot());
  HandClaim(ring, new_slot(), kEighth).publish_end();
  ring.fence();
  EXPECT_EQ(ring.rotate(0), Ring::Rotation::sealed);
  EXPECT_EQ(format::load_state_word(ring.term_data(0) + 7 * kEighth, std::memory_order_relaxed), 0u);
  EXPECT_EQ(ring.line(1).number.load(), 0u);
}

TEST_F(RingSeal, OfATermOpenedJustBeforeTheFenceCountsItThoughNobodyWasTold) {
  const Ring ring = make_ring();
  fill(*this, ring, new_slot());
  HandClaim(ring, new_slot(), kEighth).publish_end();
  ASSERT_EQ(ring.rotate(0), Ring::Rotation::done);
  ring.header().active_term.store(0);
  ring.line(1).tail.store(make_tail(0, 2, 64));
  ring.fence();
  const auto seal = ring.seal_point();
  ASSERT_TRUE(seal.known);
  EXPECT_EQ(seal.position, Position(kTestTerm + 64));
  EXPECT_EQ(seal.offset, Offset(9));
}

TEST_F(RingSeal, AnAppenderThatMeetsTheFenceTakesNothingAndGoesOnInTheNextRing) {
  const Ring old = make_ring();
  auto producer = new_producer();
  ASSERT_TRUE((*producer)->append({.value = "before"}));
  old.fence();
  const auto seal = old.seal_point();
  const Position next = old.finish_seal(seal.position, seal.offset);
  const Ring fresh = make_ring(4, next, seal.offset, 2);
  const auto sent = (*producer)->append({.value = "behind"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(1));
  EXPECT_EQ(sent->end, next + 40);
  EXPECT_EQ(frames_of(old, 0).size(), 2u);
  EXPECT_THAT(frames_of(fresh, 0), ElementsAre(pad_at(0, 4096, 1), data_at(4096, 40, 1)));
}

// A claim behind the fence fails but moves the tail. What was decided must not move with it.
TEST_F(RingSeal, OnceDecidedStaysThoughTheTailMoves) {
  const Ring ring = make_ring();
  HandClaim claim(ring, new_slot(), 64);
  claim.write_header().commit();
  claim.finish();
  ring.fence();
  const auto seal = ring.seal_point();
  ring.finish_seal(seal.position, seal.offset);
  HandClaim late(ring, new_slot(), 8192);
  ASSERT_TRUE(tail_fenced(late.tail()));
  const auto again = ring.seal_point();  // the next keeper, where the first died before the next ring stood
  ASSERT_TRUE(again.known);
  EXPECT_EQ(again.position, seal.position);
  EXPECT_EQ(again.offset, seal.offset);
  const auto end = ring.exact_end();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->position, seal.position);
  EXPECT_EQ(end->offset, seal.offset);
}

TEST_F(RingSeal, BetweenFenceAndSealTheExactEndIsUnknown) {
  const Ring ring = make_ring();
  ring.fence();
  HandClaim late(ring, new_slot(), 64);
  EXPECT_FALSE(ring.exact_end());
}

TEST_F(RingSeal, AClosedRingHoldsNoReader) {
  const Ring ring = make_ring(4, Position(8192));
  ring.fence();
  ring.close();
  EXPECT_TRUE(ring.sealed());
  EXPECT_EQ(ring.header().next_position.load(), 0u);
}

}  // namespace
}  // namespace ringtail::log
