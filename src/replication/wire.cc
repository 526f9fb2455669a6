#include "replication/wire.h"

#include <fmt/format.h>
#include <lz4.h>
#include <zstd.h>

#include <bit>
#include <cstring>

#include "base/crc32c.h"

namespace ringtail::replication {

namespace {

static_assert(std::endian::native == std::endian::little, "messages are little-endian in memory");

constexpr std::size_t kWorthCompressing = 256;
constexpr int kZstdLevel = 1;

// Compresses what `out` holds from `begin` on, in its place; false, and nothing done, if it does not become shorter.
bool compress(std::vector<std::byte>& out, std::size_t begin, Compression how) {
  const std::size_t end = out.size();
  std::size_t bytes = 0;
  if (how == Compression::lz4) {
    const int bound = LZ4_compressBound(static_cast<int>(end - begin));
    out.resize(end + static_cast<std::size_t>(bound));
    bytes = static_cast<std::size_t>(LZ4_compress_default(reinterpret_cast<const char*>(out.data() + begin),
                                                          reinterpret_cast<char*>(out.data() + end),
                                                          static_cast<int>(end - begin), bound));
  } else {
    out.resize(end + ZSTD_compressBound(end - begin));
    bytes = ZSTD_compress(out.data() + end, out.size() - end, out.data() + begin, end - begin, kZstdLevel);
    if (ZSTD_isError(bytes)) bytes = 0;
  }
  const bool pays = bytes > 0 && bytes < end - begin;
  if (pays) std::memcpy(out.data() + begin, out.data() + end, bytes);
  out.resize(pays ? begin + bytes : end);
  return pays;
}

bool unpack(std::span<const std::byte> body, Compression how, std::span<std::byte> to) {
  if (how == Compression::lz4)
    return LZ4_decompress_safe(reinterpret_cast<const char*>(body.data()), reinterpret_cast<char*>(to.data()),
                               static_cast<int>(body.size()),
                               static_cast<int>(to.size())) == static_cast<int>(to.size());
  return ZSTD_decompress(to.data(), to.size(), body.data(), body.size()) == to.size();
}

std::uint32_t checksum(MessageHeader header, std::span<const std::byte> body) {
  header.crc32c = 0;
  if ((header.flags & kUnchecked) != 0) body = {};
  return crc32c(crc32c(0, std::as_bytes(std::span(&header, 1))), body);
}

Status check_header(const MessageHeader& header, std::uint32_t max_body_bytes) {
  if (header.magic == std::byteswap(kWireMagic))
    return fail(
        Code::incompatible_layout,
        "the peer speaks the replication protocol in the other byte order, this program little-endian; run "
        "all hosts on the same kind of machine");
  if (header.magic != kWireMagic)
    return fail(Code::corrupt, "these are no messages of Ringtail's replication (bad magic)");
  if (header.version != kWireVersion)
    return fail(Code::incompatible_layout,
                fmt::format("the peer speaks version {} of the replication protocol, this "
                            "program version {}; run the same release on all hosts",
                            header.version, kWireVersion));
  const bool known = header.type >= MessageType::hello && header.type <= MessageType::ping &&
                     header.compression <= Compression::zstd;
  const bool unchecked = (header.flags & kUnchecked) != 0;
  const bool odd =
      unchecked && (header.type != MessageType::frames || header.compression != Compression::none);
  if (!known || odd || header.body_bytes > max_body_bytes || header.raw_bytes > max_body_bytes ||
      (header.compression == Compression::none && header.raw_bytes != header.body_bytes))
    return fail(Code::corrupt,
                fmt::format("impossible message: type {}, {} bytes, {} unpacked",
                            static_cast<unsigned>(header.type), header.body_bytes, header.raw_bytes));
  return {};
}

}  // namespace

void append_message(std::vector<std::byte>& out, MessageHeader header, std::span<const std::byte> body,
                    Compression compression) {
  const std::size_t begin = out.size();
  const std::size_t body_at = begin + sizeof header;
  out.resize(body_at);
  // All else is made of the copy: where the body came from, the keeper may be completing it. A compressor that copies
  // other bytes than it has compared changes those that nobody else does.
  out.insert(out.end(), body.begin(), body.end());
  const bool compressed = compression != Compression::none && body.size() >= kWorthCompressing &&
                          compress(out, body_at, compression);
  header.compression = compressed ? compression : Compression::none;
  header.raw_bytes = static_cast<std::uint32_t>(body.size());
  header.body_bytes = static_cast<std::uint32_t>(out.size() - body_at);
  header.crc32c = checksum(header, std::span(out).subspan(body_at));
  std::memcpy(out.data() + begin, &header, sizeof header);
}

MessageHeader complete_header(MessageHeader header, std::span<const std::byte> body) {
  header.compression = Compression::none;
  header.body_bytes = header.raw_bytes = static_cast<std::uint32_t>(body.size());
  header.crc32c = checksum(header, body);
  return header;
}

std::vector<std::byte> encode_unchecked(MessageHeader header, std::size_t body_bytes) {
  header.flags |= kUnchecked;
  header.body_bytes = header.raw_bytes = static_cast<std::uint32_t>(body_bytes);
  header.crc32c = checksum(header, {});
  const auto bytes = std::as_bytes(std::span(&header, 1));
  return {bytes.begin(), bytes.end()};
}

Result<Parsed> parse_message(std::span<const std::byte> bytes, std::vector<std::byte>& unpacked,
                             std::uint32_t max_body_bytes) {
  Parsed parsed;
  MessageHeader& header = parsed.message.header;
  if (bytes.size() < sizeof header) return parsed;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (auto valid = check_header(header, max_body_bytes); !valid) return std::unexpected(valid.error());
  if (bytes.size() - sizeof header < header.body_bytes) return parsed;
  const auto body = bytes.subspan(sizeof header, header.body_bytes);
  if (checksum(header, body) != header.crc32c)
    return fail(Code::corrupt, "a message does not have the checksum that it carries");
  parsed.message.body = body;
  if (header.compression != Compression::none) {
    unpacked.resize(header.raw_bytes);
    if (!unpack(body, header.compression, unpacked))
      return fail(Code::corrupt, "a message's body cannot be unpacked");
    parsed.message.body = unpacked;
  }
  parsed.bytes = sizeof header + header.body_bytes;
  return parsed;
}

std::vector<std::byte> encode_epochs(const log::EpochList& epochs) {
  std::vector<std::uint64_t> words;
  for (const log::EpochStart& s : epochs.starts()) {
    words.push_back(s.epoch.value());
    words.push_back(s.start.position.value());
    words.push_back(s.start.offset.value());
  }
  const auto bytes = std::as_bytes(std::span(words));
  return {bytes.begin(), bytes.end()};
}

Result<log::EpochList> decode_epochs(std::span<const std::byte> body) {
  constexpr std::size_t kEntryBytes = 24;
  std::vector<log::EpochStart> starts;
  for (auto rest = body; !rest.empty(); rest = rest.subspan(kEntryBytes)) {
    std::uint64_t words[3];
    if (rest.size() < kEntryBytes) return fail(Code::corrupt, "a list of leader epochs is cut short");
    std::memcpy(words, rest.data(), sizeof words);
    if (words[0] > ~std::uint32_t{0}) return fail(Code::corrupt, "an impossible leader epoch");
    starts.push_back(
        {LeaderEpoch(static_cast<std::uint32_t>(words[0])), {Position(words[1]), Offset(words[2])}});
  }
  auto list = log::EpochList::of(std::move(starts));
  if (!list) return fail(Code::corrupt, list.error().message);
  return list;
}

}  // namespace ringtail::replication
