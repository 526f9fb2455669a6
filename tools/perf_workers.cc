#include "tools/perf_workers.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tools/perf_attach.h"
#include "tools/perf_sender.h"

namespace ringtail::tools::perf {
namespace {

constexpr std::uint64_t kStop = ~std::uint64_t{0};  // a stamp that ends the echo

// Sends one stamp and waits for its return.
Status round_trip(Sender& sender, Consumer& replies, std::uint64_t stamp) {
  sender.stamp(0, stamp);
  if (!sender.send()) return sender.failure();
  const auto records = next_records(replies);
  if (!records) return std::unexpected(records.error());
  if (records->size() == 1 && stamp_of(records->front()) == stamp) return {};
  return fail(Code::corrupt, "the answer is not the record that was sent; this is a bug of Ringtail");
}

}  // namespace

Status run_keeper(const RunContext& run) {
  LogOptions log_options;
  log_options.dir = run.dir;
  log_options.keeper_cpu = run.options.keeper_cpu;
  const auto log = Log::open(std::move(log_options));
  if (!log) return std::unexpected(log.error());
  const std::string id = log->id();
  std::copy_n(id.data(), std::min(id.size(), run.shared.log_id.size() - 1), run.shared.log_id.data());

  Admin admin(*log);
  TopicConfigs configs = run.options.configs;
  configs["storage"] = run.options.storage;
  std::vector<std::string> topics{run.topic};
  if (run.options.method == Method::ping_pong) topics.push_back(run.reply_topic);
  for (const std::string& topic : topics) {
    const TopicSpec spec{.name = topic, .partitions = 1, .configs = configs};
    if (const Status created = admin.create_topic(spec); !created) return created;
  }
  run.shared.topics_ready.open();
  run.shared.finish.wait();

  const auto described = admin.describe_topic(run.topic);
  if (!described) return std::unexpected(described.error());
  const PartitionDescription& partition = described->partitions.front();
  if (const std::uint64_t records = partition.log_end_offset.value(); records > 0) {
    const auto bytes = static_cast<double>(partition.log_end_position.value());
    run.shared.log_bytes_per_record = bytes / static_cast<double>(records);
  }
  for (const std::string& topic : topics) {
    if (const Status deleted = admin.delete_topic(topic); !deleted) return deleted;
  }
  return {};
}

Status run_pinger(const RunContext& run) {
  const auto log = attach(run, run.options.producer_cpu(0));
  if (!log) return std::unexpected(log.error());
  auto replies = open_consumer(run, *log, run.reply_topic);
  if (!replies) return std::unexpected(replies.error());
  auto sender = Sender::open(*log, run.topic, run.options);
  if (!sender) return std::unexpected(sender.error());
  wait_for_start(run);

  const double warmup_ns = run.options.warmup_seconds * 1e9;
  const std::uint64_t warm =
      std::isfinite(warmup_ns) ? run.clock.now() + run.clock.from_ns(warmup_ns) : ~std::uint64_t{0};
  for (std::uint64_t i = 1; i <= run.options.warmup && run.clock.now() < warm; ++i) {
    if (const Status done = round_trip(*sender, *replies, i); !done) return done;
  }
  const std::uint64_t count = run.options.count > 0 ? run.options.count : ~std::uint64_t{0};
  const std::uint64_t begin = run.clock.now();
  const std::uint64_t deadline =
      run.options.count > 0 ? ~std::uint64_t{0} : begin + run.clock.from_ns(run.options.seconds * 1e9);
  std::uint64_t trips = 0;
  std::uint64_t end = begin;
  while (trips < count && end < deadline) {
    const std::uint64_t sent = run.clock.now();
    if (const Status done = round_trip(*sender, *replies, sent); !done) return done;
    end = run.clock.now_when_done();
    run.shared.latency_ns.record(run.clock.ns_between(sent, end));
    run.shared.progress.store(++trips, std::memory_order_relaxed);
  }
  run.shared.producers[0].first_ticks = begin;
  run.shared.last_ticks = end;
  run.shared.records = trips;
  sender->stamp(0, kStop);
  return sender->send() ? Status() : sender->failure();
}

Status run_echo(const RunContext& run) {
  const auto log = attach(run, run.options.consumer_cpu());
  if (!log) return std::unexpected(log.error());
  auto requests = open_consumer(run, *log, run.topic);
  if (!requests) return std::unexpected(requests.error());
  auto sender = Sender::open(*log, run.reply_topic, run.options);
  if (!sender) return std::unexpected(sender.error());
  wait_for_start(run);

  for (;;) {
    const auto records = next_records(*requests);
    if (!records) return std::unexpected(records.error());
    for (const Record& record : *records) {
      const std::uint64_t stamp = stamp_of(record);
      if (stamp == kStop) return {};
      sender->stamp(0, stamp);
      if (!sender->send()) return sender->failure();
    }
  }
}

}  // namespace ringtail::tools::perf
