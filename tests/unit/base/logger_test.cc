#include "base/logger.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cstdlib>

namespace ringtail {
namespace {

using ::testing::ExitedWithCode;

// Each in a child: the first use decides for the process.
TEST(LoggerDeathTest, WarningsGoToStandardErrorAndNothingElseDoes) {
  EXPECT_EXIT(
      {
        logger().info("a repair");
        std::exit(0);
      },
      ExitedWithCode(0), "^$");
  EXPECT_EXIT(
      {
        logger().warn("a full disk");
        std::exit(0);
      },
      ExitedWithCode(0), "a full disk");
}

TEST(LoggerDeathTest, TheOneThatTheApplicationRegisteredIsUsed) {
  EXPECT_EXIT(
      {
        spdlog::stderr_logger_st("ringtail")->set_pattern("mine: %v");
        logger().info("a repair");
        std::exit(0);
      },
      ExitedWithCode(0), "mine: a repair");
}

}  // namespace
}  // namespace ringtail
