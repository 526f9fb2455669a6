#include "base/bounded_time.h"

#include <gtest/gtest.h>

#include "base/clock.h"

namespace ringtail {
namespace {

using std::chrono::duration;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

TEST(BoundedTime, IsTheTimeItselfUpToAYear) {
  EXPECT_EQ(bounded_time(milliseconds(5)), nanoseconds(5'000'000));
  EXPECT_EQ(bounded_time(nanoseconds(1)), nanoseconds(1));
  EXPECT_EQ(bounded_time(duration<double>(0.25)), milliseconds(250));
  EXPECT_EQ(bounded_time(kLongestTime), kLongestTime);
  EXPECT_EQ(bounded_time(kLongestTime - milliseconds(1)), kLongestTime - milliseconds(1));
}

TEST(BoundedTime, OfForEverIsAYearInEachUnit) {
  EXPECT_EQ(bounded_time(nanoseconds::max()), kLongestTime);
  EXPECT_EQ(bounded_time(milliseconds::max()), kLongestTime);
  EXPECT_EQ(bounded_time(hours::max()), kLongestTime);
  EXPECT_EQ(bounded_time(duration<double>::max()), kLongestTime);
  EXPECT_GT(monotonic_ns() + bounded_time(milliseconds::max()).count(), monotonic_ns());
}

TEST(BoundedTime, IsNeverNegative) {
  EXPECT_EQ(bounded_time(milliseconds(-1)), nanoseconds(0));
  EXPECT_EQ(bounded_time(milliseconds::min()), nanoseconds(0));
  EXPECT_EQ(bounded_time(duration<double>::min()), nanoseconds(0));
}

}  // namespace
}  // namespace ringtail
