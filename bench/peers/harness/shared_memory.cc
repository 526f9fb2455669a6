#include "harness/shared_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/result.h"

namespace ringtail::peers {

Result<SharedFile> SharedFile::open(const std::string& path, std::size_t bytes) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno(errno, fmt::format("cannot open '{}'", path));
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* memory = MAP_FAILED;
  if (error == 0) memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  const int os_errno = error != 0 ? error : errno;
  ::close(fd);
  if (memory == MAP_FAILED)
    return fail_errno(os_errno, fmt::format("cannot map {} bytes of '{}'", bytes, path));
  return SharedFile(memory, bytes);
}

SharedFile::SharedFile(SharedFile&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}

SharedFile::~SharedFile() {
  if (memory_ != nullptr) ::munmap(memory_, bytes_);
}

}  // namespace ringtail::peers
