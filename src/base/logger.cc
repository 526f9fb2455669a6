#include "base/logger.h"

#include <spdlog/sinks/stdout_sinks.h>

namespace ringtail {

spdlog::logger& logger() {
  // Never destroyed: a keeper's thread may have something to say while the process exits.
  static const auto* const shared = new std::shared_ptr<spdlog::logger>([] {
    if (auto registered = spdlog::get("ringtail")) return registered;
    // Not registered itself: the name stays the application's to use.
    auto own =
        std::make_shared<spdlog::logger>("ringtail", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    own->set_level(spdlog::level::warn);
    return own;
  }());
  return **shared;
}

}  // namespace ringtail
