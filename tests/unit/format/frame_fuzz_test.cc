// Random and mutated bytes as frames.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "frame_test_support.h"

namespace ringtail::format {
namespace {

// Whatever passes the check can be decoded and described without leaving its bytes; the sanitizers
// watch, for every input lies in memory of exactly its size.
void use_if_valid(std::span<const std::byte> input) {
  const Bytes bytes(input.begin(), input.end());
  const std::string text = describe_frame(bytes);
  EXPECT_FALSE(text.empty());
  if (check_structure(bytes) != FrameFault::none) return;
  const FrameHeader header = load_header(bytes.data());
  const std::uint32_t extent = word_extent(load_state_word(bytes.data(), std::memory_order_relaxed));
  EXPECT_LE(extent, bytes.size());
  if (header.type == FrameType::control) {
    EXPECT_NE(to_string(marker_kind(bytes.data())), "unknown");
  }
  if (header.type != FrameType::data) return;
  const Record record = decode_record(bytes.data(), nullptr);
  std::size_t sum = 0;
  for (const char c : record.key) sum += static_cast<unsigned char>(c);
  for (const char c : record.value) sum += static_cast<unsigned char>(c);
  std::size_t walked = 0;
  for (const Header& h : record.headers) {
    walked += 8 + h.key.size() + h.value.size();
    for (const char c : h.value) sum += static_cast<unsigned char>(c);
  }
  EXPECT_EQ(walked, record.headers.bytes().size());
  EXPECT_LE(sum, 255 * bytes.size());
}

TEST(CheckStructure, AnyBytes) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes(random() % 120);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    // A header that may pass, in front of a body that may not.
    if (bytes.size() >= kFrameHeaderBytes && random() % 4 != 0) {
      const FrameHeader header{.length = static_cast<std::int32_t>(bytes.size() - random() % 16),
                               .type = static_cast<FrameType>(random() % 6),
                               .attributes = static_cast<std::uint8_t>(random() % 32),
                               .reserved = 0,
                               .offset = random(),
                               .timestamp_ns = static_cast<std::int64_t>(random()),
                               .key_length = static_cast<std::uint32_t>(random() % 64),
                               .crc32c = random() % 2 ? 0 : static_cast<std::uint32_t>(random())};
      std::memcpy(bytes.data(), &header, sizeof header);
    }
    use_if_valid(bytes);
  }
}

TEST(CheckStructure, MutationsOfValidFrames) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const std::array headers{Header{"one", "1"}, Header{"two", {}}, Header{"", "333"}};
  const std::array seeds{make_example(),
                         make_data_frame(5, "k", {}, headers),
                         make_data_frame(6, {}, "value"),
                         make_filler(FrameType::aborted, 96, 2),
                         make_filler(FrameType::pad, 96, 0),
                         with_extension(make_example(), {7, 1, 2, 3}),
                         make_marker(7, MarkerKind::commit, {7, 1, 2, 0}),
                         make_marker(8, MarkerKind::abort_all, {kEveryProducer, 0, 0, 0})};
  constexpr std::array<std::uint32_t, 6> kEdges{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 32};
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes = seeds[random() % seeds.size()];
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      if (random() % 2 == 0) {
        bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      } else {
        const std::size_t at = random() % (bytes.size() - 4);
        bytes = with(std::move(bytes), at, kEdges[random() % kEdges.size()]);
      }
    }
    bytes.resize(random() % 4 == 0 ? random() % bytes.size() : bytes.size());
    use_if_valid(bytes);
  }
}

}  // namespace
}  // namespace ringtail::format
