#include "daemon/cluster_figures.h"

#include <optional>
#include <utility>
#include <vector>

#include "replication/placement.h"

namespace ringtail::daemon {
namespace {

using namespace ringtail::replication;

// Why there is no connection with the node, as far as that is known.
std::string trouble_with(const ReplicatorStatus& status, NodeId node) {
  const auto found = status.peers.find(node);
  if (found == status.peers.end() || found->second == kConnected) return {};
  return found->second;
}

std::optional<std::uint32_t> leader_of(const TopicPartition& partition, const ClusterState& state) {
  const auto found = state.partitions.find(partition);
  if (found == state.partitions.end() || !is_led(found->second.record, state)) return std::nullopt;
  return found->second.record.leader->value();
}

monitor::ReplicaFigures figures_of(const ReplicaStatus& p, const ClusterState& state) {
  monitor::ReplicaFigures figures;
  figures.topic = p.partition.topic;
  figures.partition = p.partition.partition;
  figures.leader = leader_of(p.partition, state);
  for (const NodeId node : p.replicas) figures.replicas.push_back(node.value());
  for (const NodeId node : p.isr)
    if (state.live.contains(node)) figures.isr.push_back(node.value());
  figures.epoch = p.epoch;
  figures.high_watermark = p.high_watermark;
  figures.elections = p.elections;
  for (const auto& [node, lag] : p.lag) figures.lag_records[node.value()] = lag;
  return figures;
}

}  // namespace

monitor::ClusterFigures cluster_figures(const std::string& name, const ReplicatorStatus& status,
                                        NodeId self) {
  const ClusterState& state = *status.cluster;
  monitor::ClusterFigures figures{.name = name, .nodes = {}, .partitions = {}};
  for (const auto& [id, stored] : state.nodes)
    figures.nodes.push_back({.id = id.value(),
                             .rack = stored.record.rack,
                             .live = state.live.contains(id),
                             .draining = stored.record.draining,
                             .self = id == self,
                             .trouble = trouble_with(status, id)});
  for (const ReplicaStatus& p : status.partitions) figures.partitions.push_back(figures_of(p, state));
  return figures;
}

}  // namespace ringtail::daemon
