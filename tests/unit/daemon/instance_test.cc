// One daemon per directory.
#include "daemon/instance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>

#include "unit/base/scratch_dir.h"

namespace ringtail::daemon {
namespace {

TEST(InstanceTest, TheSecondLearnsThePidOfTheFirst) {
  const testing::ScratchDir dir;
  std::optional<Result<InstanceLock>> first = InstanceLock::acquire(dir / "log", true);
  ASSERT_TRUE(*first) << to_string(first->error());
  const auto second = InstanceLock::acquire(dir / "log", true);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::already_exists);
  EXPECT_THAT(second.error().message, ::testing::HasSubstr("pid " + std::to_string(::getpid()) + " "));
  first.reset();
  EXPECT_TRUE(InstanceLock::acquire(dir / "log", false));
}

TEST(InstanceTest, MakesNoDirectoryUnlessToldTo) {
  const testing::ScratchDir dir;
  const auto lock = InstanceLock::acquire(dir / "log", false);
  ASSERT_FALSE(lock);
  EXPECT_EQ(lock.error().code, Code::not_found);
  EXPECT_FALSE(std::filesystem::exists(dir / "log"));
}

}  // namespace
}  // namespace ringtail::daemon
