// The two feeds: this machine's own telemetry, and made-up orders.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/result.h"
#include "tools/demo/demo.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::demo {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;
// Records that are due are sent in small bursts, for a CPU is not to be spent on waiting.
constexpr std::int64_t kTickNs = 50'000;

// A file of /proc, kept open and read anew from its start.
class ProcFile {
 public:
  static Result<ProcFile> open(const char* path) {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return std::unexpected(system_error(errno, fmt::format("cannot open {}", path)));
    return ProcFile(fd);
  }
  ProcFile(ProcFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ProcFile& operator=(ProcFile&&) = delete;
  ~ProcFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  // What it says now, up to 64 KiB, with a zero behind it. Valid until the next call.
  std::string_view read() {
    const ssize_t got = ::pread(fd_, text_->data(), text_->size() - 1, 0);
    const std::size_t bytes = got > 0 ? static_cast<std::size_t>(got) : 0;
    (*text_)[bytes] = '\0';
    return {text_->data(), bytes};
  }

 private:
  using Text = std::array<char, 65536>;  // /proc/stat is long where there are many interrupts

  explicit ProcFile(int fd) : fd_(fd) {}
  int fd_;
  std::unique_ptr<Text> text_ = std::make_unique<Text>();
};

// The `index`th number of the line of `text` that starts with `label`; 0 when there is none.
std::uint64_t number_in(std::string_view text, std::string_view label, int index = 0) {
  const std::size_t at = text.find(label);
  if (at == std::string_view::npos) return 0;
  const char* cursor = text.data() + at + label.size();
  std::uint64_t number = 0;
  for (int i = 0; i <= index; ++i) {
    char* end = nullptr;
    number = std::strtoull(cursor, &end, 10);
    cursor = end;
  }
  return number;
}

// What a feed does at a fixed rate: calls `send` for every record that is due, and keeps the time that
// each took. A feed that is late catches up at once, so the rate holds and nothing is hidden.
template <class Send>
Result<std::unique_ptr<Histogram>> run_at_rate(const FeedOptions& options, Send send) {
  auto append_ns = std::make_unique<Histogram>();
  const std::int64_t start = monotonic_ns();
  const auto total = static_cast<std::uint64_t>(options.seconds * static_cast<double>(options.rate));
  const std::int64_t interval = std::max(kTickNs, kSecondNs / static_cast<std::int64_t>(options.rate));
  std::uint64_t sent = 0;
  for (std::int64_t tick = start; sent < total && !tools::interrupt::pending(); tick += interval) {
    sleep_until(tick);
    const auto elapsed = static_cast<std::uint64_t>(monotonic_ns() - start);
    const auto due =
        static_cast<std::uint64_t>(static_cast<double>(elapsed) * 1e-9 * static_cast<double>(options.rate));
    for (; sent < std::min(due + 1, total); ++sent) {
      const Result<std::uint64_t> took = send(sent);
      if (!took) return std::unexpected(took.error());
      append_ns->record(*took);
    }
  }
  return append_ns;
}

void report(std::string_view what, const Histogram& append_ns) {
  fmt::print("  {:<10} {:>9} records appended; one append took p50 {}, p99 {}, p99.9 {}\n", what,
             tools::grouped(append_ns.count()), tools::human_nanoseconds(append_ns.percentile(50)),
             tools::human_nanoseconds(append_ns.percentile(99)),
             tools::human_nanoseconds(append_ns.percentile(99.9)));
}

Result<std::uint64_t> timed_send(Producer& producer, const ProducerRecord& record) {
  const std::int64_t before = monotonic_ns();
  if (!producer.send(record)) return failure(producer);
  return static_cast<std::uint64_t>(monotonic_ns() - before);
}

}  // namespace

Status run_telemetry(const Log& log, const FeedOptions& options) {
  auto stat = ProcFile::open("/proc/stat");
  if (!stat) return std::unexpected(stat.error());
  auto memory = ProcFile::open("/proc/meminfo");
  if (!memory) return std::unexpected(memory.error());
  auto producer = Producer::open(log, {.topic = options.topic});
  if (!producer) return std::unexpected(producer.error());

  fmt::memory_buffer value;
  auto append_ns = run_at_rate(options, [&](std::uint64_t) {
    const std::string_view cpu = stat->read();
    value.clear();
    fmt::format_to(std::back_inserter(value),
                   R"({{"user":{},"system":{},"idle":{},"switches":{},"running":{},"available_kb":{}}})",
                   number_in(cpu, "cpu "), number_in(cpu, "cpu ", 2), number_in(cpu, "cpu ", 3),
                   number_in(cpu, "ctxt "), number_in(cpu, "procs_running "),
                   number_in(memory->read(), "MemAvailable:"));
    return timed_send(*producer, {.key = "machine", .value = {value.data(), value.size()}});
  });
  if (!append_ns) return std::unexpected(append_ns.error());
  report(options.topic, **append_ns);
  return {};
}

Status run_orders(const Log& log, const FeedOptions& options) {
  static constexpr std::array<std::string_view, 8> kSymbols{"ACME", "BOLT", "CRUX", "DUNE",
                                                            "EPIC", "FLUX", "GRIT", "HALO"};
  auto producer = Producer::open(log, {.topic = options.topic});
  if (!producer) return std::unexpected(producer.error());

  std::array<std::int64_t, kSymbols.size()> price_cents;
  price_cents.fill(10'000);
  std::uint64_t random = 1;
  fmt::memory_buffer value;
  auto append_ns = run_at_rate(options, [&](std::uint64_t number) {
    random = random * 6364136223846793005 + 1442695040888963407;  // Knuth's, of which the high bits are good
    const std::uint64_t draw = random >> 40;
    const std::size_t symbol = draw % kSymbols.size();
    price_cents[symbol] += static_cast<std::int64_t>(draw / 8 % 3) - 1;
    value.clear();
    fmt::format_to(std::back_inserter(value), "{} {} {} @ {}.{:02}", number, draw / 32 % 2 ? "buy" : "sell",
                   1 + draw / 64 % 100, price_cents[symbol] / 100, price_cents[symbol] % 100);
    return timed_send(*producer, {.key = kSymbols[symbol], .value = {value.data(), value.size()}});
  });
  if (!append_ns) return std::unexpected(append_ns.error());
  report(options.topic, **append_ns);
  return {};
}

}  // namespace ringtail::demo
