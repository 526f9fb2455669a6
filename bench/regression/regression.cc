// What `check` counts the instructions of: each operation of the hot paths, some thousand times, on one thread.
//
//     regression DIR [--slow-down]
//
// callgrind counts within functions named measured_*, and writes down what it has counted whenever `counted` is
// entered, which prints the operation and the number of its records. Nothing may depend on time or on other
// processes: the keeper of the log is a process of its own, which stands still while producers and consumers are
// measured, and the keeper that is measured is turned by hand.
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "regression/hand_keeper.h"
#include "support/temporary_log.h"

extern char** environ;

namespace ringtail::bench {
namespace {

constexpr std::size_t kRecords = 2'000;
constexpr std::size_t kWarmUp = 64;
constexpr std::size_t kBatch = 16;
constexpr std::size_t kRecordsInFiles = 20'000;  // ten times what the ring of that topic holds

// For the test of `check`: so much more work for each record.
unsigned extra_steps = 0;

inline void work_extra() {
  for (unsigned i = 0; i < extra_steps; ++i) asm volatile("" : : : "memory");
}

}  // namespace

// --- What is counted. Their names are all that callgrind is told, so they are C's, and not inlined. ---

extern "C" {

[[gnu::noinline]] void measured_send(Producer& producer, const ProducerRecord& record, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (!producer.send(record)) [[unlikely]]
      die(producer.error());
    work_extra();
  }
}

[[gnu::noinline]] void measured_send_batch(Producer& producer, const std::vector<ProducerRecord>& records,
                                           std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (!producer.send_batch(PartitionId(0), records)) [[unlikely]]
      die(producer.error());
    for (std::size_t r = 0; r < records.size(); ++r) work_extra();
  }
}

[[gnu::noinline]] void measured_claim(Producer& producer, std::string_view value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    auto claim = producer.try_claim(value.size());
    if (!claim) [[unlikely]]
      die(producer.error());
    std::memcpy(claim->value().data(), value.data(), value.size());
    if (!claim->commit()) [[unlikely]]
      die(producer.error());
    work_extra();
  }
}

[[gnu::noinline]] void measured_poll(Consumer& consumer, std::size_t count) {
  for (std::size_t read = 0; read < count;) {
    const auto records = consumer.poll(std::chrono::seconds(1));
    if (!records) [[unlikely]]
      die(records.error());
    read += records->size();
    for (std::size_t r = 0; r < records->size(); ++r) work_extra();
  }
}

[[gnu::noinline]] void measured_commit(Consumer& consumer) {
  if (auto done = consumer.commit_async(); !done) [[unlikely]]
    die(done.error());
  work_extra();
}

[[gnu::noinline]] void measured_keep(HandKeeper& keeper, Position end, std::size_t count) {
  while (keeper.durable() < end) keeper.turn();
  for (std::size_t i = 0; i < count; ++i) work_extra();
}

// Everything counted since the last call belongs to this operation.
[[gnu::noinline]] void counted(const char* operation, std::size_t records) {
  fmt::print("{{\"operation\": \"{}\", \"records\": {}}}\n", operation, records);
  std::fflush(stdout);
}

}  // extern "C"

namespace {

// --- The keeper of the log: another process ---

LogOptions options_in(const std::string& dir) { return {.dir = dir + "/log", .shared_memory_dir = dir}; }

// What that process does: keeps the log until its standard input ends.
void keep(const std::string& dir) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // also where it stands still
  const Log log = value_or_die(Log::open(options_in(dir)));
  char byte = 'r';
  if (::write(STDOUT_FILENO, &byte, 1) != 1) return;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
}

class KeeperProcess {
 public:
  // Returns when it keeps the log. The program is executed anew, so that it does not run under callgrind.
  KeeperProcess(const std::string& program, const std::string& dir) {
    std::array<int, 2> in{}, out{};
    if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0)
      die({Code::system, errno, "cannot make pipes"});
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::array<std::string, 3> words{program, dir, "--keep"};
    std::array<char*, 4> arguments{words[0].data(), words[1].data(), words[2].data(), nullptr};
    const int failed = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(in[0]);
    ::close(out[1]);
    end_ = in[1];
    char byte = 0;
    const bool ready = failed == 0 && ::read(out[0], &byte, 1) == 1;
    ::close(out[0]);
    if (!ready)
      die({Code::no_keeper, failed, fmt::format("'{} {} --keep' does not keep the log", program, dir)});
  }
  KeeperProcess(const KeeperProcess&) = delete;
  KeeperProcess& operator=(const KeeperProcess&) = delete;
  ~KeeperProcess() {
    go_on();
    ::close(end_);
    ::waitpid(pid_, nullptr, 0);
  }
  // Returns when it does.
  void stand_still() {
    ::kill(pid_, SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }
  void go_on() { ::kill(pid_, SIGCONT); }

 private:
  pid_t pid_ = -1;
  int end_ = -1;
};

// --- Producers and consumers ---

// Topics whose records all stay in one term, so that nobody waits for space.
Producer open_producer(const Log& log, const std::string& topic, bool idempotent = false,
                       bool exclusive = false) {
  check_or_die(Admin(log).create_topic(
      {.name = topic, .partitions = 1, .configs = {{"storage", "memory"}, {"term.bytes", "1MiB"}}}));
  return value_or_die(
      Producer::open(log, {.topic = topic, .enable_idempotence = idempotent, .exclusive = exclusive}));
}

