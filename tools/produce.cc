// ringtail produce: one record a line of standard input.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "tools/block_reader.h"
#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

struct ProduceArguments {
  std::string topic;
  std::string key_separator;
  bool has_separator = false;
  std::vector<std::string> headers;
  std::optional<std::uint32_t> partition;
  std::string acks = "1";
  bool durable = false;
  std::size_t batch = 1;
};

Acks parse_acks(std::string_view text) {
  return text == "0" ? Acks::none : text == "all" ? Acks::all : Acks::leader;
}

// Turns lines into records and sends them, in batches when asked for. Lines must stay valid until
// `flush`.
class LineSender {
 public:
  // `batch_bytes`: what one batch may hold at most, in frames.
  LineSender(Producer producer, const ProduceArguments& arguments, const std::vector<Pair>& headers,
             std::uint64_t batch_bytes)
      : producer_(std::move(producer)), arguments_(arguments), batch_bytes_(batch_bytes) {
    if (arguments.partition) partition_ = PartitionId(*arguments.partition);
    for (const Pair& header : headers) {
      headers_.push_back({header.name, header.value});
      header_bytes_ += 8 + header.name.size() + header.value.size();
    }
    if (arguments.batch > 1) batches_.resize(producer_.partitions());
  }

  Status send(std::string_view line) {
    ++lines_;
    ProducerRecord record{.value = line, .headers = headers_, .partition = partition_};
    if (arguments_.has_separator) split_key(record);
    if (batches_.empty()) {
      if (!producer_.send(record)) return failure(&record);
      ++appended_;
      return {};
    }
    return add_to_batch(record);
  }

  // Sends what waits in batches and, with --durable, waits until all of it is synced.
  Status flush() {
    for (std::uint32_t i = 0; i < batches_.size(); ++i) {
      if (const Status sent = send_batch(PartitionId(i)); !sent) return sent;
    }
    if (arguments_.durable && !producer_.flush()) return std::unexpected(producer_.error());
    return {};
  }

  std::uint64_t lines() const { return lines_; }

 private:
  struct Batch {
    std::vector<ProducerRecord> records;
    std::uint64_t bytes = 0;
  };

  void split_key(ProducerRecord& record) const {
    const std::string_view separator = arguments_.key_separator;
    const std::size_t at = record.value.find(separator);
    if (at == std::string_view::npos) return;
    record.key = record.value.substr(0, at);
    record.value.remove_prefix(at + separator.size());
  }

  Status add_to_batch(const ProducerRecord& record) {
    constexpr std::uint64_t kFrameOverhead = 32 + 8 + 4;  // header, alignment, length of the headers
    const PartitionId partition = partition_ ? *partition_ : producer_.partition_for(record.key);
    if (partition.value() >= batches_.size()) batches_.resize(partition.value() + 1);  // the topic has grown
    Batch& batch = batches_[partition.value()];
    const std::uint64_t bytes = kFrameOverhead + record.key.size() + record.value.size() + header_bytes_;
    if (batch.bytes + bytes > batch_bytes_ && !batch.records.empty()) {
      if (const Status sent = send_batch(partition); !sent) return sent;
    }
    batch.records.push_back(record);
    batch.bytes += bytes;
    return batch.records.size() < arguments_.batch ? Status() : send_batch(partition);
  }

  Status send_batch(PartitionId partition) {
    Batch& batch = batches_[partition.value()];
    if (batch.records.empty()) return {};
    if (!producer_.send_batch(partition, batch.records)) {
      const auto longest =
          std::ranges::max_element(batch.records, {}, [this](const auto& r) { return bytes_of(r); });
      return failure(&*longest);
    }
    appended_ += batch.records.size();
    batch.records.clear();
    batch.bytes = 0;
    return {};
  }

  // As the limit counts them.
  std::uint64_t bytes_of(const ProducerRecord& record) const {
    return record.key.size() + record.value.size() + header_bytes_;
  }

  // `record` is what was sent in vain, or the largest of it.
  Status failure(const ProducerRecord* record = nullptr) const {
    Error error = producer_.error();
    error.message = fmt::format("line {} of standard input: {}", lines_, error.message);
    if (record != nullptr && error.code == Code::limit_exceeded)
      error.message += fmt::format(
          "; it has {}. To take it: ringtail topic alter {} --config max.message.bytes=... (at most an "
          "eighth of "
          "term.bytes)",
          bytes_of(*record), arguments_.topic);
    error.message += fmt::format("; {} line{} before it {} appended", appended_, appended_ == 1 ? "" : "s",
                                 appended_ == 1 ? "was" : "were");
    return std::unexpected(std::move(error));
  }

  Producer producer_;
  const ProduceArguments& arguments_;
  std::uint64_t batch_bytes_;
  std::optional<PartitionId> partition_;
  std::vector<Header> headers_;
  std::uint64_t header_bytes_ = 0;
  std::vector<Batch> batches_;  // by partition; empty: records are sent one by one
  std::uint64_t lines_ = 0;
  std::uint64_t appended_ = 0;  // of these
};

