// Bytes of a file on their way to a socket, which the kernel moves by itself: they wait in a pipe, and no program
// copies them. Read past the page cache when the file was opened with OpenMode::read_direct.
//
// splice(2): from the file into the pipe on a thread that may wait for the disk, from there to the socket on one that
// may not.
//
// Thread safety: one thread at a time; it may change hands. Process safety: none needed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/backend.h"

namespace ringtail::io {

class PipedBytes {
 public:
  // The most that one pipe takes, wherever in the file it begins.
  static constexpr std::size_t kMostBytes = (1 << 20) - 2 * 4096;
  // Of a process at a time, about: each holds two descriptors and up to 1 MiB of the kernel's memory.
  static constexpr int kMostPipes = 64;

  PipedBytes() = default;
  PipedBytes(PipedBytes&& other) noexcept { *this = std::move(other); }
  PipedBytes& operator=(PipedBytes&& other) noexcept;
  ~PipedBytes() { drop(); }

  // Those of [offset, offset + bytes); `bytes` is in [1, kMostBytes]. Blocks while the disk reads.
  // Errors: limit_exceeded (kMostPipes, or the system gives no such pipe), storage_failed (a read, or the file ends
  // before).
  static Result<PipedBytes> read(const File& file, std::uint64_t offset, std::size_t bytes);

  // What is left of it.
  std::size_t size() const { return left_; }
  bool empty() const { return left_ == 0; }

  // Moves to the socket what it takes without waiting; 0, or an errno: EAGAIN when it takes no more for now. A peer
  // that has gone raises SIGPIPE where that is not ignored. Lock-free but for the system call.
  int send_to(int socket);

 private:
  void drop();

  File out_;  // where they come out; as long as that is open, one of kMostPipes is taken
  std::size_t left_ = 0;
};

}  // namespace ringtail::io
