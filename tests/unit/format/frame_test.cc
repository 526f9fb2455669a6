#include "format/frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace ringtail::format {
namespace {

using Bytes = std::vector<std::byte>;

// Whole, committed and checksummed, in memory that is aligned as rings and read buffers are.
Bytes make_data_frame(std::uint64_t offset, std::optional<std::string_view> key,
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

Bytes make_filler(FrameType type, std::uint32_t extent, std::uint32_t records) {
  Bytes frame(extent, std::byte{0xee});
  write_filler(frame.data(), type, extent, Offset(7), records);
  FrameHeader header = load_header(frame.data());
  header.crc32c = frame_crc(frame);
  std::memcpy(frame.data(), &header, sizeof header);
  return frame;
}

// The record of the worked example in frame.md.
Bytes make_example() {
  const std::array headers{Header{"src", "nyse"}};
  return make_data_frame(42, "order-7", "BUY 100", headers);
}

template <class Change>
FrameFault fault_after(Bytes frame, Change change) {
  FrameHeader header = load_header(frame.data());
  change(header);
  std::memcpy(frame.data(), &header, sizeof header);
  return check_structure(frame);
}

template <class T>
Bytes with(Bytes frame, std::size_t at, T value) {
  std::memcpy(frame.data() + at, &value, sizeof value);
  return frame;
}

std::string hex_dump(const Bytes& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    char digits[4];
    std::snprintf(digits, sizeof digits, "%02x%c", std::to_integer<unsigned>(bytes[i]), i % 8 == 7 ? '\n' : ' ');
    text += digits;
  }
  return text;
}

TEST(Frame, GoldenBytesOfTheWorkedExample) {
  const Bytes frame = make_example();
  EXPECT_EQ(hex_dump(frame),
            "41 00 00 00 01 05 00 00\n"
            "2a 00 00 00 00 00 00 00\n"
            "d0 1a 9e b9 4a fb 52 18\n"
            "07 00 00 00 b2 5f 47 f1\n"
            "6f 72 64 65 72 2d 37 42\n"
            "55 59 20 31 30 30 03 00\n"
            "00 00 04 00 00 00 73 72\n"
            "63 6e 79 73 65 0f 00 00\n"
            "00 00 00 00 00 00 00 00\n");
  EXPECT_EQ(check_frame(frame, 42), FrameFault::none);
  EXPECT_EQ(describe_frame(frame),
            "offset=42 data length=65 key=7 value=7 headers=1 timestamp=2025-07-17T08:05:03.360842448Z "
            "crc=f1475fb2");
}

TEST(Frame, GoldenBytesOfPadAndAborted) {
  Bytes pad = make_filler(FrameType::pad, 40, 0);
  EXPECT_EQ(hex_dump(pad),
            "28 00 00 00 02 00 00 00\n"
            "07 00 00 00 00 00 00 00\n"
            "00 00 00 00 00 00 00 00\n"
            "00 00 00 00 76 d4 47 0b\n"
            "ee ee ee ee ee ee ee ee\n");
  EXPECT_EQ(describe_frame(pad), "offset=7 pad length=40 records=0 crc=0b47d476");
  Bytes aborted = make_filler(FrameType::aborted, 0x12340, 3);
  aborted.resize(32);
  EXPECT_EQ(hex_dump(aborted),
            "40 23 01 00 03 68 24 00\n"
            "07 00 00 00 00 00 00 00\n"
            "00 00 00 00 00 00 00 00\n"
            "03 00 00 00 36 87 70 0c\n");
}

TEST(Frame, DecodeGivesBackWhatWasWritten) {
  const std::array headers{Header{"a", "1"}, Header{"", ""}, Header{"null", {}}};
  const TopicPartition source{"t", PartitionId(3)};
  for (const std::optional<std::string_view> key : {std::optional<std::string_view>(), {""}, {"key"}}) {
    for (const std::optional<std::string_view> value : {std::optional<std::string_view>(), {""}, {"some value"}}) {
      for (const std::size_t header_count : {0u, 1u, 3u}) {
        const Bytes frame = make_data_frame(9, key, value, std::span(headers).first(header_count));
        ASSERT_EQ(check_frame(frame, 9), FrameFault::none);
        const Record record = decode_record(frame.data(), &source);
        EXPECT_EQ(record.offset, Offset(9));
        EXPECT_EQ(record.timestamp_ns, 1'752'739'503'360'842'448);
        EXPECT_EQ(record.source, &source);
        EXPECT_EQ(record.has_key(), key.has_value());
        EXPECT_EQ(record.key, key.value_or(""));
        EXPECT_EQ(record.is_tombstone(), !value.has_value());
        EXPECT_EQ(record.value, value.value_or(""));
        std::size_t seen = 0;
        for (const Header& header : record.headers) {
          ASSERT_LT(seen, header_count);
          EXPECT_EQ(header.key, headers[seen].key);
          EXPECT_EQ(header.value, headers[seen].value);
          EXPECT_EQ(header.value.data() == nullptr, headers[seen].value.data() == nullptr);
          ++seen;
        }
        EXPECT_EQ(seen, header_count);
      }
    }
  }
}

TEST(Frame, ValueMayBeFilledInAfterwards) {
  const std::array headers{Header{"h", "x"}};
  Bytes whole = make_data_frame(1, "key", "value", headers);
  Bytes claimed(whole.size());
  std::byte* value = write_body(claimed.data(), "key", nullptr, 5, headers);
  EXPECT_EQ(value - claimed.data(), 32 + 3);
  std::memcpy(value, "value", 5);
  EXPECT_TRUE(std::equal(whole.begin() + 32, whole.end(), claimed.begin() + 32));
}

TEST(Frame, StateWords) {
  EXPECT_EQ(word_length(claimed_word(64)), -64);
  EXPECT_EQ(word_type(claimed_word(64)), FrameType::none);
  EXPECT_FALSE(word_is_resolved(claimed_word(64)));
  EXPECT_FALSE(word_is_resolved(0));
  const std::uint64_t committed = committed_word(65, FrameType::data, kHasKey);
  EXPECT_TRUE(word_is_resolved(committed));
  EXPECT_EQ(word_extent(committed), 72u);
  EXPECT_EQ(word_attributes(committed), kHasKey);
  // The late store of a claim's owner into the low half hides neither that it is aborted nor its end.
  const std::uint64_t aborted = aborted_word(kMaxFrameBytes);
  const std::uint64_t late = (aborted & ~std::uint64_t{0xffffffff}) | (claimed_word(64) & 0xffffffff);
  EXPECT_TRUE(word_is_resolved(late));
  EXPECT_EQ(word_extent(late), kMaxFrameBytes);
}

TEST(Frame, FillersCountOffsets) {
  EXPECT_EQ(frame_records(load_header(make_filler(FrameType::pad, 32, 0).data())), 0u);
  EXPECT_EQ(frame_records(load_header(make_filler(FrameType::aborted, 32, 5).data())), 5u);
  EXPECT_EQ(frame_records(load_header(make_example().data())), 1u);
}

TEST(CheckStructure, NothingThere) {
  EXPECT_EQ(check_structure({}), FrameFault::truncated);
  EXPECT_EQ(check_structure(Bytes(7)), FrameFault::truncated);
  EXPECT_EQ(check_structure(Bytes(8)), FrameFault::empty);
  EXPECT_EQ(check_structure(Bytes(4096)), FrameFault::empty);
  EXPECT_EQ(check_structure(with(Bytes(64), 0, claimed_word(64))), FrameFault::claimed);
  EXPECT_EQ(check_structure(with(Bytes(8), 0, claimed_word(64))), FrameFault::claimed);
  // Something there, with a length of zero.
  EXPECT_EQ(check_structure(with(Bytes(64), 4, std::uint8_t{1})), FrameFault::bad_length);
}

TEST(CheckStructure, EveryCutIsTruncated) {
  const Bytes frame = make_example();
  for (std::size_t size = 0; size < frame.size(); ++size) {
    const Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));  // asan sees reads beyond
    EXPECT_EQ(check_structure(cut), FrameFault::truncated) << size;
  }
  EXPECT_EQ(check_structure(frame), FrameFault::none);
}

