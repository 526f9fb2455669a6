#include "format/frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/crc32c.h"
#include "base/parse.h"

namespace ringtail::format {
namespace {

constexpr std::size_t kStateWordBytes = 8;
constexpr std::size_t kCrcBegin = offsetof(FrameHeader, crc32c);
constexpr std::size_t kHeadersLengthBytes = 4;
constexpr std::size_t kHeaderFixedBytes = 8;

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
std::byte* store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
  return to + sizeof value;
}

std::byte* store(std::byte* to, const void* from, std::size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
  return to + bytes;
}

bool is_filler(FrameType type) { return type == FrameType::pad || type == FrameType::aborted; }

// Pads and aborted frames: whole words long, with nothing in them that counts.
FrameFault check_filler(const FrameHeader& header, std::uint64_t word) {
  if (header.type == FrameType::aborted) {
    return word_extent(word) == static_cast<std::uint32_t>(header.length) ? FrameFault::none
                                                                          : FrameFault::bad_length;
  }
  if (static_cast<std::uint32_t>(header.length) % kFrameAlignment != 0) return FrameFault::bad_length;
  return header.attributes == 0 && header.reserved == 0 ? FrameFault::none : FrameFault::bad_type;
}

// At least one header, and every byte belongs to one.
FrameFault check_headers(std::span<const std::byte> bytes) {
  if (bytes.empty()) return FrameFault::bad_headers;
  while (!bytes.empty()) {
    if (bytes.size() < kHeaderFixedBytes) return FrameFault::bad_headers;
    const auto key_length = load<std::uint32_t>(bytes.data());
    const auto value_length = load<std::int32_t>(bytes.data() + sizeof key_length);
    if (value_length < -1) return FrameFault::bad_headers;
    const std::uint64_t body =
        std::uint64_t{key_length} + static_cast<std::uint32_t>(std::max(value_length, 0));
    bytes = bytes.subspan(kHeaderFixedBytes);
    if (body > bytes.size()) return FrameFault::bad_headers;
    bytes = bytes.subspan(body);
  }
  return FrameFault::none;
}

// Only transactional records have a transaction's number, and all of them have.
FrameFault check_extension(std::uint8_t attributes, std::span<const std::byte> extension) {
  const auto fields = load<Extension>(extension.data());
  const bool transactional = (attributes & kTransactional) != 0;
  return fields.producer_id != 0 && transactional == (fields.transaction != 0) ? FrameFault::none
                                                                               : FrameFault::bad_extension;
}

// A control frame whose extension is valid. `frame` is exactly `length` bytes long.
FrameFault check_marker(const FrameHeader& header, std::span<const std::byte> frame) {
  if (header.key_length != 0 || frame.size() != kMarkerFrameBytes) return FrameFault::bad_marker;
  const auto body = load<MarkerBody>(frame.data() + kFrameHeaderBytes + kExtensionBytes);
  if (body.version != kMarkerVersion || body.reserved != 0) return FrameFault::bad_marker;
  const auto of = load<Extension>(frame.data() + kFrameHeaderBytes);
  switch (body.kind) {
    case MarkerKind::abort:
    case MarkerKind::commit:
      return header.attributes == (kHasExtension | kTransactional) && of.producer_id != kEveryProducer
                 ? FrameFault::none
                 : FrameFault::bad_marker;
    case MarkerKind::abort_all:
      return header.attributes == kHasExtension && of.producer_id == kEveryProducer ? FrameFault::none
                                                                                    : FrameFault::bad_marker;
  }
  return FrameFault::bad_marker;
}

// Extension, key, value and headers of a record. `frame` is exactly `length` bytes long.
FrameFault check_body(const FrameHeader& header, std::span<const std::byte> frame) {
  std::span<const std::byte> body = frame.subspan(kFrameHeaderBytes);
  if (header.attributes & kHasExtension) {
    if (body.size() < kExtensionBytes) return FrameFault::bad_key_length;
    const FrameFault fault = check_extension(header.attributes, body.first(kExtensionBytes));
    if (fault != FrameFault::none) return fault;
    body = body.subspan(kExtensionBytes);
  } else if (header.attributes & kTransactional) {
    return FrameFault::bad_extension;
  }
  if (header.type == FrameType::control) return check_marker(header, frame);
  if (header.key_length > body.size()) return FrameFault::bad_key_length;
  if (header.key_length != 0 && !(header.attributes & kHasKey)) return FrameFault::bad_key_length;
  body = body.subspan(header.key_length);
  if (header.attributes & kHasHeaders) {
    if (body.size() < kHeadersLengthBytes) return FrameFault::bad_headers;
    const std::size_t end = body.size() - kHeadersLengthBytes;
    const auto headers_length = load<std::uint32_t>(body.data() + end);
    if (headers_length > end) return FrameFault::bad_headers;
    const FrameFault fault = check_headers(body.subspan(end - headers_length, headers_length));
    if (fault != FrameFault::none) return fault;
    body = body.first(end - headers_length);
  }
  // What remains is the value, and a null value has no bytes.
  return (header.attributes & kNullValue) && !body.empty() ? FrameFault::bad_key_length : FrameFault::none;
}

std::string_view type_name(FrameType type) {
  switch (type) {
    case FrameType::none: return "none";
    case FrameType::data: return "data";
    case FrameType::pad: return "pad";
    case FrameType::aborted: return "aborted";
    case FrameType::control: return "control";
    case FrameType::compressed: return "compressed";
  }
  return "unknown";
}

std::string describe_extension(const void* frame) {
  const std::optional<Extension> extension = extension_of(frame);
  if (!extension) return "";
  if (extension->producer_id == kEveryProducer) return " producer=any";
  std::string text = fmt::format(" producer={} epoch={}", extension->producer_id, extension->producer_epoch);
  if (extension->transaction != 0) text += fmt::format(" transaction={}", extension->transaction);
  return text;
}

std::string describe_marker(const void* frame, const FrameHeader& header) {
  return fmt::format(" marker={}{} timestamp={}", to_string(marker_kind(frame)), describe_extension(frame),
                     format_time(header.timestamp_ns));
}

std::string describe_body(const void* frame, const FrameHeader& header) {
  if (header.type == FrameType::control) return describe_marker(frame, header);
  const Record record = decode_record(frame, nullptr);
  const auto bytes_or = [](bool present, std::size_t bytes, const char* absent) {
    return present ? fmt::format("{}", bytes) : std::string(absent);
  };
  std::string text = fmt::format(
      " key={} value={} headers={} timestamp={}", bytes_or(record.has_key(), record.key.size(), "none"),
      bytes_or(!record.is_tombstone(), record.value.size(), "null"),
      std::ranges::distance(record.headers.begin(), record.headers.end()), format_time(header.timestamp_ns));
  if (const std::optional<Extension> extension = extension_of(frame))
    text += describe_extension(frame) + fmt::format(" sequence={}", extension->sequence);
  return text;
}

}  // namespace

