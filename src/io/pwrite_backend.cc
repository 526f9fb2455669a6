#include "io/pwrite_backend.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace ringtail::io {
namespace {

bool is_transient(int error) { return error == EINTR || error == EAGAIN; }

// bytes.size(), or a negative errno.
std::int64_t write_all(int fd, std::span<const std::byte> bytes, std::uint64_t file_offset) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(file_offset + done));
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (n == 0) {
      return -EIO;  // no progress and no cause: going on would never end
    } else if (!is_transient(errno)) {
      return -errno;
    }
  }
  return static_cast<std::int64_t>(done);
}

// Bytes read, fewer than asked for only at the end of the file, or a negative errno.
std::int64_t read_all(int fd, std::span<std::byte> bytes, std::uint64_t file_offset) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(file_offset + done));
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (n == 0 || (errno == EINVAL && done > 0)) {
      break;  // the end; a direct read that continues from an unaligned end reports it as EINVAL
    } else if (!is_transient(errno)) {
      return -errno;
    }
  }
  return static_cast<std::int64_t>(done);
}

std::int64_t sync_data(int fd) {
  while (::fdatasync(fd) != 0) {
    if (!is_transient(errno)) return -errno;
  }
  return 0;
}

}  // namespace

void PwriteBackend::submit_write(const File& file, std::span<const std::byte> bytes,
                                 std::uint64_t file_offset, std::uint64_t token) {
  finished_.push_back({token, write_all(file.fd(), bytes, file_offset)});
}

void PwriteBackend::submit_write_and_sync(const File& file, std::span<const std::byte> bytes,
                                          std::uint64_t file_offset, std::uint64_t token) {
  std::int64_t result = write_all(file.fd(), bytes, file_offset);
  if (result >= 0) {
    if (const std::int64_t synced = sync_data(file.fd()); synced < 0) result = synced;
  }
  finished_.push_back({token, result});
}

void PwriteBackend::submit_sync(const File& file, std::uint64_t token) {
  finished_.push_back({token, sync_data(file.fd())});
}

void PwriteBackend::submit_read(const File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                                std::uint64_t token) {
  finished_.push_back({token, read_all(file.fd(), bytes, file_offset)});
}

std::size_t PwriteBackend::reap(std::span<Completion> out, bool) {
  const std::size_t count = std::min(out.size(), finished_.size());
  std::copy_n(finished_.begin(), count, out.begin());
  finished_.erase(finished_.begin(), finished_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

}  // namespace ringtail::io
