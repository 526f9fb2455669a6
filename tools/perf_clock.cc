#include "tools/perf_clock.h"

#include <unistd.h>

namespace ringtail::tools::perf {

TickClock TickClock::calibrate() {
  TickClock clock;
  clock.uses_counter_ = WallClock().uses_counter();
  if (!clock.uses_counter_) return clock;
  const std::int64_t begin_ns = monotonic_ns();
  const std::uint64_t begin = clock.now();
  ::usleep(20'000);
  const std::int64_t end_ns = monotonic_ns();
  const std::uint64_t end = clock.now();
  clock.ns_per_tick_ = static_cast<double>(end_ns - begin_ns) / static_cast<double>(end - begin);
  return clock;
}

}  // namespace ringtail::tools::perf
