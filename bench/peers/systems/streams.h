// Fixed-size payloads over byte streams: pipes and sockets, for readers that have one stream per producer or one
// shared by all. Reads go into a large buffer, so that a busy reader takes many records with one system call.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/result.h"
#include "harness/loops.h"

namespace ringtail::peers {

// Writes all of `payload` to each descriptor. Spins or sleeps, as asked for, while one is full.
inline Sent write_payload(const std::vector<int>& fds, Payload payload, bool block, const RunFile& run,
                          int& error) {
  for (const int fd : fds) {
    std::size_t done = 0;
    while (done < payload.size()) {
      const ssize_t wrote = ::write(fd, payload.data() + done, payload.size() - done);
      if (wrote > 0) {
        done += static_cast<std::size_t>(wrote);
        continue;
      }
      if (run.stopped()) return Sent::stopped;
      if (wrote < 0 && errno != EAGAIN && errno != EINTR) {
        error = errno;
        return Sent::failed;
      }
      if (block) {
        pollfd full{.fd = fd, .events = POLLOUT, .revents = 0};
        ::poll(&full, 1, 50);
      } else {
        spin_pause();
      }
    }
  }
  return Sent::yes;
}

// One stream that is being read.
class StreamReader {
 public:
  StreamReader(int fd, std::size_t size)
      : fd_(fd), size_(size), buffer_(std::max(std::size_t{65536}, 4 * size)) {}

  int fd() const { return fd_; }

  // Hands out what is there. -1: failed (errno); 0: nothing, or not yet a whole record.
  template <class Handle>
  int poll(Handle& handle) {
    const ssize_t got = ::read(fd_, buffer_.data() + filled_, buffer_.size() - filled_);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    filled_ += static_cast<std::size_t>(got);
    std::size_t at = 0;
    int records = 0;
    for (; filled_ - at >= size_; at += size_, ++records) handle(Payload{buffer_.data() + at, size_});
    if (at > 0) std::memmove(buffer_.data(), buffer_.data() + at, filled_ - at);
    filled_ -= at;
    return records;
  }

 private:
  int fd_;
  std::size_t size_;
  std::vector<std::byte> buffer_;
  std::size_t filled_ = 0;
};

// Several of them; sleeps in poll(2) where asked to.
class StreamReaders {
 public:
  void add(int fd, std::size_t size) {
    readers_.emplace_back(fd, size);
    waits_.push_back({.fd = fd, .events = POLLIN, .revents = 0});
  }

  // With one stream to be read, blocking, and no spinning, read(2) itself would sleep; poll(2) before it is what
  // a program does that must also hear of its end.
  template <class Handle>
  int poll(bool block, Handle& handle) {
    if (block && ::poll(waits_.data(), waits_.size(), 50) <= 0) return 0;
    int records = 0;
    for (std::size_t i = 0; i < readers_.size(); ++i) {
      if (block && waits_[i].revents == 0) continue;
      const int got = readers_[i].poll(handle);
      if (got < 0) return -1;
      records += got;
    }
    return records;
  }

 private:
  std::vector<StreamReader> readers_;
  std::vector<pollfd> waits_;
};

}  // namespace ringtail::peers
