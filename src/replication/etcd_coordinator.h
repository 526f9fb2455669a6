// The coordinator of a cluster: its records in etcd.
//
// Two threads: one keeps the lease alive, one follows the records. Each has a connection of its own, and so have
// the commits, so that none waits for another.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "replication/etcd_follower.h"
#include "replication/etcd_lease.h"

namespace ringtail::replication {

struct EtcdCoordinatorOptions {
  EtcdOptions etcd;
  std::string cluster;  // its name, as of a topic: several may share an etcd
  // Of the lease: how long the others wait for a node that fell silent. etcd counts in whole seconds, and grants
  // no less than one and a half of its election timeouts.
  std::chrono::milliseconds lease_ttl{3'000};
};

class EtcdCoordinator final : public Coordinator {
 public:
  // Connects to nobody yet. Errors: those of check_options, invalid_argument (the cluster's name).
  static Result<std::unique_ptr<EtcdCoordinator>> open(EtcdCoordinatorOptions options);

  void set_on_change(OnChange on_change) override;
  Status observe(std::chrono::milliseconds wait) override;
  Status join(const NodeRecord& node, const JoinOptions& options = {}) override;
  Status leave() override;
  std::int64_t lease_deadline_ns() const override;
  std::shared_ptr<const ClusterState> state() const override;
  Result<bool> commit(std::span<const Change> changes) override;
  Result<bool> expel(NodeId node, std::uint64_t incarnation) override;
  CoordinatorHealth health() const override;
  // For those who want to know whether etcd would survive the loss of a host. Blocks.
  Result<EtcdMembers> members();

 private:
  explicit EtcdCoordinator(const EtcdCoordinatorOptions& options);

  EtcdSession session_;
  const ClusterKeys keys_;
  std::mutex commit_mutex_;
  EtcdConnection commits_;
  EtcdRegistration registration_;
  EtcdFollower follower_;
};

}  // namespace ringtail::replication
