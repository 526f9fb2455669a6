#include "base/access.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "base/random.h"
#include "base/result.h"

namespace ringtail {
namespace {

namespace fs = std::filesystem;

constexpr int kFolderFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr mode_t kGroupAll = S_IRWXG;
constexpr mode_t kPermissions = 07777;

std::unexpected<Error> cannot(std::string_view action, const fs::path& name) {
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot {} '{}'", action, name.native()));
}

std::unexpected<Error> refuse(std::string message) {
  return fail(Code::permission_denied, std::move(message), EACCES);
}

// "user 'mallory'", or the number of one who has no name.
std::string user_name(uid_t user) {
  std::array<char, 4096> buffer;
  struct passwd entry{};
  struct passwd* found = nullptr;
  ::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found);
  return found != nullptr ? fmt::format("user '{}' ({})", found->pw_name, user)
                          : fmt::format("user {}", user);
}

bool is_member(gid_t group) {
  if (::getegid() == group) return true;
  const int count = ::getgroups(0, nullptr);
  std::vector<gid_t> groups(static_cast<std::size_t>(std::max(count, 0)));
  const int got = ::getgroups(count, groups.data());
  groups.resize(static_cast<std::size_t>(std::max(got, 0)));
  return std::ranges::find(groups, group) != groups.end();
}

Access access_of(const struct stat& folder) {
  return {folder.st_uid, folder.st_gid, (folder.st_mode & kGroupAll) == kGroupAll};
}

Status check_folder(const struct stat& folder, const fs::path& name) {
  const uid_t user = ::geteuid();
  if ((folder.st_mode & S_IWOTH) != 0)
    return refuse(
        fmt::format("everybody may write to '{}' (of {}), so nothing in it can be trusted; choose "
                    "another directory, or `chmod o-w '{}'`",
                    name.native(), user_name(folder.st_uid), name.native()));
  const bool ours = folder.st_uid == user || folder.st_uid == 0 || user == 0;
  if (ours || (access_of(folder).shared && is_member(folder.st_gid))) return {};
  return refuse(
      fmt::format("'{}' belongs to {}, this process runs as {}; run it as that user, or share the "
                  "log with a group of both (`chgrp -R GROUP`, and `chmod 2770` for each folder)",
                  name.native(), user_name(folder.st_uid), user_name(user)));
}

Status check_file(int fd, const Access& access, const fs::path& name) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return cannot("examine", name);
  if (!S_ISREG(status.st_mode))
    return fail(Code::corrupt, fmt::format("'{}' is not a regular file; move it away", name.native()));
  if ((status.st_mode & S_IWOTH) != 0)
    return refuse(
        fmt::format("everybody may write to '{}' (of {}), so it cannot be trusted; if its content "
                    "is yours, `chmod o-w '{}'`",
                    name.native(), user_name(status.st_uid), name.native()));
  const uid_t owner = status.st_uid;
  if (owner == ::geteuid() || owner == 0 || owner == access.owner) return {};
  if (access.shared && status.st_gid == access.group) return {};
  return refuse(
      fmt::format("'{}' belongs to {}, who has no part in its folder; find out how it came there, "
                  "and move it away, or `chown` it to {}",
                  name.native(), user_name(owner), user_name(access.owner)));
}

std::string fd_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

bool set_mode(int fd, mode_t mode) {
  if (::fchmod(fd, mode) == 0) return true;
  // Opened by O_PATH, which fchmod does not take; the name that /proc has for it is as good.
  return errno == EBADF && ::chmod(fd_path(fd).c_str(), mode) == 0;
}

// Mode and owner by descriptor: what the umask, and the groups of whoever created it, made of them is undone.
// A sandbox may forbid the set-group-ID bit (RestrictSUIDSGID=), which only saves a chown later.
Status give_to(int fd, const Access& access, mode_t mode, const fs::path& name) {
  struct stat made{};
  if (::fstat(fd, &made) != 0) return cannot("examine", name);
  const uid_t owner = ::geteuid() == 0 ? access.owner : made.st_uid;
  const bool other_group = (access.shared || owner != made.st_uid) && made.st_gid != access.group;
  if (owner != made.st_uid || other_group) {
    if (::fchownat(fd, "", owner, other_group ? access.group : made.st_gid, AT_EMPTY_PATH) != 0)
      return cannot("change owner or group of", name);
    if (::fstat(fd, &made) != 0) return cannot("examine", name);
  }
  if ((made.st_mode & kPermissions) == mode || set_mode(fd, mode)) return {};
  if (errno == EPERM && (mode & S_ISGID) != 0 && set_mode(fd, mode & ~mode_t{S_ISGID})) return {};
  return cannot("set the permissions of", name);
}

