// What a run of the command shares: the log it works on, how it fails, and how it is interrupted.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "ringtail/ringtail.h"
#include "tools/options.h"

namespace ringtail::tools {

// Exit codes; a run ended by a signal exits with 128 + its number, as shells do.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;

enum class OpenMode { existing, create };

// Attaches to the log that the options name. Blocks for recovery, as Log::open does.
// Errors: invalid_argument when no directory was named, not_found, already_exists (a log would be made among other
// files), and those of Log::open.
Result<Log> open_log(const GlobalOptions& options, OpenMode mode);

// Prints one line (an object with --json) to standard error. Returns the exit code that goes with it:
// kUsage for arguments nobody could act on, otherwise kFailed.
int report(const GlobalOptions& options, const Error& error);
int report_usage(const GlobalOptions& options, std::string message);
// Prints a result: `object` with --json, `text` otherwise. Returns the exit code that goes with it.
int finish(const GlobalOptions& options, const nlohmann::json& object, std::string_view text);
// A line (an object with --json) that is no error: something the user should know, although the command
// goes on.
void note(const GlobalOptions& options, std::string_view message);
// Such a line of the records that a command's readers have missed; none where there are none.
void note_missed(const GlobalOptions& options, std::uint64_t records);

// SIGINT and SIGTERM end a command at its next convenient point; a second one kills. SIGPIPE is
// ignored: a command whose reader went away ends quietly.
// Thread safety: all functions, after install, from any thread.
namespace interrupt {

void install();
// The signal that came, or 0.
int signal_number();
inline bool pending() { return signal_number() != 0; }
// The exit code of a command that ended because of the signal.
inline int exit_code() { return 128 + signal_number(); }
// Waits until `fd` (-1: none) is readable, the time has passed or a signal came.
enum class Wake { readable, timed_out, signalled };
Wake wait(int fd, std::optional<std::chrono::nanoseconds> timeout);

}  // namespace interrupt

// The values of --isolation-level, of commands that read.
inline constexpr std::string_view kReadUncommitted = "read_uncommitted";
inline constexpr std::string_view kReadCommitted = "read_committed";
inline IsolationLevel isolation_level_of(std::string_view value) {
  return value == kReadCommitted ? IsolationLevel::read_committed : IsolationLevel::read_uncommitted;
}

// Splits "name=value" at the first '='. Errors: invalid_argument, naming `what` and the text.
struct Pair {
  std::string name;
  std::string value;
};
Result<Pair> split_pair(std::string_view text, std::string_view what);

// Replaces \n, \t, \r, \0 and \\ by what they stand for.
std::string unescape(std::string_view text);

}  // namespace ringtail::tools
