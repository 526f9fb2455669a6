#include "log/segment_index.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/result.h"

namespace ringtail::log {
namespace {

constexpr std::uint64_t kEntriesPerBlock = format::kBlockBytes / sizeof(RawEntry);
// Entries wait for company: each write of a block costs as much as one of the log.
constexpr std::uint64_t kEntriesPerWrite = 64;

}  // namespace

Result<std::unique_ptr<IndexFile>> IndexFile::create(io::Backend& backend, std::filesystem::path path,
                                                     const format::FileHeader& header,
                                                     std::vector<RawEntry> entries, std::uint64_t capacity) {
  capacity = std::max<std::uint64_t>(capacity, entries.size() + 1);
  std::unique_ptr<IndexFile> index(
      new IndexFile(backend, std::move(path), header, std::move(entries), capacity));
  auto file = backend.open(index->path_, io::OpenMode::write_direct);
  if (!file) return std::unexpected(file.error());
  index->file_ = std::move(*file);
  // What an earlier file left behind these entries must not be taken for more of them.
  const std::uint64_t kept = format::kBlockBytes + index->entries_.size() * sizeof(RawEntry);
  if (auto cut = backend.truncate(index->file_, kept); !cut) return std::unexpected(cut.error());
  const std::uint64_t bytes = format::kBlockBytes + format::block_up(capacity * sizeof(RawEntry));
  if (auto reserved = backend.preallocate(index->file_, bytes); !reserved) {
    return std::unexpected(reserved.error());
  }
  if (auto written = index->flush(); !written) return std::unexpected(written.error());
  return index;
}

void IndexFile::add(RawEntry entry) {
  if (entries_.size() + 1 < capacity_) entries_.push_back(entry);
}

void IndexFile::set_synced(Position position, Offset offset) {
  header_.synced_position = position.value();
  header_.synced_offset = offset.value();
  header_changed_ = true;
}

void IndexFile::pump() {
  if (failure_) return;
  if (header_changed_ && !header_write_.in_flight) submit_header();
  if (entries_.size() - written_ >= kEntriesPerWrite && !entries_write_.in_flight) submit_entries();
}

void IndexFile::submit_header() {
  header_changed_ = false;
  format::encode_header(header_, header_write_.buffer.span());
  submit(header_write_, 0);
}

void IndexFile::submit_entries() {
  const std::uint64_t begin = written_ / kEntriesPerBlock * kEntriesPerBlock;
  const std::uint64_t end = std::min<std::uint64_t>(entries_.size(), begin + kEntriesPerBlock);
  std::memset(entries_write_.buffer.data(), 0, entries_write_.buffer.size());
  std::memcpy(entries_write_.buffer.data(), entries_.data() + begin, (end - begin) * sizeof(RawEntry));
  written_ = end;
  submit(entries_write_, format::kBlockBytes + begin * sizeof(RawEntry));
}

void IndexFile::submit(BlockWrite& write, std::uint64_t file_offset) {
  write.in_flight = true;
  backend_.submit_write(file_, write.buffer.span(), file_offset, write.token());
}

void IndexFile::BlockWrite::complete(std::int64_t result) {
  in_flight = false;
  if (result == static_cast<std::int64_t>(buffer.size()) || owner_file.failure_) return;
  Error error = system_error(result < 0 ? static_cast<int>(-result) : EIO,
                             fmt::format("cannot write '{}'", owner_file.path_.string()));
  error.code = Code::storage_failed;
  owner_file.failure_ = std::move(error);
}

Status IndexFile::flush() {
  while (true) {
    while (busy() && reap_and_dispatch(backend_, true) > 0) {
    }
    if (failure_) return std::unexpected(*failure_);
    if (header_changed_) {
      submit_header();
    } else if (written_ < entries_.size()) {
      submit_entries();
    } else {
      return {};
    }
  }
}

Status IndexFile::finish(std::optional<RawEntry> last) {
  if (last && (entries_.empty() || entries_.back() != *last)) entries_.push_back(*last);
  if (auto written = flush(); !written) return written;
  return backend_.truncate(file_, format::kBlockBytes + entries_.size() * sizeof(RawEntry));
}

}  // namespace ringtail::log
