// One measurement: probe, repetitions, probe.
#pragma once

#include "ringtail/error.h"
#include "tools/perf_options.h"

namespace ringtail::tools::perf {

// Measures as the (settled) options say. With a terminal as standard error, shows how far it is.
// Topics it creates are deleted, and a temporary log is removed, also after a failure or a signal.
// Requires that the process has one thread and no log open: the workers are forked from it. Blocks.
// Errors: those of the workers, each with the worker's name; closed after SIGINT or SIGTERM.
Result<PerfResult> measure(const PerfOptions& options);

}  // namespace ringtail::tools::perf
