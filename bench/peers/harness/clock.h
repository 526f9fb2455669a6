// CLOCK_MONOTONIC in about 8 ns: the time stamp counter, tied to the kernel's clock again every 100 µs, where the
// kernel itself keeps time by that counter; the kernel's clock elsewhere. So all processes read the same time to
// within some 20 ns, which is also what the kernel's clock would cost.
// Thread safety: none; one object per thread.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tools/perf_clock.h"

namespace ringtail::peers {

using tools::perf::spin_pause;

class Clock {
 public:
  // Blocks for 20 ms.
  Clock() : ticks_(tools::perf::TickClock::calibrate()) {
    window_ticks_ = ticks_.from_ns(100'000);
    undisturbed_ticks_ = ticks_.from_ns(150);
    scale_ = static_cast<std::uint64_t>(ticks_.ns_per_tick() * 4294967296.0);
    anchor();
  }

  std::uint64_t now() {
    const std::uint64_t elapsed = ticks_.now() - anchor_ticks_;
    if (elapsed >= window_ticks_) [[unlikely]]
      return anchor();
    return anchor_ns_ + (elapsed * scale_ >> 32);
  }

 private:
  // Reads both clocks together. A thread that is put aside between the two readings would carry the wrong time on
  // for a whole window, so of a few attempts the first counts that took no longer than undisturbed ones do.
  std::uint64_t anchor() {
    std::uint64_t least = ~std::uint64_t{0};
    for (int attempt = 0; attempt < 16; ++attempt) {
      const std::uint64_t before = ticks_.now_when_done();
      const auto ns = static_cast<std::uint64_t>(monotonic_ns());
      const std::uint64_t took = ticks_.now_when_done() - before;
      if (took >= least) continue;
      least = took;
      anchor_ticks_ = before + took / 2;
      anchor_ns_ = ns;
      if (took <= undisturbed_ticks_) break;
    }
    return anchor_ns_;
  }

  tools::perf::TickClock ticks_;
  std::uint64_t window_ticks_ = 0;
  std::uint64_t undisturbed_ticks_ = 0;
  std::uint64_t scale_ = 0;
  std::uint64_t anchor_ticks_ = 0;
  std::uint64_t anchor_ns_ = 0;
};

}  // namespace ringtail::peers
