// Producers on a host of a cluster, and how far its followers are. Attaches to logs that ringtaild keeps.
//
//     ringtail_cluster_load saturate DIR TOPIC SECONDS BYTES FOLLOWER_DIR   as fast as the follower takes it
//     ringtail_cluster_load fill DIR TOPIC TOTAL_BYTES BYTES                as fast as one producer can
//     ringtail_cluster_load closed DIR TOPIC SECONDS BYTES                  acks=all, one record after another
//     ringtail_cluster_load open DIR TOPIC SECONDS BYTES RATE               acks=1, by a schedule
//     ringtail_cluster_load catch_up DIR TOPIC FOLLOWER_DIR                 until the follower is where the leader is
//
// BYTES is the length of a record's value. Prints one JSON object. SIGINT ends `open` early, in good order.
#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/histogram.h"
#include "support/temporary_log.h"
#include "tools/perf_clock.h"

namespace ringtail::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kBatch = 64;
constexpr std::uint64_t kMaxAhead = 16 << 20;       // of the follower
constexpr std::uint64_t kCaughtUpWithin = 1 << 20;  // while a producer appends, it is never all there
constexpr PartitionId kPartition{0};
constexpr std::uint64_t kSpinNs = 100'000;  // before a record is due; what is left before that is slept

std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);

template <class Number>
Number number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    die(Error{Code::invalid_argument, 0, fmt::format("'{}' is no number", text)});
  return value;
}

double seconds_since(std::int64_t begin_ns) { return static_cast<double>(monotonic_ns() - begin_ns) / 1e9; }

// One host's copy of the topic.
class Copy {
 public:
  // Waits for the log and the topic: its daemon may be on its way.
  Copy(const std::string& dir, std::string topic) : topic_(std::move(topic)) {
    const std::int64_t deadline_ns = monotonic_ns() + 60'000'000'000;
    for (;; std::this_thread::sleep_for(1ms)) {
      auto log = Log::open({.dir = dir, .create_if_missing = false, .keeper = KeeperMode::none});
      if (log && Admin(*log).describe_topic(topic_)) {
        log_.emplace(std::move(*log));
        return;
      }
      if (monotonic_ns() > deadline_ns)
        die(log ? Error{Code::not_found, 0, "no topic " + topic_ + " in " + dir} : log.error());
    }
  }

  const Log& log() const { return *log_; }
  const std::string& topic() const { return topic_; }
  PartitionDescription look() const {
    return value_or_die(Admin(*log_).describe_topic(topic_)).partitions.front();
  }
  Producer lead(Acks acks) const {
    auto role = value_or_die(log_->watch_role({topic_, kPartition}));
    if (auto leading = role.wait_until_leader(20s); !leading) die(leading.error());
    return value_or_die(Producer::open(*log_, {.topic = topic_, .acks = acks}));
  }

 private:
  std::string topic_;
  std::optional<Log> log_;
};

nlohmann::ordered_json latency(const Histogram& times) {
  return {{"count", times.count()},
          {"p50_ns", times.percentile(50)},
          {"p90_ns", times.percentile(90)},
          {"p99_ns", times.percentile(99)},
          {"p99_9_ns", times.percentile(99.9)},
          {"max_ns", times.max()}};
}

// What reached the follower per second, in bytes of the log. The producer stops while the follower is too far
// behind, so what is measured is what replication carries, not what the ring holds.
nlohmann::ordered_json saturate(const Copy& leader, const Copy& follower, double seconds, std::size_t size) {
  auto producer = leader.lead(Acks::leader);
  const std::string value(size, 'x');
  const std::vector<ProducerRecord> batch(kBatch, ProducerRecord{.value = value});
  const std::uint64_t look_after = kMaxAhead / 4 / (kBatch * size) + 1;
  PartitionDescription begin = follower.look();
  std::int64_t begin_ns = monotonic_ns();
  std::uint64_t waits = 0;
  bool warm = false;
  for (std::uint64_t sent = 0;; ++sent) {
    if (sent % look_after == 0) {
      auto there = follower.look();
      while (leader.look().log_end_position - there.log_end_position > kMaxAhead) {
        ++waits;
        std::this_thread::sleep_for(500us);
        there = follower.look();
      }
      if (!warm && seconds_since(begin_ns) > seconds / 4) {  // rings and buffers have been touched once
        warm = true;
        begin = there;
        begin_ns = monotonic_ns();
      } else if (warm && seconds_since(begin_ns) > seconds) {
        const double took = seconds_since(begin_ns);
        return {
            {"bytes_per_second", static_cast<double>(there.log_end_position - begin.log_end_position) / took},
            {"records_per_second", static_cast<double>(there.log_end_offset - begin.log_end_offset) / took},
            {"waits", waits}};
      }
    }
    if (!producer.send_batch(kPartition, batch)) die(producer.error());
  }
}

