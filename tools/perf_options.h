// What `ringtail perf` is asked to measure, and what it found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/histogram.h"
#include "ringtail/ringtail.h"
#include "tools/perf_probe.h"

namespace ringtail::tools::perf {

// How records are sent.
enum class Method {
  ping_pong,    // one record at a time, answered by the other side: round trips
  open_loop,    // at a fixed rate, whatever happens to the records before: latency counts from the
                // time a record was meant to leave, so that waiting in a queue is not forgotten
  closed_loop,  // as fast as they are taken
};

std::string_view to_string(Method method);
std::string_view to_string(WaitStrategy wait);  // as --wait spells it

inline constexpr std::uint32_t kMaxProducers = 64;
inline constexpr std::uint32_t kStampBytes = 8;  // each record starts with the time it was sent

struct PerfOptions {
  std::string mode;  // "latency" or "throughput", as it was asked for
  Method method = Method::ping_pong;
  std::filesystem::path dir;  // empty: a temporary log, removed afterwards
  std::string storage = "disk";
  std::uint32_t size = 64;  // bytes of a record's value
  std::uint64_t count = 0;  // records (round trips) to measure; 0: as many as fit into `seconds`;
                            // never 0 in a settled open loop
  double seconds = 2;
  std::optional<std::uint64_t> wanted_warmup;  // as it was asked for; none: by the method
  std::uint64_t warmup = 0;                    // records sent before, and not measured; set by `settle`
  // Round trips before the measurement end after so long, too: on a machine that is busy, one may take milliseconds.
  double warmup_seconds = std::numeric_limits<double>::infinity();
  std::uint32_t batch = 1;
  std::uint32_t producers = 1;
  double rate = 0;  // records per second of all producers together
  WaitStrategy wait = WaitStrategy::busy_spin;
  bool claim = false;      // values are written in place
  bool exclusive = false;  // each producer has its topic for itself
  unsigned repeat = 3;
  std::vector<int> cpus;  // producer, consumer, further producers
  int keeper_cpu = -1;
  TopicConfigs configs;  // of the topics
  std::string hgrm_file;
  std::string html_file;

  // The CPU of a producer and of the consumer; -1: not pinned.
  int producer_cpu(std::uint32_t number) const {
    const std::size_t index = number == 0 ? 0 : number + 1;
    return index < cpus.size() ? cpus[index] : -1;
  }
  int consumer_cpu() const { return cpus.size() > 1 ? cpus[1] : -1; }

  // Fills in what was left open, and rounds counts so that producers and batches share them evenly.
  // Errors: invalid_argument, naming the option.
  Status settle();
};

// One repetition.
struct RunResult {
  std::uint64_t records = 0;        // received (or round trips), without the warm-up
  double seconds = 0;               // from the first one sent to the last one received
  double durable_seconds = 0;       // from the first one sent to all of them synced; 0: memory topic
  double log_bytes_per_record = 0;  // in the log, with header and alignment
  std::unique_ptr<Histogram> latency_ns;

  double records_per_second() const { return seconds > 0 ? static_cast<double>(records) / seconds : 0; }
  double durable_records_per_second() const {
    return durable_seconds > 0 ? static_cast<double>(records) / durable_seconds : 0;
  }
};

struct PerfResult {
  std::vector<RunResult> runs;
  Probe probe_before;
  Probe probe_after;
};

}  // namespace ringtail::tools::perf
