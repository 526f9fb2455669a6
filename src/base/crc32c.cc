#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace ringtail {

std::uint32_t crc32c_of_many(std::uint32_t seed, std::span<const std::byte> bytes) {
  // ISA-L takes its length as int, and leaves the inversions before and after to the caller.
  constexpr std::size_t kPiece = std::size_t{1} << 30;
  std::uint32_t state = ~seed;
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kPiece));
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(piece.data()));
    state = crc32_iscsi(data, static_cast<int>(piece.size()), state);
    bytes = bytes.subspan(piece.size());
  }
  return ~state;
}

}  // namespace ringtail
