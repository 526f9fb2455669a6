// What the processor counts while something runs: instructions, cycles, misses of the first data cache and of the last
// cache, by perf_event_open(2). Counted is the calling thread in user mode. Many virtual machines have no such
// counters, and kernel.perf_event_paranoid above 2 keeps them from who is not root; then there is less or nothing, and
// `complaint` tells why.
//
// Thread safety: none; start and stop on the thread that made it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/descriptor.h"

namespace ringtail::bench {

class CpuCounters {
 public:
  static constexpr std::array<const char*, 4> kNames{"instructions", "cycles", "l1d_misses", "llc_misses"};

  CpuCounters();

  // What runs from start to stop counts; several such spans add up.
  void start();
  void stop();

  // Sets counters[name] to what fell on each of `items`, of those that could be counted. `counters` is a map as
  // benchmark::State has one.
  template <class Counters>
  void report(Counters& counters, std::int64_t items) const {
    for (std::size_t i = 0; i < kNames.size(); ++i)
      if (events_[i] && items > 0) counters[kNames[i]] = count(i) / static_cast<double>(items);
  }

  // Which are not counted, and why; empty: all are.
  const std::string& complaint() const { return complaint_; }

 private:
  // Where there are fewer counters than events, they take turns: scaled to the whole time.
  double count(std::size_t event) const;

  std::array<Descriptor, kNames.size()> events_;
  std::string complaint_;
};

}  // namespace ringtail::bench
