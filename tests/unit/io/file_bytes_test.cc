#include "io/piped_bytes.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <csignal>
#include <thread>
#include <vector>

#include "unit/io/io_test_support.h"

namespace ringtail::io {
namespace {

constexpr std::size_t kFileBytes = 3 << 20;

class PipedBytesTest : public ::testing::TestWithParam<OpenMode> {
 protected:
  PipedBytesTest() : content_(kFileBytes) {
    std::signal(SIGPIPE, SIG_IGN);
    fill_random(content_.all(), print_seed());
    const File file(::open((dir_ / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    EXPECT_EQ(::pwrite(file.fd(), content_.data(), kFileBytes, 0), static_cast<ssize_t>(kFileBytes));
    file_ = std::move(backend_->open(dir_ / "file", GetParam()).value());
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    here_ = File(ends[0]);
    there_ = File(ends[1]);
    ::fcntl(here_.fd(), F_SETFL, O_NONBLOCK);
  }

  // What comes out at the other end, while this one sends.
  std::vector<std::byte> received(PipedBytes& piped) {
    std::vector<std::byte> bytes(piped.size());
    std::thread reader([&] {
      EXPECT_EQ(::recv(there_.fd(), bytes.data(), bytes.size(), MSG_WAITALL),
                static_cast<ssize_t>(bytes.size()));
    });
    int error = EAGAIN;
    while (error == EAGAIN) error = piped.send_to(here_.fd());
    EXPECT_EQ(error, 0);
    reader.join();
    return bytes;
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_ = std::move(*make_backend(IoBackend::pwrite, 1));
  AlignedBytes content_;
  File file_, here_, there_;
};

INSTANTIATE_TEST_SUITE_P(Io, PipedBytesTest, ::testing::Values(OpenMode::read, OpenMode::read_direct),
                         [](const auto& tested) {
                           return tested.param == OpenMode::read ? "read" : "direct";
                         });

TEST_P(PipedBytesTest, AnyPartOfAFileComesOutAsItStandsThere) {
  std::mt19937_64 random(print_seed());
  std::vector<std::pair<std::size_t, std::size_t>> parts{{0, 1},
                                                         {4095, 2},
                                                         {4096, 4096},
                                                         {kFileBytes - 1, 1},
                                                         {8, PipedBytes::kMostBytes},
                                                         {4095, PipedBytes::kMostBytes}};
  for (int i = 0; i < 50; ++i) {
    const std::size_t bytes = 1 + random() % PipedBytes::kMostBytes;
    parts.emplace_back(random() % (kFileBytes - bytes), bytes);
  }
  for (const auto& [offset, bytes] : parts) {
    auto piped = PipedBytes::read(file_, offset, bytes);
    ASSERT_TRUE(piped) << to_string(piped.error());
    ASSERT_EQ(piped->size(), bytes);
    const auto got = received(*piped);
    ASSERT_TRUE(equal(got, content_.all().subspan(offset, bytes))) << bytes << " bytes at " << offset;
    EXPECT_TRUE(piped->empty());
  }
}

TEST_P(PipedBytesTest, AFileThatEndsBeforeIsAnError) {
  EXPECT_EQ(PipedBytes::read(file_, kFileBytes - 100, 101).error().code, Code::storage_failed);
  EXPECT_EQ(PipedBytes::read(file_, kFileBytes + 4096, 1).error().code, Code::storage_failed);
}

TEST_P(PipedBytesTest, ThereAreOnlySoManyAtATime) {
  std::vector<PipedBytes> held;
  for (int i = 0; i < PipedBytes::kMostPipes; ++i) {
    auto piped = PipedBytes::read(file_, 0, 100);
    ASSERT_TRUE(piped) << i << ": " << to_string(piped.error());
    held.push_back(std::move(*piped));
  }
  EXPECT_EQ(PipedBytes::read(file_, 0, 100).error().code, Code::limit_exceeded);
  EXPECT_EQ(received(held.back()).size(), 100U);
  auto another = PipedBytes::read(file_, 0, 100);
  ASSERT_TRUE(another);
  *another = PipedBytes();
  EXPECT_TRUE(PipedBytes::read(file_, 0, 100));
}

TEST_P(PipedBytesTest, WhatASocketDoesNotTakeIsKept) {
  auto piped = PipedBytes::read(file_, 77, PipedBytes::kMostBytes).value();
  EXPECT_EQ(piped.send_to(here_.fd()), EAGAIN);
  const std::size_t sent = PipedBytes::kMostBytes - piped.size();
  ASSERT_GT(sent, 0U);
  ASSERT_GT(piped.size(), 0U);
  std::vector<std::byte> first(sent);
  ASSERT_EQ(::recv(there_.fd(), first.data(), sent, MSG_WAITALL), static_cast<ssize_t>(sent));
  PipedBytes moved = std::move(piped);
  const auto rest = received(moved);
  EXPECT_TRUE(equal(first, content_.all().subspan(77, sent)));
  EXPECT_TRUE(equal(rest, content_.all().subspan(77 + sent, rest.size())));
}

TEST_P(PipedBytesTest, APeerThatHasGoneIsAnError) {
  auto piped = PipedBytes::read(file_, 0, 100).value();
  there_ = File();
  EXPECT_EQ(piped.send_to(here_.fd()), EPIPE);
}

}  // namespace
}  // namespace ringtail::io