TEST(CheckStructure, Length) {
  const Bytes frame = make_example();
  for (const std::uint32_t length : {1u, 31u, kMaxFrameBytes + 1, 0x7fffffffu}) {
    EXPECT_EQ(fault_after(frame, [=](auto& h) { h.length = static_cast<std::int32_t>(length); }),
              FrameFault::bad_length) << length;
  }
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.length = static_cast<std::int32_t>(kMaxFrameBytes); }),
            FrameFault::truncated);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.length = -h.length; }), FrameFault::claimed);
  EXPECT_EQ(check_structure(make_data_frame(0, {}, "")), FrameFault::none);  // the shortest: a header alone
}

TEST(CheckStructure, TypeAndFlags) {
  const Bytes frame = make_example();
  for (const int type : {0, 6, 255}) {
    EXPECT_EQ(fault_after(frame, [=](auto& h) { h.type = static_cast<FrameType>(type); }), FrameFault::bad_type);
  }
  for (const FrameType type : {FrameType::control, FrameType::compressed}) {
    EXPECT_EQ(fault_after(frame, [=](auto& h) { h.type = type; }), FrameFault::none);
  }
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= 0x20; }), FrameFault::bad_type);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= 0x80; }), FrameFault::bad_type);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= kTransactional; }), FrameFault::none);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.reserved = 1; }), FrameFault::bad_type);
}

