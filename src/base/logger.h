// Where the library says what happened: deaths, repairs, rings that are replaced, disks that are full.
#pragma once

#include <spdlog/spdlog.h>

namespace ringtail {

// The logger that the application registered with spdlog as "ringtail", at the time of the first use; else one
// that writes warnings and errors to standard error. Thread safety: any thread.
spdlog::logger& logger();

}  // namespace ringtail
