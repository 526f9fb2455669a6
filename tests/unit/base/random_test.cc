#include "base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace ringtail {
namespace {

TEST(Random, TokensDifferAndAreNotZero) {
  std::set<std::uint64_t> tokens;
  for (int i = 0; i < 1000; ++i) {
    const auto token = random_token();
    ASSERT_TRUE(token);
    EXPECT_NE(*token, 0u);
    EXPECT_TRUE(tokens.insert(*token).second);
  }
}

TEST(Random, FillsAllBytesAndRefusesTooMany) {
  std::array<std::byte, 256> or_of_all{};
  for (int i = 0; i < 64; ++i) {
    std::array<std::byte, 256> bytes{};
    ASSERT_TRUE(fill_random(bytes));
    for (std::size_t at = 0; at < bytes.size(); ++at) or_of_all[at] |= bytes[at];
  }
  for (const std::byte byte : or_of_all) EXPECT_NE(byte, std::byte{0});

  std::array<std::byte, 257> too_many;
  const auto refused = fill_random(too_many);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
}

TEST(Hex, GoesBothWays) {
  const std::array bytes{std::byte{0x00}, std::byte{0x0f}, std::byte{0xa5}, std::byte{0xff}};
  EXPECT_EQ(to_hex(bytes), "000fa5ff");
  EXPECT_EQ(to_hex(std::uint64_t{0xfedcba9876543210}), "fedcba9876543210");
  EXPECT_EQ(to_hex(std::uint64_t{1}), "0000000000000001");
  EXPECT_EQ(parse_hex("fedcba9876543210"), 0xfedcba9876543210u);
}

TEST(Hex, RefusesWhatIsNotExactlyThat) {
  for (const char* text : {"", "fedcba987654321", "fedcba98765432100", "FEDCBA9876543210", "fedcba987654321g",
                           " edcba9876543210", "-edcba9876543210"}) {
    const auto value = parse_hex(text);
    ASSERT_FALSE(value) << text;
    EXPECT_EQ(value.error().code, Code::invalid_argument);
    EXPECT_NE(value.error().message.find(text), std::string::npos);
  }
  EXPECT_TRUE(is_hex("0af", 3));
  EXPECT_FALSE(is_hex("0af", 4));
  EXPECT_FALSE(is_hex("0aF", 3));
}

}  // namespace
}  // namespace ringtail
