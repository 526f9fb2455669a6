// What membership of a group adds to a poll, and what a commit costs. Each figure is a comparison within one
// run, the median over its turns: the two sides take turns, so that what disturbs the machine disturbs both.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::size_t kRecords = 20'000;

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

class Topic {
 public:
  explicit Topic(std::uint32_t partitions) : log_("."), partitions_(partitions) {
    check_or_die(
        Admin(log_.log())
            .create_topic({.name = "topic", .partitions = partitions, .configs = {{"storage", "memory"}}}));
    producer_.emplace(value_or_die(Producer::open(log_.log(), ProducerOptions{.topic = "topic"})));
  }
  void fill() {
    for (std::size_t i = 0; i < kRecords; ++i) {
      const PartitionId to(static_cast<std::uint32_t>(i % partitions_));
      if (!producer_->send({.value = value_, .partition = to})) die(producer_->error());
    }
  }
  Consumer alone(std::size_t max_poll_records) const {
    auto consumer = value_or_die(
        Consumer::open(log_.log(), {.wait = WaitStrategy::busy_spin, .max_poll_records = max_poll_records}));
    check_or_die(consumer.assign("topic"));
    return consumer;
  }
  Consumer member(std::size_t max_poll_records) const {
    auto consumer = value_or_die(Consumer::open(log_.log(), {.wait = WaitStrategy::busy_spin,
                                                             .max_poll_records = max_poll_records,
                                                             .group_id = "group",
                                                             .enable_auto_commit = false}));
    check_or_die(consumer.subscribe("topic"));
    while (consumer.assignment().size() < partitions_)
      value_or_die(consumer.poll(std::chrono::milliseconds(1)));
    return consumer;
  }

 private:
  TemporaryLog log_;
  std::uint32_t partitions_;
  std::string value_ = std::string(64, 'x');
  std::optional<Producer> producer_;
};

// Reads what there is; commits behind each poll if told to. Returns how many ns a record took.
double drain(Consumer& consumer, bool commits) {
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t read = 0; read < kRecords;) {
    const auto records = value_or_die(consumer.poll(std::chrono::seconds(1)));
    for (const Record& record : records) benchmark::DoNotOptimize(record.value.front());
    read += records.size();
    if (commits) check_or_die(consumer.commit_async());
  }
  const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
  return time.count() / kRecords;
}

// A member's poll against that of a consumer without group: `ratio`, and both in ns a record.
void poll_of_member(benchmark::State& state) {
  Topic topic(1);
  const auto max_poll_records = static_cast<std::size_t>(state.range(0));
  Consumer alone = topic.alone(max_poll_records);
  Consumer member = topic.member(max_poll_records);
  std::vector<double> alone_ns;
  std::vector<double> member_ns;
  std::vector<double> ratios;
  bool member_first = false;
  for (auto _ : state) {
    topic.fill();
    if (member_first) member_ns.push_back(drain(member, false));
    alone_ns.push_back(drain(alone, false));
    if (!member_first) member_ns.push_back(drain(member, false));
    member_first = !member_first;
    ratios.push_back(member_ns.back() / alone_ns.back());
  }
  state.counters["alone_ns"] = median(alone_ns);
  state.counters["member_ns"] = median(member_ns);
  state.counters["ratio"] = median(ratios);
}
BENCHMARK(poll_of_member)->ArgName("max_poll_records")->Arg(1)->Arg(256)->MinTime(2);

// An asynchronous commit behind each record: `commit_ns` is what a poll of one record and a commit takes
// beyond a poll of one record.
void commit_async(benchmark::State& state) {
  Topic topic(static_cast<std::uint32_t>(state.range(0)));
  Consumer member = topic.member(1);
  std::vector<double> commit_ns;
  for (auto _ : state) {
    topic.fill();
    const double without_ns = drain(member, false);
    check_or_die(member.commit_async());
    topic.fill();
    commit_ns.push_back(drain(member, true) - without_ns);
  }
  state.counters["commit_ns"] = median(commit_ns);
}
BENCHMARK(commit_async)->ArgName("partitions")->Arg(1)->Arg(16)->MinTime(2);

}  // namespace
}  // namespace ringtail::bench
