// Child processes of `ringtail perf`: forked while the parent has one thread and no log open, so that
// each of them attaches to the log on its own, as strangers would.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"

namespace ringtail::tools::perf {

// Pins the calling thread to a CPU; -1 changes nothing.
// Errors: invalid_argument when this process may not run there.
Status pin_to_cpu(int cpu);
// The CPUs this process may run on, in rising order.
std::vector<int> allowed_cpus();

// Memory that this process shares with the children it forks. Zeroed. Unmapped on destruction.
class SharedMapping {
 public:
  static Result<SharedMapping> create(std::size_t bytes);
  SharedMapping(SharedMapping&& other) noexcept;
  SharedMapping& operator=(SharedMapping&&) = delete;
  ~SharedMapping();

  void* data() const { return data_; }

 private:
  SharedMapping(void* data, std::size_t bytes) : data_(data), bytes_(bytes) {}

  void* data_;
  std::size_t bytes_;
};

// The children of one measurement. At most one object at a time: it blocks SIGCHLD while it lives, to
// hear of a child's end without looking for it. Children die with the parent; what is left of them
// is killed on destruction. Thread safety: none; the process must have one thread.
class Children {
 public:
  static Result<Children> create();
  Children(Children&& other) noexcept;
  Children& operator=(Children&&) = delete;
  ~Children();

  // Forks a child that runs `body` and exits; SIGINT is the parent's business. A failure's message
  // reaches the parent. Errors: system.
  Status start(std::string name, std::function<Status()> body);

  // Waits until a child has ended, `timeout` has passed, or a signal came.
  // Errors: the child's own when it failed; system when a signal killed it; closed for SIGINT or
  // SIGTERM to this process.
  Status wait(std::optional<std::chrono::nanoseconds> timeout);
  // Waits until the child of that name has ended, whatever signal comes. Errors: the child's own.
  Status wait_for(std::string_view name);

  // Kills all children but the one of that name.
  void kill_except(std::string_view name);

  std::size_t running() const { return children_.size(); }

 private:
  struct Child {
    pid_t pid;
    std::string name;
    int error_fd;  // the child's failure comes through this pipe
  };

  explicit Children(int signal_fd) : signal_fd_(signal_fd) {}
  Status reap();
  static void kill(const Child& child);

  int signal_fd_;
  std::vector<Child> children_;
};

}  // namespace ringtail::tools::perf
