#include "replication/node.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include <future>

#include "base/logger.h"
#include "base/parse.h"
#include "base/random.h"
#include "replication/placement.h"
#include "shm/process.h"

namespace ringtail::replication {

namespace {

constexpr std::chrono::milliseconds kTick{100};
constexpr std::chrono::microseconds kRest{250};  // between looks, while records come
constexpr std::int64_t kRestNs = 1'000'000;      // without a record: no more come
// The same while a follower is read for from files: that wakes this thread anyway, and producers may have to wait for
// their CPU, so that their records come less evenly.
constexpr std::int64_t kRestBesideCatchUpNs = 4'000'000;
constexpr std::size_t kLookAgain = 50;    // ticks: something may have been told unheard, as a bell may ring
constexpr std::size_t kLookAtPeers = 10;  // ticks; and at topics that did not come off

// What a crash of the host would take with it: the shared memory of this log, since this boot. The file is known by
// its birth; every process that attaches moves the time of its last change, which counts only where that is all
// there is.
std::string life_of_memory(const log::Attachment& attachment) {
  struct ::statx status = {};
  ::statx(AT_FDCWD, (attachment.place().shm_dir / "control").c_str(), 0,
          STATX_INO | STATX_BTIME | STATX_CTIME, &status);
  const auto& born = (status.stx_mask & STATX_BTIME) != 0 ? status.stx_btime : status.stx_ctime;
  const auto boot = shm::boot_id().value_or(std::array<std::uint64_t, 2>{});
  return to_hex(boot[0] ^ boot[1] ^ status.stx_ino * 0x9e3779b97f4a7c15 ^ std::uint64_t{born.tv_nsec} << 32 ^
                static_cast<std::uint64_t>(born.tv_sec));
}

}  // namespace

// --- Life ----------------------------------------------------------------------------------------

Status Node::open() {
  options_.network.self = options_.node.id;
  options_.network.incarnation = options_.node.incarnation;
  auto network =
      Network::open(context_, options_.network,
                    {.up =
                         [this](Link& link) {
                           logger().info("replication: connected to node {}", link.peer().value());
                           met_[link.peer()] = link.peer_incarnation();
                           for (auto& [id, replica] : replicas_) {
                             replica->on_link_up(link.peer());
                             restless_.insert(replica.get());
                           }
                         },
                     .message = [this](Link& link, const Message& message) { on_message(link, message); },
                     .down =
                         [this](Link& link) {
                           for (auto& [id, replica] : replicas_) {
                             replica->on_link_down(link.peer());
                             restless_.insert(replica.get());
                           }
                         },
                     .writable = [this](Link&) { pump_all(); },
                     .refused = [this](NodeId peer) { on_refused(peer); }});
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
  coordinator_->set_on_change([gate = gate_](std::shared_ptr<const ClusterState> state) {
    std::lock_guard lock(gate->mutex);
    if (Node* const node = gate->node)
      asio::post(node->context_, [node, state = std::move(state)] { node->on_state(state); });
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

// Spins while there is something to ship, for it is soon followed by more; then rests and looks again, for a
// producer that has to ring for each record pays more for that than for the record; and sleeps until it is rung when
// there has been nothing for a while. What followers do not take yet is looked at again in the same way.
void Node::run() {
  pthread_setname_np(pthread_self(), "ringtail-ship");
  // A peer that has gone raises it where no flag keeps a system call from that.
  sigset_t broken_pipe;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
  while (!stop_.load(std::memory_order_relaxed)) {
    context_.poll();
    if (!pump_active() || stop_.load(std::memory_order_relaxed)) continue;
    if (!active_.empty() && !rests_) {
      rests_ = true;
      rest_timer_.expires_after(kRest);
      rest_timer_.async_wait([this](boost::system::error_code) { rests_ = false; });
    }
    context_.run_one();
  }
}

// Notes who had something to ship, whoever called: who takes a record has to say so, or it counts as none.
void Node::pump_all() {
  const std::int64_t now_ns = monotonic_ns();
  for (auto& [replica, since_ns] : active_)
    if (replica->pump()) since_ns = now_ns;
}

// Whether there is nothing to do but to wait.
bool Node::pump_active() {
  pump_all();
  const std::int64_t spin_ns = std::chrono::nanoseconds(options_.spin).count();
  const std::int64_t now_ns = monotonic_ns();
  bool waits = true;
  for (auto it = active_.begin(); it != active_.end();) {
    auto& [replica, since_ns] = *it;
    LeadingPartition* const leading = replica->leading();
    const std::int64_t idle_ns = now_ns - since_ns;
    const std::int64_t rest_ns = leading != nullptr && leading->is_behind() ? kRestBesideCatchUpNs : kRestNs;
    if (leading != nullptr && idle_ns <= spin_ns) {
      waits = false;
    } else if (leading == nullptr || !(leading->is_held_up() || (idle_ns < rest_ns && leading->rest()))) {
      if (leading == nullptr || !leading->arm_bell()) {
        it = active_.erase(it);
        continue;
      }
      since_ns = now_ns;
      waits = false;
    }
    ++it;
  }
  return waits;
}

void Node::activate(Replica& replica) {
  restless_.insert(&replica);
  if (replica.leading() != nullptr) active_.try_emplace(&replica, monotonic_ns());
}

void Node::listen_to_bell() {
  bell_.async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
    if (error) return;
    std::uint32_t index = 0;
    std::size_t rings = 0;
    for (; doorbell_.next(index); ++rings)
      if (const auto found = by_index_.find(index); found != by_index_.end()) activate(*found->second);
    if (rings >= shm::Doorbell::kMostHeard)
      for (auto& [id, replica] : replicas_) activate(*replica);
    listen_to_bell();
  });
}

void Node::tick() {
  const std::int64_t now_ns = monotonic_ns();
  const bool may_lead = is_registered() && boottime_ns() < lease_deadline_ns();
  // The lease is renewed, and no record has changed: what was fenced meanwhile is led again.
  const bool might_lead = std::exchange(may_lead_, may_lead);
  const bool renews = may_lead && !might_lead;
  if (renews) update_replicas();
  elections_due_ |= renews;
  ship_.throttle.refill(now_ns);
  const bool renewed = std::exchange(lease_told_ns_, lease_deadline_ns()) != lease_deadline_ns();
  ++ticks_;
  for (auto& [id, replica] : replicas_) {
    if (may_lead && !renewed) break;
    if (renewed) replica->renew_lease();
    if (may_lead) continue;
    replica->fence();
    restless_.insert(replica.get());
  }
  look_at_some();
  std::erase_if(restless_, [&](Replica* replica) {
    replica->tick(now_ns);
    if (replica->leading() != nullptr && replica->leading()->is_behind()) active_.try_emplace(replica, 0);
    elections_due_ |= replica->is_stuck();
    return replica->is_quiet() && !active_.contains(replica);
  });
  if (std::exchange(elections_due_, false) || draining_ || ticks_ % kLookAgain == 0) hold_elections();
  if (ticks_ % kLookAtPeers == 0) {
    tell_of_itself();
    retry_topics();
  }
  timer_.expires_after(tick_interval(options_.lag_time_max));
  timer_.async_wait([this](boost::system::error_code error) {
    if (!error) tick();
  });
}

std::chrono::nanoseconds tick_interval(std::chrono::nanoseconds lag_time_max) {
  return std::clamp<std::chrono::nanoseconds>(lag_time_max / 4, std::chrono::milliseconds(1), kTick);
}

std::size_t looks_in_a_tick(std::size_t partitions, std::chrono::nanoseconds lag_time_max) {
  const auto ticks = static_cast<std::size_t>(lag_time_max / 2 / tick_interval(lag_time_max));
  return partitions / std::clamp<std::size_t>(ticks, 1, kLookAgain) + 1;
}

void Node::look_at_some() {
  auto next = replicas_.lower_bound(next_look_);
  for (std::size_t left = looks_in_a_tick(replicas_.size(), options_.lag_time_max);
       left > 0 && next != replicas_.end(); --left, ++next) {
    restless_.insert(next->second.get());
    active_.try_emplace(next->second.get(), 0);
  }
  next_look_ = next == replicas_.end() ? StreamId{} : next->first;
}

// Runs it on the network's thread; nothing if that has ended.
template <class Result>
std::optional<Result> Node::ask(std::function<Result()> question) {
  auto promise = std::make_shared<std::promise<Result>>();
  auto answer = promise->get_future();
  asio::post(context_, [promise, question = std::move(question)] { promise->set_value(question()); });
  while (answer.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready)
    if (stop_.load(std::memory_order_relaxed)) return std::nullopt;
  return answer.get();
}

bool Node::drain(std::chrono::milliseconds patience) {
  const std::int64_t deadline_ns = monotonic_ns() + std::chrono::nanoseconds(patience).count();
  for (;;) {
    const auto left = ask<std::size_t>([this] {
      draining_ = true;
      hold_elections();
      return leaderships();
    });
    if (left.value_or(0) == 0) return left.has_value();
    // Without a lease it leads nothing any more, and can name no successor.
    if (boottime_ns() >= lease_deadline_ns()) return false;
    if (monotonic_ns() >= deadline_ns) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

void Node::set_throttle(std::int64_t bytes_per_s) {
  asio::post(context_, [this, bytes_per_s] {
    options_.throttle_bytes_per_s = bytes_per_s;
    apply_throttle();
  });
}

void Node::set_http(const Address& http) {
  asio::post(context_, [this, http] { options_.node.http = http; });
}

void Node::renew_tls(const PeerTls& files) {
  if (!options_.network.tls) return;
  asio::post(context_, [this, files] {
    if (auto renewed = network_->renew_tls(files); renewed)
      logger().info("replication: the certificate '{}' has been read, for connections from now on",
                    files.certificate.native());
    else
      logger().error("{}; the certificate stays as it was", to_string(renewed.error()));
  });
}

void Node::stop() {
  if (stop_.exchange(true)) return;
  log_->set_on_progress({});
  {
    std::lock_guard lock(gate_->mutex);
    gate_->node = nullptr;
  }
  if (thread_.joinable()) {
    asio::post(context_, [] {});
    thread_.join();
  }
  // What it leads it must not lead without a lease.
  for (auto& [id, replica] : replicas_) take_role(id, {.role = shm::ReplicaRole::fenced});
  if (auto left = coordinator_->leave(); !left) logger().warn("replication: {}", to_string(left.error()));
  replicas_.clear();
  network_.reset();
}

// --- Messages ------------------------------------------------------------------------------------

void Node::on_message(Link& link, const Message& message) {
  Replica* const replica = find(stream_of(message.header));
  if (replica != nullptr && message.header.type != MessageType::frames) restless_.insert(replica);
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
      else if (replica != nullptr && replica->leading() != nullptr &&
               replica->leading()->epoch() == message.epoch())
        replica->leading()->end_stream(link.peer());
      return;
    case MessageType::start:
      if (from_leader) following->on_start(message);
      return;
    case MessageType::frames:
      if (!from_leader) return;
      following->on_frames(message);
      if (!following->is_streaming()) restless_.insert(replica);  // it is to ask anew
      return;
    case MessageType::hello:
    case MessageType::ping: return;
  }
}

// A daemon that was there, and where it was nobody listens: it has died, and its lease need not be waited for. Its
// host's producers are acknowledged nothing meanwhile, for that takes its followers, of which one leads from now on.
// Each daemon is taken for dead once: one that comes back is behind something that refuses connections for it.
void Node::on_refused(NodeId peer) {
  const auto met = met_.find(peer);
  const auto live = state_->live.find(peer);
  if (met == met_.end() || live == state_->live.end() || live->second != met->second || !may_lead_) return;
  const std::uint64_t incarnation = met->second;
  if (const auto known = expelled_.find(peer); known != expelled_.end() && known->second == incarnation)
    return;
  expelled_[peer] = incarnation;
  decide_.submit([this, peer, incarnation] {
    const auto done = coordinator_->expel(peer, incarnation);
    if (done && *done)
      logger().warn(
          "replication: node {} refuses connections: its daemon has ended, and is out of the cluster",
          peer.value());
    if (done) return;
    logger().debug("replication: {}", to_string(done.error()));
    asio::post(context_, [this, peer] { expelled_.erase(peer); });
  });
}

// --- The keeper and the coordinator --------------------------------------------------------------

// The keeper outlives this node, and may have been at something else meanwhile.
void Node::take_role(const StreamId& id, log::RoleRequest request) {
  if (auto done = std::move(request.done)) {
    request.done = [gate = gate_, id, done = std::move(done)](Result<log::RoleOutcome> outcome) {
      std::lock_guard lock(gate->mutex);
      Node* const node = gate->node;
      if (node == nullptr) return;
      asio::post(node->context_, [node, id, done, outcome = std::move(outcome)] {
        if (Replica* const replica = node->find(id); replica != nullptr) {
          node->restless_.insert(replica);
          if (outcome) node->by_index_[outcome->partition.index] = replica;
        }
        done(outcome);
      });
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
    asio::post(context_, [this, record, done, outcome] {
      if (Replica* const found = find({record.topic_id, record.partition.value()})) restless_.insert(found);
      done(outcome);
    });
  });
}

std::optional<std::string> Node::life_of(NodeId node, bool synced) const {
  const NodeRecord* const record = find_live(*state_, node);
  if (record == nullptr) return std::nullopt;
  return synced ? record->log_id : record->life;
}

bool Node::is_met(NodeId node) const {
  const Link* const link = network_->link(node);
  const auto live = state_->live.find(node);
  return link != nullptr && live != state_->live.end() && live->second == link->peer_incarnation();
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

// --- Status --------------------------------------------------------------------------------------

ReplicatorStatus Node::status() {
  return ask<ReplicatorStatus>([this] { return look(); }).value_or(ReplicatorStatus{});
}

ReplicatorStatus Node::look() const {
  ReplicatorStatus status;
  status.joined = is_registered();
  status.cluster = state_;
  status.elections = elections_;
  status.bytes_shipped = ship_.bytes_shipped;
  status.bytes_received = ship_.bytes_received;
  status.coordinator = coordinator_->health();
  for (const auto& [id, stored] : state_->nodes)
    if (id != options_.node.id)
      status.peers[id] = network_->link(id) != nullptr ? kConnected : network_->trouble(id);
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
  return status;
}

Result<std::unique_ptr<Replicator>> Replicator::start(std::shared_ptr<LogCore> log,
                                                      std::shared_ptr<Coordinator> coordinator,
                                                      ReplicatorOptions options) {
  if (auto noted = log->note_cluster(options.network.cluster); !noted) return std::unexpected(noted.error());
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
