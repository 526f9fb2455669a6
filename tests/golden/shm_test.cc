// Shared memory as an earlier program of the same layout version left it: every field stands where it stood.
// Another layout needs another version number, or two programs that differ map the same bytes.
#include <gtest/gtest.h>

#include <cstring>

#include "control_fields.h"
#include "golden.h"
#include "log/ring.h"
#include "shm/process.h"
#include "unit/base/scratch_dir.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::golden {
namespace {

TEST(GoldenControl, EveryFieldIsRead) {
  const shm::TempDir dir;
  std::string bytes = file("shm/control");
  ASSERT_EQ(bytes.size(), sizeof(shm::ControlLayout));
  shm::ControlHeader header;
  std::memcpy(static_cast<void*>(&header), bytes.data(), sizeof header);
  EXPECT_EQ(header.magic, 0x4c5254434c544752u);
  EXPECT_EQ(header.version, 4u);
  EXPECT_EQ(header.slot_count, 512u);
  EXPECT_EQ(header.reader_count, 4096u);
  EXPECT_EQ(header.partition_count, 4096u);
  EXPECT_EQ(header.total_bytes, sizeof(shm::ControlLayout));
  EXPECT_EQ(header.log_id, kLogId);
  EXPECT_EQ(header.boot_id, (std::array<std::uint64_t, 2>{0x0b007, 0x1d}));
  EXPECT_STREQ(header.dir.data(), "/some/log");

  // Of this boot, or nobody may use it.
  const auto boot = shm::boot_id();
  ASSERT_TRUE(boot);
  std::memcpy(bytes.data() + offsetof(shm::ControlHeader, boot_id), boot->data(), sizeof *boot);
  testing::put_file(dir / "control", bytes);
  const auto control = shm::Control::open_or_create(dir.path(), kLogId, "/elsewhere");
  ASSERT_TRUE(control) << to_string(control.error());
  const auto number = [](const char* name, auto& field, std::uint64_t value) {
    EXPECT_EQ(static_cast<std::uint64_t>(field.load()) & 0xff, value) << name;
  };
  const auto text = [](const char* name, auto& field, const char* value) {
    EXPECT_EQ(field.load(), value) << name;
  };
  ControlFields(*control, number, text).visit();
}

TEST(GoldenRing, EveryFieldIsRead) {
  const shm::TempDir dir;
  testing::put_file(dir / "ticks-0.ring", file("shm/ticks-0.ring"));
  const auto ring = log::Ring::open(dir / "ticks-0.ring", true);
  ASSERT_TRUE(ring) << to_string(ring.error());
  const log::RingHeader& h = ring->header();
  EXPECT_EQ(h.magic, 0x474e524c544752u);
  EXPECT_EQ(h.version, 3u);
  EXPECT_EQ(h.header_bytes, 16'384u);
  EXPECT_EQ(h.log_id, kLogId);
  EXPECT_EQ(h.topic_id, kTicks.id);
  EXPECT_EQ(h.partition, 0u);
  EXPECT_EQ(h.term_count, 4u);
  EXPECT_EQ(h.term_bytes, 65'536u);
  EXPECT_EQ(h.generation, 1u);
  EXPECT_EQ(h.base_position, 0u);
  EXPECT_EQ(h.first_position, 0u);
  EXPECT_EQ(h.first_offset, 0u);
  EXPECT_EQ(h.active_term.load(), 0u);
  EXPECT_EQ(h.term_limit.load(), 4u);
  EXPECT_EQ(h.head.load(), 0u);
  EXPECT_EQ(h.state.load(), 0u);
  EXPECT_EQ(h.scribbled.load(), 0u);
  EXPECT_EQ(h.filled_by.load(), 0u);
  EXPECT_EQ(h.grant.load(), 0u);
  const std::uint64_t tail = ring->line(0).tail.load();
  EXPECT_FALSE(log::tail_fenced(tail));
  EXPECT_EQ(log::tail_lap(tail), 0u);
  EXPECT_EQ(log::tail_records(tail), 6u);
  EXPECT_EQ(ring->line(0).number.load(), 0u);
  EXPECT_EQ(ring->line(0).base_offset.load(), 0u);
  EXPECT_EQ(log::tail_lap(ring->line(1).tail.load()), log::kLapMask) << "never opened";
  EXPECT_EQ(ring->claimed_end().offset, Offset(6));
  EXPECT_EQ(ring->claimed_end().position, Position(log::tail_bytes(tail)));
}

// What a claim looks like before it is resolved, and after.
TEST(GoldenRing, EveryFrameIsRead) {
  const shm::TempDir dir;
  testing::put_file(dir / "ticks-0.ring", file("shm/ticks-0.ring"));
  const auto ring = log::Ring::open(dir / "ticks-0.ring", true);
  ASSERT_TRUE(ring) << to_string(ring.error());
  using enum format::FrameType;
  std::vector<format::FrameType> seen;
  for (std::uint64_t at = 0; at < log::tail_bytes(ring->line(0).tail.load());) {
    const std::byte* const frame = ring->term_data(0) + at;
    const std::uint64_t word = format::load_state_word(frame, std::memory_order_acquire);
    const format::FrameHeader header = format::load_header(frame);
    EXPECT_EQ(header.offset, seen.size());
    if (!format::word_is_resolved(word)) {
      EXPECT_EQ(format::claimed_bytes(word), 64u);
      EXPECT_EQ(header.crc32c, shm::frame_owner(500, 77));
      seen.push_back(none);
      at += format::claimed_bytes(word);
      continue;
    }
    EXPECT_EQ(format::check_structure({frame, format::word_extent(word)}), format::FrameFault::none);
    seen.push_back(format::word_type(word));
    at += format::word_extent(word);
  }
  EXPECT_EQ(seen, (std::vector{data, data, none, data, aborted, data}));
}

}  // namespace
}  // namespace ringtail::golden
