// A consumer that measures.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "base/clock.h"
#include "base/histogram.h"
#include "tools/demo/demo.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::demo {
namespace {

using namespace std::chrono_literals;

void print_figures(std::string_view topic, std::string_view what, const Histogram& age_ns) {
  using tools::human_nanoseconds;
  fmt::print("  {:<10} {:>9} {}: p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}\n", topic,
             tools::grouped(age_ns.count()), what, human_nanoseconds(age_ns.percentile(50)),
             human_nanoseconds(age_ns.percentile(99)), human_nanoseconds(age_ns.percentile(99.9)),
             human_nanoseconds(age_ns.max()));
  std::fflush(stdout);
}

}  // namespace

Status run_watch(const Log& log, const WatchOptions& options) {
  auto consumer = Consumer::open(log, {.wait = WaitStrategy::futex});
  if (!consumer) return std::unexpected(consumer.error());
  if (auto assigned = consumer->assign(options.topic); !assigned) return assigned;
  for (const TopicPartition& partition : consumer->assignment()) {
    if (auto sought = consumer->seek_to_end(partition); !sought) return sought;
  }

  // A record is as old as the time from its append to the moment poll hands it over.
  auto recent = std::make_unique<Histogram>();
  auto overall = std::make_unique<Histogram>();
  const auto interval = static_cast<std::int64_t>(options.every_seconds * 1e9);
  WallClock clock;
  std::int64_t next_line = monotonic_ns() + interval;
  std::int64_t last_arrival = 0;
  std::int64_t longest_silence = 0;
  while (!tools::interrupt::pending()) {
    const auto records = consumer->poll(100ms);
    if (!records) return std::unexpected(records.error());
    const std::int64_t now = clock.now_ns();
    for (const Record& record : *records) {
      recent->record(static_cast<std::uint64_t>(std::max<std::int64_t>(0, now - record.timestamp_ns)));
    }
    if (!records->empty()) {
      if (last_arrival != 0) longest_silence = std::max(longest_silence, now - last_arrival);
      last_arrival = now;
    }
    if (monotonic_ns() >= next_line) {
      if (recent->count() > 0) print_figures(options.topic, "records", *recent);
      overall->merge(*recent);
      recent->reset();
      next_line += interval;
    }
  }
  overall->merge(*recent);
  print_figures(options.topic, "in all ", *overall);
  fmt::print("  {:<10} {:>9} the longest time without a record; {} records missed\n", options.topic,
             tools::human_nanoseconds(static_cast<std::uint64_t>(longest_silence)), consumer->missed());
  return {};
}

}  // namespace ringtail::demo
