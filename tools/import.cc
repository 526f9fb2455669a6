// ringtail import: records from files, with the times of their events.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/standard_streams.h"
#include "tools/commands.h"
#include "tools/import_source.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

struct ImportArguments {
  std::string kind;
  std::string file;
  std::string topic;
  std::string key_column;
  std::string timestamp_column;
  std::string timestamp_format = "auto";
  bool no_header = false;
};

// An open input: standard input or a file, closed at the end.
class InputFile {
 public:
  static Result<InputFile> open(const std::string& path) {
    if (path == "-") return InputFile(STDIN_FILENO, 0);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status = {};
    const bool is_directory = fd >= 0 && ::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
    if (fd >= 0 && !is_directory) return InputFile(fd, static_cast<std::uint64_t>(status.st_size));
    const int cause = is_directory ? EISDIR : errno;
    if (fd >= 0) ::close(fd);
    return fail(cause == ENOENT   ? Code::not_found
                : cause == EACCES ? Code::permission_denied
                                  : Code::system,
                fmt::format("cannot read '{}': {}", path, std::strerror(cause)), cause);
  }
  InputFile(InputFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)), bytes_(other.bytes_) {}
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile() {
    if (fd_ > STDIN_FILENO) ::close(fd_);
  }

  int fd() const { return fd_; }
  std::uint64_t bytes() const { return bytes_; }  // 0: not known

 private:
  InputFile(int fd, std::uint64_t bytes) : fd_(fd), bytes_(bytes) {}
  int fd_;
  std::uint64_t bytes_;
};

// A line on a terminal that is written over as the import goes on.
class Progress {
 public:
  explicit Progress(std::uint64_t total_bytes)
      : total_bytes_(total_bytes), shown_(::isatty(STDERR_FILENO) != 0) {}
  ~Progress() {
    if (drawn_) write_to_stderr("\r\033[K");
  }
  void update(std::uint64_t records, std::uint64_t bytes) {
    constexpr std::uint64_t kRecordsBetweenLooks = 4096;
    if (!shown_ || records % kRecordsBetweenLooks != 0) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(200)) return;
    last_ = now;
    drawn_ = true;
    const std::string share = total_bytes_ == 0 ? "" : fmt::format(" ({} %)", bytes * 100 / total_bytes_);
    write_to_stderr(fmt::format("\r\033[K{} records, {}{}", grouped(records), human_bytes(bytes), share));
  }

 private:
  std::uint64_t total_bytes_;
  bool shown_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

Result<std::unique_ptr<ImportSource>> open_source(BlockReader& reader, const ImportArguments& arguments) {
  const Result<TimestampFormat> format = TimestampFormat::make(arguments.timestamp_format);
  if (!format) return std::unexpected(format.error());
  SourceOptions options{arguments.key_column, arguments.timestamp_column, *format, !arguments.no_header};
  if (arguments.kind == "csv") return open_csv(reader, std::move(options));
  if (arguments.kind == "jsonl") return open_jsonl(reader, std::move(options));
  return open_lines(reader, options);
}

// Opens the topic's description, creating the topic when it is missing.
Result<TopicDescription> ensure_topic(const GlobalOptions& options, const Log& log,
                                      const ImportArguments& arguments) {
  Admin admin(log);
  Result<TopicDescription> topic = admin.describe_topic(arguments.topic);
  if (topic || topic.error().code != Code::not_found) return topic;
  TopicSpec spec;
  spec.name = arguments.topic;
  // Recorded events are older than any retention from the day they are imported.
  if (!arguments.timestamp_column.empty()) spec.configs.emplace("retention.ms", "-1");
  if (const Status created = admin.create_topic(spec); !created) return std::unexpected(created.error());
  if (options.verbosity > 0) {
    note(options, fmt::format("created topic '{}' with one partition{}", spec.name,
                              spec.configs.empty() ? "" : " and retention.ms=-1"));
  }
  return admin.describe_topic(arguments.topic);
}

struct Imported {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
};

