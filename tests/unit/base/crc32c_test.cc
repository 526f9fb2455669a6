#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string_view>
#include <vector>

namespace ringtail {
namespace {

std::uint32_t crc_of(std::string_view text) { return crc32c(0, std::as_bytes(std::span(text))); }

// The definition, a bit at a time: what ISA-L is compared with.
std::uint32_t slow_crc32c(std::span<const std::byte> bytes) {
  std::uint32_t state = ~std::uint32_t{0};
  for (const std::byte byte : bytes) {
    state ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = state >> 1 ^ (state & 1 ? 0x82F63B78u : 0u);
  }
  return ~state;
}

TEST(Crc32c, CheckValue) {
  EXPECT_EQ(crc_of("123456789"), 0xE3069283u);
  EXPECT_EQ(crc_of(""), 0u);
}

TEST(Crc32c, VectorsOfRfc3720) {
  std::array<std::byte, 32> bytes;
  bytes.fill(std::byte{0});
  EXPECT_EQ(crc32c(0, bytes), 0x8A9136AAu);
  bytes.fill(std::byte{0xff});
  EXPECT_EQ(crc32c(0, bytes), 0x62A8AB43u);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(0, bytes), 0x46DD794Eu);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(31 - i);
  EXPECT_EQ(crc32c(0, bytes), 0x113FDB5Cu);
}

TEST(Crc32c, EqualsItsDefinitionForEveryLengthAlignmentAndCut) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(600);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (std::size_t length = 0; length <= 520; ++length) {
    const auto part = std::span<const std::byte>(bytes).subspan(random() % 64, length);
    const std::uint32_t expected = slow_crc32c(part);
    ASSERT_EQ(crc32c(0, part), expected) << length;
    const std::size_t cut = length == 0 ? 0 : random() % length;
    ASSERT_EQ(crc32c(crc32c(0, part.first(cut)), part.subspan(cut)), expected) << length << " cut at " << cut;
  }
}

}  // namespace
}  // namespace ringtail
