#include "client/linger.h"

#include <gtest/gtest.h>

namespace ringtail {
namespace {

constexpr std::int64_t kNs = Linger::kNs;

class LingerTest : public ::testing::Test {
 protected:
  // A record comes `after` the wait began; a sleeper wakes `late` after that. Whether it slept.
  bool wait(std::int64_t after, std::int64_t late = 5'000) {
    const std::int64_t begin = now_;
    bool slept = false;
    while (!slept && now_ < begin + after) {
      slept = !linger_.goes_on(now_);
      if (!slept) now_ += 100;
    }
    if (slept) now_ = std::max(now_, begin + after) + late;
    linger_.end(now_, true);
    return slept;
  }

  Linger linger_;
  std::int64_t now_ = 1;
};

TEST_F(LingerTest, WhoHasNeverSleptShortlySleepsAtOnce) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(wait(kNs));
    EXPECT_FALSE(linger_.pays());
  }
}

TEST_F(LingerTest, AfterAShortSleepItLooksOn) {
  EXPECT_TRUE(wait(10'000));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(wait(10'000));
}

TEST_F(LingerTest, InVainItSleepsAndDoubtsMoreEachTime) {
  for (int needed : {1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256}) {
    for (int i = 0; i < needed; ++i) {
      EXPECT_FALSE(linger_.pays());
      EXPECT_TRUE(wait(1'000)) << i << " of " << needed;
    }
    EXPECT_TRUE(linger_.pays());
    const std::int64_t begin = now_;
    EXPECT_TRUE(wait(5 * kNs));  // slept behind looking
    EXPECT_GE(now_ - begin, 5 * kNs);
  }
}

TEST_F(LingerTest, LookingInVainTakesNoLongerThanItsTime) {
  wait(1'000);
  ASSERT_TRUE(linger_.pays());
  std::int64_t now = 1'000'000;
  const std::int64_t begin = now;
  while (linger_.goes_on(now)) now += 10;
  EXPECT_EQ(now - begin, kNs);
}

TEST_F(LingerTest, SuccessTakesTheDoubtAway) {
  for (int i = 0; i < 10; ++i) {  // doubt 1, 3, 7, 15 ...
    while (!linger_.pays()) wait(1'000);
    wait(5 * kNs);
  }
  while (!linger_.pays()) wait(1'000);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(wait(1'000));
  wait(5 * kNs);
  wait(1'000);
  EXPECT_FALSE(linger_.pays());
  wait(1'000);
  EXPECT_TRUE(linger_.pays());
}

TEST_F(LingerTest, LongSleepsAndWaitsWithoutRecordsSayNothing) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(linger_.goes_on(now_));
    linger_.end(now_ + 10, false);
    EXPECT_TRUE(wait(2 * kNs));
    EXPECT_FALSE(linger_.pays());
  }
}

TEST_F(LingerTest, OfSeveralSleepsOfOneWaitTheTimeIsOfAll) {
  EXPECT_FALSE(linger_.goes_on(1'000));
  EXPECT_FALSE(linger_.goes_on(1'000 + kNs));  // woken by nothing
  linger_.end(2'000 + kNs, true);
  EXPECT_FALSE(linger_.pays());
}

}  // namespace
}  // namespace ringtail
