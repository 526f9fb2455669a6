// The memory through which the processes of one repetition agree on when to start and when to stop.
//
// Process safety: all members are atomics or are written by one process before it ends and read by
// the parent after it has ended (or before a gate opens, and read behind it).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/histogram.h"
#include "tools/perf_options.h"

namespace ringtail::tools::perf {

// A gate between processes: closed at first, opened once. Sleeps on a futex, so that nobody who waits
// takes CPU time from what is measured.
class Gate {
 public:
  void open();
  void wait() const;
  bool is_open() const { return state_.load(std::memory_order_acquire) != 0; }  // SYNC: open

 private:
  std::atomic<std::uint32_t> state_{0};
};

struct RunShared {
  Gate topics_ready;  // keeper -> parent
  Gate go;            // parent -> workers, when all are attached
  Gate warmed_up;     // consumer -> producers, when the last record of the warm-up has arrived
  Gate finish;        // parent -> keeper, when the workers have ended
  std::atomic<std::uint32_t> attached{0};

  std::uint64_t start_ticks = 0;    // when the open loop's schedule begins
  std::uint64_t measure_ticks = 0;  // when its warm-up ends
  std::array<char, 64> log_id{};
  double log_bytes_per_record = 0;

  alignas(64) std::atomic<std::uint64_t> target{~std::uint64_t{0}};  // records the consumer waits for
  alignas(64) std::atomic<std::uint64_t> sent{0};                    // by producers that have finished
  std::atomic<std::uint32_t> producers_finished{0};

  alignas(64) std::atomic<std::uint64_t> progress{0};  // records received so far
  std::uint64_t records = 0;
  std::uint64_t last_ticks = 0;  // when the last record was received

  struct alignas(64) ProducerTimes {
    std::uint64_t first_ticks = 0;
    std::uint64_t durable_ticks = 0;
  };
  std::array<ProducerTimes, kMaxProducers> producers;

  Histogram latency_ns;
};

}  // namespace ringtail::tools::perf
