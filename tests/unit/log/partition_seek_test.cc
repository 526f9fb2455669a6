// A reader that goes to an offset or a time, wherever that is.
#include <gmock/gmock.h>

#include "log/partition_reader.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::HasSubstr;

// Offsets with records, and those that aborted frames use up, singly and several at once.
class Seeking : public PartitionScene {
 protected:
  void fill(Producer& producer) {
    for (int i = 0; i < 30; ++i) {
      append_while_turning(producer, static_cast<std::uint64_t>(i % 4));
      {
        HandClaim(open_ring(), new_slot(), static_cast<std::uint32_t>(64 + 8 * i),
                  static_cast<std::uint32_t>(1 + i % 3));
      }
      if (i % 5 == 0) {
        HandClaim(open_ring(), new_slot(), 512, 2);
      }
    }
    append_while_turning(producer, 1);
    const std::uint64_t end = open_ring().claimed_end().offset.value();
    turn_until([&] { return PartitionReaderEnd() >= end; });
  }
  // The offset up to which everything is resolved, seen by a reader.
  std::uint64_t PartitionReaderEnd() {
    auto reader = new_reader();
    std::vector<Record> records(1'000);
    while (*reader->poll(records) > 0) {
    }
    return reader->offset().value();
  }
  void expect_seek(PartitionReader& reader, Offset offset) {
    auto sought = reader.seek(offset);
    ASSERT_TRUE(sought) << offset.value() << ": " << sought.error().message;
    ASSERT_EQ(reader.offset(), offset);
    expect_rest(reader, offset);
  }
  void expect_seek_to_time(PartitionReader& reader, std::int64_t time) {
    auto sought = reader.seek_to_time(time);
    ASSERT_TRUE(sought) << time << ": " << sought.error().message;
    const auto wanted = std::find_if(numbers_.begin(), numbers_.end(),
                                     [&](const auto& n) { return time_of(n.second) >= time; });
    expect_rest(reader, wanted == numbers_.end() ? Offset(~std::uint64_t{0}) : wanted->first);
  }
  void expect_all_seeks() {
    auto reader = new_reader();
    const Offset end = reader->log_end()->offset;
    for (Offset offset = reader->log_start(); offset <= end; ++offset) expect_seek(*reader, offset);
    EXPECT_EQ(reader->seek(end + 1).error().code, Code::offset_out_of_range);
    for (std::int64_t time = time_of(0) - 5; time <= time_of(next_number_); time += 5)
      expect_seek_to_time(*reader, time);
  }
};

TEST_F(Seeking, ToEveryOffsetAndTimeOfARing) {
  open_keeper();
  auto producer = new_producer();
  fill(*producer);
  expect_all_seeks();
}

TEST_F(Seeking, ToEveryOffsetAndTimeOfAMemoryTopic) {
  config_.storage = Storage::memory;
  open_keeper();
  auto producer = new_producer();
  fill(*producer);
  expect_all_seeks();
}

TEST_F(Seeking, ToEveryOffsetAndTimeOfARetiredRingAndItsSuccessor) {
  config_.storage = Storage::memory;
  open_keeper();
  auto holder = new_reader();
  auto producer = new_producer();
  fill(*producer);
  keeper_->on_slot_stuck(producer->slot.index(), 0);
  turn_until([&] { return generation() == 2; });
  append_while_turning(*producer, 5);
  ASSERT_EQ(retired_rings(dir_.path(), "topic", PartitionId(0)).value().size(), 1u);
  expect_all_seeks();
}

TEST_F(Seeking, ToEveryOffsetAndTimeOfFiles) {
  open_keeper();
  auto producer = new_producer();
  fill(*producer);
  const Offset filled = open_ring().claimed_end().offset;
  const std::int64_t last = time_of(next_number_);
  append_while_turning(*producer, 3'000);
  turn_until_durable(filled + 3'000);
  auto reader = new_reader();
  std::array<Record, 1> first;
  std::vector<Record> records(1);
  // The whole rest is long; the first record behind each place tells as much.
  for (Offset offset{0}; offset <= filled; ++offset) {
    ASSERT_TRUE(reader->seek(offset));
    ASSERT_EQ(*reader->poll(first), 1u);
    const auto wanted = std::lower_bound(numbers_.begin(), numbers_.end(), offset,
                                         [](const auto& item, Offset o) { return item.first < o; });
    ASSERT_EQ(first[0].offset, wanted->first);
    ASSERT_EQ(first[0].value, value_of(wanted->second));
  }
  for (std::int64_t time = time_of(0) - 5; time <= last; time += 5) {
    ASSERT_TRUE(reader->seek_to_time(time));
    ASSERT_EQ(*reader->poll(first), 1u);
    ASSERT_GE(first[0].timestamp_ns, time);
    ASSERT_LT(first[0].timestamp_ns - time, 10);
  }
}

// The keeper deletes files, and only then says so.
TEST_F(Seeking, ToTheStartGoesToTheFirstFileThoughAnEarlierStartIsTold) {
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 15'000);
  turn_until_durable(Offset(15'000));
  const std::vector<Offset> logs = list_segments(ref_.disk_dir).value().logs;
  ASSERT_GT(logs.size(), 1u);
  ASSERT_TRUE(remove_segment(*backend_, segment_path(ref_.disk_dir, format::FileKind::log, logs[0])));
  ASSERT_EQ(entry().log_start_offset.load(), 0u);
  auto reader = new_reader();
  EXPECT_EQ(reader->offset(), logs[1]);
  expect_rest(*reader, logs[1]);
  const Status sought = reader->seek_to_start();
  ASSERT_TRUE(sought) << sought.error().message;
  EXPECT_EQ(reader->offset(), logs[1]);
  expect_rest(*reader, logs[1]);
  // As of a follower that is told of no record yet.
  shm::set_high_watermark(entry(), 0, 0);
  const Status refused = reader->seek_to_start();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::offset_not_available);
  EXPECT_TRUE(PartitionReader::open(ref_, 401, 256 << 10));
}

TEST_F(Seeking, ToTheEndIsBehindTheLastRecord) {
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 100);
  auto reader = new_reader();
  ASSERT_TRUE(reader->seek_to_end());
  EXPECT_EQ(reader->offset(), Offset(100));
  append_while_turning(*producer, 5);
  expect_rest(*reader, Offset(100));
}

TEST_F(Seeking, ToATimeBehindTheLastRecordIsTheEnd) {
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 100);
  auto reader = new_reader();
  ASSERT_TRUE(reader->seek_to_time(time_of(1'000'000)));
  EXPECT_EQ(reader->offset(), Offset(100));
  append_while_turning(*producer, 5);
  expect_rest(*reader, Offset(100));
}

// Another process has written over the start that is told.
TEST_F(Seeking, ToATimeIsNoEndlessWayThoughTheStartIsBehindTheEnd) {
  config_.storage = Storage::memory;
  open_keeper();
  auto producer = new_producer();
  const Stamp stamp{.producer_id = 7, .producer_epoch = 1};
  (*producer)->set_stamp(&stamp);
  append(*producer, 100);
  auto reader = new_reader();
  std::uint64_t passed = 0;
  reader->set_on_stamped([&](const auto&, const auto&) { ++passed; });
  entry().log_start_offset.store(std::uint64_t{1} << 63);
  const Status sought = reader->seek_to_time(time_of(99));
  ASSERT_FALSE(sought);
  EXPECT_EQ(sought.error().code, Code::offset_out_of_range);
  EXPECT_GE(passed, 100u);
  EXPECT_LE(passed, 1'000u);
}

TEST_F(Seeking, OutsideTheLogNamesItsLimits) {
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 3);
  auto reader = new_reader();
  auto sought = reader->seek(Offset(4));
  ASSERT_FALSE(sought);
  EXPECT_EQ(sought.error().code, Code::offset_out_of_range);
  EXPECT_THAT(sought.error().message, HasSubstr("offset 4 is outside the log, which has 0 to 3"));
}

}  // namespace
}  // namespace ringtail::log
