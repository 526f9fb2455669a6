// The frames of a partition one behind the other, as a ring would have them, and their way into segment files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "format/frame.h"
#include "golden.h"
#include "log/frame_run.h"

namespace ringtail::golden {

// Segments end at multiples of this: what is put into one must be less.
inline constexpr std::uint64_t kSegmentBytes = 8192;

class Tape {
 public:
  struct Body {
    std::optional<std::string_view> key = {};
    std::optional<std::string_view> value = {};
    std::span<const Header> headers = {};
    format::Extension of = {};  // without a producer id: none
  };

  // Each at the next offset, a second behind the last.
  void record(const Body& body, format::FrameType type = format::FrameType::data);
  void marker(format::MarkerKind kind, const format::Extension& of);
  void aborted(std::uint32_t extent, std::uint32_t records) {
    filler(format::FrameType::aborted, extent, records);
  }
  void pad(std::uint32_t extent) { filler(format::FrameType::pad, extent, 0); }
  // Pads up to where the next segment begins.
  void end_segment();

  std::span<const std::byte> bytes() const { return bytes_; }
  std::uint64_t next_offset() const { return next_offset_; }

  // Writes all of it into the partition's directory, in segments as they were ended.
  void write(const std::filesystem::path& dir, const Topic& topic) const;

 private:
  void filler(format::FrameType type, std::uint32_t extent, std::uint32_t records);
  void put(std::vector<std::byte> frame, std::uint64_t offsets, std::int64_t timestamp_ns);

  std::vector<std::byte> bytes_;
  std::uint64_t next_offset_ = 0;
  std::vector<log::FrameRun> runs_;  // a segment each
  log::FrameRun run_;                // the one being filled
};

// The time of the record at `offset`.
constexpr std::int64_t time_of(std::uint64_t offset) {
  return kTime + static_cast<std::int64_t>(offset) * 1'000'000'000;
}

}  // namespace ringtail::golden
