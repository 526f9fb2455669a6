// What every sub-command of `ringtail` is given.
#pragma once

#include <filesystem>

namespace ringtail::tools {

// Filled in by the command line's parser before a sub-command runs.
struct GlobalOptions {
  std::filesystem::path dir;  // the log directory; empty: neither --dir nor RINGTAIL_DIR was given
  bool json = false;          // results, errors and notes as JSON objects
  int verbosity = 0;          // the number of -v
};

}  // namespace ringtail::tools
