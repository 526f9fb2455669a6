#include "shm/byte_lock.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "base/access.h"
#include "base/result.h"

namespace ringtail::shm {

Result<ByteLockFile> ByteLockFile::open(const std::filesystem::path& path) {
  auto holder = LockFile::open(path);
  if (!holder) return std::unexpected(holder.error());
  auto checker = open_file_of_log(path, O_RDWR);
  if (!checker) return std::unexpected(checker.error());
  return ByteLockFile(std::move(*holder), std::move(*checker));
}

Result<bool> ByteLockFile::is_locked(std::uint32_t index) const {
  struct flock lock{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = index, .l_len = 1, .l_pid = 0};
  if (::fcntl(checker_.get(), F_OFD_GETLK, &lock) == 0) return lock.l_type != F_UNLCK;
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot examine byte {} of '{}'", index, holder_.path().native()));
}

}  // namespace ringtail::shm
