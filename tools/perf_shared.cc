#include "tools/perf_shared.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace ringtail::tools::perf {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

void Gate::open() {
  state_.store(1, std::memory_order_release);  // SYNC: wait and is_open
  ::syscall(SYS_futex, &state_, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Gate::wait() const {
  while (!is_open()) ::syscall(SYS_futex, &state_, FUTEX_WAIT, 0, nullptr, nullptr, 0);
}

}  // namespace ringtail::tools::perf
