// ringtail consume: prints records.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "base/clock.h"
#include "base/parse.h"
#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/record_format.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

struct ConsumeArguments {
  std::string topic;
  bool from_beginning = false;
  std::optional<std::int64_t> offset;
  std::string from_time;
  std::optional<std::uint32_t> partition;
  std::uint64_t max_messages = kUnlimited;
  bool exit_at_end = false;
  bool follow = false;
  std::string group;
  std::string client_id;
  std::string assignor = "cooperative-sticky";
  bool include = false;
  std::string max_poll_interval = "5m";
  std::string isolation_level{kReadUncommitted};
  std::string format;
  PrintOptions print;

  IsolationLevel isolation() const { return isolation_level_of(isolation_level); }
};

// One partition and the offset at which --exit-at-end is content with it.
struct Part {
  TopicPartition id;
  Offset end{kUnlimited};
};

// Prints the records of the assigned partitions until it has all that was asked for.
class RecordPrinter {
 public:
  // `parts` may change while it runs; `settled` says whether they are what they are going to be.
  RecordPrinter(Consumer& consumer, const std::vector<Part>& parts, RecordFormat format,
                const ConsumeArguments& arguments, std::function<bool()> settled = {})
      : consumer_(consumer),
        parts_(parts),
        format_(std::move(format)),
        limit_(arguments.max_messages),
        isolation_(arguments.isolation()),
        prompt_(!arguments.group.empty()),
        exit_at_end_(arguments.exit_at_end),
        settled_(std::move(settled)) {}

  // What was printed before a failure is written all the same.
  // Errors: those of Consumer::poll, Consumer::seek and BlockWriter::flush.
  Status run() {
    const Status read = read_on();
    const Status flushed = out_.flush();
    return read ? flushed : read;
  }

  std::uint64_t printed() const { return printed_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  Status read_on() {
    while (printed_ < limit_ && !interrupt::pending()) {
      const Result<std::span<const Record>> records = consumer_.poll(idle_ ? 100ms : 0ms);
      if (!records) return std::unexpected(records.error());
      idle_ = records->empty();
      // Noted before print, whose seek ends the records' life.
      std::optional<std::pair<TopicPartition, Offset>> first;
      if (prompt_ && !idle_) first.emplace(*records->front().source, records->front().offset);
      const Status printed = print(*records);
      const Status flushed = idle_ || prompt_ || !printed ? out_.flush() : out_.flush_if_large();
      if (!printed || !flushed) {
        // What nobody may have got is given back, too: it comes again rather than never.
        if (first) std::ignore = consumer_.seek(first->first, first->second);
        return printed ? flushed : printed;
      }
      if (idle_ && at_end()) break;
    }
    return {};
  }

  // What a poll brought and is not printed is given back: for a group, it has not been read.
  Status print(std::span<const Record> records) {
    if (records.empty()) return {};
    const Offset end = end_of(*records.front().source);
    // A steady stream of new records must not keep --exit-at-end from ending.
    if (records.back().offset + 1 >= end) idle_ = true;
    for (const Record& record : records) {
      if (record.offset >= end || printed_ == limit_) return consumer_.seek(*record.source, record.offset);
      format_.append(out_.buffer(), record);
      ++printed_;
      bytes_ += record.key.size() + record.value.size();
    }
    return {};
  }

  Offset end_of(const TopicPartition& id) const {
    const auto part = std::ranges::find(parts_, id, &Part::id);
    return part == parts_.end() ? Offset(kUnlimited) : part->end;
  }

  bool at_end() const {
    // A member without partitions is not at their end: it waits for some.
    if (!exit_at_end_ || (settled_ && !settled_())) return false;
    return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) {
      if (part.end == Offset(kUnlimited)) return false;
      const Result<Offset> position = consumer_.position(part.id);
      if (position && *position >= part.end) return true;
      // What stands behind an open transaction is not there yet for who reads committed records.
      if (isolation_ == IsolationLevel::read_uncommitted) return false;
      const Result<Offset> stable = consumer_.last_stable_offset(part.id);
      return position && stable && *stable <= *position;
    });
  }

  Consumer& consumer_;
  const std::vector<Part>& parts_;
  RecordFormat format_;
  std::uint64_t limit_;
  IsolationLevel isolation_;
  bool prompt_;  // what the next poll may commit is to be written before
  bool exit_at_end_;
  std::function<bool()> settled_;
  BlockWriter out_;
  std::uint64_t printed_ = 0;
  std::uint64_t bytes_ = 0;
  bool idle_ = false;
};

