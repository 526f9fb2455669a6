// How a ring hands its frames to the segment files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/segment.h"
#include "ringtail/types.h"

namespace ringtail::log {

// Whole, valid frames next to each other, with their CRCs filled in.
struct FrameRun {
  Position position{0};
  std::uint32_t bytes = 0;
  Offset first_offset{0};
  Offset next_offset{0};
  std::int64_t max_timestamp_ns = format::kNoTimestamp;  // kNoTimestamp when no record is in it
};

// Memory in which the byte of position p stands at base[(p - base_position) % bytes].
struct SourceWindow {
  const std::byte* base = nullptr;  // page aligned
  Position base_position{0};        // a multiple of 4096
  std::uint64_t bytes = 0;          // a multiple of 4096
};

}  // namespace ringtail::log
