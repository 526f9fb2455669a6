// What systemd is told; nothing where the daemon was not started by it.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace ringtail::daemon::notify {

// Thread safety: any thread. `status` is a line for `systemctl status`.
void ready(std::string_view status);
void status(std::string_view status);
void reloading();  // until ready()
void stopping(std::string_view status);
void alive();

// How often alive() must be called, by half; nothing when it need not.
std::optional<std::chrono::microseconds> watchdog_period();

}  // namespace ringtail::daemon::notify
