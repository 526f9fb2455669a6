#include "support/temporary_log.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "base/result.h"

namespace ringtail::bench {

void die(const Error& error) { throw std::runtime_error(to_string(error)); }

TemporaryLog::TemporaryLog(const std::filesystem::path& parent) {
  std::string name = (parent / "ringtail-bench-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) die(system_error(errno, fmt::format("cannot make '{}'", name)));
  dir_ = name;
  LogOptions options;
  options.dir = dir_;
  log_.emplace(value_or_die(Log::open(std::move(options))));
}

TemporaryLog::~TemporaryLog() {
  const std::filesystem::path shared = LogOptions().shared_memory_dir / ("ringtail-" + log_->id());
  log_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
  std::filesystem::remove_all(shared, ignored);
}

void TemporaryLog::create_topic(const std::string& name, const TopicConfigs& configs) const {
  const TopicSpec spec{.name = name, .partitions = 1, .configs = configs};
  check_or_die(Admin(*log_).create_topic(spec));
}

}  // namespace ringtail::bench
