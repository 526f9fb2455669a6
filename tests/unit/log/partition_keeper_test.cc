#include "log/partition_keeper.h"

#include <gmock/gmock.h>

#include "support/faulty_backend.h"
#include "support/no_descriptors.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::HasSubstr;

class DiskPartition : public PartitionScene {
 protected:
  // As if the keeper had died with everything written behind the mark, and none of it synced.
  void forget_sync(std::uint64_t position, std::uint64_t offset) {
    shm::store_mark(entry(), position, offset);
    for (const auto& file : std::filesystem::directory_iterator(ref_.disk_dir))
      if (file.path().extension() == ".index")
        std::filesystem::remove(file);  // it was never told of that sync
  }
};

// --- Flushing ------------------------------------------------------------------------------------

TEST_F(DiskPartition, StartsEmptyAndMakesDurableWhatIsAppended) {
  open_keeper();
  EXPECT_FALSE(failed());
  EXPECT_EQ(generation(), 1u);
  auto producer = new_producer();
  append(*producer, 1'000);
  turn_until_durable(Offset(1'000));
  EXPECT_EQ(entry().durable_position.load(), open_ring().claimed_end().position.value());
  EXPECT_GT(entry().disk_bytes.load(), 100'000u);
}

TEST_F(DiskPartition, GoesThroughManyLapsOfItsRing) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  for (int round = 0; round < 60; ++round) {
    append(*producer, 200);
    turn_until(
        [&] { return open_ring().header().term_limit.load() > open_ring().header().active_term.load() + 1; });
  }
  EXPECT_GT(open_ring().header().active_term.load(), 20u);
  turn_until_durable(Offset(12'000));
  expect_rest(*reader, Offset(0));
}

TEST_F(DiskPartition, RepairsAfterADeathAndCountsIt) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 10);
  {
    HandClaim(open_ring(), new_slot(), 256, 3);
  }
  append(*producer, 10);
  turn_until_durable(Offset(23));
  EXPECT_EQ(entry().repaired_records.load(), 3u);
  EXPECT_EQ(monitor_.state(1), shm::SlotState::free) << "the dead one's slot is free again";
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

TEST_F(DiskPartition, ADamagedRingFailsThePartitionWithTheCause) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 1);
  format::state_word(open_ring().data()).store(format::committed_word(7, format::FrameType::data, 0));
  turn_until([&] { return failed(); });
  EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::storage_failed);
  EXPECT_THAT((*producer)->describe(SendError::storage_failed).message,
              HasSubstr("no valid frame at position 0"));
  EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::corrupt));
}

