// Compaction that is cut short, what recovery makes of it, and readers who are there meanwhile.
#include <cerrno>

#include "compaction_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;
using testing::Op;

class CompactionCrashTest : public CompactionTest {
 protected:
  // Three finished segments, small enough to be merged, and the active one.
  void write_segments() {
    config_.segment_bytes = 1 << 20;
    open_writer(ring_);
    for (int segment = 0; segment < 3; ++segment) {
      for (int i = 0; i < 40; ++i) append("k" + std::to_string(i % 20), std::string(1'000, 'v'));
      fill_segment();
    }
    flush(ring_);
    config_.segment_bytes = 8 << 20;
  }
  // As it is on disk when the process dies: the rest of the round does not happen.
  void die() {
    writer_.reset();
    backend_.reset();
  }
  // Everything that must be there is, and nothing that was never appended.
  void expect_nothing_lost() {
    const auto records = read_all();
    for (const KeyedRecord& record : records) ASSERT_EQ(record, appended_[record.offset.value()]);
    std::size_t found = 0;
    outcome_.first_dirty = writer_->segments().back().base_offset;
    const auto wanted = latest();
    for (const KeyedRecord& record : records)
      if (found < wanted.size() && record == wanted[found]) ++found;
    ASSERT_EQ(found, wanted.size());
  }
  std::unique_ptr<SegmentReader> reader() {
    return std::move(*SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 64 * 1024}));
  }

  testing::ScratchDir saved_;
};

// From the nth operation of a kind on, none comes to pass; with and without the removal of what is
// half done, which a crash leaves out.
TEST_F(CompactionCrashTest, ACrashAtAnyStepLosesNothing) {
  write_segments();
  die();
  const fs::path saved = saved_.path() / "log";
  fs::copy(dir(), saved);
  int crashes = 0;
  for (const Op op : {Op::open, Op::write, Op::preallocate, Op::truncate, Op::sync_file, Op::rename,
                      Op::sync_directory, Op::unlink}) {
    for (unsigned nth = 1;; ++nth) {
      SCOPED_TRACE(std::string(testing::to_string(op)) + " " + std::to_string(nth));
      for (const auto& file : fs::directory_iterator(dir())) fs::remove(file);
      fs::copy(saved, dir());
      open_writer(ring_);
      auto job = plan();
      ASSERT_TRUE(job);
      backend_->clear_events();
      backend_->fail(op, "", EIO, nth, testing::FaultyBackend::kForever);
      backend_->fail(Op::unlink, ".compacted", EIO, 1, testing::FaultyBackend::kForever);
      const CompactionOutcome outcome = compact(*backend_, *job);
      const bool met = std::ranges::any_of(backend_->events(), [&](const testing::Event& event) {
        return event.op == op && event.injected_errno != 0;
      });
      if (met) {
        ++crashes;
        EXPECT_TRUE(outcome.failure || op == Op::unlink);
        // The process lives on: what the outcome says is what there is.
        writer_->replace_finished(job->segments.size(), outcome.segments);
        expect_nothing_lost();
      }
      die();
      open_writer(ring_);
      expect_nothing_lost();
      expect_sound();
      EXPECT_TRUE(list_segments(dir())->compacted.empty());
      EXPECT_EQ(logs().size(), writer_->segments().size());
      compact_now();
      EXPECT_EQ(read_all(), latest());
      expect_sound();
      if (HasFailure()) return;
      if (!met) break;
    }
  }
  EXPECT_GT(crashes, 15);
}

TEST_F(CompactionCrashTest, RecoveryRemovesWhatWasNotPutInPlace) {
  write_segments();
  const auto path = compaction_path(dir(), Offset(0));
  fs::copy_file(log_file(0), path);
  fs::copy_file(index_file(0), sibling(path, format::FileKind::index));
  reopen();
  EXPECT_TRUE(has_finding(RecoveryCase::compaction_file));
  EXPECT_TRUE(list_segments(dir())->compacted.empty());
  EXPECT_EQ(read_all(), appended_);
}

TEST_F(CompactionCrashTest, RecoveryRemovesWhatWasMerged) {
  write_segments();
  const auto before = logs();
  const fs::path saved = saved_.path() / "log";
  fs::copy(dir(), saved);
  compact_now();
  ASSERT_EQ(logs().size(), 2u);
  for (const char* suffix : {".log", ".index", ".timeindex"}) {
    for (const std::size_t i : {1u, 2u}) {
      const auto name = log_file(before[i].value()).filename().replace_extension(suffix);
      fs::copy_file(saved / name, dir() / name);
    }
  }
  expect_sound();
  reopen();
  EXPECT_EQ(std::ranges::count(report_.findings, RecoveryCase::merged_segment, &RecoveryFinding::what), 2);
  EXPECT_EQ(logs().size(), 2u);
  EXPECT_EQ(read_all(), latest());
  expect_sound();
}

