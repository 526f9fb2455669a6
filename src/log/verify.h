// Looks at every byte of a partition's segment files and says what is in them and what is wrong, with
// the decoding that recovery and readers use. What `ringtail log verify` and `ringtail log dump` call.
//
// Thread safety: one call at a time with its own files; calls are independent. Process safety:
// read-only, beside a keeper that writes: what it has not synced yet is no fault.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/frame.h"
#include "format/segment.h"
#include "ringtail/error.h"

namespace ringtail::log {

struct VerifyFault {
  std::filesystem::path path;
  Position position{0};
  std::string message;
};

struct SegmentVerification {
  std::filesystem::path path;
  Offset base_offset{0};
  Offset next_offset{0};
  Position base_position{0};
  Position end_position{0};
  std::uint64_t frames = 0;
  std::uint64_t records = 0;
  std::uint64_t markers = 0;  // of transactions
  std::uint64_t aborted_frames = 0;
  std::uint64_t aborted_records = 0;  // offsets that aborted frames use up
  std::uint64_t pad_frames = 0;
  std::uint64_t pad_bytes = 0;
  std::uint64_t bytes = 0;  // of valid frames
  std::uint64_t index_entries = 0;
  std::int64_t max_timestamp_ns = format::kNoTimestamp;
};

struct PartitionVerification {
  std::vector<SegmentVerification> segments;
  std::vector<VerifyFault> faults;
  // Behind the end of the log in the last file: bytes that were written but not known to be synced.
  std::uint64_t unsynced_bytes = 0;

  SegmentVerification total() const;  // path empty
};

struct VerifyOptions {
  // Whose files they should be; nothing: those of one and the same partition.
  std::optional<format::SegmentIdentity> identity = {};
  // What is known to be durable; nothing: what the last segment's index says.
  std::optional<Position> durable_limit = {};
};

// Checks all segments in `dir`: headers, every frame with its CRC, continuity within and between
// segments, and each index entry. Faults are results, not errors; after one it goes on at the next
// valid frame. Blocks. Errors: not_found, permission_denied, storage_failed (unreadable), system.
Result<PartitionVerification> verify_partition(const std::filesystem::path& dir,
                                               const VerifyOptions& options = {});

// A frame, or a stretch without one.
struct DumpedFrame {
  Position position{0};
  format::FrameFault fault = format::FrameFault::none;
  std::span<const std::byte> frame = {};  // without fault; format::describe_frame makes it text
};

struct DumpOptions {
  Position from{0};  // frames that start before it are passed over
};

// Gives the frames of one .log file to `sink`, which returns whether to go on. Behind a fault the dump
// continues at the next valid frame; free space at the end is not reported. Blocks. Returns the header.
// Errors: not_found, permission_denied, corrupt and incompatible_layout (the header), storage_failed.
Result<format::FileHeader> dump_segment(const std::filesystem::path& log_path, const DumpOptions& options,
                                        const std::function<bool(const DumpedFrame&)>& sink);

}  // namespace ringtail::log