std::string_view to_string(FrameFault fault) {
  switch (fault) {
    case FrameFault::none: return "none";
    case FrameFault::empty: return "empty";
    case FrameFault::claimed: return "claimed";
    case FrameFault::truncated: return "truncated";
    case FrameFault::bad_length: return "bad_length";
    case FrameFault::bad_type: return "bad_type";
    case FrameFault::bad_key_length: return "bad_key_length";
    case FrameFault::bad_headers: return "bad_headers";
    case FrameFault::bad_extension: return "bad_extension";
    case FrameFault::bad_marker: return "bad_marker";
    case FrameFault::bad_crc: return "bad_crc";
    case FrameFault::foreign: return "foreign";
    case FrameFault::offset_gap: return "offset_gap";
  }
  return "unknown";
}

std::string_view to_string(MarkerKind kind) {
  switch (kind) {
    case MarkerKind::abort: return "abort";
    case MarkerKind::commit: return "commit";
    case MarkerKind::abort_all: return "abort_all";
  }
  return "unknown";
}

namespace {

FrameFault check_extent(std::uint64_t word, std::size_t room) {
  const std::int32_t length = word_length(word);
  if (word == 0) return FrameFault::empty;
  if (length < 0 && word_type(word) != FrameType::aborted) return FrameFault::claimed;
  // Through unsigned, so that a negative length of an aborted frame is too large as well.
  const auto size = static_cast<std::uint32_t>(length);
  if (size < kFrameHeaderBytes || size > kMaxFrameBytes) return FrameFault::bad_length;
  return align_frame(size) > room ? FrameFault::truncated : FrameFault::none;
}

// What stands within an extent that is valid. `word`: the state word, which the header begins with.
inline FrameFault check_content(const FrameHeader& header, std::uint64_t word,
                                std::span<const std::byte> bytes) {
  constexpr std::uint64_t kWithKey = committed_word(0, FrameType::data, kHasKey) >> 32;
  constexpr std::uint64_t kPlain = committed_word(0, FrameType::data, 0) >> 32;
  const std::uint64_t kind = word >> 32;
  if (kind == kPlain) [[likely]]
    return header.key_length == 0 ? FrameFault::none : FrameFault::bad_key_length;
  if (kind == kWithKey) [[likely]] {
    const std::uint32_t room = static_cast<std::uint32_t>(header.length) - kFrameHeaderBytes;
    return header.key_length <= room ? FrameFault::none : FrameFault::bad_key_length;
  }
  switch (header.type) {
    case FrameType::pad:
    case FrameType::aborted: return check_filler(header, word);
    case FrameType::data:
    case FrameType::control:
    case FrameType::compressed: break;
    default: return FrameFault::bad_type;
  }
  if ((header.attributes & ~kKnownAttributes) != 0 || header.reserved != 0) return FrameFault::bad_type;
  return check_body(header, bytes.first(static_cast<std::uint32_t>(header.length)));
}

// See frame_crc.
inline std::uint32_t crc_of(const FrameHeader& header, std::span<const std::byte> frame) {
  const std::uint32_t crc = crc32c(0, frame.first(kCrcBegin));
  if (is_filler(header.type)) return crc;
  return crc32c(crc, frame.first(static_cast<std::uint32_t>(header.length)).subspan(kFrameHeaderBytes));
}

}  // namespace

