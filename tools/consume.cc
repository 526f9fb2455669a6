// ringtail consume: prints records.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>

#include "base/clock.h"
#include "base/parse.h"
#include "tools/commands.h"
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
  std::string format;
  PrintOptions print;
};

// One partition and the offset at which --exit-at-end is content with it.
struct Part {
  TopicPartition id;
  Offset end{kUnlimited};
};

// Prints the records of the assigned partitions until it has all that was asked for.
class RecordPrinter {
 public:
  RecordPrinter(Consumer& consumer, std::vector<Part> parts, RecordFormat format, std::uint64_t limit)
      : consumer_(consumer), parts_(std::move(parts)), format_(std::move(format)), limit_(limit) {}

  // Errors: those of Consumer::poll and BlockWriter::flush.
  Status run() {
    while (printed_ < limit_ && !interrupt::pending()) {
      const Result<std::span<const Record>> records = consumer_.poll(idle_ ? 100ms : 0ms);
      if (!records) return std::unexpected(records.error());
      idle_ = records->empty();
      print(*records);
      if (const Status flushed = idle_ ? out_.flush() : out_.flush_if_large(); !flushed) return flushed;
      if (idle_ && at_end()) break;
    }
    return out_.flush();
  }

  std::uint64_t printed() const { return printed_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  void print(std::span<const Record> records) {
    if (records.empty()) return;
    const Offset end = end_of(*records.front().source);
    for (const Record& record : records) {
      if (record.offset >= end || printed_ == limit_) return;
      format_.append(out_.buffer(), record);
      ++printed_;
      bytes_ += record.key.size() + record.value.size();
    }
    // A steady stream of new records must not keep --exit-at-end from ending.
    if (records.back().offset + 1 >= end) idle_ = true;
  }

  Offset end_of(const TopicPartition& id) const {
    return std::find_if(parts_.begin(), parts_.end(), [&](const Part& part) { return part.id == id; })->end;
  }

  bool at_end() const {
    return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) {
      if (part.end == Offset(kUnlimited)) return false;
      const Result<Offset> position = consumer_.position(part.id);
      return position && *position >= part.end;
    });
  }

  Consumer& consumer_;
  std::vector<Part> parts_;
  RecordFormat format_;
  std::uint64_t limit_;
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
                                 const TopicDescription& topic) {
  const PrintOptions& print = arguments.print;
  if (!arguments.format.empty() && (print.key || print.offset || print.timestamp || print.headers)) {
    return fail(Code::invalid_argument, "--format says all there is to print; leave the --print options out");
  }
  if (arguments.format == "json" || (arguments.format.empty() && options.json)) return RecordFormat::json();
  if (!arguments.format.empty()) return RecordFormat::parse(arguments.format);
  const auto type = topic.configs.find("message.timestamp.type");
  return RecordFormat::console(print, type != topic.configs.end() && type->second == "LogAppendTime");
}

int consume(const GlobalOptions& options, const ConsumeArguments& arguments) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  const Result<TopicDescription> topic = Admin(*log).describe_topic(arguments.topic);
  if (!topic) return report(options, topic.error());
  Result<RecordFormat> format = make_format(options, arguments, *topic);
  if (!format) return report(options, format.error());
  Result<std::vector<Part>> parts = choose_partitions(*topic, arguments);
  if (!parts) return report(options, parts.error());
  Result<Consumer> consumer = Consumer::open(*log);
  if (!consumer) return report(options, consumer.error());
  if (const Status ready = position(*consumer, *parts, *topic, arguments); !ready) {
    return report(options, ready.error());
  }

  const auto start = std::chrono::steady_clock::now();
  RecordPrinter printer(*consumer, std::move(*parts), std::move(*format), arguments.max_messages);
  const Status done = printer.run();
  if (options.verbosity > 0) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    note(fmt::format("{} records, {}, {:.3f} s", grouped(printer.printed()), human_bytes(printer.bytes()),
                     elapsed.count()));
  }
  if (const std::uint64_t missed = consumer->missed(); missed > 0) {
    note(fmt::format("missed {} records that were overwritten or deleted before they were read",
                     grouped(missed)));
  }
  if (interrupt::pending()) return interrupt::exit_code();
  const bool reader_left = !done && done.error().os_errno == EPIPE;
  return done || reader_left ? kDone : report(options, done.error());
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
  offset->type_name("N")->excludes(beginning);
  command
      ->add_option("--from-time", arguments->from_time,
                   "Start at the first record of this time or later: RFC 3339, epoch, or -5m")
      ->type_name("TIME")
      ->excludes(beginning)
      ->excludes(offset);
  command->add_option("--partition", arguments->partition, "Read this partition only")->type_name("N");
  command->add_option("--max-messages", arguments->max_messages, "Stop after N records")->type_name("N");
  CLI::Option* end = command->add_flag("--exit-at-end", arguments->exit_at_end,
                                       "Stop at the log end offsets as they are at the start");
  command->add_flag("--follow", arguments->follow, "Wait for new records (the default)")->excludes(end);
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
      "Example:\n  ringtail consume orders --from-time -5m --exit-at-end --format '%p/%o %I %k=%s\\n'");
  command->callback([&options, &exit_code, arguments] { exit_code = consume(options, *arguments); });
}

}  // namespace ringtail::tools
