#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/access.h"
#include "base/descriptor.h"
#include "base/result.h"

namespace ringtail {
namespace {

std::unexpected<Error> cannot(std::string_view action, const std::filesystem::path& path) {
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot {} '{}'", action, path.native()));
}

Status write_and_sync(const Folder& folder, const std::string& name, std::string_view content) {
  const std::filesystem::path path = folder.path() / name;
  if (::unlinkat(folder.fd(), name.c_str(), 0) != 0 && errno != ENOENT) return cannot("remove", path);
  const auto file = folder.create_file(name, 0);
  if (!file) return std::unexpected(file.error());
  while (!content.empty()) {
    const ssize_t written = ::write(file->get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return cannot("write", path);
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(file->get()) != 0) return cannot("sync", path);
  return {};
}

Result<Descriptor> open_to_read(const std::filesystem::path& path, FileOf whose) {
  if (whose == FileOf::log) return open_file_of_log(path, O_RDONLY);
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return cannot("open", path);
  return file;
}

// The folders above are no part of a log: they get what the umask leaves of the usual permissions, but are
// never everybody's to write to.
Status make_with_parents(const std::filesystem::path& dir, mode_t mode) {
  std::error_code ignored;
  if (dir.empty() || std::filesystem::is_directory(dir, ignored)) return {};
  const std::filesystem::path parent = dir.parent_path();
  if (auto made = make_with_parents(parent, 0755); !made) return made;
  if (::mkdir(dir.c_str(), mode) != 0) {
    const int os_errno = errno;
    if (os_errno != EEXIST || !std::filesystem::is_directory(dir, ignored))
      return fail_errno(os_errno, fmt::format("cannot create directory '{}'", dir.native()));
  }
  return sync_directory(parent);
}

}  // namespace

Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t max_bytes, FileOf whose) {
  const auto file = open_to_read(path, whose);
  if (!file) return std::unexpected(file.error());
  std::string content(max_bytes + 1, '\0');
  std::size_t size = 0;
  while (size < content.size()) {
    const ssize_t got = ::read(file->get(), content.data() + size, content.size() - size);
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
  const std::filesystem::path dir = path.has_parent_path() ? path.parent_path() : ".";
  const auto folder = Folder::open(dir);
  if (!folder) return std::unexpected(folder.error());
  const std::string name = path.filename();
  const std::string temporary = name + ".tmp";
  Status status = write_and_sync(*folder, temporary, content);
  if (status && ::renameat(folder->fd(), temporary.c_str(), folder->fd(), name.c_str()) != 0)
    status = cannot(fmt::format("rename '{}' to", (dir / temporary).native()), path);
  if (!status) {
    ::unlinkat(folder->fd(), temporary.c_str(), 0);
    return status;
  }
  return sync_directory(dir);
}

Status sync_directory(const std::filesystem::path& dir) {
  const Descriptor file(::open(dir.empty() ? "." : dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.get() < 0) return cannot("open directory", dir);
  if (::fsync(file.get()) != 0) return cannot("sync directory", dir);
  return {};
}

Status make_directory(const std::filesystem::path& dir) {
  const std::filesystem::path above = dir.has_parent_path() ? dir.parent_path() : ".";
  const auto folder = Folder::open(above);
  return folder ? folder->make_folder(dir.filename()) : std::unexpected(folder.error());
}

Status make_directories(const std::filesystem::path& dir) {
  const std::filesystem::path last = dir.has_filename() ? dir : dir.parent_path();
  return make_with_parents(last, 0700);
}

Status rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return {};
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot rename '{}' to '{}'", from.native(), to.native()));
}

}  // namespace ringtail
