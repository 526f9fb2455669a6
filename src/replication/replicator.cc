#include "replication/replicator.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <atomic>
#include <boost/asio.hpp>
#include <future>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/logger.h"
#include "base/parse.h"
#include "base/random.h"
#include "replication/placement.h"
#include "replication/replica.h"
#include "replication/worker.h"
#include "shm/doorbell.h"
#include "shm/process.h"

namespace ringtail::replication {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::milliseconds kTick{25};
constexpr std::size_t kChangesAtOnce = 32;

// What a crash of the host would take with it: the shared memory of this log, since this boot.
std::string life_of_memory(const log::Attachment& attachment) {
  struct ::stat status = {};
  ::stat((attachment.place().shm_dir / "control").c_str(), &status);
  const auto boot = shm::boot_id().value_or(std::array<std::uint64_t, 2>{});
  return to_hex(boot[0] ^ boot[1] ^ status.st_ino * 0x9e3779b97f4a7c15 ^
                static_cast<std::uint64_t>(status.st_ctim.tv_nsec) << 32 ^
                static_cast<std::uint64_t>(status.st_ctim.tv_sec));
}

}  // namespace

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
        decide_("ringtail-decide"),
        fetch_("ringtail-fetch") {
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
  ReplicatorStatus status() override;

 private:
  // ReplicaHost
  void take_role(const StreamId& id, log::RoleRequest request) override;
  void commit(const PartitionRecord& record, std::function<void(std::optional<bool>)> done) override;
  std::int64_t lease_deadline_ns() const override {
    const std::int64_t deadline = coordinator_->lease_deadline_ns();
    return deadline == 0 ? 0 : deadline - std::chrono::nanoseconds(options_.lease_margin).count();
  }
  std::optional<std::string> life_of(NodeId node, bool synced) const override;

  void run();
  void listen_to_bell();
  void activate(Replica& replica);
  void tick();

  void on_state(std::shared_ptr<const ClusterState> state);
  void connect();
  void provide_topics();
  void provide_topic(const TopicRecord& topic);
  void update_replicas();
  void hold_elections();
  void commit_elections(std::vector<std::pair<PartitionRecord, std::int64_t>> elected);
  bool is_registered() const;
  std::optional<NodeId> leader_of(const PartitionRecord& record) const;
  TopicConfig config_of(const std::string& topic) const;
  std::size_t leaderships() const;

  void on_message(Link& link, const Message& message);
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
  ShipContext ship_;
  std::unique_ptr<Network> network_;

  std::shared_ptr<const ClusterState> state_ = std::make_shared<ClusterState>();
  std::map<StreamId, std::unique_ptr<Replica>> replicas_;
  std::map<std::uint32_t, Replica*> by_index_;
  std::map<Replica*, std::int64_t> active_;  // since when there has been nothing to ship
  std::set<std::uint64_t> provided_;         // topics that this host has
  std::set<std::uint64_t> providing_;
  std::set<TopicPartition> electing_;
  std::uint64_t elections_ = 0;
  bool draining_ = false;

  std::atomic<bool> stop_{false};
  std::thread thread_;
  Worker decide_;
  Worker fetch_;
};

// --- Life ----------------------------------------------------------------------------------------

Status Node::open() {
  options_.network.self = options_.node.id;
  options_.network.incarnation = options_.node.incarnation;
  auto network =
      Network::open(context_, options_.network,
                    {.up =
                         [this](Link& link) {
                           logger().info("replication: connected to node {}", link.peer().value());
                           for (auto& [id, replica] : replicas_) replica->on_link_up(link.peer());
                         },
                     .message = [this](Link& link, const Message& message) { on_message(link, message); },
                     .down =
                         [this](Link& link) {
                           for (auto& [id, replica] : replicas_) replica->on_link_down(link.peer());
                         },
                     .writable =
                         [this](Link&) {
                           for (auto& [replica, since] : active_) replica->pump();
                         }});
  if (!network) return std::unexpected(network.error());
  network_ = std::move(*network);
  ship_.network = network_.get();
  if (options_.node.replication.port == 0) options_.node.replication.port = network_->port();
  options_.node.life = life_of_memory(log_->attachment());
  log_->set_on_progress([this](std::uint32_t index) {
    asio::post(context_, [this, index] {
      if (const auto found = by_index_.find(index); found != by_index_.end()) {
        found->second->on_progress();
        activate(*found->second);
      }
    });
  });
  coordinator_->set_on_change([this](std::shared_ptr<const ClusterState> state) {
    asio::post(context_, [this, state = std::move(state)] { on_state(state); });
  });
  listen_to_bell();
  tick();
  thread_ = std::thread([this] { run(); });
  auto joined =
      coordinator_->join(options_.node, {.replace = options_.replace_node, .wait = options_.join_wait});
  if (!joined && joined.error().code != Code::timed_out) return joined;
  if (!joined) logger().warn("replication: {}; going on to try", to_string(joined.error()));
  return {};
}

