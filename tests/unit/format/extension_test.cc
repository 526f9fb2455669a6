// Extensions and control frames.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

#include "frame_test_support.h"

namespace ringtail::format {
namespace {

constexpr Extension kExample{0x1122334455667788, 3, 5, 9};
constexpr Extension kIdempotent{7, 1, 0, 1000};

std::string hex_dump(const Bytes& bytes, std::size_t from) {
  std::string text;
  for (std::size_t i = from; i < bytes.size(); ++i) {
    std::array<char, 4> digits{};
    std::snprintf(digits.data(), digits.size(), "%02x%c", std::to_integer<unsigned>(bytes[i]),
                  i % 8 == 7 ? '\n' : ' ');
    text += digits.data();
  }
  return text;
}

template <class Change>
FrameFault fault_after(Bytes frame, Change change) {
  FrameHeader header = load_header(frame.data());
  change(header);
  std::memcpy(frame.data(), &header, sizeof header);
  return check_structure(frame);
}

FrameFault fault_with(const Bytes& frame, const Extension& extension) {
  return check_structure(with(frame, kFrameHeaderBytes, extension));
}

// --- Extension -----------------------------------------------------------------------------------

TEST(Extension, GoldenBytesOfTheWorkedExample) {
  const Bytes frame = with_extension(make_data_frame(42, "k", "v1"), kExample);
  EXPECT_EQ(hex_dump(frame, 0),
            "3b 00 00 00 01 19 00 00\n"
            "2a 00 00 00 00 00 00 00\n"
            "d0 1a 9e b9 4a fb 52 18\n"
            "01 00 00 00 fd eb 9a 5f\n"
            "88 77 66 55 44 33 22 11\n"
            "03 00 00 00 05 00 00 00\n"
            "09 00 00 00 00 00 00 00\n"
            "6b 76 31 00 00 00 00 00\n");
  EXPECT_EQ(describe_frame(frame),
            "offset=42 data length=59 key=1 value=2 headers=0 timestamp=2025-07-17T08:05:03.360842448Z "
            "producer=1234605616436508552 epoch=3 transaction=5 sequence=9 crc=5f9aebfd");
}

TEST(Extension, DecodeGivesBackWhatWasWritten) {
  const std::array headers{Header{"a", "1"}, Header{"null", {}}};
  for (const Extension& extension : {kExample, kIdempotent}) {
    const Bytes frame = with_extension(make_data_frame(9, "key", "some value", headers), extension);
    ASSERT_EQ(check_frame(frame, 9), FrameFault::none);
    EXPECT_EQ(extension_of(frame.data()), extension);
    const Record record = decode_record(frame.data(), nullptr);
    EXPECT_EQ(record.key, "key");
    EXPECT_EQ(record.value, "some value");
    EXPECT_EQ(record.headers.begin()->value, "1");
  }
  EXPECT_EQ(extension_of(make_example().data()), std::nullopt);
}

TEST(Extension, IsWrittenInFrontOfTheBody) {
  const std::array headers{Header{"h", "x"}};
  const Bytes whole = with_extension(make_data_frame(1, "key", "value", headers), kExample);
  Bytes written(whole.size());
  std::byte* const value = write_extended_body(written.data(), kExample, "key", "value", 5, headers);
  EXPECT_EQ(value - written.data(), 32 + 24 + 3);
  EXPECT_TRUE(std::equal(whole.begin() + 32, whole.end(), written.begin() + 32));
}

TEST(Extension, NamesAProducerAndATransactionOnlyWhereThereIsOne) {
  const Bytes transactional = with_extension(make_data_frame(0, {}, "v"), kExample);
  const Bytes idempotent = with_extension(make_data_frame(0, {}, "v"), kIdempotent);
  EXPECT_EQ(check_structure(transactional), FrameFault::none);
  EXPECT_EQ(check_structure(idempotent), FrameFault::none);
  EXPECT_EQ(fault_with(transactional, {0, 3, 5, 9}), FrameFault::bad_extension);
  EXPECT_EQ(fault_with(transactional, {1, 3, 0, 9}), FrameFault::bad_extension);
  EXPECT_EQ(fault_with(idempotent, {0, 1, 0, 9}), FrameFault::bad_extension);
  EXPECT_EQ(fault_with(idempotent, {1, 1, 1, 9}), FrameFault::bad_extension);
  EXPECT_EQ(fault_after(make_example(), [](auto& h) { h.attributes |= kTransactional; }),
            FrameFault::bad_extension);
}

TEST(Extension, MustFitWithTheKey) {
  const Bytes frame = with_extension(make_data_frame(0, "key", ""), kIdempotent);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.key_length = 4; }), FrameFault::bad_key_length);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.length -= 4, h.key_length = 0; }), FrameFault::bad_key_length);
}