TEST(CheckStructure, KeyAndValue) {
  const Bytes frame = make_data_frame(0, "key", "value");
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.key_length = 8; }), FrameFault::none);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.key_length = 9; }), FrameFault::bad_key_length);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.key_length = 0xffffffff; }), FrameFault::bad_key_length);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes = 0; }), FrameFault::bad_key_length);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= kNullValue; }), FrameFault::bad_key_length);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= kHasExtension; }), FrameFault::bad_key_length);
  const Bytes extended = make_data_frame(0, {}, std::string(24 + 5, 'x'));
  EXPECT_EQ(fault_after(extended, [](auto& h) { h.attributes = kHasExtension; }), FrameFault::none);
  EXPECT_EQ(fault_after(extended, [](auto& h) {
              h.attributes = kHasExtension | kHasKey;
              h.key_length = 6;
            }),
            FrameFault::bad_key_length);
}

TEST(CheckStructure, Headers) {
  const Bytes frame = make_example();  // headers at 46: u32 key length, i32 value length, "src", "nyse"; u32 15
  constexpr std::size_t kAt = 46;
  EXPECT_EQ(check_structure(with(frame, 61, std::uint32_t{0})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, 61, std::uint32_t{14})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, 61, std::uint32_t{23})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, 61, ~std::uint32_t{0})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, kAt, std::uint32_t{4})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, kAt, ~std::uint32_t{0})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, kAt + 4, std::int32_t{3})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, kAt + 4, std::int32_t{-1})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, kAt + 4, std::int32_t{-2})), FrameFault::bad_headers);
  EXPECT_EQ(check_structure(with(frame, kAt + 4, std::int32_t{0x7fffffff})), FrameFault::bad_headers);
  const Bytes three = make_data_frame(0, {}, "abc");  // no room for the headers' length
  EXPECT_EQ(fault_after(three, [](auto& h) { h.attributes = kHasHeaders; }), FrameFault::bad_headers);
}

