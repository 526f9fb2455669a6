#include "log/verify.h"

#include "segment_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;

class VerifyTest : public SegmentTest {
 protected:
  void SetUp() override { write_log(ring_, 250, 10'000); }

  PartitionVerification verify(const VerifyOptions& options = {}) {
    auto result = verify_partition(dir(), options);
    EXPECT_TRUE(result) << result.error().message;
    return std::move(*result);
  }
  std::uint64_t place(std::size_t frame) const {
    return format::file_offset(Position(0), ring_.frames()[frame].position);
  }

  FakeRing ring_{4 << 20};
};

TEST_F(VerifyTest, CountsWhatIsThere) {
  open_writer(ring_);
  ring_.add_filler(format::FrameType::aborted, 64, 3);
  ring_.add_filler(format::FrameType::pad, 128, 0);
  flush(ring_);
  writer_.reset();
  const auto result = verify();
  EXPECT_TRUE(result.faults.empty()) << result.faults.front().message;
  EXPECT_EQ(result.segments.size(), logs().size());
  const SegmentVerification total = result.total();
  EXPECT_EQ(total.frames, 252u);
  EXPECT_EQ(total.records, 250u);
  EXPECT_EQ(total.aborted_frames, 1u);
  EXPECT_EQ(total.aborted_records, 3u);
  EXPECT_EQ(total.pad_frames, 1u);
  EXPECT_EQ(total.pad_bytes, 128u);
  EXPECT_EQ(total.bytes, ring_.end().value());
  EXPECT_EQ(total.next_offset, Offset(253));
  EXPECT_EQ(total.end_position, ring_.end());
  EXPECT_EQ(total.max_timestamp_ns, 1000 + 249);
  EXPECT_GT(total.index_entries, 10u);
  EXPECT_EQ(result.unsynced_bytes, 0u);
}

TEST_F(VerifyTest, AnEmptyDirectoryIsClean) {
  for (const auto& entry : fs::directory_iterator(dir())) fs::remove(entry.path());
  const auto result = verify();
  EXPECT_TRUE(result.faults.empty());
  EXPECT_TRUE(result.segments.empty());
  EXPECT_EQ(result.total().frames, 0u);
}

TEST_F(VerifyTest, NamesEveryFaultAndGoesOn) {
  overwrite(log_file(0), place(5) + 100, "X");
  overwrite(log_file(0), place(50) + 100, "X");
  const auto result = verify();
  ASSERT_EQ(result.faults.size(), 2u);
  EXPECT_EQ(result.faults[0].position, ring_.frames()[5].position);
  EXPECT_EQ(result.faults[1].position, ring_.frames()[50].position);
  EXPECT_EQ(result.faults[0].path, log_file(0));
  EXPECT_NE(result.faults[0].message.find("bad_crc"), std::string::npos);
  EXPECT_EQ(result.total().records, 248u);
}

TEST_F(VerifyTest, AMissingSegmentIsAFault) {
  fs::remove(log_file(logs()[1].value()));
  const auto result = verify();
  ASSERT_FALSE(result.faults.empty());
  EXPECT_EQ(result.faults.back().path, log_file(logs().back().value()));
}

TEST_F(VerifyTest, AShortSealedSegmentIsAFault) {
  fs::resize_file(log_file(0), fs::file_size(log_file(0)) - 100);
  EXPECT_FALSE(verify().faults.empty());
}

TEST_F(VerifyTest, ABadHeaderIsAFault) {
  overwrite(log_file(0), 20, "XXXX");
  const auto result = verify();
  ASSERT_FALSE(result.faults.empty());
  EXPECT_EQ(result.faults.front().path, log_file(0));
}

TEST_F(VerifyTest, AnotherPartitionsFilesAreAFault) {
  SegmentIdentity other = kTestIdentity;
  other.topic_id = 9;
  EXPECT_FALSE(verify({.identity = other}).faults.empty());
}

TEST_F(VerifyTest, AnIndexThatLiesIsAFault) {
  overwrite(index_file(0), format::kBlockBytes + 8, "\x08");
  const auto result = verify();
  ASSERT_EQ(result.faults.size(), 1u);
  EXPECT_NE(result.faults.front().message.find("index entry 0"), std::string::npos);
}

TEST_F(VerifyTest, ATimeIndexThatLiesIsAFault) {
  std::string bytes = testing::get_file(time_index_file(0));
  const std::int64_t early = 1;
  std::memcpy(bytes.data() + format::kBlockBytes, &early, sizeof early);
  testing::put_file(time_index_file(0), bytes);
  const auto result = verify();
  ASSERT_EQ(result.faults.size(), 1u);
  EXPECT_NE(result.faults.front().message.find("time index entry 0"), std::string::npos);
}

TEST_F(VerifyTest, AMissingIndexIsAFault) {
  fs::remove(index_file(0));
  EXPECT_EQ(verify().faults.size(), 1u);
}

TEST_F(VerifyTest, WhatIsNotSyncedYetIsNoFault) {
  const std::uint64_t last = logs().back().value();
  const Position base = ring_.frames()[last].position;
  overwrite(log_file(last), format::file_offset(base, ring_.end()), "half a frame");
  const auto result = verify();
  EXPECT_TRUE(result.faults.empty());
  EXPECT_GT(result.unsynced_bytes, 0u);
  EXPECT_EQ(verify({.durable_limit = ring_.end() + 8}).faults.size(), 1u);
}

TEST_F(VerifyTest, SyncedRecordsThatAreGoneAreAFault) {
  const std::uint64_t last = logs().back().value();
  const Position base = ring_.frames()[last].position;
  fs::resize_file(log_file(last), format::file_offset(base, ring_.frames().back().position));
  ASSERT_EQ(verify().faults.size(), 1u);
  EXPECT_NE(verify().faults.front().message.find("was synced up to"), std::string::npos);
}

TEST_F(VerifyTest, DumpGivesEveryFrame) {
  std::size_t frame = 0;
  for (const Offset base : logs()) {
    const auto header = dump_segment(log_file(base.value()), {}, [&](const DumpedFrame& dumped) {
      EXPECT_EQ(dumped.position, ring_.frames()[frame].position);
      EXPECT_EQ(dumped.fault, format::FrameFault::none);
      EXPECT_EQ(format::load_header(dumped.frame.data()).offset, frame);
      ++frame;
      return true;
    });
    ASSERT_TRUE(header);
    EXPECT_EQ(header->base_offset, base.value());
  }
  EXPECT_EQ(frame, ring_.frames().size());
}

TEST_F(VerifyTest, DumpBeginsAndEndsWhereItIsAskedTo) {
  std::vector<Position> seen;
  const Position from = ring_.frames()[10].position;
  ASSERT_TRUE(dump_segment(log_file(0), {.from = from}, [&](const DumpedFrame& dumped) {
    seen.push_back(dumped.position);
    return seen.size() < 3;
  }));
  EXPECT_EQ(seen, (std::vector{from, ring_.frames()[11].position, ring_.frames()[12].position}));
}

TEST_F(VerifyTest, DumpShowsDamageAndGoesOn) {
  overwrite(log_file(0), place(5) + 100, "X");
  std::size_t frames = 0;
  std::size_t faults = 0;
  ASSERT_TRUE(dump_segment(log_file(0), {}, [&](const DumpedFrame& dumped) {
    dumped.fault == format::FrameFault::none ? ++frames : ++faults;
    return true;
  }));
  EXPECT_EQ(faults, 1u);
  EXPECT_EQ(frames + 1, logs()[1].value());
  EXPECT_FALSE(dump_segment(dir() / "none.log", {}, [](const DumpedFrame&) { return true; }));
}

}  // namespace
}  // namespace ringtail::log
