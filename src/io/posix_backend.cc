#include "io/posix_backend.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/access.h"
#include "base/result.h"

namespace ringtail::io {
namespace {

template <class Call>
auto retry_interrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

// The error of the system call that has just failed.
template <class... Args>
std::unexpected<Error> failed(fmt::format_string<Args...> what, Args&&... args) {
  const int error = errno;
  return fail_errno(error, fmt::format(what, std::forward<Args>(args)...));
}

// The path an open descriptor was opened by, for messages. Keeps errno.
std::string path_of(const File& file) {
  const int error = errno;
  std::array<char, 4096> path;
  const std::string link = fmt::format("/proc/self/fd/{}", file.fd());
  const ssize_t length = ::readlink(link.c_str(), path.data(), path.size());
  errno = error;
  if (length <= 0) return fmt::format("file descriptor {}", file.fd());
  return std::string(path.data(), static_cast<std::size_t>(length));
}

int open_flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::read: return O_RDONLY;
    case OpenMode::read_direct: return O_RDONLY | O_DIRECT;
    case OpenMode::write_direct: return O_RDWR | O_DIRECT;
  }
  std::unreachable();
}

}  // namespace

Result<File> PosixBackend::open(const std::filesystem::path& path, OpenMode mode) {
  const auto open_with = mode == OpenMode::write_direct ? open_or_create_file_of_log : open_file_of_log;
  const int flags = open_flags(mode);
  auto file = open_with(path, flags);
  if (!file && file.error().os_errno == EINVAL) file = open_with(path, flags & ~O_DIRECT);
  if (!file) return std::unexpected(file.error());
  return File(file->release());
}

Status PosixBackend::preallocate(const File& file, std::uint64_t bytes) {
  const auto length = static_cast<off_t>(bytes);
  struct stat before;
  if (::fstat(file.fd(), &before) != 0) return failed("cannot inspect '{}'", path_of(file));
  if (bytes == 0) return {};
  if (retry_interrupted([&] { return ::fallocate(file.fd(), 0, 0, length); }) == 0) return {};
  if (errno == EOPNOTSUPP || errno == ENOSYS) {
    return before.st_size >= length ? Status{} : truncate(file, bytes);
  }
  auto failure = failed("cannot reserve {} bytes for '{}'", bytes, path_of(file));
  if (failure.error().code == Code::no_space) {
    failure.error().message += "; free disk space, or lower retention.bytes or segment.bytes";
    // The attempt may have grown the file with what space there was; give that back.
    const Status status = truncate(file, static_cast<std::uint64_t>(before.st_size));
    if (!status) return status;
  }
  return failure;
}

Status PosixBackend::truncate(const File& file, std::uint64_t bytes) {
  const auto length = static_cast<off_t>(bytes);
  if (retry_interrupted([&] { return ::ftruncate(file.fd(), length); }) == 0) return {};
  return failed("cannot set the size of '{}' to {} bytes", path_of(file), bytes);
}

Status PosixBackend::sync_file(const File& file) {
  if (retry_interrupted([&] { return ::fsync(file.fd()); }) == 0) return {};
  return failed("cannot sync '{}'", path_of(file));
}

Status PosixBackend::rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return {};
  return failed("cannot rename '{}' to '{}'", from.string(), to.string());
}

Status PosixBackend::unlink(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) == 0) return {};
  return failed("cannot delete '{}'", path.string());
}

Status PosixBackend::sync_directory(const std::filesystem::path& dir) {
  const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  const File file(retry_interrupted([&] { return ::open(dir.c_str(), flags); }));
  if (!file.is_open()) return failed("cannot open directory '{}'", dir.string());
  // File systems that cannot sync a directory (EINVAL) keep its entries in order by themselves.
  if (retry_interrupted([&] { return ::fsync(file.fd()); }) == 0 || errno == EINVAL) return {};
  return failed("cannot sync directory '{}'", dir.string());
}

}  // namespace ringtail::io
