#include "tape.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "log/recovery.h"
#include "log/segment_writer.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::golden {

using format::FrameHeader;
using format::FrameType;

namespace {

namespace fs = std::filesystem;

void seal(std::vector<std::byte>& frame, const FrameHeader& header) {
  std::memcpy(frame.data(), &header, sizeof header);
  const std::uint32_t crc = format::frame_crc(frame);
  std::memcpy(frame.data() + offsetof(FrameHeader, crc32c), &crc, sizeof crc);
}

// When a file was made is the one thing in it that differs from run to run.
void fix_time(const fs::path& path, format::FileKind kind) {
  std::string bytes = testing::get_file(path);
  auto header = format::decode_header(std::as_bytes(std::span(bytes)), kind, path.string());
  ASSERT_TRUE(header) << header.error().message;
  header->created_ns = kCreated;
  std::vector<std::byte> block(format::kBlockBytes);
  format::encode_header(*header, block);
  std::memcpy(bytes.data(), block.data(), block.size());
  testing::put_file(path, bytes);
}

}  // namespace

void Tape::record(const Body& body, FrameType type) {
  const std::string_view key = body.key.value_or(std::string_view());
  const std::string_view value = body.value.value_or(std::string_view());
  const bool extended = body.of.producer_id != 0;
  const auto length = static_cast<std::uint32_t>(
      format::data_frame_bytes(key.size(), value.size(), format::encoded_headers_bytes(body.headers)) +
      (extended ? format::kExtensionBytes : 0));
  std::vector<std::byte> frame(format::align_frame(length));
  if (extended)
    format::write_extended_body(frame.data(), body.of, key, value.data(), value.size(), body.headers);
  else
    format::write_body(frame.data(), key, value.data(), value.size(), body.headers);
  unsigned attributes = extended ? format::extension_attributes(body.of) : 0u;
  if (body.key) attributes |= format::kHasKey;
  if (!body.value) attributes |= format::kNullValue;
  if (!body.headers.empty()) attributes |= format::kHasHeaders;
  const std::int64_t time = time_of(next_offset_);
  seal(frame, {.length = static_cast<std::int32_t>(length),
               .type = type,
               .attributes = static_cast<std::uint8_t>(attributes),
               .reserved = 0,
               .offset = next_offset_,
               .timestamp_ns = time,
               .key_length = static_cast<std::uint32_t>(key.size()),
               .crc32c = 0});
  put(std::move(frame), 1, time);
}

void Tape::marker(format::MarkerKind kind, const format::Extension& of) {
  std::vector<std::byte> frame(format::kMarkerFrameBytes);
  format::write_marker_body(frame.data(), of, kind);
  const std::int64_t time = time_of(next_offset_);
  seal(frame, {.length = static_cast<std::int32_t>(format::kMarkerFrameBytes),
               .type = FrameType::control,
               .attributes = format::extension_attributes(of),
               .reserved = 0,
               .offset = next_offset_,
               .timestamp_ns = time,
               .key_length = 0,
               .crc32c = 0});
  put(std::move(frame), 1, time);
}

void Tape::filler(FrameType type, std::uint32_t extent, std::uint32_t records) {
  std::vector<std::uint64_t> words(extent / sizeof(std::uint64_t));
  format::write_filler(words.data(), type, extent, Offset(next_offset_), records);
  const auto bytes = std::as_bytes(std::span(words));
  std::vector<std::byte> frame(bytes.begin(), bytes.end());
  seal(frame, format::load_header(frame.data()));
  put(std::move(frame), records, format::kNoTimestamp);
}

void Tape::put(std::vector<std::byte> frame, std::uint64_t offsets, std::int64_t timestamp_ns) {
  run_.bytes += static_cast<std::uint32_t>(frame.size());
  run_.max_timestamp_ns = std::max(run_.max_timestamp_ns, timestamp_ns);
  bytes_.insert(bytes_.end(), frame.begin(), frame.end());
  next_offset_ += offsets;
  run_.next_offset = Offset(next_offset_);
}

void Tape::end_segment() {
  pad(static_cast<std::uint32_t>(kSegmentBytes - bytes_.size() % kSegmentBytes));
  runs_.push_back(run_);
  run_ = {.position = Position(bytes_.size()), .first_offset = Offset(next_offset_)};
}

void Tape::write(const fs::path& dir, const Topic& topic) const {
  fs::create_directories(dir);
  auto backend = io::make_backend(IoBackend::pwrite, 16);
  ASSERT_TRUE(backend);
  log::AlignedBuffer memory(format::block_up(std::uint64_t{bytes_.size()}));
  std::memcpy(memory.data(), bytes_.data(), bytes_.size());
  log::RecoveryReport report;
  const auto recovered = log::recover_partition(**backend, dir, topic.identity(), {}, report);
  ASSERT_TRUE(recovered) << recovered.error().message;
  TopicConfig config;
  config.segment_bytes = kSegmentBytes;
  config.index_interval_bytes = 1024;
  auto writer = log::SegmentWriter::open(**backend, topic.identity(), dir, config, *recovered);
  ASSERT_TRUE(writer) << writer.error().message;
  (*writer)->set_source({memory.data(), Position(0), memory.size()});
  std::vector<log::FrameRun> runs = runs_;
  if (run_.bytes > 0) runs.push_back(run_);
  for (const log::FrameRun& run : runs) {
    (*writer)->append(run);
    const Status flushed = (*writer)->flush_blocking();
    ASSERT_TRUE(flushed) << flushed.error().message;
  }
  writer->reset();
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string suffix = entry.path().extension();
    if (suffix == ".log") fix_time(entry.path(), format::FileKind::log);
    if (suffix == ".index") fix_time(entry.path(), format::FileKind::index);
    if (suffix == ".timeindex") fix_time(entry.path(), format::FileKind::time_index);
  }
}

}  // namespace ringtail::golden