// Sends every line there is. What was read is sent before more is waited for, so that a batch never
// holds a line back from its readers.
Status send_lines(BlockReader& input, LineSender& sender) {
  std::string_view line;
  while (true) {
    while (take_line(input, line)) {
      if (const Status sent = sender.send(line); !sent) return sent;
    }
    if (const Status flushed = sender.flush(); !flushed) return flushed;
    const Result<bool> more = input.fill();
    if (!more) return std::unexpected(more.error());
    if (!*more) break;
  }
  if (!input.rest().empty()) {
    if (const Status sent = sender.send(input.rest()); !sent) return sent;
  }
  return sender.flush();
}

Result<std::vector<Pair>> parse_headers(const std::vector<std::string>& texts) {
  std::vector<Pair> headers;
  for (const std::string& text : texts) {
    Result<Pair> pair = split_pair(text, "--header");
    if (!pair) return std::unexpected(pair.error());
    headers.push_back(std::move(*pair));
  }
  return headers;
}

Result<LineSender> open_sender(const Log& log, const ProduceArguments& arguments,
                               const std::vector<Pair>& headers) {
  const Result<TopicDescription> topic = Admin(log).describe_topic(arguments.topic);
  if (!topic) return std::unexpected(topic.error());
  if (arguments.partition && *arguments.partition >= topic->partitions.size()) {
    return fail(Code::invalid_argument,
                fmt::format("topic '{}' has no partition {}; its partitions are 0 to {}", topic->name,
                            *arguments.partition, topic->partitions.size() - 1));
  }
  if (arguments.durable && topic->configs.at("storage") == "memory") {
    return fail(Code::invalid_argument,
                fmt::format("topic '{}' keeps its records in memory, so nothing of it can "
                            "be durable; leave --durable out",
                            topic->name));
  }
  ProducerOptions options;
  options.topic = arguments.topic;
  options.acks = parse_acks(arguments.acks);
  Result<Producer> producer = Producer::open(log, std::move(options));
  if (!producer) return std::unexpected(producer.error());
  const std::uint64_t term_bytes = std::stoull(topic->configs.at("term.bytes"));
  return LineSender(std::move(*producer), arguments, headers, term_bytes / 8);
}

int produce(const GlobalOptions& options, ProduceArguments& arguments) {
  if (arguments.has_separator) arguments.key_separator = unescape(arguments.key_separator);
  if (arguments.has_separator && arguments.key_separator.empty()) {
    return report_usage(options, "--key-separator must not be empty");
  }
  const Result<std::vector<Pair>> headers = parse_headers(arguments.headers);
  if (!headers) return report(options, headers.error());
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  Result<LineSender> sender = open_sender(*log, arguments, *headers);
  if (!sender) return report(options, sender.error());

  const auto start = std::chrono::steady_clock::now();
  BlockReader input(STDIN_FILENO, "standard input");
  const Status sent = send_lines(input, *sender);
  if (options.verbosity > 0) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    note(options, fmt::format("{} records, {} read, {:.3f} s, {} records/s", grouped(sender->lines()),
                              human_bytes(input.bytes_read()), elapsed.count(),
                              grouped(static_cast<std::uint64_t>(static_cast<double>(sender->lines()) /
                                                                 elapsed.count()))));
  }
  if (interrupt::pending()) return interrupt::exit_code();
  return sent ? kDone : report(options, sent.error());
}

}  // namespace

void add_produce(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ProduceArguments>();
  CLI::App* command = root.add_subcommand("produce", "Append records, one a line of standard input");
  command->add_option("TOPIC", arguments->topic, "The topic")->required()->type_name("");
  CLI::Option* separator =
      command->add_option("--key-separator", arguments->key_separator,
                          "What stands between key and value, at its first occurrence; \\t is a tab");
  separator->type_name("TEXT");
  command->add_option("--header", arguments->headers, "A header for every record; may be repeated")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  command->add_option("--partition", arguments->partition, "Append to this partition only")
      ->check(whole_number())
      ->type_name("N");
  command->add_option("--acks", arguments->acks, "Wait for: nothing, the commit, all in-sync replicas")
      ->check(CLI::IsMember({"0", "1", "all"}))
      ->capture_default_str();
  command->add_flag("--durable", arguments->durable, "Wait until what was read is synced on this host");
  command->add_option("--batch", arguments->batch, "Commit up to N records of a partition at once")
      ->type_name("N")
      ->check(whole_number(1, 4096))
      ->capture_default_str();
  command->footer(
      "A line is a record, an empty line an empty value; bytes are taken as they are, NUL included.\n"
      "Without separator in it, a line has no key. --durable waits once for every block of input, not\n"
      "for every line; exit 0 means all of it is synced.\n\n"
      "Example:\n  printf 'alice:1\\nbob:2\\n' | ringtail produce orders --key-separator :");
  command->callback([&options, &exit_code, arguments, separator] {
    arguments->has_separator = separator->count() > 0;
    exit_code = produce(options, *arguments);
  });
}

}  // namespace ringtail::tools
