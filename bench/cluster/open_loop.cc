#include "cluster/open_loop.h"

#include <sys/resource.h>

#include <chrono>
#include <thread>

namespace ringtail::bench {
namespace {

constexpr double kBetweenTurnsNs = 1e6;
constexpr std::uint64_t kSpinNs = 100'000;  // before a record is due; what is left before that is slept

long involuntary_switches() {
  ::rusage usage = {};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

}  // namespace

Json latency(const Histogram& times) {
  return {{"count", times.count()},
          {"p50_ns", times.percentile(50)},
          {"p90_ns", times.percentile(90)},
          {"p99_ns", times.percentile(99)},
          {"p99_9_ns", times.percentile(99.9)},
          {"max_ns", times.max()}};
}

Json Delays::json() const {
  const auto share = [](std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  };
  return {{"all", latency(all)},
          {"without_gaps", latency(without_gaps)},
          {"sends", latency(sends)},
          {"left_out", left_out},
          {"left_out_share", share(left_out, all.count())},
          {"gaps",
           {{"count", gaps},
            {"preempted", gaps_preempted},
            {"total_ns", gap_ns},
            {"share_of_time", share(gap_ns, turns_ns)},
            {"longest_ns", longest_gap_ns}}}};
}

void OpenLoop::turn(Producer& producer, std::uint64_t count, Delays& delays, const std::stop_token& stop) {
  const double pause = 1e9 / rate_;
  const std::uint64_t rested = clock_.now() + clock_.from_ns(kBetweenTurnsNs);
  while (clock_.now() < rested) tools::perf::spin_pause();
  const std::uint64_t begin = clock_.now();
  last_ = begin;
  switches_ = involuntary_switches();
  late_from_ = kNever;
  for (std::uint64_t n = 0; n < count && !stop.stop_requested(); ++n) {
    const std::uint64_t due = begin + clock_.from_ns(pause * static_cast<double>(n));
    wait_until(due, delays);
    const std::uint64_t send_begin = last_;
    if (!producer.send(ProducerRecord{.value = value_, .partition = PartitionId{0}})) die(producer.error());
    last_ = clock_.now();
    count_record(due, send_begin, delays);
  }
  delays.turns_ns += clock_.ns_between(begin, last_);
}

void OpenLoop::wait_until(std::uint64_t due, Delays& delays) {
  look_for_gap(clock_.now(), delays);
  // A sleeper that is woken late is late by the scheduler, so sleeping makes no gap.
  if (const std::uint64_t left_ns = clock_.ns_between(last_, due); left_ns > 2 * kSpinNs) {
    late_from_ = kNever;
    std::this_thread::sleep_for(std::chrono::nanoseconds(left_ns - kSpinNs));
    last_ = clock_.now();
    switches_ = involuntary_switches();
  }
  while (last_ < due) {
    late_from_ = kNever;  // it has to wait, so it is on schedule
    tools::perf::spin_pause();
    look_for_gap(clock_.now(), delays);
  }
}

// The clock reads `now`, and since `last_` there was nothing but the loop.
void OpenLoop::look_for_gap(std::uint64_t now, Delays& delays) {
  const std::uint64_t before = std::exchange(last_, now);
  const std::uint64_t gap_ns = clock_.ns_between(before, now);
  if (gap_ns <= kGapNs) return;
  const long switches = involuntary_switches();
  const bool preempted = std::exchange(switches_, switches) != switches;
  ++delays.gaps;
  delays.gaps_preempted += preempted;
  delays.gap_ns += gap_ns;
  delays.longest_gap_ns = std::max(delays.longest_gap_ns, gap_ns);
  if (preempted && preempted_ == Preempted::by_the_log) return;
  // One gap after another, never on schedule between them, is one time out.
  if (late_from_ == kNever || late_until_ != kNever) late_from_ = before;
  late_until_ = kNever;
}

void OpenLoop::count_record(std::uint64_t due, std::uint64_t begin, Delays& delays) {
  const std::uint64_t delay_ns = clock_.ns_between(due, last_);
  const std::uint64_t send_ns = clock_.ns_between(begin, last_);
  delays.all.record(delay_ns);
  delays.sends.record(send_ns);
  if (due < late_from_ || due >= late_until_) {
    delays.without_gaps.record(delay_ns);
  } else if (send_ns > kGapNs) {
    delays.without_gaps.record(send_ns);
    late_until_ = std::min(late_until_, begin);
  } else {
    ++delays.left_out;
  }
}

}  // namespace ringtail::bench
