// The command `ringtail`: parses the command line; the sub-commands do the rest.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/standard_streams.h"
#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

// --help and --version are exceptions to the parser, which prints them.
int show_help(const CLI::App& root, const CLI::ParseError& what, const GlobalOptions& options) {
  root.exit(what);
  if (std::cout.flush()) return kDone;
  return report(options, fail_errno(errno, "cannot write to standard output").error());
}

// What goes wrong may do so before the parser has reached the flag.
bool asks_for_json(int argc, char** argv) {
  return std::any_of(argv + 1, argv + argc, [](std::string_view arg) { return arg == "--json"; });
}

int run(int argc, char** argv, GlobalOptions& options) {
  int exit_code = kDone;
  CLI::App root("A shared-memory event log with Kafka's model.", "ringtail");
  add_everything(root, options, exit_code);
  interrupt::install();
  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success))
      return show_help(root, error, options);
    options.json |= asks_for_json(argc, argv);
    return report_usage(
        options, fmt::format("{}; see `{} --help`", describe_mistake(root, error), command_so_far(root)));
  }
  return exit_code;
}

}  // namespace
}  // namespace ringtail::tools

int main(int argc, char** argv) {
  ringtail::open_missing_streams();
  ringtail::tools::GlobalOptions options;
  try {
    return ringtail::tools::run(argc, argv, options);
  } catch (const std::exception& error) {
    // Of the parser, of allocation and of std::filesystem; the library throws nothing.
    options.json |= ringtail::tools::asks_for_json(argc, argv);
    return ringtail::tools::report(options, ringtail::Error{ringtail::Code::system, 0, error.what()});
  }
}
