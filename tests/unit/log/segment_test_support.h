// What the tests of segments share: a stand-in for a ring that makes frames and remembers them, and a
// writer with its backend on top.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "format/frame.h"
#include "log/recovery.h"
#include "log/segment_reader.h"
#include "log/segment_writer.h"
#include "support/faulty_backend.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::log {

inline const SegmentIdentity kTestIdentity{{0x1111, 0x2222}, 0x3333, PartitionId(4)};

// A frame as it was made.
struct MadeFrame {
  Position position{0};
  std::uint32_t extent = 0;
  Offset offset{0};
  std::uint32_t records = 1;
  std::int64_t timestamp_ns = 0;
  format::FrameType type = format::FrameType::data;
  std::string value;
};

// Memory as a ring has it, filled with valid frames one after another.
class FakeRing {
 public:
  explicit FakeRing(std::uint64_t bytes, Position base = Position(0), Offset next_offset = Offset(0))
      : memory_(bytes), base_(base), end_(base), next_offset_(next_offset) {}

  SourceWindow window() const { return {memory_.data(), base_, memory_.size()}; }
  Position end() const { return end_; }
  Offset next_offset() const { return next_offset_; }
  const std::vector<MadeFrame>& frames() const { return frames_; }
  std::uint64_t bytes() const { return memory_.size(); }

  // The ring outlived its keeper: the next run begins at `position`.
  void rewind_to(Position position) {
    taken_ = 0;
    while (taken_ < frames_.size() && frames_[taken_].position < position) ++taken_;
  }

  // The ring is gone: frames from `end` on are lost, recovery padded up to `padded_end`, and a new
  // ring goes on there.
  void lose_from(Position end, Position padded_end) {
    std::erase_if(frames_, [&](const MadeFrame& f) { return f.position >= end; });
    next_offset_ = frames_.empty() ? Offset(0) : frames_.back().offset + frames_.back().records;
    if (padded_end > end) {
      frames_.push_back({end,
                         static_cast<std::uint32_t>(padded_end - end),
                         next_offset_,
                         0,
                         0,
                         format::FrameType::pad,
                         {}});
    }
    end_ = padded_end;
    taken_ = frames_.size();
  }

  void add_record(std::int64_t timestamp_ns, std::string_view value) {
    add_keyed(timestamp_ns, std::nullopt, std::string(value));
  }

  void add_record(std::int64_t timestamp_ns, std::string_view value, const format::Extension& of) {
    add_keyed(timestamp_ns, std::nullopt, std::string(value), of);
  }

  // No value: a tombstone. With an extension if `of` names a producer; of a transaction if it names one.
  void add_keyed(std::int64_t timestamp_ns, const std::optional<std::string>& key,
                 const std::optional<std::string>& value, const format::Extension& of = {}) {
    const std::string_view body = value ? std::string_view(*value) : std::string_view();
    const std::string_view name = key ? std::string_view(*key) : std::string_view();
    const bool extended = of.producer_id != 0;
    auto attributes =
        static_cast<std::uint8_t>((key ? format::kHasKey : 0) | (value ? 0 : format::kNullValue));
    if (extended) attributes |= format::extension_attributes(of);
    const auto bytes = format::data_frame_bytes(name.size(), body.size(), 0);
    std::vector<std::byte> frame =
        headed(timestamp_ns, format::FrameType::data, attributes, static_cast<std::uint32_t>(name.size()),
               static_cast<std::uint32_t>(bytes + (extended ? format::kExtensionBytes : 0)));
    if (extended) {
      format::write_extended_body(frame.data(), of, name, body.data(), body.size(), {});
    } else {
      format::write_body(frame.data(), name, body.data(), body.size(), {});
    }
    add(frame, {end_, 0, next_offset_, 1, timestamp_ns, format::FrameType::data, std::string(body)});
  }
  void add_marker(std::int64_t timestamp_ns, format::MarkerKind kind, const format::Extension& extension) {
    std::vector<std::byte> frame =
        headed(timestamp_ns, format::FrameType::control, format::extension_attributes(extension), 0,
               format::kMarkerFrameBytes);
    format::write_marker_body(frame.data(), extension, kind);
    add(frame, {end_, 0, next_offset_, 1, timestamp_ns, format::FrameType::control, {}});
  }

