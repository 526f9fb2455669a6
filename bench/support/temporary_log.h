// A log of a benchmark's own, in a folder that is removed with its shared memory at the end.
// Thread safety: none. Failures are exceptions, which end the program: a benchmark has nobody to report
// to, but it removes its files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "ringtail/ringtail.h"

namespace ringtail::bench {

// Throws std::runtime_error with the message of `error`.
[[noreturn]] void die(const Error& error);

template <class T>
T value_or_die(Result<T> result) {
  if (!result) die(result.error());
  return std::move(*result);
}
inline void check_or_die(const Status& status) {
  if (!status) die(status.error());
}

class TemporaryLog {
 public:
  // Makes the folder below `parent`; this process is the keeper.
  explicit TemporaryLog(const std::filesystem::path& parent);
  TemporaryLog(const TemporaryLog&) = delete;
  TemporaryLog& operator=(const TemporaryLog&) = delete;
  // Requires that everything opened from the log is gone.
  ~TemporaryLog();

  const Log& log() const { return *log_; }
  const std::filesystem::path& dir() const { return dir_; }
  // Creates a topic of one partition.
  void create_topic(const std::string& name, const TopicConfigs& configs) const;

 private:
  std::filesystem::path dir_;
  std::optional<Log> log_;
};

}  // namespace ringtail::bench
