// Producers on a host of a cluster, and how far its followers are. Attaches to logs that ringtaild keeps.
//
//     ringtail_cluster_load saturate DIR TOPIC SECONDS BYTES FOLLOWER_DIR [NAME=PID,...]   as the follower takes it
//     ringtail_cluster_load fill DIR TOPIC TOTAL_BYTES BYTES          as fast as one producer can
//     ringtail_cluster_load closed DIR TOPIC SECONDS BYTES            acks=all, one record after another
//     ringtail_cluster_load open DIR TOPIC,... SECONDS BYTES RATE [shared]   acks=1, by a schedule
//     ringtail_cluster_load catch_up DIR TOPIC FOLLOWER_DIR BYTES RATE CPU [NAME=PID,...]
//
// BYTES is the length of a record's value. Prints one JSON object.
//
// `open` sends to several topics in turns of 50 ms, so that all of them meet the same noise, SECONDS to each. It tells
// the delays of all records, and those without gaps: a gap is where two readings of the clock in the producer's spin
// loop are more than 10 us apart, because the CPU was away; records due from its beginning until the producer is on
// schedule again are left out, but for what takes longer than that within send(). `shared`: the CPU is shared with a
// daemon, so a gap in which the kernel ran another thread counts.
//
// `catch_up` looks on from the first byte that comes to the follower until it has nearly all, while a producer on CPU
// does in that time what `open ... RATE shared` does. With NAME=PID the CPU time of the threads of those processes
// stands beside what they carried.
#include <fmt/format.h>
#include <pthread.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/histogram.h"
#include "cluster/open_loop.h"
#include "cluster/program.h"
#include "cluster/thread_times.h"
#include "tools/perf_process.h"

namespace ringtail::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kBatch = 64;
constexpr std::uint64_t kMaxAhead = 16 << 20;       // of the follower
constexpr std::uint64_t kCaughtUpWithin = 1 << 20;  // while a producer appends, it is never all there
constexpr PartitionId kPartition{0};
// A look maps a ring and reads the topic's configuration; more of them would take CPU time from what is measured.
constexpr auto kBetweenLooks = 4ms;
constexpr auto kBetweenFarLooks = 20ms;  // at what takes seconds
constexpr double kTurnSeconds = 0.05;

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

// What reached the follower per second, in bytes of the log. The producer stops while the follower is too far
// behind, so what is measured is what replication carries, not what the ring holds.
Json saturate(const Copy& leader, const Copy& follower, double seconds, std::size_t size, ThreadTimes times) {
  auto producer = leader.lead(Acks::leader);
  const std::string value(size, 'x');
  const std::vector<ProducerRecord> batch(kBatch, ProducerRecord{.value = value});
  const std::uint64_t look_after = kMaxAhead / 4 / (kBatch * size) + 1;
  const std::uint64_t most_ahead = kMaxAhead / size;  // records
  const Offset first = leader.look().log_end_offset;
  PartitionDescription begin = follower.look();
  std::int64_t begin_ns = monotonic_ns();
  std::uint64_t waits = 0;
  bool warm = false;
  for (std::uint64_t sent = 0;; ++sent) {
    if (sent % look_after == 0) {
      auto there = follower.look();
      while (first + sent * kBatch - there.log_end_offset > most_ahead) {
        ++waits;
        std::this_thread::sleep_for(kBetweenLooks);
        there = follower.look();
      }
      if (!warm && seconds_since(begin_ns) > seconds / 4) {  // rings and buffers have been touched once
        warm = true;
        begin = there;
        times.begin();
        begin_ns = monotonic_ns();
      } else if (warm && seconds_since(begin_ns) > seconds) {
        const double took = seconds_since(begin_ns);
        return {
            {"bytes_per_second", static_cast<double>(there.log_end_position - begin.log_end_position) / took},
            {"records_per_second", static_cast<double>(there.log_end_offset - begin.log_end_offset) / took},
            {"bytes", there.log_end_position - begin.log_end_position},
            {"waits", waits},
            {"threads", times.since_begin()}};
      }
    }
    if (!producer.send_batch(kPartition, batch)) die(producer.error());
  }
}

Json fill(const Copy& leader, std::uint64_t bytes, std::size_t size) {
  auto producer = leader.lead(Acks::leader);
  const std::string value(size, 'x');
  const std::vector<ProducerRecord> batch(kBatch, ProducerRecord{.value = value});
  const std::int64_t begin_ns = monotonic_ns();
  for (std::uint64_t sent = 0; sent < bytes; sent += kBatch * size)
    if (!producer.send_batch(kPartition, batch)) die(producer.error());
  if (!producer.flush()) die(producer.error());
  return {{"bytes", leader.look().log_end_position.value()}, {"seconds", seconds_since(begin_ns)}};
}

