#include "shm/mapping.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <boost/interprocess/exceptions.hpp>

#include "base/result.h"

namespace ringtail::shm {
namespace {

namespace interprocess = boost::interprocess;
using std::filesystem::path;

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::unexpected<Error> cannot(std::string_view action, const path& name) {
  const int os_errno = errno;
  return fail_errno(os_errno, fmt::format("cannot {} '{}'", action, name.native()));
}

// What mapped_region wants of a file: we hold a descriptor, so that no name is resolved twice.
struct OpenFile {
  int fd;
  interprocess::mapping_handle_t get_mapping_handle() const { return {fd, false}; }
};

Result<interprocess::mapped_region> map(int fd, std::size_t bytes, bool read_only, const path& name) {
  try {
    return interprocess::mapped_region(
        OpenFile{fd}, read_only ? interprocess::read_only : interprocess::read_write, 0, bytes);
  } catch (const interprocess::interprocess_exception& e) {
    return fail_errno(e.get_native_error(), fmt::format("cannot map '{}' ({} bytes)", name.native(), bytes));
  }
}

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

// --- Room ----------------------------------------------------------------------------------------

path mount_point_of(path dir) {
  struct stat here{};
  struct stat above{};
  while (dir.has_relative_path() && ::stat(dir.c_str(), &here) == 0 &&
         ::stat(dir.parent_path().c_str(), &above) == 0 && here.st_dev == above.st_dev) {
    dir = dir.parent_path();
  }
  return dir;
}

struct Room {
  std::uint64_t available;
  std::uint64_t total;
  bool is_tmpfs;
};

// Nothing where the file system has no limit (tmpfs with size=0), or does not tell.
std::optional<Room> room_for(int fd) {
  struct statfs fs{};
  if (::fstatfs(fd, &fs) != 0 || fs.f_blocks == 0) return std::nullopt;
  const auto unit = static_cast<std::uint64_t>(fs.f_bsize);
  return Room{fs.f_bavail * unit, fs.f_blocks * unit, fs.f_type == TMPFS_MAGIC};
}

std::unexpected<Error> no_room(const path& name, std::size_t bytes, const Room& room, int os_errno) {
  std::error_code ignored;
  const path mount = mount_point_of(std::filesystem::absolute(name, ignored).parent_path());
  const std::uint64_t missing = bytes - std::min<std::uint64_t>(bytes, room.available);
  const std::uint64_t wanted_mib = (room.total + missing) / kMiB + 1;
  const std::string more =
      room.is_tmpfs ? fmt::format("enlarge it (`mount -o remount,size={}M {}`)", wanted_mib, mount.native())
                    : fmt::format("free space in '{}'", mount.native());
  return fail(Code::shared_memory_full,
              fmt::format("no shared memory for '{}': it needs {} bytes, {} are available; {}, or make "
                          "topics with a smaller term.bytes or ring.terms",
                          name.native(), bytes, room.available, more),
              os_errno);
}

// Reserves in pieces, for a signal undoes a whole call and a large one might never finish.
Status reserve(int fd, std::size_t bytes, const path& name) {
  constexpr std::size_t kPiece = 16 * kMiB;
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t piece = std::min(kPiece, bytes - done);
    const int os_errno = ::posix_fallocate(fd, static_cast<off_t>(done), static_cast<off_t>(piece));
    if (os_errno == 0) {
      done += piece;
    } else if (os_errno == ENOSPC || os_errno == EDQUOT) {
      return no_room(name, bytes, room_for(fd).value_or(Room{}), os_errno);
    } else if (os_errno != EINTR) {
      return fail_errno(os_errno, fmt::format("cannot reserve {} bytes for '{}'", bytes, name.native()));
    }
  }
  return {};
}

// Reserves and prefaults a new file.
Status occupy(int fd, std::byte* data, std::size_t bytes, const path& name) {
  // Faults, unlike fallocate, know of the huge-page hint, so they come first; fallocate then makes sure.
  ::madvise(data, bytes, MADV_HUGEPAGE);
  const bool populated = ::madvise(data, bytes, MADV_POPULATE_WRITE) == 0;
  if (auto reserved = reserve(fd, bytes, name); !reserved) return reserved;
  if (!populated) {  // before Linux 5.14, or memory was short a moment ago
    for (std::size_t at = 0; at < bytes; at += page_bytes()) data[at] = std::byte{0};
  }
  return {};
}

}  // namespace

// --- Creating ------------------------------------------------------------------------------------

