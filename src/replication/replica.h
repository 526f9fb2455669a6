// One partition on one node: its record says what the node is to be, the keeper makes it so, and then it leads or
// follows.
//
// Thread safety: the network's thread. Lifetime: the context and the host must outlive it.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/topic_config.h"
#include "replication/following.h"
#include "replication/leading.h"

namespace ringtail::replication {

// What a replica needs of its node.
class ReplicaHost {
 public:
  virtual ~ReplicaHost() = default;
  // Asks the keeper; `done` comes on the network's thread.
  virtual void take_role(const StreamId& id, log::RoleRequest request) = 0;
  // Puts a changed record, if the one that stands is still the one that this node has seen. `done` comes on the
  // network's thread: true, false, or nothing when that is not known.
  virtual void commit(const PartitionRecord& record, std::function<void(std::optional<bool>)> done) = 0;
  // Until when this node may lead, CLOCK_BOOTTIME; its margin is taken off.
  virtual std::int64_t lease_deadline_ns() const = 0;
  // How long an in-sync replica may lack records before it is none.
  virtual std::int64_t lag_time_max_ns() const = 0;
  // The life of a node that counts for a partition; nothing if the node is not alive.
  virtual std::optional<std::string> life_of(NodeId node, bool synced) const = 0;
  // Whether the connection with a node is with the daemon that is registered now, whose life that is.
  virtual bool is_met(NodeId node) const = 0;
};

class Replica {
 public:
  Replica(ShipContext& context, ReplicaHost& host, TopicPartition name, StreamId id)
      : context_(context), host_(host), name_(std::move(name)), id_(id) {}
  ~Replica() { *alive_ = false; }
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // The record as it is now; whom it is led by, if that one is alive and was elected in its present incarnation.
  void set_record(const Stored<PartitionRecord>& record, std::optional<NodeId> leader,
                  const TopicConfig& config);
  // Lag, in-sync replicas, the lease; now and then.
  void tick(std::int64_t now_ns);
  // Tells producers and the keeper how long this node may lead now.
  void renew_lease();
  // Whether nothing is to be expected but what it will be told of: it need not be looked at in every tick.
  bool is_quiet() const;
  // This node's lease is gone: it leads nothing.
  void fence();
  // Gives the leadership to `next`, the record that names another leader: refuses appends, ships what is left, and
  // then commits it. One that it cannot come to have, it gives at once. Nothing happens while nothing is shipped to that
  // leader: to be asked for again.
  void hand_over(const PartitionRecord& next);
  bool is_handing_over() const { return next_.has_value(); }
  // It leads, and cannot store or read what is appended: its disk is full, a write failed, its ring is damaged. Or it is
  // to lead, and cannot.
  bool is_stuck() const { return stuck_; }
  // Puts a changed record that names the same leader.
  void change(const PartitionRecord& next);

  const PartitionRecord& record() const { return record_; }
  std::int64_t revision() const { return revision_; }
  // Changes of the leader epoch that this node has seen.
  std::uint64_t elections() const { return elections_; }
  const TopicPartition& name() const { return name_; }
  const StreamId& id() const { return id_; }
  LeadingPartition* leading() { return leading_.get(); }
  FollowingPartition* following() { return following_.get(); }
  // Of its entry in the control segment, once the keeper has been asked.
  std::optional<std::uint32_t> index() const {
    return partition_ ? std::optional(partition_->index) : std::nullopt;
  }

  // Ships what there is. True when there was something.
  bool pump();
  void on_ack(NodeId node, const Message& message);
  void on_link_up(NodeId node);
  void on_link_down(NodeId node);
  void on_progress();
  void on_follow(Link& link, const Message& message);

 private:
  // What it is to be.
  struct Wanted {
    shm::ReplicaRole role = shm::ReplicaRole::fenced;
    NodeId leader{0};
    LeaderEpoch epoch{0};

    friend bool operator==(const Wanted&, const Wanted&) = default;
  };

  void approach();
  void ask_fence();
  void ask_lead();
  void begin_lead(const log::RoleOutcome& outcome, const Wanted& aim);
  void tell_replicas() const;
  void confirm();
  void require();
  bool counts_synced() const;
  bool is_there_by_memory(const IsrMember& member) const;
  bool may_join_anew(const IsrMember& member) const;
  bool some_join_anew() const;
  void put(const PartitionRecord& next);
  void begin_commit();
  void on_committed(std::optional<bool> made);
  void refuse(Link& link, LeaderEpoch epoch, std::string_view why, std::uint8_t flags = 0) const;
  void begin_follow(const log::RoleOutcome& outcome);
  bool isr_stands(std::int64_t now_ns) const;
  bool lives_on(NodeId node) const;
  void look_at_isr(std::int64_t now_ns);
  void propose(const std::set<NodeId>& isr);
  void tell_change(const std::set<NodeId>& before, const std::set<NodeId>& after, std::int64_t now_ns) const;
  void look_at_disk(std::int64_t now_ns);
  void look_at_vain(std::int64_t now_ns);
  bool has_failed() const;
  bool has_stopped() const;
  std::int64_t patience_ns() const;
  bool is_shipped_to(NodeId node) const;
  bool took_nothing(NodeId node) const;
  void step_hand_over();
  void lead_anew();
  void give_up(const PartitionRecord& next);
  // A record that names another leader is on its way, or will be told, of what this node does not lead.
  bool is_given_up() const { return given_up_ && (committing_ || await_record_); }

  ShipContext& context_;
  ReplicaHost& host_;
  TopicPartition name_;
  StreamId id_;
  TopicConfig config_;
  PartitionRecord record_;
  std::int64_t revision_ = -1;
  std::uint64_t elections_ = 0;
  Wanted wanted_;
  Wanted asked_;  // of the keeper, to lead
  Wanted reached_;
  bool asking_ = false;  // the keeper is at work
  std::optional<log::PartitionRef> partition_;
  std::unique_ptr<LeadingPartition> leading_;
  std::unique_ptr<FollowingPartition> following_;
  std::optional<PartitionRecord> next_;        // the leadership is being given to its leader
  std::optional<log::LogPoint> hand_over_at_;  // where the log ended when appends were refused
  std::int64_t hand_over_until_ns_ = 0;        // then it is given up
  std::pair<NodeId, std::int64_t> not_to_{
      0, 0};  // whom it was given up of, and until when he is not tried again
  bool stuck_ = false;
  std::int64_t vain_since_ns_ = 0;  // since when it is to lead and does not; 0: it is not, or does
  bool asking_to_lead_ = false;     // that is what the keeper is at, and it was not taken back
  bool committing_ = false;
  bool given_up_ = false;              // what is committed gives away what it does not lead
  std::set<NodeId> proposed_;          // since the record was seen last: all who may have come into the ISR
  bool proposed_synced_ = false;       // some of them with the life of their disks
  std::int64_t commit_revision_ = -1;  // of the record that the commit changes
  bool await_record_ = false;  // a change of the record was made, by this node or another: it will be told
  std::int64_t retry_ns_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ringtail::replication
