#include "io/file_bytes.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <vector>

#include <fmt/format.h>

#include "base/result.h"

namespace ringtail::io {

namespace {

constexpr std::size_t kBlock = 4096;  // of direct reads
constexpr std::size_t kBufferBytes = 1 << 20;
constexpr std::size_t kHugePage = 2 << 20;

// The buffers stand in one stretch of memory, which is the system's until they are written to. The one that was given
// back last is taken first: few that are used often are in caches, and cost no page faults.
class Buffers {
 public:
  Buffers() {
    constexpr std::size_t kAll = FileBytes::kMostAtATime * kBufferBytes;
    void* const mapped = ::mmap(nullptr, kAll + kHugePage, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return;
    const auto at = reinterpret_cast<std::uintptr_t>(mapped);
    auto* const begin = static_cast<std::byte*>(mapped) + (kHugePage - at % kHugePage) % kHugePage;
    ::madvise(begin, kAll, MADV_HUGEPAGE);  // where the system has none, it does without
    for (std::size_t i = FileBytes::kMostAtATime; i > 0; --i) free_.push_back(begin + (i - 1) * kBufferBytes);
  }

  // Nothing when all are taken.
  std::byte* take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return nullptr;
    std::byte* const buffer = free_.back();
    free_.pop_back();
    return buffer;
  }
  void give_back(std::byte* buffer) {
    const std::lock_guard lock(mutex_);
    free_.push_back(buffer);
  }

 private:
  std::mutex mutex_;
  std::vector<std::byte*> free_;
};

// For as long as the process lives: what is given back at its end finds it.
Buffers& buffers() {
  static Buffers& all = *new Buffers;
  return all;
}

// Blocks of the file from `at` until there are `bytes`. False: errno says why, 0 that the file ends.
bool fill(const File& file, std::uint64_t at, std::size_t bytes, std::byte* into) {
  const std::size_t room = (bytes + kBlock - 1) / kBlock * kBlock;
  for (std::size_t there = 0; there < bytes;) {
    const ssize_t got = ::pread(file.fd(), into + there, room - there, static_cast<off_t>(at + there));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    there += static_cast<std::size_t>(got);
    errno = 0;
    if (there < bytes && (got == 0 || there % kBlock != 0)) return false;  // within a block the file ends
  }
  return true;
}

}  // namespace

FileBytes& FileBytes::operator=(FileBytes other) noexcept {
  std::swap(buffer_, other.buffer_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

FileBytes::~FileBytes() {
  if (buffer_ != nullptr) buffers().give_back(buffer_);
}

Result<FileBytes> FileBytes::read(const File& file, std::uint64_t offset, std::size_t bytes) {
  FileBytes read;
  read.buffer_ = buffers().take();
  if (read.buffer_ == nullptr)
    return fail(
        Code::limit_exceeded,
        fmt::format("no memory for another piece of a file that waits to be sent; there are {} at most",
                    kMostAtATime));
  const std::size_t skipped = offset % kBlock;
  if (!fill(file, offset - skipped, skipped + bytes, read.buffer_))
    return fail(Code::storage_failed,
                errno == 0 ? "the file ends before what is to be read" : "cannot read a file", errno);
  read.bytes_ = std::span(read.buffer_ + skipped, bytes);
  return read;
}

}  // namespace ringtail::io
