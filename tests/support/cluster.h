// A cluster of ringtaild processes with an etcd of its own, and the faults that may come to it. Where the machine
// allows, each node is a host in a network of its own, whose links can be cut; otherwise all are on the loopback.
//
// Thread safety: for the one thread of a test, before it starts others. Lifetime: everything goes with it.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replication/etcd_coordinator.h"
#include "support/etcd_process.h"
#include "support/host_network.h"
#include "support/run_command.h"

namespace ringtail::test {

// Follows a cluster's records without being a node.
Result<std::unique_ptr<replication::EtcdCoordinator>> observe_cluster(const std::string& endpoint,
                                                                      const std::string& name);

// Puts the records of a topic of one partition, held by `replicas`, which must be alive: all in sync, the first
// leads.
Status commit_topic(replication::Coordinator& coordinator, const std::string& topic,
                    const std::vector<replication::NodeId>& replicas, const TopicConfigs& configs);

struct ClusterOptions {
  std::string daemon;  // path of ringtaild
  int nodes = 3;
  std::chrono::milliseconds lease_ttl{2'000};
  std::chrono::milliseconds lease_margin{500};
  std::chrono::milliseconds lag_time_max{3'000};
  // Of a node's table [replication], beside lag_time_max; its directory is given.
  std::function<std::string(int node, const std::filesystem::path& dir)> replication = {};
  // What every program on a node's host is started by.
  std::function<std::vector<std::string>(int node)> wrapper = {};
};

// Nodes are numbered from 1 on. What cannot be done at all ends the program, with the reason.
class Cluster {
 public:
  explicit Cluster(ClusterOptions options);
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;
  ~Cluster();

  // Starts etcd and every node, and waits until all have joined. False: see trouble().
  bool start();
  const std::string& trouble() const { return trouble_; }
  // What is going on, and the end of each node's log: for the message of a test that failed.
  std::string describe() const;

  // --- Nodes ---
  void start_node(int node);
  void kill_node(int node);
  // SIGTERM, and waits for its end. Its exit code.
  int stop_node(int node);
  void signal_node(int node, int number) const;
  bool is_running(int node) const { return at(node).process != nullptr; }
  pid_t pid_of(int node) const { return at(node).process->pid(); }
  const std::filesystem::path& node_dir(int node) const { return at(node).dir; }
  std::filesystem::path log_dir(int node) const { return at(node).dir / "log"; }
  // What its daemon has said, and what it listens to for the other nodes ("10.0.0.1:9290").
  std::string said_by(int node) const;
  std::string replication_address(int node) const;
  // Where its daemon serves ("127.0.0.1:40001"), and what it answers there; empty while it does not.
  std::string http_address(int node) const;
  std::string fetch(int node, const std::string& path) const;
  // Starts a program on the node's host. It is killed with the test.
  std::unique_ptr<Command> run_on(int node, const std::vector<std::string>& command) const;
  const std::filesystem::path& directory() const { return directory_; }
  int size() const { return static_cast<int>(nodes_.size()); }

  // --- Faults ---
  // Null on the loopback, where there is nothing to cut; why is in no_network().
  HostNetwork* network() { return network_.get(); }
  const std::string& no_network() const { return no_network_; }
  EtcdProcess& etcd() { return *etcd_; }

  // --- Metadata ---
  // A topic of one partition on all nodes, led by `leader`. Waits until every node has it.
  bool create_topic(const std::string& topic, int leader, const TopicConfigs& configs);
  std::shared_ptr<const replication::ClusterState> state() const { return coordinator_->state(); }
  std::optional<replication::PartitionRecord> partition(const std::string& topic) const;
  // The node that leads partition 0 and is alive.
  std::optional<int> leader(const std::string& topic) const;
  // Waits until another than `node` leads.
  std::optional<int> wait_for_leader_but(const std::string& topic, int node) const;
  // Waits until all nodes are alive and in the ISR.
  bool wait_until_whole(const std::string& topic) const;
  // A bound against hanging, not a measurement.
  static bool wait_until(const std::function<bool()>& done);

 private:
  struct Node {
    std::filesystem::path dir;
    std::string replication_address;
    std::unique_ptr<Command> process;
  };

  Node& at(int node) { return nodes_[static_cast<std::size_t>(node - 1)]; }
  const Node& at(int node) const { return nodes_[static_cast<std::size_t>(node - 1)]; }
  void configure(int node);
  void remove_shared_memory(const Node& node) const;

  ClusterOptions options_;
  std::filesystem::path directory_;
  std::string no_network_;  // before the network, whose making says why there is none
  std::unique_ptr<HostNetwork> network_;
  std::string trouble_;
  std::unique_ptr<EtcdProcess> etcd_;
  std::unique_ptr<replication::EtcdCoordinator> coordinator_;
  std::vector<Node> nodes_;
};

}  // namespace ringtail::test
