// Open and closed loop: producers that send a stream, and the consumer that counts it.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>

#include "tools/perf_attach.h"
#include "tools/perf_sender.h"
#include "tools/perf_workers.h"

namespace ringtail::tools::perf {
namespace {

constexpr std::uint64_t kSampleEvery = 256;  // sends of a closed loop between two that carry a stamp
constexpr std::uint64_t kLookEvery = 64;     // sends between two looks at the clock

// The schedule of an open loop: record i of all leaves at start + i / rate, and the producers take
// turns.
Status send_on_schedule(const RunContext& run, Sender& sender, std::uint32_t number) {
  const PerfOptions& options = run.options;
  const double interval = 1e9 / options.rate / run.clock.ns_per_tick();
  const auto due = [&](std::uint64_t own) {
    const auto index = static_cast<double>(own * options.producers + number);
    return run.shared.start_ticks + static_cast<std::uint64_t>(index * interval);
  };
  const std::uint64_t total = (options.warmup + options.count) / options.producers;
  for (std::uint64_t sent = 0; sent < total; sent += options.batch) {
    const std::uint64_t departure = due(sent + options.batch - 1);
    while (run.clock.now() < departure) spin_pause();
    for (std::uint32_t i = 0; i < options.batch; ++i) sender.stamp(i, due(sent + i));
    if (!sender.send()) return sender.failure();
  }
  return {};
}

// Sends until `records` have been sent or the deadline has passed; returns how many. The first record
// of every kSampleEvery-th send carries the time, the others carry zero.
Result<std::uint64_t> send_at_will(const RunContext& run, Sender& sender, std::uint64_t records,
                                   std::uint64_t deadline) {
  std::uint64_t sent = 0;
  for (std::uint64_t sends = 0; sent < records; ++sends, sent += sender.batch()) {
    if (sends % kLookEvery == 0 && run.clock.now() >= deadline) break;
    const bool stamped = sends % kSampleEvery == 0;
    if (stamped) sender.stamp(0, run.clock.now());
    if (!sender.send()) return sender.failure();
    if (stamped) sender.stamp(0, 0);
  }
  return sent;
}

// The consumer cannot know how many records fit into a given time: the last producer tells it.
void announce(RunShared& shared, std::uint64_t sent, std::uint32_t producers) {
  shared.sent.fetch_add(sent, std::memory_order_relaxed);
  // SYNC: with itself in the other producers, so that the last one sees what all have sent.
  const std::uint32_t others = shared.producers_finished.fetch_add(1, std::memory_order_acq_rel);
  if (others + 1 < producers) return;
  shared.target.store(shared.sent.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

Status send_closed_loop(const RunContext& run, Sender& sender, std::uint32_t number) {
  const PerfOptions& options = run.options;
  for (std::uint32_t i = 0; i < options.batch; ++i) sender.stamp(i, 0);
  constexpr std::uint64_t kNever = ~std::uint64_t{0};
  const auto warmup = send_at_will(run, sender, options.warmup / options.producers, kNever);
  if (!warmup) return std::unexpected(warmup.error());
  run.shared.warmed_up.wait();

  const std::uint64_t begin = run.clock.now();
  run.shared.producers[number].first_ticks = begin;
  const bool timed = options.count == 0;
  const auto sent = send_at_will(run, sender, timed ? kNever : options.count / options.producers,
                                 timed ? begin + run.clock.from_ns(options.seconds * 1e9) : kNever);
  if (!sent) return std::unexpected(sent.error());
  announce(run.shared, *sent, options.producers);
  return {};
}

// Counts records, and checks that none is missing: the topic is fresh and everything in it is ours.
class Counter {
 public:
  Counter(const RunContext& run, Consumer& consumer) : run_(run), consumer_(consumer) {}

  // Reads until `target` records have come since the last call; `target` may change meanwhile. Only
  // records with a stamp of at least `since` count in the latencies.
  Status read_until(const std::atomic<std::uint64_t>& target, std::uint64_t since) {
    count_ = 0;
    while (count_ < target.load(std::memory_order_relaxed)) {
      const auto records = consumer_.poll(kBetweenLooks);
      if (!records) return std::unexpected(records.error());
      if (records->empty()) continue;
      if (records->front().offset != next_) return lost(records->front().offset);
      last_ticks_ = run_.clock.now_when_done();
      for (const Record& record : *records) {
        const std::uint64_t stamp = stamp_of(record);
        if (stamp >= since) run_.shared.latency_ns.record(run_.clock.ns_between(stamp, last_ticks_));
      }
      next_ = records->back().offset + 1;
      count_ += records->size();
      run_.shared.progress.store(count_, std::memory_order_relaxed);
    }
    return {};
  }

  std::uint64_t count() const { return count_; }
  std::uint64_t last_ticks() const { return last_ticks_; }

 private:
  static constexpr std::chrono::milliseconds kBetweenLooks{50};

  Status lost(Offset got) const {
    return fail(Code::corrupt, fmt::format("offset {} came where {} was due; this is a bug of Ringtail",
                                           got.value(), next_.value()));
  }

  const RunContext& run_;
  Consumer& consumer_;
  Offset next_{0};
  std::uint64_t count_ = 0;
  std::uint64_t last_ticks_ = 0;
};

}  // namespace

Status run_producer(const RunContext& run, std::uint32_t number) {
  const auto log = attach(run, run.options.producer_cpu(number));
  if (!log) return std::unexpected(log.error());
  auto sender = Sender::open(*log, run.topic, run.options);
  if (!sender) return std::unexpected(sender.error());
  wait_for_start(run);
  const Status sent = run.options.method == Method::open_loop ? send_on_schedule(run, *sender, number)
                                                              : send_closed_loop(run, *sender, number);
  if (!sent || run.options.storage == "memory") return sent;
  if (!sender->flush()) return sender->failure();
  run.shared.producers[number].durable_ticks = run.clock.now();
  return {};
}

Status run_consumer(const RunContext& run) {
  const PerfOptions& options = run.options;
  RunShared& shared = run.shared;
  const auto log = attach(run, options.consumer_cpu());
  if (!log) return std::unexpected(log.error());
  auto consumer = open_consumer(run, *log, run.topic);
  if (!consumer) return std::unexpected(consumer.error());
  wait_for_start(run);

  Counter counter(run, *consumer);
  if (options.method == Method::open_loop) {
    const std::atomic<std::uint64_t> all{options.warmup + options.count};
    if (const Status read = counter.read_until(all, shared.measure_ticks); !read) return read;
    shared.records = counter.count() - options.warmup;
  } else {
    const std::atomic<std::uint64_t> warmup{options.warmup};
    constexpr std::uint64_t kNone = ~std::uint64_t{0};
    constexpr std::uint64_t kStamped = 1;
    if (const Status read = counter.read_until(warmup, kNone); !read) return read;
    shared.warmed_up.open();
    if (const Status read = counter.read_until(shared.target, kStamped); !read) return read;
    shared.records = counter.count();
  }
  shared.last_ticks = counter.last_ticks();
  return {};
}

}  // namespace ringtail::tools::perf
