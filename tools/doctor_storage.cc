#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/topic_config.h"
#include "io/backend.h"
#include "tools/doctor.h"
#include "tools/output.h"

namespace ringtail::tools {
namespace {

namespace fs = std::filesystem;

// A file made in a directory to see whether it can be done; its name is gone at once.
class ScratchFile {
 public:
  explicit ScratchFile(const fs::path& dir, int flags = 0) {
    const std::string path = dir / fmt::format(".ringtail-doctor-{}", ::getpid());
    fd_ = ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd_ < 0) cause_ = errno;
    if (cause_ != EEXIST) ::unlink(path.c_str());  // refused flags may leave the file behind
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  ~ScratchFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  int cause() const { return cause_; }

 private:
  int fd_ = -1;
  int cause_ = 0;
};

// The directory itself, or the nearest one above it that exists.
fs::path existing_part(const fs::path& dir) {
  std::error_code ignored;
  fs::path path = fs::absolute(dir, ignored);
  while (!fs::is_directory(path, ignored) && path.has_relative_path()) path = path.parent_path();
  return path;
}

std::string_view file_system_name(long type) {
  static constexpr std::pair<long, std::string_view> kNames[] = {
      {EXT4_SUPER_MAGIC, "ext4"}, {XFS_SUPER_MAGIC, "xfs"}, {BTRFS_SUPER_MAGIC, "btrfs"},
      {TMPFS_MAGIC, "tmpfs"},     {NFS_SUPER_MAGIC, "nfs"}, {OVERLAYFS_SUPER_MAGIC, "overlayfs"},
      {F2FS_SUPER_MAGIC, "f2fs"}, {0xfe534d42, "smb"},      {FUSE_SUPER_MAGIC, "fuse"},
      {V9FS_MAGIC, "9p"},         {0x2fc12fc1, "zfs"},
  };
  for (const auto& [magic, name] : kNames) {
    if (magic == type) return name;
  }
  return "unknown";
}

bool may_lock_any_memory() {
  constexpr unsigned kCapIpcLock = 14;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("CapEff:")) continue;
    return (std::strtoull(line.c_str() + 7, nullptr, 16) >> kCapIpcLock & 1) != 0;
  }
  return false;
}

std::string limit_text(rlim_t limit) { return limit == RLIM_INFINITY ? "unlimited" : human_bytes(limit); }

}  // namespace

Finding check_memlock() {
  constexpr rlim_t kEnough = 1ull << 30;
  rlimit limit = {};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool privileged = may_lock_any_memory();
  Finding finding{"locked memory",
                  Health::ok,
                  limit_text(limit.rlim_cur) + (privileged ? ", not applied (CAP_IPC_LOCK)" : ""),
                  {}};
  if (!privileged && limit.rlim_cur < kEnough) {
    finding.health = Health::warn;
    finding.remedy =
        "rings beyond the limit are written without registered buffers, which costs CPU: ulimit -l "
        "unlimited, or "
        "'* - memlock unlimited' in /etc/security/limits.conf";
  }
  return finding;
}

Finding check_nofile() {
  constexpr rlim_t kEnough = 4096;
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  Finding finding{
      "open files", Health::ok, fmt::format("{}, can be raised to {}", limit.rlim_cur, limit.rlim_max), {}};
  if (limit.rlim_cur < kEnough) {
    finding.health = Health::warn;
    finding.remedy = fmt::format("the keeper holds some files a partition: ulimit -n {}",
                                 std::min<rlim_t>(limit.rlim_max, 65536));
  }
  return finding;
}

