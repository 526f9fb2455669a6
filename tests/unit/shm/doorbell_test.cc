#include "shm/doorbell.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "support/no_descriptors.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

std::set<std::uint32_t> hear(const Doorbell& bell) {
  std::set<std::uint32_t> heard;
  for (std::uint32_t number = 0; bell.next(number);) heard.insert(number);
  return heard;
}

TEST(DoorbellTest, SaysWhoRang) {
  const TempDir dir;
  const auto bell = Doorbell::open(dir.path());
  ASSERT_TRUE(bell) << to_string(bell.error());
  ring_doorbell(dir.path(), 7);
  ring_doorbell(dir.path(), 3);
  EXPECT_EQ(hear(*bell), (std::set<std::uint32_t>{3, 7}));
  EXPECT_TRUE(hear(*bell).empty());
}

TEST(DoorbellTest, WhoHasMissedARingHasHeardAsManyAsTellHim) {
  const TempDir dir;
  const auto bell = Doorbell::open(dir.path());
  ASSERT_TRUE(bell) << to_string(bell.error());
  for (const std::uint32_t rings : {1U, 5U, 9U, 20U, 1'000U}) {
    for (std::uint32_t number = 0; number < rings; ++number) ring_doorbell(dir.path(), number);
    const std::size_t heard = hear(*bell).size();
    EXPECT_GE(heard, std::min<std::size_t>(rings, Doorbell::kMostHeard)) << rings;
  }
}

TEST(DoorbellTest, WhoHadNoDescriptorRingsOnceThereIsOne) {
  const TempDir dir;
  const auto bell = Doorbell::open(dir.path());
  ASSERT_TRUE(bell) << to_string(bell.error());
  std::thread([&] {  // its first ring ever
    {
      const testing::NoDescriptors none;
      ring_doorbell(dir.path(), 4);
    }
    ring_doorbell(dir.path(), 6);
  })
      .join();
  EXPECT_EQ(hear(*bell), std::set<std::uint32_t>{6});
}

TEST(DoorbellTest, RingingWhereNobodyListensDoesNothing) {
  const TempDir dir;
  ring_doorbell(dir.path(), 1);
  ring_doorbell(dir.path() / "missing", 1);
}

TEST(DoorbellTest, ANewListenerReplacesTheOldOne) {
  const TempDir dir;
  const auto old = Doorbell::open(dir.path());
  const auto fresh = Doorbell::open(dir.path());
  ASSERT_TRUE(old && fresh);
  ring_doorbell(dir.path(), 5);
  EXPECT_TRUE(hear(*old).empty());
  EXPECT_EQ(hear(*fresh), std::set<std::uint32_t>{5});
}

}  // namespace
}  // namespace ringtail::shm
