// Frames as the tests of the format need them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "format/frame.h"

namespace ringtail::format {

using Bytes = std::vector<std::byte>;

// Whole, committed and checksummed, in memory that is aligned as rings and read buffers are.
inline Bytes make_data_frame(std::uint64_t offset, std::optional<std::string_view> key,
                             std::optional<std::string_view> value, std::span<const Header> headers = {}) {
  const std::string_view key_bytes = key.value_or(std::string_view{});
  const std::string_view value_bytes = value.value_or(std::string_view{});
  const auto length = static_cast<std::uint32_t>(
      data_frame_bytes(key_bytes.size(), value_bytes.size(), encoded_headers_bytes(headers)));
  Bytes frame(align_frame(length));
  write_body(frame.data(), key_bytes, value_bytes.data(), value_bytes.size(), headers);
  unsigned attributes = 0;
  if (key) attributes |= kHasKey;
  if (!value) attributes |= kNullValue;
  if (!headers.empty()) attributes |= kHasHeaders;
  FrameHeader header{.length = static_cast<std::int32_t>(length),
                     .type = FrameType::data,
                     .attributes = static_cast<std::uint8_t>(attributes),
                     .reserved = 0,
                     .offset = offset,
                     .timestamp_ns = 1'752'739'503'360'842'448,
                     .key_length = static_cast<std::uint32_t>(key_bytes.size()),
                     .crc32c = 0};
  std::memcpy(frame.data(), &header, sizeof header);
  header.crc32c = frame_crc(frame);
  std::memcpy(frame.data(), &header, sizeof header);
  return frame;
}

inline Bytes make_filler(FrameType type, std::uint32_t extent, std::uint32_t records) {
  Bytes frame(extent, std::byte{0xee});
  write_filler(frame.data(), type, extent, Offset(7), records);
  FrameHeader header = load_header(frame.data());
  header.crc32c = frame_crc(frame);
  std::memcpy(frame.data(), &header, sizeof header);
  return frame;
}

// `frame` with its checksum put right.
inline Bytes sealed(Bytes frame) {
  FrameHeader header = load_header(frame.data());
  header.crc32c = frame_crc(frame);
  std::memcpy(frame.data(), &header, sizeof header);
  return frame;
}

inline Bytes make_marker(std::uint64_t offset, MarkerKind kind, const Extension& extension) {
  Bytes frame(kMarkerFrameBytes);
  const FrameHeader header{.length = static_cast<std::int32_t>(kMarkerFrameBytes),
                           .type = FrameType::control,
                           .attributes = extension_attributes(extension),
                           .reserved = 0,
                           .offset = offset,
                           .timestamp_ns = 1'752'739'503'360'842'448,
                           .key_length = 0,
                           .crc32c = 0};
  std::memcpy(frame.data(), &header, sizeof header);
  write_marker_body(frame.data(), extension, kind);
  return sealed(std::move(frame));
}

// A record with an extension: that of `plain` with 24 bytes pushed in between header and body.
inline Bytes with_extension(const Bytes& plain, const Extension& extension) {
  FrameHeader header = load_header(plain.data());
  const auto length = static_cast<std::uint32_t>(header.length);
  Bytes frame(align_frame(length + kExtensionBytes));
  std::memcpy(frame.data() + kFrameHeaderBytes, &extension, sizeof extension);
  std::memcpy(frame.data() + kFrameHeaderBytes + kExtensionBytes, plain.data() + kFrameHeaderBytes,
              length - kFrameHeaderBytes);
  header.length += kExtensionBytes;
  header.attributes |= extension_attributes(extension);
  std::memcpy(frame.data(), &header, sizeof header);
  return sealed(std::move(frame));
}

// The record of the worked example in frame.md.
inline Bytes make_example() {
  const std::array headers{Header{"src", "nyse"}};
  return make_data_frame(42, "order-7", "BUY 100", headers);
}

// `frame` with `value` written over its bytes from `at`.
template <class T>
Bytes with(Bytes frame, std::size_t at, T value) {
  std::memcpy(frame.data() + at, &value, sizeof value);
  return frame;
}

}  // namespace ringtail::format
