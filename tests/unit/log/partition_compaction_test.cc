// Compaction as the keeper has it done, beside producers and readers.
#include <gmock/gmock.h>

#include <map>
#include <random>

#include "log/verify.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::HasSubstr;

class CompactedPartition : public PartitionScene {
 protected:
  CompactedPartition() {
    config_.cleanup_policy = CleanupPolicy::compact;
    config_.min_cleanable_dirty_billionths = 0;
  }

  void append_keyed(Producer& producer, unsigned key, std::size_t bytes) {
    const std::string name = "k" + std::to_string(key);
    const std::string value = std::to_string(next_++) + std::string(bytes, 'v');
    const auto sent = producer->append({.key = name, .value = value});
    ASSERT_TRUE(sent) << static_cast<int>(sent.error());
    last_[name] = {sent->offset, value};
    end_ = sent->offset + 1;
  }
  // On a thread of its own, while the keeper makes its rounds.
  void append_rounds(Producer& producer, int count, unsigned keys, std::mt19937& random) {
    std::atomic<bool> done{false};
    std::thread appending([&] {
      for (int i = 0; i < count; ++i)
        append_keyed(producer, static_cast<unsigned>(random() % keys), random() % 7'000);
      done.store(true);
    });
    turn_until([&] { return done.load(); });
    appending.join();
    turn_until_durable(end_);
  }

  using Latest = std::map<std::string, std::pair<Offset, std::string>>;
  // A reader that notes the last it saw of each key.
  struct Follower {
    std::unique_ptr<PartitionReader> reader;
    Latest seen;
    std::uint64_t records = 0;
    Offset last{0};
  };
  // Some records; false when there are none.
  bool follow(Follower& follower, std::size_t count) {
    std::vector<Record> records(count);
    auto polled = follower.reader->poll(records);
    EXPECT_TRUE(polled) << polled.error().message;
    if (!polled || *polled == 0) return false;
    for (const Record& record : std::span(records).first(*polled)) {
      EXPECT_TRUE(follower.records == 0 || record.offset > follower.last) << "a record came twice";
      follower.seen[std::string(record.key)] = {record.offset, std::string(record.value)};
      follower.last = record.offset;
      ++follower.records;
    }
    return true;
  }
  void follow_to_the_end(Follower& follower) {
    while (follower.reader->offset() < end_ && !HasFailure()) {
      if (!follow(follower, 64)) turn();
    }
    EXPECT_TRUE(follower.seen == last_) << "not the last of each key";
  }

  std::size_t segment_count() const { return list_segments(ref_.disk_dir)->logs.size(); }
  void expect_sound() {
    const auto verified = verify_partition(ref_.disk_dir);
    ASSERT_TRUE(verified);
    for (const VerifyFault& fault : verified->faults) ADD_FAILURE() << fault.path << ": " << fault.message;
  }

  std::uint64_t next_ = 0;
  Offset end_{0};
  Latest last_;
};

TEST_F(CompactedPartition, IsCompactedWhileItIsWrittenTo) {
  open_keeper();
  auto producer = new_producer();
  std::mt19937 random(1);
  append_rounds(*producer, 1'500, 20, random);
  const std::uint64_t before = entry().disk_bytes.load();
  turn_until([&] { return entry().disk_bytes.load() < before / 2; });
  Follower follower{.reader = new_reader(), .seen = {}};
  follow_to_the_end(follower);
  EXPECT_LT(follower.records, 1'000u);
  expect_sound();
}

TEST_F(CompactedPartition, AnIdleSegmentWithRecordsIsClosedByAge) {
  config_.segment_ms = 30;
  open_keeper();
  auto producer = new_producer();
  for (unsigned i = 0; i < 100; ++i) append_keyed(*producer, i % 4, 100);
  turn_until([&] { return segment_count() == 2; });
  turn_until([&] { return verify_partition(ref_.disk_dir)->total().records == 4; });
  EXPECT_EQ(segment_count(), 2u) << "an empty segment is not closed";
  kill_keeper();
  open_keeper();
  for (unsigned i = 0; i < 100; ++i) append_keyed(*producer, i % 4, 100);
  turn_until_durable(end_);
  Follower follower{.reader = new_reader(), .seen = {}};
  follow_to_the_end(follower);
  expect_sound();
}

TEST_F(CompactedPartition, APositionInACompactedFileIsNotLookedForInTheRing) {
  config_.segment_ms = 100;
  open_keeper();
  auto producer = new_producer();
  for (unsigned i = 0; i < 200; ++i) append_keyed(*producer, i % 180, 1'000);
  turn_until_durable(end_);
  turn_until([&] { return segment_count() == 2; });
  turn_until([&] { return verify_partition(ref_.disk_dir)->total().records == 180; });
  for (unsigned i = 200; i < 205; ++i) append_keyed(*producer, i, 1'000);
  turn_until_durable(end_);
  // The ring has the end of what was compacted, at the positions of before.
  const Position head(open_ring().header().head.load());
  ASSERT_GT(head, Position(0));
  ASSERT_LT(head, Position(160 << 10));
  Follower follower{.reader = new_reader(), .seen = {}};
  follow_to_the_end(follower);
  EXPECT_EQ(follower.records, 185u);
}

TEST_F(CompactedPartition, DeleteRemovesWhatIsOldOnlyWhereThePolicyHasIt) {
  config_.retention_bytes = 0;
  config_.min_cleanable_dirty_billionths = 1'000'000'000;  // never
  open_keeper();
  auto producer = new_producer();
  std::mt19937 random(2);
  append_rounds(*producer, 800, 20, random);
  const std::size_t segments = segment_count();
  ASSERT_GT(segments, 2u);
  kill_keeper();
  open_keeper();
  EXPECT_EQ(segment_count(), segments);
  kill_keeper();
  config_.cleanup_policy = CleanupPolicy::compact_and_remove;
  open_keeper();
  EXPECT_EQ(segment_count(), 1u);
}

TEST_F(CompactedPartition, ARecordWithoutKeyIsRefused) {
  open_keeper();
  auto producer = new_producer();
  EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::invalid_record);
  EXPECT_EQ((*producer)->append({.value = ""}).error(), SendError::invalid_record);
  EXPECT_THAT((*producer)->describe(SendError::invalid_record).message, HasSubstr("needs a key"));
  EXPECT_EQ((*producer)->claim({}, 10).error(), SendError::invalid_record);
  const std::vector<ProducerRecord> batch{{.key = "k", .value = "v"}, {.value = "v"}};
  EXPECT_EQ((*producer)->append_batch(batch).error(), SendError::invalid_record);
  EXPECT_TRUE((*producer)->append({.key = "", .value = "an empty key is a key"}));
  EXPECT_TRUE((*producer)->append({.key = "k"}));
  const std::string large(kTestTerm / 8, 'x');
  EXPECT_EQ((*producer)->append({.key = "k", .value = large}).error(), SendError::record_too_large);

  config_.cleanup_policy = CleanupPolicy::remove;
  keeper_->update_config(config_);
  EXPECT_TRUE((*producer)->append({.value = "v"}));
}

// Followers at different paces, who fall back from the ring to files that are compacted meanwhile; keepers
// that die and come back.
TEST_F(CompactedPartition, FollowersSeeTheLatestOfEachKeyWhateverIsCompactedMeanwhile) {
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  config_.segment_ms = 40;  // so that files are compacted of which the ring still has a part
  open_keeper();
  auto producer = new_producer();
  std::vector<Follower> followers(4);
  for (Follower& follower : followers) follower.reader = new_reader();
  for (int round = 0; round < 8; ++round) {
    append_rounds(*producer, 300, random() % 2 == 0 ? 30 : 1'000, random);
    const std::int64_t until_ns = monotonic_ns() + 400'000'000;
    while (monotonic_ns() < until_ns && !HasFailure()) {
      turn();
      for (std::size_t i = 0; i < followers.size(); ++i)
        if (random() % (i * i * 20 + 1) == 0) follow(followers[i], 1 + random() % 20);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    if (random() % 3 == 0) {
      kill_keeper();
      open_keeper();
    }
    if (HasFailure()) return;
  }
  for (Follower& follower : followers) follow_to_the_end(follower);
  Follower late{.reader = new_reader(), .seen = {}};
  follow_to_the_end(late);
  EXPECT_LT(late.records, 2'400u);
  expect_sound();
}

}  // namespace
}  // namespace ringtail::log
