#include "shm/lock_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <utility>

#include "base/access.h"
#include "base/result.h"

namespace ringtail::shm {

// The list of this process's lock files. The mutex is held while a file is opened or closed, and across
// every fork, so that the child's list is whole and no file is open that is not on it.
class ForkGuard {
 public:
  using Entry = LockFile::Entry;

  // 0 or an errno.
  static int install() {
    static const int result = ::pthread_atfork(&before_fork, &in_parent, &in_child);
    return result;
  }

  // Opens `path` into `entry`, which joins the list.
  static Status open(Entry& entry, const std::filesystem::path& path) {
    const std::lock_guard lock(mutex_);
    auto file = open_or_create_file_of_log(path, O_RDWR);
    if (!file) return std::unexpected(file.error());
    entry.fd.store(file->release(), std::memory_order_relaxed);
    entry.next = first_;
    if (first_ != nullptr) first_->previous = &entry;
    first_ = &entry;
    return {};
  }

  static void close(Entry& entry) {
    const std::lock_guard lock(mutex_);
    if (entry.next != nullptr) entry.next->previous = entry.previous;
    (entry.previous != nullptr ? entry.previous->next : first_) = entry.next;
    close_file(entry);
  }

 private:
  static void close_file(Entry& entry) {
    if (const int fd = entry.fd.exchange(-1, std::memory_order_relaxed); fd >= 0) ::close(fd);
  }

  static void before_fork() { mutex_.lock(); }
  static void in_parent() { mutex_.unlock(); }
  static void in_child() {
    detail::fork_generation.fetch_add(1, std::memory_order_relaxed);
    for (Entry* entry = first_; entry != nullptr; entry = entry->next) close_file(*entry);
    mutex_.unlock();
  }

  static constinit std::mutex mutex_;
  static constinit Entry* first_;
};

constinit std::mutex ForkGuard::mutex_;
constinit LockFile::Entry* ForkGuard::first_ = nullptr;

Result<LockFile> LockFile::open(const std::filesystem::path& path) {
  if (const int os_errno = ForkGuard::install(); os_errno != 0)
    return fail_errno(os_errno, "cannot install a handler for fork");
  auto entry = std::make_unique<Entry>();
  if (auto opened = ForkGuard::open(*entry, path); !opened) {
    opened.error().message =
        fmt::format("cannot open lock file '{}': {}", path.native(), opened.error().message);
    return std::unexpected(opened.error());
  }
  return LockFile(std::unique_ptr<Entry, Close>(entry.release()), path);
}

void LockFile::Close::operator()(Entry* entry) const {
  ForkGuard::close(*entry);
  delete entry;
}

Result<bool> LockFile::try_lock(std::uint32_t byte) const {
  const int file = fd();
  if (file < 0)
    return fail(Code::closed, fmt::format("lock file '{}' was opened by this process's parent; open the "
                                          "log anew after fork",
                                          path_.native()));
  struct flock lock{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_pid = 0};
  if (::fcntl(file, F_OFD_SETLK, &lock) == 0) return true;
  const int os_errno = errno;
  if (os_errno == EAGAIN || os_errno == EACCES) return false;
  return fail_errno(os_errno, fmt::format("cannot lock byte {} of '{}'", byte, path_.native()));
}

void LockFile::unlock(std::uint32_t byte) const {
  struct flock lock{.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_pid = 0};
  if (const int file = fd(); file >= 0) ::fcntl(file, F_OFD_SETLK, &lock);
}

}  // namespace ringtail::shm
