// ringtail replay: publishes a recorded log again, with its original spacing.
#include <fmt/format.h>
#include <sys/prctl.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/parse.h"
#include "tools/commands.h"
#include "tools/output.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

struct ReplayArguments {
  std::string topic;
  std::string speed = "1";
  std::string from_time;
  std::string to_time;
  std::string isolation_level{kReadUncommitted};
  std::string to;
};

// When each record is due. Time never runs backwards: a record older than its predecessor is due with
// it.
class Schedule {
 public:
  explicit Schedule(double speed) : speed_(speed) {}

  // The instant at which a record of this time is due, on the monotonic clock.
  std::int64_t due_ns(std::int64_t timestamp_ns) {
    if (start_ns_ == 0) {
      start_ns_ = monotonic_ns();
      first_ns_ = last_ns_ = timestamp_ns;
    }
    last_ns_ = std::max(last_ns_, timestamp_ns);
    return start_ns_ + static_cast<std::int64_t>(static_cast<double>(last_ns_ - first_ns_) / speed_);
  }

  std::int64_t span_ns() const { return last_ns_ - first_ns_; }
  std::int64_t elapsed_ns() const { return start_ns_ == 0 ? 0 : monotonic_ns() - start_ns_; }

 private:
  double speed_;
  std::int64_t start_ns_ = 0;
  std::int64_t first_ns_ = 0;
  std::int64_t last_ns_ = 0;
};

// Sleeps, then spins: waking up takes the kernel some tens of microseconds. False when a signal came.
bool wait_until(std::int64_t due_ns) {
  constexpr std::int64_t kSpinNs = 150'000;
  while (!interrupt::pending()) {
    const std::int64_t left_ns = due_ns - monotonic_ns();
    if (left_ns <= 0) return true;
    if (left_ns > kSpinNs) interrupt::wait(-1, std::chrono::nanoseconds(left_ns - kSpinNs));
  }
  return false;
}

struct Outcome {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  std::uint64_t missed = 0;  // gone before they were read
  std::int64_t span_ns = 0;
  std::int64_t elapsed_ns = 0;
  std::unique_ptr<Histogram> late_ns = std::make_unique<Histogram>();  // too large for a stack
};

// Plays everything. A record counts as late by the time from when it was due until it was committed.
Status play(ReplaySource& source, Producer& producer, double speed, Outcome& outcome) {
  const bool paced = std::isfinite(speed);
  Schedule schedule(speed);
  std::vector<Header> headers;
  Status status;
  while (true) {
    const Result<const Record*> next = source.next();
    if (!next) {
      status = std::unexpected(next.error());
      break;
    }
    if (*next == nullptr) break;
    const Record& record = **next;
    headers.assign(record.headers.begin(), record.headers.end());
    const std::int64_t due_ns = schedule.due_ns(record.timestamp_ns);
    if (paced ? !wait_until(due_ns) : interrupt::pending()) break;
    const ProducerRecord sent{record.key, record.value, headers, record.source->partition,
                              record.timestamp_ns};
    if (!producer.send(sent)) {
      status = std::unexpected(producer.error());
      break;
    }
    if (paced)
      outcome.late_ns->record(static_cast<std::uint64_t>(std::max<std::int64_t>(monotonic_ns() - due_ns, 0)));
    ++outcome.records;
    outcome.bytes += record.key.size() + record.value.size();
  }
  outcome.missed = source.missed();
  outcome.span_ns = schedule.span_ns();
  outcome.elapsed_ns = schedule.elapsed_ns();
  return status;
}

