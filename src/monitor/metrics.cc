#include "monitor/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <sstream>
#include <utility>
#include <vector>

#include "base/utf8.h"

namespace ringtail::monitor {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// One family after the other. A registry's counters add up what they are told; here everything is counted
// elsewhere already, so a scrape is made of values alone.
class Families {
 public:
  void begin(std::string name, std::string help, MetricType type) {
    families_.push_back({std::move(name), std::move(help), type, {}});
  }
  void gauge(std::string name, std::string help) {
    begin(std::move(name), std::move(help), MetricType::Gauge);
  }
  void counter(std::string name, std::string help) {
    begin(std::move(name), std::move(help), MetricType::Counter);
  }

  // A value of the family begun last. Prometheus refuses the whole text for one label that is not UTF-8.
  void add(Labels labels, double value) {
    for (ClientMetric::Label& label : labels) label.value = to_utf8(label.value);
    ClientMetric metric;
    metric.label = std::move(labels);
    (families_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    families_.back().metric.push_back(std::move(metric));
  }

  void histogram(std::string name, std::string help, const Latencies& latencies) {
    begin(std::move(name), std::move(help), MetricType::Histogram);
    ClientMetric metric;
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < log::LatencyCounts::kBounds.size(); ++i) {
      sum += latencies.counts[i];
      metric.histogram.bucket.push_back({sum, static_cast<double>(log::LatencyCounts::kBounds[i]) / 1e9});
    }
    metric.histogram.sample_count = latencies.count();
    metric.histogram.sample_sum = static_cast<double>(latencies.total_ns) / 1e9;
    families_.back().metric.push_back(std::move(metric));
  }

