// What metrics and the dashboard show of a cluster, made of what the replicator tells.
#pragma once

#include <string>

#include "monitor/snapshot.h"
#include "replication/replicator.h"

namespace ringtail::daemon {

// As node `self` knows it, without ClusterFigures::trouble. Records keep their leader and their ISR when a node
// dies, until somebody is elected; here, who is dead neither leads nor is in sync.
// Thread safety: a pure function.
monitor::ClusterFigures cluster_figures(const std::string& name, const replication::ReplicatorStatus& status,
                                        replication::NodeId self);

}  // namespace ringtail::daemon
