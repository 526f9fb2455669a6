// Records sent by a schedule that waits for nobody, and how late each was committed.
//
// On a virtual machine the CPU goes away at times, for 0.1 to 50 ms, and what was due meanwhile is late by no fault
// of the log's. The producer spins between records, so it sees that: there is a *gap* where two successive readings
// of the clock, with nothing between them but the spin loop, are more than kGapNs apart. Records due from the
// beginning of a gap until the producer is on schedule again (has to wait for the next) are left out of
// `without_gaps`. What takes long within send() always counts: when a send() among those left out takes more than
// kGapNs itself, it counts with its own duration, and all that was due from its beginning on as ever.
//
// Thread safety: none.
#pragma once

#include <stop_token>
#include <string>

#include "base/histogram.h"
#include "cluster/program.h"
#include "tools/perf_clock.h"

namespace ringtail::bench {

Json latency(const Histogram& times);

// Of one topic. On the heap: a histogram is large.
struct Delays {
  Histogram all;           // from when a record was to leave until send() had returned
  Histogram without_gaps;  // `all` without those that a gap made late
  Histogram sends;         // how long send() took, of all records
  std::uint64_t left_out = 0;
  std::uint64_t gaps = 0;
  std::uint64_t gaps_preempted = 0;  // of them: in which the kernel gave the CPU to another thread
  std::uint64_t gap_ns = 0;
  std::uint64_t longest_gap_ns = 0;
  std::uint64_t turns_ns = 0;

  Json json() const;
};

class OpenLoop {
 public:
  // Whose work it is when the kernel runs another thread in a gap. That of others is left out like any gap; that of
  // the log, for a producer that shares its CPU with a daemon, is a cost of the log's and counts.
  enum class Preempted : bool { by_others, by_the_log };
  static constexpr std::uint64_t kGapNs = 10'000;

  OpenLoop(double rate, std::size_t value_size, Preempted preempted)
      : rate_(rate), value_(value_size, 'x'), preempted_(preempted) {}

  // Sends `count` records, or until `stop`. Begins 1 ms later, so that a turn is not late by what the one before did.
  void turn(Producer& producer, std::uint64_t count, Delays& delays, const std::stop_token& stop = {});

 private:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};

  void wait_until(std::uint64_t due, Delays& delays);
  void look_for_gap(std::uint64_t now, Delays& delays);
  void count_record(std::uint64_t due, std::uint64_t begin, Delays& delays);

  tools::perf::TickClock clock_ = tools::perf::TickClock::calibrate();
  double rate_;
  std::string value_;
  Preempted preempted_;
  std::uint64_t last_ = 0;  // the clock's latest reading
  long switches_ = 0;       // as last looked at: how often the kernel has taken the CPU
  // What was due from the one to the other is late by a gap; kNever: nothing is, and: until on schedule again.
  std::uint64_t late_from_ = kNever;
  std::uint64_t late_until_ = kNever;
};

}  // namespace ringtail::bench
