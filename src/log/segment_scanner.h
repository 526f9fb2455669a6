// Walks the frames of one log file and checks each: what recovery, verification, the dump and the
// search behind an index entry have in common.
//
// Thread safety: one thread, that of the Backend. Process safety: the file may grow meanwhile; what
// stands behind the limit is not read. Lifetime: file and Backend must outlive the scanner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "format/frame.h"
#include "log/segment_files.h"

namespace ringtail::log {

// Where in a log file to begin and to end.
struct ScanRange {
  Position base{0};                   // of the file
  Position from{0};                   // of a frame
  std::int64_t expected_offset = -1;  // of that frame; negative: any
  Position limit{0};                  // end of the bytes to look at; the end of the file at most
};

// What is wrong with a file whose frame at `position` has `fault`: corrupt with `damage` behind it, or, of a frame
// that another release has written, incompatible_layout.
Error frame_error(const std::filesystem::path& path, Position position, format::FrameFault fault,
                  std::string_view damage);

class FrameScanner {
 public:
  FrameScanner(io::Backend& backend, const io::File& file, std::filesystem::path path, const ScanRange& range)
      : backend_(backend),
        file_(file),
        path_(std::move(path)),
        range_(range),
        position_(range.from),
        expected_offset_(range.expected_offset) {}

  // A frame, or what is wrong at `position`. At the limit: FrameFault::empty.
  struct Step {
    Position position{0};
    format::FrameFault fault = format::FrameFault::none;
    format::FrameHeader header{};           // only without fault
    std::span<const std::byte> frame = {};  // likewise; valid until the next call
  };
  // The next step; goes past a frame without fault and stays at one with. Blocks.
  // Errors: storage_failed (the file could not be read).
  Result<Step> next();

  // The frame to come.
  Position position() const { return position_; }
  std::int64_t expected_offset() const { return expected_offset_; }

  // What stands behind a fault at position(): decides between a torn tail and damage.
  struct Remains {
    Position garbage_end{0};              // behind the last byte that is not zero; else position()
    std::optional<Position> valid_frame;  // the first frame, valid or foreign, whose offset may follow
    std::uint64_t valid_offset = 0;
  };
  // Looks at everything up to the limit. Blocks. Errors: storage_failed.
  Result<Remains> look_behind();

  // Goes on at a frame that look_behind has found.
  void resume(Position position, std::uint64_t offset) {
    position_ = position;
    expected_offset_ = static_cast<std::int64_t>(offset);
  }

 private:
  // The bytes from `p` on: at least `bytes` of them unless the limit is nearer.
  Result<std::span<const std::byte>> bytes_at(Position p, std::uint64_t bytes);
  Result<std::span<const std::byte>> frame_at(Position p);
  // The offset of a valid frame at `p` that may come after position(), if there is one.
  Result<std::optional<std::uint64_t>> later_frame(Position p);
  Position skip_hole(Position p) const;

  io::Backend& backend_;
  const io::File& file_;
  std::filesystem::path path_;
  ScanRange range_;
  Position position_;
  std::int64_t expected_offset_;

  AlignedBuffer buffer_;
  Position buffer_begin_{0};  // position of the first byte in the buffer
  std::uint64_t buffered_ = 0;
};

}  // namespace ringtail::log
