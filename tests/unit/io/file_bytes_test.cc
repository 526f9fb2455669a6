#include "io/file_bytes.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <thread>
#include <vector>

#include "unit/io/io_test_support.h"

namespace ringtail::io {
namespace {

constexpr std::size_t kFileSize = (3 << 20) + 1234;

class FileBytesTest : public ::testing::TestWithParam<OpenMode> {
 protected:
  FileBytesTest() : content_(kFileSize) {
    fill_random(content_.all(), print_seed());
    const File file(::open((dir_ / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    EXPECT_EQ(::pwrite(file.fd(), content_.data(), kFileSize, 0), static_cast<ssize_t>(kFileSize));
    file_ = std::move(backend_->open(dir_ / "file", GetParam()).value());
  }
  bool holds(const FileBytes& read, std::size_t offset, std::size_t bytes) {
    return read.size() == bytes && equal(read.bytes(), content_.part(offset, bytes));
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_ = std::move(*make_backend(IoBackend::pwrite, 1));
  AlignedBytes content_;
  File file_;
};

INSTANTIATE_TEST_SUITE_P(Io, FileBytesTest, ::testing::Values(OpenMode::read, OpenMode::read_direct),
                         [](const auto& tested) {
                           return tested.param == OpenMode::read ? "read" : "direct";
                         });

TEST_P(FileBytesTest, AnyPartOfAFileIsAsItStandsThere) {
  std::mt19937_64 random(print_seed());
  std::vector<std::pair<std::size_t, std::size_t>> parts{
      {0, 1},
      {4095, 2},
      {4096, 4096},
      {kFileSize - 1, 1},
      {8, FileBytes::kMostBytes},
      {4095, FileBytes::kMostBytes},
      {kFileSize - FileBytes::kMostBytes, FileBytes::kMostBytes}};
  for (int i = 0; i < 50; ++i) {
    const std::size_t bytes = 1 + random() % FileBytes::kMostBytes;
    parts.emplace_back(random() % (kFileSize - bytes), bytes);
  }
  for (const auto& [offset, bytes] : parts) {
    const auto read = FileBytes::read(file_, offset, bytes);
    ASSERT_TRUE(read) << to_string(read.error());
    ASSERT_TRUE(holds(*read, offset, bytes)) << bytes << " bytes at " << offset;
  }
}

TEST_P(FileBytesTest, AFileThatEndsBeforeIsAnError) {
  for (const auto& [offset, bytes] : {std::pair<std::size_t, std::size_t>{kFileSize - 100, 101},
                                      {kFileSize - 5000, 5001},
                                      {kFileSize, 1},
                                      {kFileSize + 4096, 1}}) {
    const auto read = FileBytes::read(file_, offset, bytes);
    ASSERT_FALSE(read) << offset;
    EXPECT_EQ(read.error().code, Code::storage_failed);
    EXPECT_THAT(read.error().message, ::testing::HasSubstr("ends"));
  }
}

TEST_P(FileBytesTest, ThereAreOnlySoManyAtATimeAndNoneOverwritesAnother) {
  std::vector<FileBytes> held;
  for (std::size_t i = 0; i < FileBytes::kMostAtATime; ++i) {
    auto read = FileBytes::read(file_, i * 4099, FileBytes::kMostBytes);
    ASSERT_TRUE(read) << i << ": " << to_string(read.error());
    held.push_back(std::move(*read));
  }
  EXPECT_EQ(FileBytes::read(file_, 0, 100).error().code, Code::limit_exceeded);
  for (std::size_t i = 0; i < held.size(); ++i)
    EXPECT_TRUE(holds(held[i], i * 4099, FileBytes::kMostBytes)) << i;
  held.pop_back();
  {
    const auto another = FileBytes::read(file_, 0, 100);
    ASSERT_TRUE(another);
    EXPECT_FALSE(FileBytes::read(file_, 0, 100));
  }
  // Neither a read that fails nor one that is assigned away keeps its place.
  EXPECT_EQ(FileBytes::read(file_, kFileSize, 1).error().code, Code::storage_failed);
  held.front() = FileBytes();
  EXPECT_TRUE(held.front().empty());
  held.front() = FileBytes::read(file_, 1, 100).value();
  held.push_back(FileBytes::read(file_, 2, 100).value());
  EXPECT_FALSE(FileBytes::read(file_, 0, 100));
  FileBytes moved = std::move(held.front());
  EXPECT_TRUE(holds(moved, 1, 100));
  EXPECT_TRUE(holds(held.back(), 2, 100));
}

TEST_P(FileBytesTest, OneThreadReadsAndAnotherGivesBack) {
  for (int round = 0; round < 200; ++round) {
    const std::size_t offset = static_cast<std::size_t>(round) * 4001;
    FileBytes read = FileBytes::read(file_, offset, 10'000).value();
    std::jthread([&, read = std::move(read)] { EXPECT_TRUE(holds(read, offset, 10'000)); });
  }
}

}  // namespace
}  // namespace ringtail::io
