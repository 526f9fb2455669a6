#include "daemon/notify.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <string>

#include "base/clock.h"

namespace ringtail::daemon::notify {
namespace {

void send(const std::string& message) { ::sd_notify(0, message.c_str()); }

}  // namespace

void ready(std::string_view status) { send(fmt::format("READY=1\nSTATUS={}", status)); }
void status(std::string_view status) { send(fmt::format("STATUS={}", status)); }
void reloading() { send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", monotonic_ns() / 1000)); }
void stopping(std::string_view status) { send(fmt::format("STOPPING=1\nSTATUS={}", status)); }
void alive() { send("WATCHDOG=1"); }

std::optional<std::chrono::microseconds> watchdog_period() {
  std::uint64_t period_us = 0;
  if (::sd_watchdog_enabled(0, &period_us) <= 0) return std::nullopt;
  return std::chrono::microseconds(period_us / 2);
}

}  // namespace ringtail::daemon::notify
