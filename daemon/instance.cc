#include "daemon/instance.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/files.h"
#include "base/parse.h"
#include "base/result.h"

namespace ringtail::daemon {
namespace {

constexpr std::uint32_t kByte = 0;

// What the holder wrote; nothing while it has not got to it.
std::string holder_of(const shm::LockFile& file) {
  std::array<char, 24> text{};
  const ssize_t got = ::pread(file.fd(), text.data(), text.size(), 0);
  std::string_view pid(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  while (pid.ends_with('\n')) pid.remove_suffix(1);
  return parse_integer(pid) ? fmt::format("pid {}", pid) : std::string("another process");
}

}  // namespace

Result<InstanceLock> InstanceLock::acquire(const std::filesystem::path& dir, bool create) {
  if (create) {
    if (auto made = make_directories(dir); !made) return std::unexpected(made.error());
  }
  // Links on the way to the log are the administrator's; none is followed from there on.
  std::error_code error;
  const auto real = std::filesystem::canonical(dir, error);
  if (error) return fail_errno(error.value(), fmt::format("cannot open directory '{}'", dir.native()));
  auto file = shm::LockFile::open(real / "daemon.lock");
  if (!file) return std::unexpected(file.error());
  const auto locked = file->try_lock(kByte);
  if (!locked) return std::unexpected(locked.error());
  if (!*locked)
    return fail(Code::already_exists, fmt::format("{} is a ringtaild of '{}' already; end it first",
                                                  holder_of(*file), dir.native()));
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(file->fd(), 0) != 0 ||
      ::pwrite(file->fd(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return fail_errno(errno, fmt::format("cannot write '{}'", file->path().native()));
  return InstanceLock(std::move(*file));
}

Status InstanceLock::check_there() const {
  struct stat locked{};
  struct stat named{};
  if (::fstat(file_.fd(), &locked) == 0 && ::stat(file_.path().c_str(), &named) == 0 &&
      locked.st_dev == named.st_dev && locked.st_ino == named.st_ino)
    return {};
  return fail(
      Code::not_found,
      fmt::format(
          "the log directory '{}' was removed or replaced while this daemon kept it: what is appended "
          "does not last; put it back from a backup or replica, and start the daemon anew",
          file_.path().parent_path().native()));
}

}  // namespace ringtail::daemon
