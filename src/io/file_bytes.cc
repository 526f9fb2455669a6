#include "io/piped_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"

namespace ringtail::io {

namespace {

constexpr std::uint64_t kBlock = 4096;  // of direct reads, and a page, of which a pipe holds so many

std::atomic<int> pipes = 0;  // SYNC: none needed, a count alone

// Pages of the file from `at` until there are `bytes` in the pipe, which has room for them. False: errno says why, 0
// that the file ends.
bool fill(const File& file, std::uint64_t at, std::uint64_t bytes, std::uint64_t room, int into) {
  auto offset = static_cast<loff_t>(at);
  for (std::uint64_t there = 0; there < bytes;) {
    const ssize_t moved = ::splice(file.fd(), &offset, into, nullptr, room - there, 0);
    if (moved < 0 && errno == EINTR) continue;
    if (moved == 0) errno = 0;
    if (moved <= 0) return false;
    there += static_cast<std::uint64_t>(moved);
  }
  return true;
}

}  // namespace

PipedBytes& PipedBytes::operator=(PipedBytes&& other) noexcept {
  if (this == &other) return *this;
  drop();
  out_ = std::move(other.out_);
  left_ = std::exchange(other.left_, 0);
  return *this;
}

void PipedBytes::drop() {
  if (out_.is_open()) pipes.fetch_sub(1, std::memory_order_relaxed);
  out_ = File();
  left_ = 0;
}

Result<PipedBytes> PipedBytes::read(const File& file, std::uint64_t offset, std::size_t bytes) {
  const std::uint64_t begin = offset / kBlock * kBlock;
  const std::uint64_t skipped = offset - begin;
  const std::uint64_t room = (skipped + bytes + kBlock - 1) / kBlock * kBlock;
  std::array<int, 2> ends{-1, -1};
  if (pipes.load(std::memory_order_relaxed) >= kMostPipes ||
      ::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0)
    return fail(Code::limit_exceeded, fmt::format("there is no pipe to be had besides the {} in use",
                                                  pipes.load(std::memory_order_relaxed)));
  pipes.fetch_add(1, std::memory_order_relaxed);
  PipedBytes piped;
  piped.out_ = File(ends[0]);
  const File in(ends[1]);
  if (::fcntl(in.fd(), F_SETPIPE_SZ, static_cast<int>(room)) < static_cast<int>(room))
    return fail(Code::limit_exceeded, fmt::format("cannot have a pipe of {} bytes", room));
  if (!fill(file, begin, skipped + bytes, room, in.fd()))
    return fail(Code::storage_failed,
                errno == 0 ? "the file ends before what is to be read" : "cannot read a file into a pipe",
                errno);
  std::array<std::byte, kBlock> before;
  if (skipped > 0 && ::read(piped.out_.fd(), before.data(), skipped) != static_cast<ssize_t>(skipped))
    return fail_errno(errno, "cannot read from a pipe");
  piped.left_ = bytes;
  return piped;
}

int PipedBytes::send_to(int socket) {
  while (left_ > 0) {
    const ssize_t moved = ::splice(out_.fd(), nullptr, socket, nullptr, left_, SPLICE_F_NONBLOCK);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return moved < 0 ? errno : EPIPE;
    left_ -= static_cast<std::size_t>(moved);
  }
  drop();
  return 0;
}

}  // namespace ringtail::io
