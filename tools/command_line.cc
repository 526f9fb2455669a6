// The command line as a whole: what is true of all sub-commands, and which there are.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <string>
#include <string_view>
#include <utility>

#include "tools/commands.h"
#include "tools/option_checks.h"

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

}  // namespace

void add_everything(CLI::App& root, GlobalOptions& options, int& exit_code) {
  add_global_options(root, options);
  add_commands(root, options, exit_code);
  refuse_empty_values(root);
}

}  // namespace ringtail::tools
