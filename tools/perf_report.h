// What a measurement found, for people and for programs.
// Thread safety: pure functions, but for write_files, which writes the files named in the options.
#pragma once

#include <string>

#include "ringtail/error.h"
#include "tools/perf_options.h"

namespace ringtail::tools::perf {

std::string to_text(const PerfOptions& options, const PerfResult& result);

// One object in one line. Rates are medians over the repetitions; latencies are of all of them
// together; "runs" has each repetition.
std::string to_json(const PerfOptions& options, const PerfResult& result);

// Writes --hgrm and --html, where asked for, each whatever comes of the other.
// Errors: permission_denied, no_space, not_found, system.
Status write_files(const PerfOptions& options, const PerfResult& result);

}  // namespace ringtail::tools::perf
