#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "frame_test_support.h"

namespace ringtail::format {
namespace {

template <class Change>
FrameFault fault_after(Bytes frame, Change change) {
  FrameHeader header = load_header(frame.data());
  change(header);
  std::memcpy(frame.data(), &header, sizeof header);
  return check_structure(frame);
}

std::string hex_dump(const Bytes& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    char digits[4];
    std::snprintf(digits, sizeof digits, "%02x%c", std::to_integer<unsigned>(bytes[i]),
                  i % 8 == 7 ? '\n' : ' ');
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

// Under a checksum that is right, what is not known is no damage.
TEST(Frame, OfAnotherReleaseIsToldFromADamagedOne) {
  const Bytes frame = make_example();
  for (const Bytes& other : {with(frame, 4, std::uint8_t{6}), with(frame, 4, std::uint8_t{0xff}),
                             with(frame, 5, std::uint8_t{0x25}), with(frame, 6, std::uint16_t{1})}) {
    EXPECT_EQ(check_structure(other), FrameFault::bad_type);
    EXPECT_EQ(check_frame(other, 42), FrameFault::bad_type);
    EXPECT_EQ(check_frame(sealed(other), 42), FrameFault::foreign);
  }
  EXPECT_EQ(check_frame(sealed(with(frame, 24, std::uint32_t{99})), 42), FrameFault::bad_key_length);
  EXPECT_EQ(to_string(FrameFault::foreign), "foreign");
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
    for (const std::optional<std::string_view> value :
         {std::optional<std::string_view>(), {""}, {"some value"}}) {
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
    const Bytes cut(frame.begin(),
                    frame.begin() + static_cast<std::ptrdiff_t>(size));  // asan sees reads beyond
    EXPECT_EQ(check_structure(cut), FrameFault::truncated) << size;
  }
  EXPECT_EQ(check_structure(frame), FrameFault::none);
}

TEST(CheckStructure, Length) {
  const Bytes frame = make_example();
  for (const std::uint32_t length : {1u, 31u, kMaxFrameBytes + 1, 0x7fffffffu}) {
    EXPECT_EQ(fault_after(frame, [=](auto& h) { h.length = static_cast<std::int32_t>(length); }),
              FrameFault::bad_length)
        << length;
  }
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.length = static_cast<std::int32_t>(kMaxFrameBytes); }),
            FrameFault::truncated);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.length = -h.length; }), FrameFault::claimed);
  EXPECT_EQ(check_structure(make_data_frame(0, {}, "")), FrameFault::none);  // the shortest: a header alone
}

TEST(CheckStructure, TypeAndFlags) {
  const Bytes frame = make_example();
  for (const int type : {0, 6, 255}) {
    EXPECT_EQ(fault_after(frame, [=](auto& h) { h.type = static_cast<FrameType>(type); }),
              FrameFault::bad_type);
  }
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.type = FrameType::compressed; }), FrameFault::none);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= 0x20; }), FrameFault::bad_type);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= 0x80; }), FrameFault::bad_type);
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
}

TEST(CheckStructure, Headers) {
  const Bytes frame =
      make_example();  // headers at 46: u32 key length, i32 value length, "src", "nyse"; u32 15
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

// As in a ring, where a process that should not may write between the check and the decoding.
TEST(DecodeRecord, GoesNoFurtherThanTheHeaderThatWasChecked) {
  const Header headers[] = {{"a", "1"}, {"b", "2"}};
  Bytes frame = make_data_frame(1, "key", "value", headers);
  const FrameHeader header =
      load_header_once(frame.data(), load_state_word(frame.data(), std::memory_order_relaxed));
  ASSERT_EQ(check_structure(header, frame), FrameFault::none);
  const auto length = static_cast<std::size_t>(header.length);
  for (const std::uint32_t wrong : {~0u, 0x7fffffffu, 64u, 31u}) {
    FrameHeader changed = header;
    changed.length = static_cast<std::int32_t>(wrong);
    changed.key_length = wrong;
    changed.attributes = static_cast<std::uint8_t>(kHasExtension | kHasHeaders);
    std::memcpy(frame.data(), &changed, sizeof changed);
    std::memcpy(frame.data() + length - sizeof wrong, &wrong, sizeof wrong);
    const Record record = decode_record(header, frame.data(), nullptr);
    const auto* const begin = reinterpret_cast<const char*>(frame.data());
    for (const std::string_view part : {record.key, record.value, record.headers.bytes()}) {
      if (part.empty()) continue;
      EXPECT_GE(part.data(), begin);
      EXPECT_LE(part.data() + part.size(), begin + length);
    }
  }
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
  EXPECT_NE(describe_frame(make_data_frame(3, {}, {})).find("key=none value=null headers=0"),
            std::string::npos);
}

}  // namespace
}  // namespace ringtail::format