// The partitions to read. Errors: invalid_argument for a partition that the topic does not have.
Result<std::vector<Part>> choose_partitions(const TopicDescription& topic,
                                            const ConsumeArguments& arguments) {
  if (arguments.partition && *arguments.partition >= topic.partitions.size()) {
    return fail(Code::invalid_argument,
                fmt::format("topic '{}' has no partition {}; its partitions are 0 to {}", topic.name,
                            *arguments.partition, topic.partitions.size() - 1));
  }
  std::vector<Part> parts;
  for (const PartitionDescription& description : topic.partitions) {
    if (arguments.partition && description.partition != PartitionId(*arguments.partition)) continue;
    parts.push_back({{topic.name, description.partition}});
  }
  return parts;
}

// The offset --offset means for one partition: counted from the log end when it is negative.
Result<Offset> resolve_offset(const PartitionDescription& p, std::string_view topic, std::int64_t offset) {
  const std::uint64_t start = p.log_start_offset.value();
  const std::uint64_t end = p.log_end_offset.value();
  if (offset < 0) {
    const std::uint64_t back = std::min(end - start, static_cast<std::uint64_t>(-(offset + 1)) + 1);
    return Offset(end - back);
  }
  const auto wanted = static_cast<std::uint64_t>(offset);
  if (wanted < start || wanted > end) {
    return fail(Code::offset_out_of_range,
                fmt::format("offset {} is outside partition {} of topic '{}', which goes from {} to {}",
                            offset, p.partition.value(), topic, start, end));
  }
  return Offset(wanted);
}

Status seek(Consumer& consumer, const Part& part, const TopicDescription& topic,
            const ConsumeArguments& arguments, std::int64_t from_time_ns) {
  if (arguments.from_beginning) return consumer.seek_to_beginning(part.id);
  if (!arguments.from_time.empty()) return consumer.seek_to_time(part.id, from_time_ns);
  if (!arguments.offset) return consumer.seek_to_end(part.id);
  const PartitionDescription& description = topic.partitions[part.id.partition.value()];
  const Result<Offset> offset = resolve_offset(description, topic.name, *arguments.offset);
  if (!offset) return std::unexpected(offset.error());
  return consumer.seek(part.id, *offset);
}

// Assigns and seeks; notes where each partition ends now, for --exit-at-end.
Status position(Consumer& consumer, std::vector<Part>& parts, const TopicDescription& topic,
                const ConsumeArguments& arguments) {
  std::int64_t from_time_ns = 0;
  if (!arguments.from_time.empty()) {
    const Result<std::int64_t> time = parse_time(arguments.from_time, wall_clock_ns());
    if (!time) return std::unexpected(time.error());
    from_time_ns = *time;
  }
  std::vector<TopicPartition> ids;
  for (const Part& part : parts) ids.push_back(part.id);
  if (const Status assigned = consumer.assign(ids); !assigned) return assigned;
  for (Part& part : parts) {
    if (const Status sought = seek(consumer, part, topic, arguments, from_time_ns); !sought) return sought;
    if (!arguments.exit_at_end) continue;
    const Result<Offset> end = consumer.end_offset(part.id);
    if (!end) return std::unexpected(end.error());
    part.end = *end;
  }
  return {};
}

Result<RecordFormat> make_format(const GlobalOptions& options, const ConsumeArguments& arguments,
                                 const TopicDescription* topic) {
  const PrintOptions& print = arguments.print;
  if (!arguments.format.empty() && (print.key || print.offset || print.timestamp || print.headers)) {
    return fail(Code::invalid_argument, "--format says all there is to print; leave the --print options out");
  }
  if (arguments.format == "json" || (arguments.format.empty() && options.json)) return RecordFormat::json();
  if (!arguments.format.empty()) return RecordFormat::parse(arguments.format);
  const bool append_time = topic != nullptr && topic->configs.at("message.timestamp.type") == "LogAppendTime";
  return RecordFormat::console(print, append_time);
}

// Runs the printer and says how it went.
int run(const GlobalOptions& options, Consumer& consumer, RecordPrinter& printer) {
  const auto start = std::chrono::steady_clock::now();
  const Status done = printer.run();
  if (options.verbosity > 0) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    note(options, fmt::format("{} records, {}, {:.3f} s", grouped(printer.printed()),
                              human_bytes(printer.bytes()), elapsed.count()));
  }
  note_missed(options, consumer.missed());
  if (interrupt::pending()) return interrupt::exit_code();
  const bool reader_left = !done && done.error().os_errno == EPIPE;
  return done || reader_left ? kDone : report(options, done.error());
}

