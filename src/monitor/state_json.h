// What the dashboard polls: a snapshot as JSON, with the latest minutes. README.md describes the fields.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>

#include "monitor/history.h"
#include "monitor/metrics.h"
#include "monitor/snapshot.h"

namespace ringtail::monitor {

// Thread safety: a pure function. Text that is no UTF-8 (names of processes) is made it.
nlohmann::json state_json(const Snapshot& snapshot, std::span<const HistoryPoint> history,
                          const ProcessFigures& process, const std::optional<ClusterFigures>& cluster);

// JSON as it is sent.
std::string dump(const nlohmann::json& json);

}  // namespace ringtail::monitor