TEST_F(CompactionCrashTest, IndexesOfAnotherCompactionAreRebuilt) {
  write_segments();
  const fs::path saved = saved_.path() / "log";
  fs::copy(dir(), saved);
  compact_now();
  for (const auto& path : {index_file(0), time_index_file(0)}) {
    fs::copy_file(saved / path.filename(), path, fs::copy_options::overwrite_existing);
    EXPECT_EQ(read_all(), latest());  // readers do without
    reopen();
    EXPECT_TRUE(has_finding(RecoveryCase::index_rebuilt));
    expect_sound();
  }
}

TEST_F(CompactionCrashTest, ACompactedSegmentThatLostItsEndIsRefused) {
  write_segments();
  compact_now();
  writer_.reset();
  fs::resize_file(log_file(0), fs::file_size(log_file(0)) - 8);
  EXPECT_EQ(recover().error().code, Code::corrupt);
  fs::resize_file(log_file(0), fs::file_size(log_file(0)) + 108);
  ASSERT_TRUE(recover());
  EXPECT_TRUE(has_finding(RecoveryCase::sealed_too_long));
}

TEST_F(CompactionCrashTest, ACompactedSegmentIsNeverTheLast) {
  write_segments();
  compact_now();
  const Offset active = writer_->segments().back().base_offset;
  writer_.reset();
  fs::remove(log_file(active.value()));
  const Status recovered = recover();
  ASSERT_FALSE(recovered);
  EXPECT_EQ(recovered.error().code, Code::corrupt);
  EXPECT_NE(recovered.error().message.find("one is missing"), std::string::npos);
  const auto verified = verify_partition(dir());
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->faults.size(), 1u);
}

// --- Readers -------------------------------------------------------------------------------------

TEST_F(CompactionCrashTest, AReaderReadsTheFileItHasOpenToItsEnd) {
  write_segments();
  auto r = reader();
  Position at(0);
  Offset next(0);
  std::vector<KeyedRecord> records;
  ASSERT_TRUE(read_some(*r, at, next, records));
  const Offset first_end = writer_->segments().front().next_offset;
  ASSERT_LT(next, first_end);
  compact_now();
  read_on(*r, at, next, records);
  // All of the segment that was open, then what compaction has left: nothing twice, nothing missing.
  std::vector<KeyedRecord> expected(appended_.begin(),
                                    appended_.begin() + static_cast<std::ptrdiff_t>(first_end.value()));
  for (const KeyedRecord& record : latest_from(first_end)) expected.push_back(record);
  EXPECT_EQ(records, expected);
}

TEST_F(CompactionCrashTest, AReaderThatOpensTheFileAnewGoesOnAtItsOffset) {
  write_segments();
  std::vector<std::pair<Position, Offset>> places;
  for (std::size_t i = 0; i < ring_.frames().size(); i += 37)
    places.emplace_back(ring_.frames()[i].position, ring_.frames()[i].offset);
  const auto expect_rest = [&] {
    for (const auto& [position, offset] : places) {
      std::vector<KeyedRecord> records;
      read_on(*reader(), position, offset, records);
      ASSERT_EQ(records, latest_from(offset)) << "offset " << offset.value();
    }
  };
  compact_now();
  expect_rest();
  // And once more, from places in a file that was compacted and is compacted again.
  places.clear();
  auto r = reader();
  Position at(0);
  Offset next(0);
  std::vector<KeyedRecord> records;
  while (at < ring_.end()) {
    places.emplace_back(at, next);
    ASSERT_TRUE(read_some(*r, at, next, records));
  }
  ASSERT_GT(places.size(), 5u);
  for (int i = 0; i < 20; i += 2) append("k" + std::to_string(i), "newer");
  fill_segment();
  compact_now();
  expect_rest();
}

TEST_F(CompactionCrashTest, AReaderAtTheEndOfASegmentThatWasMergedGoesOn) {
  write_segments();
  const auto segments = std::vector(writer_->segments().begin(), writer_->segments().end());
  auto r = reader();
  Position at(0);
  Offset next(0);
  std::vector<KeyedRecord> records;
  while (next < segments[1].next_offset) ASSERT_TRUE(read_some(*r, at, next, records));
  ASSERT_EQ(at, segments[1].end_position);
  compact_now();
  ASSERT_EQ(logs().size(), 2u);
  records.clear();
  read_on(*r, at, next, records);
  EXPECT_EQ(records, latest_from(segments[1].next_offset));
}

}  // namespace
}  // namespace ringtail::log
