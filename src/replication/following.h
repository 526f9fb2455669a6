// A partition that this node follows: appends what its leader ships, and says how far it is.
//
// Thread safety: the network's thread. Lifetime: the context must outlive it.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "log/role.h"
#include "replication/leading.h"

namespace ringtail::replication {

class FollowingPartition {
 public:
  // `take_role`: asks the keeper; its `done` comes on the network's thread.
  using TakeRole = std::function<void(log::RoleRequest)>;

  // `outcome`: of the fence that came before; the epoch and its leader as the record has them.
  FollowingPartition(ShipContext& context, const log::RoleOutcome& outcome, NodeId leader, LeaderEpoch epoch,
                     TakeRole take_role);
  ~FollowingPartition();

  NodeId leader() const { return leader_; }
  LeaderEpoch epoch() const { return epoch_; }
  const log::PartitionRef& partition() const { return partition_; }

  // Asks the leader to ship, if there is a connection and it has not been asked.
  void ask();
  void on_link_down();
  void on_start(const Message& message);
  void on_frames(const Message& message);
  void on_refuse(const Message& message);
  // More has been synced here, or there is room in the ring again.
  void on_progress();

  log::LogPoint end() const { return end_; }
  bool is_streaming() const { return state_ == State::streaming; }

 private:
  enum class State : std::uint8_t { idle, asked, starting, streaming };

  struct Pending {
    log::LogPoint at;
    std::vector<std::byte> bytes;
  };

  void follow_from(const log::LogPoint& cut, bool restart, log::EpochList epochs);
  bool append(const log::LogPoint& at, std::span<const std::byte> bytes);
  void drain_pending();
  void raise_watermark();
  void send_ack();
  void restart_stream(const std::string& why);
  void tell_restart(const std::string& why);
  void back_off();
  MessageHeader header(MessageType type) const;

  ShipContext& context_;
  log::PartitionRef partition_;
  NodeId leader_;
  LeaderEpoch epoch_;
  TakeRole take_role_;
  State state_ = State::idle;
  bool lost_ = false;       // the leader was, while the keeper was at work
  bool check_all_ = false;  // unchecked frames were damaged
  log::LogPoint end_;
  log::EpochList epochs_;
  std::shared_ptr<log::ReplicaWriter> writer_;
  std::deque<Pending> pending_;  // shipped, and no room in the ring yet: at most the leader's window
  log::LogPoint watermark_;      // as the leader says
  log::LogPoint stopped_at_;     // where the stream ended last
  std::chrono::milliseconds wait_{0};
  std::int64_t ask_at_ns_ = 0;       // not before
  std::int64_t quiet_until_ns_ = 0;  // a stream that begins anew again and again
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ringtail::replication