  void add_filler(format::FrameType type, std::uint32_t extent, std::uint32_t records) {
    std::vector<std::uint64_t> words(extent / 8);
    format::write_filler(words.data(), type, extent, next_offset_, records);
    auto bytes = std::as_writable_bytes(std::span(words));
    add({bytes.begin(), bytes.end()}, {end_, 0, next_offset_, records, 0, type, {}});
  }

  // Everything added since the last call, as one run.
  FrameRun take_run() {
    FrameRun run;
    run.position = end_;
    run.first_offset = run.next_offset = next_offset_;
    for (std::size_t i = taken_; i < frames_.size(); ++i) {
      const MadeFrame& frame = frames_[i];
      if (i == taken_) run.position = frame.position, run.first_offset = frame.offset;
      run.bytes += frame.extent;
      if (frame.type == format::FrameType::data || frame.type == format::FrameType::control) {
        run.max_timestamp_ns = std::max(run.max_timestamp_ns, frame.timestamp_ns);
      }
    }
    taken_ = frames_.size();
    return run;
  }

 private:
  // Room for a frame of `length` bytes with its header.
  std::vector<std::byte> headed(std::int64_t timestamp_ns, format::FrameType type, std::uint8_t attributes,
                                std::uint32_t key_length, std::uint32_t length) const {
    std::vector<std::byte> frame(format::align_frame(length));
    format::FrameHeader header{};
    header.length = static_cast<std::int32_t>(length);
    header.type = type;
    header.attributes = attributes;
    header.offset = next_offset_.value();
    header.timestamp_ns = timestamp_ns;
    header.key_length = key_length;
    std::memcpy(frame.data(), &header, sizeof header);
    return frame;
  }

  void add(std::vector<std::byte> frame, MadeFrame made) {
    const std::uint32_t crc = format::frame_crc(frame);
    std::memcpy(frame.data() + offsetof(format::FrameHeader, crc32c), &crc, sizeof crc);
    made.extent = static_cast<std::uint32_t>(frame.size());
    const std::uint64_t at = (end_ - base_) % memory_.size();
    const std::size_t before_wrap = std::min<std::size_t>(frame.size(), memory_.size() - at);
    std::memcpy(memory_.data() + at, frame.data(), before_wrap);
    std::memcpy(memory_.data(), frame.data() + before_wrap, frame.size() - before_wrap);
    end_ += frame.size();
    next_offset_ += made.records;
    frames_.push_back(std::move(made));
  }

  AlignedBuffer memory_;
  Position base_;
  Position end_;
  Offset next_offset_;
  std::vector<MadeFrame> frames_;
  std::size_t taken_ = 0;
};

// A partition's directory with a writer over a backend that can fail.
class SegmentTest : public ::testing::Test {
 protected:
  SegmentTest() {
    config_.segment_bytes = 1 << 20;
    config_.index_interval_bytes = 4096;
  }

  void make_backend(IoBackend kind = IoBackend::pwrite) {
    writer_.reset();
    auto made = io::make_backend(kind, 16);
    ASSERT_TRUE(made) << made.error().message;
    backend_ = std::make_unique<testing::FaultyBackend>(std::move(*made));
  }

  // Recovers the directory; fills recovered_ and report_.
  Status recover(RecoveryOptions options = {}) {
    if (!backend_) make_backend();
    report_ = {};
    auto recovered = recover_partition(*backend_, dir(), kTestIdentity, options, report_);
    if (!recovered) return std::unexpected(recovered.error());
    recovered_ = std::move(*recovered);
    return {};
  }

