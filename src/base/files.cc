#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/result.h"

namespace ringtail {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::unexpected<Error> cannot(std::string_view action, const std::filesystem::path& path) {
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot {} '{}'", action, path.native()));
}

Status write_and_sync(const std::filesystem::path& path, std::string_view content) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.get() < 0) return cannot("create", path);
  while (!content.empty()) {
    const ssize_t written = ::write(file.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return cannot("write", path);
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(file.get()) != 0) return cannot("sync", path);
  return {};
}

}  // namespace

Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return cannot("open", path);
  std::string content(max_bytes + 1, '\0');
  std::size_t size = 0;
  while (size < content.size()) {
    const ssize_t got = ::read(file.get(), content.data() + size, content.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return cannot("read", path);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size > max_bytes) {
    return fail(Code::corrupt, fmt::format("'{}' is larger than {} bytes, so it is no file of Ringtail's",
                                           path.native(), max_bytes));
  }
  content.resize(size);
  return content;
}

Status write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  Status status = write_and_sync(temporary, content);
  if (status) status = rename_path(temporary, path);
  if (!status) {
    ::unlink(temporary.c_str());
    return status;
  }
  return sync_directory(path.parent_path());
}

Status sync_directory(const std::filesystem::path& dir) {
  const Descriptor file(::open(dir.empty() ? "." : dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.get() < 0) return cannot("open directory", dir);
  if (::fsync(file.get()) != 0) return cannot("sync directory", dir);
  return {};
}

Status make_directory(const std::filesystem::path& dir) {
  if (::mkdir(dir.c_str(), 0777) == 0) return {};
  std::error_code ignored;
  const int os_errno = errno;
  if (os_errno == EEXIST && std::filesystem::is_directory(dir, ignored)) return {};
  return fail_errno(os_errno, fmt::format("cannot create directory '{}'", dir.native()));
}

Status make_directories(const std::filesystem::path& dir) {
  std::error_code ignored;
  if (dir.empty() || std::filesystem::is_directory(dir, ignored)) return {};
  const std::filesystem::path parent = dir.parent_path();
  if (auto made = make_directories(parent); !made) return made;
  if (auto made = make_directory(dir); !made) return made;
  return sync_directory(parent);
}

Status rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return {};
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot rename '{}' to '{}'", from.native(), to.native()));
}

}  // namespace ringtail