FrameFault check_structure(std::span<const std::byte> bytes) {
  if (bytes.size() < kStateWordBytes) return FrameFault::truncated;
  const auto word = load<std::uint64_t>(bytes.data());
  if (const FrameFault fault = check_extent(word, bytes.size()); fault != FrameFault::none) return fault;
  return check_content(load_header(bytes.data()), word, bytes);
}

FrameFault check_structure(const FrameHeader& header, std::span<const std::byte> bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, &header, sizeof word);
  if (const FrameFault fault = check_extent(word, bytes.size()); fault != FrameFault::none) return fault;
  return check_content(header, word, bytes);
}

std::uint32_t frame_crc(std::span<const std::byte> frame) { return crc_of(load_header(frame.data()), frame); }

FrameFault check_frame(std::span<const std::byte> bytes, std::int64_t expected_offset) {
  const FrameFault fault = check_structure(bytes);
  // Both tell that the length was found in order.
  if (fault == FrameFault::bad_type || fault == FrameFault::bad_marker)
    return load_header(bytes.data()).crc32c == frame_crc(bytes) ? FrameFault::foreign : fault;
  if (fault != FrameFault::none) return fault;
  const FrameHeader header = load_header(bytes.data());
  if (header.crc32c != crc_of(header, bytes)) return FrameFault::bad_crc;
  if (expected_offset >= 0 && header.offset != static_cast<std::uint64_t>(expected_offset)) {
    return FrameFault::offset_gap;
  }
  return FrameFault::none;
}

std::uint64_t encoded_headers_bytes(std::span<const Header> headers) {
  if (headers.empty()) return 0;
  std::uint64_t bytes = kHeadersLengthBytes;
  for (const Header& header : headers) bytes += kHeaderFixedBytes + header.key.size() + header.value.size();
  return bytes;
}

std::byte* write_body(void* frame, std::string_view key, const void* value, std::size_t value_bytes,
                      std::span<const Header> headers) {
  std::byte* const value_begin =
      store(static_cast<std::byte*>(frame) + kFrameHeaderBytes, key.data(), key.size());
  std::byte* at = value_begin + value_bytes;
  if (value != nullptr) store(value_begin, value, value_bytes);
  if (headers.empty()) return value_begin;

  std::byte* const headers_begin = at;
  for (const Header& header : headers) {
    const bool is_null = header.value.data() == nullptr;
    at = store(at, static_cast<std::uint32_t>(header.key.size()));
    at = store(at, is_null ? std::int32_t{-1} : static_cast<std::int32_t>(header.value.size()));
    at = store(at, header.key.data(), header.key.size());
    at = store(at, header.value.data(), header.value.size());
  }
  store(at, static_cast<std::uint32_t>(at - headers_begin));
  return value_begin;
}

std::byte* write_extended_body(void* frame, const Extension& extension, std::string_view key,
                               const void* value, std::size_t value_bytes, std::span<const Header> headers) {
  store(static_cast<std::byte*>(frame) + kFrameHeaderBytes, extension);
  return write_body(static_cast<std::byte*>(frame) + kExtensionBytes, key, value, value_bytes, headers);
}

void write_marker_body(void* frame, const Extension& extension, MarkerKind kind) {
  std::byte* const at = store(static_cast<std::byte*>(frame) + kFrameHeaderBytes, extension);
  store(at, MarkerBody{kMarkerVersion, kind, 0});
}

void write_filler(void* frame, FrameType type, std::uint32_t extent, Offset offset, std::uint32_t records) {
  std::byte* at = static_cast<std::byte*>(frame) + kStateWordBytes;
  at = store(at, offset.value());
  at = store(at, std::int64_t{0});  // timestamp_ns
  at = store(at, records);
  store(at, std::uint32_t{0});  // crc32c
  const std::uint64_t word =
      type == FrameType::aborted ? aborted_word(extent) : committed_word(extent, FrameType::pad, 0);
  // SYNC: pairs with the acquire load of the state word (load_state_word) by readers and the keeper.
  state_word(frame).store(word, std::memory_order_release);
}

std::string describe_frame(std::span<const std::byte> frame) {
  if (const FrameFault fault = check_structure(frame); fault != FrameFault::none) {
    return fmt::format("no frame: {}", to_string(fault));
  }
  const FrameHeader header = load_header(frame.data());
  std::string line =
      fmt::format("offset={} {} length={}", header.offset, type_name(header.type), header.length);
  if (is_filler(header.type)) {
    line += fmt::format(" records={}", header.key_length);
  } else {
    line += describe_body(frame.data(), header);
  }
  const std::uint32_t crc = frame_crc(frame);
  if (crc == header.crc32c) return line + fmt::format(" crc={:08x}", crc);
  return line + fmt::format(" crc={:08x} (its bytes give {:08x})", header.crc32c, crc);
}

}  // namespace ringtail::format
