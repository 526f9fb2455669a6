#include "format/segment.h"

#include <bit>
#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "base/crc32c.h"

namespace ringtail::format {
namespace {

constexpr std::size_t kNameDigits = 20;

constexpr std::uint64_t magic_of(FileKind kind) {
  switch (kind) {
    case FileKind::log: return kLogMagic;
    case FileKind::index: return kIndexMagic;
    case FileKind::time_index: break;
  }
  return kTimeIndexMagic;
}

constexpr std::string_view suffix_of(FileKind kind) {
  switch (kind) {
    case FileKind::log: return ".log";
    case FileKind::index: return ".index";
    case FileKind::time_index: break;
  }
  return ".timeindex";
}

std::uint32_t header_crc(const FileHeader& header) {
  return crc32c(0, std::as_bytes(std::span(&header, 1)).first(offsetof(FileHeader, crc32c)));
}

// What compaction says about a log, as far as one header shows whether it can be.
bool is_plausible(const FileHeader& header, FileKind kind) {
  if (kind != FileKind::log || !is_compacted(header)) return header.frame_words == 0;
  return header.synced_position % 8 == 0 && header.synced_position >= header.base_position &&
         segment_end(header) - Position(header.base_position) >= std::uint64_t{header.frame_words} * 8 &&
         header.synced_offset > header.base_offset;
}

}  // namespace

FileHeader make_header(FileKind kind, const SegmentIdentity& identity, Offset base_offset,
                       Position base_position, std::int64_t created_ns) {
  FileHeader header{};
  header.magic = magic_of(kind);
  header.layout_version = kSegmentVersion;
  header.header_bytes = sizeof(FileHeader);
  header.log_id = identity.log_id;
  header.topic_id = identity.topic_id;
  header.partition = identity.partition.value();
  header.base_offset = base_offset.value();
  header.base_position = base_position.value();
  header.created_ns = created_ns;
  if (kind == FileKind::index) {
    header.synced_position = header.base_position;
    header.synced_offset = header.base_offset;
  }
  return header;
}

void encode_header(const FileHeader& header, std::span<std::byte> block) {
  FileHeader sealed = header;
  sealed.crc32c = header_crc(sealed);
  std::memset(block.data(), 0, block.size());
  std::memcpy(block.data(), &sealed, sizeof sealed);
}

Result<FileHeader> decode_header(std::span<const std::byte> bytes, FileKind kind, std::string_view name) {
  if (bytes.size() < sizeof(FileHeader)) {
    return fail(Code::corrupt, fmt::format("{}: {} bytes are too few for a file header", name, bytes.size()));
  }
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic == std::byteswap(magic_of(kind))) {
    return fail(
        Code::incompatible_layout,
        fmt::format("{}: written in the other byte order, this build reads little-endian files; read it on "
                    "a machine of the kind that wrote it",
                    name));
  }
  if (header.magic != magic_of(kind)) {
    return fail(Code::corrupt, fmt::format("{}: not a Ringtail {} file (magic {:016x}, expected {:016x})",
                                           name, suffix_of(kind), header.magic, magic_of(kind)));
  }
  // The version goes before the CRC: another layout may keep its CRC elsewhere.
  if (header.layout_version != kSegmentVersion) {
    return fail(
        Code::incompatible_layout,
        fmt::format("{}: written with segment layout version {}, this build reads version {}; use the "
                    "Ringtail release that wrote it",
                    name, header.layout_version, kSegmentVersion));
  }
  if (header.crc32c != header_crc(header)) {
    return fail(Code::corrupt, fmt::format("{}: the file header's CRC is {:08x}, its content gives {:08x}",
                                           name, header.crc32c, header_crc(header)));
  }
  if (header.header_bytes != sizeof(FileHeader) || header.base_position % 8 != 0 ||
      !is_plausible(header, kind)) {
    return fail(Code::corrupt, fmt::format("{}: the file header has fields no release writes", name));
  }
  return header;
}

Status check_identity(const FileHeader& header, const SegmentIdentity& identity, std::string_view name) {
  if (identity_of(header) == identity) return {};
  return fail(
      Code::corrupt,
      fmt::format("{}: belongs to log {:016x}{:016x}, topic {:016x}, partition {}, not to log "
                  "{:016x}{:016x}, topic {:016x}, partition {}; move it back to where it came from",
                  name, header.log_id[0], header.log_id[1], header.topic_id, header.partition,
                  identity.log_id[0], identity.log_id[1], identity.topic_id, identity.partition.value()));
}

SegmentIdentity identity_of(const FileHeader& header) {
  return {header.log_id, header.topic_id, PartitionId(header.partition)};
}

std::string segment_file_name(FileKind kind, Offset base_offset) {
  return fmt::format("{:020}{}", base_offset.value(), suffix_of(kind));
}

std::optional<Offset> parse_segment_file_name(FileKind kind, std::string_view name) {
  const std::string_view suffix = suffix_of(kind);
  if (name.size() != kNameDigits + suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  std::uint64_t value = 0;
  const char* end = name.data() + kNameDigits;
  const auto [stop, error] = std::from_chars(name.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return Offset(value);
}

}  // namespace ringtail::format
