#include "tools/perf_run.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <new>
#include <optional>
#include <system_error>

#include "base/result.h"
#include "base/standard_streams.h"
#include "tools/output.h"
#include "tools/perf_clock.h"
#include "tools/perf_process.h"
#include "tools/perf_shared.h"
#include "tools/perf_workers.h"

namespace ringtail::tools::perf {
namespace {

const std::string kKeeper = "keeper";

// A log directory that is removed, with its shared memory, when the measurement is over.
class TemporaryLog {
 public:
  // Disk topics go below the current folder, so that the user chooses the disk that is measured.
  static Result<TemporaryLog> create(const std::string& storage) {
    std::error_code error;
    const std::filesystem::path parent =
        storage == "disk" ? std::filesystem::path(".") : std::filesystem::temp_directory_path(error);
    std::string name = (parent / "ringtail-perf-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      return fail_errno(errno,
                        fmt::format("cannot make a folder in '{}' for the log; give --dir", parent.string()));
    }
    return TemporaryLog(name);
  }
  TemporaryLog(TemporaryLog&& other) noexcept : dir_(std::move(other.dir_)), id_(std::move(other.id_)) {
    other.dir_.clear();
  }
  TemporaryLog& operator=(TemporaryLog&&) = delete;
  ~TemporaryLog() {
    if (dir_.empty()) return;
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
    if (!id_.empty())
      std::filesystem::remove_all(LogOptions().shared_memory_dir / ("ringtail-" + id_), ignored);
  }

  const std::filesystem::path& dir() const { return dir_; }
  void set_id(std::string_view id) { id_ = id; }

 private:
  explicit TemporaryLog(std::string dir) : dir_(std::move(dir)) {}

  std::filesystem::path dir_;
  std::string id_;
};

// A line on the terminal that is written over and over. Where standard error is no terminal there is
// none, and nobody wakes up to write it.
class Progress {
 public:
  explicit Progress(std::string what) : what_(std::move(what)) {}
  ~Progress() {
    if (shown_) write_to_stderr("\r\033[K");
  }

  std::optional<std::chrono::nanoseconds> interval() const {
    if (!is_terminal_) return std::nullopt;
    return std::chrono::milliseconds(250);
  }
  void show(std::uint64_t records) {
    if (!is_terminal_) return;
    write_to_stderr(fmt::format("\r\033[K{}: {}", what_, records == 0 ? "warming up" : grouped(records)));
    shown_ = true;
  }

 private:
  std::string what_;
  bool is_terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
};

Status start_workers(Children& children, const RunContext& run) {
  if (run.options.method == Method::ping_pong) {
    if (const Status echo = children.start("echo", [&] { return run_echo(run); }); !echo) return echo;
    return children.start("pinger", [&] { return run_pinger(run); });
  }
  if (const Status started = children.start("consumer", [&] { return run_consumer(run); }); !started) {
    return started;
  }
  for (std::uint32_t number = 0; number < run.options.producers; ++number) {
    const Status started = children.start("producer", [&] { return run_producer(run, number); });
    if (!started) return started;
  }
  return {};
}

// Waits, before anything is measured, until `ready` says so.
template <class Ready>
Status wait_until(Children& children, Ready ready) {
  while (!ready()) {
    if (const Status waited = children.wait(std::chrono::milliseconds(1)); !waited) return waited;
  }
  return {};
}

Status run_workers(Children& children, const RunContext& run, Progress& progress) {
  RunShared& shared = run.shared;
  if (const Status ready = wait_until(children, [&] { return shared.topics_ready.is_open(); }); !ready)
    return ready;
  if (const Status started = start_workers(children, run); !started) return started;
  const std::uint32_t workers = run.options.method == Method::ping_pong ? 2 : run.options.producers + 1;
  const Status attached = wait_until(children, [&] {
    return shared.attached.load(std::memory_order_acquire) == workers;  // SYNC: wait_for_start
  });
  if (!attached) return attached;

  constexpr double kTimeToWakeNs = 20e6;
  shared.start_ticks = run.clock.now() + run.clock.from_ns(kTimeToWakeNs);
  if (run.options.rate > 0) {
    const double warmup_ns = static_cast<double>(run.options.warmup) * 1e9 / run.options.rate;
    shared.measure_ticks = shared.start_ticks + run.clock.from_ns(warmup_ns);
  }
  shared.go.open();
  while (children.running() > 1) {
    progress.show(shared.progress.load(std::memory_order_relaxed));
    if (const Status waited = children.wait(progress.interval()); !waited) return waited;
  }
  return {};
}

RunResult result_of(const RunContext& run) {
  const RunShared& shared = run.shared;
  std::uint64_t first = ~std::uint64_t{0};
  std::uint64_t durable = 0;
  for (std::uint32_t number = 0; number < run.options.producers; ++number) {
    first = std::min(first, shared.producers[number].first_ticks);
    durable = std::max(durable, shared.producers[number].durable_ticks);
  }
  if (run.options.method == Method::open_loop) first = shared.measure_ticks;
  RunResult result;
  result.records = shared.records;
  result.seconds = static_cast<double>(run.clock.ns_between(first, shared.last_ticks)) / 1e9;
  result.durable_seconds = static_cast<double>(run.clock.ns_between(first, durable)) / 1e9;
  result.log_bytes_per_record = shared.log_bytes_per_record;
  result.latency_ns = std::make_unique<Histogram>(shared.latency_ns);
  return result;
}

Result<RunResult> run_once(const PerfOptions& options, const TickClock& clock, unsigned number) {
  auto mapping = SharedMapping::create(sizeof(RunShared));
  if (!mapping) return std::unexpected(mapping.error());
  auto* shared = new (mapping->data()) RunShared();

  std::optional<TemporaryLog> temporary;
  if (options.dir.empty()) {
    auto created = TemporaryLog::create(options.storage);
    if (!created) return std::unexpected(created.error());
    temporary.emplace(std::move(*created));
  }
  const std::string topic = fmt::format("ringtail-perf-{}-{}", ::getpid(), number);
  const RunContext run{options, clock,           *shared, temporary ? temporary->dir() : options.dir,
                       topic,   topic + "-reply"};

  auto children = Children::create();
  if (!children) return std::unexpected(children.error());
  Status status = children->start(kKeeper, [&] { return run_keeper(run); });
  if (status) {
    Progress progress(fmt::format("{}, run {} of {}", to_string(options.method), number, options.repeat));
    status = run_workers(*children, run, progress);
  }
  children->kill_except(kKeeper);
  shared->finish.open();
  // After a failure the keeper still deletes the topics; what failed first is what is reported.
  const Status kept = children->wait_for(kKeeper);
  if (temporary) temporary->set_id(shared->log_id.data());
  if (!status) return std::unexpected(status.error());
  if (!kept) return std::unexpected(kept.error());
  return result_of(run);
}

}  // namespace

Result<PerfResult> measure(const PerfOptions& options) {
  const TickClock clock = TickClock::calibrate();
  const int second_cpu = options.consumer_cpu();
  PerfResult result;
  const auto before = measure_probe(clock, options.producer_cpu(0), second_cpu);
  if (!before) return std::unexpected(before.error());
  result.probe_before = *before;
  for (unsigned number = 1; number <= options.repeat; ++number) {
    auto run = run_once(options, clock, number);
    if (!run) return std::unexpected(run.error());
    result.runs.push_back(std::move(*run));
  }
  const auto after = measure_probe(clock, options.producer_cpu(0), second_cpu);
  if (!after) return std::unexpected(after.error());
  result.probe_after = *after;
  return result;
}

}  // namespace ringtail::tools::perf
