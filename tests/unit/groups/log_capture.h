// What the library says while this exists. Made and read while no thread logs.
#pragma once

#include <spdlog/sinks/ostream_sink.h>

#include <memory>
#include <sstream>
#include <string>

#include "base/logger.h"

namespace ringtail::groups {

class LogCapture {
 public:
  LogCapture() : before_(logger().level()) {
    logger().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(said_));
    logger().set_level(spdlog::level::info);
  }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;
  ~LogCapture() {
    logger().set_level(before_);
    logger().sinks().pop_back();
  }

  std::string text() const { return said_.str(); }

 private:
  std::ostringstream said_;
  spdlog::level::level_enum before_;
};

}  // namespace ringtail::groups
