// A snapshot in the text format of Prometheus. docs/daemon.md lists what there is.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "monitor/snapshot.h"

namespace ringtail::monitor {

// Of the process that shows the metrics.
struct ProcessFigures {
  std::string version;
  std::chrono::nanoseconds uptime{0};
};

// Without a cluster, metrics of replication are left out. Thread safety: a pure function.
std::string metrics_text(const Snapshot& snapshot, const ProcessFigures& process,
                         const std::optional<ClusterFigures>& cluster);

}  // namespace ringtail::monitor