// What a failed sync has left in the page cache looks as if it were on disk.
TEST_F(DiskPartition, BehindAFailedSyncWhatWasNotSyncedIsWrittenAnew) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 10);
  turn_until_durable(Offset(10));
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  ASSERT_TRUE(shm::load_mark(entry(), position, offset));
  append(*producer, 50);
  turn_until_durable(Offset(60));
  kill_keeper();
  forget_sync(position, offset);
  entry().failure_code.store(static_cast<std::uint32_t>(Code::storage_failed));
  entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  {
    const testing::NoDescriptors none;  // is no reason to forget it
    open_keeper();
    ASSERT_TRUE(failed());
    kill_keeper();
  }
  for (int i = 0; i < 2; ++i) {
    open_keeper();
    ASSERT_FALSE(failed());
    EXPECT_EQ(entry().durable_offset.load(), 10u);
    if (i == 0) kill_keeper();  // nor is the end of one that has flushed nothing yet
  }
  turn_until_durable(Offset(60));
  expect_rest(*new_reader(), Offset(0));
  append_while_turning(*producer, 2'000);  // behind the term that was open then
  turn_until_durable(Offset(2'060));
  EXPECT_EQ(entry().failure_code.load(), 0u);
  kill_keeper();
  open_keeper();
  EXPECT_EQ(entry().durable_offset.load(), 2'060u);
}

// Though it is the last that a keeper does, and though none has succeeded before.
TEST_F(DiskPartition, AFailedSyncAtTheKeepersEndIsNotBelievedLater) {
  auto faulty = std::make_unique<testing::FaultyBackend>(std::move(backend_));
  testing::FaultyBackend& disk = *faulty;
  backend_ = std::move(faulty);
  config_.flush_interval_ms = 3'600'000;  // nothing is synced but what this asks for
  open_keeper();
  auto producer = new_producer();
  for (const std::uint64_t synced : {0u, 100u}) {
    SCOPED_TRACE(synced);
    append(*producer, 50);
    disk.fail(testing::Op::sync, ".log", EIO, 1, testing::FaultyBackend::kForever);
    keeper_->flush_blocking();
    EXPECT_TRUE(failed());
    EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::storage_failed));
    kill_keeper();
    disk.clear_faults();
    open_keeper();
    ASSERT_FALSE(failed());
    EXPECT_EQ(entry().durable_offset.load(), synced);
    append(*producer, 50);
    keeper_->flush_blocking();
    EXPECT_EQ(entry().durable_offset.load(), synced + 100);
  }
  expect_rest(*new_reader(), Offset(0));
}

TEST_F(DiskPartition, AFailedSyncOfRecoveryIsNotBelievedLater) {
  auto faulty = std::make_unique<testing::FaultyBackend>(std::move(backend_));
  testing::FaultyBackend& disk = *faulty;
  backend_ = std::move(faulty);
  open_keeper();
  auto producer = new_producer();
  append(*producer, 10);
  turn_until_durable(Offset(10));
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  ASSERT_TRUE(shm::load_mark(entry(), position, offset));
  append(*producer, 50);
  turn_until_durable(Offset(60));
  kill_keeper();
  forget_sync(position, offset);
  disk.fail(testing::Op::sync_file, ".log", EIO);
  open_keeper();
  ASSERT_TRUE(failed());
  EXPECT_EQ(entry().failure_code.load(), static_cast<std::uint32_t>(Code::storage_failed));
  kill_keeper();
  open_keeper();
  ASSERT_FALSE(failed());
  EXPECT_EQ(entry().durable_offset.load(), 10u);
  turn_until_durable(Offset(60));
}

// It has no ring to look at.
TEST_F(DiskPartition, OneThatCannotBeOpenedKeepsNeitherWhoStandsStillNorTheDead) {
  open_keeper();
  HandClaim still(open_ring(), new_slot(), 128);
  std::optional<HandClaim> dying(std::in_place, open_ring(), new_slot(), 128);
  const std::uint32_t dead = dying->slot().index();
  kill_keeper();
  open_ring().header().magic ^= 1;
  open_keeper();
  ASSERT_TRUE(failed());
  keeper_->on_slot_stuck(still.slot().index(), control_.slot(still.slot().index()).op.load());
  EXPECT_TRUE(still.slot().given_up_done());
  dying.reset();
  turn();
  EXPECT_EQ(monitor_.state(dead), shm::SlotState::free);
  still.finish();
}

TEST_F(DiskPartition, OneThatFailsOrIsDeletedAnswersWhoWasGivenUp) {
  for (const bool fails : {true, false}) {
    SCOPED_TRACE(fails ? "fails" : "is deleted");
    entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
    open_keeper();
    ASSERT_FALSE(failed());
    HandClaim still(open_ring(), new_slot(), 128);
    keeper_->on_slot_stuck(still.slot().index(), control_.slot(still.slot().index()).op.load());
    ASSERT_FALSE(still.slot().given_up_done());
    if (fails) {
      format::state_word(open_ring().at(open_ring().first_position()))
          .store(format::committed_word(7, format::FrameType::data, 0));
      turn_until([&] { return failed(); });
    } else {
      keeper_->remove();
    }
    EXPECT_TRUE(still.slot().given_up_done());
    still.finish();
    kill_keeper();
    std::filesystem::remove(ring_path(dir_.path(), "topic", PartitionId(0)));
  }
}

TEST_F(DiskPartition, RemovedTellsEverybody) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  append(*producer, 3);
  keeper_->remove();
  EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::closed);
  std::array<Record, 8> records;
  auto polled = reader->poll(records);
  if (polled) polled = reader->poll(records);  // the first may still give what was there
  ASSERT_FALSE(polled);
  EXPECT_EQ(polled.error().code, Code::closed);
  EXPECT_FALSE(std::filesystem::exists(ring_path(dir_.path(), "topic", PartitionId(0))));
}

// --- Retiring ------------------------------------------------------------------------------------

TEST_F(DiskPartition, AReaderThatHoldsSpaceKeepsItsRecordsAndTheOthersGetANewRing) {
  config_.reader_pin_ms = 1;
  open_keeper();
  auto producer = new_producer();
  append(*producer, 20);
  auto reader = new_reader();
  std::array<Record, 5> held;
  ASSERT_EQ(*reader->poll(held), 5u);
  append_while_turning(*producer, 3'000);
  EXPECT_GT(generation(), 1u);
  turn_until_durable(Offset(3'020));
  EXPECT_GE(entry().retired_rings.load(), 1u);
  for (std::uint64_t i = 0; i < held.size(); ++i) EXPECT_EQ(held[i].value, value_of(i));
  expect_rest(*reader, Offset(5));
}

// lag() and end_offset() look for the newest ring. That must not lose the one the reader is in.
TEST_F(DiskPartition, AskingForTheEndInTheMiddleOfARetiredRingLosesNothing) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 20);
  auto reader = new_reader();
  std::array<Record, 5> held;
  ASSERT_EQ(*reader->poll(held), 5u);
  keeper_->on_slot_stuck(producer->slot.index(), 0);  // the reason does not matter
  turn_until([&] { return generation() == 2; });
  append(*producer, 20);
  auto end = reader->log_end();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->offset, Offset(40));
  EXPECT_EQ(held[4].value, value_of(4));
  expect_rest(*reader, Offset(5));
}

