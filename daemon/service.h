// What a daemon does with its log besides keeping it: the seam at which replication is put in.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "daemon/config.h"
#include "monitor/snapshot.h"
#include "ringtail/ringtail.h"

namespace ringtail::daemon {

struct Readiness {
  bool ready = true;
  std::string text;  // in a line: what it is doing, or what it waits for
};

// Thread safety: readiness() and cluster() from any thread; the rest from one, in this order: start, then
// reloads, drain, stop. Lifetime: the log is open from before start to after stop.
class Service {
 public:
  virtual ~Service() = default;

  // Begins its work, on threads of its own. Waits for other hosts for a moment at most, which may say that it is
  // not to be one of them; readiness() tells of them.
  virtual Status start() = 0;
  // Takes over what may change while it runs (SettingInfo::reloads).
  virtual void reload(const Config& config) = 0;
  // Hands over what others can go on with, such as leadership. Returns when that is done, and no later than
  // the deadline.
  virtual void drain(std::chrono::steady_clock::time_point deadline) = 0;
  // Ends its threads. Idempotent; the destructor calls it, too.
  virtual void stop() = 0;

  virtual Readiness readiness() const = 0;
  // For metrics and dashboard; null: there is one host. Lives as long as the service.
  virtual const monitor::ClusterSource* cluster() const = 0;
};

// The service that the configuration asks for. Errors: those of
// make_cluster_service.
Result<std::unique_ptr<Service>> make_service(const Config& config, const Log& log);

}  // namespace ringtail::daemon