Consumer open_consumer(const Log& log, const std::string& topic, std::size_t max_poll_records) {
  auto consumer = value_or_die(
      Consumer::open(log, {.wait = WaitStrategy::busy_spin, .max_poll_records = max_poll_records}));
  check_or_die(consumer.assign(topic));
  return consumer;
}

void write_files(const Log& log, const std::string& topic, std::string_view value) {
  check_or_die(
      Admin(log).create_topic({.name = topic, .partitions = 1, .configs = {{"term.bytes", "64KiB"}}}));
  Producer producer = value_or_die(Producer::open(log, {.topic = topic}));
  for (std::size_t i = 0; i < kRecordsInFiles; ++i)
    if (!producer.send(value)) die(producer.error());
  if (!producer.flush()) die(producer.error());
}

Consumer join_group(const Log& log, const std::string& topic) {
  auto member = value_or_die(Consumer::open(log, {.wait = WaitStrategy::busy_spin,
                                                  .max_poll_records = 1,
                                                  .group_id = "group",
                                                  .enable_auto_commit = false}));
  check_or_die(member.subscribe(topic));
  while (member.assignment().empty()) value_or_die(member.poll(std::chrono::milliseconds(1)));
  return member;
}

// Whatever the keeper had asked to be told before it stood still is told by the first sends.
void count_sends(const char* operation, Producer& producer, const ProducerRecord& record) {
  for (std::size_t i = 0; i < kWarmUp; ++i)
    if (!producer.send(record)) die(producer.error());
  measured_send(producer, record, kRecords);
  counted(operation, kRecords);
}

void count_polls(const char* operation, Consumer& consumer, std::size_t count) {
  value_or_die(consumer.poll(std::chrono::seconds(1)));  // maps what there is to map
  measured_poll(consumer, count);
  counted(operation, count);
}

void count_clients(const std::string& program, const std::string& dir) {
  const std::string value(64, 'x');
  KeeperProcess keeper(program, dir);
  LogOptions options = options_in(dir);
  options.keeper = KeeperMode::none;
  const Log log = value_or_die(Log::open(std::move(options)));

  Producer plain = open_producer(log, "plain");
  Producer keyed = open_producer(log, "keyed");
  Producer batches = open_producer(log, "batches");
  Producer claims = open_producer(log, "claims");
  Producer stamped = open_producer(log, "stamped", true);
  Producer exclusive = open_producer(log, "exclusive", false, true);
  write_files(log, "files", value);
  Consumer member = join_group(log, "plain");
  Consumer reader = open_consumer(log, "plain", 256);
  Consumer reader_of_one = open_consumer(log, "plain", 1);
  Consumer reader_of_files = open_consumer(log, "files", 256);
  keeper.stand_still();

  count_sends("append", plain, {.value = value});
  count_sends("append_key", keyed, {.key = "12345678", .value = value});
  const std::vector<ProducerRecord> batch(kBatch, ProducerRecord{.value = value});
  if (!batches.send_batch(PartitionId(0), batch)) die(batches.error());
  measured_send_batch(batches, batch, kRecords / kBatch);
  counted("append_batch", kRecords);
  if (auto claim = claims.try_claim(value.size()); !claim || !claim->commit()) die(claims.error());
  measured_claim(claims, value, kRecords);
  counted("append_claim", kRecords);
  count_sends("append_idempotent", stamped, {.value = value});
  count_sends("append_exclusive", exclusive, {.value = value});

  count_polls("poll", reader, kRecords / 2);
  count_polls("poll_one", reader_of_one, kRecords / 2);
  count_polls("poll_files", reader_of_files, kRecords);

  check_or_die(member.commit_async());
  for (std::size_t i = 0; i < kRecords / 2; ++i) {
    value_or_die(member.poll(std::chrono::seconds(1)));
    measured_commit(member);
  }
  counted("commit", kRecords / 2);
  keeper.go_on();
}

// --- The keeper ---

void count_keeping(const char* operation, const std::string& dir, std::size_t value_bytes,
                   std::size_t count) {
  HandKeeper keeper(dir + '/' + operation);
  const std::string value(value_bytes, 'x');
  keeper.warm_up(keeper.append(value, kWarmUp));
  const Position end = keeper.append(value, count);
  measured_keep(keeper, end, count);
  counted(operation, count);
}

void count_all(const std::string& program, const std::string& dir) {
  fmt::print("{{\"compiler\": \"{} {}\", \"flags\": \"{}\", \"clock\": \"{}\"}}\n",
#if defined(__clang__)
             "clang", __clang_version__,
#else
             "gcc", __VERSION__,
#endif
             REGRESSION_FLAGS, WallClock().uses_counter() ? "counter" : "system");
  count_clients(program, dir);
  count_keeping("keep", dir, 64, kRecords);
  count_keeping("keep_1KiB", dir, 1024, kRecords / 4);
}

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv, argv + argc);
  const std::string more = arguments.size() == 3 ? arguments[2] : "";
  if (arguments.size() < 2 || arguments.size() > 3 || arguments[1].starts_with('-') ||
      (!more.empty() && more != "--keep" && more != "--slow-down")) {
    fmt::print(stderr, "Usage: {} DIR [--slow-down]\nRun it by bench/regression/check.\n", arguments[0]);
    return 2;
  }
  try {
    if (more == "--slow-down") ringtail::bench::extra_steps = 100;
    if (more == "--keep")
      ringtail::bench::keep(arguments[1]);
    else
      ringtail::bench::count_all(arguments[0], arguments[1]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", arguments[0], error.what());
    return 1;
  }
  return 0;
}
