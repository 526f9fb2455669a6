// Writes one index file (offsets or times) beside a log file. Entries are kept in memory for the life
// of the segment and go to the file in whole blocks, so that they share the log's direct, asynchronous
// path. The header of an offset index also carries how far the log is known to be synced; that mark
// lets recovery tell damage from writes that a crash cut off.
//
// Thread safety: one thread, that of the Backend. Process safety: one writer (the keeper); readers see
// whole entries followed by zeros. Lifetime: must not be destroyed while busy().
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "format/segment.h"
#include "log/io_operation.h"
#include "log/segment_files.h"

namespace ringtail::log {

class IndexFile {
 public:
  // Makes the file anew with these entries, with space for `capacity` of them. Blocks. Durable on
  // return: nothing. The entries are hints, whose loss costs recovery time and no records; for the mark
  // see sync.
  // Errors: no_space, permission_denied, read_only, storage_failed, system.
  static Result<std::unique_ptr<IndexFile>> create(io::Backend& backend, std::filesystem::path path,
                                                   const format::FileHeader& header,
                                                   std::vector<RawEntry> entries, std::uint64_t capacity);

  // Notes an entry of synced bytes. Entries beyond the capacity are dropped: they are hints, and
  // their space would no longer be reserved.
  void add(RawEntry entry);
  // Notes how far the log is synced.
  void set_synced(Position position, Offset offset);
  std::span<const RawEntry> entries() const { return entries_; }

  // Submits what is worth a write, as far as nothing is in flight for it. Does not block.
  void pump();
  bool busy() const { return header_write_.in_flight || entries_write_.in_flight; }
  // A write that failed. Nothing is submitted afterwards.
  const std::optional<Error>& failure() const { return failure_; }

  // Writes everything. Blocks. Durable on return: nothing. Errors: storage_failed.
  Status flush();
  // Makes durable what was flushed, but for the file's name. Once a file of offsets has a header on disk,
  // recovery finds a mark, an older one at worst. Blocks. Errors: storage_failed, system.
  Status sync() { return backend_.sync_file(file_); }
  // The same with a last entry (if any), for which there is always room, and cuts off the unused
  // space. Blocks. Durable on return: nothing. Errors: storage_failed, system.
  Status finish(std::optional<RawEntry> last);

 private:
  struct BlockWrite final : IoOperation {
    explicit BlockWrite(IndexFile& owner) : owner_file(owner), buffer(format::kBlockBytes) {}
    void complete(std::int64_t result) override;

    IndexFile& owner_file;
    AlignedBuffer buffer;
    bool in_flight = false;
  };

  IndexFile(io::Backend& backend, std::filesystem::path path, const format::FileHeader& header,
            std::vector<RawEntry> entries, std::uint64_t capacity)
      : backend_(backend),
        path_(std::move(path)),
        header_(header),
        entries_(std::move(entries)),
        capacity_(capacity) {}

  void submit_header();
  void submit_entries();
  void submit(BlockWrite& write, std::uint64_t file_offset);

  io::Backend& backend_;
  std::filesystem::path path_;
  io::File file_;
  format::FileHeader header_;
  bool header_changed_ = true;
  std::vector<RawEntry> entries_;
  std::uint64_t capacity_;
  std::uint64_t written_ = 0;  // entries that were submitted
  BlockWrite header_write_{*this};
  BlockWrite entries_write_{*this};
  std::optional<Error> failure_;
};

}  // namespace ringtail::log
