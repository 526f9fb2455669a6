// The parts an append and a flush are made of, each alone: what they cost is what no design can save.
#include <benchmark/benchmark.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/histogram.h"

namespace ringtail::bench {
namespace {

// The keeper checksums every frame, one at a time.
void crc_of_frame(benchmark::State& state) {
  const auto frame = static_cast<std::size_t>(state.range(0));
  const std::vector<std::byte> bytes(std::size_t{1} << 20, std::byte{'x'});
  std::size_t at = 0;
  for (auto _ : state) {
    if (at + frame > bytes.size()) at = 0;
    benchmark::DoNotOptimize(crc32c(0, std::span(bytes).subspan(at, frame)));
    at += frame;
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(crc_of_frame)
    ->ArgName("bytes")
    ->Arg(64)
    ->Arg(96)
    ->Arg(160)
    ->Arg(544)
    ->Arg(1056)
    ->Arg(4096)
    ->Arg(65536);

void wall_clock(benchmark::State& state) {
  WallClock clock;
  for (auto _ : state) benchmark::DoNotOptimize(clock.now_ns());
}
BENCHMARK(wall_clock);

void system_clock(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(wall_clock_ns());
}
BENCHMARK(system_clock);

// A claim is one of these on a line that other producers want, too.
void fetch_add(benchmark::State& state) {
  std::atomic<std::uint64_t> word{0};
  // SYNC: with nobody; the ordering is that of a claim.
  for (auto _ : state) benchmark::DoNotOptimize(word.fetch_add(1, std::memory_order_acq_rel));
}
BENCHMARK(fetch_add);

// A commit is one of these on a line that is the producer's own.
void compare_and_set(benchmark::State& state) {
  std::atomic<std::uint64_t> word{0};
  std::uint64_t expected = 0;
  for (auto _ : state) {
    // SYNC: with nobody; the ordering is that of a commit.
    benchmark::DoNotOptimize(word.compare_exchange_strong(expected, expected + 1, std::memory_order_release,
                                                          std::memory_order_relaxed));
    ++expected;
  }
}
BENCHMARK(compare_and_set);

// What no append can do without, on lines that are all the producer's own and warm: it says what it is at,
// claims, takes the time, writes header and value, commits, says that it is done, and looks for waiters.
// What an append takes beyond this is Ringtail's.
void append_parts(benchmark::State& state) {
  struct Lines {
    alignas(128) std::atomic<std::uint64_t> tail{0};
    alignas(128) std::atomic<std::uint64_t> op{0};
    alignas(128) std::atomic<std::uint64_t> hot{0};
    alignas(128) std::array<std::byte, 4096> ring{};
  };
  constexpr std::size_t header = 32;
  constexpr std::size_t frame_bytes = header + 64;
  const auto lines = std::make_unique<Lines>();
  WallClock clock;
  const std::array<std::byte, 64> value{};
  std::uint64_t number = 0;
  for (auto _ : state) {
    // SYNC: with nobody; the orderings are those of Appender.
    lines->op.store(++number, std::memory_order_release);
    const std::uint64_t at = lines->tail.fetch_add(frame_bytes, std::memory_order_acq_rel);
    std::byte* const frame = lines->ring.data() + at % 2048 / header * header;
    const std::int64_t now_ns = clock.now_ns();
    const std::uint64_t claimed = ~number;
    std::memcpy(frame, &claimed, sizeof claimed);
    std::memcpy(frame + 8, &at, sizeof at);
    std::memcpy(frame + 16, &now_ns, sizeof now_ns);
    std::memcpy(frame + 24, &number, sizeof number);
    std::memcpy(frame + header, value.data(), value.size());
    std::uint64_t expected = claimed;
    const bool committed =
        std::atomic_ref(*reinterpret_cast<std::uint64_t*>(frame)).compare_exchange_strong(expected, number);
    benchmark::DoNotOptimize(committed);
    lines->op.store(0, std::memory_order_release);
    benchmark::DoNotOptimize(lines->hot.load(std::memory_order_seq_cst));
  }
}
BENCHMARK(append_parts);

void histogram_record(benchmark::State& state) {
  const auto histogram = std::make_unique<Histogram>();
  std::uint64_t value = 100;
  for (auto _ : state) {
    histogram->record(value);
    value = (value * 5 + 1) & 0xffff;
  }
  benchmark::DoNotOptimize(histogram->count());
}
BENCHMARK(histogram_record);

}  // namespace
}  // namespace ringtail::bench
