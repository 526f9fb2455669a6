// The files of a partition: log, offset index and time index. segment.md beside this file is the
// specification with a worked example.
//
// All three begin with one block of kBlockBytes, of which the first sizeof(FileHeader) bytes are the
// header and the rest is zero. In a log file frames follow: the byte of position p stands at
//
//     kBlockBytes + (p - align_down(base_position, kBlockBytes))
//
// so that a block of ring memory is a block of the file, wherever a segment begins. In the index
// files 16-byte entries follow, ascending; an entry of zeros ends them.
//
// Thread and process safety: everything here is a pure function.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ringtail/error.h"
#include "ringtail/types.h"

namespace ringtail::format {

inline constexpr std::uint64_t kBlockBytes = 4096;
inline constexpr std::uint32_t kSegmentVersion = 1;
inline constexpr std::int64_t kNoTimestamp = std::numeric_limits<std::int64_t>::min();

// Whose file it is: a file that was copied to another log or partition is refused.
struct SegmentIdentity {
  std::array<std::uint64_t, 2> log_id{};
  std::uint64_t topic_id = 0;
  PartitionId partition{0};

  friend bool operator==(const SegmentIdentity&, const SegmentIdentity&) = default;
};

enum class FileKind : std::uint8_t { log, index, time_index };

inline constexpr std::uint64_t kLogMagic = 0x31474f4c'4c544752;        // "RGTLLOG1"
inline constexpr std::uint64_t kIndexMagic = 0x31584449'4c544752;      // "RGTLIDX1"
inline constexpr std::uint64_t kTimeIndexMagic = 0x31584d54'4c544752;  // "RGTLTMX1"

// Little-endian. The CRC covers all that stands before it.
struct FileHeader {
  std::uint64_t magic;  // which kind of file
  std::uint32_t layout_version;
  std::uint32_t header_bytes;  // sizeof(FileHeader)
  std::array<std::uint64_t, 2> log_id;
  std::uint64_t topic_id;
  std::uint32_t partition;
  std::uint32_t compactions;      // how often the segment was compacted: ties its indexes to its log
  std::uint64_t base_offset;      // of the first record; also the file's name
  std::uint64_t base_position;    // of the first frame
  std::int64_t created_ns;        // compacted log: since when tombstones, markers are alone, or 0
  std::uint64_t synced_position;  // index: the log was synced at least up to here; compacted log: its end
  std::uint64_t synced_offset;    // the offset that follows there; both are 0 in other files
  std::uint32_t frame_words;      // compacted log: bytes of its frames / 8; else 0
  std::uint32_t crc32c;
};
static_assert(sizeof(FileHeader) == 96);
static_assert(offsetof(FileHeader, magic) == 0);
static_assert(offsetof(FileHeader, layout_version) == 8);
static_assert(offsetof(FileHeader, header_bytes) == 12);
static_assert(offsetof(FileHeader, log_id) == 16);
static_assert(offsetof(FileHeader, topic_id) == 32);
static_assert(offsetof(FileHeader, partition) == 40);
static_assert(offsetof(FileHeader, compactions) == 44);
static_assert(offsetof(FileHeader, base_offset) == 48);
static_assert(offsetof(FileHeader, base_position) == 56);
static_assert(offsetof(FileHeader, created_ns) == 64);
static_assert(offsetof(FileHeader, synced_position) == 72);
static_assert(offsetof(FileHeader, synced_offset) == 80);
static_assert(offsetof(FileHeader, frame_words) == 88);
static_assert(offsetof(FileHeader, crc32c) == 92);

// A frame of the log starts at `position`, and `offset` is the first it stands for. The last entry of
// a finished segment names its end.
struct IndexEntry {
  std::uint64_t offset;
  std::uint64_t position;

  friend bool operator==(const IndexEntry&, const IndexEntry&) = default;
};
static_assert(sizeof(IndexEntry) == 16);
static_assert(offsetof(IndexEntry, offset) == 0 && offsetof(IndexEntry, position) == 8);

// All records of the segment before `offset` have timestamps of at most `max_timestamp_ns`.
struct TimeIndexEntry {
  std::int64_t max_timestamp_ns;
  std::uint64_t offset;

  friend bool operator==(const TimeIndexEntry&, const TimeIndexEntry&) = default;
};
static_assert(sizeof(TimeIndexEntry) == 16);
static_assert(offsetof(TimeIndexEntry, max_timestamp_ns) == 0 && offsetof(TimeIndexEntry, offset) == 8);

// --- Geometry ------------------------------------------------------------------------------------

constexpr Position block_down(Position p) { return Position(p.value() & ~(kBlockBytes - 1)); }
constexpr Position block_up(Position p) {
  return Position((p.value() + kBlockBytes - 1) & ~(kBlockBytes - 1));
}
constexpr std::uint64_t block_up(std::uint64_t bytes) {
  return (bytes + kBlockBytes - 1) & ~(kBlockBytes - 1);
}

// Where the byte of position `p` stands in the log file that begins at `base`. Requires p >= base's block.
constexpr std::uint64_t file_offset(Position base, Position p) {
  return kBlockBytes + (p - block_down(base));
}
// The position that a log file of `file_bytes` bytes can reach. Requires file_bytes >= kBlockBytes.
constexpr Position end_in_file(Position base, std::uint64_t file_bytes) {
  return block_down(base) + (file_bytes - kBlockBytes);
}

// A compacted log file holds fewer frames than its part of the log had bytes. They stand at its beginning,
// one behind the other; where the next segment begins, its header says.
constexpr bool is_compacted(const FileHeader& log_header) { return log_header.compactions != 0; }
constexpr Position frames_end(const FileHeader& compacted) {
  return Position(compacted.base_position + std::uint64_t{compacted.frame_words} * 8);
}
constexpr Position segment_end(const FileHeader& compacted) { return Position(compacted.synced_position); }

// --- Headers and names ---------------------------------------------------------------------------

// The header of a new file; log and time index leave the synced fields at 0.
FileHeader make_header(FileKind kind, const SegmentIdentity& identity, Offset base_offset,
                       Position base_position, std::int64_t created_ns);

// Writes the header's whole block, with its CRC. Requires block.size() == kBlockBytes.
void encode_header(const FileHeader& header, std::span<std::byte> block);

// Reads and checks a header. `name` is the file's, for messages.
// Errors: corrupt (too short, magic, CRC, reserved fields), incompatible_layout (names both versions; or the byte
// order is the other one).
Result<FileHeader> decode_header(std::span<const std::byte> bytes, FileKind kind, std::string_view name);

// Errors: corrupt, when the header belongs to another log, topic or partition.
Status check_identity(const FileHeader& header, const SegmentIdentity& identity, std::string_view name);

SegmentIdentity identity_of(const FileHeader& header);

// "00000000000000000042.log", ".index", ".timeindex".
std::string segment_file_name(FileKind kind, Offset base_offset);
// The base offset in a name of that form and kind; nothing for any other name.
std::optional<Offset> parse_segment_file_name(FileKind kind, std::string_view name);

}  // namespace ringtail::format