TEST_F(DiskPartition, AClaimThatStandsStillIsGivenUpAndItsOwnerHearsOfIt) {
  open_keeper();
  auto producer = new_producer();
  auto sleeper = new_producer();
  append(*producer, 5);
  auto claim = (*sleeper)->claim({}, 100);
  ASSERT_TRUE(claim);
  append(*producer, 5);
  keeper_->on_slot_stuck(sleeper->slot.index(), control_.slot(sleeper->slot.index()).op.load());
  turn_until([&] { return sleeper->slot.given_up_done(); });
  EXPECT_EQ(generation(), 2u);
  std::memset(claim->value, 0xee, 100);
  EXPECT_EQ((*sleeper)->commit(*claim).error(), SendError::claim_expired);
  append(*producer, 5);
  append(*sleeper, 5);
  turn_until_durable(Offset(21));
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

// The next one knows by the ring alone that somebody may still write there.
TEST_F(DiskPartition, AKeeperMayDieBeforeItHasFencedTheRingOfAClaimThatItGaveUp) {
  open_keeper();
  auto producer = new_producer();
  auto sleeper = new_producer(std::chrono::milliseconds(20));
  append(*producer, 5);
  auto claim = (*sleeper)->claim({}, 100);
  ASSERT_TRUE(claim);
  append(*producer, 5);
  keeper_->on_slot_stuck(sleeper->slot.index(), control_.slot(sleeper->slot.index()).op.load());
  kill_keeper();
  EXPECT_EQ((*sleeper)->commit(*claim).error(), SendError::timed_out);  // nobody has said what became of it
  open_keeper();
  for (int i = 0; i < 1'000 && generation() == 1; ++i)
    turn(), std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(generation(), 2u);
  append_while_turning(*producer, 100);
}

// He is as still as before when the next rings need repair, and space.
TEST_F(DiskPartition, AClaimerThatStandsStillForEverHoldsUpNothing) {
  open_keeper();
  auto producer = new_producer();
  const Ring first = open_ring();
  HandClaim still(first, new_slot(), 128);
  append(*producer, 5);
  keeper_->on_slot_stuck(still.slot().index(), control_.slot(still.slot().index()).op.load());
  turn_until([&] { return still.slot().given_up_done(); });
  for (int round = 0; round < 3; ++round) {
    {
      HandClaim(open_ring(), new_slot(), 64);
    }
    append_while_turning(*producer, 3'000);
    const std::uint64_t before = generation();
    keeper_->on_slot_stuck(producer->slot.index(), 0);
    turn_until([&] { return generation() > before; });
  }
  turn_until_durable(Offset(9'009));
  EXPECT_EQ(entry().repaired_records.load(), 4u);
  still.finish();
}

// The owner stood still between his claim and its header, and writes that over the aborted frame while a
// reader is not there yet.
TEST_F(DiskPartition, AHeaderThatComesTooLateMisleadsNoReaderOfTheRing) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  append(*producer, 5);
  std::array<Record, 3> held;
  ASSERT_EQ(*reader->poll(held), 3u);
  const Ring old = open_ring();
  HandClaim late(old, new_slot(), 128);
  append(*producer, 5);
  keeper_->on_slot_stuck(late.slot().index(), control_.slot(late.slot().index()).op.load());
  turn_until([&] { return late.slot().given_up_done(); });
  late.write_header(50);
  EXPECT_FALSE(late.commit());
  late.finish();
  append(*producer, 5);
  expect_rest(*reader, Offset(3));
  // And the files have it right.
  kill_keeper();
  std::filesystem::remove(ring_path(dir_.path(), "topic", PartitionId(0)));
  open_keeper();
  EXPECT_FALSE(failed());
}

TEST_F(DiskPartition, ManyRetirementsInARowLoseNothing) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  for (int round = 0; round < 8; ++round) {
    append(*producer, 30);
    const std::uint64_t before = generation();
    const std::uint64_t op = control_.slot(producer->slot.index()).op.load();
    keeper_->on_slot_stuck(producer->slot.index(), op);
    turn_until([&] { return generation() > before; });
  }
  append(*producer, 30);
  expect_rest(*reader, Offset(0));
  turn_until_durable(Offset(270));
  turn_until([&] { return retired_rings(dir_.path(), "topic", PartitionId(0)).value().empty(); });
}

// --- A keeper's death ----------------------------------------------------------------------------

TEST_F(DiskPartition, TheNextKeeperFlushesWhatTheLastLeftInTheRing) {
  for (int round = 0; round < 5; ++round) {
    open_keeper();
    ASSERT_FALSE(failed());
    auto producer = new_producer();
    append(*producer, 100);
    if (round % 2 == 0) turn_until_durable(Offset(next_number_));
    append(*producer, 100);
    turn();
    kill_keeper();
  }
  open_keeper();
  EXPECT_EQ(generation(), 1u);
  turn_until_durable(Offset(1'000));
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

// The keeper dies behind each step of a replacement. Claims go on failing at the fence meanwhile.
class DeathInReplacement : public PartitionScene,
                           public ::testing::WithParamInterface<std::tuple<int, bool>> {
 protected:
  enum Step { fenced_one, fenced, linked, sealed, padded, replaced, last };
};

TEST_P(DeathInReplacement, LosesNothing) {
  const auto [step, memory] = GetParam();
  if (memory) config_.storage = Storage::memory;
  open_keeper();
  auto producer = new_producer();
  auto late = new_producer();
  append(*producer, 20);
  append(*late, 1);
  auto reader = new_reader();
  std::array<Record, 5> held;
  ASSERT_EQ(*reader->poll(held), 5u);
  if (!memory) turn_until_durable(Offset(10));
  kill_keeper();

  const Ring old = open_ring();
  if (step == fenced_one) old.line(0).tail.fetch_or(kFence);
  if (step >= fenced) old.fence();
  const auto seal = old.seal_point();
  const auto path = ring_path(dir_.path(), "topic", PartitionId(0));
  if (step >= linked) {
    ASSERT_TRUE(shm::link_path(path, retired_ring_path(dir_.path(), "topic", PartitionId(0), 1)));
  }
  if (step >= sealed) old.finish_seal(seal.position, seal.offset);
  if (step == sealed) std::memset(old.at(seal.position), 0, 32);  // died before the pad
  if (step >= replaced) {
    auto next = Ring::create(path, {.log_id = kTestLogId,
                                    .topic_id = ref_.topic_id,
                                    .term_bytes = kTestTerm,
                                    .term_count = 4,
                                    .generation = 2});
    next->set_base(Position(old.header().next_position.load()), seal.offset, 0);
    ASSERT_TRUE(next->publish_replacing());
  }
  // Nobody keeps the partition now. These fail at the fence, and move the tail behind it.
  if (step >= fenced) {
    for (int i = 0; i < 3; ++i) HandClaim(old, new_slot(), kTestTerm / 8).finish();
  }

  open_keeper();
  ASSERT_FALSE(failed());
  append_while_turning(*producer, 20);
  EXPECT_EQ(generation(), 2u);
  append(*late, 20);
  append(*producer, 20);
  if (!memory)
    turn_until([&] {
      return failed() || entry().durable_position.load() >= open_ring().claimed_end().position.value();
    });
  ASSERT_FALSE(failed());
  expect_rest(*reader, Offset(5));
  auto from_start = new_reader();
  expect_rest(*from_start, from_start->offset());
}

INSTANTIATE_TEST_SUITE_P(AtEveryStep, DeathInReplacement,
                         ::testing::Combine(::testing::Range(0, 6), ::testing::Bool()));

// Holes in the new ring do not wait for those who are slow in the old one.
TEST_F(DiskPartition, HolesInEveryRingAreRepairedAtOnce) {
  open_keeper();
  auto producer = new_producer();
  auto slow = new_producer();
  append(*producer, 5);
  auto claim = (*slow)->claim({}, 100);
  ASSERT_TRUE(claim);
  keeper_->on_slot_stuck(producer->slot.index(), 0);
  turn_until([&] { return generation() == 2; });
  {
    HandClaim(open_ring(), new_slot(), 64);
  }
  append(*producer, 5);
  turn_until([&] { return entry().repaired_records.load() == 1; });
  EXPECT_EQ(frames_of(open_ring(), 0).size(), 7u);  // a pad where the ring before ended, and a hole
  ASSERT_TRUE((*slow)->commit(*claim));
  turn_until_durable(Offset(12));
}

}  // namespace
}  // namespace ringtail::log
