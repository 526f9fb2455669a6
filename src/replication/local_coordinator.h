// The coordinator of a host that is alone: no etcd, the records in one file, the node always alive.
//
//   <dir>/cluster.json   written anew with each change; a crash leaves the old or the new
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "replication/coordinator.h"
#include "replication/state_builder.h"

namespace ringtail::replication {

// Thread safety: as Coordinator. Process safety: one process for each directory, which holds the daemon's lock
// of it. What commit has made is durable when it returns.
class LocalCoordinator final : public Coordinator {
 public:
  // Reads the file in the log directory, if there is one. Errors: corrupt (the file is no cluster's; a single
  // record that is malformed is only left out), incompatible_layout (it is of another version),
  // permission_denied, system. Blocks on the disk.
  static Result<std::unique_ptr<LocalCoordinator>> open(const std::filesystem::path& dir);
  ~LocalCoordinator() override;

  void set_on_change(OnChange on_change) override;
  Status observe(std::chrono::milliseconds wait) override;
  Status join(const NodeRecord& node, const JoinOptions& options = {}) override;
  Status leave() override;
  std::int64_t lease_deadline_ns() const override;
  std::shared_ptr<const ClusterState> state() const override;
  Result<bool> commit(std::span<const Change> changes) override;
  Result<bool> expel(NodeId, std::uint64_t) override { return false; }  // there is no other node
  CoordinatorHealth health() const override;

 private:
  struct Value {
    std::string text;
    std::int64_t revision = 0;
  };
  using Values = std::map<std::string, Value, std::less<>>;

  explicit LocalCoordinator(std::filesystem::path path) : path_(std::move(path)) {}
  Status load();
  Status store(const Values& values, std::int64_t revision) const;
  Status change(Values values, std::int64_t revision);
  void publish();
  void run();

  const std::filesystem::path path_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Values values_;              // all that is persistent
  std::int64_t revision_ = 0;  // of the last change, of a node's coming and going as well
  std::optional<NodeRecord> node_;
  bool left_ = false;
  StateBuilder builder_;
  std::shared_ptr<const ClusterState> state_ = std::make_shared<const ClusterState>();
  std::string last_error_;
  std::atomic<std::int64_t> deadline_ns_{0};

  OnChange on_change_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ringtail::replication
