// Google Benchmark's main, with the noise probe before and after: figures of two runs compare only
// where their probes agree.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <exception>
#include <string>
#include <vector>

#include "support/cpu_counters.h"
#include "support/temporary_log.h"
#include "tools/perf_clock.h"
#include "tools/perf_probe.h"
#include "tools/perf_process.h"

namespace {

using namespace ringtail::tools::perf;

Probe probe(const TickClock& clock) {
  const std::vector<int> cpus = allowed_cpus();
  const int first = cpus.empty() ? -1 : cpus.front();
  return ringtail::bench::value_or_die(measure_probe(clock, first, cpus.size() > 1 ? cpus[1] : first));
}

void run() {
  if (const std::string complaint = ringtail::bench::CpuCounters().complaint(); !complaint.empty())
    fmt::print(stderr,
               "not counted by the processor: {}. bench/regression/check counts instructions anywhere\n",
               complaint);
  const TickClock clock = TickClock::calibrate();
  const Probe before = probe(clock);
  benchmark::AddCustomContext("probe_before_ns", fmt::format("{:.1f}", before.two_lines));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  const Probe after = probe(clock);
  fmt::print(stderr, "cache-line round trip: {:.1f} ns before, {:.1f} ns after\n", before.two_lines,
             after.two_lines);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  try {
    run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", argv[0], error.what());
    return 1;
  }
  return 0;
}
