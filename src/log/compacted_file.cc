#include "log/compacted_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <tuple>

#include <fmt/format.h>

#include "base/result.h"
#include "log/io_operation.h"

namespace ringtail::log {

using format::FileKind;

namespace {

constexpr std::size_t kBufferBytes = 1 << 20;
constexpr std::uint64_t kMostOffsets = std::numeric_limits<std::uint32_t>::max();  // that one pad stands for

}  // namespace

CompactedFile::CompactedFile(io::Backend& backend, const std::filesystem::path& dir,
                             const format::FileHeader& first)
    : backend_(backend),
      dir_(dir),
      path_(compaction_path(dir, Offset(first.base_offset))),
      header_(first),
      walk_(SegmentWalk::begin(first)),
      position_(walk_.base_position),
      buffer_(kBufferBytes),
      filled_(first.base_position % format::kBlockBytes),
      written_(format::kBlockBytes) {}

Result<std::unique_ptr<CompactedFile>> CompactedFile::create(io::Backend& backend,
                                                             const std::filesystem::path& dir,
                                                             const format::FileHeader& first) {
  std::unique_ptr<CompactedFile> file(new CompactedFile(backend, dir, first));
  auto opened = backend.open(file->path_, io::OpenMode::write_direct);
  if (!opened) return std::unexpected(opened.error());
  file->file_ = std::move(*opened);
  // A round that failed may have left bytes.
  if (auto emptied = backend.truncate(file->file_, 0); !emptied) return std::unexpected(emptied.error());
  return file;
}

CompactedFile::~CompactedFile() {
  if (!file_.is_open() || installed_) return;
  // Should this fail, recovery removes the files.
  std::ignore = remove_segment(backend_, path_);
}

Status CompactedFile::keep(std::span<const std::byte> frame) {
  if (auto filled = fill_gap(Offset(format::load_header(frame.data()).offset)); !filled) return filled;
  return put(frame);
}

// Each pad takes the place of at least one frame that was dropped, so what is kept never outgrows what was.
Status CompactedFile::fill_gap(Offset next) {
  while (walk_.next_offset < next) {
    const auto records = static_cast<std::uint32_t>(std::min(next - walk_.next_offset, kMostOffsets));
    alignas(8) std::array<std::byte, format::kFrameHeaderBytes> pad{};
    format::write_filler(pad.data(), format::FrameType::pad, format::kFrameHeaderBytes, walk_.next_offset,
                         records);
    const std::uint32_t crc = format::frame_crc(pad);
    std::memcpy(pad.data() + offsetof(format::FrameHeader, crc32c), &crc, sizeof crc);
    if (auto done = put(pad); !done) return done;
  }
  return {};
}

Status CompactedFile::put(std::span<const std::byte> frame) {
  walk_.note(position_, format::load_header(frame.data()));
  position_ += frame.size();
  while (!frame.empty()) {
    const std::size_t part = std::min(frame.size(), buffer_.size() - filled_);
    std::memcpy(buffer_.data() + filled_, frame.data(), part);
    filled_ += part;
    frame = frame.subspan(part);
    if (filled_ < buffer_.size()) continue;
    if (auto done = write_buffer(filled_); !done) return done;
  }
  return {};
}

Status CompactedFile::write_buffer(std::size_t bytes) {
  if (auto done = write(buffer_.span().first(bytes), written_); !done) return done;
  written_ += bytes;
  filled_ = 0;
  return {};
}

Status CompactedFile::write(std::span<const std::byte> blocks, std::uint64_t at) {
  const std::int64_t result =
      run_blocking(backend_, [&](std::uint64_t token) { backend_.submit_write(file_, blocks, at, token); });
  if (result == static_cast<std::int64_t>(blocks.size())) return {};
  return fail_errno(result < 0 ? static_cast<int>(-result) : EIO,
                    fmt::format("cannot write '{}'", path_.string()));
}

Status CompactedFile::finish(const Ending& ending) {
  if (auto done = fill_gap(ending.next_offset); !done) return done;
  const std::size_t tail = format::block_up(filled_);
  std::memset(buffer_.data() + filled_, 0, tail - filled_);
  if (tail > 0) {
    if (auto done = write_buffer(tail); !done) return done;
  }

  header_.compactions = ending.compactions;
  header_.created_ns = ending.tombstones_since_ns;
  header_.synced_position = ending.end_position.value();
  header_.synced_offset = ending.next_offset.value();
  header_.frame_words = static_cast<std::uint32_t>((position_ - walk_.base_position) / 8);
  AlignedBuffer block(format::kBlockBytes);
  format::encode_header(header_, block.span());
  if (auto done = write(block.span(), 0); !done) return done;
  if (auto done = backend_.truncate(file_, file_bytes()); !done) return done;
  if (auto done = backend_.sync_file(file_); !done) return done;
  walk_.end.position = ending.end_position;
  return write_indexes(backend_, path_, header_, walk_);
}

Status CompactedFile::install(const std::filesystem::path& log_path) {
  if (auto done = backend_.rename(path_, log_path); !done) return done;
  installed_ = true;
  for (const FileKind kind : {FileKind::index, FileKind::time_index}) {
    if (auto done = backend_.rename(sibling(path_, kind), sibling(log_path, kind)); !done) return done;
  }
  return backend_.sync_directory(dir_);
}

}  // namespace ringtail::log
