// A node of a cluster at work: what stands behind Replicator.
//
//   node.cc             life, threads, messages, the keeper and the coordinator
//   node_state.cc       what the cluster's records mean for this host
//   node_elections.cc   who is to lead
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "replication/asio.h"
#include "replication/replica.h"
#include "replication/replicator.h"
#include "replication/worker.h"
#include "shm/doorbell.h"

namespace ringtail::replication {

namespace asio = boost::asio;

// How often a node looks at what it has. Of a follower that always has a little on its way, it is known only that it had
// all at the tick before: several of them have to fit into the shortest lag that is too long.
std::chrono::nanoseconds tick_interval(std::chrono::nanoseconds lag_time_max);

// Of so many partitions of which nothing is expected, how many are looked at in a tick: each has its turn every few
// seconds; and in good time before its followers would seem to lag for no other reason than that nobody has looked.
std::size_t looks_in_a_tick(std::size_t partitions, std::chrono::nanoseconds lag_time_max);

// Thread safety: as Replicator; members that are not of it, on the network's thread.
class Node final : public Replicator, public ReplicaHost {
 public:
  Node(std::shared_ptr<LogCore> log, std::shared_ptr<Coordinator> coordinator, ReplicatorOptions options,
       shm::Doorbell doorbell, shm::OwnedSlot slot)
      : log_(std::move(log)),
        coordinator_(std::move(coordinator)),
        options_(std::move(options)),
        slot_(std::move(slot)),
        doorbell_(std::move(doorbell)),
        bell_(context_, doorbell_.descriptor()),
        timer_(context_),
        rest_timer_(context_),
        decide_("ringtail-decide"),
        fetch_("ringtail-fetch"),
        topics_("ringtail-topics") {
    gate_->node = this;
    ship_.self = options_.node.id;
    ship_.window_bytes = options_.window_bytes;
    ship_.slot = slot_.index();
    ship_.fetch = [this](std::function<void()> task) { fetch_.submit(std::move(task)); };
    ship_.post = [this](std::function<void()> task) { asio::post(context_, std::move(task)); };
  }
  ~Node() override { stop(); }

  Status open();
  bool drain(std::chrono::milliseconds patience) override;
  void stop() override;
  void set_throttle(std::int64_t bytes_per_s) override;
  void set_http(const Address& http) override;
  void renew_tls(const PeerTls& files) override;
  ReplicatorStatus status() override;

 private:
  // ReplicaHost
  void take_role(const StreamId& id, log::RoleRequest request) override;
  void commit(const PartitionRecord& record, std::function<void(std::optional<bool>)> done) override;
  std::int64_t lease_deadline_ns() const override {
    const std::int64_t deadline = coordinator_->lease_deadline_ns();
    return deadline == 0 ? 0 : deadline - std::chrono::nanoseconds(options_.lease_margin).count();
  }
  std::int64_t lag_time_max_ns() const override {
    return std::chrono::nanoseconds(options_.lag_time_max).count();
  }
  std::optional<std::string> life_of(NodeId node, bool synced) const override;
  bool is_met(NodeId node) const override;

  template <class Result>
  std::optional<Result> ask(std::function<Result()> question);
  void run();
  void pump_all();
  bool pump_active();
  void listen_to_bell();
  void activate(Replica& replica);
  void tick();
  void look_at_some();

  void on_state(std::shared_ptr<const ClusterState> state);
  void connect();
  void tell_of_itself();
  void tell_strays(const ClusterState& state) const;
  void apply_throttle();
  void take_up_topics();
  void retry_topics();
  void note_topic(const TopicRecord& topic, const Status& made, std::string_view what);
  void provide_topics();
  Status provide_topic(const TopicRecord& topic) const;
  Status adapt_topic(const log::TopicEntry& known, const TopicRecord& topic) const;
  bool is_told_on(const ClusterState& state) const;
  void remove_topics();
  Status remove_topic(const TopicRecord& topic) const;
  void update_replicas();
  void hold_elections();
  std::set<std::uint64_t> topics_in_vain();
  std::optional<PartitionRecord> give_up(const PartitionRecord& record, const ClusterState& drained) const;
  std::optional<PartitionRecord> elect_next(const PartitionRecord& record, const ClusterState& state) const;
  bool give_away(Replica& replica, const ClusterState& drained);
  void carry_out_wishes(Replica& replica);
  void commit_elections(std::vector<std::pair<PartitionRecord, std::int64_t>> elected);
  bool is_registered() const;
  std::optional<NodeId> leader_of(const PartitionRecord& record) const;
  TopicConfig config_of(const std::string& topic) const;
  std::size_t leaderships() const;
  ReplicatorStatus look() const;

  void on_message(Link& link, const Message& message);
  void on_refused(NodeId peer);
  Replica* find(const StreamId& id) {
    const auto found = replicas_.find(id);
    return found == replicas_.end() ? nullptr : found->second.get();
  }

  std::shared_ptr<LogCore> log_;
  std::shared_ptr<Coordinator> coordinator_;
  ReplicatorOptions options_;
  shm::OwnedSlot slot_;
  shm::Doorbell doorbell_;
  asio::io_context context_{1};
  asio::posix::stream_descriptor bell_;
  asio::steady_timer timer_;
  asio::steady_timer rest_timer_;
  bool rests_ = false;  // until the timer says otherwise
  ShipContext ship_;
  std::unique_ptr<Network> network_;

  std::shared_ptr<const ClusterState> state_ = std::make_shared<ClusterState>();
  std::map<StreamId, std::unique_ptr<Replica>> replicas_;
  std::map<std::uint32_t, Replica*> by_index_;
  std::map<Replica*, std::int64_t> active_;        // since when there has been nothing to ship
  std::set<Replica*> restless_;                    // to be looked at in each tick, until they are quiet
  StreamId next_look_;                             // of the quiet ones
  std::map<std::uint64_t, TopicRecord> provided_;  // topics that this host has, as it has them
  std::set<std::uint64_t> providing_;
  std::set<std::uint64_t> retried_topics_;  // did not come off, and wait for their next try
  struct TopicTrouble {
    std::string told;
    std::int64_t since_ns;  // or since its partitions were given away
  };
  std::map<std::uint64_t, TopicTrouble> topic_trouble_;
  std::set<TopicPartition> electing_;
  std::map<NodeId, std::uint64_t> met_;       // incarnations that this node has been connected with
  std::map<NodeId, std::uint64_t> expelled_;  // and those that it takes for dead
  std::uint64_t elections_ = 0;
  bool draining_ = false;
  bool may_lead_ = false;  // the lease stood at the last tick
  std::size_t ticks_ = 0;
  std::int64_t lease_told_ns_ = 0;           // the lease's end as all replicas have it
  std::map<NodeId, std::string> unreached_;  // as they were at the last look
  bool telling_ = false;                     // they are on their way into this node's record
  bool elections_due_ = true;                // something has changed that they depend on, or did not come off

  // By which the threads of coordinator and keeper find this node while it is there.
  struct Gate {
    std::mutex mutex;
    Node* node;
  };
  std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();

  std::atomic<bool> stop_{false};
  std::thread thread_;
  Worker decide_;
  Worker fetch_;
  Worker topics_;
};

}  // namespace ringtail::replication
