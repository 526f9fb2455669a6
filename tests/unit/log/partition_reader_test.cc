#include "log/partition_reader.h"

#include <gmock/gmock.h>

#include "shm/futex.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::HasSubstr;

class DiskReader : public PartitionScene {};

class MemoryReader : public PartitionScene {
 protected:
  MemoryReader() { config_.storage = Storage::memory; }
};

// --- Order ---------------------------------------------------------------------------------------

TEST_F(DiskReader, GoesFromFilesToRingAndFallsBackWithoutGapOrDuplicate) {
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 3'000);  // several laps: the start is in files only
  auto reader = new_reader();
  EXPECT_EQ(reader->offset(), Offset(0));
  std::vector<Record> records(50);
  std::uint64_t next = 0;
  for (int round = 0; round < 8; ++round) {
    // Reads a while, then stands still while the ring goes on, so that it falls back to the files; the
    // even rounds let it catch up before.
    for (int polls = 0; polls < (round % 2 == 0 ? 1'000 : 3); ++polls) {
      auto polled = reader->poll(records);
      ASSERT_TRUE(polled) << polled.error().message;
      for (const Record& record : std::span(records).first(*polled)) {
        ASSERT_EQ(record.offset, Offset(next));
        ASSERT_EQ(record.value, value_of(next));
        ++next;
      }
    }
    if (round % 2 == 0) {
      EXPECT_EQ(next, next_number_);
    }
    append_while_turning(*producer, 1'500);
  }
  expect_rest(*reader, Offset(next));
  EXPECT_EQ(reader->missed(), 0u);
}

TEST_F(DiskReader, FollowsTheEndRecordByRecord) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  std::array<Record, 4> records;
  EXPECT_EQ(*reader->poll(records), 0u);
  EXPECT_FALSE(reader->has_data());
  for (std::uint64_t i = 0; i < 2'000; ++i) {
    append_while_turning(*producer, 1);
    EXPECT_TRUE(reader->has_data());
    ASSERT_EQ(*reader->poll(records), 1u);
    ASSERT_EQ(records[0].value, value_of(i));
    ASSERT_EQ(*reader->poll(records), 0u);
    ASSERT_EQ(reader->offset(), Offset(i + 1));
  }
}

TEST_F(MemoryReader, AtADistanceLeavesWhatWasClaimedLastForTheNextPoll) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  append_while_turning(*producer, 60);
  const Ring ring = open_ring();
  std::vector<Record> records(100);
  ASSERT_GT(*reader->poll(records, true), 0u);
  const Position tail(tail_bytes(ring.line(0).tail.load()));
  EXPECT_LE(reader->position() + 1024, tail);
  EXPECT_GT(reader->position() + 1024 + 200, tail) << "and no more than that";
  const std::uint64_t read = reader->offset().value();
  // When there is nothing else, it gets these.
  EXPECT_EQ(*reader->poll(records, true), 60 - read);
  EXPECT_EQ(reader->offset(), Offset(60));
  EXPECT_EQ(*reader->poll(records, true), 0u);
}

TEST_F(MemoryReader, AtADistanceMissesNothingAndStandsNowhereFromTermToTerm) {
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  std::mt19937_64 random(shm::print_seed());
  std::vector<Record> records(50);
  std::uint64_t next = 0;
  while (next < 20'000) {
    append_while_turning(*producer, 1 + random() % 60);
    for (std::size_t polled = 1; polled > 0;) {
      auto got = reader->poll(records, random() % 4 != 0);
      ASSERT_TRUE(got) << got.error().message;
      polled = *got;
      for (const Record& record : std::span(records).first(polled)) {
        ASSERT_EQ(record.offset, Offset(next));
        ASSERT_EQ(record.value, value_of(next));
        ++next;
      }
    }
    ASSERT_EQ(next, next_number_);
  }
}

