// A producer that has its partition for itself: its end, a ring that is replaced, and what it hears when it is given up.
#include <random>

#include "support/single_step.h"
#include "unit/log/exclusive_test_support.h"

namespace ringtail::log {
namespace {

class ExclusiveEndTest : public ExclusiveTest {
 protected:
  void let_next_keeper_take_it_back() {
    kill_keeper();
    open_keeper();
    turn_until([&] { return failed() || !ring().is_owned(); });
    ASSERT_FALSE(failed());
  }
};

INSTANTIATE_TEST_SUITE_P(Topics, ExclusiveEndTest, ::testing::Values(Storage::memory, Storage::disk),
                         [](const auto& topic) { return topic.param == Storage::disk ? "Disk" : "Memory"; });

// --- Ends ----------------------------------------------------------------------------------------

// What he has written of it, longer than what comes in its place, must not be taken for frames.
TEST_P(ExclusiveEndTest, OfAnAppendThatItsOwnerDiedInNothingIsLeft) {
  auto owner = new_owner();
  append(*owner, 20);
  const auto open = (*owner)->claim({}, 3'000);
  ASSERT_TRUE(open);
  const std::uint64_t word = format::committed_word(64, format::FrameType::data, 0);
  for (std::size_t at = 0; at + 8 <= 3'000; at += 8) std::memcpy(open->value + at, &word, 8);
  kill(std::move(owner));
  auto shared = new_producer();
  append(*shared, 20);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  for (std::size_t i = 0; i < numbers_.size(); ++i) ASSERT_EQ(numbers_[i].first, Offset(i));
}

// He has said where the term ends, and not come to its pad; or has come there, and not opened the next.
TEST_P(ExclusiveEndTest, AnOwnerMayDieAnywhereInARotation) {
  for (int stage = 0; stage < 4; ++stage) {
    SCOPED_TRACE(stage);
    auto owner = new_owner();
    append_while_turning(*owner, 50);
    const Ring at = ring();
    const std::uint64_t term = at.header().active_term.load();
    const std::uint64_t tail = at.line(term).fenced.load();
    const std::uint64_t used = tail_bytes(tail);
    const Offset next(at.line(term).base_offset.load() + tail_records(tail));
    if (stage > 0) at.publish_end(term, tail & ~kFence);
    if (stage > 1)
      publish_filler(at.term_data(term) + used, 0, format::FrameType::pad,
                     static_cast<std::uint32_t>(at.term_bytes() - used), next, 0);
    if (stage > 2) {
      at.line(term).fenced.store(make_tail(at.lap(term), tail_records(tail), at.term_bytes()) | kFence);
      TermLine& to = at.line(term + 1);
      to.number.store(term + 1);
      to.base_offset.store(next.value());
      to.tail.store(make_tail(at.lap(term + 1), 0, 0) | kFence);
    }
    kill(std::move(owner));
    auto shared = new_producer();
    append_while_turning(*shared, 50);
  }
  auto reader = new_reader();
  expect_rest(*reader, is_disk() ? Offset(0) : reader->log_start());
}

TEST_P(ExclusiveEndTest, GoesOnUnderAnotherKeeper) {
  auto owner = new_owner();
  append(*owner, 30);
  kill_keeper();
  append(*owner, 30);
  open_keeper();
  append(*owner, 30);
  EXPECT_EQ(ring().owner(), owner->slot.owner());
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  // One that dies while it takes the ring back.
  (*owner)->release_exclusive();
  ring().fence();
  let_next_keeper_take_it_back();
  auto shared = new_producer();
  append(*shared, 30);
  expect_rest(*reader, Offset(90));
}

TEST_P(ExclusiveEndTest, WhenAllHaveDiedItsRecordsAreThere) {
  auto owner = new_owner();
  append(*owner, 100);
  owner.reset();
  let_next_keeper_take_it_back();
  auto shared = new_producer();
  append(*shared, 30);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

// Word by word the ring is opened to all again.
TEST_P(ExclusiveEndTest, AKeeperMayDieAnywhereWhileItGivesTheRingBack) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::uint64_t length = 1;
  for (test::Deaths deaths; deaths.first < length; deaths.first += deaths.stride) {
    auto owner = new_owner();
    append_while_turning(*owner, 20);
    const Ring r = ring();
    // One commit is told by its frame alone.
    owner.reset();
    if (is_disk())
      turn_until([&] { return entry().durable_offset.load() >= numbers_.back().first.value() + 1; });
    const Ring::End end = r.claimed_end();
    kill_keeper();
    r.fence();
    {
      const test::Process keeper("keeper", [&] {
        test::offer_steps([&] { return r.unfence(end), 0; });
        return 0;
      });
      if (length == 1) {  // the first one comes to the end
        length = test::take_steps(keeper, ~std::uint64_t{0}).value();
        deaths = test::choose_deaths(length, 30, seed);
      } else {
        SCOPED_TRACE(deaths.first);
        ASSERT_EQ(test::take_steps(keeper, deaths.first), deaths.first);
      }
    }
    entry().exclusive.store(0);
    open_keeper();
    ASSERT_FALSE(failed());
    const std::size_t before = numbers_.size();
    auto shared = new_producer();
    append_while_turning(*shared, 20);
    ASSERT_FALSE(failed());
    ASSERT_EQ(numbers_[before].first, end.offset);
  }
  auto reader = new_reader();
  expect_rest(*reader, is_disk() ? Offset(0) : reader->log_start());
}

// --- A ring that is replaced ----------------------------------------------------------------------

// A reader stands in what producers need, and the ring is full.
class DiskExclusiveTest : public ExclusiveTest {
 protected:
  void SetUp() override {
    config_.reader_pin_ms = 0;
    ExclusiveTest::SetUp();
  }
  // Fills the ring behind a reader that does not move, until the keeper replaces it. Returns that reader.
  std::unique_ptr<PartitionReader> pin() {
    auto reader = new_reader();
    std::vector<Record> records(1);
    EXPECT_EQ(reader->poll(records).value(), 1u);
    EXPECT_EQ(records[0].value, value_of(0));
    return reader;
  }
};

INSTANTIATE_TEST_SUITE_P(Topics, DiskExclusiveTest, ::testing::Values(Storage::disk),
                         [](const auto&) { return "Disk"; });

TEST_P(DiskExclusiveTest, TheNextRingIsTheOwnersToo) {
  auto owner = new_owner();
  append(*owner, 1);
  auto reader = pin();
  const std::uint64_t before = generation();
  append_while_turning(*owner, 4'000);
  EXPECT_GT(generation(), before);
  EXPECT_EQ(ring().owner(), owner->slot.owner());
  expect_rest(*reader, Offset(1));
  for (std::size_t i = 0; i < numbers_.size(); ++i) ASSERT_EQ(numbers_[i].first, Offset(i));
  turn_until_durable(Offset(4'001));
  auto second = new_reader();
  expect_rest(*second, Offset(0));
}

TEST_P(DiskExclusiveTest, WhatOthersHaveSentBecomesDurableMeanwhile) {
  auto before = new_producer();
  const auto sent = (*before)->append({.value = "mine"});
  ASSERT_TRUE(sent);
  auto owner = new_owner();
  EXPECT_TRUE(meanwhile([&] { return (*before)->wait_durable(*sent); }));
  const auto alone = (*owner)->append({.value = "his"});
  ASSERT_TRUE(alone);
  EXPECT_TRUE(meanwhile([&] { return (*before)->wait_durable(*alone); }));
}

// --- Given up ------------------------------------------------------------------------------------

// A stop in the midst of an append, while this host ceases to lead, or the ring has to go.
class GivenUpTest : public ExclusiveTest {
 protected:
  // Has the keeper replace the ring, for somebody else stands still in it.
  void replace() {
    const std::uint64_t before = generation();
    keeper_->on_slot_stuck(300, shm::op_word(1, shm::Phase::claiming, ref_.index));
    turn_until([&] { return failed() || generation() != before; });
    ASSERT_FALSE(failed());
  }
};

INSTANTIATE_TEST_SUITE_P(Topics, GivenUpTest, ::testing::Values(Storage::memory, Storage::disk),
                         [](const auto& topic) { return topic.param == Storage::disk ? "Disk" : "Memory"; });

TEST_P(GivenUpTest, HisLateCommitIsNoRecordAndHeIsTold) {
  auto owner = new_owner();
  append(*owner, 20);
  auto early = new_reader();
  expect_rest(*early, Offset(0));  // it stands where the late commit will be
  const auto open = (*owner)->claim({}, 100);
  ASSERT_TRUE(open);
  std::memset(open->value, 'z', 100);
  replace();
  const auto late = (*owner)->commit(*open);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error(), SendError::claim_expired);
  append_while_turning(*owner, 50);
  expect_rest(*early, Offset(20));
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  if (is_disk()) turn_until_durable(Offset(70));
  auto third = new_reader();
  expect_rest(*third, Offset(0));
}

// Nobody else can write there, so readers have nothing to doubt, however long the next ring takes to be made.
TEST_P(GivenUpTest, TheRingOfOneIsNotDoubtedForAnotherWhoStandsStill) {
  auto owner = new_owner();
  append(*owner, 20);
  const Ring first = ring();
  keeper_->on_slot_stuck(300, shm::op_word(1, shm::Phase::claiming, ref_.index));
  EXPECT_EQ(first.scribbled(), Scribbled::no);
  append(*owner, 20);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  EXPECT_TRUE(first.exact_end());
  kill_keeper();
  open_keeper();
  append_while_turning(*owner, 20);
  expect_rest(*reader, Offset(40));
}

// Between the keeper's last look and the seal.
TEST_P(GivenUpTest, ACommitThatTheLastLookHasSeenCounts) {
  auto owner = new_owner();
  append(*owner, 20);
  const auto open = (*owner)->claim({}, 100);
  ASSERT_TRUE(open);
  std::memset(open->value, 'z', 100);
  // As commit does it, and no further: his stop is behind it.
  format::state_word(open->frame).store(format::committed_word(open->length, format::FrameType::data, 0));
  replace();
  EXPECT_TRUE((*owner)->commit(*open));
  auto reader = new_reader();
  std::vector<Record> records(64);
  ASSERT_EQ(reader->poll(records).value(), 21u);
  EXPECT_EQ(records[20].value, std::string(100, 'z'));
  const auto next = (*owner)->append({.value = "next"});
  ASSERT_TRUE(next);
  EXPECT_EQ(next->offset, Offset(21));
  for (int i = 0; i < 100 && reader->poll(records).value() == 0; ++i) turn();
  EXPECT_EQ(records[0].value, "next");
}

// He may have told the tail of a commit that does not count.
TEST_P(GivenUpTest, TheEndIsUnknownUntilItIsDecided) {
  auto owner = new_owner();
  append(*owner, 5);
  const Ring r = ring();
  ASSERT_TRUE(r.exact_end());
  r.header().scribbled.store(static_cast<std::uint32_t>(Scribbled::by_owner));
  ASSERT_TRUE((*owner)->append({.value = "late"}));
  EXPECT_FALSE(r.exact_end());
}

// A reader may have stepped over it, though its owner has told no tail that reaches so far.
TEST_P(GivenUpTest, WhatTheOwnerHasAbortedIsStillWalkedOver) {
  auto owner = new_owner();
  append(*owner, 5);
  const auto open = (*owner)->claim({}, 100);
  ASSERT_TRUE(open);
  store_filler_fields(open->frame, open->metadata.offset, 1);
  format::state_word(open->frame).store(format::aborted_word(open->claimed));
  auto reader = new_reader();
  std::vector<Record> records(8);
  ASSERT_EQ(reader->poll(records).value(), 5u);
  replace();
  (*owner)->abort(*open);
  const auto next = (*owner)->append({.value = "next"});
  ASSERT_TRUE(next);
  EXPECT_EQ(next->offset, Offset(6)) << "the aborted one has used up an offset";
  while (reader->poll(records).value() == 0) turn();
  EXPECT_EQ(records[0].value, "next");
}

// As long as it is not decided, nobody is given what may not count.
TEST_P(GivenUpTest, AReaderTakesNothingThatIsNotDecided) {
  auto owner = new_owner();
  append(*owner, 5);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  const Ring r = ring();
  r.header().scribbled.store(static_cast<std::uint32_t>(Scribbled::by_owner));
  ASSERT_TRUE((*owner)->append({.value = "late"}));
  std::vector<Record> records(4);
  EXPECT_EQ(reader->poll(records).value(), 0u);
  EXPECT_EQ(reader->offset(), Offset(5));
  auto frames = reader->poll(records, true);
  EXPECT_EQ(frames.value(), 0u);
}

}  // namespace
}  // namespace ringtail::log
