#include "shm/process.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <string_view>

#include "base/files.h"
#include "base/random.h"
#include "base/result.h"

namespace ringtail::shm {
namespace {

constexpr std::size_t kProcFileBytes = 4096;

std::unexpected<Error> not_understood(const char* path) {
  return fail(Code::corrupt, fmt::format("'{}' does not have the form that Linux gives it; is /proc the "
                                         "kernel's?",
                                         path));
}

// Text like "9b0b4ba0-3b5f-4d2c-8f5e-0f1d2c3b4a59\n".
Result<std::array<std::uint64_t, 2>> read_boot_id() {
  constexpr const char* kPath = "/proc/sys/kernel/random/boot_id";
  auto text = read_small_file(kPath, kProcFileBytes);
  if (!text) return std::unexpected(text.error());
  std::erase_if(*text, [](char c) { return c == '-' || c == '\n'; });
  if (!is_hex(*text, 32)) return not_understood(kPath);
  return std::array{*parse_hex(text->substr(0, 16)), *parse_hex(text->substr(16))};
}

// Field 22 of the process's stat file. Field 2 is its name in parentheses and may contain anything.
Result<std::uint64_t> read_start_ticks() {
  constexpr const char* kPath = "/proc/self/stat";
  const auto text = read_small_file(kPath, kProcFileBytes);
  if (!text) return std::unexpected(text.error());
  std::size_t at = text->rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text->find(' ', at + 1);
  std::uint64_t ticks = 0;
  if (at == std::string::npos) return not_understood(kPath);
  const auto parsed = std::from_chars(text->data() + at + 1, text->data() + text->size(), ticks);
  if (parsed.ec != std::errc()) return not_understood(kPath);
  return ticks;
}

Result<std::uint64_t> read_pid_namespace() {
  struct stat status{};
  if (::stat("/proc/self/ns/pid", &status) == 0) return std::uint64_t{status.st_ino};
  const int os_errno = errno;
  return fail_errno(os_errno, "cannot examine '/proc/self/ns/pid'");
}

}  // namespace

Result<std::array<std::uint64_t, 2>> boot_id() {
  static const auto id = read_boot_id();
  return id;
}

Result<ProcessIdentity> identify_process() {
  const auto boot = boot_id();
  if (!boot) return std::unexpected(boot.error());
  const auto token = random_token();
  if (!token) return std::unexpected(token.error());
  const auto start_ticks = read_start_ticks();
  if (!start_ticks) return std::unexpected(start_ticks.error());
  const auto pid_namespace = read_pid_namespace();
  if (!pid_namespace) return std::unexpected(pid_namespace.error());
  return ProcessIdentity{*boot, *token, *start_ticks, *pid_namespace, static_cast<std::uint32_t>(::getpid()),
                         0};
}

namespace {

std::string read_name(const std::string& path) {
  auto text = read_small_file(path, kProcFileBytes);
  if (!text) return {};
  if (text->ends_with('\n')) text->pop_back();
  return *text;
}

}  // namespace

std::string process_name() { return read_name("/proc/self/comm"); }
std::string process_name(std::uint32_t pid) { return read_name("/proc/" + std::to_string(pid) + "/comm"); }

}  // namespace ringtail::shm
