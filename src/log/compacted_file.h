// Writes one compacted segment under a name of its own, to take the place of the segments whose frames it
// keeps. Kept frames stand one behind the other; a pad frame stands for the offsets that are missing
// between two of them, and behind the last.
//
// Thread safety: one thread, that of the Backend. Process safety: for the holder of the keeper role.
// Lifetime: until it is installed, destruction removes the files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "format/frame.h"
#include "log/segment_walk.h"

namespace ringtail::log {

class CompactedFile {
 public:
  // Begins the file of the segment that `first`, the header of the first segment it replaces, begins.
  // Blocks. Errors: no_space, permission_denied, read_only, system.
  static Result<std::unique_ptr<CompactedFile>> create(io::Backend& backend, const std::filesystem::path& dir,
                                                       const format::FileHeader& first);
  ~CompactedFile();
  CompactedFile(const CompactedFile&) = delete;
  CompactedFile& operator=(const CompactedFile&) = delete;

  // Keeps a valid frame; offsets must rise. Blocks. Errors: storage_failed, no_space.
  Status keep(std::span<const std::byte> frame);

  // Writes the rest. Durable on return: the log under its own name; its indexes are hints. Blocks.
  // Errors: storage_failed, no_space, permission_denied, read_only, system.
  struct Ending {
    Position end_position{0};  // of the last segment that is replaced
    Offset next_offset{0};
    std::uint32_t compactions = 0;
    std::int64_t tombstones_since_ns = 0;  // 0: it keeps no tombstone
  };
  Status finish(const Ending& ending);

  // Renames log and indexes to the names of the segment. Between the log's renaming and the last of the
  // indexes' the old indexes are told from the new log by their number of compactions. Requires finish.
  // Durable on return: the log in its place. Blocks. Errors: not_found, permission_denied, read_only,
  // system; `installed()` says whether the log is in its place nevertheless.
  Status install(const std::filesystem::path& log_path);
  bool installed() const { return installed_; }

  // Bytes of the whole file, once it is finished.
  std::uint64_t file_bytes() const { return format::file_offset(walk_.base_position, position_); }
  std::int64_t max_timestamp_ns() const { return walk_.max_timestamp_ns; }

 private:
  CompactedFile(io::Backend& backend, const std::filesystem::path& dir, const format::FileHeader& first);

  Status fill_gap(Offset next);
  Status put(std::span<const std::byte> frame);
  Status write_buffer(std::size_t bytes);
  Status write(std::span<const std::byte> blocks, std::uint64_t at);

  io::Backend& backend_;
  std::filesystem::path dir_;
  std::filesystem::path path_;
  format::FileHeader header_;
  io::File file_;
  SegmentWalk walk_;
  Position position_{0};  // behind the last frame
  AlignedBuffer buffer_;
  std::size_t filled_ = 0;
  std::uint64_t written_ = 0;  // bytes of the file before the buffer
  bool installed_ = false;
};

}  // namespace ringtail::log
