// Locks that tell who lives: open-file-description locks, which the kernel drops when the process that
// opened the file ends, in whatever way.
//
// Such a lock belongs to the open file and not to the process, so a forked child would keep its dead
// parent's locks. Therefore every LockFile is on a list, and a pthread_atfork handler closes them in the
// child before fork() returns there. Programs started by exec or posix_spawn never see them (O_CLOEXEC).
// What is left: between fork and the handler, some microseconds, the child still holds a copy; and a
// child made by a raw clone system call or by _Fork(), which run no handlers, holds one until it ends or
// calls exec. While the parent lives, neither matters.
//
// A lock file must not be removed or replaced while anyone may be using it: two processes would then
// hold the same lock, of two files.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "ringtail/error.h"

namespace ringtail::shm {

namespace detail {
inline constinit std::atomic<std::uint32_t> fork_generation{0};
}

// Rises by one in a forked child, once this process has opened its first LockFile. Whoever notes it
// when opening something can tell by it, at the price of a plain load, that the thing is the parent's.
inline std::uint32_t fork_generation() { return detail::fork_generation.load(std::memory_order_relaxed); }

// An open lock file. Two LockFiles of one path exclude each other, also within a process.
// Thread safety: const members may be called from any thread. Process safety: see above; in a forked
// child it is closed. Lifetime: its locks end with it.
class LockFile {
 public:
  // Opens the file, which is made when missing. Nothing is read from or written to it.
  // Errors: not_found (no such directory), permission_denied, corrupt (no regular file), read_only, system.
  static Result<LockFile> open(const std::filesystem::path& path);

  LockFile(LockFile&&) noexcept = default;
  LockFile& operator=(LockFile&&) noexcept = default;

  // Locks one byte (which need not exist) if nobody else has it; locking it twice is no error. Does not
  // block. False: another LockFile has it. Errors: closed (this is a forked child), system.
  Result<bool> try_lock(std::uint32_t byte) const;
  // Gives one byte free; no effect when it is not locked, or in a forked child.
  void unlock(std::uint32_t byte) const;

  // For calls of one's own. -1 in a forked child.
  int fd() const { return entry_->fd.load(std::memory_order_relaxed); }
  const std::filesystem::path& path() const { return path_; }

 private:
  friend class ForkGuard;

  struct Entry {
    std::atomic<int> fd{-1};  // changed by the fork handler, when there is one thread only
    Entry* previous = nullptr;
    Entry* next = nullptr;
  };
  struct Close {
    void operator()(Entry* entry) const;
  };

  LockFile(std::unique_ptr<Entry, Close> entry, std::filesystem::path path)
      : entry_(std::move(entry)), path_(std::move(path)) {}

  std::unique_ptr<Entry, Close> entry_;
  std::filesystem::path path_;
};

}  // namespace ringtail::shm