  // Families without a value are left out.
  std::string text() {
    std::erase_if(families_, [](const MetricFamily& family) { return family.metric.empty(); });
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

 private:
  std::vector<MetricFamily> families_;
};

Labels labels_of(const std::string& topic, PartitionId partition) {
  return {{"topic", topic}, {"partition", std::to_string(partition.value())}};
}

// One figure of each partition; of memory topics only where it means something there.
struct PartitionFigure {
  const char* name;
  const char* help;
  MetricType type;
  bool on_disk_only;
  double (*value)(const PartitionSnapshot&);
};

constexpr auto kGauge = MetricType::Gauge;
constexpr auto kCounter = MetricType::Counter;

template <class Number>
double number(Number value) {
  return static_cast<double>(value);
}

constexpr PartitionFigure kPartitionFigures[] = {
    {"ringtail_partition_records_total", "Offsets given out since the daemon began to look.", kCounter, false,
     [](const PartitionSnapshot& p) { return number(p.records_total); }},
    {"ringtail_partition_bytes_total", "Bytes given out since the daemon began to look.", kCounter, false,
     [](const PartitionSnapshot& p) { return number(p.bytes_total); }},
    {"ringtail_partition_log_end_offset", "The next offset to be given out; falls when the log is cut.",
     kGauge, false, [](const PartitionSnapshot& p) { return number(p.is.log_end_offset.value()); }},
    {"ringtail_partition_log_start_offset", "The first offset that is still kept.", kGauge, false,
     [](const PartitionSnapshot& p) { return number(p.is.log_start_offset.value()); }},
    {"ringtail_partition_durable_offset", "The first offset that is not yet written and synced here.", kGauge,
     true, [](const PartitionSnapshot& p) { return number(p.is.durable_offset.value()); }},
    {"ringtail_partition_high_watermark", "The first offset that not every in-sync replica has.", kGauge,
     false, [](const PartitionSnapshot& p) { return number(p.is.high_watermark.value()); }},
    {"ringtail_partition_durable_lag_records", "Records that are not yet written and synced here.", kGauge,
     true, [](const PartitionSnapshot& p) { return number(p.durable_lag_records()); }},
    {"ringtail_partition_durable_lag_bytes", "Bytes that are not yet written and synced here.", kGauge, true,
     [](const PartitionSnapshot& p) { return number(p.durable_lag_bytes()); }},
    {"ringtail_partition_ring_bytes", "Size of the ring.", kGauge, false,
     [](const PartitionSnapshot& p) { return number(p.is.ring_bytes); }},
    {"ringtail_partition_ring_fill_ratio", "Of the ring, what cannot be used again yet: 0 to 1.", kGauge,
     true, [](const PartitionSnapshot& p) { return p.is.ring_fill(); }},
    {"ringtail_partition_disk_bytes", "Bytes of records in segment files.", kGauge, true,
     [](const PartitionSnapshot& p) { return number(p.is.disk_bytes); }},
    {"ringtail_partition_disk_allocated_bytes",
     "What the partition's files take of the disk: segments are made in full size, ahead of their records.",
     kGauge, true, [](const PartitionSnapshot& p) { return number(p.is.disk_allocated_bytes); }},
    {"ringtail_partition_repaired_records_total", "Offsets used up by claims that were never committed.",
     kCounter, false, [](const PartitionSnapshot& p) { return number(p.repaired_records); }},
    {"ringtail_partition_retired_rings_total", "Rings that were replaced.", kCounter, false,
     [](const PartitionSnapshot& p) { return number(p.retired_rings); }},
    {"ringtail_partition_failed", "1: the partition refuses records, and not for being opened just now.",
     kGauge, false,
     [](const PartitionSnapshot& p) {
       return p.is.failure && p.is.failure->code != Code::would_block ? 1.0 : 0.0;
     }},
    {"ringtail_partition_leader_epoch", "Rises with each new leader.", kGauge, false,
     [](const PartitionSnapshot& p) { return number(p.is.leader_epoch.value()); }},
};

void add_partitions(Families& families, const Snapshot& snapshot) {
  for (const PartitionFigure& figure : kPartitionFigures) {
    families.begin(figure.name, figure.help, figure.type);
    for (const TopicSnapshot& topic : snapshot.topics) {
      if (figure.on_disk_only && !topic.on_disk) continue;
      for (const PartitionSnapshot& p : topic.partitions)
        families.add(labels_of(topic.name, p.is.partition), figure.value(p));
    }
  }
}

void add_groups(Families& families, const Snapshot& snapshot) {
  families.gauge("ringtail_group_members", "Consumers that are members of the group.");
  for (const GroupDescription& group : snapshot.groups)
    families.add({{"group", group.id}}, number(group.members.size()));
  families.gauge("ringtail_group_rebalancing", "1: partitions are on their way between members.");
  for (const GroupDescription& group : snapshot.groups)
    families.add({{"group", group.id}}, group.state == GroupState::rebalancing ? 1 : 0);
  families.gauge("ringtail_group_lag_records", "Records from the group's committed offset to the log end.");
  for (const GroupDescription& group : snapshot.groups) {
    for (const GroupPartitionDescription& p : group.partitions) {
      Labels labels = labels_of(p.partition.topic, p.partition.partition);
      labels.insert(labels.begin(), {"group", group.id});
      families.add(std::move(labels), number(p.lag));
    }
  }
  families.gauge("ringtail_group_committed_offset", "The next record to be read, as the group committed it.");
  for (const GroupDescription& group : snapshot.groups) {
    for (const GroupPartitionDescription& p : group.partitions) {
      if (!p.committed) continue;
      Labels labels = labels_of(p.partition.topic, p.partition.partition);
      labels.insert(labels.begin(), {"group", group.id});
      families.add(std::move(labels), number(p.committed->value()));
    }
  }
}

void add_host(Families& families, const Snapshot& snapshot, const ProcessFigures& process) {
  families.gauge("ringtail_build_info", "1, with the version of the daemon.");
  families.add({{"version", process.version}}, 1);
  families.gauge("ringtail_uptime_seconds", "Since the daemon was started.");
  families.add({}, std::chrono::duration<double>(process.uptime).count());
  families.gauge("ringtail_keeper_present", "1: some process on this host keeps the log.");
  families.add({}, snapshot.keeper.pid ? 1 : 0);
  families.gauge("ringtail_keeper_here", "1: the daemon is the one that keeps it.");
  families.add({}, snapshot.keeper.here ? 1 : 0);
  families.gauge("ringtail_keeper_pid", "The process that keeps the log; 0: none.");
  families.add({}, number(snapshot.keeper.pid.value_or(0)));
  families.gauge("ringtail_unreadable_topics",
                 "Topics whose description on disk is damaged or cannot be read.");
  families.add({}, number(snapshot.unreadable_topics));
  families.gauge("ringtail_slots_in_use", "Producers, consumers and others that are attached, by role.");
  for (const auto role :
       {ProcessRole::producer, ProcessRole::consumer, ProcessRole::coordinator, ProcessRole::admin}) {
    families.add({{"role", std::string(to_string(role))}},
                 number(std::ranges::count(snapshot.processes, role, &ProcessDescription::role)));
  }
  families.gauge("ringtail_slots", "How many may be attached together.");
  families.add({}, number(snapshot.slots));
  families.gauge("ringtail_disk_free_bytes", "Of the file system that holds the log directory.");
  families.add({}, number(snapshot.disk_free_bytes));
  families.gauge("ringtail_disk_bytes", "Size of the file system that holds the log directory.");
  families.add({}, number(snapshot.disk_total_bytes));
  families.gauge("ringtail_shared_memory_free_bytes", "Of the file system that holds the rings.");
  families.add({}, number(snapshot.shared_memory_free_bytes));
  families.gauge("ringtail_shared_memory_bytes", "Size of the file system that holds the rings.");
  families.add({}, number(snapshot.shared_memory_total_bytes));
  families.histogram("ringtail_flush_write_seconds",
                     "Writes of whole blocks to segment files, by the keeper here.", snapshot.writes);
  families.histogram("ringtail_flush_sync_seconds",
                     "Syncs of segment files, with the write linked to them, by the keeper here.",
                     snapshot.syncs);
}

struct ReplicaFigure {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const ReplicaFigures&);
};

constexpr ReplicaFigure kReplicaFigures[] = {
    {"ringtail_replica_count", "Replicas that the partition is to have.", kGauge,
     [](const ReplicaFigures& p) { return number(p.replicas.size()); }},
    {"ringtail_replica_isr_count", "Replicas that are in sync, and alive.", kGauge,
     [](const ReplicaFigures& p) { return number(p.isr.size()); }},
    {"ringtail_replica_leader", "The node that leads, and is alive; 0: none does.", kGauge,
     [](const ReplicaFigures& p) { return number(p.leader.value_or(0)); }},
    {"ringtail_replica_leader_epoch", "Rises with each election.", kGauge,
     [](const ReplicaFigures& p) { return number(p.epoch.value()); }},
    {"ringtail_replica_elections_total", "Elections since the daemon was started.", kCounter,
     [](const ReplicaFigures& p) { return number(p.elections); }},
};

void add_cluster(Families& families, const ClusterFigures& cluster) {
  families.gauge("ringtail_node_ready", "1: this node has its lease, and takes part in the cluster.");
  families.add({}, cluster.trouble.empty() ? 1 : 0);
  for (const ReplicaFigure& figure : kReplicaFigures) {
    families.begin(figure.name, figure.help, figure.type);
    for (const ReplicaFigures& p : cluster.partitions)
      families.add(labels_of(p.topic, p.partition), figure.value(p));
  }
  families.gauge("ringtail_replica_lag_records",
                 "How far a replica is behind the leader, as the leader knows.");
  for (const ReplicaFigures& p : cluster.partitions) {
    for (const auto& [node, lag] : p.lag_records) {
      Labels labels = labels_of(p.topic, p.partition);
      labels.push_back({"node", std::to_string(node)});
      families.add(std::move(labels), number(lag));
    }
  }
  families.gauge("ringtail_node_live", "1: the node's lease stands.");
  for (const NodeFigures& node : cluster.nodes)
    families.add({{"node", std::to_string(node.id)}, {"rack", node.rack}}, node.live ? 1 : 0);
}

}  // namespace

std::string metrics_text(const Snapshot& snapshot, const ProcessFigures& process,
                         const std::optional<ClusterFigures>& cluster) {
  Families families;
  add_host(families, snapshot, process);
  add_partitions(families, snapshot);
  add_groups(families, snapshot);
  if (cluster) add_cluster(families, *cluster);
  return families.text();
}

}  // namespace ringtail::monitor
