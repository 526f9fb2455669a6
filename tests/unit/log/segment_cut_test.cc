// A segment that is cut at every byte of its last 4 KiB.
#include <cstdio>

#include "base/clock.h"
#include "log/verify.h"
#include "segment_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;
using testing::get_file;
using testing::put_file;

class CutRecoveryTest : public SegmentTest {};

TEST_F(CutRecoveryTest, AFileCutAtAnyByteOfItsLast4KiBKeepsItsPrefix) {
  FakeRing ring(1 << 20);
  write_log(ring, 80, 60);
  const fs::path path = log_file(0);
  const std::uint64_t end = format::file_offset(Position(0), ring.end());
  const std::string whole = get_file(path).substr(0, end);
  for (std::uint64_t bytes = end - 4'096; bytes <= end; ++bytes) {
    put_file(path, whole.substr(0, bytes));
    SCOPED_TRACE(::testing::Message() << "cut at byte " << bytes);
    // Exactly the frames that are whole.
    Position kept(0);
    Offset next(0);
    for (const MadeFrame& frame : ring.frames()) {
      if (format::file_offset(Position(0), frame.position + frame.extent) > bytes) break;
      kept = frame.position + frame.extent;
      next = frame.offset + 1;
    }
    // The decision at every byte; what is done about it, which costs syncs, at every 64th.
    const bool writable = bytes % 64 == 0;
    const Status done = recover({.writable = writable});
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_EQ(recovered_.next_offset, next);
    ASSERT_EQ(recovered_.end_position, kept);
    ASSERT_EQ(has_finding(RecoveryCase::torn_tail), bytes < end);
    ASSERT_EQ(get_file(path), whole.substr(0, writable ? format::file_offset(Position(0), kept) : bytes));
  }
}

TEST_F(CutRecoveryTest, AFileCutAtAnyByteGoesOn) {
  // Fewer cuts, each of them followed by a writer that appends again.
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 10; ++round) {
    for (const auto& entry : fs::directory_iterator(dir())) fs::remove(entry.path());
    FakeRing ring(1 << 20);
    write_log(ring, 100, 60);
    const std::uint64_t end = format::file_offset(Position(0), ring.end());
    fs::resize_file(log_file(0), end - std::uniform_int_distribution<std::uint64_t>(0, 4'096)(random));
    ASSERT_TRUE(recover());
    const Position kept = recovered_.end_position;
    ASSERT_TRUE(recover({.pad_to_block = true}));
    ring.lose_from(kept, recovered_.end_position);
    open_writer(ring);
    ring.add_record(5, "after the cut");
    flush(ring);
    expect_readable(ring, Position(0), ring.end());
    writer_.reset();
    ASSERT_TRUE(verify_partition(dir())->faults.empty());
  }
}

}  // namespace
}  // namespace ringtail::log
