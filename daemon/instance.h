// One daemon per log directory, by a lock that the kernel drops at its death.
#pragma once

#include <filesystem>

#include "shm/lock_file.h"

namespace ringtail::daemon {

// Held until destruction. The holder's pid stands in the file, for the error of whoever comes second.
class InstanceLock {
 public:
  // Locks `dir`/daemon.lock; the directory is made when `create` is set.
  // Errors: already_exists (names the pid of the first), not_found, permission_denied, read_only, system.
  static Result<InstanceLock> acquire(const std::filesystem::path& dir, bool create);

  // Whether the locked file still stands under its name. Errors: not_found: the directory was removed, or another
  // was put in its place. May be called from any thread.
  Status check_there() const;

 private:
  explicit InstanceLock(shm::LockFile file) : file_(std::move(file)) {}
  shm::LockFile file_;
};

}  // namespace ringtail::daemon