Finding check_shared_memory(const fs::path& dir) {
  Finding finding{dir.string(), Health::ok, {}, {}};
  struct statvfs space = {};
  const ScratchFile scratch(dir);
  if (::statvfs(dir.c_str(), &space) != 0 || !scratch.is_open()) {
    const int cause = scratch.is_open() ? errno : scratch.cause();
    return {dir.string(), Health::bad, fmt::format("not usable: {}", std::strerror(cause)),
            "rings live there: mount -t tmpfs -o mode=1777 tmpfs /dev/shm"};
  }
  const std::uint64_t total = std::uint64_t{space.f_blocks} * space.f_frsize;
  const std::uint64_t available = std::uint64_t{space.f_bavail} * space.f_frsize;
  const std::uint64_t ring = TopicConfig().ring_bytes();
  finding.found = fmt::format("{}, {} free", human_bytes(total), human_bytes(available));
  constexpr std::uint64_t kRingsForComfort = 8;
  if (available >= kRingsForComfort * ring) return finding;
  finding.health = available < ring ? Health::bad : Health::warn;
  finding.remedy = fmt::format(
      "a partition's ring takes {} by default: mount -o remount,size=2G {} (docker: "
      "--shm-size 2g), or smaller term.bytes",
      human_bytes(ring), dir.string());
  return finding;
}

Finding check_io_uring() {
  const Result<std::unique_ptr<io::Backend>> backend = io::make_backend(IoBackend::io_uring, 8);
  const std::string setting = first_line("/proc/sys/kernel/io_uring_disabled");
  if (backend) return {"io_uring", Health::ok, "allowed", {}};
  return {"io_uring", Health::warn, backend.error().message,
          fmt::format(
              "the keeper writes with pwrite instead, slower: {}allow io_uring in the container's seccomp "
              "profile",
              setting.empty() || setting == "0" ? "" : "sysctl kernel.io_uring_disabled=0, ")};
}

Finding check_file_system(const fs::path& dir) {
  const fs::path path = existing_part(dir);
  struct statfs info = {};
  if (::statfs(path.c_str(), &info) != 0) {
    return {"log directory", Health::bad, fmt::format("'{}': {}", dir.string(), std::strerror(errno)),
            "choose another --dir"};
  }
  const std::string_view name = file_system_name(static_cast<long>(info.f_type));
  Finding finding{"log directory",
                  Health::ok,
                  fmt::format("'{}' on {}, {} free", dir.string(), name,
                              human_bytes(static_cast<std::uint64_t>(info.f_bavail) *
                                          static_cast<std::uint64_t>(info.f_bsize))),
                  {}};
  if (const ScratchFile file(path); !file.is_open()) {
    finding.health = Health::bad;
    finding.found += fmt::format(", not writable: {}", std::strerror(file.cause()));
    finding.remedy = fmt::format("make '{}' writable, or choose another --dir", path.string());
  } else if (name == "nfs" || name == "smb" || name == "9p" || name == "fuse") {
    finding.health = Health::warn;
    finding.remedy = "put the log on a local disk: locks and syncs of network file systems promise less";
  } else if (name == "tmpfs") {
    finding.health = Health::warn;
    finding.remedy = "what is written there is lost at a restart of the host: put the log on a disk";
  }
  return finding;
}

Finding check_direct_io(const fs::path& dir) {
  const ScratchFile file(existing_part(dir), O_DIRECT);
  if (file.is_open()) return {"O_DIRECT", Health::ok, "supported by the log directory's file system", {}};
  if (file.cause() != EINVAL)
    return {"O_DIRECT", Health::ok, fmt::format("not tried: {}", std::strerror(file.cause())), {}};
  return {"O_DIRECT", Health::warn, "not supported by the log directory's file system",
          "writes go through the page cache, which costs CPU and memory: use ext4 or xfs"};
}

Finding check_locks(const fs::path& dir) {
  const ScratchFile file(existing_part(dir));
  if (!file.is_open())
    return {"file locks", Health::ok, fmt::format("not tried: {}", std::strerror(file.cause())), {}};
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  if (::fcntl(file.fd(), F_OFD_SETLK, &lock) == 0)
    return {"file locks", Health::ok, "of open files, supported", {}};
  return {"file locks", Health::bad, fmt::format("not supported: {}", std::strerror(errno)),
          "the keeper's role and liveness rest on them: put the log on a local file system"};
}

Finding note_segments(const fs::path& dir) {
  std::error_code ignored;
  if (!fs::is_directory(dir / "topics", ignored)) return {"records", Health::ok, "no log there yet", {}};
  return {"records",
          Health::ok,
          fmt::format("not looked at: `ringtail log verify {}` reads all of them", dir.string()),
          {}};
}

}  // namespace ringtail::tools
