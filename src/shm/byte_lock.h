// Liveness by locked bytes: whoever is attached holds the lock on a byte of one file, and the kernel
// drops it with the process. So "does the owner of slot 7 live?" has an exact answer, across container
// pid namespaces and in spite of reused pids, and no timeout is involved.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>

#include "base/descriptor.h"
#include "ringtail/error.h"
#include "shm/lock_file.h"

namespace ringtail::shm {

// One attachment's view of the lock file: it locks through one open file description and looks through
// another, because a description does not see its own locks.
// Thread safety: const members may be called from any thread. Process safety: any number of processes.
// In a forked child it holds no lock, gets none, and can only look.
// Nothing here blocks, but open on the file system, and one_at_a_time.
class ByteLockFile {
 public:
  // The file is made when missing. Errors: not_found (no such directory), permission_denied, read_only,
  // system.
  static Result<ByteLockFile> open(const std::filesystem::path& path);

  // Locks a byte; false when another ByteLockFile, of this process or another, has it.
  // Errors: closed (this is a forked child), system.
  Result<bool> lock(std::uint32_t index) const { return holder_.try_lock(index); }
  void unlock(std::uint32_t index) const { holder_.unlock(index); }

  // To be held over what takes or gives back a byte together with something else: threads that share this do not
  // exclude each other by the lock.
  [[nodiscard]] std::unique_lock<std::mutex> one_at_a_time() const {
    // In a forked child it may be held by a thread that is not there.
    return holder_.fd() < 0 ? std::unique_lock<std::mutex>() : std::unique_lock(*mutex_);
  }

  // Whether any ByteLockFile, this one included, holds the byte's lock. Errors: system.
  Result<bool> is_locked(std::uint32_t index) const;

 private:
  ByteLockFile(LockFile holder, Descriptor checker)
      : holder_(std::move(holder)), checker_(std::move(checker)) {}

  LockFile holder_;
  Descriptor checker_;
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
};

}  // namespace ringtail::shm
