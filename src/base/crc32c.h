// CRC32C (Castagnoli), the checksum of frames and of the fixed parts of files.
//
// Thread and process safety: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ringtail {

// The CRC32C of `bytes`, going on from `seed`: 0 to begin, the result for what came before to
// continue, so that crc32c(crc32c(0, a), b) is the CRC of a followed by b.
std::uint32_t crc32c(std::uint32_t seed, std::span<const std::byte> bytes);

}  // namespace ringtail
