#include "base/clock.h"

#include <time.h>

#include <algorithm>
#include <fstream>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ringtail {
namespace {

constexpr std::int64_t kWindowNs = 1'000'000;
constexpr std::int64_t kFirstSpanNs = 1'000'000;
constexpr std::int64_t kLastSpanNs = 256'000'000;
// Counter and clocks are read again when an interrupt came between: this is several times what it takes.
constexpr std::uint64_t kTightGapTicks = 1000;
constexpr int kPairAttempts = 4;

std::int64_t read(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

bool counter_is_invariant() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kPowerManagementLeaf = 0x80000007;
  constexpr unsigned kInvariantTsc = 1u << 8;  // what Linux lists as constant_tsc and nonstop_tsc
  return __get_cpuid(kPowerManagementLeaf, &eax, &ebx, &ecx, &edx) != 0 && (edx & kInvariantTsc) != 0;
#else
  return false;
#endif
}

bool counter_is_trusted() {
  static const bool trusted = [] {
    std::ifstream file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    std::string source;
    return counter_is_invariant() && std::getline(file, source) && source == "tsc";
  }();
  return trusted;
}

}  // namespace

std::int64_t monotonic_ns() { return read(CLOCK_MONOTONIC); }
std::int64_t boottime_ns() { return read(CLOCK_BOOTTIME); }
std::int64_t wall_clock_ns() { return read(CLOCK_REALTIME); }

WallClock::WallClock() : uses_counter_(counter_is_trusted()) {
  if (uses_counter_) restart_calibration(read_counter(), monotonic_ns());
}

std::int64_t WallClock::read_clock() {
  if (!uses_counter_) return wall_clock_ns();
  for (int attempt = 0; attempt < kPairAttempts; ++attempt) {
    const std::uint64_t before = read_counter();
    const std::int64_t wall = wall_clock_ns();
    const std::int64_t monotonic = monotonic_ns();
    const std::uint64_t gap = read_counter() - before;
    if (gap > kTightGapTicks) continue;
    anchor_counter_ = before + gap / 2;
    anchor_ns_ = wall;
    calibrate(anchor_counter_, monotonic);
    return wall;
  }
  return wall_clock_ns();  // the old anchor has run out, so the next call comes here again
}

// The monotonic clock gives the scale, for it is slewed as the wall clock is, but never stepped.
void WallClock::calibrate(std::uint64_t counter, std::int64_t monotonic) {
  const std::int64_t elapsed_ns = monotonic - span_monotonic_ns_;
  if (elapsed_ns < span_ns_) return;
  const double ns_per_tick = static_cast<double>(elapsed_ns) / static_cast<double>(counter - span_counter_);
  const double scale_unit = static_cast<double>(std::uint64_t{1} << kScaleBits);
  const auto scale = static_cast<std::uint64_t>(ns_per_tick * scale_unit);
  // No clock is slewed by a thousandth: the machine was suspended, or moved to another host.
  const std::uint64_t tolerance = scale_ / 1024;
  const bool plausible = scale_ == 0 || (scale > scale_ - tolerance && scale < scale_ + tolerance);
  if (!plausible || ns_per_tick < 0.01 || ns_per_tick > 100) return restart_calibration(counter, monotonic);
  scale_ = scale;
  window_ticks_ = static_cast<std::uint64_t>(static_cast<double>(kWindowNs) / ns_per_tick);
  span_counter_ = counter;
  span_monotonic_ns_ = monotonic;
  span_ns_ = std::min(2 * span_ns_, kLastSpanNs);
}

void WallClock::restart_calibration(std::uint64_t counter, std::int64_t monotonic) {
  window_ticks_ = 0;
  scale_ = 0;
  span_counter_ = counter;
  span_monotonic_ns_ = monotonic;
  span_ns_ = kFirstSpanNs;
}

}  // namespace ringtail
