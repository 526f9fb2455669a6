// This node's registration in etcd, and the thread that keeps its lease alive.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "replication/cluster_keys.h"
#include "replication/etcd_client.h"

namespace ringtail::replication {

// Thread safety: join and leave on one thread at a time, all else from any. The session must outlive it; when it
// is destroyed without leave(), the lease runs out by itself.
class EtcdRegistration {
 public:
  EtcdRegistration(EtcdSession& session, ClusterKeys keys, std::chrono::milliseconds time_to_live);
  EtcdRegistration(const EtcdRegistration&) = delete;
  EtcdRegistration& operator=(const EtcdRegistration&) = delete;
  ~EtcdRegistration();

  // As Coordinator::join, which also waits for the state; the revision in which the node was registered.
  Result<std::int64_t> join(const NodeRecord& node, const JoinOptions& options,
                            std::chrono::steady_clock::time_point until);
  Status leave();
  std::int64_t deadline_ns() const;

  // Whether join was called, and not followed by leave.
  bool is_wanted() const;
  // The lease under which the node is registered; 0: it is not.
  std::int64_t lease() const;
  std::optional<NodeId> node() const;
  // Why it is not registered, as far as is known; empty: it is, or is not to be.
  std::string refusal() const;

  // What the store says of this node's live key, as of a revision: the lease that holds it, 0 for none.
  // A registration that is gone is made anew.
  void note_live_key(std::int64_t lease, std::int64_t revision);
  // The store began anew: its identity now, or none. A registration in another one is gone.
  void note_store(const std::string& cluster_id);

 private:
  void run();
  // One attempt; nothing: registered.
  Status enter();
  struct Found;
  Result<Found> look_up();
  Status judge(const Found& found) const;
  void keep_alive();
  void lose(std::string_view why);
  void rest(std::chrono::steady_clock::time_point until);
  void stop_thread();

  EtcdSession& session_;
  const ClusterKeys keys_;
  const std::chrono::seconds time_to_live_;
  EtcdConnection connection_;  // of this thread alone, so that no slow request delays a keep-alive

  // Written by the thread, and set to 0 by whoever learns that the lease is gone.
  std::atomic<std::int64_t> deadline_ns_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool finished_ = false;
  bool wanted_ = false;
  std::optional<NodeRecord> node_;
  bool replace_ = false;
  bool was_registered_ = false;  // in this process
  std::int64_t lease_ = 0;       // 0: not registered
  std::int64_t registered_revision_ = 0;
  std::string registered_cluster_;
  std::optional<Error> refusal_;  // of the last attempt
  std::uint64_t attempts_ = 0;

  // Of the thread alone.
  std::string said_;
  std::chrono::milliseconds pause_{0};
  std::chrono::steady_clock::time_point kept_at_;

  std::thread thread_;
};

}  // namespace ringtail::replication
