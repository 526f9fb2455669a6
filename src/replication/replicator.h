// One node's part in a cluster: it leads some partitions and follows others, as their records say; ships what it
// leads to its followers and appends what it is shipped; and takes part in deciding who leads.
//
// Thread safety: all members may be called from any thread. Threads: one for the network and all partitions
// ("ringtail-ship"), one for decisions that wait for the coordinator ("ringtail-decide"), one that makes and
// deletes topics, for gigabytes of files take the disk a second ("ringtail-topics"), one that reads files for followers
// that are behind ("ringtail-fetch").
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/log_core.h"
#include "replication/coordinator.h"
#include "replication/network.h"

namespace ringtail::replication {

struct ReplicatorOptions {
  NodeRecord node;  // life is filled in
  NetworkOptions network;
  std::chrono::milliseconds lease_margin{500};     // a leader fences itself so long before its lease ends
  std::chrono::milliseconds lag_time_max{10'000};  // replica.lag.time.max.ms
  std::chrono::microseconds spin{20};              // how long to look for records before sleeping
  std::size_t window_bytes = 4 << 20;              // shipped to a follower and not acknowledged, a partition
  std::int64_t throttle_bytes_per_s = 0;           // where the cluster has none; 0: no limit
  bool replace_node = false;                       // JoinOptions::replace
  std::chrono::milliseconds join_wait{10'000};
};

// What a replicator knows of one partition.
struct ReplicaStatus {
  TopicPartition partition;
  std::string role;  // leader, follower, fenced
  LeaderEpoch epoch{0};
  std::optional<NodeId> leader;
  std::vector<NodeId> replicas;
  std::vector<NodeId> isr;
  Offset high_watermark{0};
  Offset log_end{0};
  std::uint64_t elections = 0;  // that this node has seen
  // Of a leader: how many records each follower lacks; those that are not connected are not in it.
  std::map<NodeId, std::uint64_t> lag;
};

// Of a peer with which all is well.
inline constexpr const char* kConnected = "connected";

struct ReplicatorStatus {
  bool joined = false;
  std::shared_ptr<const ClusterState> cluster = std::make_shared<ClusterState>();
  std::vector<ReplicaStatus> partitions;
  std::map<NodeId, std::string> peers;  // kConnected, or the last trouble
  std::uint64_t elections = 0;          // that this node won
  std::uint64_t bytes_shipped = 0;
  std::uint64_t bytes_received = 0;
  CoordinatorHealth coordinator;
};

class Replicator {
 public:
  // Joins the cluster and begins to work. The log must be kept by this process. Blocks up to join_wait; where the
  // coordinator cannot be reached it goes on trying.
  // Errors: those of Network::open and Coordinator::join but timed_out; and of the doorbell.
  static Result<std::unique_ptr<Replicator>> start(std::shared_ptr<LogCore> log,
                                                   std::shared_ptr<Coordinator> coordinator,
                                                   ReplicatorOptions options);
  virtual ~Replicator() = default;

  // Hands over what this node leads, each partition to a replica that has all of it; what nobody else can
  // lead is kept. True when nothing is left. Blocks up to `patience`, and no longer than its lease stands.
  virtual bool drain(std::chrono::milliseconds patience) = 0;
  // As ReplicatorOptions has it, from now on.
  virtual void set_throttle(std::int64_t bytes_per_s) = 0;
  // Where this node's metrics and dashboard are from now on: its record says so soon, or once it is registered.
  virtual void set_http(const Address& http) = 0;
  // Reads certificates and key anew, for connections made from now on; what is wrong with them is logged, and
  // changes nothing. Nothing happens where nodes talk without TLS.
  virtual void renew_tls(const PeerTls& files) = 0;
  // Leaves the cluster and ends all work. Blocks.
  virtual void stop() = 0;
  virtual ReplicatorStatus status() = 0;
};

}  // namespace ringtail::replication
