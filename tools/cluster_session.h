// What the commands share that work on a cluster: how it is named, its records in etcd, and how they are changed.
//
// Thread safety: none needed; a command works on one thread. Lifetime: the connection ends with the session.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "replication/etcd_coordinator.h"
#include "tools/options.h"

namespace ringtail::tools {

struct ClusterOptions {
  std::string config;             // of ringtaild; empty: $RINGTAILD_CONFIG, then the usual place
  std::vector<std::string> etcd;  // with `cluster`, instead of a file
  std::string cluster;
  std::string timeout = "10s";

  // Whether the command line names a cluster.
  bool given() const { return !config.empty() || !etcd.empty() || !cluster.empty(); }
};

// Adds them to a command; the file's option is called `config_name`.
void add_cluster_options(CLI::App& command, ClusterOptions& options, std::string config_name = "--config");

// Where the cluster's records are. Blocks on the disk.
// Errors: invalid_argument (no cluster is named, or not as it must be), and those of the files.
Result<replication::EtcdCoordinatorOptions> etcd_options_of(const ClusterOptions& options);

class ClusterSession {
 public:
  using State = std::shared_ptr<const replication::ClusterState>;
  // What is still to be changed in a state; nothing: all is done.
  using Decide =
      std::function<Result<std::vector<replication::Change>>(const replication::ClusterState& state)>;
  using Clock = std::chrono::steady_clock;

  // Reads the cluster's records and follows them from then on. Blocks up to the options' timeout.
  // Errors: those of etcd_options_of, timed_out (etcd cannot be read), not_found (it has no such cluster),
  // closed (a signal came).
  static Result<std::unique_ptr<ClusterSession>> open(const ClusterOptions& options);
  ~ClusterSession();

  const std::string& name() const { return name_; }
  const std::vector<std::string>& endpoints() const { return endpoints_; }
  State state() const { return coordinator_->state(); }
  replication::CoordinatorHealth health() const { return coordinator_->health(); }

  Result<replication::EtcdMembers> etcd_members() const { return coordinator_->members(); }

  // Commits what `decide` wants, in its order, until it wants nothing more; for at most the options' timeout
  // without progress. Returns the number of changes made, those of unknown outcome not among them.
  // Errors: those of decide and of Coordinator::commit, timed_out, closed (a signal came).
  Result<std::size_t> make(const Decide& decide);
  // These changes or none; see Coordinator::commit.
  Result<bool> commit(std::span<const replication::Change> changes);
  // Waits until `done` says so of a state, for any time. Errors: closed (a signal came).
  Status wait(const std::function<bool(const replication::ClusterState&)>& done);

 private:
  ClusterSession() = default;
  Status observe();
  // Waits for another state than `seen`. False: the time has come, or a signal.
  bool wait_for_change(const State& seen, Clock::time_point until);
  // Waits until the state has what was committed.
  void wait_until_seen(std::span<const replication::Change> changes, Clock::time_point until);

  std::string name_;
  std::vector<std::string> endpoints_;
  std::chrono::milliseconds timeout_{0};
  int changed_fd_ = -1;  // readable once the state is another
  std::unique_ptr<replication::EtcdCoordinator> coordinator_;
};

// The exit code of a command that failed: a signal's, if one came.
int report_cluster(const GlobalOptions& options, const Error& error);

std::vector<std::uint32_t> numbers_of(std::span<const replication::NodeId> nodes);
// "1, 2, 3"; "-" for none.
std::string names_of(std::span<const replication::NodeId> nodes);
// "orders-0".
std::string name_of(const TopicPartition& partition);

}  // namespace ringtail::tools
