#include "io/read_ahead.h"

#include <fcntl.h>

#include <limits>
#include <thread>

#include "support/no_descriptors.h"
#include "unit/io/io_test_support.h"

namespace ringtail::io {
namespace {

constexpr std::size_t kLeastBuffer = 64 * 1024;

class ReadAheadTest : public ::testing::TestWithParam<IoBackend> {
 protected:
  // A file of random bytes.
  AlignedBytes make_file(const std::string& name, std::size_t bytes) {
    AlignedBytes content(bytes);
    fill_random(content.all(), print_seed());
    const File file(::open((dir_ / name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    EXPECT_EQ(::pwrite(file.fd(), content.data(), bytes, 0), static_cast<ssize_t>(bytes));
    return content;
  }
  File open(const std::string& name, OpenMode mode = OpenMode::read_direct) {
    auto file = backend_->open(dir_ / name, mode);
    EXPECT_TRUE(file.has_value()) << file.error().message;
    return std::move(*file);
  }
  Status start(ReadAhead& reader, const std::string& name, std::uint64_t offset = 0) {
    return reader.start(open(name), dir_ / name, offset);
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_ = std::move(*make_backend(IoBackend::pwrite, 1));
};

INSTANTIATE_TEST_SUITE_P(Io, ReadAheadTest, ::testing::Values(IoBackend::automatic, IoBackend::pwrite),
                         [](const auto& tested) {
                           return tested.param == IoBackend::automatic ? "automatic" : "pwrite";
                         });

// Reads from offset() to `limit` in random steps and checks every byte that is handed out.
void read_randomly(ReadAhead& reader, std::span<const std::byte> content, std::uint64_t limit,
                   std::mt19937_64& random) {
  while (reader.offset() < limit) {
    const std::size_t at_least = random() % 3 == 0 ? random() % 200'000 : random() % 2'000;
    const auto bytes = reader.peek(at_least, limit);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
    const std::uint64_t left = limit - reader.offset();
    ASSERT_GE(bytes->size(), std::min<std::uint64_t>(std::max<std::size_t>(at_least, 1), left));
    ASSERT_LE(bytes->size(), left);
    ASSERT_TRUE(equal(*bytes, content.subspan(reader.offset(), bytes->size()))) << reader.offset();
    const std::size_t step = random() % 2 == 0 ? bytes->size() : random() % (bytes->size() + 1);
    reader.consume(step);
    ASSERT_TRUE(equal(*bytes, content.subspan(reader.offset() - step, bytes->size())));
  }
}

TEST_P(ReadAheadTest, GivesEveryByteInOrderInAnySteps) {
  constexpr std::size_t kBytes = 3 * kMiB + 777;
  const std::uint64_t seed = print_seed();
  std::mt19937_64 random(seed);
  AlignedBytes content = make_file("a", kBytes);
  for (const std::size_t buffer : {std::size_t{1}, std::size_t{100'000}, 4 * kMiB}) {
    ReadAhead reader(buffer, GetParam());
    for (const std::uint64_t from : {std::uint64_t{0}, std::uint64_t{4097}, random() % kBytes}) {
      ASSERT_TRUE(start(reader, "a", from));
      EXPECT_EQ(reader.offset(), from);
      read_randomly(reader, content.all(), kBytes, random);
    }
  }
}

TEST_P(ReadAheadTest, EndsAtTheEndOfTheFile) {
  AlignedBytes content = make_file("a", 3 * kLeastBuffer + 5);
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a", 3 * kLeastBuffer));
  for (int again = 0; again < 3; ++again) {
    const auto bytes = reader.peek(1000, 100 * kLeastBuffer);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
    EXPECT_TRUE(equal(*bytes, content.part(3 * kLeastBuffer, 5)));
  }
  reader.consume(5);
  const auto nothing = reader.peek(1, 100 * kLeastBuffer);
  ASSERT_TRUE(nothing.has_value());
  EXPECT_TRUE(nothing->empty());
}

TEST_P(ReadAheadTest, GivesNothingAtTheLimit) {
  make_file("a", kLeastBuffer);
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a", 100));
  for (const std::uint64_t limit : {0u, 99u, 100u}) EXPECT_TRUE(reader.peek(1, limit)->empty());
  EXPECT_EQ(reader.peek(1000, 101)->size(), 1u);
}

// It may come of a word that another process wrote over: where a place in a file is counted from, it goes round to 0 when
// rounded up.
TEST_P(ReadAheadTest, NoLimitIsTooFar) {
  constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();
  AlignedBytes content = make_file("a", 3 * kLeastBuffer + 5);
  for (const std::uint64_t limit : {std::uint64_t{1} << 63, kLargest - 4'096, kLargest - 903, kLargest}) {
    ReadAhead reader(kLeastBuffer, GetParam());
    ASSERT_TRUE(start(reader, "a", kBlock));
    while (reader.offset() < content.size()) {
      const auto bytes = reader.peek(1'000, limit);
      ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
      ASSERT_FALSE(bytes->empty());
      ASSERT_LE(bytes->size(), content.size() - reader.offset());
      ASSERT_TRUE(equal(*bytes, content.part(reader.offset(), bytes->size())));
      reader.consume(bytes->size());
    }
    const auto behind = reader.peek(1'000, limit);
    ASSERT_TRUE(behind.has_value()) << behind.error().message;
    EXPECT_TRUE(behind->empty());
  }
}

// Another limit lets it read on; the block in which the first one lay is not read again under what was handed out.
TEST_P(ReadAheadTest, WhatWasHandedOutStaysAsItIs) {
  constexpr std::size_t kLimit = 10'000;
  AlignedBytes content = make_file("a", kLeastBuffer);
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a"));
  ASSERT_EQ(reader.peek(1, kLimit)->size(), kLimit);
  AlignedBytes others(kLeastBuffer);
  const File file(::open((dir_ / "a").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(file.fd(), others.data(), kLeastBuffer, 0), static_cast<ssize_t>(kLeastBuffer));
  const auto bytes = reader.peek(1, kLeastBuffer);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // within which it would have been read
  EXPECT_TRUE(equal(bytes->first(kLimit), content.part(0, kLimit)));
  reader.consume(kLimit);
  const auto behind = reader.peek(1, kLeastBuffer);
  ASSERT_TRUE(behind.has_value()) << behind.error().message;
  EXPECT_FALSE(behind->empty());
}

// Whoever opens many files, or seeks, wants a little of each.
TEST_P(ReadAheadTest, ALookAtAPlaceDoesNotReadFarAhead) {
  constexpr std::size_t kFar = 512 * 1024;
  AlignedBytes content = make_file("a", 4 * kMiB);
  ReadAhead reader(4 * kMiB, GetParam());
  ASSERT_TRUE(start(reader, "a"));
  ASSERT_TRUE(equal(reader.peek(1, 4 * kMiB)->first(1), content.part(0, 1)));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // within which it would have been read
  const std::vector<std::byte> others(3 * kMiB, std::byte{7});
  const File file(::open((dir_ / "a").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(file.fd(), others.data(), others.size(), kFar), static_cast<ssize_t>(others.size()));
  while (reader.offset() < kFar) {
    const auto bytes = reader.peek(1, kFar + others.size());
    ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
    reader.consume(std::min(bytes->size(), kFar - reader.offset()));
  }
  const auto far = reader.peek(4'096, kFar + others.size());
  ASSERT_TRUE(far.has_value()) << far.error().message;
  EXPECT_TRUE(equal(far->first(4'096), std::span(others).first(4'096)));
}

TEST_P(ReadAheadTest, GrowsForARecordLargerThanItsBuffer) {
  AlignedBytes content = make_file("a", kMiB);
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a", 10));
  const auto first = reader.peek(100, kMiB);
  ASSERT_TRUE(first.has_value());
  reader.consume(100);
  const auto large = reader.peek(10 * kLeastBuffer, kMiB);
  ASSERT_TRUE(large.has_value()) << large.error().message;
  ASSERT_GE(large->size(), 10 * kLeastBuffer);
  EXPECT_TRUE(equal(*large, content.part(110, large->size())));
}

// Whole reads leave no room for the rest of what is wanted, a smaller one does.
TEST_P(ReadAheadTest, GivesAlmostAWholeBufferFromAnyOffset) {
  constexpr std::size_t kBuffer = 4 * kLeastBuffer;
  AlignedBytes content = make_file("a", 2 * kBuffer);
  ReadAhead reader(kBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a"));
  ASSERT_GE(reader.peek(1, 2 * kBuffer)->size(), 60'000u);
  reader.consume(60'000);
  const auto bytes = reader.peek(kBuffer - kBlock, 2 * kBuffer);
  ASSERT_TRUE(bytes.has_value());
  ASSERT_GE(bytes->size(), kBuffer - kBlock);
  EXPECT_TRUE(equal(*bytes, content.part(60'000, bytes->size())));
}

// What the keeper does: the last block is written again and again as it fills, and the limit follows.
TEST_P(ReadAheadTest, FollowsAFileThatIsBeingWritten) {
  constexpr std::size_t kBytes = kMiB;
  const std::uint64_t seed = print_seed();
  std::mt19937_64 random(seed);
  AlignedBytes content(kBytes);
  fill_random(content.all(), seed);
  const File writer = open("a", OpenMode::write_direct);
  ASSERT_TRUE(backend_->preallocate(writer, kBytes));
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a"));
  AlignedBytes blocks(kBytes);
  std::size_t written = 0;
  while (written < kBytes) {
    const std::size_t from = written / kBlock * kBlock;
    written = std::min<std::size_t>(kBytes, written + 1 + random() % 20'000);
    const std::size_t to = (written + kBlock - 1) / kBlock * kBlock;
    std::copy_n(content.data() + from, written - from, blocks.data() + from);
    backend_->submit_write(writer, blocks.part(from, to - from), from, 1);
    ASSERT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(to - from));
    read_randomly(reader, content.all(), written, random);
  }
}

TEST_P(ReadAheadTest, TurnsToAnotherFileAtAnyTime) {
  const std::uint64_t seed = print_seed();
  std::mt19937_64 random(seed);
  AlignedBytes a = make_file("a", kMiB);
  AlignedBytes b = make_file("b", kMiB);
  ReadAhead reader(4 * kLeastBuffer, GetParam());
  for (int i = 0; i < 100; ++i) {
    AlignedBytes& content = i % 2 == 0 ? a : b;
    const std::uint64_t offset = random() % (kMiB - 1000);
    ASSERT_TRUE(start(reader, i % 2 == 0 ? "a" : "b", offset));
    const auto bytes = reader.peek(1000, kMiB);
    ASSERT_TRUE(bytes.has_value());
    ASSERT_TRUE(equal(*bytes, content.part(offset, bytes->size())));
  }
}

// A reader stays where it was, and tries again.
TEST_P(ReadAheadTest, GoesOnInItsFileWhereItCannotTurnToAnother) {
  AlignedBytes a = make_file("a", kMiB);
  make_file("b", kMiB);
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a"));
  const auto first = reader.peek(1000, kMiB);
  ASSERT_TRUE(first.has_value());
  reader.consume(1000);
  const File b = open("b");
  {
    const testing::NoDescriptors none;
    ASSERT_FALSE(reader.start(b, dir_ / "b", 0));
  }
  EXPECT_EQ(reader.offset(), 1000u);
  const auto next = reader.peek(500'000, kMiB);
  ASSERT_TRUE(next.has_value()) << next.error().message;
  EXPECT_TRUE(equal(*next, a.part(1000, next->size())));
}

TEST_P(ReadAheadTest, ReadsADeletedFileToItsEnd) {
  const std::uint64_t seed = print_seed();
  std::mt19937_64 random(seed);
  AlignedBytes content = make_file("a", kMiB);
  ReadAhead reader(kLeastBuffer, GetParam());
  ASSERT_TRUE(start(reader, "a"));
  ASSERT_TRUE(backend_->unlink(dir_ / "a"));
  read_randomly(reader, content.all(), kMiB, random);
}

TEST_P(ReadAheadTest, ReportsReadErrorsWithTheFileAndGoesOnAfterwards) {
  ReadAhead reader(kLeastBuffer, GetParam());
  const File directory(::open(dir_.path().c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(reader.start(directory, "the-directory", 0));
  const auto bytes = reader.peek(1, 100);
  ASSERT_FALSE(bytes.has_value());
  EXPECT_EQ(bytes.error().code, Code::storage_failed);
  EXPECT_EQ(bytes.error().os_errno, EISDIR);
  EXPECT_NE(bytes.error().message.find("the-directory"), std::string::npos);
  AlignedBytes content = make_file("a", 100);
  ASSERT_TRUE(start(reader, "a"));
  EXPECT_TRUE(equal(*reader.peek(100, 100), content.all()));
}

TEST(ReadAhead, RefusesAClosedFile) {
  ReadAhead reader;
  const Status status = reader.start(File(), "closed", 0);
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("closed"), std::string::npos);
}

TEST(MirroredBufferTest, ShowsEveryByteTwice) {
  auto buffer = MirroredBuffer::make(4 * kBlock);
  ASSERT_TRUE(buffer.has_value()) << buffer.error().message;
  EXPECT_EQ(buffer->size(), 4 * kBlock);
  fill_random({buffer->data() + kBlock, 4 * kBlock}, 1);
  EXPECT_TRUE(equal({buffer->data(), 4 * kBlock}, {buffer->data() + 4 * kBlock, 4 * kBlock}));
  MirroredBuffer moved = std::move(*buffer);
  moved.data()[0] = std::byte{7};
  EXPECT_EQ(moved.data()[4 * kBlock], std::byte{7});
  const auto none = MirroredBuffer::make(std::size_t{1} << 62);
  EXPECT_FALSE(none.has_value());
}

}  // namespace
}  // namespace ringtail::io
