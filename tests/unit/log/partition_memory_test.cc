// Partitions in memory alone: who holds their ring, what is repaired in it, and how long a retired one stays.
#include <gmock/gmock.h>

#include "log/partition_keeper.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

class MemoryPartition : public PartitionScene {
 protected:
  MemoryPartition() { config_.storage = Storage::memory; }
};

TEST_F(MemoryPartition, OverwritesTheOldestAndSaysHowMuchAReaderMissed) {
  config_.on_full = OnFull::overwrite;
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  append(*producer, 10);
  std::vector<Record> records(4);
  ASSERT_EQ(*reader->poll(records), 4u);
  reader->poll(std::span(records).first(0)).value();  // lets go of what it holds
  append_while_turning(*producer, 5'000);
  std::uint64_t seen = 4;
  std::uint64_t next = 4;
  for (;;) {
    auto polled = reader->poll(records);
    ASSERT_TRUE(polled) << polled.error().message;
    if (*polled == 0) break;
    for (const Record& record : std::span(records).first(*polled)) {
      ASSERT_GE(record.offset.value(), next);
      ASSERT_EQ(record.value, value_of(record.offset.value()));
      next = record.offset.value() + 1;
      ++seen;
    }
  }
  EXPECT_EQ(next, 5'010u);
  EXPECT_GT(reader->missed(), 1'000u);
  EXPECT_EQ(seen + reader->missed(), 5'010u);
  EXPECT_GT(entry().log_start_offset.load(), 0u);
}

// The keeper moves the ring's head, and only then says so.
TEST_F(MemoryPartition, AReaderBeginsAtTheRingsHeadThoughItIsToldOfAnEarlierStart) {
  config_.on_full = OnFull::overwrite;
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 5'000);
  const Offset start(entry().log_start_offset.exchange(0));
  ASSERT_GT(start, Offset(0));
  auto reader = new_reader();
  EXPECT_EQ(reader->offset(), start);
  expect_rest(*reader, start);
  EXPECT_EQ(reader->missed(), 0u);
  const Status sought = reader->seek_to_start();
  ASSERT_TRUE(sought) << sought.error().message;
  EXPECT_EQ(reader->offset(), start);
  expect_rest(*reader, start);
  EXPECT_EQ(reader->missed(), 0u);
}

TEST_F(MemoryPartition, TheSlowestReaderHoldsTheRingUnderFailAndADeadOneDoesNot) {
  config_.on_full = OnFull::fail;
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  std::vector<Record> records(64);
  std::uint64_t read = 0;
  for (int round = 0; round < 5; ++round) {
    SendResult<RecordMetadata> sent;
    while ((sent = (*producer)->append({.value = value_of(next_number_), .timestamp_ns = 0}))) {
      EXPECT_EQ(sent->offset, Offset(next_number_++));
      turn();
    }
    ASSERT_EQ(sent.error(), SendError::would_block);
    for (int i = 0; i < 10; ++i) turn();
    ASSERT_EQ((*producer)->append({.value = value_of(next_number_)}).error(), SendError::would_block);
    while (const std::size_t polled = reader->poll(records).value()) {
      for (const Record& record : std::span(records).first(polled)) ASSERT_EQ(record.offset, Offset(read++));
    }
    EXPECT_EQ(read, next_number_);
    for (int i = 0; i < 20; ++i) turn();
  }
  EXPECT_EQ(reader->missed(), 0u);
}

TEST_F(MemoryPartition, ADeadProducersHoleIsRepaired) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 5);
  {
    HandClaim(open_ring(), new_slot(), 64);
  }
  append(*producer, 5);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  EXPECT_EQ(entry().repaired_records.load(), 1u);
}

// The keeper that heard of the death could not open the partition.
TEST_F(MemoryPartition, ADeadProducersHoleIsRepairedByTheFirstKeeperThatCan) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 5);
  auto dying = std::make_unique<HandClaim>(open_ring(), new_slot(), 256, 3);
  append(*producer, 5);
  kill_keeper();
  const Ring ring = open_ring();
  ring.header().magic ^= 1;
  open_keeper();
  ASSERT_TRUE(failed());
  dying.reset();
  turn();
  kill_keeper();
  ring.header().magic ^= 1;
  entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  open_keeper();
  ASSERT_FALSE(failed());
  turn_until([&] { return entry().repaired_records.load() == 3; });
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

TEST_F(MemoryPartition, HolesAreRepairedWhileTermsAreRecycled) {
  config_.on_full = OnFull::overwrite;
  open_keeper();
  auto producer = new_producer();
  for (int round = 0; round < 60; ++round) {
    {
      HandClaim(open_ring(), new_slot(), 512, 2);
    }
    // Between inquiry and repair, terms go by.
    turn();
    append_while_turning(*producer, 400);
    ASSERT_FALSE(failed());
  }
  auto reader = new_reader();
  expect_rest(*reader, reader->offset());
}

TEST_F(MemoryPartition, ARetiredRingStaysUntilItsLastReaderHasLeftIt) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 20);
  auto reader = new_reader();
  std::array<Record, 5> held;
  ASSERT_EQ(*reader->poll(held), 5u);
  keeper_->on_slot_stuck(producer->slot.index(), 0);
  turn_until([&] { return generation() == 2; });
  append(*producer, 20);
  EXPECT_EQ(retired_rings(dir_.path(), "topic", PartitionId(0)).value().size(), 1u);
  for (int i = 0; i < 10; ++i) turn();
  expect_rest(*reader, Offset(5));
  EXPECT_EQ(reader->missed(), 0u);
  turn_until([&] { return retired_rings(dir_.path(), "topic", PartitionId(0)).value().empty(); });
}

// The owner of an open claim in a retired ring dies after the ring was looked through. It is repaired still.
TEST_F(MemoryPartition, ARetiredRingIsWatchedWhileAClaimInItIsOpen) {
  open_keeper();
  auto producer = new_producer();
  auto slow = new_producer();
  auto reader = new_reader();
  append(*producer, 5);
  auto claim = (*slow)->claim({}, 100);
  ASSERT_TRUE(claim);
  append(*producer, 5);
  keeper_->on_slot_stuck(producer->slot.index(), 0);
  turn_until([&] { return generation() == 2; });
  const std::int64_t until = monotonic_ns() + 60'000'000;
  turn_until([&] { return monotonic_ns() > until; });
  slow.reset();  // dies
  append(*producer, 5);
  expect_rest(*reader, Offset(0));
  EXPECT_EQ(entry().repaired_records.load(), 1u);
}

TEST_F(MemoryPartition, OutlivesItsKeeper) {
  open_keeper();
  auto producer = new_producer();
  append(*producer, 20);
  kill_keeper();
  append(*producer, 20);
  open_keeper();
  EXPECT_EQ(generation(), 1u);
  append(*producer, 20);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

}  // namespace
}  // namespace ringtail::log
