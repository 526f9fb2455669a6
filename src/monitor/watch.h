// Looks at a log each second, and answers what the web server is asked.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "monitor/collector.h"
#include "monitor/history.h"
#include "monitor/http_server.h"
#include "monitor/metrics.h"

namespace ringtail::monitor {

// Thread safety: all members from any thread; the thread that looks is its own. Lifetime: `cluster` must
// outlive it.
class Watch {
 public:
  // Without a cluster, `cluster` is null. Takes the first look before it returns.
  Watch(Log log, std::string version, const ClusterSource* cluster);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // As of now. Errors: those of Collector::collect.
  Result<std::string> metrics();
  // As of the latest look.
  Result<std::string> state() const;
  // Whether somebody keeps the log, and where that is this process, that it gets on with it. Never blocks.
  HealthAnswer health() const;

 private:
  void run();
  void look();
  ProcessFigures process() const;
  std::optional<ClusterFigures> cluster() const;

  Collector collector_;
  std::string version_;
  const ClusterSource* cluster_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  History history_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  Result<std::shared_ptr<const Snapshot>> latest_;

  std::thread thread_;
};

}  // namespace ringtail::monitor