// Spins while there is something to ship, for it is soon followed by more; sleeps otherwise.
void Node::run() {
  pthread_setname_np(pthread_self(), "ringtail-ship");
  const std::int64_t spin_ns = std::chrono::nanoseconds(options_.spin).count();
  while (!stop_.load(std::memory_order_relaxed)) {
    context_.poll();
    const std::int64_t now_ns = monotonic_ns();
    for (auto it = active_.begin(); it != active_.end();) {
      auto& [replica, since_ns] = *it;
      if (replica->pump()) {
        since_ns = now_ns;
      } else if (now_ns - since_ns > spin_ns) {
        if (replica->leading() == nullptr || !replica->leading()->arm_bell()) {
          it = active_.erase(it);
          continue;
        }
        since_ns = now_ns;
      }
      ++it;
    }
    if (active_.empty() && !stop_.load(std::memory_order_relaxed)) context_.run_one();
  }
}

void Node::activate(Replica& replica) {
  if (replica.leading() != nullptr) active_.try_emplace(&replica, monotonic_ns());
}

void Node::listen_to_bell() {
  bell_.async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
    if (error) return;
    std::uint32_t index = 0;
    while (doorbell_.next(index))
      if (const auto found = by_index_.find(index); found != by_index_.end()) activate(*found->second);
    listen_to_bell();
  });
}

void Node::tick() {
  const std::int64_t now_ns = monotonic_ns();
  const std::int64_t lag_ns = std::chrono::nanoseconds(options_.lag_time_max).count();
  by_index_.clear();
  for (auto& [id, replica] : replicas_) {
    if (!is_registered() || boottime_ns() >= lease_deadline_ns()) replica->fence();
    replica->tick(now_ns, lag_ns);
    if (const auto index = replica->index()) by_index_[*index] = replica.get();
    activate(*replica);
  }
  hold_elections();
  timer_.expires_after(kTick);
  timer_.async_wait([this](boost::system::error_code error) {
    if (!error) tick();
  });
}