// --- Markers -------------------------------------------------------------------------------------

TEST(Marker, GoldenBytesOfTheWorkedExample) {
  const Bytes frame = make_marker(43, MarkerKind::commit, {0x1122334455667788, 3, 5, 0});
  EXPECT_EQ(hex_dump(frame, 0),
            "40 00 00 00 04 18 00 00\n"
            "2b 00 00 00 00 00 00 00\n"
            "d0 1a 9e b9 4a fb 52 18\n"
            "00 00 00 00 bb 8d ce cd\n"
            "88 77 66 55 44 33 22 11\n"
            "03 00 00 00 05 00 00 00\n"
            "00 00 00 00 00 00 00 00\n"
            "00 00 01 00 00 00 00 00\n");
  EXPECT_EQ(describe_frame(frame),
            "offset=43 control length=64 marker=commit producer=1234605616436508552 epoch=3 transaction=5 "
            "timestamp=2025-07-17T08:05:03.360842448Z crc=cdce8dbb");
  EXPECT_EQ(frame_records(load_header(frame.data())), 1u);
}

TEST(Marker, TellsWhoseTransactionEndedAndHow) {
  for (const MarkerKind kind : {MarkerKind::abort, MarkerKind::commit}) {
    const Bytes frame = make_marker(1, kind, kExample);
    ASSERT_EQ(check_frame(frame, 1), FrameFault::none);
    EXPECT_EQ(marker_kind(frame.data()), kind);
    EXPECT_EQ(extension_of(frame.data()), kExample);
  }
  const Bytes all = make_marker(1, MarkerKind::abort_all, {kEveryProducer, 0, 0, 0});
  ASSERT_EQ(check_frame(all, 1), FrameFault::none);
  EXPECT_NE(describe_frame(all).find("marker=abort_all producer=any timestamp="), std::string::npos);
}

TEST(Marker, AnythingElseIsNone) {
  constexpr std::size_t kBody = kFrameHeaderBytes + kExtensionBytes;
  const Bytes frame = make_marker(1, MarkerKind::commit, kExample);
  EXPECT_EQ(check_structure(with(frame, kBody, std::uint16_t{1})), FrameFault::bad_marker);      // version
  EXPECT_EQ(check_structure(with(frame, kBody + 2, std::uint16_t{3})), FrameFault::bad_marker);  // kind
  EXPECT_EQ(check_structure(with(frame, kBody + 4, std::uint32_t{1})), FrameFault::bad_marker);  // reserved
  EXPECT_EQ(check_structure(with(frame, kBody + 2, MarkerKind::abort_all)), FrameFault::bad_marker);
  EXPECT_EQ(fault_with(frame, {kEveryProducer, 3, 5, 0}), FrameFault::bad_marker);
  EXPECT_EQ(check_structure(make_marker(1, MarkerKind::abort, kIdempotent)), FrameFault::bad_marker);
  EXPECT_EQ(check_structure(make_marker(1, MarkerKind::abort_all, kIdempotent)), FrameFault::bad_marker);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.length = 63; }), FrameFault::bad_marker);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= kNullValue; }), FrameFault::bad_marker);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes |= kHasKey, h.key_length = 1; }),
            FrameFault::bad_marker);
  EXPECT_EQ(fault_after(frame, [](auto& h) { h.attributes = 0; }), FrameFault::bad_marker);
  EXPECT_EQ(fault_after(make_example(), [](auto& h) { h.type = FrameType::control; }),
            FrameFault::bad_marker);
}

TEST(Marker, OfAnotherVersionIsForeignIfItsChecksumIsRight) {
  const Bytes other = with(make_marker(1, MarkerKind::commit, kExample), kFrameHeaderBytes + kExtensionBytes,
                           std::uint16_t{1});
  EXPECT_EQ(check_frame(other, 1), FrameFault::bad_marker);
  EXPECT_EQ(check_frame(sealed(other), 1), FrameFault::foreign);
}

TEST(Marker, EveryKindHasAName) {
  EXPECT_EQ(to_string(MarkerKind::abort), "abort");
  EXPECT_EQ(to_string(MarkerKind::commit), "commit");
  EXPECT_EQ(to_string(MarkerKind::abort_all), "abort_all");
}

}  // namespace
}  // namespace ringtail::format
