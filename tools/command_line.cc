// The command line as a whole: what is true of all sub-commands, and which there are.
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>
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

// The message as a JSON string.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& to) override {
    const nlohmann::json text = std::string(message.payload.data(), message.payload.size());
    const std::string quoted = text.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    to.append(quoted.data(), quoted.data() + quoted.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonMessage>(); }
};

// What the library has to say goes to standard error, so that records stay alone on standard output.
// With --json it is objects, too, a line each, as errors and notes are.
void set_up_logging(int verbosity, bool as_json) {
  auto logger = spdlog::stderr_color_mt("ringtail");
  if (as_json) {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JsonMessage>('*').set_pattern(R"({"log":{"level":"%l","message":%*}})");
    logger->set_formatter(std::move(formatter));
  } else {
    logger->set_pattern("ringtail: %^%l%$: %v");
  }
  logger->set_level(verbosity == 0   ? spdlog::level::warn
                    : verbosity == 1 ? spdlog::level::info
                                     : spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void add_global_options(CLI::App& root, GlobalOptions& options) {
  root.add_option("--dir", options.dir, "The log directory")->envname("RINGTAIL_DIR")->type_name("DIR");
  root.add_flag("--json", options.json, "Print results, errors and notes as JSON");
  root.add_flag("-v,--verbose", options.verbosity, "Say more; twice: even more");
  root.set_version_flag("--version", "ringtail " RINGTAIL_VERSION);
  root.parse_complete_callback([&options] { set_up_logging(options.verbosity, options.json); });
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
