// What the processes of one repetition do. Each function runs in a child process of its own, attaches
// to the log by itself, and returns when its part is done; a failure names its cause.
#pragma once

#include <string>

#include "ringtail/error.h"
#include "tools/perf_clock.h"
#include "tools/perf_options.h"
#include "tools/perf_shared.h"

namespace ringtail::tools::perf {

struct RunContext {
  const PerfOptions& options;
  const TickClock& clock;
  RunShared& shared;
  std::filesystem::path dir;
  std::string topic;        // what the producer sends to
  std::string reply_topic;  // what the echo of a ping-pong sends to
};

// Holds the keeper role (unless a daemon does), creates the topics and deletes them at the end.
Status run_keeper(const RunContext& run);

// Ping-pong: measures round trips.
Status run_pinger(const RunContext& run);
Status run_echo(const RunContext& run);

// Open and closed loop.
Status run_producer(const RunContext& run, std::uint32_t number);
Status run_consumer(const RunContext& run);

}  // namespace ringtail::tools::perf
