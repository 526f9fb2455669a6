#include "io/backend.h"

#include <unistd.h>

#include <atomic>
#include <utility>

#include <fmt/format.h>

#include "base/logger.h"
#include "io/pwrite_backend.h"
#include "io/uring_backend.h"

namespace ringtail::io {

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::unique_ptr<Backend>> make_backend(IoBackend kind, unsigned depth) {
  if (depth == 0 || depth > kMaxDepth) {
    return fail(Code::invalid_argument,
                fmt::format("an I/O depth of {} is out of range; choose 1 to {}", depth, kMaxDepth));
  }
  if (kind == IoBackend::pwrite) return std::make_unique<PwriteBackend>();
  auto uring = UringBackend::make(depth);
  if (uring) return std::move(*uring);
  if (kind == IoBackend::io_uring) return std::unexpected(uring.error());
  static std::atomic_flag told;
  if (!told.test_and_set(std::memory_order_relaxed)) {
    logger().warn("{}. Files are written with pwrite and fdatasync instead", uring.error().message);
  }
  return std::make_unique<PwriteBackend>();
}

}  // namespace ringtail::io
