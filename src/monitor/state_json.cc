#include "monitor/state_json.h"

#include <nlohmann/json.hpp>

namespace ringtail::monitor {
namespace {

using nlohmann::json;

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json to_json(const PartitionSnapshot& p, bool on_disk) {
  json object = {{"partition", p.is.partition.value()},
                 {"log_start_offset", p.is.log_start_offset.value()},
                 {"high_watermark", p.is.high_watermark.value()},
                 {"log_end_offset", p.is.log_end_offset.value()},
                 {"log_end_position", p.is.log_end_position.value()},
                 {"ring_bytes", p.is.ring_bytes},
                 {"repaired_records", p.repaired_records},
                 {"retired_rings", p.retired_rings},
                 {"leader_epoch", p.is.leader_epoch.value()},
                 {"failure", p.is.failure ? json(to_string(*p.is.failure)) : json(nullptr)}};
  if (!on_disk) return object;
  object["durable_offset"] = p.is.durable_offset.value();
  object["durable_lag_records"] = p.durable_lag_records();
  object["durable_lag_bytes"] = p.durable_lag_bytes();
  object["ring_fill"] = p.is.ring_fill();
  object["disk_bytes"] = p.is.disk_bytes;
  object["disk_allocated_bytes"] = p.is.disk_allocated_bytes;
  return object;
}

json to_json(const TopicSnapshot& topic, const HistoryPoint* latest) {
  json partitions = json::array();
  for (const PartitionSnapshot& p : topic.partitions) partitions.push_back(to_json(p, topic.on_disk));
  json object = {{"name", topic.name},
                 {"storage", topic.on_disk ? "disk" : "memory"},
                 {"min_insync_replicas", topic.min_insync_replicas},
                 {"partitions", std::move(partitions)},
                 {"records_per_s", nullptr},
                 {"bytes_per_s", nullptr}};
  if (latest == nullptr) return object;
  if (const auto rate = latest->topics.find(topic.name); rate != latest->topics.end()) {
    object["records_per_s"] = rate->second.records_per_s;
    object["bytes_per_s"] = rate->second.bytes_per_s;
  }
  return object;
}

json to_json(const GroupDescription& group) {
  json partitions = json::array();
  for (const GroupPartitionDescription& p : group.partitions) {
    partitions.push_back({{"topic", p.partition.topic},
                          {"partition", p.partition.partition.value()},
                          {"committed_offset", p.committed ? json(p.committed->value()) : json(nullptr)},
                          {"log_end_offset", p.log_end_offset.value()},
                          {"lag", p.lag},
                          {"member_id", p.member_id}});
  }
  json members = json::array();
  for (const GroupMemberDescription& member : group.members)
    members.push_back({{"id", member.id}, {"pid", member.pid}, {"partitions", member.partitions.size()}});
  return {{"id", group.id},
          {"state", to_string(group.state)},
          {"generation", group.generation},
          {"members", std::move(members)},
          {"partitions", std::move(partitions)},
          {"trouble", group.trouble ? json(to_string(*group.trouble)) : json(nullptr)}};
}

json to_json(const ProcessDescription& process) {
  return {{"pid", process.pid},
          {"name", process.name},
          {"role", to_string(process.role)},
          {"started_ns", process.started_ns},
          {"alive", process.alive},
          {"reads", process.reads.size()}};
}

json to_json(const HistoryPoint& point) {
  return {{"t", point.wall_ns / 1'000'000},           {"records_per_s", point.all.records_per_s},
          {"bytes_per_s", point.all.bytes_per_s},     {"write_p50_ns", or_null(point.write_p50)},
          {"write_p99_ns", or_null(point.write_p99)}, {"sync_p50_ns", or_null(point.sync_p50)},
          {"sync_p99_ns", or_null(point.sync_p99)}};
}

json to_json(const Latencies& latencies) {
  return {{"count", latencies.count()},
          {"p50_ns", or_null(latencies.percentile(50))},
          {"p99_ns", or_null(latencies.percentile(99))}};
}

json to_json(const ClusterFigures& cluster) {
  json nodes = json::array();
  for (const NodeFigures& node : cluster.nodes)
    nodes.push_back({{"id", node.id},
                     {"rack", node.rack},
                     {"live", node.live},
                     {"draining", node.draining},
                     {"self", node.self},
                     {"trouble", node.trouble}});
  json partitions = json::array();
  for (const ReplicaFigures& p : cluster.partitions) {
    json lag = json::object();
    for (const auto& [node, records] : p.lag_records) lag[std::to_string(node)] = records;
    partitions.push_back({{"topic", p.topic},
                          {"partition", p.partition.value()},
                          {"leader", or_null(p.leader)},
                          {"replicas", p.replicas},
                          {"isr", p.isr},
                          {"epoch", p.epoch.value()},
                          {"high_watermark", p.high_watermark.value()},
                          {"elections", p.elections},
                          {"lag", std::move(lag)}});
  }
  return {{"name", cluster.name},
          {"trouble", cluster.trouble},
          {"nodes", std::move(nodes)},
          {"partitions", std::move(partitions)}};
}

template <class Range>
json to_array(const Range& range) {
  json array = json::array();
  for (const auto& element : range) array.push_back(to_json(element));
  return array;
}

}  // namespace

json state_json(const Snapshot& snapshot, std::span<const HistoryPoint> history,
                const ProcessFigures& process, const std::optional<ClusterFigures>& cluster) {
  const HistoryPoint* latest = history.empty() ? nullptr : &history.back();
  json topics = json::array();
  for (const TopicSnapshot& topic : snapshot.topics) topics.push_back(to_json(topic, latest));
  const KeeperSnapshot& keeper = snapshot.keeper;
  json state = {
      {"version", process.version},
      {"uptime_s", std::chrono::duration<double>(process.uptime).count()},
      {"t", snapshot.wall_ns / 1'000'000},
      {"log", {{"id", snapshot.log_id}, {"dir", snapshot.dir.native()}}},
      {"keeper",
       {{"pid", or_null(keeper.pid)},
        {"here", keeper.here},
        {"failure", keeper.failure ? json(to_string(*keeper.failure)) : json(nullptr)}}},
      {"slots", {{"in_use", snapshot.slots_in_use}, {"total", snapshot.slots}}},
      {"disk", {{"free_bytes", snapshot.disk_free_bytes}, {"total_bytes", snapshot.disk_total_bytes}}},
      {"shared_memory",
       {{"free_bytes", snapshot.shared_memory_free_bytes},
        {"total_bytes", snapshot.shared_memory_total_bytes}}},
      {"topics", std::move(topics)},
      {"groups", to_array(snapshot.groups)},
      {"processes", to_array(snapshot.processes)},
      {"latency", {{"write", to_json(snapshot.writes)}, {"sync", to_json(snapshot.syncs)}}},
      {"history", to_array(history)}};
  if (cluster) state["cluster"] = to_json(*cluster);
  return state;
}

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace ringtail::monitor
