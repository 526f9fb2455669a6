// Any bytes as a frame or as the header of a segment file. What is taken for valid can be decoded and described
// without leaving its bytes; what was encoded is decoded to the same.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "format/frame.h"
#include "format/segment.h"
#include "fuzz/harness/input.h"

namespace ringtail::fuzz {
namespace {

using format::FrameFault;
using format::FrameHeader;
using format::FrameType;

// Memory of exactly that size, for the sanitizers to watch its end.
std::vector<std::byte> to_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void use_record(std::span<const std::byte> frame) {
  const Record record = format::decode_record(frame.data(), nullptr);
  touch(record.key);
  touch(record.value);
  std::size_t walked = 0;
  for (const Header& header : record.headers) {
    touch(header.key);
    touch(header.value);
    walked += 8 + header.key.size() + header.value.size();
  }
  demand(walked == record.headers.bytes().size(), "headers are walked to their end");
}

void use_frame(std::span<const std::byte> bytes) {
  demand(!format::describe_frame(bytes).empty(), "every frame has a description");
  if (format::check_structure(bytes) != FrameFault::none) {
    demand(format::check_frame(bytes, -1) != FrameFault::none, "no frame without structure");
    return;
  }
  const FrameHeader header = format::load_header(bytes.data());
  std::uint64_t word;
  std::memcpy(&word, bytes.data(), sizeof word);
  const std::uint32_t extent = format::word_extent(word);
  demand(extent >= format::kFrameHeaderBytes && extent <= bytes.size(), "a frame lies within its bytes");
  if (header.type == FrameType::data) use_record(bytes);
  if (header.type == FrameType::data || header.type == FrameType::control)
    static_cast<void>(format::extension_of(bytes.data()));
  if (header.type == FrameType::control)
    demand(format::to_string(format::marker_kind(bytes.data())) != "unknown", "a marker has a kind");
  // With its checksum it is a frame at its own offset, and at no other.
  std::vector<std::byte> sealed(bytes.begin(), bytes.end());
  const std::uint32_t crc = format::frame_crc(sealed);
  std::memcpy(sealed.data() + offsetof(FrameHeader, crc32c), &crc, sizeof crc);
  const auto offset = static_cast<std::int64_t>(header.offset >> 2);
  std::memcpy(sealed.data() + offsetof(FrameHeader, offset), &offset, sizeof offset);
  const std::uint32_t other = format::frame_crc(sealed);
  std::memcpy(sealed.data() + offsetof(FrameHeader, crc32c), &other, sizeof other);
  demand(format::check_frame(sealed, offset) == FrameFault::none, "a frame with its checksum is valid");
  demand(format::check_frame(sealed, offset + 1) == FrameFault::offset_gap, "at its offset only");
}

// A header that may pass, in front of whatever the input has.
void use_likely_frame(Input& input) {
  FrameHeader header{};
  header.type = static_cast<FrameType>(input.pick(7));
  header.attributes = static_cast<std::uint8_t>(input.pick(64));
  header.offset = input.take<std::uint32_t>();
  header.key_length = static_cast<std::uint32_t>(input.pick(64));
  const std::uint64_t cut = input.pick(16);
  const std::string_view body = input.rest();
  std::vector<std::byte> bytes(format::kFrameHeaderBytes + body.size());
  std::memcpy(bytes.data() + format::kFrameHeaderBytes, body.data(), body.size());
  header.length = static_cast<std::int32_t>(bytes.size() - std::min<std::uint64_t>(cut, body.size()));
  if (header.type == FrameType::aborted) {
    const std::uint64_t word =
        format::aborted_word(format::align_frame(static_cast<std::uint32_t>(header.length)));
    std::memcpy(&header, &word, sizeof word);
    bytes.resize(static_cast<std::size_t>(header.length));
  }
  std::memcpy(bytes.data(), &header, sizeof header);
  use_frame(bytes);
}

void encode_and_decode(Input& input) {
  std::array<Header, 3> headers;
  const std::size_t count = input.pick(headers.size() + 1);
  const std::string_view key = input.text(40);
  for (std::size_t i = 0; i < count; ++i) headers[i] = {input.text(10), input.text(20)};
  const std::string_view value = input.rest();
  const auto given = std::span(headers).first(count);
  const std::uint64_t length = format::data_frame_bytes(
      key.size(), value.size(), count == 0 ? 0 : format::encoded_headers_bytes(given));
  std::vector<std::byte> bytes(format::align_frame(static_cast<std::uint32_t>(length)));
  FrameHeader header{};
  header.length = static_cast<std::int32_t>(length);
  header.type = FrameType::data;
  header.attributes = static_cast<std::uint8_t>(format::kHasKey | (count == 0 ? 0 : format::kHasHeaders));
  header.key_length = static_cast<std::uint32_t>(key.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  format::write_body(bytes.data(), key, value.data(), value.size(), given);
  demand(format::check_structure(bytes) == FrameFault::none, "what was encoded is a frame");
  const Record record = format::decode_record(bytes.data(), nullptr);
  demand(record.key == key && record.value == value, "key and value come back");
  std::size_t i = 0;
  for (const Header& h : record.headers) {
    demand(i < count && h.key == headers[i].key && h.value == headers[i].value, "headers come back");
    ++i;
  }
  demand(i == count, "all headers come back");
}

void use_file_header(Input& input) {
  const auto kind = static_cast<format::FileKind>(input.pick(3));
  const bool sealed = !input.one_of(4);
  const bool likely = !input.one_of(4);
  format::FileHeader header =
      format::make_header(kind, {{1, 2}, 3, PartitionId(4)}, Offset(5), Position(8), 6);
  std::string_view bytes = input.rest();
  if (likely) {
    // The input is written over the end of a good header, where the fields are that differ.
    const std::size_t from = offsetof(format::FileHeader, compactions);
    const std::size_t most = sizeof header - from;
    std::memcpy(reinterpret_cast<char*>(&header) + from, bytes.data(), std::min(bytes.size(), most));
  } else {
    std::memcpy(&header, bytes.data(), std::min(bytes.size(), sizeof header));
  }
  std::vector<std::byte> block(format::kBlockBytes);
  if (sealed) {
    format::encode_header(header, block);
  } else {
    block = to_bytes(bytes);
  }
  const auto decoded = format::decode_header(block, kind, "a file");
  if (!decoded) {
    demand(!decoded.error().message.empty(), "a refusal says why");
    return;
  }
  demand(decoded->base_position % 8 == 0, "a file begins with a frame");
  demand(format::segment_end(*decoded) >= format::frames_end(*decoded) || !format::is_compacted(*decoded) ||
             kind != format::FileKind::log,
         "a compacted file's frames lie within its part of the log");
  static_cast<void>(format::check_identity(*decoded, format::identity_of(header), "a file"));
}

void use_name(Input& input) {
  const auto kind = static_cast<format::FileKind>(input.pick(3));
  const std::string_view name = input.rest();
  if (const auto offset = format::parse_segment_file_name(kind, name))
    demand(format::segment_file_name(kind, *offset) == name, "a name is that of its offset");
}

}  // namespace
}  // namespace ringtail::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ringtail::fuzz;
  Input input(data, size);
  switch (input.pick(5)) {
    case 0: use_frame(to_bytes(input.rest())); break;
    case 1: use_likely_frame(input); break;
    case 2: encode_and_decode(input); break;
    case 3: use_file_header(input); break;
    default: use_name(input);
  }
  return 0;
}