bool Node::drain(std::chrono::milliseconds patience) {
  auto left = [this] {
    std::promise<std::size_t> count;
    asio::post(context_, [this, &count] {
      draining_ = true;
      hold_elections();
      count.set_value(leaderships());
    });
    return count.get_future().get();
  };
  const std::int64_t deadline_ns = monotonic_ns() + std::chrono::nanoseconds(patience).count();
  while (left() > 0) {
    if (monotonic_ns() >= deadline_ns) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::size_t Node::leaderships() const {
  std::size_t count = 0;
  for (const auto& [id, replica] : replicas_)
    if (replica->record().leader == options_.node.id && replica->record().replicas.size() > 1 &&
        replica->record().isr.size() > 1)
      ++count;
  return count;
}

void Node::stop() {
  if (stop_.exchange(true)) return;
  log_->set_on_progress({});
  // Whatever it leads it must not lead without a lease.
  std::promise<void> fenced;
  if (thread_.joinable()) {
    asio::post(context_, [] {});
    thread_.join();
  }
  for (auto& [id, replica] : replicas_) take_role(id, {.role = shm::ReplicaRole::fenced});
  if (auto left = coordinator_->leave(); !left) logger().warn("replication: {}", to_string(left.error()));
  coordinator_->set_on_change({});
  replicas_.clear();
  network_.reset();
}

// --- Messages ------------------------------------------------------------------------------------

void Node::on_message(Link& link, const Message& message) {
  Replica* const replica = find(stream_of(message.header));
  FollowingPartition* const following = replica == nullptr ? nullptr : replica->following();
  const bool from_leader =
      following != nullptr && following->leader() == link.peer() && following->epoch() == message.epoch();
  switch (message.header.type) {
    case MessageType::follow: {
      // One that went on after another took its id, or began anew, is not who the record means.
      const auto live = state_->live.find(link.peer());
      if (replica != nullptr && live != state_->live.end() && live->second == link.peer_incarnation())
        return replica->on_follow(link, message);
      MessageHeader refuse = message.header;
      refuse.type = MessageType::refuse;
      const std::string_view why = "this node does not know the partition, or not the follower";
      return link.send(refuse, std::as_bytes(std::span(why)));
    }
    case MessageType::ack:
      if (replica != nullptr) {
        replica->on_ack(link.peer(), message);
        activate(*replica);
      }
      return;
    case MessageType::refuse:
      if (from_leader)
        following->on_refuse(message);
      else if (replica != nullptr && replica->leading() != nullptr)
        replica->leading()->end_stream(link.peer());
      return;
    case MessageType::start:
      if (from_leader) following->on_start(message);
      return;
    case MessageType::frames:
      if (from_leader) following->on_frames(message);
      return;
    case MessageType::hello:
    case MessageType::ping: return;
  }
}

// --- The keeper and the coordinator --------------------------------------------------------------

void Node::take_role(const StreamId& id, log::RoleRequest request) {
  if (auto done = std::move(request.done)) {
    request.done = [this, done = std::move(done)](Result<log::RoleOutcome> outcome) {
      if (stop_.load(std::memory_order_relaxed)) return;
      asio::post(context_, [done, outcome = std::move(outcome)] { done(outcome); });
    };
  }
  log_->request_role(id.topic_id, PartitionId(id.partition), std::move(request));
}

void Node::commit(const PartitionRecord& record, std::function<void(std::optional<bool>)> done) {
  Replica* const replica = find({record.topic_id, record.partition.value()});
  const std::int64_t revision = replica == nullptr ? 0 : replica->revision();
  decide_.submit([this, record, revision, done = std::move(done)] {
    const Change change{record, revision};
    const auto made = coordinator_->commit(std::span(&change, 1));
    std::optional<bool> outcome;
    if (made) outcome = *made;
    if (!made) logger().debug("replication: {}", to_string(made.error()));
    asio::post(context_, [done, outcome] { done(outcome); });
  });
}

std::optional<std::string> Node::life_of(NodeId node, bool synced) const {
  const NodeRecord* const record = find_live(*state_, node);
  if (record == nullptr) return std::nullopt;
  return synced ? record->log_id : record->life;
}

bool Node::is_registered() const {
  const auto live = state_->live.find(options_.node.id);
  return live != state_->live.end() && live->second == options_.node.incarnation;
}

std::optional<NodeId> Node::leader_of(const PartitionRecord& record) const {
  if (!is_led(record, *state_)) return std::nullopt;
  if (record.leader == options_.node.id && boottime_ns() >= lease_deadline_ns()) return std::nullopt;
  return record.leader;
}

TopicConfig Node::config_of(const std::string& topic) const {
  const auto found = state_->topics.find(topic);
  if (found == state_->topics.end()) return {};
  return parse_topic_config(found->second.record.configs).value_or(TopicConfig{});
}

// --- The cluster's state -------------------------------------------------------------------------

void Node::on_state(std::shared_ptr<const ClusterState> state) {
  state_ = std::move(state);
  connect();
  provide_topics();
  update_replicas();
  hold_elections();
}

void Node::connect() {
  std::map<NodeId, Address> peers;
  for (const auto& [id, stored] : state_->nodes)
    if (id != options_.node.id) peers[id] = stored.record.replication;
  network_->set_peers(peers);
}

// Topics of which this node is to have a partition and has none yet.
void Node::provide_topics() {
  std::set<std::string> wanted;
  for (const auto& [name, stored] : state_->partitions)
    if (std::ranges::find(stored.record.replicas, options_.node.id) != stored.record.replicas.end())
      wanted.insert(name.topic);
  for (const auto& [name, stored] : state_->topics) {
    const std::uint64_t id = stored.record.topic_id;
    if (!wanted.contains(name) || provided_.contains(id) || !providing_.insert(id).second) continue;
    decide_.submit([this, topic = stored.record] { provide_topic(topic); });
  }
}

void Node::provide_topic(const TopicRecord& topic) {
  const log::Catalog& catalog = log_->catalog();
  Status made;
  auto known = catalog.load_topic(topic.name);
  if (!known) {
    made = catalog.adopt_topic({.name = topic.name,
                                .topic_id = topic.topic_id,
                                .partitions = topic.partitions,
                                .replication_factor = topic.replication_factor,
                                .overrides = topic.configs,
                                .created_ns = topic.created_ns});
  } else if (known->topic_id != topic.topic_id) {
    made = fail(
        Code::already_exists,
        fmt::format("this host has a topic '{}' of its own; delete it there, or the cluster's", topic.name));
  }
  if (made) made = log_->apply_catalog();
  if (!made)
    logger().error("replication: topic '{}' cannot be had here: {}", topic.name, to_string(made.error()));
  asio::post(context_, [this, id = topic.topic_id, had = made.has_value()] {
    if (had) provided_.insert(id);
    providing_.erase(id);
    update_replicas();
  });
}

void Node::update_replicas() {
  for (const auto& [name, stored] : state_->partitions) {
    const PartitionRecord& record = stored.record;
    if (std::ranges::find(record.replicas, options_.node.id) == record.replicas.end()) continue;
    if (!provided_.contains(record.topic_id)) continue;
    const StreamId id{record.topic_id, record.partition.value()};
    auto& replica = replicas_[id];
    if (!replica) replica = std::make_unique<Replica>(ship_, *this, name, id);
    replica->set_record(stored, leader_of(record), config_of(name.topic));
  }
  // Those that are deleted, or are no business of this node any more.
  for (auto it = replicas_.begin(); it != replicas_.end();) {
    const auto found = state_->partitions.find(it->second->name());
    const bool stays = found != state_->partitions.end() &&
                       found->second.record.topic_id == it->first.topic_id &&
                       std::ranges::find(found->second.record.replicas, options_.node.id) !=
                           found->second.record.replicas.end();
    if (stays) {
      ++it;
      continue;
    }
    take_role(it->first, {.role = shm::ReplicaRole::fenced});
    if (const auto index = it->second->index()) by_index_.erase(*index);
    active_.erase(it->second.get());
    it = replicas_.erase(it);
  }
}

// --- Elections -----------------------------------------------------------------------------------

// Partitions that nobody leads, and that this node is to; and those it leads and is to give away.
void Node::hold_elections() {
  if (!is_registered() || boottime_ns() >= lease_deadline_ns()) return;
  std::vector<std::pair<PartitionRecord, std::int64_t>> elected;
  for (auto& [id, replica] : replicas_) {
    const PartitionRecord& record = replica->record();
    if (electing_.contains(replica->name())) continue;
    const bool led = is_led(record, *state_);
    const bool mine = led && record.leader == options_.node.id;
    if (led && !(mine && draining_)) continue;
    ClusterState seen;
    const ClusterState* state = state_.get();
    if (mine) {
      if (replica->is_handing_over()) continue;
      seen = *state_;
      seen.nodes[options_.node.id].record.draining = true;
      state = &seen;
    }
    const TopicConfig config = config_of(replica->name().topic);
    auto next = elect(record, *state, config.unclean_election == UncleanElection::allowed);
    if (!next || !next->leader) continue;
    // Of this node, that life counts which the topic's replicas vouch with.
    for (IsrMember& member : next->isr)
      if (const auto life = life_of(member.node, config.acks_synced()); life && member.node == options_.node.id)
        member.life = *life;
    if (mine) {
      if (*next->leader != options_.node.id) replica->hand_over(*next);
    } else if (*next->leader == options_.node.id) {
      elected.emplace_back(std::move(*next), replica->revision());
      electing_.insert(replica->name());
    }
  }
  if (!elected.empty())
    decide_.submit([this, elected = std::move(elected)]() mutable { commit_elections(std::move(elected)); });
}

void Node::commit_elections(std::vector<std::pair<PartitionRecord, std::int64_t>> elected) {
  std::uint64_t won = 0;
  for (std::size_t begin = 0; begin < elected.size(); begin += kChangesAtOnce) {
    const auto some = std::span(elected).subspan(begin, std::min(kChangesAtOnce, elected.size() - begin));
    std::vector<Change> changes;
    for (const auto& [record, revision] : some) changes.push_back({record, revision});
    auto made = coordinator_->commit(changes);
    if (made && *made) won += changes.size();
    if (!made || *made || changes.size() == 1) continue;
    // One of them was not as it was seen: then each by itself.
    for (const Change& change : changes) {
      auto one = coordinator_->commit(std::span(&change, 1));
      if (one && *one) ++won;
    }
  }
  for (const auto& [record, revision] : elected)
    if (record.unclean)
      logger().warn(
          "{}-{}: unclean election of this node in epoch {}: records that were acknowledged may be lost",
          record.topic, record.partition.value(), record.leader_epoch.value());
  asio::post(context_, [this, won, elected = std::move(elected)] {
    elections_ += won;
    for (const auto& [record, revision] : elected) electing_.erase({record.topic, record.partition});
  });
}

// --- Status --------------------------------------------------------------------------------------

ReplicatorStatus Node::status() {
  std::promise<ReplicatorStatus> promise;
  asio::post(context_, [this, &promise] {
    ReplicatorStatus status;
    status.joined = is_registered();
    status.cluster = state_;
    status.elections = elections_;
    status.bytes_shipped = ship_.bytes_shipped;
    status.bytes_received = ship_.bytes_received;
    status.coordinator = coordinator_->health();
    for (const auto& [id, stored] : state_->nodes)
      if (id != options_.node.id)
        status.peers[id] = network_->link(id) != nullptr ? "connected" : network_->trouble(id);
    for (const auto& [id, replica] : replicas_) {
      const PartitionRecord& record = replica->record();
      ReplicaStatus one;
      one.partition = replica->name();
      one.role = "fenced";
      one.epoch = record.leader_epoch;
      one.leader = record.leader;
      one.replicas = record.replicas;
      one.elections = replica->elections();
      for (const IsrMember& member : record.isr) one.isr.push_back(member.node);
      if (LeadingPartition* leading = replica->leading()) {
        one.role = "leader";
        one.log_end = leading->end().offset;
        for (const auto& [node, follower] : leading->progress().followers())
          if (node != options_.node.id && follower.streaming)
            one.lag[node] = one.log_end > follower.end.offset ? one.log_end - follower.end.offset : 0;
      } else if (FollowingPartition* following = replica->following()) {
        one.role = "follower";
        one.log_end = following->end().offset;
      }
      if (const auto index = replica->index())
        one.high_watermark =
            Offset(log_->control().partition(*index).high_watermark_offset.load(std::memory_order_relaxed));
      status.partitions.push_back(std::move(one));
    }
    promise.set_value(std::move(status));
  });
  return promise.get_future().get();
}

Result<std::unique_ptr<Replicator>> Replicator::start(std::shared_ptr<LogCore> log,
                                                      std::shared_ptr<Coordinator> coordinator,
                                                      ReplicatorOptions options) {
  auto doorbell = shm::Doorbell::open(log->attachment().place().shm_dir);
  if (!doorbell) return std::unexpected(doorbell.error());
  auto slot = shm::OwnedSlot::acquire(log->control(), log->locks(), shm::SlotRole::admin);
  if (!slot) return std::unexpected(slot.error());
  options.node.log_id = log->catalog().identity().id;
  auto node = std::make_unique<Node>(std::move(log), std::move(coordinator), std::move(options),
                                     std::move(*doorbell), std::move(*slot));
  if (auto opened = node->open(); !opened) return std::unexpected(opened.error());
  return node;
}

}  // namespace ringtail::replication