// Sends every row. On failure `done` says how far it came.
Status import_rows(ImportSource& source, Producer& producer, const BlockReader& reader, Progress& progress,
                   Imported& done) {
  SourceRow row;
  while (!interrupt::pending()) {
    const Result<bool> more = source.next(row);
    if (!more) return std::unexpected(more.error());
    if (!*more) break;
    ProducerRecord record{.value = row.value, .timestamp_ns = row.timestamp_ns};
    if (row.key) record.key = *row.key;
    if (!producer.send(record)) {
      Error error = producer.error();
      error.message = fmt::format("{}, line {}: {}", reader.name(), source.line(), error.message);
      return std::unexpected(std::move(error));
    }
    ++done.records;
    done.bytes += row.value.size();
    progress.update(done.records, reader.bytes_read());
  }
  return {};
}

int import(const GlobalOptions& options, const ImportArguments& arguments) {
  const Result<InputFile> file = InputFile::open(arguments.file);
  if (!file) return interrupt::pending() ? interrupt::exit_code() : report(options, file.error());
  BlockReader reader(file->fd(), arguments.file == "-" ? "standard input" : arguments.file);
  Result<std::unique_ptr<ImportSource>> source = open_source(reader, arguments);
  if (!source) return report(options, source.error());
  const Result<Log> log = open_log(options, OpenMode::create);
  if (!log) return report(options, log.error());
  const Result<TopicDescription> topic = ensure_topic(options, *log, arguments);
  if (!topic) return report(options, topic.error());
  ProducerOptions producer_options;
  producer_options.topic = arguments.topic;
  Result<Producer> producer = Producer::open(*log, std::move(producer_options));
  if (!producer) return report(options, producer.error());

  const auto start = std::chrono::steady_clock::now();
  Imported done;
  Status status;
  {
    Progress progress(file->bytes());
    status = import_rows(**source, *producer, reader, progress, done);
    const bool on_disk = topic->configs.at("storage") != "memory";
    if (on_disk && done.records > 0 && !producer->flush() && status)
      status = std::unexpected(producer->error());
  }
  if (interrupt::pending()) return interrupt::exit_code();
  if (!status) {
    Error error = status.error();
    error.message += fmt::format(" ({} records were imported before it and stay in topic '{}')",
                                 grouped(done.records), arguments.topic);
    return report(options, error);
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const nlohmann::json object = {{"topic", arguments.topic},
                                 {"records", done.records},
                                 {"bytes", done.bytes},
                                 {"seconds", elapsed.count()}};
  const Status printed =
      print(options.json
                ? object.dump() + "\n"
                : fmt::format("imported {} records, {}, into topic '{}' in {:.3f} s\n", grouped(done.records),
                              human_bytes(done.bytes), arguments.topic, elapsed.count()));
  return printed || printed.error().code == Code::closed ? kDone : report(options, printed.error());
}

}  // namespace

void add_import(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command =
      root.add_subcommand("import", "Append the rows of a file, with the times of their events");
  command->add_option("KIND", arguments->kind, "csv (RFC 4180), jsonl or lines")
      ->required()
      ->check(CLI::IsMember({"csv", "jsonl", "lines"}));
  command->add_option("FILE", arguments->file, "The file; - is standard input")->required()->type_name("");
  command->add_option("--topic", arguments->topic, "The topic; created when it is missing")
      ->required()
      ->type_name("TOPIC");
  command
      ->add_option("--key-column", arguments->key_column,
                   "Where keys are: a column's name; for jsonl a field's name or a JSON pointer")
      ->type_name("COLUMN");
  command->add_option("--timestamp-column", arguments->timestamp_column, "Where the time of the event is")
      ->type_name("COLUMN");
  command
      ->add_option("--timestamp-format", arguments->timestamp_format,
                   "auto (RFC 3339 or a number since the epoch), ns, us, ms, s, or as strptime with %f for "
                   "a fraction")
      ->type_name("FORMAT")
      ->capture_default_str();
  command->add_flag("--no-header", arguments->no_header,
                    "csv: the first row is a record; columns are numbers from 1");
  command->footer(
      "A record's value is the row as it stands in the file, up to its line feed, so that `consume` gives\n"
      "the rows back byte for byte. Returns when all of it is synced. At a malformed row it stops and says\n"
      "how many rows were imported before. A topic created for rows with timestamps gets retention.ms=-1.\n\n"
      "Example:\n  ringtail import csv trades.csv --topic trades --key-column order_id --timestamp-column "
      "ts");
  command->callback([&options, &exit_code, arguments] { exit_code = import(options, *arguments); });
}

}  // namespace ringtail::tools
