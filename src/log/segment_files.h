// What the writer, the reader, recovery and verification share about the files of a partition's
// directory: listing, headers, index contents, prepared files.
//
// Thread safety: functions may run at the same time with different Backends. Process safety: only
// the keeper changes files; readers of other processes see whole entries or none.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/segment.h"
#include "io/backend.h"

namespace ringtail::log {

// One segment as it is known. `file_bytes` does not count preallocated space.
struct SegmentInfo {
  Offset base_offset{0};
  Offset next_offset{0};
  Position base_position{0};
  Position end_position{0};
  std::int64_t max_timestamp_ns = format::kNoTimestamp;  // of its records; kNoTimestamp without any
  std::uint64_t file_bytes = 0;
  std::filesystem::path path;   // of the .log
  std::int64_t created_ns = 0;  // as its header says
};

// An entry of either index file, as two words.
struct RawEntry {
  std::uint64_t first = 0;
  std::uint64_t second = 0;

  friend bool operator==(const RawEntry&, const RawEntry&) = default;
};
inline RawEntry raw(const format::IndexEntry& e) { return std::bit_cast<RawEntry>(e); }
inline RawEntry raw(const format::TimeIndexEntry& e) { return std::bit_cast<RawEntry>(e); }

// Memory that direct I/O accepts. Its content is zero at first.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Throws std::bad_alloc where there is no memory; try_make gives nothing.
  explicit AlignedBuffer(std::size_t bytes);
  static std::optional<AlignedBuffer> try_make(std::size_t bytes);

  std::byte* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }
  std::span<std::byte> span() const { return {memory_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

// The files of a partition's directory.
struct SegmentListing {
  std::vector<Offset> logs;                      // base offsets, ascending
  std::vector<std::filesystem::path> prepared;   // left by a keeper that died
  std::vector<std::filesystem::path> compacted;  // likewise, before they took the place of segments
  std::vector<std::filesystem::path> orphans;    // index files without their log
};
// Errors: not_found, permission_denied, system.
Result<SegmentListing> list_segments(const std::filesystem::path& dir);

// What a segment's log is called until compaction has written it whole; its indexes are siblings.
std::filesystem::path compaction_path(const std::filesystem::path& dir, Offset base_offset);

std::filesystem::path segment_path(const std::filesystem::path& dir, format::FileKind kind,
                                   Offset base_offset);
// The index file that belongs to a .log file.
std::filesystem::path sibling(const std::filesystem::path& log_path, format::FileKind kind);

// Errors: system.
Result<std::uint64_t> file_size(const io::File& file, const std::filesystem::path& path);

// Fills `bytes` as far as the file reaches, and returns how far. Blocks. Errors: storage_failed.
Result<std::size_t> read_at(io::Backend& backend, const io::File& file, std::span<std::byte> bytes,
                            std::uint64_t offset, const std::filesystem::path& path);

// Opens a file and checks its header: kind, layout, identity, and that its name says its base offset.
// Errors: not_found, permission_denied, corrupt, incompatible_layout, storage_failed.
struct OpenedFile {
  io::File file;
  format::FileHeader header;
  std::uint64_t bytes = 0;
};
Result<OpenedFile> open_checked(io::Backend& backend, const std::filesystem::path& path,
                                format::FileKind kind, const format::SegmentIdentity& identity);

// The content of an index file that is in order: its header fits `log_header`, both are of the same
// compaction, and its entries ascend within the segment. Errors: as open_checked.
struct IndexContent {
  format::FileHeader header;
  std::vector<format::IndexEntry> entries;
};
Result<IndexContent> read_index(io::Backend& backend, const std::filesystem::path& log_path,
                                const format::FileHeader& log_header);
Result<std::vector<format::TimeIndexEntry>> read_time_index(io::Backend& backend,
                                                            const std::filesystem::path& log_path,
                                                            const format::FileHeader& log_header);

// Deletes a segment, the log first: recovery removes an index without its log, and rebuilds the index of a
// log without one. What is missing already is no error. Not durable. Errors: permission_denied, read_only,
// system.
Status remove_segment(io::Backend& backend, const std::filesystem::path& log_path);

// A preallocated file without a name of its own yet.
struct PreparedSegment {
  io::File file;
  std::filesystem::path path;
  std::uint64_t bytes = 0;
};

// Makes a file of `bytes` bytes, all of them reserved, for SegmentWriter::offer. Blocks; meant for a
// thread other than the keeper's, with a Backend of its own. Nothing is left behind on failure.
// Errors: no_space, permission_denied, read_only, system.
Result<PreparedSegment> prepare_segment(io::Backend& backend, const std::filesystem::path& dir,
                                        std::uint64_t bytes);

}  // namespace ringtail::log
