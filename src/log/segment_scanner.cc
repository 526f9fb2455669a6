#include "log/segment_scanner.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace ringtail::log {

using format::FrameFault;

namespace {

constexpr std::uint64_t kChunkBytes = 256 << 10;
// How far offsets may jump to still be taken for a continuation of the same log.
constexpr std::uint64_t kPlausibleOffsets = std::uint64_t{1} << 32;

std::uint64_t leading_zero_words(std::span<const std::byte> bytes) {
  std::uint64_t at = 0;
  std::uint64_t word = 0;
  for (; at + sizeof word <= bytes.size(); at += sizeof word) {
    std::memcpy(&word, bytes.data() + at, sizeof word);
    if (word != 0) break;
  }
  return at;
}

}  // namespace

Error frame_error(const std::filesystem::path& path, Position position, FrameFault fault,
                  std::string_view damage) {
  if (fault == FrameFault::foreign)
    return {Code::incompatible_layout, 0,
            fmt::format(
                "{}: the frame at position {} is of a type or version that this release does not know, and "
                "its checksum is right; use the Ringtail release that wrote it",
                path.string(), position.value())};
  return {Code::corrupt, 0,
          fmt::format("{}: no valid frame at position {} ({}){}", path.string(), position.value(),
                      format::to_string(fault), damage)};
}

Result<FrameScanner::Step> FrameScanner::next() {
  Step step;
  step.position = position_;
  const auto bytes = frame_at(position_);
  if (!bytes) return std::unexpected(bytes.error());
  if (bytes->empty()) {
    step.fault = FrameFault::empty;
    return step;
  }
  step.fault = format::check_frame(*bytes, expected_offset_);
  if (step.fault != FrameFault::none) return step;
  step.header = format::load_header(bytes->data());
  const std::uint32_t extent = format::align_frame(static_cast<std::uint32_t>(step.header.length));
  step.frame = bytes->first(extent);
  position_ += extent;
  expected_offset_ = static_cast<std::int64_t>(step.header.offset + format::frame_records(step.header));
  return step;
}

Result<FrameScanner::Remains> FrameScanner::look_behind() {
  Remains remains;
  remains.garbage_end = position_;
  // What read-ahead put into the page cache would count as data, and it would go on ahead of us: skip_hole
  // would never see a hole.
  ::posix_fadvise(file_.fd(), 0, 0, POSIX_FADV_DONTNEED);
  ::posix_fadvise(file_.fd(), 0, 0, POSIX_FADV_RANDOM);
  Position p = position_;
  while (p < range_.limit) {
    if (p == format::block_down(p)) p = skip_hole(p);
    auto bytes = bytes_at(p, format::kBlockBytes);
    if (!bytes) return std::unexpected(bytes.error());
    if (bytes->empty()) break;
    const std::uint64_t in_block = format::kBlockBytes - p.value() % format::kBlockBytes;
    const auto block = bytes->first(std::min<std::uint64_t>(bytes->size(), in_block));
    const std::uint64_t zeros = leading_zero_words(block);
    p += zeros;
    if (zeros == block.size()) continue;
    const std::uint64_t width = std::min<std::uint64_t>(sizeof(std::uint64_t), block.size() - zeros);
    if (std::ranges::any_of(block.subspan(zeros, width), [](std::byte b) { return b != std::byte{0}; })) {
      remains.garbage_end = p + width;
    }
    if (!remains.valid_frame) {
      const auto offset = later_frame(p);
      if (!offset) return std::unexpected(offset.error());
      if (*offset) {
        remains.valid_frame = p;
        remains.valid_offset = **offset;
      }
    }
    p += width;
  }
  return remains;
}

Result<std::optional<std::uint64_t>> FrameScanner::later_frame(Position p) {
  const auto head = bytes_at(p, format::kFrameHeaderBytes);
  if (!head) return std::unexpected(head.error());
  if (head->size() < format::kFrameHeaderBytes) return std::nullopt;
  // The offset goes first: it is cheap, and spares the CRC of most of what only looks like a frame.
  const std::uint64_t offset = format::load_header(head->data()).offset;
  const std::uint64_t least = expected_offset_ < 0 ? 0 : static_cast<std::uint64_t>(expected_offset_);
  if (offset < least || offset - least > kPlausibleOffsets) return std::nullopt;
  const auto bytes = frame_at(p);
  if (!bytes) return std::unexpected(bytes.error());
  const FrameFault fault = format::check_frame(*bytes, -1);
  if (fault != FrameFault::none && fault != FrameFault::foreign) return std::nullopt;
  return offset;
}

Result<std::span<const std::byte>> FrameScanner::frame_at(Position p) {
  auto bytes = bytes_at(p, format::kFrameHeaderBytes);
  if (!bytes || bytes->size() < sizeof(std::uint64_t)) return bytes;
  std::uint64_t word;
  std::memcpy(&word, bytes->data(), sizeof word);
  if (!format::word_is_resolved(word)) return bytes;
  const std::uint32_t extent = format::word_extent(word);
  return extent <= bytes->size() || extent > format::kMaxFrameBytes ? bytes : bytes_at(p, extent);
}

Result<std::span<const std::byte>> FrameScanner::bytes_at(Position p, std::uint64_t bytes) {
  using Bytes = std::span<const std::byte>;
  if (p >= range_.limit) return Bytes{};
  const std::uint64_t wanted = std::min(bytes, range_.limit - p);
  if (p < buffer_begin_ || p + wanted > buffer_begin_ + buffered_) {
    // Chunks begin at blocks of the file, and reach a chunk beyond what is wanted.
    const Position begin = format::block_down(p);
    const std::uint64_t room = format::block_up(p - begin + std::max(wanted, kChunkBytes));
    if (room > buffer_.size()) buffer_ = AlignedBuffer(room);
    buffered_ = 0;
    const auto into = buffer_.span().first(std::min<std::uint64_t>(buffer_.size(), range_.limit - begin));
    const auto got = read_at(backend_, file_, into, format::file_offset(range_.base, begin), path_);
    if (!got) return std::unexpected(got.error());
    buffer_begin_ = begin;
    buffered_ = *got;
  }
  const std::uint64_t at = p - buffer_begin_;
  return at < buffered_ ? Bytes(buffer_.span().subspan(at, buffered_ - at)) : Bytes{};
}

// Preallocated space that was never written need not be read to know that it is zero.
Position FrameScanner::skip_hole(Position p) const {
  const std::uint64_t here = format::file_offset(range_.base, p);
  const off_t data = ::lseek(file_.fd(), static_cast<off_t>(here), SEEK_DATA);
  if (data < 0) return errno == ENXIO ? range_.limit : p;
  return p + (static_cast<std::uint64_t>(data) - here);
}

}  // namespace ringtail::log
