// ringtail-demo: the actors of scripts/demo, one sub-command each.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <functional>
#include <utility>

#include "tools/demo/demo.h"
#include "tools/session.h"

namespace ringtail::demo {

void sleep_until(std::int64_t monotonic_ns) {
  constexpr std::int64_t kSecondNs = 1'000'000'000;
  const timespec until{.tv_sec = monotonic_ns / kSecondNs, .tv_nsec = monotonic_ns % kSecondNs};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

namespace {

// What the library has to say (recovery, a repair) is part of the show.
void set_up_logging() {
  auto logger = spdlog::stderr_color_mt("ringtail");
  logger->set_pattern("  %^(keeper)%$   %v");
  spdlog::set_default_logger(std::move(logger));
}

using Act = std::function<Status(const Log&)>;

void add_feed(CLI::App& root, Act& act, FeedOptions& feed, const char* name, const char* what,
              Status (*run)(const Log&, const FeedOptions&)) {
  CLI::App* command = root.add_subcommand(name, what);
  command->add_option("TOPIC", feed.topic)->required();
  command->add_option("--seconds", feed.seconds, "How long");
  command->add_option("--rate", feed.rate, "Records a second")->check(CLI::Range(1, 10'000'000));
  command->callback([&act, &feed, run] { act = [&feed, run](const Log& log) { return run(log, feed); }; });
}

int run(int argc, char** argv) {
  tools::GlobalOptions global;
  Act act;
  FeedOptions feed;
  WatchOptions watch;
  VictimOptions victim;
  CheckOptions check;

  CLI::App root("The actors of scripts/demo", "ringtail-demo");
  root.add_option("--dir", global.dir, "The log directory")->envname("RINGTAIL_DIR");
  root.require_subcommand(1);
  root.fallthrough();
  add_feed(root, act, feed, "telemetry", "Samples /proc into a topic", run_telemetry);
  add_feed(root, act, feed, "orders", "Sends made-up orders", run_orders);

  CLI::App* command = root.add_subcommand("watch", "Follows a topic and prints how old records arrive");
  command->add_option("TOPIC", watch.topic)->required();
  command->add_option("--every", watch.every_seconds, "Seconds between lines")
      ->check(CLI::Range(0.1, 3600.0));
  command->callback([&] { act = [&](const Log& log) { return run_watch(log, watch); }; });

  command = root.add_subcommand("victim", "Appends until it is killed");
  command->add_option("TOPIC", victim.topic)->required();
  command->add_option("--acknowledged", victim.acknowledged, "File for the count")->required();
  command->callback([&] { act = [&](const Log& log) { return run_victim(log, victim); }; });

  command = root.add_subcommand("check", "Reads everything back and checks it");
  command->add_option("TOPIC", check.topic)->required();
  command->add_option("--acknowledged", check.acknowledged, "The victim's file")->required();
  command->callback([&] { act = [&](const Log& log) { return run_check(log, check); }; });

  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return root.exit(error) == 0 ? tools::kDone : tools::kUsage;
  }

  set_up_logging();
  tools::interrupt::install();
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // sleep to the microsecond, not to the default 50 of them
  auto log = tools::open_log(global, tools::OpenMode::existing);
  if (!log) return tools::report(global, log.error());
  const Status done = act(*log);
  return done ? tools::kDone : tools::report(global, done.error());
}

}  // namespace
}  // namespace ringtail::demo

int main(int argc, char** argv) { return ringtail::demo::run(argc, argv); }