bool is_link(int folder, const std::string& name) {
  struct stat status{};
  return ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
}

// Component by component, so that a link anywhere in the path is refused. (openat2 would do it in one
// call, but the daemon's sandbox cannot allow it.)
Result<Descriptor> open_folder(const fs::path& whole) {
  Descriptor folder(::open(whole.is_absolute() ? "/" : ".", kFolderFlags));
  fs::path so_far = whole.root_path();
  if (!folder) return cannot("open directory", whole);
  for (const fs::path& part : whole.relative_path()) {
    if (part.empty() || part == ".") continue;
    so_far /= part;
    Descriptor next(::openat(folder.get(), part.c_str(), kFolderFlags));
    if (!next) {
      const int os_errno = errno;
      if (is_link(folder.get(), part.native()))
        return fail(Code::already_exists,
                    fmt::format("'{}' is a symbolic link, which is not followed; move it away, or name the "
                                "directory that is meant",
                                so_far.native()),
                    os_errno);
      return fail_errno(os_errno, fmt::format("cannot open directory '{}'", whole.native()));
    }
    folder = std::move(next);
  }
  return folder;
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

}  // namespace

Result<Folder> Folder::open(const fs::path& name) {
  auto fd = open_folder(name);
  if (!fd) return std::unexpected(fd.error());
  struct stat status{};
  if (::fstat(fd->get(), &status) != 0) return cannot("examine", name);
  if (auto trusted = check_folder(status, name); !trusted) return std::unexpected(trusted.error());
  return Folder(std::move(*fd), name, access_of(status));
}

