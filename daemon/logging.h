// Where the daemon's lines go: the spdlog logger "ringtail", which the library writes to as well.
#pragma once

#include <spdlog/sinks/dist_sink.h>

#include <memory>

#include "daemon/config.h"

namespace ringtail::daemon {

// Thread safety: configure from one thread at a time; others may log meanwhile.
class Logging {
 public:
  // Registers the logger, which writes text to standard error until it is configured. Before the first use of
  // ringtail::logger().
  Logging();

  // Applies [logging], and opens the file anew. Errors: of opening the file; then nothing changes.
  Status configure(const Config& config);

 private:
  std::shared_ptr<spdlog::sinks::dist_sink_mt> sinks_;
};

}  // namespace ringtail::daemon