TEST_F(DiskReader, GivesRecordsOfEveryKindFromRingAndFilesAlike) {
  config_.ring_terms = 8;
  open_keeper();
  auto producer = new_producer();
  const std::string most(kTestTerm / 8, 'M');
  const std::array<Header, 2> headers{Header{"h", "1"}, Header{"null", {}}};
  ASSERT_TRUE((*producer)->append({.value = most}));
  ASSERT_TRUE((*producer)->append({}));
  ASSERT_TRUE((*producer)->append({.key = "", .value = ""}));
  ASSERT_TRUE((*producer)->append({.key = "k", .value = "v", .headers = headers}));
  const std::vector<ProducerRecord> batch{{.value = "b0"}, {.key = "b", .value = {}}, {.value = "b2"}};
  ASSERT_TRUE((*producer)->append_batch(batch));
  for (const bool from_files : {false, true}) {
    SCOPED_TRACE(from_files);
    auto reader = new_reader();
    std::vector<Record> records(10);
    ASSERT_GE(*reader->poll(records), 7u);
    EXPECT_EQ(records[0].value, most);
    EXPECT_TRUE(records[1].is_tombstone() && !records[1].has_key());
    EXPECT_TRUE(records[2].has_key() && !records[2].is_tombstone() && records[2].value.empty());
    EXPECT_EQ(records[3].key, "k");
    EXPECT_EQ(records[3].headers.begin()->key, "h");
    EXPECT_EQ(std::next(records[3].headers.begin())->value.data(), nullptr);
    EXPECT_EQ(records[4].value, "b0");
    EXPECT_TRUE(records[5].is_tombstone());
    EXPECT_EQ(records[5].key, "b");
    EXPECT_EQ(records[6].offset, Offset(6));
    EXPECT_EQ(*records[6].source, (TopicPartition{"topic", PartitionId(0)}));
    if (!from_files) {
      reader.reset();
      append_while_turning(*producer, 4'000);
      turn_until_durable(Offset(4'007));
    }
  }
}

// --- Pins ----------------------------------------------------------------------------------------

TEST_F(MemoryReader, TheHeadMakesAReaderLeaveWhatIsWanted) {
  config_.on_full = OnFull::overwrite;
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 10);
  auto reader = new_reader();
  std::array<Record, 4> records;
  ASSERT_EQ(*reader->poll(records), 4u);
  const Ring ring = open_ring();
  while (ring.header().active_term.load() < 2) append_while_turning(*producer, 1);
  ring.header().head.store(kTestTerm);  // as the keeper does before it looks at the pins
  const Offset second(ring.line(1).base_offset.load());
  ASSERT_EQ(*reader->poll(records), 4u);
  EXPECT_EQ(records[0].offset, second);
  EXPECT_EQ(reader->missed(), second.value() - 4);
}

// What poll has handed out must not change before the next poll, whatever producers and keeper do.
TEST_F(MemoryReader, RecordsInHandNeverChangeWhileTheRingIsOverwritten) {
  config_.on_full = OnFull::overwrite;
  config_.reader_pin_ms = 1;
  open_keeper();
  const std::uint64_t seed = shm::print_seed();
  std::atomic<bool> done{false};
  std::thread appending([&] {
    auto producer = new_producer();
    std::string value(1'000, ' ');
    for (std::uint64_t i = 0; i < 40'000; ++i) {
      std::memset(value.data(), static_cast<int>(i % 251), value.size());
      std::memcpy(value.data(), &i, sizeof i);
      ASSERT_TRUE((*producer)->append({.value = value}));
    }
    done.store(true);
  });
  std::thread reading([&] {
    std::mt19937_64 random(seed);
    auto reader = new_reader();
    std::vector<Record> records(16);
    std::uint64_t next = 0;
    const auto check = [&](std::size_t count) {
      for (const Record& record : std::span(records).first(count)) {
        std::uint64_t number;
        std::memcpy(&number, record.value.data(), sizeof number);
        ASSERT_EQ(record.value.size(), 1'000u);
        ASSERT_EQ(record.offset, Offset(number));
        for (std::size_t i = sizeof number; i < record.value.size(); ++i)
          ASSERT_EQ(record.value[i], static_cast<char>(number % 251));
      }
    };
    while (!done.load()) {
      auto polled = reader->poll(records);
      ASSERT_TRUE(polled) << polled.error().message;
      ASSERT_NO_FATAL_FAILURE(check(*polled));
      if (random() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      ASSERT_NO_FATAL_FAILURE(check(*polled)) << "records changed under their reader";
      if (*polled == 0) continue;
      ASSERT_GE(records[0].offset, Offset(next));
      next = records[*polled - 1].offset.value() + 1;
    }
  });
  turn_until([&] { return done.load(); });
  appending.join();
  for (int i = 0; i < 5; ++i) turn();
  reading.join();
}

TEST_F(DiskReader, RecordsInHandNeverChangeThoughTheRingGoesOn) {
  config_.reader_pin_ms = 1;
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  std::vector<Record> records(32);
  std::uint64_t next = 0;
  for (int round = 0; round < 12; ++round) {
    append_while_turning(*producer, 500);
    const std::size_t polled = reader->poll(records).value();
    append_while_turning(*producer, 1'000);
    for (const Record& record : std::span(records).first(polled)) {
      ASSERT_EQ(record.offset, Offset(next));
      ASSERT_EQ(record.value, value_of(next++));
    }
  }
  EXPECT_GT(entry().retired_rings.load(), 0u);
  expect_rest(*reader, Offset(next));
}

// --- Waiting -------------------------------------------------------------------------------------

// The waiter's flag against the commit, as Consumer waits: nobody sleeps through a record. There is no
// deadline to help: a lost wake-up hangs the test.
TEST_F(MemoryReader, WhoSeeksBackHoldsTheRingFromThenOn) {
  config_.on_full = OnFull::fail;
  open_keeper();
  auto producer = new_producer();
  auto reader = new_reader();
  const Ring ring = open_ring();
  while (ring.header().active_term.load() < 2)
    ASSERT_TRUE((*producer)->append({.value = std::string(1'000, 'r')}));
  std::array<Record, 80> records;
  ASSERT_EQ(*reader->poll(records), records.size());
  ASSERT_TRUE(reader->seek(Offset(3)));
  for (int rounds = 0; rounds < 50; ++rounds) turn();
  ASSERT_EQ(*reader->poll(records), records.size());
  EXPECT_EQ(records[0].offset, Offset(3));
  EXPECT_EQ(reader->missed(), 0u);
}

// One reader has read on, but still holds what it was given; meanwhile another begins.
TEST_F(MemoryReader, WhoBeginsAtTheLogsStartMissesNothingWhileAPinDelaysTheRest) {
  config_.on_full = OnFull::fail;
  config_.reader_pin_ms = 60'000;
  open_keeper();
  auto producer = new_producer();
  auto holder = new_reader();
  const Ring ring = open_ring();
  while (ring.header().active_term.load() < 2)
    ASSERT_TRUE((*producer)->append({.value = std::string(1'000, 'r')}));
  std::array<Record, 80> held;
  ASSERT_EQ(*holder->poll(held), held.size());  // from the first term into the second
  turn_until([&] { return ring.header().head.load() > 0; });
  EXPECT_EQ(Offset(entry().log_start_offset.load()), ring.offset_at(Position(ring.header().head.load())));
  auto reader = new_reader();
  std::array<Record, 4> records;
  ASSERT_EQ(*reader->poll(records), records.size());
  EXPECT_EQ(records[0].offset, reader->log_start());
  EXPECT_EQ(reader->missed(), 0u);
}

TEST_F(MemoryReader, NobodySleepsThroughARecord) {
  config_.on_full = OnFull::overwrite;
  config_.ring_terms = 16;
  config_.term_bytes = 1 << 20;
  open_keeper();
  constexpr std::uint64_t kRounds = 50'000;
  std::atomic<std::uint64_t> read{0};
  std::atomic<bool> done{false};
  std::thread appending([&] {
    auto producer = new_producer();
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      while (read.load(std::memory_order_relaxed) < round) std::this_thread::yield();
      ASSERT_TRUE((*producer)->append({}));
    }
  });
  std::thread reading([&] {
    auto reader = new_reader();
    std::vector<Record> records(16);
    while (read.load() < kRounds) {
      const std::size_t polled = reader->poll(records).value();
      read.fetch_add(polled);
      if (polled > 0) continue;
      const std::uint32_t seq = entry().data_seq.load(std::memory_order_acquire);
      entry().hot.fetch_or(shm::kDataWaiter, std::memory_order_seq_cst);
      if (!reader->has_data()) shm::futex_wait(entry().data_seq, seq);
    }
    done.store(true);
  });
  turn_until([&] { return done.load(); });
  appending.join();
  reading.join();
}

// A sealed ring whose last claim is still open holds no data: its reader must sleep, not spin.
TEST_F(MemoryReader, ASealedRingWithAnOpenClaimIsNoData) {
  open_keeper();
  auto producer = new_producer();
  auto slow = new_producer();
  auto reader = new_reader();
  auto claim = (*slow)->claim({}, 10);
  ASSERT_TRUE(claim);
  const Ring old = open_ring();
  old.fence();
  const auto seal = old.seal_point();
  old.finish_seal(seal.position, seal.offset);
  std::array<Record, 4> records;
  EXPECT_EQ(*reader->poll(records), 0u);
  EXPECT_FALSE(reader->has_data());
  ASSERT_TRUE((*slow)->commit(*claim));
  EXPECT_TRUE(reader->has_data());
}

// --- Entries -------------------------------------------------------------------------------------

TEST_F(MemoryReader, ThereIsAnEntryForEachReaderAndAnErrorForOneTooMany) {
  open_keeper();
  std::vector<std::unique_ptr<PartitionReader>> readers;
  for (std::uint32_t i = 0; i < 3; ++i) readers.push_back(new_reader());
  EXPECT_EQ(control_.readers().size(), 3u);
  EXPECT_EQ(control_.reader(2).owner.load(), 401u);
  readers.pop_back();
  EXPECT_EQ(control_.reader(2).owner.load(), 0u);
  EXPECT_EQ(control_.reader(2).pin.load(), shm::kNotPinned);
  for (std::uint32_t i = 0; i < shm::kMaxReaders; ++i) control_.reader(i).owner.store(9);
  auto refused = PartitionReader::open(ref_, 400, 1 << 16);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::limit_exceeded);
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(MemoryReader, SaysCorruptOfFramesThatCannotBe) {
  open_keeper();
  auto producer = new_producer();
  append_while_turning(*producer, 3);
  const Ring ring = open_ring();
  const std::uint64_t good = format::load_state_word(ring.data(), std::memory_order_relaxed);
  for (const std::uint64_t word :
       {format::committed_word(8, format::FrameType::data, 0),
        format::committed_word(1 << 20, format::FrameType::data, 0),
        format::committed_word(64, format::FrameType{77}, 0), format::aborted_word(8),
        format::committed_word(40, format::FrameType::data, format::kHasHeaders)}) {
    auto reader = new_reader();
    format::state_word(ring.data()).store(word);
    std::array<Record, 4> records;
    auto polled = reader->poll(records);
    ASSERT_FALSE(polled) << word;
    EXPECT_EQ(polled.error().code, Code::corrupt);
    EXPECT_THAT(polled.error().message, HasSubstr("frame at position 0 (offset 0 expected) is damaged"));
    format::state_word(ring.data()).store(good);
  }
  auto reader = new_reader();
  std::memset(ring.data() + 8, 1, 8);
  std::array<Record, 4> records;
  EXPECT_THAT(reader->poll(records).error().message, HasSubstr("its offset is impossible"));
}

}  // namespace
}  // namespace ringtail::log
