// How fast records go to segment files, and how fast they come back from there. Writes a topic, as fast as
// one producer can, until all of it is synced; then, as often as asked for, lets the kernel forget its files
// and reads it from the beginning as far as it lies below the ring. Prints one JSON object.
// bench/system/run compares it with what fio writes to and reads from the same disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::size_t kBatch = 64;

struct Arguments {
  std::string dir = ".";
  std::uint64_t bytes = std::uint64_t{4} << 30;
  std::uint64_t size = 1024;
  unsigned reads = 1;
};

template <class Number>
bool parse(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse_arguments(int argc, char** argv, Arguments& arguments) {
  if (argc % 2 == 0) return false;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string_view value = argv[i + 1];
    bool known = true;
    if (name == "--dir")
      arguments.dir = value;
    else if (name == "--bytes")
      known = parse(value, arguments.bytes);
    else if (name == "--size")
      known = parse(value, arguments.size) && arguments.size > 0;
    else if (name == "--reads")
      known = parse(value, arguments.reads);
    else
      known = false;
    if (!known) return false;
  }
  return true;
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A number of records, and the time it took.
struct Work {
  std::uint64_t records = 0;
  double seconds = 0;
};

Work write_topic(const Log& log, const Arguments& arguments) {
  auto producer = value_or_die(Producer::open(log, ProducerOptions{.topic = "replay"}));
  const std::string value(arguments.size, 'x');
  const std::vector<ProducerRecord> batch(kBatch, ProducerRecord{.value = value});
  Work written;
  const auto begin = Clock::now();
  for (; written.records * arguments.size < arguments.bytes; written.records += kBatch) {
    if (!producer.send_batch(PartitionId(0), batch)) die(producer.error());
  }
  if (!producer.flush()) die(producer.error());
  written.seconds = seconds_since(begin);
  return written;
}

// The files are synced, so the kernel drops their pages when told that nobody will need them.
void forget_files(const std::filesystem::path& dir) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
    if (!entry.is_regular_file()) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

// Reads the offsets below `end` from the beginning.
Work read_topic(const Log& log, std::uint64_t end) {
  auto consumer = value_or_die(Consumer::open(log, {}));
  check_or_die(consumer.assign("replay"));
  Work read;
  const auto begin = Clock::now();
  while (read.records < end) {
    const auto records = value_or_die(consumer.poll(std::chrono::seconds(10)));
    if (records.empty()) die({Code::timed_out, 0, "no record within 10 s, although there are more"});
    if (records.front().offset != Offset(read.records)) die({Code::corrupt, 0, "a record is missing"});
    read.records += records.size();
  }
  read.seconds = seconds_since(begin);
  return read;
}

nlohmann::ordered_json rates(const Work& work, double frame_bytes) {
  const double rate = static_cast<double>(work.records) / work.seconds;
  return {{"records", work.records},
          {"seconds", work.seconds},
          {"records_per_second", rate},
          {"log_bytes_per_second", rate * frame_bytes}};
}

void run(const Arguments& arguments) {
  const TemporaryLog log(arguments.dir);
  log.create_topic("replay", {{"storage", "disk"}, {"retention.ms", "-1"}});
  const Work written = write_topic(log.log(), arguments);
  const auto topic = value_or_die(Admin(log.log()).describe_topic("replay"));
  const PartitionDescription& partition = topic.partitions.front();
  const auto log_bytes = static_cast<double>(partition.log_end_position - partition.log_start_position);
  const double frame_bytes = log_bytes / static_cast<double>(written.records);
  nlohmann::ordered_json result{{"size", arguments.size}, {"write", rates(written, frame_bytes)}};

  const auto in_ring =
      static_cast<std::uint64_t>(static_cast<double>(partition.ring_bytes) / frame_bytes) + 1;
  if (in_ring >= written.records) die({Code::invalid_argument, 0, "--bytes is less than the ring holds"});
  for (unsigned i = 0; i < arguments.reads; ++i) {
    forget_files(log.dir());
    result["reads"].push_back(rates(read_topic(log.log(), written.records - in_ring), frame_bytes));
  }
  fmt::print("{}\n", result.dump());
}

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) {
  ringtail::bench::Arguments arguments;
  if (!ringtail::bench::parse_arguments(argc, argv, arguments)) {
    fmt::print(stderr, "usage: {} [--dir DIR] [--bytes N] [--size N] [--reads N]\n", argv[0]);
    return 2;
  }
  try {
    ringtail::bench::run(arguments);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", argv[0], error.what());
    return 1;
  }
  return 0;
}
