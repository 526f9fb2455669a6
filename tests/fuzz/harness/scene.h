// For targets that use what unit tests share: a test's fixture outside of a test.
#pragma once

#include <gtest/gtest.h>

#include "base/logger.h"
#include "fuzz/harness/input.h"

namespace ringtail::fuzz {

// From here on a failed expectation ends the process.
inline void fail_at_once() {
  GTEST_FLAG_SET(break_on_failure, true);
  logger().set_level(spdlog::level::off);
}

}  // namespace ringtail::fuzz
