// ringtaild: parses the command line; src and the files beside this one do the rest.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/standard_streams.h"
#include "daemon/config.h"
#include "daemon/daemon.h"

namespace ringtail::daemon {
namespace {

constexpr const char* kDefaultFile = "/etc/ringtail/ringtaild.toml";
constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Options {
  std::string file = kDefaultFile;
  std::vector<std::string> sets;
  std::string dir;
  bool check = false;
  bool json = false;
  bool replace_node = false;
};

void say(std::string_view message) { write_to_stderr(fmt::format("ringtaild: {}\n", message)); }

// Prints a result. Returns `code`, or that of a failure when nobody gets it.
int print(std::string_view text, int code) {
  if (std::cout << text << std::flush) return code;
  say(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  return kFailed;
}

int print_json(const nlohmann::json& object, int code) {
  return print(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", code);
}

int print_problems(const Options& options, const std::vector<ConfigProblem>& problems) {
  if (!options.json) {
    for (const ConfigProblem& p : problems) say(to_string(p));
    return kUsage;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const ConfigProblem& p : problems)
    list.push_back(
        {{"where", p.where}, {"setting", p.setting}, {"problem", p.problem}, {"remedy", p.remedy}});
  const nlohmann::json object = {{"ok", false}, {"problems", std::move(list)}};
  return print_json(object, kUsage);
}

int check(const Options& options, const LoadedConfig& loaded) {
  if (!loaded.problems.empty()) return print_problems(options, loaded.problems);
  const auto warnings = warnings_of(loaded.config);
  if (options.json) {
    const nlohmann::json object = {{"ok", true}, {"config", to_json(loaded.config)}, {"warnings", warnings}};
    return print_json(object, kDone);
  }
  for (const std::string& warning : warnings) say("warning: " + warning);
  return print(to_toml(loaded.config), kDone);
}

// The overrides in the order of the command line but for --dir, which is last.
std::vector<Override> overrides_of(const Options& options) {
  std::vector<Override> overrides;
  for (const std::string& set : options.sets) {
    const std::size_t equals = set.find('=');
    overrides.push_back({set.substr(0, equals), set.substr(equals + 1)});
  }
  if (!options.dir.empty()) {
    // Where there is no working directory it stays relative, which the configuration's checks object to.
    std::error_code error;
    const auto absolute = std::filesystem::absolute(options.dir, error);
    overrides.push_back({"log.dir", error ? options.dir : absolute.native(), "--dir"});
  }
  return overrides;
}

// What is wrong with an option's path.
std::string check_path(const std::string& path) {
  return path.empty() ? "a path is required" : std::string();
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Keeps a Ringtail log, and shows what it is doing.", "ringtaild");
  auto* const file = app.add_option("--config", options.file, "The configuration (TOML)")
                         ->capture_default_str()
                         ->check(check_path);
  app.add_option("--set", options.sets, "Override a setting; may be given several times")
      ->type_name("TABLE.KEY=VALUE")
      ->allow_extra_args(false)
      ->check([](const std::string& text) {
        return text.find('=') == std::string::npos ? "TABLE.KEY=VALUE is required" : std::string();
      });
  app.add_option("--dir", options.dir, "The log directory, as --set log.dir=DIR")->check(check_path);
  app.add_flag("--check", options.check, "Check the configuration, print what is in effect, and end");
  app.add_flag("--replace-node", options.replace_node,
               "Take node.id over from a log directory that is lost for good; for one start");
  app.add_flag("--json", options.json, "With --check: print JSON");
  app.set_version_flag("--version", "ringtaild " RINGTAIL_VERSION);
  app.footer(
      "SIGTERM ends it in good order, SIGHUP makes it read its configuration anew. See docs/daemon.md.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      app.exit(error);
      return print("", kDone);
    }
    // The mistake may have come before the parser reached the flag.
    options.json |= std::any_of(argv + 1, argv + argc, [](std::string_view arg) { return arg == "--json"; });
    return print_problems(options, {{.where = "command line",
                                     .setting = {},
                                     .problem = error.what(),
                                     .remedy = "see `ringtaild --help`"}});
  }
  // Where nobody named a file, the defaults do as long as there is none.
  auto load = [use_file = file->count() > 0, path = options.file,
               overrides = overrides_of(options)]() mutable {
    use_file = use_file || !is_missing(path);
    return load_config(use_file ? path : std::string(), overrides);
  };
  LoadedConfig loaded = load();
  loaded.config.replace_node = options.replace_node;
  if (options.check) return check(options, loaded);
  if (!loaded.problems.empty()) return print_problems({}, loaded.problems);
  return Daemon(loaded.config, RINGTAIL_VERSION, load).run() ? 0 : kFailed;
}

}  // namespace
}  // namespace ringtail::daemon

int main(int argc, char** argv) {
  ringtail::open_missing_streams();
  return ringtail::daemon::run(argc, argv);
}
