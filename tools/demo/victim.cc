// A producer that is made to be killed.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <span>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "tools/demo/demo.h"

namespace ringtail::demo {
namespace {

constexpr std::size_t kValueBytes = 64;
constexpr std::int64_t kWriteTimeNs = 50'000;  // per record, all of it inside the claim

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

// A counter in a file: what stands there outlives the process, what a variable holds does not.
Result<std::atomic<std::uint64_t>*> map_counter(const std::filesystem::path& path) {
  const auto failed = [&] {
    return std::unexpected(system_error(errno, fmt::format("cannot create {}", path.string())));
  };
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0 || ::ftruncate(file, sizeof(std::atomic<std::uint64_t>)) != 0) return failed();
  void* memory =
      ::mmap(nullptr, sizeof(std::atomic<std::uint64_t>), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) return failed();
  return static_cast<std::atomic<std::uint64_t>*>(memory);
}

}  // namespace

Status run_victim(const Log& log, const VictimOptions& options) {
  auto producer = Producer::open(log, {.topic = options.topic});
  if (!producer) return std::unexpected(producer.error());
  const auto counter = map_counter(options.acknowledged);
  if (!counter) return std::unexpected(counter.error());

  for (std::uint64_t number = 0;; ++number) {
    auto claim = producer->try_claim(kValueBytes, kVictimKey);
    if (!claim) return failure(*producer);
    write_slowly(claim->value(), fmt::format("{}", number));
    if (!claim->commit()) return failure(*producer);
    (*counter)->store(number + 1, std::memory_order_relaxed);
  }
}

}  // namespace ringtail::demo
