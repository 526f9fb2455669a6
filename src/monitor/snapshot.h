// A look at a log, as metrics and the dashboard show it.
//
// Thread and process safety: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "log/keeper_figures.h"
#include "ringtail/ringtail.h"

namespace ringtail::monitor {

struct PartitionSnapshot {
  PartitionDescription is;
  std::uint64_t repaired_records = 0;  // offsets that aborted records have used up
  std::uint64_t retired_rings = 0;
  std::uint64_t records_total = 0;  // as Totals says
  std::uint64_t bytes_total = 0;

  std::uint64_t durable_lag_records() const;  // committed, not synced; 0 for memory topics
  std::uint64_t durable_lag_bytes() const;
};

struct TopicSnapshot {
  std::string name;
  std::uint64_t topic_id = 0;
  bool on_disk = true;
  std::uint32_t min_insync_replicas = 1;
  std::vector<PartitionSnapshot> partitions;
};

// How long something took, of all times so far; each bucket's bound is LatencyCounts::kBounds.
struct Latencies {
  std::array<std::uint64_t, log::LatencyCounts::kBuckets> counts{};
  std::uint64_t total_ns = 0;

  std::uint64_t count() const;
  Latencies operator-(const Latencies& earlier) const;
  // The time in ns that `percent` % did not exceed, told from the bucket that it lies in; nothing when
  // nothing was counted.
  std::optional<double> percentile(double percent) const;
};

struct KeeperSnapshot {
  std::optional<std::uint32_t> pid;     // of the process that holds the role; none: nobody does
  bool here = false;                    // this process holds it
  std::optional<std::int64_t> idle_ns;  // since the latest round of the keeper here
  std::optional<Error> failure;         // why the keeper here came to nothing
};

struct Snapshot {
  std::int64_t taken_ns = 0;  // CLOCK_MONOTONIC
  std::int64_t wall_ns = 0;   // since the Unix epoch
  std::string log_id;
  std::filesystem::path dir;
  std::vector<TopicSnapshot> topics;
  std::vector<GroupDescription> groups;
  std::vector<ProcessDescription> processes;  // the keeper's entry, then one for each slot in use
  std::uint64_t unreadable_topics = 0;        // whose description on disk is damaged, or not to be read
  std::size_t slots_in_use = 0;
  std::size_t slots = 0;
  KeeperSnapshot keeper;
  Latencies writes;  // by the keeper here
  Latencies syncs;
  std::uint64_t disk_free_bytes = 0;  // of the file system that holds the directory
  std::uint64_t disk_total_bytes = 0;
  std::uint64_t shared_memory_free_bytes = 0;  // of the one that holds the rings
  std::uint64_t shared_memory_total_bytes = 0;
};

// --- Several hosts --------------------------------------------------------------------------------

struct NodeFigures {
  std::uint32_t id = 0;
  std::string rack;
  bool live = false;
  bool draining = false;
  bool self = false;
  std::string trouble = {};  // why there is no connection with it; empty: there is one, or it is not known
};

struct ReplicaFigures {
  std::string topic;
  PartitionId partition{0};
  std::optional<std::uint32_t> leader;  // that is alive; none: nobody leads at present
  std::vector<std::uint32_t> replicas;  // the preferred leader first
  std::vector<std::uint32_t> isr;       // those of it that are alive
  LeaderEpoch epoch{0};
  Offset high_watermark{0};
  std::uint64_t elections = 0;
  std::map<std::uint32_t, std::uint64_t> lag_records;  // by node: how far it is behind; known to the leader
};

struct ClusterFigures {
  std::string name;
  std::string trouble = {};  // why this host is no part of it at present; empty: it is one
  std::vector<NodeFigures> nodes;
  std::vector<ReplicaFigures> partitions;
};

// What replication has to tell. Thread safety: any thread; must not block on the network.
class ClusterSource {
 public:
  virtual ~ClusterSource() = default;
  virtual ClusterFigures figures() const = 0;
};

}  // namespace ringtail::monitor
