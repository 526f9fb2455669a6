// ringtail log: the group of commands that look at files.
#include "tools/commands.h"

namespace ringtail::tools {

void add_log(CLI::App& root, GlobalOptions& options, int& exit_code) {
  CLI::App* log = root.add_subcommand("log", "Check and print a log's files, also while nobody uses it");
  log->require_subcommand(1);
  log->footer("Example:\n  ringtail log verify --dir /var/lib/ringtail");
  add_log_verify(*log, options, exit_code);
  add_log_dump(*log, options, exit_code);
}

}  // namespace ringtail::tools
