// The raw cache line: payload and a counter on one line for each direction, nothing else. What no system can be
// faster than, and the unit R of the lab. Ping-pong only, payloads of 32 to 56 bytes.
//
//   peer_line probe --cpus A,B    R before and after a run, as `ringtail perf` measures it
//   peer_line gaps --cpus A,B --seconds S    spins on each CPU and counts how long the CPU was away
//   peer_line pace --cpus A,B    beside a run: every 8 ms, how long each CPU takes for the same arithmetic; until SIGTERM
#include <fmt/format.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <nlohmann/json.hpp>
#include <thread>

#include "harness/peer_main.h"
#include "harness/shared_memory.h"
#include "tools/perf_probe.h"

namespace ringtail::peers {
namespace {

constexpr std::size_t kMost = 56;

struct alignas(64) Line {
  std::byte payload[kMost];
  std::atomic<std::uint64_t> trip;
};

class LineSender {
 public:
  static Result<LineSender> open(const Options& options, const RunFile&, Channel channel) {
    auto file = SharedFile::open(options.path(channel, 0), 4096);
    if (!file) return std::unexpected(file.error());
    return LineSender(std::move(*file));
  }
  template <class Fill>
  Sent send_in_place(std::size_t, Fill fill) {
    fill(line_->payload);
    line_->trip.store(++trip_, std::memory_order_release);  // SYNC: LineReceiver::poll
    return Sent::yes;
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return {}; }

 private:
  explicit LineSender(SharedFile file) : file_(std::move(file)), line_(file_.at<Line>()) {}

  SharedFile file_;
  Line* line_;
  std::uint64_t trip_ = 0;
};

class LineReceiver {
 public:
  static Result<LineReceiver> open(const Options& options, const RunFile&, Channel channel) {
    auto file = SharedFile::open(options.path(channel, 0), 4096);
    if (!file) return std::unexpected(file.error());
    return LineReceiver(std::move(*file), options.size);
  }
  template <class Handle>
  int poll(Handle handle) {
    if (line_->trip.load(std::memory_order_acquire) != trip_ + 1) return 0;  // SYNC: send_in_place
    ++trip_;
    handle(Payload{line_->payload, size_});
    return 1;
  }
  Error error() const { return {}; }

 private:
  LineReceiver(SharedFile file, std::size_t size)
      : file_(std::move(file)), line_(file_.at<Line>()), size_(size) {}

  SharedFile file_;
  Line* line_;
  std::size_t size_;
  std::uint64_t trip_ = 0;
};

struct LineSystem {
  static constexpr const char* kName = "line";
  using Sender = LineSender;
  using Receiver = LineReceiver;

