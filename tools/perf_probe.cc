#include "tools/perf_probe.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "tools/perf_clock.h"
#include "tools/perf_process.h"

namespace ringtail::tools::perf {
namespace {

// Slices are short, so that on a busy machine most of them fall between two interruptions.
constexpr std::size_t kSlices = 501;
constexpr std::uint64_t kRoundTripsPerSlice = 1'000;
constexpr std::uint64_t kWarmUpRoundTrips = 15'000;
// A hundred times what all of it takes. Where both sides have one CPU, a trip takes a thousand times as long; then
// there are fewer slices.
constexpr double kPatienceNs = 1e9;
constexpr std::uint64_t kStop = ~std::uint64_t{0};

// 256 bytes apart: CPUs fetch neighbouring lines in pairs.
struct Lines {
  alignas(256) std::atomic<std::uint64_t> ping;
  alignas(256) std::atomic<std::uint64_t> pong;
};

// On one CPU the other side needs it to answer. False: there is kStop instead.
bool wait_for_value(const std::atomic<std::uint64_t>& line, std::uint64_t value) {
  for (unsigned spins = 1; line.load(std::memory_order_acquire) != value; ++spins) {  // SYNC: exchange/echo
    if (spins % 65536 != 0) continue;
    if (line.load(std::memory_order_relaxed) == kStop) return false;
    ::sched_yield();
  }
  return true;
}

// With two lines both sides count round trips; on one line they write odd and even numbers in turn.
void exchange(Lines& lines, bool one_line, std::uint64_t trip) {
  lines.ping.store(one_line ? 2 * trip - 1 : trip, std::memory_order_release);  // SYNC: echo's wait
  wait_for_value(one_line ? lines.ping : lines.pong, one_line ? 2 * trip : trip);
}

bool echo(Lines& lines, bool one_line, std::uint64_t trip) {
  if (!wait_for_value(lines.ping, one_line ? 2 * trip - 1 : trip)) return false;
  std::atomic<std::uint64_t>& answer = one_line ? lines.ping : lines.pong;
  answer.store(one_line ? 2 * trip : trip, std::memory_order_release);  // SYNC: exchange's wait
  return true;
}

double median_round_trip(const TickClock& clock, Lines& lines, bool one_line) {
  const std::uint64_t until = clock.now() + clock.from_ns(kPatienceNs);
  std::uint64_t trip = 0;
  while (trip < kWarmUpRoundTrips && (trip % kRoundTripsPerSlice != 0 || clock.now() < until))
    exchange(lines, one_line, ++trip);
  std::vector<double> slices;
  slices.reserve(kSlices);
  do {
    const std::uint64_t begin = clock.now();
    for (std::uint64_t i = 0; i < kRoundTripsPerSlice; ++i) exchange(lines, one_line, ++trip);
    const std::uint64_t ticks = clock.now() - begin;
    slices.push_back(static_cast<double>(ticks) * clock.ns_per_tick() /
                     static_cast<double>(kRoundTripsPerSlice));
  } while (slices.size() < kSlices && clock.now() < until);
  lines.ping.store(kStop, std::memory_order_release);  // SYNC: echo's wait
  const auto middle = slices.begin() + static_cast<std::ptrdiff_t>(slices.size() / 2);
  std::ranges::nth_element(slices, middle);
  return *middle;
}

struct ProbeMemory {
  Lines lines[2];
  double result[2];
};

Status ask(const TickClock& clock, ProbeMemory& memory, int cpu) {
  if (const Status pinned = pin_to_cpu(cpu); !pinned) return pinned;
  for (const bool one_line : {false, true}) {
    memory.result[one_line] = median_round_trip(clock, memory.lines[one_line], one_line);
  }
  return {};
}

Status answer(ProbeMemory& memory, int cpu) {
  if (const Status pinned = pin_to_cpu(cpu); !pinned) return pinned;
  for (const bool one_line : {false, true}) {
    for (std::uint64_t trip = 1; echo(memory.lines[one_line], one_line, trip); ++trip) {
    }
  }
  return {};
}

}  // namespace

Result<Probe> measure_probe(const TickClock& clock, int first_cpu, int second_cpu) {
  auto mapping = SharedMapping::create(sizeof(ProbeMemory));
  if (!mapping) return std::unexpected(mapping.error());
  auto* memory = new (mapping->data()) ProbeMemory();
  auto children = Children::create();
  if (!children) return std::unexpected(children.error());
  Status status = children->start("probe", [&] { return ask(clock, *memory, first_cpu); });
  if (status) status = children->start("probe's echo", [&] { return answer(*memory, second_cpu); });
  while (status && children->running() > 0) status = children->wait(std::nullopt);
  if (!status) return std::unexpected(status.error());
  return Probe{.two_lines = memory->result[0], .one_line = memory->result[1]};
}

}  // namespace ringtail::tools::perf
