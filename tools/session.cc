#include "tools/session.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/standard_streams.h"
#include "tools/output.h"

namespace ringtail::tools {

namespace {

// What is there before a log has an identity, or beside it.
bool may_be_in_new_log(std::string_view name) {
  static constexpr std::string_view kNames[] = {"catalog.lock", "daemon.lock",       "keeper.lock",
                                                "topics",       "ringtail.toml.tmp", "lost+found"};
  return std::ranges::find(kNames, name) != std::end(kNames);
}

// A log is not made among files of somebody else: with --dir DIR it is too easily meant to be in DIR/something.
Status check_new_log(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::directory_iterator entry(dir, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename();
    if (may_be_in_new_log(name)) continue;
    // Behind the listing, for somebody else may be making the same log meanwhile.
    if (std::filesystem::exists(dir / "ringtail.toml", error)) return {};
    return fail(
        Code::already_exists,
        fmt::format("'{}' is no log, and not empty (it has '{}'); give an empty directory or a new one, such "
                    "as --dir '{}'",
                    dir.native(), name, (dir / "ringtail").native()));
  }
  return {};  // what cannot be listed is Log::open's to say
}

void write_line(const nlohmann::json& object) {
  // Messages may quote bytes that are no UTF-8, for example a topic's name.
  write_to_stderr(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace

Result<Log> open_log(const GlobalOptions& options, OpenMode mode) {
  if (options.dir.empty()) {
    return fail(Code::invalid_argument, "no log directory; give --dir DIR or set RINGTAIL_DIR");
  }
  if (mode == OpenMode::create)
    if (const Status checked = check_new_log(options.dir); !checked) return std::unexpected(checked.error());
  LogOptions log_options;
  log_options.dir = options.dir;
  log_options.create_if_missing = mode == OpenMode::create;
  return Log::open(std::move(log_options));
}

int report(const GlobalOptions& options, const Error& error) {
  if (options.json) {
    nlohmann::json object;
    object["error"] = {{"code", to_string(error.code)}, {"message", error.message}};
    if (error.os_errno != 0) object["error"]["errno"] = error.os_errno;
    write_line(object);
  } else {
    note(options, error.message);
  }
  return error.code == Code::invalid_argument ? kUsage : kFailed;
}

int report_usage(const GlobalOptions& options, std::string message) {
  return report(options, Error{Code::invalid_argument, 0, std::move(message)});
}

int finish(const GlobalOptions& options, const nlohmann::json& object, std::string_view text) {
  using nlohmann::json;
  const Status printed = print(
      options.json ? object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n" : std::string(text));
  if (!printed && printed.error().code != Code::closed) return report(options, printed.error());
  return kDone;
}

void note(const GlobalOptions& options, std::string_view message) {
  if (options.json) {
    nlohmann::json object;
    object["note"] = message;
    write_line(object);
  } else {
    write_to_stderr(fmt::format("ringtail: {}\n", message));
  }
}

void note_missed(const GlobalOptions& options, std::uint64_t records) {
  if (records == 0) return;
  note(options, fmt::format("missed {} records that were overwritten or deleted before they were read",
                            grouped(records)));
}

namespace interrupt {
namespace {

std::atomic<int> received{0};
int wake_fd = -1;

void on_signal(int number) {
  const int saved = errno;
  received.store(number, std::memory_order_relaxed);
  const std::uint64_t one = 1;
  // The descriptor wakes a wait that has looked at `received` already and not yet gone to sleep.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd, &one, sizeof one);
  errno = saved;
}

}  // namespace

void install() {
  wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

int signal_number() { return received.load(std::memory_order_relaxed); }

Wake wait(int fd, std::optional<std::chrono::nanoseconds> timeout) {
  if (pending()) return Wake::signalled;
  pollfd watched[2] = {{wake_fd, POLLIN, 0}, {fd, POLLIN, 0}};
  timespec limit = {};
  if (timeout) {
    const std::int64_t ns = std::max<std::int64_t>(timeout->count(), 0);
    limit = {ns / 1'000'000'000, ns % 1'000'000'000};
  }
  const int ready = ::ppoll(watched, fd < 0 ? 1 : 2, timeout ? &limit : nullptr, nullptr);
  if (pending()) return Wake::signalled;
  return ready > 0 && fd >= 0 && watched[1].revents != 0 ? Wake::readable : Wake::timed_out;
}

}  // namespace interrupt

Result<Pair> split_pair(std::string_view text, std::string_view what) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return fail(Code::invalid_argument, fmt::format("{} '{}' is not of the form NAME=VALUE", what, text));
  }
  return Pair{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'r': out += '\r'; break;
      case '0': out += '\0'; break;
      case '\\': out += '\\'; break;
      default: out += '\\', out += text[i];
    }
  }
  return out;
}

}  // namespace ringtail::tools
