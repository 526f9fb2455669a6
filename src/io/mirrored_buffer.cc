#include "io/mirrored_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"
#include "io/backend.h"

namespace ringtail::io {

Result<MirroredBuffer> MirroredBuffer::make(std::size_t bytes) {
  const auto failed = [bytes] {
    return fail_errno(errno, fmt::format("cannot map a read buffer of {} bytes", bytes));
  };
  const File memory(::memfd_create("ringtail-read-buffer", MFD_CLOEXEC));
  if (!memory.is_open() || ::ftruncate(memory.fd(), static_cast<off_t>(bytes)) != 0) return failed();
  void* const range = ::mmap(nullptr, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (range == MAP_FAILED) return failed();
  MirroredBuffer buffer(static_cast<std::byte*>(range), bytes);
  for (std::byte* const half : {buffer.data(), buffer.data() + bytes}) {
    if (::mmap(half, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory.fd(), 0) == MAP_FAILED)
      return failed();
  }
  return buffer;
}

MirroredBuffer::MirroredBuffer(MirroredBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MirroredBuffer& MirroredBuffer::operator=(MirroredBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MirroredBuffer::~MirroredBuffer() {
  if (data_ != nullptr) ::munmap(data_, 2 * size_);
}

}  // namespace ringtail::io
