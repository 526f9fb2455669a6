#include "replication/wire.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringtail::replication {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

MessageHeader frames_header() {
  return {.type = MessageType::frames,
          .topic_id = 77,
          .partition = 3,
          .leader_epoch = 9,
          .position = 4096,
          .offset = 12,
          .mark_position = 2048,
          .mark_offset = 6};
}

class Wire : public ::testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(, Wire, ::testing::Values(Compression::none, Compression::lz4, Compression::zstd));

TEST_P(Wire, AMessageComesOutAsItWentIn) {
  std::string text;
  for (int i = 0; i < 3'000; ++i) text += "record " + std::to_string(i % 17);
  std::vector<std::byte> wire;
  append_message(wire, frames_header(), bytes_of(text), GetParam());
  const std::size_t first = wire.size();
  append_message(wire, {.type = MessageType::ping}, {}, GetParam());
  if (GetParam() != Compression::none) {
    EXPECT_LT(first, text.size() / 2);
  }
  std::vector<std::byte> unpacked;
  auto parsed = parse_message(wire, unpacked);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->bytes, first);
  EXPECT_EQ(std::memcmp(parsed->message.body.data(), text.data(), text.size()), 0);
  EXPECT_EQ(parsed->message.body.size(), text.size());
  EXPECT_EQ(parsed->message.at(), (log::LogPoint{Position(4096), Offset(12)}));
  EXPECT_EQ(parsed->message.mark(), (log::LogPoint{Position(2048), Offset(6)}));
  EXPECT_EQ(parsed->message.epoch(), LeaderEpoch(9));
  EXPECT_EQ(stream_of(parsed->message.header), (StreamId{77, 3}));
  parsed = parse_message(std::span(wire).subspan(first), unpacked);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->message.header.type, MessageType::ping);
}