nlohmann::ordered_json fill(const Copy& leader, std::uint64_t bytes, std::size_t size) {
  auto producer = leader.lead(Acks::leader);
  const std::string value(size, 'x');
  const std::vector<ProducerRecord> batch(kBatch, ProducerRecord{.value = value});
  const std::int64_t begin_ns = monotonic_ns();
  for (std::uint64_t sent = 0; sent < bytes; sent += kBatch * size)
    if (!producer.send_batch(kPartition, batch)) die(producer.error());
  if (!producer.flush()) die(producer.error());
  return {{"bytes", leader.look().log_end_position.value()}, {"seconds", seconds_since(begin_ns)}};
}

nlohmann::ordered_json closed(const Copy& leader, double seconds, std::size_t size) {
  auto producer = leader.lead(Acks::all);
  const std::string value(size, 'x');
  const auto times = std::make_unique<Histogram>();
  for (const std::int64_t begin_ns = monotonic_ns(); seconds_since(begin_ns) < seconds;) {
    const std::int64_t then_ns = monotonic_ns();
    if (!producer.send(ProducerRecord{.value = value, .partition = kPartition})) die(producer.error());
    times->record(static_cast<std::uint64_t>(monotonic_ns() - then_ns));
  }
  return latency(*times);
}

// From when a record was to leave until it was committed. The producer spins before each, for a sleeper's waking
// would be the largest part of what is measured.
nlohmann::ordered_json open_loop(const Copy& leader, double seconds, std::size_t size, double rate) {
  auto producer = leader.lead(Acks::leader);
  const std::string value(size, 'x');
  const auto clock = tools::perf::TickClock::calibrate();
  const auto times = std::make_unique<Histogram>();
  const auto count = static_cast<std::uint64_t>(seconds * rate);
  const double pause = 1e9 / rate;
  const std::uint64_t begin = clock.now() + clock.from_ns(1e6);
  std::signal(SIGINT, [](int) { stop.store(true, std::memory_order_relaxed); });
  for (std::uint64_t n = 0; n < count && !stop.load(std::memory_order_relaxed); ++n) {
    const std::uint64_t due = begin + clock.from_ns(pause * static_cast<double>(n));
    if (const std::uint64_t left_ns = clock.ns_between(clock.now(), due); left_ns > 2 * kSpinNs)
      std::this_thread::sleep_for(std::chrono::nanoseconds(left_ns - kSpinNs));
    while (clock.now() < due) tools::perf::spin_pause();
    if (!producer.send(ProducerRecord{.value = value, .partition = kPartition})) die(producer.error());
    times->record(clock.ns_between(due, clock.now()));
  }
  return latency(*times);
}

// From the first byte that comes to the follower until it has nearly all.
nlohmann::ordered_json catch_up(const Copy& leader, const Copy& follower) {
  const std::uint64_t begin = follower.look().log_end_position.value();
  std::uint64_t there = begin;
  for (; there == begin; std::this_thread::sleep_for(1ms)) there = follower.look().log_end_position.value();
  const std::int64_t begin_ns = monotonic_ns();
  while (leader.look().log_end_position.value() - there > kCaughtUpWithin) {
    std::this_thread::sleep_for(2ms);
    there = follower.look().log_end_position.value();
  }
  const double took = seconds_since(begin_ns);
  return {{"bytes", there - begin},
          {"seconds", took},
          {"bytes_per_second", static_cast<double>(there - begin) / took}};
}

int run(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  nlohmann::ordered_json result;
  if (what == "saturate" && argc == 7)
    result = saturate(Copy(argv[2], argv[3]), Copy(argv[6], argv[3]), number<double>(argv[4]),
                      number<std::size_t>(argv[5]));
  else if (what == "fill" && argc == 6)
    result = fill(Copy(argv[2], argv[3]), number<std::uint64_t>(argv[4]), number<std::size_t>(argv[5]));
  else if (what == "closed" && argc == 6)
    result = closed(Copy(argv[2], argv[3]), number<double>(argv[4]), number<std::size_t>(argv[5]));
  else if (what == "open" && argc == 7)
    result = open_loop(Copy(argv[2], argv[3]), number<double>(argv[4]), number<std::size_t>(argv[5]),
                       number<double>(argv[6]));
  else if (what == "catch_up" && argc == 5)
    result = catch_up(Copy(argv[2], argv[3]), Copy(argv[4], argv[3]));
  else {
    fmt::print(stderr,
               "usage: {0} saturate DIR TOPIC SECONDS BYTES FOLLOWER_DIR\n"
               "       {0} fill DIR TOPIC TOTAL_BYTES BYTES\n       {0} closed DIR TOPIC SECONDS BYTES\n"
               "       {0} open DIR TOPIC SECONDS BYTES RATE\n       {0} catch_up DIR TOPIC FOLLOWER_DIR\n",
               argv[0]);
    return 2;
  }
  fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) {
  try {
    return ringtail::bench::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", argv[0], error.what());
    return 1;
  }
}