  static std::string version() { return "1"; }
  static Status check(const Options& options) {
    if (options.role == "version") return {};
    if (options.role == "produce" || options.role == "consume" || options.block || options.size > kMost) {
      return fail(Code::unsupported, fmt::format("a cache line plays ping-pong only, spinning, with payloads "
                                                 "of at most {} bytes",
                                                 kMost));
    }
    return {};
  }
};

// --- The probe, the gaps and the pace of the machine ---

std::vector<int> cpus_of(std::string_view text) {
  std::vector<int> cpus;
  for (const char* at = text.data(); at < text.data() + text.size();) {
    int cpu = -1;
    const auto [end, error] = std::from_chars(at, text.data() + text.size(), cpu);
    if (error != std::errc() || cpu < 0) return {};
    cpus.push_back(cpu);
    at = end + (end < text.data() + text.size() ? 1 : 0);
  }
  return cpus;
}

int probe(const std::vector<int>& cpus) {
  const auto probed = tools::perf::measure_probe(tools::perf::TickClock::calibrate(), cpus[0], cpus[1]);
  if (!probed) return report_failure("line", probed.error());
  fmt::print("{}\n", nlohmann::json{{"two_lines", probed->two_lines}, {"one_line", probed->one_line}}.dump());
  return kGood;
}

// Successive readings of the clock with nothing between them: what is more than 1 µs was somebody else's.
void count_gaps(int cpu, double seconds, Histogram& gaps) {
  if (!tools::perf::pin_to_cpu(cpu)) return;
  Clock clock;
  const std::uint64_t begin = clock.now();
  const auto end = begin + static_cast<std::uint64_t>(seconds * 1e9);
  for (std::uint64_t last = begin, now = begin; last < end; last = now) {
    now = clock.now();
    if (now > last + 1'000) gaps.record(now - last);
  }
}

int gaps(const std::vector<int>& cpus, double seconds) {
  std::vector<std::unique_ptr<Histogram>> found;
  std::vector<std::thread> threads;
  for (const int cpu : cpus) {
    found.push_back(std::make_unique<Histogram>());
    threads.emplace_back(count_gaps, cpu, seconds, std::ref(*found.back()));
  }
  for (std::thread& thread : threads) thread.join();
  auto json = nlohmann::json::array();
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    const Histogram& gap = *found[i];
    const double away = gap.mean() * static_cast<double>(gap.count());
    auto pairs = nlohmann::json::array();
    for (std::size_t b = Histogram::index_of(gap.min());
         gap.count() > 0 && b <= Histogram::index_of(gap.max()); ++b) {
      if (gap.count_at(b) > 0)
        pairs.push_back({std::min(Histogram::highest_of(b), gap.max()), gap.count_at(b)});
    }
    json.push_back({{"cpu", cpus[i]},
                    {"seconds", seconds},
                    {"count", gap.count()},
                    {"max_ns", gap.max()},
                    {"away_share", away / (seconds * 1e9)},
                    {"histogram", pairs}});
  }
  fmt::print("{}\n", json.dump());
  return kGood;
}

// What one CPU took, and when.
struct Reading {
  std::uint64_t at_ns;
  double took_ns;
};

// Multiplications that wait for each other: no memory, nothing that another CPU could be asked for.
double time_arithmetic(const tools::perf::TickClock& ticks) {
  constexpr int kSteps = 200;  // less than half a microsecond at full pace
  const std::uint64_t begin = ticks.now_when_done();
  std::uint64_t value = begin;
  for (int i = 0; i < kSteps; ++i) {
    value = value * 3 + 1;
    asm volatile("" : "+r"(value));
  }
  return static_cast<double>(ticks.now_when_done() - begin) * ticks.ns_per_tick();
}

// Some microseconds in 8 ms, ahead of whoever spins on that CPU where the system allows it.
void watch_pace(int cpu, const tools::perf::TickClock& ticks, const std::atomic<bool>& done,
                std::vector<Reading>& readings) {
  constexpr std::uint64_t kPeriodNs = 8'000'000;
  if (!tools::perf::pin_to_cpu(cpu)) return;
  const sched_param first{.sched_priority = 1};
  ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &first);  // refused: it waits for its turn
  auto due = static_cast<std::uint64_t>(monotonic_ns());
  while (!done.load(std::memory_order_relaxed)) {
    due += kPeriodNs;
    const timespec at{static_cast<time_t>(due / 1'000'000'000), static_cast<long>(due % 1'000'000'000)};
    ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
    // Of two the lesser: one may have been interrupted.
    const double took = std::min(time_arithmetic(ticks), time_arithmetic(ticks));
    readings.push_back({static_cast<std::uint64_t>(monotonic_ns()), took});
  }
}

int pace(const std::vector<int>& cpus) {
  block_signals();
  const auto ticks = tools::perf::TickClock::calibrate();
  std::atomic<bool> done = false;
  std::vector<std::vector<Reading>> readings(cpus.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < cpus.size(); ++i)
    threads.emplace_back(watch_pace, cpus[i], std::cref(ticks), std::cref(done), std::ref(readings[i]));
  wait_for_signal();
  done = true;
  for (std::thread& thread : threads) thread.join();
  auto json = nlohmann::json::array();
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    auto pairs = nlohmann::json::array();
    for (const Reading& reading : readings[i])
      pairs.push_back({reading.at_ns, static_cast<std::uint64_t>(reading.took_ns)});
    json.push_back({{"cpu", cpus[i]}, {"readings", pairs}});
  }
  fmt::print("{}\n", json.dump());
  return kGood;
}

// peer_line probe|gaps|pace --cpus A,B [--seconds S]; -1: it is none of them.
int instruments(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what != "probe" && what != "gaps" && what != "pace") return -1;
  std::vector<int> cpus;
  double seconds = 1;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--cpus") cpus = cpus_of(argv[i + 1]);
    if (name == "--seconds") seconds = std::strtod(argv[i + 1], nullptr);
  }
  if (cpus.size() != 2 || seconds <= 0 || seconds > 600) {
    fmt::print(stderr, "Usage: peer_line probe|pace --cpus A,B | peer_line gaps --cpus A,B --seconds S\n");
    return kFailed;
  }
  if (what == "pace") return pace(cpus);
  return what == "probe" ? probe(cpus) : gaps(cpus, seconds);
}

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) {
  if (const int code = ringtail::peers::instruments(argc, argv); code >= 0) return code;
  return ringtail::peers::peer_main<ringtail::peers::LineSystem>(argc, argv);
}
