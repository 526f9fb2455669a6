// The one seam through which Ringtail writes and reads its files: the keeper's segment writes, syncs,
// preallocation and renames, and the readers' read-ahead. Implemented over io_uring and over
// pwrite/fdatasync with the same contract; tests wrap it to inject failures.
//
// Thread safety: one thread at a time uses a Backend; it may change hands. Process safety: none needed;
// files are addressed by the process's own descriptors; a fork()ed child may only destroy the Backends
// it inherited. Lifetime: a Backend waits for its operations in flight when it is destroyed; buffers
// and files must live until their completion was reaped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "ringtail/error.h"
#include "ringtail/log.h"

namespace ringtail::io {

// An open file. Closed on destruction; never inherited by exec.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  File& operator=(File&& other) noexcept;
  ~File();

  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

enum class OpenMode { read, read_direct, write_direct };

// One finished operation. `result` is the number of bytes (0 for a sync) or a negative errno.
struct Completion {
  std::uint64_t token;
  std::int64_t result;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;  // "io_uring" or "pwrite"

  // --- Metadata. These block. Errors: not_found, permission_denied, read_only, no_space, system; each
  // names the file. ---
  // write_direct creates the file when missing, and may read it too. *_direct falls back to buffered
  // I/O where the file system has no O_DIRECT (older tmpfs, overlays). Modes and refusals: base/access.h.
  virtual Result<File> open(const std::filesystem::path& path, OpenMode mode) = 0;
  // Reserves disk space for [0, bytes) and makes the file at least that long, never shorter: what was
  // not written reads as zeros, and direct writes below `bytes` neither allocate nor move the end of
  // the file. Code::no_space when the disk is full, leaving the file's size as it was. File systems
  // without fallocate get the size and no reservation.
  virtual Status preallocate(const File& file, std::uint64_t bytes) = 0;
  virtual Status truncate(const File& file, std::uint64_t bytes) = 0;
  virtual Status sync_file(const File& file) = 0;  // data and metadata (fsync)
  virtual Status rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  virtual Status unlink(const std::filesystem::path& path) = 0;
  virtual Status sync_directory(const std::filesystem::path& dir) = 0;

  // --- Data. These do not block, but for a full queue (submissions beyond `depth`), where they wait
  // for an earlier operation and keep its completion for reap. Unlinked operations run in any order.
  // Every failure is a completion with a negative errno: EINVAL for direct I/O that is not aligned to
  // the device's blocks, ENOSPC, EIO, EBADF. ---
  // Announces memory that writes will come from, so that it is pinned once (io_uring registered
  // buffers). Best effort: over the memory-lock limit, writes from it still work, unregistered.
  virtual void register_buffer(std::span<const std::byte> memory) = 0;
  virtual void unregister_buffer(std::span<const std::byte> memory) = 0;

  // Writes all of `bytes` at `file_offset` (short writes are continued internally). Completes with
  // bytes.size() or a negative errno.
  virtual void submit_write(const File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                            std::uint64_t token) = 0;
  // The same, then fdatasync, linked: one completion, after the sync, with bytes.size() or -errno.
  virtual void submit_write_and_sync(const File& file, std::span<const std::byte> bytes,
                                     std::uint64_t file_offset, std::uint64_t token) = 0;
  // fdatasync. Covers writes that were reaped before it was submitted.
  virtual void submit_sync(const File& file, std::uint64_t token) = 0;
  // Reads up to bytes.size() bytes; completes with fewer only at the end of the file.
  virtual void submit_read(const File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                           std::uint64_t token) = 0;

  // Moves finished operations to `out` and returns how many; with `wait`, blocks until there is at
  // least one (returns 0 at once when nothing is in flight).
  virtual std::size_t reap(std::span<Completion> out, bool wait) = 0;
  // Operations submitted whose completion reap has not handed out yet.
  virtual std::size_t in_flight() const = 0;
};

// `automatic` tries io_uring and falls back to pwrite with one warning in the log that names the
// cause (once in a process); `io_uring` returns Code::unsupported where it is not allowed. `depth`:
// operations in flight, 1 to kMaxDepth. Errors: invalid_argument, unsupported.
inline constexpr unsigned kMaxDepth = 4096;
Result<std::unique_ptr<Backend>> make_backend(IoBackend kind, unsigned depth);

}  // namespace ringtail::io
