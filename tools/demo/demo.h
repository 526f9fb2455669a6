// The actors of scripts/demo. Each runs in a process of its own and uses the public API only, so that
// it can be read as an example.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "ringtail/ringtail.h"

namespace ringtail::demo {

struct FeedOptions {
  std::string topic;
  double seconds = 10;
  std::uint64_t rate = 1000;  // records a second
};

// Samples /proc `rate` times a second into the topic, and says what that cost.
Status run_telemetry(const Log& log, const FeedOptions& options);

// Sends made-up orders at a fixed rate, late ones at once, and says what an append cost.
Status run_orders(const Log& log, const FeedOptions& options);

struct WatchOptions {
  std::string topic;
  double every_seconds = 2;  // between two lines of figures
};

// Follows the topic until SIGINT or SIGTERM, and prints how old records were when they arrived.
Status run_watch(const Log& log, const WatchOptions& options);

struct VictimOptions {
  std::string topic;
  std::filesystem::path acknowledged;  // a file of 8 bytes: how many records were acknowledged
};

// Appends numbered records under the key "victim" until it is killed; nearly all its time it is
// between the claim of a record and the commit.
Status run_victim(const Log& log, const VictimOptions& options);

struct CheckOptions {
  std::string topic;
  std::filesystem::path acknowledged;  // as the victim left it
};

// Reads the topic from its beginning to its end and checks that every record that the victim was told
// of is there once and in order. Errors: corrupt, with what is missing.
Status run_check(const Log& log, const CheckOptions& options);

// --- What they share -----------------------------------------------------------------------------

inline constexpr char kVictimKey[] = "victim";

// A failure of the hot path as the error it stands for.
inline std::unexpected<Error> failure(const Producer& producer) { return std::unexpected(producer.error()); }

// Sleeps until the given CLOCK_MONOTONIC time, to the microsecond; returns early at a signal.
void sleep_until(std::int64_t monotonic_ns);

}  // namespace ringtail::demo