  void open_writer(const FakeRing& ring) {
    writer_.reset();
    const Status done = recover();
    ASSERT_TRUE(done) << done.error().message;
    auto writer = SegmentWriter::open(*backend_, kTestIdentity, dir(), config_, recovered_);
    ASSERT_TRUE(writer) << writer.error().message;
    writer_ = std::move(*writer);
    writer_->set_source(ring.window());
  }

  // Appends what the ring took in as one run and makes it durable.
  void flush(FakeRing& ring) {
    writer_->append(ring.take_run());
    const Status flushed = writer_->flush_blocking();
    ASSERT_TRUE(flushed) << flushed.error().message;
  }

  // Pumps and reaps until nothing is in flight and nothing more is to be submitted.
  void settle() {
    for (writer_->pump(); writer_->busy(); writer_->pump()) reap_and_dispatch(*backend_, true);
  }

  // A log of `records` records of about `value_bytes` bytes, closed cleanly.
  void write_log(FakeRing& ring, int records, std::size_t value_bytes, int records_per_run = 10) {
    open_writer(ring);
    for (int i = 0; i < records; ++i) {
      ring.add_record(1000 + i, std::string(value_bytes, static_cast<char>('a' + i % 26)));
      if (i % records_per_run == records_per_run - 1) flush(ring);
    }
    flush(ring);
    writer_.reset();
  }

  // All frames that a reader gives up to `limit`, compared with what was made from `from` on.
  void expect_readable(const FakeRing& ring, Position from, Position limit) {
    auto reader = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 16 * 1024});
    ASSERT_TRUE(reader) << reader.error().message;
    Position at = from;
    auto made = ring.frames().begin();
    while (made != ring.frames().end() && made->position < from) ++made;
    while (at < limit) {
      const auto bytes = (*reader)->read(at, limit);
      ASSERT_TRUE(bytes) << bytes.error().message;
      ASSERT_FALSE(bytes->bytes.empty());
      for (std::size_t i = 0; i < bytes->bytes.size(); ++made) {
        ASSERT_NE(made, ring.frames().end());
        const auto header = format::load_header(bytes->bytes.data() + i);
        ASSERT_EQ(at + i, made->position);
        ASSERT_EQ(header.offset, made->offset.value());
        ASSERT_EQ(header.type, made->type);
        if (made->type == format::FrameType::data) {
          ASSERT_EQ(format::decode_record(bytes->bytes.data() + i, nullptr).value, made->value);
        }
        i += made->extent;
      }
      at += bytes->bytes.size();
    }
    ASSERT_EQ(at, limit);
  }

  const std::filesystem::path& dir() const { return scratch_.path(); }
  std::filesystem::path log_file(std::uint64_t base_offset) const {
    return segment_path(dir(), format::FileKind::log, Offset(base_offset));
  }
  std::filesystem::path index_file(std::uint64_t base_offset) const {
    return segment_path(dir(), format::FileKind::index, Offset(base_offset));
  }
  std::filesystem::path time_index_file(std::uint64_t base_offset) const {
    return segment_path(dir(), format::FileKind::time_index, Offset(base_offset));
  }
  std::vector<Offset> logs() const { return list_segments(dir()).value().logs; }

  bool has_finding(RecoveryCase what) const {
    return std::ranges::any_of(report_.findings, [&](const RecoveryFinding& f) { return f.what == what; });
  }

  static void overwrite(const std::filesystem::path& path, std::uint64_t at, std::string_view bytes) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(file.good());
  }
  testing::ScratchDir scratch_;
  TopicConfig config_;
  std::unique_ptr<testing::FaultyBackend> backend_;
  std::unique_ptr<SegmentWriter> writer_;
  RecoveredLog recovered_;
  RecoveryReport report_;
};

}  // namespace ringtail::log
