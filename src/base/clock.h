// Clocks. Durations and deadlines are measured with monotonic_ns; lease ends, which must count the
// time a machine was suspended, with boottime_ns; timestamps of records with WallClock.
#pragma once

#include <cstdint>

namespace ringtail {

// Nanoseconds of CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_REALTIME (since the Unix epoch).
// Thread and process safety: pure functions; all processes of a host read the same clocks.
std::int64_t monotonic_ns();
std::int64_t boottime_ns();
std::int64_t wall_clock_ns();

// The time since the Unix epoch for the append path, in about 10 ns: CLOCK_REALTIME is read once in a
// millisecond, and the CPU's time stamp counter, scaled, carries on from there. So it is within about
// 100 ns of CLOCK_REALTIME, and follows a step of the system clock within a millisecond. It does
// not run backwards between two such readings. Where the counter cannot be trusted (the kernel itself
// does not keep time by it, or it stops in deep sleep) every call reads CLOCK_REALTIME.
//
// Thread safety: none; one instance per thread. Process safety: instances are independent; a copy in
// a forked child goes on correctly.
class WallClock {
 public:
  WallClock();

  std::int64_t now_ns() {
    const std::uint64_t elapsed = read_counter() - anchor_counter_;
    // A counter behind the anchor wraps to a huge number and so reads the clock again, too.
    if (elapsed >= window_ticks_) [[unlikely]]
      return read_clock();
    return anchor_ns_ + static_cast<std::int64_t>(elapsed * scale_ >> kScaleBits);
  }

  // Whether the time stamp counter is used at all.
  bool uses_counter() const { return uses_counter_; }

 private:
  static constexpr int kScaleBits = 32;

  static std::uint64_t read_counter() {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
  }

  std::int64_t read_clock();
  void calibrate(std::uint64_t counter, std::int64_t monotonic);
  void restart_calibration(std::uint64_t counter, std::int64_t monotonic);

  std::uint64_t anchor_counter_ = 0;
  std::int64_t anchor_ns_ = 0;
  std::uint64_t window_ticks_ = 0;  // how long an anchor serves; 0: not at all
  std::uint64_t scale_ = 0;         // nanoseconds per tick, times 2^kScaleBits

  // The scale is measured over spans that double from one millisecond to a quarter of a second.
  std::uint64_t span_counter_ = 0;
  std::int64_t span_monotonic_ns_ = 0;
  std::int64_t span_ns_ = 0;
  bool uses_counter_ = false;
};

}  // namespace ringtail