int consume_alone(const GlobalOptions& options, const ConsumeArguments& arguments, const Log& log) {
  const Result<TopicDescription> topic = Admin(log).describe_topic(arguments.topic);
  if (!topic) return report(options, topic.error());
  Result<RecordFormat> format = make_format(options, arguments, &*topic);
  if (!format) return report(options, format.error());
  Result<std::vector<Part>> parts = choose_partitions(*topic, arguments);
  if (!parts) return report(options, parts.error());
  Result<Consumer> consumer = Consumer::open(log, ConsumerOptions{.isolation_level = arguments.isolation()});
  if (!consumer) return report(options, consumer.error());
  if (const Status ready = position(*consumer, *parts, *topic, arguments); !ready) {
    return report(options, ready.error());
  }
  RecordPrinter printer(*consumer, *parts, std::move(*format), arguments);
  return run(options, *consumer, printer);
}

// --- In a group ----------------------------------------------------------------------------------

Result<ConsumerOptions> group_options(const ConsumeArguments& arguments) {
  ConsumerOptions consumer{.group_id = arguments.group,
                           .client_id = arguments.client_id,
                           .assignor = find_assignor(arguments.assignor).value()};  // one of the choices
  consumer.isolation_level = arguments.isolation();
  const auto interval = parse_duration(arguments.max_poll_interval);
  if (!interval) return std::unexpected(interval.error());
  consumer.max_poll_interval = std::chrono::duration_cast<std::chrono::milliseconds>(*interval);
  consumer.auto_offset_reset = ConsumerOptions::Reset::latest;
  if (arguments.from_beginning) consumer.auto_offset_reset = ConsumerOptions::Reset::earliest;
  if (!arguments.from_time.empty()) {
    const Result<std::int64_t> time = parse_time(arguments.from_time, wall_clock_ns());
    if (!time) return std::unexpected(time.error());
    consumer.auto_offset_reset = ConsumerOptions::Reset::time;
    consumer.auto_offset_reset_time_ns = *time;
  }
  return consumer;
}

// Keeps `parts` what the group assigns. Says what was lost, and with -v all else.
RebalanceListener listen(const GlobalOptions& options, const ConsumeArguments& arguments, Consumer& consumer,
                         std::vector<Part>& parts) {
  const auto tell = [&options, &arguments](std::string_view what,
                                           std::span<const TopicPartition> partitions) {
    if (options.verbosity == 0 && what != "lost") return;
    std::string names;
    for (const TopicPartition& one : partitions)
      names += fmt::format("{}{}-{}", names.empty() ? "" : ", ", one.topic, one.partition.value());
    note(options, fmt::format("group '{}': {} {}", arguments.group, what, names));
  };
  const auto forget = [&parts](std::span<const TopicPartition> partitions) {
    std::erase_if(
        parts, [&](const Part& part) { return std::ranges::find(partitions, part.id) != partitions.end(); });
  };
  return {.assigned =
              [=, &arguments, &consumer, &parts](std::span<const TopicPartition> partitions) {
                tell("assigned", partitions);
                for (const TopicPartition& partition : partitions) {
                  const Result<Offset> end = consumer.end_offset(partition);
                  parts.push_back({partition, arguments.exit_at_end && end ? *end : Offset(kUnlimited)});
                }
              },
          .revoked =
              [=](std::span<const TopicPartition> partitions) {
                tell("revoked", partitions);
                forget(partitions);
              },
          .lost =
              [=](std::span<const TopicPartition> partitions) {
                tell("lost", partitions);
                forget(partitions);
              }};
}

int consume_in_group(const GlobalOptions& options, const ConsumeArguments& arguments, const Log& log) {
  Result<RecordFormat> format = make_format(options, arguments, nullptr);
  if (!format) return report(options, format.error());
  Result<ConsumerOptions> consumer_options = group_options(arguments);
  if (!consumer_options) return report(options, consumer_options.error());
  if (!arguments.include) {
    if (const auto topic = Admin(log).describe_topic(arguments.topic); !topic)
      return report(options, topic.error());
  }
  Result<Consumer> consumer = Consumer::open(log, std::move(*consumer_options));
  if (!consumer) return report(options, consumer.error());
  std::vector<Part> parts;
  RebalanceListener listener = listen(options, arguments, *consumer, parts);
  const Status joined = arguments.include ? consumer->subscribe_pattern(arguments.topic, std::move(listener))
                                          : consumer->subscribe(arguments.topic, std::move(listener));
  if (!joined) return report(options, joined.error());
  const auto settled = [&] {
    const Result<GroupDescription> group = Admin(log).describe_group(arguments.group);
    if (!group || group->state != GroupState::stable) return false;
    // What was granted a moment ago, the next poll takes up.
    const auto me =
        std::ranges::find(group->members, consumer->group_metadata().member_id, &GroupMemberDescription::id);
    return me != group->members.end() && me->partitions.size() == consumer->assignment().size();
  };
  RecordPrinter printer(*consumer, parts, std::move(*format), arguments, settled);
  const int code = run(options, *consumer, printer);
  if (const Status left = consumer->unsubscribe(); !left) return report(options, left.error());
  return code;
}

