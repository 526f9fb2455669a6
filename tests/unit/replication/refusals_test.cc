#include "replication/refusals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringtail::replication {
namespace {

using ::testing::Optional;

TEST(RefusalsTest, EachAddressAndReasonIsSaidOnceAndAgainWithItsCountAfterAWhile) {
  Refusals refusals;
  EXPECT_THAT(refusals.note("10.0.0.1", "garbage", 1),
              Optional(std::string("a connection from 10.0.0.1 was refused: garbage")));
  EXPECT_EQ(refusals.note("10.0.0.1", "garbage", 2), std::nullopt);
  EXPECT_EQ(refusals.note("10.0.0.1", "garbage", Refusals::kQuietNs), std::nullopt);
  EXPECT_NE(refusals.note("10.0.0.2", "garbage", 3), std::nullopt);
  EXPECT_NE(refusals.note("10.0.0.1", "silence", 3), std::nullopt);
  EXPECT_THAT(refusals.note("10.0.0.1", "garbage", Refusals::kQuietNs + 1),
              Optional(std::string("a connection from 10.0.0.1 was refused: garbage (and 2 more like it)")));
}

TEST(RefusalsTest, WhoeverComesFromEverywhereIsSaidOnceAltogether) {
  Refusals refusals;
  std::size_t said = 0;
  for (int i = 0; i < 10'000; ++i)
    if (refusals.note("10.0.0." + std::to_string(i), "garbage", 1)) ++said;
  EXPECT_EQ(said, Refusals::kMaxKnown + 1);
  EXPECT_NE(refusals.note("10.1.1.1", "garbage", Refusals::kQuietNs + 2), std::nullopt);
}

}  // namespace
}  // namespace ringtail::replication
