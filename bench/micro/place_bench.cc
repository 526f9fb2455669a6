// What it takes a reader to stand where it is to begin, while most of the log is in files only.
//
// `join`: a member joins a group and opens its partitions, from the call to subscribe until the poll that has
// opened the last of them. Its group stands at the log's end (in the ring) or in the middle (in files).
// `seek`: one partition read on from an offset in the files: from the call to seek until a record is there.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::uint32_t kPartitions = 8;
constexpr std::size_t kRecords = 32'768;  // of each partition
constexpr const char* kTopic = "place";
constexpr const char* kGroup = "group";

double us_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

void count(benchmark::State& state, std::vector<double> values) {
  std::ranges::sort(values);
  state.counters["median_us"] = values[values.size() / 2];
  state.counters["min_us"] = values.front();
  state.counters["max_us"] = values.back();
}

// 32 MiB in each partition, of which the ring holds the last.
class Filled {
 public:
  Filled() : log_(".") {
    check_or_die(Admin(log_.log())
                     .create_topic({.name = kTopic,
                                    .partitions = kPartitions,
                                    .configs = {{"term.bytes", "256KiB"}, {"ring.terms", "4"}}}));
    auto producer = value_or_die(Producer::open(log_.log(), ProducerOptions{.topic = kTopic}));
    const std::string value(960, 'x');
    for (std::size_t i = 0; i < kRecords; ++i)
      for (std::uint32_t p = 0; p < kPartitions; ++p)
        if (!producer.send({.value = value, .partition = PartitionId(p)})) die(producer.error());
    if (!producer.flush()) die(producer.error());
  }
  const Log& log() const { return log_.log(); }

 private:
  TemporaryLog log_;
};

void join(benchmark::State& state) {
  const Filled filled;
  const Offset at(kRecords * static_cast<std::size_t>(state.range(0)) / 100);
  std::vector<double> times;
  auto consumer = value_or_die(
      Consumer::open(filled.log(), ConsumerOptions{.group_id = kGroup, .enable_auto_commit = false}));
  const auto join_and_wait = [&] {
    const auto begin = std::chrono::steady_clock::now();
    check_or_die(consumer.subscribe(kTopic));
    while (consumer.assignment().size() < kPartitions)
      value_or_die(consumer.poll(std::chrono::milliseconds(0)));
    return us_since(begin);
  };
  join_and_wait();
  std::vector<OffsetCommit> offsets;
  for (const TopicPartition& partition : consumer.assignment()) offsets.push_back({partition, at, {}});
  check_or_die(consumer.commit_sync(offsets));
  for (auto _ : state) {
    check_or_die(consumer.unsubscribe());
    times.push_back(join_and_wait());
    state.SetIterationTime(times.back() / 1e6);
  }
  count(state, std::move(times));
}
BENCHMARK(join)->ArgName("percent")->Arg(50)->Arg(100)->Iterations(50)->UseManualTime()->Unit(
    benchmark::kMicrosecond);

void seek(benchmark::State& state) {
  const Filled filled;
  std::vector<double> times;
  auto consumer = value_or_die(Consumer::open(filled.log(), ConsumerOptions{}));
  const TopicPartition partition{kTopic, PartitionId(0)};
  check_or_die(consumer.assign(std::span(&partition, 1)));
  std::uint64_t at = 0;
  for (auto _ : state) {
    at = (at + 7'919) % (kRecords / 2);
    const auto begin = std::chrono::steady_clock::now();
    check_or_die(consumer.seek(partition, Offset(at)));
    while (value_or_die(consumer.poll(std::chrono::milliseconds(100))).empty()) {
    }
    times.push_back(us_since(begin));
    state.SetIterationTime(times.back() / 1e6);
  }
  count(state, std::move(times));
}
BENCHMARK(seek)->Iterations(200)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ringtail::bench
