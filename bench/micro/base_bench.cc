// The parts an append and a flush are made of, each alone: what they cost is what no design can save.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstddef>
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