// Creates the target like its source, when it is missing; timestamps are kept in any case, and records
// of the past are not to fall to the retention.
Result<TopicDescription> ensure_target(const Log& log, const TopicDescription& source,
                                       const std::string& name) {
  Admin admin(log);
  Result<TopicDescription> target = admin.describe_topic(name);
  if (!target && target.error().code == Code::not_found) {
    TopicSpec spec{name, static_cast<std::uint32_t>(source.partitions.size()), source.overrides};
    spec.configs.erase("message.timestamp.type");
    spec.configs.insert_or_assign("retention.ms", "-1");
    if (const Status created = admin.create_topic(spec); !created) return std::unexpected(created.error());
    target = admin.describe_topic(name);
  }
  if (target && target->partitions.size() < source.partitions.size()) {
    return fail(
        Code::invalid_argument,
        fmt::format("topic '{}' has {} partitions, '{}' has {}; records keep their partition, so choose "
                    "a topic with at least as many",
                    name, target->partitions.size(), source.name, source.partitions.size()));
  }
  if (target && target->configs.at("message.timestamp.type") == "LogAppendTime") {
    return fail(
        Code::invalid_argument,
        fmt::format("topic '{}' has message.timestamp.type=LogAppendTime, with which records would lose "
                    "their timestamps; choose another topic with --to, or one that does not exist yet",
                    name));
  }
  return target;
}

constexpr double kReported[] = {50, 90, 99, 99.9, 99.99};
constexpr std::string_view kReportedNames[] = {"p50", "p90", "p99", "p99_9", "p99_99"};

std::string to_json(const ReplayArguments& arguments, const Outcome& outcome, bool paced) {
  nlohmann::json object = {{"topic", arguments.topic},       {"to", arguments.to},
                           {"speed", arguments.speed},       {"records", outcome.records},
                           {"bytes", outcome.bytes},         {"missed", outcome.missed},
                           {"recorded_ns", outcome.span_ns}, {"elapsed_ns", outcome.elapsed_ns}};
  if (paced) {
    nlohmann::json& late = object["late_ns"];
    late["min"] = outcome.late_ns->min();
    for (std::size_t i = 0; i < std::size(kReported); ++i) {
      late[std::string(kReportedNames[i])] = outcome.late_ns->percentile(kReported[i]);
    }
    late["max"] = outcome.late_ns->max();
  }
  return object.dump() + "\n";
}

