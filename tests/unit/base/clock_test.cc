#include "base/clock.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <vector>

namespace ringtail {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;

TEST(Clock, ReadsTheClocksItIsNamedAfter) {
  const auto close_to = [](std::int64_t now, clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    const std::int64_t reference = std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
    return now <= reference && reference - now < 10'000 * kMillisecond;
  };
  EXPECT_TRUE(close_to(monotonic_ns(), CLOCK_MONOTONIC));
  EXPECT_TRUE(close_to(boottime_ns(), CLOCK_BOOTTIME));
  EXPECT_TRUE(close_to(wall_clock_ns(), CLOCK_REALTIME));
}

// Distance of a reading from the interval that two readings of CLOCK_REALTIME around it allow. An
// interruption of this thread widens the interval, so that it cannot be mistaken for an error.
std::int64_t error_of(WallClock& clock) {
  const std::int64_t before = wall_clock_ns();
  const std::int64_t now = clock.now_ns();
  const std::int64_t after = wall_clock_ns();
  return now < before ? before - now : std::max<std::int64_t>(now - after, 0);
}

TEST(WallClock, StaysWithTheSystemClock) {
  WallClock clock;
  std::vector<std::int64_t> errors;
  for (const std::int64_t end = monotonic_ns() + 300 * kMillisecond; monotonic_ns() < end;) {
    errors.push_back(error_of(clock));
  }
  ASSERT_FALSE(errors.empty());
  std::ranges::sort(errors);
  EXPECT_LT(errors[errors.size() / 2], 1'000) << "median over " << errors.size();
  EXPECT_LT(errors.back(), 50'000) << "worst of " << errors.size();
  RecordProperty("uses_counter", clock.uses_counter());
}

TEST(WallClock, FollowsAfterItWasLeftAlone) {
  WallClock clock;
  for (const std::int64_t end = monotonic_ns() + 5 * kMillisecond; monotonic_ns() < end;) clock.now_ns();
  const timespec pause{.tv_sec = 0, .tv_nsec = 50 * kMillisecond};
  for (int i = 0; i < 4; ++i) {
    nanosleep(&pause, nullptr);
    EXPECT_LT(error_of(clock), 50'000);
  }
}

TEST(WallClock, RunsForwardButForItsCorrections) {
  WallClock clock;
  std::int64_t previous = clock.now_ns();
  std::int64_t worst = 0;
  for (const std::int64_t end = monotonic_ns() + 100 * kMillisecond; monotonic_ns() < end;) {
    for (int i = 0; i < 1000; ++i) {
      const std::int64_t now = clock.now_ns();
      worst = std::max(worst, previous - now);
      previous = now;
    }
  }
  EXPECT_LT(worst, 50'000);
}

TEST(WallClock, ACopyGoesOn) {
  WallClock clock;
  for (const std::int64_t end = monotonic_ns() + 3 * kMillisecond; monotonic_ns() < end;) clock.now_ns();
  WallClock copy = clock;
  EXPECT_LT(error_of(copy), 50'000);
  EXPECT_LT(error_of(clock), 50'000);
}

}  // namespace
}  // namespace ringtail
