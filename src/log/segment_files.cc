#include "log/segment_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <tuple>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/result.h"
#include "log/io_operation.h"

namespace ringtail::log {

using format::FileKind;

namespace {

constexpr std::string_view kPreparedPrefix = ".prepared-";
constexpr std::string_view kCompactedPrefix = ".compacted-";

// Reads the entries of an index file up to the first of zeros. In pieces: how long a file is says nothing of what is in
// it, and more memory than for that is not asked for.
Result<std::vector<RawEntry>> read_entries(io::Backend& backend, const OpenedFile& opened,
                                           const std::filesystem::path& path) {
  constexpr std::uint64_t kMostAtOnce = 64 << 10;
  std::vector<RawEntry> entries;
  for (std::uint64_t at = format::kBlockBytes; at + sizeof(RawEntry) <= opened.bytes;) {
    const std::size_t before = entries.size();
    const std::size_t wanted = std::min(kMostAtOnce, (opened.bytes - at) / sizeof(RawEntry));
    entries.resize(before + wanted);
    auto got =
        read_at(backend, opened.file, std::as_writable_bytes(std::span(entries).subspan(before)), at, path);
    if (!got) return std::unexpected(got.error());
    entries.resize(before + *got / sizeof(RawEntry));
    const auto piece = entries.begin() + static_cast<std::ptrdiff_t>(before);
    entries.erase(std::find(piece, entries.end(), RawEntry{}), entries.end());
    if (entries.size() < before + wanted) break;
    at += wanted * sizeof(RawEntry);
  }
  return entries;
}

Result<OpenedFile> open_sibling(io::Backend& backend, const std::filesystem::path& path, FileKind kind,
                                const format::FileHeader& log_header) {
  auto opened = open_checked(backend, path, kind, format::identity_of(log_header));
  if (opened && opened->header.base_position != log_header.base_position) {
    return fail(Code::corrupt, fmt::format("{}: begins at position {}, its log at {}", path.string(),
                                           opened->header.base_position, log_header.base_position));
  }
  if (opened && opened->header.compactions != log_header.compactions) {
    return fail(Code::corrupt,
                fmt::format("{}: is of compaction {} of the segment, its log of {}", path.string(),
                            opened->header.compactions, log_header.compactions));
  }
  return opened;
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes) {
  auto made = try_make(bytes);
  if (!made) throw std::bad_alloc();
  *this = std::move(*made);
}

std::optional<AlignedBuffer> AlignedBuffer::try_make(std::size_t bytes) {
  AlignedBuffer buffer;
  buffer.size_ = format::block_up(bytes);
  buffer.memory_.reset(static_cast<std::byte*>(std::aligned_alloc(format::kBlockBytes, buffer.size_)));
  if (!buffer.memory_) return std::nullopt;
  std::memset(buffer.memory_.get(), 0, buffer.size_);
  return buffer;
}

Result<SegmentListing> list_segments(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::directory_iterator files(dir, error);
  if (error) return fail_errno(error.value(), fmt::format("cannot list '{}'", dir.string()));
  SegmentListing listing;
  std::vector<std::pair<Offset, std::filesystem::path>> indexes;
  while (files != std::filesystem::directory_iterator()) {
    const std::filesystem::path path = files->path();
    const std::string name = path.filename().string();
    if (name.starts_with(kPreparedPrefix)) listing.prepared.push_back(path);
    if (name.starts_with(kCompactedPrefix)) listing.compacted.push_back(path);
    if (const auto base = format::parse_segment_file_name(FileKind::log, name)) listing.logs.push_back(*base);
    for (const FileKind kind : {FileKind::index, FileKind::time_index}) {
      if (const auto base = format::parse_segment_file_name(kind, name)) indexes.emplace_back(*base, path);
    }
    files.increment(error);
    if (error) return fail_errno(error.value(), fmt::format("cannot list '{}'", dir.string()));
  }
  std::ranges::sort(listing.logs);
  for (auto& [base, path] : indexes) {
    if (!std::ranges::binary_search(listing.logs, base)) listing.orphans.push_back(std::move(path));
  }
  return listing;
}

std::filesystem::path segment_path(const std::filesystem::path& dir, FileKind kind, Offset base_offset) {
  return dir / format::segment_file_name(kind, base_offset);
}

std::filesystem::path compaction_path(const std::filesystem::path& dir, Offset base_offset) {
  return dir / fmt::format("{}{}", kCompactedPrefix, format::segment_file_name(FileKind::log, base_offset));
}

std::filesystem::path sibling(const std::filesystem::path& log_path, FileKind kind) {
  std::filesystem::path path = log_path;
  return path.replace_extension(kind == FileKind::index ? ".index" : ".timeindex");
}

Result<std::uint64_t> file_size(const io::File& file, const std::filesystem::path& path) {
  struct stat status;
  if (::fstat(file.fd(), &status) != 0) {
    return fail_errno(errno, fmt::format("cannot get the size of '{}'", path.string()));
  }
  return static_cast<std::uint64_t>(status.st_size);
}

Result<std::size_t> read_at(io::Backend& backend, const io::File& file, std::span<std::byte> bytes,
                            std::uint64_t offset, const std::filesystem::path& path) {
  if (bytes.empty()) return std::size_t{0};
  const std::int64_t result =
      run_blocking(backend, [&](std::uint64_t token) { backend.submit_read(file, bytes, offset, token); });
  if (result >= 0) return static_cast<std::size_t>(result);
  Error error = system_error(static_cast<int>(-result),
                             fmt::format("cannot read '{}' at byte {}", path.string(), offset));
  error.code = Code::storage_failed;
  return std::unexpected(std::move(error));
}

Result<OpenedFile> open_checked(io::Backend& backend, const std::filesystem::path& path, FileKind kind,
                                const format::SegmentIdentity& identity) {
  auto file = backend.open(path, io::OpenMode::read);
  if (!file) return std::unexpected(file.error());
  OpenedFile opened{std::move(*file), {}, 0};
  const auto bytes = file_size(opened.file, path);
  if (!bytes) return std::unexpected(bytes.error());
  opened.bytes = *bytes;
  std::array<std::byte, sizeof(format::FileHeader)> head;
  const auto got = read_at(backend, opened.file, head, 0, path);
  if (!got) return std::unexpected(got.error());
  const auto header = format::decode_header(std::span(head).first(*got), kind, path.string());
  if (!header) return std::unexpected(header.error());
  opened.header = *header;
  if (auto same = format::check_identity(*header, identity, path.string()); !same) {
    return std::unexpected(same.error());
  }
  const auto named = format::parse_segment_file_name(kind, path.filename().string());
  if (!named || named->value() != header->base_offset) {
    return fail(Code::corrupt, fmt::format("{}: its header says base offset {}; rename it back",
                                           path.string(), header->base_offset));
  }
  return opened;
}

Result<IndexContent> read_index(io::Backend& backend, const std::filesystem::path& log_path,
                                const format::FileHeader& log_header) {
  const std::filesystem::path path = sibling(log_path, FileKind::index);
  auto opened = open_sibling(backend, path, FileKind::index, log_header);
  if (!opened) return std::unexpected(opened.error());
  const auto entries = read_entries(backend, *opened, path);
  if (!entries) return std::unexpected(entries.error());
  IndexContent content{opened->header, {}};
  content.entries.reserve(entries->size());
  format::IndexEntry last{log_header.base_offset, log_header.base_position};
  for (const RawEntry& bytes : *entries) {
    const auto entry = std::bit_cast<format::IndexEntry>(bytes);
    if (entry.position <= last.position || entry.offset < last.offset || entry.position % 8 != 0) {
      return fail(Code::corrupt,
                  fmt::format("{}: entry {} (offset {}, position {}) does not ascend", path.string(),
                              content.entries.size(), entry.offset, entry.position));
    }
    content.entries.push_back(entry);
    last = entry;
  }
  return content;
}

Result<std::vector<format::TimeIndexEntry>> read_time_index(io::Backend& backend,
                                                            const std::filesystem::path& log_path,
                                                            const format::FileHeader& log_header) {
  const std::filesystem::path path = sibling(log_path, FileKind::time_index);
  auto opened = open_sibling(backend, path, FileKind::time_index, log_header);
  if (!opened) return std::unexpected(opened.error());
  const auto raw_entries = read_entries(backend, *opened, path);
  if (!raw_entries) return std::unexpected(raw_entries.error());
  std::vector<format::TimeIndexEntry> entries;
  entries.reserve(raw_entries->size());
  format::TimeIndexEntry last{format::kNoTimestamp, log_header.base_offset};
  for (const RawEntry& bytes : *raw_entries) {
    const auto entry = std::bit_cast<format::TimeIndexEntry>(bytes);
    if (entry.offset <= last.offset || entry.max_timestamp_ns < last.max_timestamp_ns) {
      return fail(Code::corrupt,
                  fmt::format("{}: entry {} (time {}, offset {}) does not ascend", path.string(),
                              entries.size(), entry.max_timestamp_ns, entry.offset));
    }
    entries.push_back(entry);
    last = entry;
  }
  return entries;
}

Status remove_segment(io::Backend& backend, const std::filesystem::path& log_path) {
  for (const auto& path :
       {log_path, sibling(log_path, FileKind::index), sibling(log_path, FileKind::time_index)}) {
    auto removed = backend.unlink(path);
    if (!removed && removed.error().code != Code::not_found) return removed;
  }
  return {};
}

Result<PreparedSegment> prepare_segment(io::Backend& backend, const std::filesystem::path& dir,
                                        std::uint64_t bytes) {
  PreparedSegment prepared;
  // The clock makes the name unique among the files of one keeper.
  prepared.path = dir / fmt::format("{}{}", kPreparedPrefix, monotonic_ns());
  prepared.bytes = format::block_up(bytes);
  auto file = backend.open(prepared.path, io::OpenMode::write_direct);
  if (!file) return std::unexpected(file.error());
  prepared.file = std::move(*file);
  if (auto reserved = backend.preallocate(prepared.file, prepared.bytes); !reserved) {
    Error error = std::move(reserved.error());
    error.message = fmt::format("cannot reserve {} bytes for the next segment in '{}': {}", prepared.bytes,
                                dir.string(), error.message);
    // The file is useless without its space; that it cannot be removed either changes nothing.
    std::ignore = backend.unlink(prepared.path);
    return std::unexpected(std::move(error));
  }
  return prepared;
}

}  // namespace ringtail::log
