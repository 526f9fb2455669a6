// What idempotence and transactions cost their producers, and reading what was committed its readers. The
// ratios are comparisons within one run, the median over its turns: both sides take turns, so that what
// disturbs the machine disturbs both.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::size_t kRecords = 20'000;
constexpr std::size_t kRecordsOfTransaction = 100;

using Clock = std::chrono::steady_clock;

double ns_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Producer open_producer(const TemporaryLog& log, ProducerOptions options) {
  options.topic = "topic";
  return value_or_die(Producer::open(log.log(), std::move(options)));
}

// How many ns a record takes.
double send_all(Producer& producer, const std::string& value) {
  const auto begin = Clock::now();
  for (std::size_t i = 0; i < kRecords; ++i)
    if (!producer.send(value)) die(producer.error());
  return ns_since(begin) / kRecords;
}

// A send of a producer that numbers its records, and of one within a transaction, against a plain one of 64 B:
// ratios, and all in ns a record.
void send_numbered(benchmark::State& state) {
  const TemporaryLog log(".");
  check_or_die(Admin(log.log()).create_topic({.name = "topic", .configs = {{"storage", "memory"}}}));
  Producer plain = open_producer(log, {});
  Producer idempotent = open_producer(log, {.enable_idempotence = true});
  Producer transactional = open_producer(log, {.transactional_id = "bench"});
  const std::string value(64, 'x');
  std::vector<double> plain_ns, idempotent_ns, transactional_ns, idempotent_ratios, transactional_ratios;
  for (auto _ : state) {
    check_or_die(transactional.begin());
    plain_ns.push_back(send_all(plain, value));
    idempotent_ns.push_back(send_all(idempotent, value));
    transactional_ns.push_back(send_all(transactional, value));
    check_or_die(transactional.commit());
    idempotent_ratios.push_back(idempotent_ns.back() / plain_ns.back());
    transactional_ratios.push_back(transactional_ns.back() / plain_ns.back());
  }
  state.counters["plain_ns"] = median(plain_ns);
  state.counters["idempotent_ns"] = median(idempotent_ns);
  state.counters["transactional_ns"] = median(transactional_ns);
  state.counters["idempotent_ratio"] = median(idempotent_ratios);
  state.counters["transactional_ratio"] = median(transactional_ratios);
}
BENCHMARK(send_numbered)->MinTime(2);

// A transaction of so many records of 64 B in a disk topic: the time column has all of it, `commit_p50` and
// `commit_p99` (ns) what the commit waits, without and with `durable`.
void transaction(benchmark::State& state) {
  const TemporaryLog log(".");
  check_or_die(Admin(log.log()).create_topic({.name = "topic"}));
  Producer producer = open_producer(log, {.durable = state.range(1) != 0, .transactional_id = "bench"});
  const std::string value(64, 'x');
  const auto commits = std::make_unique<Histogram>();
  for (auto _ : state) {
    check_or_die(producer.begin());
    for (std::int64_t i = 0; i < state.range(0); ++i)
      if (!producer.send(value)) die(producer.error());
    const auto begin = Clock::now();
    check_or_die(producer.commit());
    commits->record(static_cast<std::uint64_t>(ns_since(begin)));
  }
  state.counters["commit_p50"] = static_cast<double>(commits->percentile(50));
  state.counters["commit_p99"] = static_cast<double>(commits->percentile(99));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(transaction)
    ->ArgNames({"records", "durable"})
    ->ArgsProduct({{1, kRecordsOfTransaction}, {0, 1}})
    ->MinTime(1)
    ->UseRealTime();

double drain(Consumer& consumer, std::size_t count) {
  const auto begin = Clock::now();
  for (std::size_t read = 0; read < count;) {
    const auto records = value_or_die(consumer.poll(std::chrono::seconds(1)));
    for (const Record& record : records) benchmark::DoNotOptimize(record.value.front());
    read += records.size();
  }
  return ns_since(begin) / static_cast<double>(count);
}

// A poll with read_committed against one with read_uncommitted, of records of 64 B outside of transactions or
// in transactions of 100: `ratio`, and both in ns a record.
void poll_of_committed(benchmark::State& state) {
  const TemporaryLog log(".");
  check_or_die(Admin(log.log()).create_topic({.name = "topic", .configs = {{"storage", "memory"}}}));
  const bool transactional = state.range(0) != 0;
  Producer producer = open_producer(log, {.transactional_id = transactional ? "bench" : ""});
  const auto reader = [&](IsolationLevel level) {
    auto consumer =
        value_or_die(Consumer::open(log.log(), {.wait = WaitStrategy::busy_spin, .isolation_level = level}));
    check_or_die(consumer.assign("topic"));
    return consumer;
  };
  Consumer uncommitted = reader(IsolationLevel::read_uncommitted);
  Consumer committed = reader(IsolationLevel::read_committed);
  const std::string value(64, 'x');
  std::vector<double> uncommitted_ns, committed_ns, ratios;
  bool committed_first = false;
  for (auto _ : state) {
    for (std::size_t i = 0; i < kRecords; ++i) {
      if (transactional && i % kRecordsOfTransaction == 0) check_or_die(producer.begin());
      if (!producer.send(value)) die(producer.error());
      if (transactional && i % kRecordsOfTransaction == kRecordsOfTransaction - 1)
        check_or_die(producer.commit());
    }
    if (committed_first) committed_ns.push_back(drain(committed, kRecords));
    uncommitted_ns.push_back(drain(uncommitted, kRecords));
    if (!committed_first) committed_ns.push_back(drain(committed, kRecords));
    committed_first = !committed_first;
    ratios.push_back(committed_ns.back() / uncommitted_ns.back());
  }
  state.counters["uncommitted_ns"] = median(uncommitted_ns);
  state.counters["committed_ns"] = median(committed_ns);
  state.counters["ratio"] = median(ratios);
}
BENCHMARK(poll_of_committed)->ArgName("transactional")->Arg(0)->Arg(1)->MinTime(2);

// What a producer with a producer_id does at its beginning, and when another epoch has begun: reads the last
// 64 MiB of a partition, here of records of so many bytes, in memory.
void recall(benchmark::State& state) {
  const TemporaryLog log(".");
  check_or_die(Admin(log.log()).create_topic(
      {.name = "topic", .configs = {{"storage", "memory"}, {"term.bytes", "32MiB"}, {"ring.terms", "4"}}}));
  const ProducerOptions options{.enable_idempotence = true, .producer_id = 7};
  const std::string value(static_cast<std::size_t>(state.range(0)), 'x');
  {
    Producer producer = open_producer(log, options);
    for (std::size_t bytes = 0; bytes < (64 << 20); bytes += value.size() + 56)
      if (!producer.send(value)) die(producer.error());
  }
  for (auto _ : state) benchmark::DoNotOptimize(open_producer(log, options).next_sequence(PartitionId(0)));
}
BENCHMARK(recall)->ArgName("bytes")->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace ringtail::bench