Json closed(const Copy& leader, double seconds, std::size_t size) {
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

Json open_loop(const std::string& dir, std::string_view names, double seconds, std::size_t size, double rate,
               OpenLoop::Preempted preempted) {
  struct Side {
    Copy copy;
    Producer producer = copy.lead(Acks::leader);
    std::unique_ptr<Delays> delays = std::make_unique<Delays>();
  };
  std::vector<Side> sides;
  for (const auto name : std::views::split(names, ','))
    sides.push_back({.copy = Copy(dir, std::string(std::string_view(name)))});
  OpenLoop loop(rate, size, preempted);
  const double turns = sides.size() == 1 ? 1 : std::ceil(seconds / kTurnSeconds);
  for (double turn = 0; turn < turns; ++turn)
    for (Side& side : sides)
      loop.turn(side.producer, static_cast<std::uint64_t>(rate * seconds / turns), *side.delays);
  Json topics = Json::array();
  for (const Side& side : sides) {
    Json topic{{"topic", side.copy.topic()}};
    topic.update(side.delays->json());
    topics.push_back(std::move(topic));
  }
  return {{"topics", topics}};
}

// The producer sleeps between its records. One that spun would take half of the CPU from the leader's daemon and slow
// down what it is to be compared with, and it would seldom have to be woken, which is what a daemon at work delays.
Json catch_up(const Copy& leader, const std::string& follower_dir, std::size_t size, double rate, int cpu,
              ThreadTimes times) {
  auto producer = leader.lead(Acks::leader);
  OpenLoop loop(rate, size, OpenLoop::Preempted::by_the_log);
  const auto delays = std::make_unique<Delays>();
  // The last that takes time, so that all is ready for the first byte.
  const Copy follower(follower_dir, leader.topic());
  const std::uint64_t begin = follower.look().log_end_position.value();
  std::uint64_t there = begin;
  for (; there == begin; std::this_thread::sleep_for(1ms)) there = follower.look().log_end_position.value();
  times.begin();
  const std::int64_t begin_ns = monotonic_ns();
  std::exception_ptr failure;
  std::jthread appending([&](const std::stop_token& stop) {
    ::pthread_setname_np(::pthread_self(), "producer");
    try {
      check_or_die(tools::perf::pin_to_cpu(cpu));
      loop.turn(producer, ~std::uint64_t{0}, *delays, stop);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  while (leader.look().log_end_position.value() - there > kCaughtUpWithin) {
    std::this_thread::sleep_for(kBetweenFarLooks);
    there = follower.look().log_end_position.value();
  }
  const double took = seconds_since(begin_ns);
  Json threads = times.since_begin();
  appending.request_stop();
  appending.join();
  if (failure) std::rethrow_exception(failure);
  return {{"bytes", there - begin},
          {"seconds", took},
          {"bytes_per_second", static_cast<double>(there - begin) / took},
          {"producer", delays->json()},
          {"threads", std::move(threads)}};
}

// --- The command line ----------------------------------------------------------------------------

OpenLoop::Preempted preempted(Words words) {
  if (words.empty()) return OpenLoop::Preempted::by_others;
  if (words.front() != std::string_view("shared"))
    die(Error{Code::invalid_argument, 0, fmt::format("'{}' is not 'shared'", words.front())});
  return OpenLoop::Preempted::by_the_log;
}

ThreadTimes thread_times(Words words) { return ThreadTimes(words.empty() ? "" : words.front()); }

constexpr Mode kModes[] = {
    {"saturate", "DIR TOPIC SECONDS BYTES FOLLOWER_DIR [NAME=PID,...]",
     [](Words words) {
       return saturate(Copy(words[0], words[1]), Copy(words[4], words[1]), number<double>(words[2]),
                       number<std::size_t>(words[3]), thread_times(words.subspan(5)));
     }},
    {"fill", "DIR TOPIC TOTAL_BYTES BYTES",
     [](Words words) {
       return fill(Copy(words[0], words[1]), number<std::uint64_t>(words[2]), number<std::size_t>(words[3]));
     }},
    {"closed", "DIR TOPIC SECONDS BYTES",
     [](Words words) {
       return closed(Copy(words[0], words[1]), number<double>(words[2]), number<std::size_t>(words[3]));
     }},
    {"open", "DIR TOPIC,... SECONDS BYTES RATE [shared]",
     [](Words words) {
       return open_loop(words[0], words[1], number<double>(words[2]), number<std::size_t>(words[3]),
                        number<double>(words[4]), preempted(words.subspan(5)));
     }},
    {"catch_up", "DIR TOPIC FOLLOWER_DIR BYTES RATE CPU [NAME=PID,...]",
     [](Words words) {
       return catch_up(Copy(words[0], words[1]), words[2], number<std::size_t>(words[3]),
                       number<double>(words[4]), number<int>(words[5]), thread_times(words.subspan(6)));
     }},
};

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) { return ringtail::bench::run_program(argc, argv, ringtail::bench::kModes); }
