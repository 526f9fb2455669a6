#include "log/segment_reader.h"

#include "base/clock.h"
#include "segment_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;

class SegmentReaderTest : public SegmentTest {
 protected:
  std::unique_ptr<SegmentReader> reader() {
    auto opened = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 64 * 1024});
    EXPECT_TRUE(opened);
    return std::move(*opened);
  }
  const MadeFrame& frame_at(std::size_t index) const { return ring_.frames()[index]; }

  FakeRing ring_{4 << 20};
};

TEST_F(SegmentReaderTest, AMissingDirectoryIsAnError) {
  const auto opened = SegmentReader::open(dir() / "none", kTestIdentity);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::not_found);
}

TEST_F(SegmentReaderTest, AnEmptyLogHasNothing) {
  auto r = reader();
  EXPECT_EQ(r->locate(Offset(0), Position(0)), Position(0));
  EXPECT_EQ(r->locate(Offset(1), Position(0)).error().code, Code::offset_out_of_range);
  EXPECT_EQ(r->locate_time(0, Position(0)).value(), std::nullopt);
  EXPECT_TRUE(r->read(Position(0), Position(0))->bytes.empty());
}

TEST_F(SegmentReaderTest, ReadsFromAnyFrameToAnyOther) {
  write_log(ring_, 400, 7'000);
  ASSERT_GT(logs().size(), 2u);
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 30; ++round) {
    std::size_t from = random() % 400;
    std::size_t to = random() % 400;
    if (from > to) std::swap(from, to);
    expect_readable(ring_, frame_at(from).position, frame_at(to).position);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SegmentReaderTest, GivesNothingBehindTheLimit) {
  write_log(ring_, 50, 100);
  auto r = reader();
  const auto bytes = r->read(Position(0), frame_at(10).position);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(bytes->bytes.size(), frame_at(10).position.value());
  EXPECT_TRUE(r->read(frame_at(10).position, frame_at(10).position)->bytes.empty());
}

TEST_F(SegmentReaderTest, FollowsTheWriter) {
  open_writer(ring_);
  auto r = reader();
  Position at(0);
  for (int i = 0; i < 300; ++i) {
    ring_.add_record(i, std::string(static_cast<std::size_t>(i * 37 % 9'000), 'f'));
    flush(ring_);
    while (at < writer_->durable_position()) {
      const auto bytes = r->read(at, writer_->durable_position());
      ASSERT_TRUE(bytes) << bytes.error().message;
      ASSERT_FALSE(bytes->bytes.empty());
      at += bytes->bytes.size();
    }
  }
  EXPECT_GT(logs().size(), 1u);
}

TEST_F(SegmentReaderTest, ReadsFramesLargerThanItsBuffer) {
  config_.segment_bytes = 4 << 20;
  open_writer(ring_);
  for (const std::size_t bytes : {10u, 900'000u, 10u, 300'000u}) {
    ring_.add_record(1, std::string(bytes, 'b'));
    flush(ring_);
  }
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentReaderTest, ReadsUncheckedWhatItWouldRead) {
  write_log(ring_, 400, 7'000);
  ASSERT_GT(logs().size(), 2u);
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  auto unchecked = reader();
  auto reading = reader();
  const Position end = frame_at(390).position;
  std::size_t taken = 0;
  std::size_t frame = 0;
  for (Position at(0); at < end;) {
    const std::size_t most = 1 + random() % 300'000;
    std::vector<std::byte> bytes;
    if (auto got = random() % 4 == 0 ? std::nullopt
                                     : unchecked->read_unchecked(at, end, frame_at(frame).offset, most)) {
      EXPECT_LE(got->bytes.size(), most);
      EXPECT_EQ(at + got->bytes.size(), got->end);
      bytes.assign(got->bytes.bytes().begin(), got->bytes.bytes().end());
      ++taken;
      while (frame_at(frame).position < got->end) ++frame;
      EXPECT_EQ(frame_at(frame).offset, got->next);
    } else {
      const auto read = unchecked->read(at, end, frame_at(frame).offset);
      ASSERT_TRUE(read) << read.error().message;
      bytes.assign(read->bytes.begin(), read->bytes.end());
      while (frame_at(frame).position < at + bytes.size()) ++frame;
    }
    ASSERT_FALSE(bytes.empty());
    for (std::size_t i = 0; i < bytes.size();) {
      const auto expected = reading->read(at + i, at + bytes.size());
      ASSERT_TRUE(expected) << expected.error().message;
      ASSERT_TRUE(std::ranges::equal(expected->bytes, std::span(bytes).subspan(i, expected->bytes.size())));
      i += expected->bytes.size();
    }
    at += bytes.size();
  }
  EXPECT_GT(taken, 10u);
}

TEST_F(SegmentReaderTest, AtTheEndOfASegmentItReadsUncheckedFromTheNext) {
  write_log(ring_, 400, 7'000);
  ASSERT_GT(logs().size(), 2u);
  std::size_t first = 0;
  while (frame_at(first).offset < logs()[1]) ++first;
  auto r = reader();
  ASSERT_FALSE(r->read(frame_at(first - 1).position, frame_at(first).position)->bytes.empty());
  EXPECT_TRUE(r->read_unchecked(frame_at(first).position, ring_.end(), frame_at(first).offset, 100'000));
}

TEST_F(SegmentReaderTest, AnIndexThatIsWrongIsNoReasonToReadUnchecked) {
  write_log(ring_, 100, 7'000);
  const auto index = segment_path(dir(), format::FileKind::index, logs().front());
  std::fstream file(index, std::ios::in | std::ios::out | std::ios::binary);
  std::vector<format::IndexEntry> wrong(2'000, format::IndexEntry{});
  for (std::size_t i = 0; i < wrong.size(); ++i) wrong[i] = {i + 1, 8 * (i + 1)};
  file.seekp(format::kBlockBytes);
  file.write(reinterpret_cast<const char*>(wrong.data()), static_cast<std::streamsize>(wrong.size() * 16));
  file.close();
  auto r = reader();
  EXPECT_FALSE(r->read_unchecked(Position(0), frame_at(90).position, Offset(0), 16'000));
  expect_readable(ring_, Position(0), frame_at(90).position);
}

TEST_F(SegmentReaderTest, LocatesEveryOffset) {
  write_log(ring_, 400, 7'000);
  auto r = reader();
  for (const MadeFrame& frame : ring_.frames()) {
    const auto position = r->locate(frame.offset, ring_.end());
    ASSERT_TRUE(position) << position.error().message;
    ASSERT_EQ(*position, frame.position);
  }
  EXPECT_EQ(r->locate(Offset(400), ring_.end()), ring_.end());
  EXPECT_EQ(r->locate(Offset(401), ring_.end()).error().code, Code::offset_out_of_range);
  EXPECT_EQ(r->locate(Offset(100), frame_at(90).position).error().code, Code::offset_out_of_range);
  EXPECT_EQ(r->locate(Offset(90), frame_at(90).position), frame_at(90).position);
}

TEST_F(SegmentReaderTest, LocatesWithoutIndexes) {
  write_log(ring_, 400, 7'000);
  for (const Offset base : logs()) {
    fs::remove(index_file(base.value()));
    fs::resize_file(time_index_file(base.value()), 10);
  }
  auto r = reader();
  for (const std::size_t i : {0u, 1u, 200u, 399u}) {
    EXPECT_EQ(r->locate(Offset(i), ring_.end()), frame_at(i).position);
    EXPECT_EQ(r->locate_time(frame_at(i).timestamp_ns, ring_.end()).value(), Offset(i));
  }
}

TEST_F(SegmentReaderTest, DoesNotBelieveAnIndexThatLies) {
  write_log(ring_, 400, 7'000);
  const std::uint64_t base = logs()[1].value();
  std::string bytes = testing::get_file(index_file(base));
  for (std::size_t i = format::kBlockBytes; i + 16 <= bytes.size(); i += 16) bytes[i + 8] ^= 0x08;
  testing::put_file(index_file(base), bytes);
  auto r = reader();
  for (std::size_t i = base; i < base + 100; ++i) {
    ASSERT_EQ(r->locate(Offset(i), ring_.end()), frame_at(i).position);
  }
}

TEST_F(SegmentReaderTest, LocatesTheFrameThatUsesAnOffsetUp) {
  open_writer(ring_);
  ring_.add_record(1, "a");
  ring_.add_filler(format::FrameType::aborted, 64, 5);
  ring_.add_filler(format::FrameType::pad, 64, 0);
  ring_.add_record(2, "b");
  flush(ring_);
  auto r = reader();
  for (std::uint64_t offset = 1; offset <= 5; ++offset) {
    EXPECT_EQ(r->locate(Offset(offset), ring_.end()), frame_at(1).position);
  }
  EXPECT_EQ(r->locate(Offset(6), ring_.end()), frame_at(3).position);
}

TEST_F(SegmentReaderTest, LocatesTheFirstRecordOfATime) {
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  open_writer(ring_);
  for (int i = 0; i < 500; ++i) {
    // Times mostly rise, and sometimes run back, as producers' clocks do.
    ring_.add_record(i * 10 - static_cast<int>(random() % 100), std::string(5'000, 't'));
    if (i % 7 == 0) ring_.add_filler(format::FrameType::aborted, 40, 1);
    if (i % 3 == 0) flush(ring_);
  }
  flush(ring_);
  ASSERT_GT(logs().size(), 2u);
  auto r = reader();
  for (int round = 0; round < 200; ++round) {
    const auto time = static_cast<std::int64_t>(random() % 5'300) - 200;
    const auto first = std::ranges::find_if(ring_.frames(), [&](const MadeFrame& f) {
      return f.type == format::FrameType::data && f.timestamp_ns >= time;
    });
    const auto expected = first == ring_.frames().end() ? std::nullopt : std::optional(first->offset);
    const auto found = r->locate_time(time, ring_.end());
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_EQ(*found, expected) << "time " << time;
  }
}

TEST_F(SegmentReaderTest, DeletedSegmentsStayReadableToWhoHasThemOpen) {
  write_log(ring_, 400, 7'000);
  auto r = reader();
  auto bytes = r->read(Position(0), ring_.end());
  ASSERT_TRUE(bytes);
  Position at = Position(0) + bytes->bytes.size();
  const Position second = frame_at(logs()[1].value()).position;
  for (const Offset base : logs()) {
    if (base != logs().back()) fs::remove(log_file(base.value()));
  }
  while (at < second) {
    bytes = r->read(at, ring_.end());
    ASSERT_TRUE(bytes) << bytes.error().message;
    at += bytes->bytes.size();
  }
  bytes = r->read(at, ring_.end());
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, Code::offset_out_of_range);
  EXPECT_EQ(r->seek(Position(0)).error().code, Code::offset_out_of_range);
  EXPECT_EQ(r->locate(Offset(0), ring_.end()).error().code, Code::offset_out_of_range);
  expect_readable(ring_, frame_at(logs().back().value()).position, ring_.end());
}

TEST_F(SegmentReaderTest, DamageIsNamed) {
  write_log(ring_, 100, 1'000);
  const MadeFrame& damaged = frame_at(50);
  overwrite(log_file(0), format::file_offset(Position(0), damaged.position) + 500, "X");
  auto r = reader();
  Position at(0);
  while (at < damaged.position) {
    const auto bytes = r->read(at, ring_.end());
    ASSERT_TRUE(bytes);
    at += bytes->bytes.size();
  }
  for (int again = 0; again < 2; ++again) {
    const auto bytes = r->read(at, ring_.end());
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().code, Code::corrupt);
    EXPECT_NE(bytes.error().message.find(std::to_string(damaged.position.value())), std::string::npos);
    EXPECT_NE(bytes.error().message.find(log_file(0).filename().string()), std::string::npos);
  }
}

TEST_F(SegmentReaderTest, APositionWithinAFrameIsCorrupt) {
  write_log(ring_, 100, 1'000);
  EXPECT_EQ(reader()->read(frame_at(50).position + 8, ring_.end()).error().code, Code::corrupt);
}

TEST_F(SegmentReaderTest, AnotherPartitionsFilesAreRefused) {
  write_log(ring_, 10, 100);
  SegmentIdentity other = kTestIdentity;
  other.topic_id = 9;
  auto r = SegmentReader::open(dir(), other);
  ASSERT_TRUE(r);
  EXPECT_EQ((*r)->seek(Position(0)).error().code, Code::corrupt);
}

}  // namespace
}  // namespace ringtail::log
