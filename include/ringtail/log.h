// Entry to a log directory and the shared memory that belongs to it.
//
// What the library has to say (a death, a repair, a full disk) goes to the spdlog logger that the application
// registered as "ringtail" before; without one, warnings and errors go to standard error.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ringtail/error.h"
#include "ringtail/role.h"
#include "ringtail/types.h"

namespace ringtail {

class LogCore;  // internal

// Whether this process may take the keeper role (flushing, recycling, repair, retention).
enum class KeeperMode {
  embedded,  // a thread of this process stands by and takes the role when it is free; where it cannot keep
             // the log then, it logs why, and tries again every second. Never in a log that a cluster's
             // ringtaild keeps: there it is as none
  none,      // never: another process is relied upon
  daemon,    // as embedded, in any log: for ringtaild
};

// How the keeper writes segment files.
enum class IoBackend {
  automatic,  // io_uring, or pwrite where the kernel or the container forbids io_uring
  io_uring,
  pwrite,
};

struct LogOptions {
  std::filesystem::path dir;
  bool create_if_missing = true;
  KeeperMode keeper = KeeperMode::embedded;
  IoBackend io = IoBackend::automatic;
  int keeper_cpu = -1;  // pin the keeper's thread to this CPU; -1: wherever the kernel likes
  std::filesystem::path shared_memory_dir = "/dev/shm";
};

// A process's attachment to one log directory. A cheap handle: copies share one attachment, which
// ends with the last copy and the last Producer and Consumer opened from it.
//
// Thread safety: all members may be called from any thread. Process safety: any number of processes
// may open the same directory. After fork() the child must open its own Log; handles it inherited
// return Code::closed.
class Log {
 public:
  // Attaches to the log in `options.dir`, creating the directory and its identity when it is
  // missing and `create_if_missing` is set. Blocks until a keeper has recovered the log: at once
  // where one runs, for the time of recovery where this process becomes it.
  // Durable on return: everything that recovery kept.
  // Errors: not_found, permission_denied, read_only, incompatible_layout, corrupt, no_space,
  // shared_memory_full, limit_exceeded, system (no thread to be had), no_keeper (KeeperMode::none, and nobody else is
  // there).
  static Result<Log> open(LogOptions options);

  const std::filesystem::path& dir() const;
  // 32 hexadecimal digits; names the log's folder under /dev/shm.
  std::string id() const;
  // Whether this process holds the keeper role now.
  bool is_keeper() const;
  // Follows what this host is to a partition: leader, follower, neither. Errors: not_found, closed.
  Result<RoleWatch> watch_role(const TopicPartition& partition) const;

  const std::shared_ptr<LogCore>& core() const { return core_; }

 private:
  explicit Log(std::shared_ptr<LogCore> core) : core_(std::move(core)) {}
  std::shared_ptr<LogCore> core_;
};

}  // namespace ringtail
