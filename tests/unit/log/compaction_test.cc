#include "log/compaction.h"

#include <random>

#include "base/clock.h"
#include "compaction_test_support.h"
#include "log/key_table.h"

namespace ringtail::log {
namespace {

// Three finished segments in which each of `keys` was written several times, and one that is being written.
class CompactedLogTest : public CompactionTest {
 protected:
  void write_rounds(int keys = 50) {
    open_writer(ring_);
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 2 * keys; ++i)
        append("k" + std::to_string(i % keys), std::to_string(round) + std::string(5'000, 'v'));
      fill_segment();
    }
    append("k0", "in the active segment");
    flush(ring_);
  }
};

TEST_F(CompactedLogTest, KeepsTheLatestOfEachKeyAtItsOffset) {
  write_rounds();
  const std::uint64_t before = writer_->disk_bytes();
  const Position end = ring_.end();
  compact_now();
  EXPECT_EQ(read_all(), latest());
  EXPECT_LT(read_all().size(), appended_.size());
  EXPECT_LT(writer_->disk_bytes(), before);
  EXPECT_EQ(writer_->end_position(), end);
  EXPECT_EQ(outcome_.records.before - outcome_.records.after, appended_.size() - latest().size());
  expect_sound();
}

TEST_F(CompactedLogTest, SurvivesAReopenAndGoesOn) {
  write_rounds();
  compact_now();
  reopen();
  EXPECT_TRUE(report_.findings.empty());
  EXPECT_EQ(read_all(), latest());
  EXPECT_EQ(load_first_dirty(dir()), outcome_.first_dirty);
  append("k1", "after");
  fill_segment();
  compact_now();
  EXPECT_EQ(read_all(), latest());
  expect_sound();
}

TEST_F(CompactedLogTest, WithoutItsCleanPointItGoesThroughAll) {
  write_rounds();
  compact_now();
  std::filesystem::remove(dir() / "compaction.toml");
  EXPECT_EQ(load_first_dirty(dir()), Offset(0));
  compact_now();
  EXPECT_EQ(read_all(), latest());
  expect_sound();
}

TEST_F(CompactedLogTest, EveryOffsetAndTimeIsFound) {
  write_rounds();
  compact_now();
  const auto kept = latest();
  auto reader = SegmentReader::open(dir(), kTestIdentity);
  ASSERT_TRUE(reader);
  for (std::uint64_t offset = 0; offset < appended_.size(); offset += 3) {
    ASSERT_EQ(read_all(Offset(offset)), latest_from(Offset(offset))) << offset;
    const std::int64_t time = appended_[offset].timestamp_ns;
    const auto first =
        std::ranges::find_if(kept, [&](const KeyedRecord& record) { return record.timestamp_ns >= time; });
    const auto found = (*reader)->locate_time(time, ring_.end());
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_EQ(*found, first->offset);
  }
}

TEST_F(CompactionTest, TombstonesOutliveWhatTheyDeleteAndThenGo) {
  open_writer(ring_);
  append("dead", "value");
  append("alive", "value");
  fill_segment();
  append("dead", std::nullopt);
  fill_segment();
  compact_now();
  EXPECT_EQ(read_all(), latest());
  EXPECT_NE(std::ranges::count(read_all(), std::optional<std::string>("dead"), &KeyedRecord::key), 0);

  fill_segment();
  now_ns_ += 500'000'000;  // half of delete.retention.ms
  compact_now();
  EXPECT_EQ(read_all(), latest());

  fill_segment();
  now_ns_ += 1'000'000'000;
  compact_now();
  EXPECT_EQ(read_all(), latest({"dead"}));
  EXPECT_EQ(std::ranges::count(read_all(), std::optional<std::string>("dead"), &KeyedRecord::key), 0);
  expect_sound();
}

TEST_F(CompactionTest, ATombstoneThatIsSupersededGoesAtOnce) {
  open_writer(ring_);
  append("back", std::nullopt);
  append("back", "value");
  fill_segment();
  compact_now();
  EXPECT_EQ(read_all(), latest());
  EXPECT_EQ(std::ranges::count(read_all(), std::optional<std::string>(), &KeyedRecord::value), 0);
}

TEST_F(CompactionTest, RecordsWithoutKeyStay) {
  open_writer(ring_);
  for (int i = 0; i < 10; ++i) append(std::nullopt, "nameless"), append("", "an empty key is a key");
  fill_segment();
  compact_now();
  EXPECT_EQ(read_all(), latest());
  EXPECT_EQ(std::ranges::count(read_all(), std::optional<std::string>(), &KeyedRecord::key), 10);
  EXPECT_EQ(std::ranges::count(read_all(), std::optional<std::string>(""), &KeyedRecord::key), 1);
}

TEST_F(CompactionTest, AbortedFramesBecomeGaps) {
  open_writer(ring_);
  append("a", "1");
  ring_.add_filler(format::FrameType::aborted, 4'096, 7);
  append("a", "2");
  ring_.add_filler(format::FrameType::pad, 64, 0);
  append("b", "3");
  fill_segment();
  compact_now();
  const auto verified = verify_partition(dir());
  ASSERT_TRUE(verified);
  EXPECT_TRUE(verified->faults.empty());
  EXPECT_EQ(verified->total().aborted_frames, 0u);
  EXPECT_EQ(read_all(), latest());
}

TEST_F(CompactedLogTest, SmallNeighboursBecomeOne) {
  write_rounds();
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 150; ++i) append("k" + std::to_string(i % 50), std::string(9'000, 'w'));
    fill_segment();
    now_ns_ += 10'000'000'000;
    compact_now();
    ASSERT_EQ(read_all(), latest());
    expect_sound();
  }
  EXPECT_GT(outcome_.segments.size(), 0u);
  std::uint64_t bytes = 0;
  for (std::size_t i = 1; i < outcome_.segments.size(); ++i) {
    bytes = outcome_.segments[i - 1].file_bytes + outcome_.segments[i].file_bytes;
    // But for those of the last round, which were too large before it.
    if (outcome_.segments[i].next_offset < appended_[appended_.size() - 400].offset) {
      EXPECT_GT(bytes, static_cast<std::uint64_t>(config_.segment_bytes));
    }
  }
  EXPECT_EQ(logs().size(), writer_->segments().size());
  reopen();
  EXPECT_TRUE(report_.findings.empty());
  EXPECT_EQ(read_all(), latest());
}

// Retention would delete the merged one and leave it, and then nothing would tell that its records are gone.
TEST_F(CompactedLogTest, WhatCouldNotBeDeletedWhenItWasMergedIsInTheNextRound) {
  write_rounds();
  auto job = plan();
  ASSERT_TRUE(job);
  job->merged_bytes = 1 << 30;
  backend_->fail(testing::Op::unlink, ".log", EIO);
  const CompactionOutcome outcome = compact(*backend_, *job);
  ASSERT_LT(outcome.segments.size(), job->segments.size());
  finish(*job, outcome);
  ASSERT_GT(logs().size(), writer_->segments().size());
  append("k1", "after");
  fill_segment();
  compact_now();
  EXPECT_EQ(logs().size(), writer_->segments().size());
  EXPECT_EQ(read_all(), latest());
  expect_sound();
}

TEST_F(CompactedLogTest, MoreKeysThanFitTakeSeveralRounds) {
  write_rounds(120);
  for (int round = 0; round < 50; ++round) {
    auto job = plan();
    if (!job) break;
    job->max_keys = 100;
    const CompactionOutcome outcome = compact(*backend_, *job);
    ASSERT_FALSE(outcome.failure) << outcome.failure->message;
    ASSERT_GT(outcome.first_dirty, job->first_dirty);
    finish(*job, outcome);
    expect_sound();
  }
  EXPECT_EQ(outcome_.first_dirty, writer_->segments().back().base_offset);
  EXPECT_EQ(read_all(), latest());
}

TEST_F(CompactedLogTest, ACancelledRoundChangesNothing) {
  write_rounds();
  auto job = plan();
  ASSERT_TRUE(job);
  job->cancelled = std::make_shared<std::atomic<bool>>(true);
  const CompactionOutcome outcome = compact(*backend_, *job);
  ASSERT_TRUE(outcome.failure);
  EXPECT_EQ(outcome.segments.size(), job->segments.size());
  EXPECT_EQ(outcome.first_dirty, job->first_dirty);
  EXPECT_EQ(read_all(), appended_);
  EXPECT_TRUE(list_segments(dir())->compacted.empty());
}

TEST_F(CompactedLogTest, DamageEndsTheRoundAndIsNamed) {
  write_rounds();
  const auto job = plan();
  overwrite(job->segments[1].path, 500'000, "damage");
  const CompactionOutcome outcome = compact(*backend_, *job);
  ASSERT_TRUE(outcome.failure);
  EXPECT_EQ(outcome.failure->code, Code::corrupt);
  EXPECT_NE(outcome.failure->message.find(job->segments[1].path.filename()), std::string::npos);
  EXPECT_EQ(logs().size(), writer_->segments().size());
}

// --- When ----------------------------------------------------------------------------------------

std::vector<SegmentInfo> four_segments() {
  std::vector<SegmentInfo> segments(4);
  for (std::size_t i = 0; i < 4; ++i) {
    segments[i].base_offset = Offset(100 * i);
    segments[i].next_offset = Offset(100 * i + 100);
    segments[i].max_timestamp_ns = static_cast<std::int64_t>(i + 1) * 1'000'000'000;
    segments[i].created_ns = static_cast<std::int64_t>(i) * 1'000'000'000;
    segments[i].file_bytes = 1000;
  }
  return segments;
}

TEST(CompactionPlanTest, TheDirtyPartMustBeLargeEnough) {
  TopicConfig config;
  EXPECT_FALSE(plan_compaction({}, Offset(0), config, 0));
  const auto segments = four_segments();
  const auto plan = [&](std::uint64_t first_dirty) {
    return plan_compaction(segments, Offset(first_dirty), config, 10'000'000'000);
  };
  ASSERT_TRUE(plan(0));
  EXPECT_EQ(plan(0)->segments.size(), 3u);  // the last one is still written
  EXPECT_TRUE(plan(100));                   // two thirds
  EXPECT_FALSE(plan(200));                  // a third
  EXPECT_FALSE(plan(300));
  config.min_cleanable_dirty_billionths = 300'000'000;
  EXPECT_TRUE(plan(200));
  EXPECT_FALSE(plan(300));
}

TEST(CompactionPlanTest, YoungRecordsWaitAndOldOnesDoNot) {
  TopicConfig config;
  config.min_compaction_lag_ms = 1'500;
  const auto segments = four_segments();
  const auto plan = [&](std::uint64_t first_dirty, std::int64_t now_s) {
    return plan_compaction(segments, Offset(first_dirty), config, now_s * 1'000'000'000);
  };
  EXPECT_FALSE(plan(0, 2));
  ASSERT_TRUE(plan(0, 4));
  EXPECT_EQ(plan(0, 4)->segments.size(), 2u);
  config.min_compaction_lag_ms = 0;
  config.max_compaction_lag_ms = 5'000;
  EXPECT_FALSE(plan(200, 6));
  EXPECT_TRUE(plan(200, 7));
  EXPECT_FALSE(plan(300, 100));
}

TEST(KeyTableTest, KnowsTheLatestOfAsManyKeysAsItMay) {
  KeyTable table(5'000);
  for (std::uint64_t i = 0; i < 10'000; ++i)
    ASSERT_TRUE(table.put(hash_key(std::to_string(i % 5'000)), Offset(i)));
  EXPECT_EQ(table.size(), 5'000u);
  EXPECT_FALSE(table.put(hash_key("another"), Offset(10'000)));
  for (std::uint64_t i = 0; i < 5'000; ++i)
    ASSERT_EQ(table.latest(hash_key(std::to_string(i))), Offset(5'000 + i));
  EXPECT_EQ(table.latest(hash_key("another")), std::nullopt);
}

// --- Against a model -----------------------------------------------------------------------------

TEST_F(CompactionTest, RandomRoundsLeaveWhatTheModelSays) {
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  config_.delete_retention_ms = 1'000'000;  // tombstones are for the tests above
  open_writer(ring_);
  for (int round = 0; round < 12; ++round) {
    const int records = 100 + static_cast<int>(random() % 1'500);
    const auto keys = 1 + random() % 400;
    for (int i = 0; i < records; ++i) {
      auto key = random() % 20 == 0 ? std::nullopt : std::optional("k" + std::to_string(random() % keys));
      const bool tombstone = key && random() % 10 == 0;
      append(key, tombstone ? std::nullopt : std::optional(std::string(random() % 3'000, 'x')));
    }
    if (random() % 4 == 0) reopen();
    flush(ring_);
    const std::size_t max_keys = random() % 3 == 0 ? 20 + random() % 300 : 1'000'000;
    while (auto job = plan()) {
      job->max_keys = max_keys;
      const CompactionOutcome outcome = compact(*backend_, *job);
      ASSERT_FALSE(outcome.failure) << outcome.failure->message;
      finish(*job, outcome);
      expect_sound();
    }
    ASSERT_EQ(read_all(), latest());
    const Offset from(random() % appended_.size());
    ASSERT_EQ(read_all(from), latest_from(from));
    expect_sound();
    now_ns_ += 1'000'000'000;
  }
}

}  // namespace
}  // namespace ringtail::log
