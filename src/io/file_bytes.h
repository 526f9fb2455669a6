// Bytes of a file on their way to a socket: read in one go, into memory that is used again and again, and left there
// until they are sent. Read past the page cache when the file was opened with OpenMode::read_direct.
//
// Thread safety: one thread at a time; it may change hands. Process safety: none needed; a fork()ed child has a copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "io/backend.h"

namespace ringtail::io {

class FileBytes {
 public:
  // The most that one holds, wherever in the file it begins.
  static constexpr std::size_t kMostBytes = (1 << 20) - 2 * 4096;
  // Of a process at a time. Each takes 1 MiB; as much as there ever was at once stays with the process.
  static constexpr std::size_t kMostAtATime = 64;

  FileBytes() = default;
  FileBytes(FileBytes&& other) noexcept
      : buffer_(std::exchange(other.buffer_, nullptr)), bytes_(std::exchange(other.bytes_, {})) {}
  FileBytes& operator=(FileBytes other) noexcept;
  ~FileBytes();

  // Those of [offset, offset + bytes); `bytes` is in [1, kMostBytes]. Blocks while the disk reads.
  // Errors: limit_exceeded (kMostAtATime, or the system has no memory), storage_failed (a read, or the file ends
  // before).
  static Result<FileBytes> read(const File& file, std::uint64_t offset, std::size_t bytes);

  std::span<const std::byte> bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

 private:
  std::byte* buffer_ = nullptr;  // one of kMostAtATime
  std::span<const std::byte> bytes_;
};

}  // namespace ringtail::io
