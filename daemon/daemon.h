// The life of a ringtaild: opens the log, serves, until a signal ends it.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "daemon/instance.h"
#include "daemon/logging.h"
#include "daemon/service.h"
#include "daemon/signals.h"
#include "monitor/http_server.h"
#include "monitor/watch.h"

namespace ringtail::daemon {

// Thread safety: run() on the main thread, before any other thread exists.
class Daemon {
 public:
  // `load` reads the configuration anew.
  Daemon(Config config, std::string version, std::function<LoadedConfig()> load)
      : config_(std::move(config)), version_(std::move(version)), load_(std::move(load)) {}

  // Blocks until a signal ends it, or nothing can be done. Durable on return without an error: everything
  // committed. Errors: of opening the log or what is beside it; all have been logged.
  Status run();

 private:
  enum class Phase { opening, serving, draining };

  Status take_directory();
  Status open();
  void serve(Signals& signals);
  Status close();
  void reload();
  void apply_reloaded(const Config& next);
  void watch_keeper();
  // Why this process's keeper came to nothing, while nobody keeps the log.
  std::optional<Error> keeper_failure() const;
  std::vector<std::string> not_on_disk() const;
  void watch_status();
  // The line for systemd as it is now, to be told to it.
  const std::string& next_status();

  Status start_http();
  // The configuration, with the port that was found where any that is free is served.
  Config as_served() const;
  Status check_directory() const;
  monitor::HttpAnswers answers();
  std::shared_ptr<monitor::Watch> watch() const;
  std::shared_ptr<Service> service() const;
  template <class Shown>
  void take_back(std::shared_ptr<Shown>& shown);
  monitor::HealthAnswer health() const;
  monitor::HealthAnswer readiness() const;

  Config config_;
  std::string version_;
  std::function<LoadedConfig()> load_;
  Logging logging_;
  std::atomic<Phase> phase_{Phase::opening};
  std::optional<bool> was_keeper_;
  std::string status_;  // as systemd was told last
  std::chrono::steady_clock::time_point next_look_;

  std::optional<Log> log_;
  mutable std::mutex mutex_;  // of the three below, which answers look at
  std::optional<InstanceLock> instance_;
  std::shared_ptr<Service> service_;
  std::shared_ptr<monitor::Watch> watch_;
  std::unique_ptr<monitor::HttpServer> http_;  // its threads use all above
};

}  // namespace ringtail::daemon