Result<Descriptor> Folder::open_file(const std::string& name, int flags) const {
  Descriptor file(::openat(fd(), name.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file && errno == ELOOP)
    return fail(
        Code::corrupt,
        fmt::format("'{}' is a symbolic link, which is not followed; move it away", (path_ / name).native()),
        ELOOP);
  if (!file) return cannot("open", path_ / name);
  if (auto trusted = check_file(file.get(), access_, path_ / name); !trusted)
    return std::unexpected(trusted.error());
  // io_uring would not wait for a disk on behalf of a file that is O_NONBLOCK.
  if (::fcntl(file.get(), F_SETFL, flags & (O_APPEND | O_DIRECT)) != 0)
    return cannot("change the flags of", path_ / name);
  return file;
}

Result<Descriptor> Folder::create_nameless(int flags) const {
  Descriptor file(::openat(fd(), ".", (flags & ~O_ACCMODE) | O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file) {
    if (errno == EOPNOTSUPP || errno == EISDIR)
      return fail(Code::unsupported, fmt::format("the file system of '{}' has no O_TMPFILE", path_.native()),
                  EOPNOTSUPP);
    return cannot("create a file in", path_);
  }
  if (auto given = give_to(file.get(), access_, access_.file_mode(), path_); !given)
    return std::unexpected(given.error());
  return file;
}

Status Folder::publish(const Descriptor& nameless, const std::string& name) const {
  // The one way to name an O_TMPFILE file without privileges.
  if (::linkat(AT_FDCWD, fd_path(nameless.get()).c_str(), fd(), name.c_str(), AT_SYMLINK_FOLLOW) == 0)
    return {};
  if (errno == EEXIST)
    return fail(Code::already_exists, fmt::format("'{}' exists", (path_ / name).native()), EEXIST);
  return cannot("publish", path_ / name);
}

Result<Descriptor> Folder::create_file(const std::string& name, int flags) const {
  auto file = create_nameless(flags);
  if (file) {
    if (auto published = publish(*file, name); published || published.error().code == Code::already_exists)
      return published ? std::move(file) : std::unexpected(published.error());
  }
  // File systems without nameless files (overlays), and places without /proc: another user of the group
  // finds the file closed to him for a moment.
  constexpr int kNew = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC;
  Descriptor created(::openat(fd(), name.c_str(), (flags & ~O_ACCMODE) | kNew, 0600));
  if (!created && errno == EEXIST)
    return fail(Code::already_exists, fmt::format("'{}' exists", (path_ / name).native()), EEXIST);
  if (!created) return cannot("create", path_ / name);
  if (auto given = give_to(created.get(), access_, access_.file_mode(), path_ / name); !given)
    return std::unexpected(given.error());
  return created;
}

Result<Descriptor> Folder::open_or_create(const std::string& name, int flags) const {
  constexpr int kAttempts = 16;  // more than one only where another process creates or removes the file
  for (int attempt = 0;; ++attempt) {
    auto file = open_file(name, flags);
    if (file || file.error().code != Code::not_found || attempt == kAttempts) return file;
    // Then opened by its name: that of one that began without is not what /proc shows of it, for messages.
    file = create_file(name, 0);
    if (!file && file.error().code != Code::already_exists) return file;
  }
}

Status Folder::make_folder(const std::string& name) const {
  const fs::path whole = path_ / name;
  // The set-group-ID bit and the group come from the folder by themselves where it has the bit.
  if (::mkdirat(fd(), name.c_str(), access_.folder_mode() & 0777) != 0) {
    const int os_errno = errno;
    struct stat there{};
    if (os_errno == EEXIST && ::fstatat(fd(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(there.st_mode))
      return {};
    return fail_errno(os_errno, fmt::format("cannot create directory '{}'", whole.native()));
  }
  const Descriptor made(::openat(fd(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made) return cannot("open directory", whole);
  return give_to(made.get(), access_, access_.folder_mode(), whole);
}

Status Folder::give(const std::string& name) const {
  const Descriptor made(::openat(fd(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!made) return cannot("open", path_ / name);
  return give_to(made.get(), access_, access_.file_mode(), path_ / name);
}

Result<Descriptor> open_file_of_log(const fs::path& file, int flags) {
  auto folder = Folder::open(folder_of(file));
  if (!folder) return std::unexpected(folder.error());
  return folder->open_file(file.filename(), flags);
}

Result<Descriptor> open_or_create_file_of_log(const fs::path& file, int flags) {
  auto folder = Folder::open(folder_of(file));
  if (!folder) return std::unexpected(folder.error());
  return folder->open_or_create(file.filename(), flags);
}

// --- The folder of shared memory -------------------------------------------------------------------

namespace {

// Made under a name that nobody can foresee, and renamed when its mode is right: others find it whole.
Status make_whole(int root, const Access& log, const std::string& name, const fs::path& whole) {
  const auto token = random_token();
  if (!token) return std::unexpected(token.error());
  const std::string between = fmt::format("{}.{:016x}.new", name, *token);
  if (::mkdirat(root, between.c_str(), 0700) != 0) return cannot("create directory", whole);
  Status done;
  {
    const Descriptor made(::openat(root, between.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    done = made ? give_to(made.get(), log, log.folder_mode(), whole) : cannot("open directory", whole);
  }
  if (done && ::renameat2(root, between.c_str(), root, name.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (done && errno != EEXIST) done = cannot("create directory", whole);
  ::unlinkat(root, between.c_str(), AT_REMOVEDIR);
  return done;  // somebody else was faster: his is looked at
}

Status check_found(const struct stat& found, const Access& log, const fs::path& whole) {
  const uid_t user = ::geteuid();
  const bool may_own = found.st_uid == user || found.st_uid == 0 || found.st_uid == log.owner;
  const bool of_group = log.shared && found.st_gid == log.group;
  if (!may_own && !of_group)
    return refuse(
        fmt::format("'{}' belongs to {}, who has no part in the log, which is of {}; this process "
                    "runs as {}. Let root remove it (`rm -r`) and find out who made it",
                    whole.native(), user_name(found.st_uid), user_name(log.owner), user_name(user)));
  const mode_t others = found.st_mode & (of_group ? S_IWOTH : S_IWOTH | S_IWGRP);
  if (others != 0)
    return refuse(
        fmt::format("'{}' (of {}) may be written to by users who have no part in the log; end all "
                    "processes of the log, and `chmod {} '{}'`",
                    whole.native(), user_name(found.st_uid), log.shared ? "2770" : "0700", whole.native()));
  return {};
}

}  // namespace

Result<Folder> make_folder_for(const Access& log, const fs::path& root, const std::string& name) {
  const fs::path whole = root / name;
  const auto above = open_folder(root);
  if (!above) return std::unexpected(above.error());
  struct stat found{};
  if (::fstatat(above->get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) return cannot("examine", whole);
    if (auto made = make_whole(above->get(), log, name, whole); !made) return std::unexpected(made.error());
  }
  // Opened first and examined by its descriptor, so that it is the same folder that is trusted.
  const Descriptor folder(::openat(above->get(), name.c_str(), kFolderFlags));
  if (!folder && (errno == ENOTDIR || errno == ELOOP))
    return fail(Code::already_exists,
                fmt::format("'{}' exists and is no directory, but a file or a link of {}; move it away",
                            whole.native(), user_name(found.st_uid)),
                EEXIST);
  if (!folder || ::fstat(folder.get(), &found) != 0) return cannot("open directory", whole);
  if (auto trusted = check_found(found, log, whole); !trusted) return std::unexpected(trusted.error());
  return Folder::open(whole);
}

}  // namespace ringtail