Result<Mapping> create_shared_file(const path& name, std::size_t bytes) {
  auto folder = Folder::open(name.has_parent_path() ? name.parent_path() : path("."));
  if (!folder) return std::unexpected(folder.error());
  auto file = folder->create_nameless(O_RDWR);
  if (!file && file.error().code == Code::unsupported)
    return fail(Code::unsupported,
                fmt::format("the file system of '{}' cannot hold shared memory (no O_TMPFILE); use a "
                            "tmpfs such as /dev/shm",
                            folder->path().native()),
                EOPNOTSUPP);
  if (!file) return std::unexpected(file.error());
  // Asked first, so that a request beyond reach does not take everything for a moment.
  if (const auto room = room_for(file->get()); room && room->available < bytes)
    return no_room(name, bytes, *room, ENOSPC);
  if (::ftruncate(file->get(), static_cast<off_t>(bytes)) != 0)
    return cannot(fmt::format("set the size to {} bytes of", bytes), name);
  auto region = map(file->get(), bytes, false, name);
  if (!region) return std::unexpected(region.error());

  Mapping mapping;
  mapping.region_ = std::move(*region);
  if (auto occupied = occupy(file->get(), mapping.data(), bytes, name); !occupied)
    return std::unexpected(occupied.error());
  mapping.unpublished_ = std::move(*file);
  mapping.folder_ = std::move(*folder);
  mapping.path_ = name;
  return mapping;
}

Status Mapping::publish_new() {
  auto linked = folder_->publish(unpublished_, path_.filename());
  if (linked) {
    unpublished_ = Descriptor();
    folder_.reset();
  }
  return linked;
}

path replacing_path(const path& name) {
  path between = name;
  between += ".tmp";
  return between;
}

Status Mapping::publish_replacing() {
  // A link cannot replace, a rename can. The name between may be left over from a process that died here.
  const path between = replacing_path(path_);
  const std::string name = between.filename();
  auto linked = folder_->publish(unpublished_, name);
  if (!linked && linked.error().code == Code::already_exists) {
    if (::unlinkat(folder_->fd(), name.c_str(), 0) != 0) return cannot("remove", between);
    linked = folder_->publish(unpublished_, name);
  }
  if (!linked) return linked;
  if (::renameat(folder_->fd(), name.c_str(), folder_->fd(), path_.filename().c_str()) != 0) {
    auto failure = cannot(fmt::format("rename '{}' to", between.native()), path_);
    ::unlinkat(folder_->fd(), name.c_str(), 0);
    return failure;
  }
  unpublished_ = Descriptor();
  folder_.reset();
  return {};
}

// --- Opening -------------------------------------------------------------------------------------

Result<Mapping> open_shared_file(const path& name, bool read_only, std::size_t min_bytes,
                                 std::size_t max_bytes) {
  const auto file = open_file_of_log(name, read_only ? O_RDONLY : O_RDWR);
  if (!file) return std::unexpected(file.error());
  struct stat status{};
  if (::fstat(file->get(), &status) != 0) return cannot("examine", name);
  const auto file_bytes = static_cast<std::size_t>(status.st_size);
  if (file_bytes == 0 || file_bytes < min_bytes)
    return fail(Code::corrupt, fmt::format("'{}' has {} bytes where at least {} are needed; move it away",
                                           name.native(), file_bytes, std::max<std::size_t>(min_bytes, 1)));
  const std::size_t bytes = std::min(file_bytes, max_bytes);
  auto region = map(file->get(), bytes, read_only, name);
  if (!region) return std::unexpected(region.error());

  Mapping mapping;
  mapping.region_ = std::move(*region);
  const int populate = read_only ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
  if (::madvise(mapping.data(), bytes, populate) != 0 && errno != EINVAL) {  // EINVAL: before Linux 5.14
    if (errno == EFAULT)
      return fail(Code::corrupt,
                  fmt::format("'{}' was truncated, or its {} bytes were never reserved; "
                              "move it away",
                              name.native(), bytes),
                  EFAULT);
    return cannot("make resident", name);
  }
  return mapping;
}

// --- Names ---------------------------------------------------------------------------------------

Result<path> make_shared_directory(const path& root, std::string_view log_id, const Access& log) {
  // Links on the way to the root are the administrator's, such as /dev/shm -> /run/shm.
  std::error_code error;
  const path real = std::filesystem::canonical(root, error);
  if (error) return fail_errno(error.value(), fmt::format("cannot open directory '{}'", root.native()));
  auto folder = make_folder_for(log, real, fmt::format("ringtail-{}", log_id));
  if (!folder) return std::unexpected(folder.error());
  return folder->path();
}

Status link_path(const path& existing, const path& name) {
  if (::link(existing.c_str(), name.c_str()) == 0) return {};
  if (errno == EEXIST) return fail(Code::already_exists, fmt::format("'{}' exists", name.native()), EEXIST);
  return cannot(fmt::format("give the name '{}' to", name.native()), existing);
}

Status unlink_path(const path& name) {
  return ::unlink(name.c_str()) == 0 ? Status() : cannot("remove", name);
}

}  // namespace ringtail::shm
