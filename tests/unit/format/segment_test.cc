#include "format/segment.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/random.h"

namespace ringtail::format {
namespace {

const SegmentIdentity kIdentity{{0x0123456789abcdef, 0xfedcba9876543210}, 0x1122334455667788, PartitionId(3)};

std::vector<std::byte> encoded(const FileHeader& header) {
  std::vector<std::byte> block(kBlockBytes, std::byte{0xee});
  encode_header(header, block);
  return block;
}

FileHeader sample(FileKind kind = FileKind::log) {
  return make_header(kind, kIdentity, Offset(42), Position(10'008), 1'700'000'000'123'456'789);
}

// Changes the header and gives it a CRC that fits, as a foreign writer would.
std::vector<std::byte> forged(void (*change)(FileHeader&)) {
  FileHeader header = sample();
  change(header);
  return encoded(header);
}

TEST(SegmentHeaderTest, GoldenBytes) {
  const auto block = encoded(sample());
  EXPECT_EQ(to_hex(std::span(block).first(sizeof(FileHeader))),
            "5247544c4c4f47310100000060000000efcdab89674523011032547698badcfe"
            "887766554433221103000000000000002a000000000000001827000000000000"
            "15cd853dfe9c9717000000000000000000000000000000000000000032d87c0f");
  for (std::size_t i = sizeof(FileHeader); i < block.size(); ++i) ASSERT_EQ(block[i], std::byte{0}) << i;
}

TEST(SegmentHeaderTest, GoldenBytesOfAnIndex) {
  FileHeader header = sample(FileKind::index);
  header.synced_position = 20'000;
  header.synced_offset = 99;
  const auto block = encoded(header);
  EXPECT_EQ(to_hex(std::span(block).first(sizeof(FileHeader))),
            "5247544c494458310100000060000000efcdab89674523011032547698badcfe"
            "887766554433221103000000000000002a000000000000001827000000000000"
            "15cd853dfe9c9717204e0000000000006300000000000000000000002396bafb");
}

TEST(SegmentHeaderTest, RoundTrip) {
  for (const FileKind kind : {FileKind::log, FileKind::index, FileKind::time_index}) {
    const auto header = decode_header(encoded(sample(kind)), kind, "file");
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(identity_of(*header), kIdentity);
    EXPECT_EQ(header->base_offset, 42u);
    EXPECT_EQ(header->base_position, 10'008u);
    EXPECT_EQ(header->created_ns, 1'700'000'000'123'456'789);
    EXPECT_EQ(header->synced_position, kind == FileKind::index ? 10'008u : 0u);
  }
}

TEST(SegmentHeaderTest, EveryFlippedBitIsNoticed) {
  const auto good = encoded(sample());
  for (std::size_t bit = 0; bit < sizeof(FileHeader) * 8; ++bit) {
    auto bytes = good;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto header = decode_header(bytes, FileKind::log, "file");
    ASSERT_FALSE(header) << "bit " << bit;
    const bool in_version =
        bit / 8 >= offsetof(FileHeader, layout_version) && bit / 8 < offsetof(FileHeader, header_bytes);
    EXPECT_EQ(header.error().code, in_version ? Code::incompatible_layout : Code::corrupt) << "bit " << bit;
  }
}

TEST(SegmentHeaderTest, AnotherLayoutNamesBothVersions) {
  const auto header =
      decode_header(forged([](FileHeader& h) { h.layout_version = 7; }), FileKind::log, "a.log");
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, Code::incompatible_layout);
  EXPECT_NE(header.error().message.find("a.log"), std::string::npos);
  EXPECT_NE(header.error().message.find("version 7"), std::string::npos);
  EXPECT_NE(header.error().message.find("version 1"), std::string::npos);
}

TEST(SegmentHeaderTest, AnotherKindOfFileIsRefused) {
  const auto header = decode_header(encoded(sample(FileKind::index)), FileKind::log, "a.log");
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, Code::corrupt);
}

TEST(SegmentHeaderTest, EveryShorterFileIsRefused) {
  const auto block = encoded(sample());
  for (std::size_t bytes = 0; bytes < sizeof(FileHeader); ++bytes) {
    EXPECT_FALSE(decode_header(std::span(block).first(bytes), FileKind::log, "file"));
  }
}

TEST(SegmentHeaderTest, FieldsThatNobodyWritesAreRefused) {
  EXPECT_FALSE(decode_header(forged([](FileHeader& h) { h.frame_words = 1; }), FileKind::log, "file"));
  EXPECT_FALSE(decode_header(forged([](FileHeader& h) { h.header_bytes = 128; }), FileKind::log, "file"));
  EXPECT_FALSE(decode_header(forged([](FileHeader& h) { h.base_position = 9; }), FileKind::log, "file"));
}

TEST(SegmentHeaderTest, ACompactedLogSaysWhereItEnds) {
  FileHeader compacted = sample();
  compacted.compactions = 3;
  compacted.frame_words = 100;
  compacted.synced_position = 20'000;
  compacted.synced_offset = 99;
  const auto header = decode_header(encoded(compacted), FileKind::log, "file");
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_TRUE(is_compacted(*header));
  EXPECT_EQ(frames_end(*header), Position(10'808));
  EXPECT_EQ(segment_end(*header), Position(20'000));
  const auto refused = [&](auto change) {
    FileHeader changed = compacted;
    change(changed);
    return !decode_header(encoded(changed), FileKind::log, "file");
  };
  EXPECT_TRUE(refused([](FileHeader& h) { h.synced_position = 10'000; }));  // before its base
  EXPECT_TRUE(refused([](FileHeader& h) { h.synced_position = 20'001; }));
  EXPECT_TRUE(refused([](FileHeader& h) { h.frame_words = 1'250; }));  // more than the log had there
  EXPECT_TRUE(refused([](FileHeader& h) { h.synced_offset = 42; }));
}

TEST(SegmentHeaderTest, FilesOfOthersAreRefused) {
  const FileHeader header = sample();
  EXPECT_TRUE(check_identity(header, kIdentity, "file"));
  SegmentIdentity other = kIdentity;
  other.log_id[1] ^= 1;
  EXPECT_FALSE(check_identity(header, other, "file"));
  other = kIdentity;
  other.topic_id ^= 1;
  EXPECT_FALSE(check_identity(header, other, "file"));
  other = kIdentity;
  other.partition = PartitionId(4);
  EXPECT_FALSE(check_identity(header, other, "file"));
}

TEST(SegmentGeometryTest, ABlockOfMemoryIsABlockOfTheFile) {
  EXPECT_EQ(file_offset(Position(0), Position(0)), 4096u);
  EXPECT_EQ(file_offset(Position(10'008), Position(10'008)), 4096u + 10'008 - 8192);
  for (std::uint64_t p = 10'008; p < 30'000; p += 8) {
    EXPECT_EQ(file_offset(Position(10'008), Position(p)) % kBlockBytes, p % kBlockBytes);
  }
  EXPECT_EQ(end_in_file(Position(10'008), file_offset(Position(10'008), Position(77'000))), Position(77'000));
}

TEST(SegmentNameTest, RoundTrip) {
  EXPECT_EQ(segment_file_name(FileKind::log, Offset(42)), "00000000000000000042.log");
  EXPECT_EQ(segment_file_name(FileKind::index, Offset(0)), "00000000000000000000.index");
  EXPECT_EQ(segment_file_name(FileKind::time_index, Offset(UINT64_MAX)), "18446744073709551615.timeindex");
  for (const std::uint64_t base : {std::uint64_t{0}, std::uint64_t{42}, UINT64_MAX}) {
    for (const FileKind kind : {FileKind::log, FileKind::index, FileKind::time_index}) {
      EXPECT_EQ(parse_segment_file_name(kind, segment_file_name(kind, Offset(base))), Offset(base));
    }
  }
}

TEST(SegmentNameTest, OtherNamesAreNone) {
  for (const char* name : {"", ".log", "42.log", "0000000000000000004x.log", "00000000000000000042.index",
                           "00000000000000000042.log.bak", "000000000000000000042.log",
                           "-0000000000000000042.log", "99999999999999999999.log", ".prepared-1"}) {
    EXPECT_EQ(parse_segment_file_name(FileKind::log, name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace ringtail::format
