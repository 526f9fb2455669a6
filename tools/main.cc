// The command `ringtail`: parses the command line; the sub-commands do the rest.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "tools/commands.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

constexpr std::string_view kFooter =
    "Exit codes: 0 done, 1 failed, 2 wrong usage; after SIGINT 130, after SIGTERM 143.\n"
    "Every sub-command explains itself and has an example: ringtail COMMAND --help\n\n"
    "Example:\n"
    "  export RINGTAIL_DIR=/var/lib/ringtail\n"
    "  ringtail topic create orders --partitions 4\n"
    "  echo 'hello' | ringtail produce orders\n"
    "  ringtail consume orders --from-beginning --exit-at-end";

// What the library has to say goes to standard error, so that records stay alone on standard output.
void set_up_logging(int verbosity) {
  auto logger = spdlog::stderr_color_mt("ringtail");
  logger->set_pattern("ringtail: %^%l%$: %v");
  logger->set_level(verbosity == 0   ? spdlog::level::warn
                    : verbosity == 1 ? spdlog::level::info
                                     : spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void add_global_options(CLI::App& root, GlobalOptions& options) {
  root.add_option("--dir", options.dir, "The log directory")->envname("RINGTAIL_DIR")->type_name("DIR");
  root.add_flag("--json", options.json, "Print results and errors as JSON");
  root.add_flag("-v,--verbose", options.verbosity, "Say more; twice: even more");
  root.set_version_flag("--version", "ringtail " RINGTAIL_VERSION);
  root.parse_complete_callback([&options] { set_up_logging(options.verbosity); });
  root.require_subcommand(1);
  root.fallthrough();
  root.footer(std::string(kFooter));
}

void add_commands(CLI::App& root, GlobalOptions& options, int& exit_code) {
  for (const auto add : {add_topic, add_produce, add_consume, add_group, add_import, add_replay, add_log,
#ifdef RINGTAIL_WITH_CLUSTER
                         add_cluster,
#endif
                         add_top, add_perf, add_doctor, add_completion}) {
    add(root, options, exit_code);
  }
}

// "ringtail topic create": the chain of sub-commands that was recognised before the mistake.
std::string command_so_far(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* chosen : app.get_subcommands()) name += " " + command_so_far(*chosen);
  return name;
}

int run(int argc, char** argv) {
  GlobalOptions options;
  int exit_code = kDone;
  CLI::App root("A shared-memory event log with Kafka's model.", "ringtail");
  add_global_options(root, options);
  add_commands(root, options, exit_code);
  interrupt::install();
  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return root.exit(error);
    // The mistake may have come before the parser reached the flag.
    options.json |= std::any_of(argv + 1, argv + argc, [](std::string_view arg) { return arg == "--json"; });
    const std::string command = command_so_far(root);
    return report_usage(options, fmt::format("{}; see `{} --help`", error.what(), command));
  }
  return exit_code;
}

}  // namespace
}  // namespace ringtail::tools

int main(int argc, char** argv) {
  try {
    return ringtail::tools::run(argc, argv);
  } catch (const std::exception& error) {  // of the parser and of allocation; the library throws nothing
    fmt::print(stderr, "ringtail: {}\n", error.what());
    return ringtail::tools::kFailed;
  }
}
