// ringtail top
#include <fmt/format.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/standard_streams.h"
#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"
#include "tools/top_screen.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

struct TopArguments {
  double interval_s = 1;
  std::uint64_t samples = 0;
  std::string view{tabs().front().name};
  bool plain = false;
  bool no_color = false;
};

// Looks on where somebody keeps the log; keeps it only where nobody does, for there is no other way to
// look at it.
Result<Log> open_to_look(const GlobalOptions& options) {
  if (options.dir.empty()) return open_log(options, OpenMode::existing);  // says what is missing
  LogOptions looking;
  looking.dir = options.dir;
  looking.create_if_missing = false;
  looking.keeper = KeeperMode::none;
  Result<Log> log = Log::open(std::move(looking));
  if (log || log.error().code != Code::no_keeper) return log;
  return open_log(options, OpenMode::existing);
}

// Keeps what the library says until the screen is gone.
class HeldBackLog {
 public:
  HeldBackLog() : held_(std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(100)) {
    spdlog::default_logger()->sinks().swap(sinks_);
    spdlog::default_logger()->sinks().push_back(held_);
    spdlog::default_logger()->set_pattern("ringtail: %^%l%$: %v");
  }
  HeldBackLog(const HeldBackLog&) = delete;
  HeldBackLog& operator=(const HeldBackLog&) = delete;
  ~HeldBackLog() {
    spdlog::default_logger()->sinks().swap(sinks_);
    for (const std::string& line : held_->last_formatted()) write_to_stderr(line);
  }

 private:
  std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> held_;
  std::vector<spdlog::sink_ptr> sinks_;
};

std::string json_line(const Samples& samples) {
  json object = {{"time_ns", samples.now.wall_ns}};
  if (samples.before) {
    const std::chrono::duration<double> elapsed = samples.now.taken - samples.before->taken;
    object["interval_s"] = elapsed.count();
  }
  for (const Tab& tab : tabs()) object[std::string(tab.name)] = to_json(tab.make(samples));
  return object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string plain_table(const Samples& samples, const Tab& tab) {
  View view = tab.make(samples);
  arrange(view, "", tab.sort, tab.descending);
  std::vector<std::string> titles;
  for (const Column& column : view.columns) titles.push_back(column.title);
  Table table(titles);
  for (const std::vector<Cell>& cells : view.rows) {
    std::vector<std::string> row;
    for (const Cell& cell : cells) row.push_back(cell.text);
    table.add(std::move(row));
  }
  return table.text() + "\n";
}

// Errors: those of Screen::open, and of sampling.
Status show_screen(const Log& log, const TopArguments& arguments, std::size_t tab) {
  const bool colours = !arguments.no_color && std::getenv("NO_COLOR") == nullptr;
  const Result<std::unique_ptr<Screen>> screen = Screen::open(colours);
  if (!screen) return std::unexpected(screen.error());
  const auto interval = static_cast<std::int64_t>(arguments.interval_s * 1e3);
  return TopScreen(**screen, log.dir().string(), milliseconds(interval), tab).run([&log] {
    return take_sample(log);
  });
}

Status print_samples(const Log& log, const TopArguments& arguments, const Tab& tab, bool as_json) {
  const auto interval = std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(arguments.interval_s));
  Samples samples;
  // The first sample is only what the next one's rates are made of.
  for (std::uint64_t count = 0; arguments.samples == 0 || count <= arguments.samples; ++count) {
    if (count > 0 && interrupt::wait(-1, interval) == interrupt::Wake::signalled) return {};
    Result<Sample> sample = take_sample(log);
    if (!sample) return std::unexpected(sample.error());
    if (count > 0) samples.before = std::move(samples.now);
    samples.now = std::move(*sample);
    if (count == 0) continue;
    if (Status printed = print(as_json ? json_line(samples) : plain_table(samples, tab)); !printed)
      return printed.error().code == Code::closed ? Status{} : printed;
  }
  return {};
}

int top(const GlobalOptions& options, const TopArguments& arguments) {
  std::size_t tab = 0;
  while (tabs()[tab].name != arguments.view) ++tab;
  const bool plain = arguments.plain || options.json || arguments.samples > 0 || !can_show_screen();
  std::optional<HeldBackLog>
      held_back;  // before the log, whose threads have something to say until it is closed
  if (!plain) held_back.emplace();
  const Result<Log> log = open_to_look(options);
  if (!log) return report(options, log.error());
  Status done;
  if (!plain) done = show_screen(*log, arguments, tab);
  if (plain || (!done && done.error().code == Code::unsupported))
    done = print_samples(*log, arguments, tabs()[tab], options.json);
  if (!done) return report(options, done.error());
  return interrupt::pending() ? interrupt::exit_code() : kDone;
}

std::vector<std::string> view_names() {
  std::vector<std::string> names;
  for (const Tab& tab : tabs()) names.emplace_back(tab.name);
  return names;
}

}  // namespace

void add_top(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<TopArguments>();
  CLI::App* command = root.add_subcommand("top", "Watch topics, processes and consumer groups live");
  command->add_option("-i,--interval", arguments->interval_s, "Seconds between samples")
      ->check(CLI::Range(0.05, 86400.0))
      ->check(number_above_zero())  // the range has room for what is no number
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_option("-n,--samples", arguments->samples, "Stop after N samples; implies --plain")
      ->check(whole_number(1))
      ->type_name("N");
  command->add_option("--view", arguments->view, "What to show first, or with --plain")
      ->check(CLI::IsMember(view_names()))
      ->capture_default_str();
  command->add_flag("--plain", arguments->plain,
                    "A table each interval instead of the full screen; so without a terminal");
  command->add_flag("--no-color", arguments->no_color, "No colours (also when NO_COLOR is set)");
  command->footer(
      "Takes the keeper's role only while nobody else has it. Press ? for the keys. --json prints an object "
      "a line\nfor each sample.\n\n"
      "Example:\n  ringtail top -i 0.5\n  ringtail top --view groups --plain -n 1");
  command->callback([&options, &exit_code, arguments] { exit_code = top(options, *arguments); });
}

}  // namespace ringtail::tools
