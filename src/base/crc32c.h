// CRC32C (Castagnoli), the checksum of frames and of the fixed parts of files.
//
// Thread and process safety: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace ringtail {

// What follows for the bytes that are not few; use crc32c.
std::uint32_t crc32c_of_many(std::uint32_t seed, std::span<const std::byte> bytes);

// The CRC32C of `bytes`, going on from `seed`: 0 to begin, the result for what came before to
// continue, so that crc32c(crc32c(0, a), b) is the CRC of a followed by b.
// Few bytes are done here, by the CPU's instruction (SSE4.2): where checksums of many small frames do not
// depend on each other, the CPU works on several at once, which no call lets it.
inline std::uint32_t crc32c(std::uint32_t seed, std::span<const std::byte> bytes) {
  constexpr std::size_t kFew = 192;
  if (bytes.size() > kFew) return crc32c_of_many(seed, bytes);
  const std::byte* at = bytes.data();
  const std::byte* const end = at + bytes.size();
  std::uint64_t state = static_cast<std::uint32_t>(~seed);
  for (; end - at >= 8; at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    state = __builtin_ia32_crc32di(state, word);
  }
  auto rest = static_cast<std::uint32_t>(state);
  if (end - at >= 4) {
    std::uint32_t word;
    std::memcpy(&word, at, sizeof word);
    rest = __builtin_ia32_crc32si(rest, word);
    at += 4;
  }
  for (; at < end; ++at) rest = __builtin_ia32_crc32qi(rest, std::to_integer<unsigned char>(*at));
  return ~rest;
}

}  // namespace ringtail
