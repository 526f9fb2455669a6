// What an append costs its caller when nobody else appends: one by one, in batches, in place; alone and
// each one timed, so that the median is not hidden behind the few that wait for space.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "support/cpu_counters.h"
#include "support/temporary_log.h"
#include "tools/perf_clock.h"

namespace ringtail::bench {
namespace {

constexpr int kMemory = 0;
constexpr int kDisk = 1;

// A producer of a topic that nobody reads, in a log below the current folder.
class AppendTarget {
 public:
  explicit AppendTarget(std::int64_t storage) : log_(".") {
    log_.create_topic("append", {{"storage", storage == kDisk ? "disk" : "memory"}});
    producer_ = std::make_unique<Producer>(
        value_or_die(Producer::open(log_.log(), ProducerOptions{.topic = "append"})));
  }
  Producer& producer() { return *producer_; }

 private:
  TemporaryLog log_;
  std::unique_ptr<Producer> producer_;  // goes before the log
};

void set_rates(benchmark::State& state, std::int64_t records) {
  state.SetItemsProcessed(records);
  state.SetBytesProcessed(records * state.range(0));
}

bool sent(benchmark::State& state, const Producer& producer, bool done) {
  if (!done) state.SkipWithError(producer.error().message.c_str());
  return done;
}

void append(benchmark::State& state) {
  AppendTarget target(state.range(1));
  const std::string value(static_cast<std::size_t>(state.range(0)), 'x');
  CpuCounters counters;
  counters.start();
  for (auto _ : state) {
    if (!sent(state, target.producer(), target.producer().send(value).has_value())) break;
  }
  counters.stop();
  set_rates(state, state.iterations());
  counters.report(state.counters, state.iterations());
}
BENCHMARK(append)->ArgNames({"bytes", "disk"})->ArgsProduct({{64, 1024}, {kMemory, kDisk}})->UseRealTime();

void append_batch(benchmark::State& state) {
  AppendTarget target(state.range(1));
  const std::string value(static_cast<std::size_t>(state.range(0)), 'x');
  const std::vector<ProducerRecord> records(64, ProducerRecord{.value = value});
  CpuCounters counters;
  counters.start();
  for (auto _ : state) {
    const bool done = target.producer().send_batch(PartitionId(0), records).has_value();
    if (!sent(state, target.producer(), done)) break;
  }
  counters.stop();
  set_rates(state, state.iterations() * 64);
  counters.report(state.counters, state.iterations() * 64);
}
BENCHMARK(append_batch)
    ->ArgNames({"bytes", "disk"})
    ->ArgsProduct({{64, 1024}, {kMemory, kDisk}})
    ->UseRealTime();

void append_in_place(benchmark::State& state) {
  AppendTarget target(state.range(1));
  const auto size = static_cast<std::size_t>(state.range(0));
  const std::string value(size, 'x');
  CpuCounters counters;
  counters.start();
  for (auto _ : state) {
    auto claim = target.producer().try_claim(size);
    if (!sent(state, target.producer(), claim.has_value())) break;
    std::memcpy(claim->value().data(), value.data(), size);
    if (!sent(state, target.producer(), claim->commit().has_value())) break;
  }
  counters.stop();
  set_rates(state, state.iterations());
  counters.report(state.counters, state.iterations());
}
BENCHMARK(append_in_place)
    ->ArgNames({"bytes", "disk"})
    ->Args({64, kMemory})
    ->Args({64, kDisk})
    ->UseRealTime();

// The distribution of single appends: one right after the other, which ends in waiting for the keeper to
// recycle the ring, and at a rate that leaves it time (`rate` a second). `clock` is what the two readings
// of the clock alone take; it is in every other figure and not subtracted.
void append_timed(benchmark::State& state) {
  AppendTarget target(state.range(1));
  const auto ticks = tools::perf::TickClock::calibrate();
  const std::string value(static_cast<std::size_t>(state.range(0)), 'x');
  const auto appends = std::make_unique<Histogram>();
  const auto clock = std::make_unique<Histogram>();
  const std::uint64_t gap = state.range(2) > 0 ? ticks.from_ns(1e9 / static_cast<double>(state.range(2))) : 0;
  std::uint64_t next = ticks.now();
  for (auto _ : state) {
    for (next += gap; ticks.now() < next;) tools::perf::spin_pause();
    const std::uint64_t begin = ticks.now_when_done();
    const bool done = target.producer().send(value).has_value();
    const std::uint64_t end = ticks.now_when_done();
    if (!sent(state, target.producer(), done)) break;
    appends->record(ticks.to_ns(end - begin));
    const std::uint64_t empty = ticks.now_when_done();
    clock->record(ticks.to_ns(ticks.now_when_done() - empty));
  }
  set_rates(state, state.iterations());
  for (const auto& [name, percent] :
       {std::pair{"p50", 50.0}, {"p90", 90.0}, {"p99", 99.0}, {"p99_9", 99.9}}) {
    state.counters[name] = static_cast<double>(appends->percentile(percent));
  }
  state.counters["clock"] = static_cast<double>(clock->percentile(50));
}
BENCHMARK(append_timed)
    ->ArgNames({"bytes", "disk", "rate"})
    ->ArgsProduct({{64, 1024}, {kMemory, kDisk}, {0, 1'000'000}})
    ->UseRealTime();

}  // namespace
}  // namespace ringtail::bench