TEST(CheckStructure, Fillers) {
  for (const FrameType type : {FrameType::pad, FrameType::aborted}) {
    for (const std::uint32_t extent : {32u, 40u, 4096u}) {
      EXPECT_EQ(check_frame(make_filler(type, extent, 2), 7), FrameFault::none) << extent;
    }
  }
  const Bytes pad = make_filler(FrameType::pad, 64, 0);
  EXPECT_EQ(fault_after(pad, [](auto& h) { h.length = 63; }), FrameFault::bad_length);
  EXPECT_EQ(fault_after(pad, [](auto& h) { h.attributes = 1; }), FrameFault::bad_type);
  EXPECT_EQ(fault_after(pad, [](auto& h) { h.reserved = 1; }), FrameFault::bad_type);
  const Bytes aborted = make_filler(FrameType::aborted, 64, 1);
  for (const std::int32_t length : {0, 24, 56, 63, -64, 0x7fffffff}) {
    EXPECT_EQ(fault_after(aborted, [=](auto& h) { h.length = length; }), FrameFault::bad_length) << length;
  }
  EXPECT_EQ(fault_after(aborted, [](auto& h) { h.length = 72; }), FrameFault::truncated);
  EXPECT_EQ(fault_after(aborted, [](auto& h) { h.reserved = 1; }), FrameFault::bad_length);
}

TEST(CheckFrame, CrcCoversEveryByteThatCounts) {
  const Bytes frame = make_example();
  const auto length = static_cast<std::size_t>(load_header(frame.data()).length);
  for (std::size_t at = 0; at < frame.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      const auto flipped = static_cast<std::uint8_t>(std::to_integer<int>(frame[at]) ^ 1 << bit);
      const FrameFault fault = check_frame(with(frame, at, flipped), 42);
      if (at < length) {
        EXPECT_NE(fault, FrameFault::none) << at;
      } else {
        EXPECT_EQ(fault, FrameFault::none) << at;  // the padding behind it
      }
    }
  }
}

TEST(CheckFrame, FillersAreCheckedByTheirHeaderAlone) {
  for (const FrameType type : {FrameType::pad, FrameType::aborted}) {
    const Bytes frame = make_filler(type, 64, 1);
    for (std::size_t at = 0; at < frame.size(); ++at) {
      const Bytes flipped = with(frame, at, static_cast<std::uint8_t>(std::to_integer<int>(frame[at]) ^ 1));
      EXPECT_EQ(check_frame(flipped, -1) == FrameFault::none, at >= 32) << at;
    }
  }
}

TEST(CheckFrame, OffsetMustFollow) {
  const Bytes frame = make_example();
  EXPECT_EQ(check_frame(frame, 42), FrameFault::none);
  EXPECT_EQ(check_frame(frame, -1), FrameFault::none);
  EXPECT_EQ(check_frame(frame, 41), FrameFault::offset_gap);
  EXPECT_EQ(check_frame(frame, 0), FrameFault::offset_gap);
}

TEST(Frame, EveryFaultHasAName) {
  for (int fault = 0; fault <= static_cast<int>(FrameFault::offset_gap); ++fault) {
    EXPECT_NE(to_string(static_cast<FrameFault>(fault)), "unknown") << fault;
  }
  EXPECT_EQ(to_string(FrameFault::bad_crc), "bad_crc");
}

TEST(Frame, DescribeNamesWhatIsWrong) {
  Bytes frame = make_example();
  EXPECT_EQ(describe_frame(std::span(frame).first(40)), "no frame: truncated");
  frame[40] ^= std::byte{1};
  EXPECT_NE(describe_frame(frame).find("(its bytes give "), std::string::npos);
  EXPECT_NE(describe_frame(make_data_frame(3, {}, {})).find("key=none value=null headers=0"), std::string::npos);
}

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
  const std::array seeds{make_example(), make_data_frame(5, "k", {}, headers), make_data_frame(6, {}, "value"),
                         make_filler(FrameType::aborted, 96, 2), make_filler(FrameType::pad, 96, 0)};
  constexpr std::array<std::uint32_t, 6> kEdges{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 32};
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes = seeds[random() % seeds.size()];
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      if (random() % 2 == 0) {
        bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      } else {
        bytes = with(std::move(bytes), random() % (bytes.size() - 4), kEdges[random() % kEdges.size()]);
      }
    }
    bytes.resize(random() % 4 == 0 ? random() % bytes.size() : bytes.size());
    use_if_valid(bytes);
  }
}

}  // namespace
}  // namespace ringtail::format