TEST_P(Wire, HalfAMessageIsWaitedFor) {
  std::vector<std::byte> wire;
  append_message(wire, frames_header(), bytes_of(std::string(2'000, 'x')), GetParam());
  std::vector<std::byte> unpacked;
  for (std::size_t bytes = 0; bytes < wire.size(); ++bytes) {
    // In memory of its own, so that a sanitizer sees a read beyond it.
    const std::vector<std::byte> part(wire.begin(), wire.begin() + static_cast<std::ptrdiff_t>(bytes));
    const auto parsed = parse_message(part, unpacked);
    ASSERT_TRUE(parsed) << bytes;
    ASSERT_EQ(parsed->bytes, 0u) << bytes;
  }
}

TEST_P(Wire, EveryChangedBitIsNoticed) {
  std::vector<std::byte> wire;
  append_message(wire, frames_header(), bytes_of(std::string(300, 'x') + "abc"), GetParam());
  std::vector<std::byte> unpacked;
  for (std::size_t bit = 0; bit < wire.size() * 8; ++bit) {
    std::vector<std::byte> damaged = wire;
    damaged[bit / 8] ^= std::byte(1u << bit % 8);
    const auto parsed = parse_message(damaged, unpacked);
    // A length that has grown leaves the rest to be waited for; the connection's silence ends that.
    ASSERT_TRUE(!parsed || parsed->bytes == 0) << "bit " << bit;
  }
}

// Memory that stands at two addresses, as a ring does in two processes.
class TwiceMapped {
 public:
  explicit TwiceMapped(std::size_t bytes) : bytes_(bytes), file_(::memfd_create("test", MFD_CLOEXEC)) {
    if (file_ < 0 || ::ftruncate(file_, static_cast<off_t>(bytes)) != 0) std::abort();
    for (std::byte*& at : at_) {
      void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
      if (mapped == MAP_FAILED) std::abort();
      at = static_cast<std::byte*>(mapped);
    }
  }
  TwiceMapped(const TwiceMapped&) = delete;
  TwiceMapped& operator=(const TwiceMapped&) = delete;
  ~TwiceMapped() {
    for (std::byte* const at : at_) ::munmap(at, bytes_);
    ::close(file_);
  }
  std::span<std::byte> here() { return {at_[0], bytes_}; }
  std::byte* there() { return at_[1]; }

 private:
  std::size_t bytes_;
  int file_;
  std::byte* at_[2] = {};
};

// In a disk topic's ring the keeper gives frames their checksums just then.
TEST_P(Wire, WhatNobodyChangesComesOutAsItWentInThoughBytesBesideItChange) {
  constexpr std::size_t kBytes = 8192;
  constexpr std::size_t kGap = 64;
  using Checksum = std::uint32_t;
  TwiceMapped ring(kBytes);
  const auto body = ring.here();
  std::mt19937 random(7);
  for (std::size_t i = 0; i < kBytes; ++i) body[i] = std::byte(i < kBytes / 2 ? random() | 1u : 'x');
  std::vector<std::size_t> changing;
  for (std::size_t at = kGap; at + 2 * kGap <= kBytes / 2; at += 2 * kGap) {
    changing.push_back(at);  // zeroes at first, as there are some behind it
    std::memset(body.data() + at, 0, 2 * sizeof(Checksum));
    std::memset(body.data() + at + kGap, 0, 2 * sizeof(Checksum));
  }
  const auto without_changing = [&](std::span<const std::byte> bytes) {
    std::vector<std::byte> rest(bytes.begin(), bytes.end());
    for (const std::size_t at : changing) std::memset(rest.data() + at, 0, sizeof(Checksum));
    return rest;
  };
  const std::vector<std::byte> expected = without_changing(body);
  std::atomic<bool> end{false};
  std::thread keeper([&] {
    for (Checksum value = 0; !end; value = ~value)
      for (const std::size_t at : changing)
        std::atomic_ref<Checksum>(*reinterpret_cast<Checksum*>(ring.there() + at)).store(value);
  });
  std::size_t changed = 0;
  std::vector<std::byte> unpacked;
  for (int round = 0; round < 5'000; ++round) {
    std::vector<std::byte> wire;
    append_message(wire, frames_header(), body, GetParam());
    const auto parsed = parse_message(wire, unpacked);
    if (!parsed || parsed->message.body.size() != kBytes ||
        without_changing(parsed->message.body) != expected)
      ++changed;
  }
  end = true;
  keeper.join();
  EXPECT_EQ(changed, 0u);
}

TEST(WireUnchecked, OnlyTheHeaderIsCovered) {
  const std::string body = "frames with checksums of their own";
  auto message = encode_unchecked({.type = MessageType::frames, .position = 77}, body.size());
  const auto bytes = std::as_bytes(std::span(body));
  message.insert(message.end(), bytes.begin(), bytes.end());
  std::vector<std::byte> unpacked;
  for (std::size_t i = 0; i < message.size(); ++i) {
    message[i] ^= std::byte{4};
    const auto parsed = parse_message(message, unpacked);
    EXPECT_EQ(parsed && parsed->bytes != 0, i >= kMessageHeaderBytes) << i;
    message[i] ^= std::byte{4};
  }
  const auto parsed = parse_message(message, unpacked);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->message.header.flags, kUnchecked);
  EXPECT_EQ(parsed->message.at().position, Position(77));
  EXPECT_TRUE(std::ranges::equal(parsed->message.body, bytes));
}

// Nothing but frames has checksums of its own.
TEST(WireUnchecked, OtherMessagesAreRefused) {
  for (const MessageType type :
       {MessageType::hello, MessageType::follow, MessageType::start, MessageType::ack}) {
    std::vector<std::byte> unpacked;
    const auto message = encode_unchecked({.type = type}, 0);
    EXPECT_EQ(parse_message(message, unpacked).error().code, Code::corrupt);
  }
}

TEST(WireErrors, NameWhatIsWrong) {
  std::vector<std::byte> unpacked;
  const auto http = parse_message(bytes_of(std::string(80, 'G')), unpacked);
  ASSERT_FALSE(http);
  EXPECT_EQ(http.error().code, Code::corrupt);
  MessageHeader newer{.type = MessageType::ping};
  newer.version = 7;
  const auto other = parse_message(std::as_bytes(std::span(&newer, 1)), unpacked);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::incompatible_layout);
  EXPECT_THAT(other.error().message, HasSubstr("version 7"));
  MessageHeader large{.type = MessageType::frames};
  large.body_bytes = large.raw_bytes = kMaxBodyBytes + 1;
  EXPECT_FALSE(parse_message(std::as_bytes(std::span(&large, 1)), unpacked));
}

TEST(WireErrors, ABodyBeyondTheLimitIsRefusedByItsHeader) {
  std::vector<std::byte> wire;
  append_message(wire, frames_header(), bytes_of(std::string(5'000, 'x')));
  std::vector<std::byte> unpacked;
  EXPECT_TRUE(parse_message(wire, unpacked, 5'000));
  const auto refused = parse_message(std::span(wire).first(kMessageHeaderBytes), unpacked, 4'999);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("impossible message"));
  wire.clear();
  append_message(wire, frames_header(), bytes_of(std::string(5'000, 'x')), Compression::zstd);
  EXPECT_FALSE(parse_message(wire, unpacked, 4'999));  // what it would be unpacked counts
}

TEST(WireErrors, RandomBytesNeverComeOutAsAMessage) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<std::byte> unpacked;
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::byte> bytes(random() % 300);
    for (std::byte& b : bytes) b = std::byte(random());
    MessageHeader header{.type = MessageType(random() % 9), .compression = Compression(random() % 3)};
    header.body_bytes = static_cast<std::uint32_t>(random() % 200);
    header.raw_bytes = static_cast<std::uint32_t>(random() % 400);
    if (bytes.size() >= sizeof header) std::memcpy(bytes.data(), &header, 16);
    const auto parsed = parse_message(bytes, unpacked);
    ASSERT_TRUE(!parsed || parsed->bytes == 0);
  }
}

TEST(WireEpochs, ComeOutAsTheyWentIn) {
  log::EpochList list;
  list.begin(LeaderEpoch(3), {});
  list.begin(LeaderEpoch(7), {Position(640), Offset(10)});
  const auto body = encode_epochs(list);
  const auto decoded = decode_epochs(body);
  ASSERT_TRUE(decoded);
  EXPECT_TRUE(std::ranges::equal(decoded->starts(), list.starts()));
  EXPECT_TRUE(decode_epochs({})->starts().empty());
  for (std::size_t bytes = 1; bytes < body.size(); ++bytes)
    EXPECT_EQ(decode_epochs(std::span(body).first(bytes)).has_value(), bytes % 24 == 0);
}

}  // namespace
}  // namespace ringtail::replication
