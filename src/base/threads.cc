#include "base/threads.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/result.h"

namespace ringtail {

// The same errno stands for a limit and for a lack of memory.
std::string_view thread_remedy(int os_errno) {
  if (os_errno != EAGAIN) return {};
  return "; raise what limits the number of threads (RLIMIT_NPROC, which is `ulimit -u`; pids.max of the "
         "control group, which is TasksMax for systemd), or give the process memory for one more stack";
}

Error thread_error(int os_errno, std::string_view what) {
  Error error = system_error(os_errno, fmt::format("cannot start a thread for {}", what));
  error.message += thread_remedy(os_errno);
  return error;
}

}  // namespace ringtail
