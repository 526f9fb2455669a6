// Times that a caller gives. "For ever" is max() of some unit; in a smaller unit, or added to now, it would lie in
// the past.
#pragma once

#include <chrono>

namespace ringtail {

constexpr std::chrono::milliseconds kLongestTime = std::chrono::hours(24 * 365);

// The time itself, but at least none and at most kLongestTime, which may be added to a reading of a clock.
template <class Count, class Unit>
constexpr std::chrono::nanoseconds bounded_time(std::chrono::duration<Count, Unit> time) {
  using Seconds = std::chrono::duration<double>;  // in which nothing overflows
  if (!(time > time.zero())) return std::chrono::nanoseconds(0);
  if (Seconds(time) >= Seconds(kLongestTime)) return kLongestTime;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time);
}

}  // namespace ringtail
