// What every worker of `ringtail perf` does first, and how it reads.
// Thread safety: none; each function is called in the worker's own process.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "ringtail/ringtail.h"
#include "tools/perf_workers.h"

namespace ringtail::tools::perf {

// Pins the process and attaches it to the log. Errors: those of pin_to_cpu and Log::open.
Result<Log> attach(const RunContext& run, int cpu);

// A consumer of all of `topic`, which is as yet empty. Errors: those of Consumer::open and assign.
Result<Consumer> open_consumer(const RunContext& run, const Log& log, const std::string& topic);

// Tells the parent that this worker is ready, and sleeps until all are.
void wait_for_start(const RunContext& run);

// Polls until there are records. Errors: those of poll.
Result<std::span<const Record>> next_records(Consumer& consumer);

// The first bytes of a record's value.
std::uint64_t stamp_of(const Record& record);

}  // namespace ringtail::tools::perf