std::string to_text(const ReplayArguments& arguments, const Outcome& outcome, bool paced) {
  const double seconds = static_cast<double>(outcome.elapsed_ns) / 1e9;
  const double rate = seconds > 0 ? static_cast<double>(outcome.records) / seconds : 0;
  std::string text = fmt::format(
      "replayed {} records, {}, from '{}' to '{}'\n{} as recorded, {} at speed {}, {} records/s\n",
      grouped(outcome.records), human_bytes(outcome.bytes), arguments.topic, arguments.to,
      human_nanoseconds(static_cast<std::uint64_t>(outcome.span_ns)),
      human_nanoseconds(static_cast<std::uint64_t>(outcome.elapsed_ns)), arguments.speed,
      grouped(static_cast<std::uint64_t>(rate)));
  if (!paced) return text;
  const Histogram& late = *outcome.late_ns;
  Table table({"behind schedule", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"});
  std::vector<std::string> row = {"", human_nanoseconds(late.min())};
  for (const double percent : kReported) row.push_back(human_nanoseconds(late.percentile(percent)));
  row.push_back(human_nanoseconds(late.max()));
  table.add(std::move(row));
  return text + table.text();
}

// Infinity for "max". Errors: invalid_argument.
Result<double> parse_speed(const std::string& text) {
  if (text == "max") return INFINITY;
  char* end = nullptr;
  const double speed = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || *end != '\0' || !std::isfinite(speed) || speed <= 0) {
    return fail(Code::invalid_argument,
                fmt::format("--speed '{}' is neither 'max' nor a number above 0", text));
  }
  return speed;
}

Result<TimeRange> parse_range(const ReplayArguments& arguments) {
  const std::int64_t now_ns = wall_clock_ns();
  TimeRange range;
  if (!arguments.from_time.empty()) {
    const Result<std::int64_t> time = parse_time(arguments.from_time, now_ns);
    if (!time) return std::unexpected(time.error());
    range.from_ns = *time;
  }
  if (!arguments.to_time.empty()) {
    const Result<std::int64_t> time = parse_time(arguments.to_time, now_ns);
    if (!time) return std::unexpected(time.error());
    range.to_ns = *time;
  }
  return range;
}

int replay(const GlobalOptions& options, ReplayArguments arguments) {
  if (arguments.to.empty()) arguments.to = arguments.topic + "-replay";
  if (arguments.to == arguments.topic) {
    return report_usage(options, "--to names the topic that is replayed; choose another one");
  }
  const Result<double> speed = parse_speed(arguments.speed);
  if (!speed) return report(options, speed.error());
  const Result<TimeRange> range = parse_range(arguments);
  if (!range) return report(options, range.error());
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  const Result<TopicDescription> topic = Admin(*log).describe_topic(arguments.topic);
  if (!topic) return report(options, topic.error());
  const Result<TopicDescription> target = ensure_target(*log, *topic, arguments.to);
  if (!target) return report(options, target.error());
  Result<ReplaySource> source =
      ReplaySource::open(*log, *topic, *range, isolation_level_of(arguments.isolation_level));
  if (!source) return report(options, source.error());
  ProducerOptions producer_options;
  producer_options.topic = arguments.to;
  Result<Producer> producer = Producer::open(*log, std::move(producer_options));
  if (!producer) return report(options, producer.error());

  ::prctl(PR_SET_TIMERSLACK, 1UL);  // the default lets the kernel oversleep by 50 us
  Outcome outcome;
  const bool paced = std::isfinite(*speed);
  Status status = play(*source, *producer, *speed, outcome);
  note_missed(options, outcome.missed);
  const bool on_disk = target->configs.at("storage") != "memory";
  if (status && on_disk && outcome.records > 0 && !producer->flush())
    status = std::unexpected(producer->error());
  if (!status) return report(options, status.error());
  const Status printed =
      print(options.json ? to_json(arguments, outcome, paced) : to_text(arguments, outcome, paced));
  if (interrupt::pending()) return interrupt::exit_code();
  return printed || printed.error().code == Code::closed ? kDone : report(options, printed.error());
}

}  // namespace

void add_replay(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ReplayArguments>();
  CLI::App* command =
      root.add_subcommand("replay", "Publish a recorded topic again, with its original spacing");
  command->add_option("TOPIC", arguments->topic, "The recorded topic")->required()->type_name("");
  command->add_option("--speed", arguments->speed, "Divide the spacing by N; max: as fast as possible")
      ->type_name("N|max")
      ->capture_default_str();
  command->add_option("--from-time", arguments->from_time, "Play records of this time and later")
      ->type_name("TIME");
  command->add_option("--to-time", arguments->to_time, "Play records of this time and earlier")
      ->type_name("TIME");
  command
      ->add_option("--isolation-level", arguments->isolation_level,
                   "Of transactions: read_committed leaves out what was not committed")
      ->check(CLI::IsMember({std::string(kReadUncommitted), std::string(kReadCommitted)}))
      ->capture_default_str();
  command->add_option("--to", arguments->to, "The topic to publish to; TOPIC-replay when not given")
      ->type_name("TOPIC");
  command->footer(
      "Partitions are merged by timestamp. Records keep key, value, headers, timestamp and partition. A "
      "target\n"
      "that is missing is created with the source's partitions and configurations, and retention.ms=-1; one "
      "with\n"
      "message.timestamp.type=LogAppendTime, which would change the timestamps, is refused. Plays\n"
      "what is in the log at the start, returns when all of it is synced, and reports how long after its "
      "due\n"
      "time each record was committed. With --isolation-level read_committed a partition ends in front of "
      "a\n"
      "transaction that is open when all before it has been played.\n\n"
      "Example:\n  ringtail replay trades --speed 100 --from-time 2025-07-17T14:30:00Z --to trades-lab");
  command->callback([&options, &exit_code, arguments] { exit_code = replay(options, *arguments); });
}

}  // namespace ringtail::tools
