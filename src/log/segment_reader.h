// Reads a partition's frames back from its segment files: what consumers do behind the ring.
//
// Thread safety: one thread at a time. Process safety: any number of readers in any process, beside
// the keeper that writes; a reader sees only what is durable. Lifetime: a segment that is deleted
// while it is being read stays readable to the reader that has it open.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "format/segment.h"
#include "io/file_bytes.h"
#include "log/segment_files.h"

namespace ringtail::log {

struct SegmentReaderOptions {
  std::size_t read_ahead_bytes = 4 * 1024 * 1024;
};

// What a read gives.
struct SegmentFrames {
  std::span<const std::byte> bytes;
  Position position{0};  // of the first of them
  // The positions count in a compacted file: in the ring, and before the compaction, other frames are or
  // were there.
  bool compacted = false;
};

// Frames that a file has next, which nobody has looked at.
struct UncheckedSegmentFrames {
  io::FileBytes bytes;
  Position end{0};
  Offset next{0};  // behind the last record of them
};

class SegmentReader {
 public:
  // Blocks. Errors: not_found, permission_denied, system.
  static Result<std::unique_ptr<SegmentReader>> open(const std::filesystem::path& dir,
                                                     const format::SegmentIdentity& identity,
                                                     const SegmentReaderOptions& options = {});
  ~SegmentReader();

  // Where the frame stands that holds `offset`, or `durable_limit` when it is the offset that follows
  // the last one before it. Blocks.
  // Errors: offset_out_of_range, corrupt, incompatible_layout, storage_failed.
  Result<Position> locate(Offset offset, Position durable_limit);
  // The first record before `durable_limit` with a timestamp of at least `timestamp_ns`; nothing when
  // there is none. Blocks. Errors: as locate.
  Result<std::optional<Offset>> locate_time(std::int64_t timestamp_ns, Position durable_limit);

  // The next read begins at `position`, which must be where a frame starts, or was until compaction moved
  // what stands there: then at the frame that holds `next`, the offset which is read next. Blocks.
  // Errors: offset_out_of_range (before the first segment), corrupt, incompatible_layout, storage_failed.
  Status seek(Position position, std::optional<Offset> next = {});

  // Whole frames from `at` on, each checked (structure, CRC, offset continuity), as many as are
  // buffered, all before `durable_limit`, which must be the end of a frame; at least one unless
  // at == durable_limit. Seeks by itself when `at` and `next` are not where the last read ended. In a
  // compacted log, what is given begins elsewhere than `at` where frames have moved or are gone, maybe
  // with frames before `next`; none is left when its position is durable_limit. The bytes stay valid
  // until the next call. Blocks.
  // Errors: corrupt (names file and position), offset_out_of_range (retention has deleted what would
  // come next), incompatible_layout, storage_failed.
  Result<SegmentFrames> read(Position at, Position durable_limit, std::optional<Offset> next = {});

  // Frames from `at` on as they stand in the file: up to the last place within `most_bytes`, in the same segment and
  // before `durable_limit`, where its index knows a frame to begin. Whoever gets them has to check them.
  // `next`: the offset that stands at `at`. Nothing, and nothing done, where there is no such place (the index is
  // read once a segment), or no memory, or no segment to be read: `read` tells more. Blocks.
  std::optional<UncheckedSegmentFrames> read_unchecked(Position at, Position durable_limit, Offset next,
                                                       std::size_t most_bytes);

 private:
  class Impl;
  explicit SegmentReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringtail::log
