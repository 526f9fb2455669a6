#include "harness/options.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/result.h"

namespace ringtail::peers {
namespace {

std::uint64_t cpu_ns() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_usec) * 1'000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

std::int64_t max_rss_kib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

nlohmann::json pairs_of(const Histogram& histogram) {
  auto pairs = nlohmann::json::array();
  if (histogram.count() == 0) return pairs;
  const std::size_t last = Histogram::index_of(histogram.max());
  for (std::size_t index = Histogram::index_of(histogram.min()); index <= last; ++index) {
    if (histogram.count_at(index) == 0) continue;
    pairs.push_back({std::min(Histogram::highest_of(index), histogram.max()), histogram.count_at(index)});
  }
  return pairs;
}

}  // namespace

const char* to_string(Channel channel) {
  switch (channel) {
    case Channel::data: return "data";
    case Channel::ping: return "ping";
    case Channel::pong: return "pong";
  }
  return "?";
}

std::string Options::path(Channel channel, unsigned k) const {
  return (dir / fmt::format("{}-{}", to_string(channel), k)).string();
}

int parse(int argc, char** argv, const char* system, Options& options) {
  CLI::App app{fmt::format("{} under the protocol of the performance lab (bench/peers/README.md).", system)};
  app.add_option("role", options.role, "what to be")
      ->required()
      ->check(CLI::IsMember({"produce", "consume", "ping", "pong", "serve", "version"}));
  app.add_option("--run", options.run_path, "the run file");
  app.add_option("--dir", options.dir, "an empty folder for the system's files and sockets");
  app.add_option("--index", options.index, "which producer or consumer this is")
      ->check(CLI::Range(0U, kMaxProducers - 1));
  app.add_option("--size", options.size, "bytes of a payload, a multiple of 8")
      ->check(CLI::Range(std::size_t{32}, std::size_t{1} << 20));
  app.add_option("--rate", options.rate, "records per second; 0: as fast as it goes")
      ->check(CLI::NonNegativeNumber);
  std::string wait = "spin";
  app.add_option("--wait", wait, "how to wait")->check(CLI::IsMember({"spin", "block"}));
  app.add_option("--batch", options.batch, "records handed over in one call")->check(CLI::Range(1U, 4096U));
  app.add_option("--mode", options.mode, "the system's own variant");
  app.add_option("--cpu", options.cpu, "pin to this CPU");
  app.add_option("--hist", options.hist, "where the result goes");
  app.add_option("--slow-ns", options.slow_ns, "consume: idle so long behind each record");
  app.add_option("--topics", options.topics, "serve: idle topics besides");
  app.add_option("--service-cpu", options.service_cpu, "serve: pin the system's own thread");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kGood : kFailed;
  }
  options.block = wait == "block";
  const auto refuse = [&](const char* why) {
    fmt::print(stderr, "{}: {}\n", system, why);
    return kFailed;
  };
  if (options.size % 8 != 0) return refuse("--size must be a multiple of 8");
  if (options.role == "version") return -1;
  if (options.dir.empty()) return refuse("--dir is missing");
  if (options.role != "serve" && options.run_path.empty()) return refuse("--run is missing");
  return -1;
}

Status write_report(const Options& options, const Report& report) {
  if (options.hist.empty()) return {};
  nlohmann::json json = {{"peer", report.peer},       {"version", report.version},
                         {"role", options.role},      {"index", options.index},
                         {"size", options.size},      {"rate", options.rate},
                         {"mode", options.mode},      {"wait", options.block ? "block" : "spin"},
                         {"warmup", report.warmup},   {"measured", report.measured},
                         {"sent", report.sent},       {"first_ns", report.first_ns},
                         {"last_ns", report.last_ns}, {"open_ns", report.open_ns},
                         {"cpu_ns", cpu_ns()},        {"max_rss_kib", max_rss_kib()},
                         {"batch", options.batch},    {"note", report.note}};
  if (report.checks != nullptr) {
    json["received"] = report.checks->received();
    json["lost"] = report.checks->lost();
    json["duplicated"] = report.checks->duplicated();
    json["reordered"] = report.checks->reordered();
    json["corrupt"] = report.checks->corrupt();
  }
  json["histogram"] = report.latency == nullptr ? nlohmann::json::array() : pairs_of(*report.latency);
  std::ofstream file(options.hist);
  file << json.dump() << '\n';
  file.close();
  if (!file) return fail(Code::system, fmt::format("cannot write '{}'", options.hist.string()));
  return {};
}

void block_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

void wait_for_signal() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  int signal = 0;
  ::sigwait(&set, &signal);
}

int report_failure(const char* peer, const Error& error) {
  fmt::print(stderr, "{}: {}\n", peer, error.message);
  return error.code == Code::unsupported || error.code == Code::not_found ? kUnavailable : kFailed;
}

}  // namespace ringtail::peers
