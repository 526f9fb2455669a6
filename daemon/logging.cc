#include "daemon/logging.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace ringtail::daemon {
namespace {

// The message as a JSON string.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& to) override {
    const nlohmann::json text = std::string(message.payload.data(), message.payload.size());
    const std::string quoted = text.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    to.append(quoted.data(), quoted.data() + quoted.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonMessage>(); }
};

std::unique_ptr<spdlog::formatter> make_formatter(LogFormat format) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  if (format == LogFormat::json)
    formatter->add_flag<JsonMessage>('*').set_pattern(
        R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","thread":%t,"message":%*})");
  else
    formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v");
  return formatter;
}

// spdlog tells by an exception that a file cannot be opened, so it is tried ahead.
Result<spdlog::sink_ptr> open_sink(const std::string& file) {
  if (file.empty()) return std::make_shared<spdlog::sinks::stderr_sink_mt>();
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd < 0) return fail_errno(errno, fmt::format("cannot write the log file '{}'", file));
  ::close(fd);
  try {
    return std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
  } catch (const spdlog::spdlog_ex& error) {
    return fail(Code::system, fmt::format("cannot write the log file '{}': {}", file, error.what()));
  }
}

}  // namespace

Logging::Logging() : sinks_(std::make_shared<spdlog::sinks::dist_sink_mt>()) {
  auto first = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  first->set_formatter(make_formatter(LogFormat::text));
  sinks_->add_sink(std::move(first));
  auto logger = std::make_shared<spdlog::logger>("ringtail", sinks_);
  logger->flush_on(spdlog::level::trace);
  spdlog::register_logger(logger);
}

Status Logging::configure(const Config& config) {
  auto sink = open_sink(config.logging.file);
  if (!sink) return std::unexpected(sink.error());
  (*sink)->set_formatter(make_formatter(config.logging.format));
  sinks_->set_sinks({*sink});
  spdlog::get("ringtail")->set_level(spdlog::level::from_str(config.logging.level));
  return {};
}

}  // namespace ringtail::daemon
