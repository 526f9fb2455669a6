// `ringtail perf`: what this machine does with this log.
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/perf_options.h"
#include "tools/perf_report.h"
#include "tools/perf_run.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using perf::PerfOptions;

struct PerfCommand {
  PerfOptions options;
  std::vector<std::string> configs;
};

int run_perf(const GlobalOptions& global, PerfCommand& command) {
  PerfOptions& options = command.options;
  options.dir = global.dir;
  for (const std::string& text : command.configs) {
    auto pair = split_pair(text, "--config");
    if (!pair) return report(global, pair.error());
    options.configs[pair->name] = pair->value;
  }
  if (const Status settled = options.settle(); !settled) return report(global, settled.error());
  const auto result = perf::measure(options);
  if (!result) return interrupt::pending() ? interrupt::exit_code() : report(global, result.error());
  // First of all, for a file that cannot be written must not cost the measurement.
  const Status printed =
      print(global.json ? perf::to_json(options, *result) : perf::to_text(options, *result));
  const Status written = perf::write_files(options, *result);
  int exit_code = kDone;
  if (!printed && printed.error().code != Code::closed) exit_code = report(global, printed.error());
  if (!written) exit_code = report(global, written.error());
  return exit_code;
}

void add_stream_options(CLI::App& app, PerfCommand& command) {
  PerfOptions& options = command.options;
  app.add_option("--storage", options.storage, "Where the topic lives")
      ->check(CLI::IsMember({"memory", "disk"}))
      ->capture_default_str();
  app.add_option("--size", options.size, "Bytes of a record's value")
      ->check(whole_number())
      ->type_name("BYTES")
      ->capture_default_str();
  auto* count =
      app.add_option("--count", options.count, "Records to measure")->check(whole_number(1))->type_name("N");
  app.add_option("--seconds", options.seconds, "How long to measure")
      ->check(number_above_zero())
      ->excludes(count)
      ->capture_default_str();
  app.add_option("--warmup", options.wanted_warmup,
                 "Records before the measurement, 0: none (default: by the method, and round trips for no "
                 "longer than --seconds)")
      ->check(whole_number())
      ->type_name("N");
  app.add_option("--rate", options.rate, "Open loop: records per second of all producers together")
      ->check(number_above_zero());
  app.add_option("--batch", options.batch, "Records per append")
      ->check(whole_number())
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--producers", options.producers, "Producer processes")
      ->check(whole_number())
      ->type_name("N")
      ->capture_default_str();
  app.add_flag("--claim", options.claim, "Write values in place, in the ring");
  app.add_flag("--exclusive", options.exclusive, "The producer has its topic for itself");
  app.add_option("--config", command.configs, "A configuration of the topic; may be given again")
      ->type_name("NAME=VALUE");
}

void add_machine_options(CLI::App& app, PerfOptions& options) {
  static const std::map<std::string, WaitStrategy> kWaits{
      {"busy", WaitStrategy::busy_spin}, {"yield", WaitStrategy::yield}, {"futex", WaitStrategy::futex}};
  app.add_option("--wait", options.wait, "How the consumer waits: busy (default), yield, futex")
      ->transform(CLI::CheckedTransformer(kWaits, CLI::ignore_case))
      ->type_name("HOW");
  app.add_option("--cpus", options.cpus,
                 "CPUs of producer, consumer, further producers (default: the first two)")
      ->delimiter(',')
      ->check(whole_number())
      ->type_name("A,B");
  app.add_option("--keeper-cpu", options.keeper_cpu, "CPU of the keeper (default: any)")
      ->check(whole_number())
      ->type_name("N");
  app.add_option("--repeat", options.repeat, "Repetitions")
      ->check(whole_number(1, 1000))
      ->capture_default_str();
  app.add_option("--hgrm", options.hgrm_file, "Write the distribution for HdrHistogram's plotter")
      ->type_name("FILE");
  app.add_option("--html", options.html_file, "Write a page with the percentile curves")->type_name("FILE");
}

void add_mode(CLI::App& perf, GlobalOptions& global, int& exit_code, const std::string& mode,
              const std::string& description, const std::string& footer) {
  auto command = std::make_shared<PerfCommand>();
  command->options.mode = mode;
  CLI::App* app = perf.add_subcommand(mode, description);
  add_stream_options(*app, *command);
  add_machine_options(*app, command->options);
  app->footer(footer);
  app->callback([command, &global, &exit_code] { exit_code = run_perf(global, *command); });
}

}  // namespace

void add_perf(CLI::App& root, GlobalOptions& options, int& exit_code) {
  CLI::App* perf = root.add_subcommand(
      "perf",
      "Measure latency and throughput between processes, in topics of its own that are deleted afterwards");
  perf->require_subcommand(1);
  perf->footer(
      "Without --dir (and RINGTAIL_DIR) it measures in a temporary log below the current folder.\n\n"
      "Example:\n  ringtail perf latency --size 32 --storage disk --html latency.html");
  add_mode(*perf, options, exit_code, "latency",
           "Round trips of one record between two processes; with --rate, delays in an open loop",
           "Example:\n  ringtail perf latency --size 32\n"
           "  ringtail perf latency --rate 1000000 --seconds 10 --hgrm delays.hgrm");
  add_mode(*perf, options, exit_code, "throughput", "Records per second from producers to a consumer",
           "Example:\n  ringtail perf throughput --storage memory --batch 64\n"
           "  ringtail perf throughput --size 1024 --producers 2 --cpus 0,1,2 --json");
}

}  // namespace ringtail::tools
