// The thread that follows the cluster's keys in etcd, and hands out what they say.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "replication/cluster_keys.h"
#include "replication/etcd_client.h"
#include "replication/etcd_lease.h"
#include "replication/state_builder.h"

namespace ringtail::replication {

// Thread safety: start on one thread at a time, all else from any. Session and registration must outlive it.
class EtcdFollower {
 public:
  // `idle`: after how long without a word it asks whether the member that it listens to still answers.
  EtcdFollower(EtcdSession& session, EtcdRegistration& registration, ClusterKeys keys,
               std::chrono::milliseconds idle);
  EtcdFollower(const EtcdFollower&) = delete;
  EtcdFollower& operator=(const EtcdFollower&) = delete;
  ~EtcdFollower();

  void set_on_change(Coordinator::OnChange on_change);
  void start();
  std::shared_ptr<const ClusterState> state() const;
  // Waits until the state is of that revision or a later one; the state's when the store began anew meanwhile.
  bool wait_for(std::int64_t revision, std::chrono::steady_clock::time_point until) const;

 private:
  void run();
  bool is_stopped() const;
  void pause(std::string_view why);
  void rest(std::chrono::milliseconds time);
  Status load();
  Status check_store();
  void note_success();
  bool apply(const std::vector<EtcdEvent>& events);
  void take(const EtcdKeyValue& pair);
  void publish(std::int64_t revision);
  void report_live_key() const;

  EtcdSession& session_;
  EtcdRegistration& registration_;
  const ClusterKeys keys_;
  EtcdConnection connection_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool stop_ = false;
  bool finished_ = false;
  std::shared_ptr<const ClusterState> state_ = std::make_shared<const ClusterState>();
  Coordinator::OnChange on_change_;

  // Of the thread alone.
  StateBuilder builder_;
  std::map<std::string, std::int64_t, std::less<>> live_leases_;  // by key
  Watch watch_;
  bool loaded_ = false;
  std::string said_;
  std::chrono::milliseconds pause_{0};

  std::thread thread_;
};

}  // namespace ringtail::replication
