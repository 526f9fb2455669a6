// A walk over the frames of a segment that gathers what its indexes have to say, and the writing of
// indexes from that: how recovery makes up for an index that is missing, invalid or behind.
//
// Thread safety: one thread, that of the Backend. Process safety: for the holder of the keeper role.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "format/segment.h"
#include "log/segment_scanner.h"

namespace ringtail::log {

struct SegmentWalk {
  Position base_position{0};
  Offset base_offset{0};
  FrameScanner::Step end{};  // the fault that ended the walk
  Offset next_offset{0};
  std::int64_t max_timestamp_ns = format::kNoTimestamp;
  std::uint64_t walked_bytes = 0;
  std::vector<format::IndexEntry> index;
  std::vector<format::TimeIndexEntry> time_index;

  // A walk that begins where `header` says.
  static SegmentWalk begin(const format::FileHeader& header);
  // Notes the frame at `position`, which is the next.
  void note(Position position, const format::FrameHeader& header);
  // Goes on with `scanner`, which stands where this walk does, up to the first fault. Blocks.
  // Errors: storage_failed.
  Status go(FrameScanner& scanner);
};

// Whether a frame of this type carries a record's timestamp.
constexpr bool has_timestamp(format::FrameType type) {
  return type != format::FrameType::pad && type != format::FrameType::aborted;
}

// Writes both index files of a segment that a walk has gone through to its end. The last entry says
// walk.end.position.
// Durable on return: nothing. Blocks. Errors: no_space, permission_denied, storage_failed, system.
Status write_indexes(io::Backend& backend, const std::filesystem::path& log_path,
                     const format::FileHeader& log_header, const SegmentWalk& walk);

}  // namespace ringtail::log