int consume(const GlobalOptions& options, const ConsumeArguments& arguments) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  return arguments.group.empty() ? consume_alone(options, arguments, *log)
                                 : consume_in_group(options, arguments, *log);
}

}  // namespace

void add_consume(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ConsumeArguments>();
  CLI::App* command = root.add_subcommand("consume", "Print records, from the end on if not told otherwise");
  command->add_option("TOPIC", arguments->topic, "The topic")->required()->type_name("");
  CLI::Option* beginning =
      command->add_flag("--from-beginning", arguments->from_beginning, "Start at the log start offset");
  CLI::Option* offset = command->add_option("--offset", arguments->offset,
                                            "Start at this offset; negative: so many before the log end");
  offset->check(signed_number())->type_name("N")->excludes(beginning);
  command
      ->add_option("--from-time", arguments->from_time,
                   "Start at the first record of this time or later: RFC 3339, epoch, or -5m")
      ->type_name("TIME")
      ->excludes(beginning)
      ->excludes(offset);
  CLI::Option* partition =
      command->add_option("--partition", arguments->partition, "Read this partition only")
          ->check(whole_number())
          ->type_name("N");
  CLI::Option* group =
      command
          ->add_option("--group", arguments->group,
                       "Read as a member of this consumer group, from its committed offsets; where it has "
                       "none, from where the other options say")
          ->type_name("GROUP")
          ->excludes(offset)
          ->excludes(partition);
  command->add_option("--client-id", arguments->client_id, "A name for this member")
      ->type_name("ID")
      ->needs(group);
  command
      ->add_option("--assignor", arguments->assignor,
                   "Who shares out the partitions; the same in all members")
      ->check(CLI::IsMember({"range", "roundrobin", "cooperative-sticky"}))
      ->capture_default_str()
      ->needs(group);
  command
      ->add_flag("--include", arguments->include, "TOPIC is an extended regular expression: all that match")
      ->needs(group);
  command
      ->add_option("--max-poll-interval", arguments->max_poll_interval,
                   "Without a sign of life for so long (stopped, or nobody takes the output), this member's "
                   "partitions go to others")
      ->type_name("DURATION")
      ->capture_default_str()
      ->needs(group);
  command->add_option("--max-messages", arguments->max_messages, "Stop after N records")
      ->check(whole_number())
      ->type_name("N");
  CLI::Option* end = command->add_flag("--exit-at-end", arguments->exit_at_end,
                                       "Stop at the log end offsets as they are at the start");
  command->add_flag("--follow", arguments->follow, "Wait for new records (the default)")->excludes(end);
  command
      ->add_option("--isolation-level", arguments->isolation_level,
                   "Of transactions: read_committed leaves out what was not committed")
      ->check(CLI::IsMember({std::string(kReadUncommitted), std::string(kReadCommitted)}))
      ->capture_default_str();
  command->add_option("--format", arguments->format, "How to print a record: 'json', or text with escapes")
      ->type_name("FMT");
  command->add_flag("--print-timestamp", arguments->print.timestamp, "Put CreateTime:<ns> before the value");
  command->add_flag("--print-offset", arguments->print.offset, "Put Offset:<n> before the value");
  command->add_flag("--print-headers", arguments->print.headers, "Put the headers before the value");
  command->add_flag("--print-key", arguments->print.key, "Put the key before the value");
  command->footer(
      "Formats:\n" + std::string(kFormatHelp) +
      "\njson (also by --json) prints one object a line; a key or value that is not UTF-8 becomes "
      "key_base64, value_base64.\n\n"
      "Example:\n  ringtail consume orders --from-time -5m --exit-at-end --format '%p/%o %I %k=%s\\n'\n"
      "  ringtail -v consume orders --group billing --from-beginning");
  command->callback([&options, &exit_code, arguments] { exit_code = consume(options, *arguments); });
}

}  // namespace ringtail::tools
