// The clock of `ringtail perf`: the CPU's time stamp counter where the kernel itself keeps time by it,
// because a clock that costs as much as what is measured measures itself; otherwise CLOCK_MONOTONIC.
//
// Thread and process safety: calibrated once, before the workers are forked, so that all of them turn
// ticks into nanoseconds alike; constant afterwards.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace ringtail::tools::perf {

class TickClock {
 public:
  // Blocks for 20 ms.
  static TickClock calibrate();

  std::uint64_t now() const {
#if defined(__x86_64__)
    if (uses_counter_) [[likely]]
      return __builtin_ia32_rdtsc();
#endif
    return static_cast<std::uint64_t>(monotonic_ns());
  }
  // The same, when everything before is done: the CPU reads its counter early while it still waits for
  // memory, and the time of what is measured would end before it does.
  std::uint64_t now_when_done() const {
#if defined(__x86_64__)
    __builtin_ia32_lfence();
#endif
    return now();
  }
  double ns_per_tick() const { return ns_per_tick_; }
  std::uint64_t to_ns(std::uint64_t ticks) const {
    return static_cast<std::uint64_t>(static_cast<double>(ticks) * ns_per_tick_);
  }
  std::uint64_t from_ns(double ns) const { return static_cast<std::uint64_t>(ns / ns_per_tick_); }
  // The time from `from` to `to`; 0 when counters of two CPUs make it look negative.
  std::uint64_t ns_between(std::uint64_t from, std::uint64_t to) const {
    return to > from ? to_ns(to - from) : 0;
  }

 private:
  bool uses_counter_ = false;
  double ns_per_tick_ = 1.0;
};

// Tells the CPU that this is a spin loop.
inline void spin_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace ringtail::tools::perf
