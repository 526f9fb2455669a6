// A producer that is made to be killed.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "tools/demo/demo.h"

namespace ringtail::demo {
namespace {

constexpr std::size_t kValueBytes = 64;
constexpr std::int64_t kWriteTimeNs = 20'000;  // per record, all of it inside the claim

// As slow as a device that is read byte by byte.
void write_slowly(std::span<std::byte> to, std::string_view value) {
  const std::int64_t start = monotonic_ns();
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] = static_cast<std::byte>(i < value.size() ? value[i] : ' ');
    const std::int64_t due =
        start + kWriteTimeNs * static_cast<std::int64_t>(i) / static_cast<std::int64_t>(to.size());
    while (monotonic_ns() < due) {
    }
  }
}

}  // namespace

Status run_victim(const Log& log, const VictimOptions& options) {
  const int file = ::open(options.acknowledged.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    return std::unexpected(
        system_error(errno, fmt::format("cannot create {}", options.acknowledged.string())));
  }
  auto producer = Producer::open(log, {.topic = options.topic});
  if (!producer) return std::unexpected(producer.error());

  for (std::uint64_t number = 0;;) {
    auto claim = producer->try_claim(kValueBytes, kVictimKey);
    if (!claim) return failure(*producer);
    write_slowly(claim->value(), fmt::format("{}", number));
    if (!claim->commit()) return failure(*producer);
    ++number;
    // What was written to a file outlives the process; what a variable holds does not.
    if (::pwrite(file, &number, sizeof number, 0) != sizeof number) {
      return std::unexpected(
          system_error(errno, fmt::format("cannot write {}", options.acknowledged.string())));
    }
  }
}

}  // namespace ringtail::demo
