#include "replication/replica.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"

namespace ringtail::replication {

using shm::ReplicaRole;

namespace {

constexpr std::int64_t kRetryNs = 100'000'000;
constexpr std::int64_t kNsPerMs = 1'000'000;

}  // namespace

void Replica::set_record(const Stored<PartitionRecord>& record, std::optional<NodeId> leader,
                         const TopicConfig& config) {
  const bool news = record.revision != revision_;
  if (revision_ >= 0 && record.record.leader_epoch != record_.leader_epoch) ++elections_;
  record_ = record.record;
  revision_ = record.revision;
  config_ = config;
  const Wanted before = std::exchange(wanted_, {});
  if (leader)
    wanted_ = {*leader == context_.self ? ReplicaRole::leader : ReplicaRole::follower, *leader,
               record_.leader_epoch};
  if (wanted_ != before) vain_since_ns_ = 0;
  if (next_ && (wanted_.role != ReplicaRole::leader || record_.leader_epoch >= next_->leader_epoch)) {
    next_.reset();
    hand_over_at_.reset();
  }
  if (news) {
    await_record_ = false;
    proposed_.clear();
    proposed_synced_ = false;
  }
  if (leading_ && wanted_ == reached_) {
    if (news) confirm();
    require();  // the topic may have been altered
  }
  approach();
  // Who died is not waited for any longer. Of who lags no more is known than at the last mark.
  if (leading_) look_at_isr(leading_->progress().marked_ns());
}

void Replica::confirm() {
  std::set<NodeId> isr;
  for (const IsrMember& member : record_.isr) isr.insert(member.node);
  leading_->confirm(std::move(isr), record_.replicas.size());
}

void Replica::require() {
  leading_->require(static_cast<std::uint32_t>(config_.min_insync_replicas), counts_synced());
}

// Whether a record counts only when it is synced. A topic may be altered to replica.ack=memory; but who is in the
// record with the life of his disk may be elected when he has lost his memory, so until all are there with the life of
// that, it takes what it took before. A change on its way counts as the record does.
bool Replica::counts_synced() const {
  if (config_.acks_synced() || config_.storage == Storage::memory) return config_.acks_synced();
  return proposed_synced_ || !std::ranges::all_of(record_.isr, [this](const IsrMember& member) {
           return is_there_by_memory(member);
         });
}

bool Replica::is_there_by_memory(const IsrMember& member) const {
  return member.life == host_.life_of(member.node, false);
}

void Replica::begin_commit() {
  committing_ = true;
  given_up_ = false;
  commit_revision_ = revision_;
}

// Whether it was made or refused, the record is another now, and will be told, if it has not been already. When
// the outcome is not known, the next change tells: it is compared with what this node has seen, too.
void Replica::on_committed(std::optional<bool> made) {
  committing_ = false;
  await_record_ = made.has_value() && revision_ == commit_revision_;
}

void Replica::fence() {
  if (wanted_.role != ReplicaRole::leader) return;
  wanted_ = {};
  approach();
}

// --- Role ----------------------------------------------------------------------------------------

// One step towards what is wanted. Each ends here again when the keeper has answered.
void Replica::approach() {
  // A disk without room may keep the keeper from it for as long as it likes: then it is taken back.
  if (asking_to_lead_ && wanted_ != asked_) {
    asking_to_lead_ = false;
    host_.take_role(id_, {.role = ReplicaRole::fenced, .leader_node = wanted_.leader.value()});
  }
  if (asking_ || wanted_ == reached_) return;
  if (wanted_.role == ReplicaRole::leader && is_given_up()) return;
  // Whatever it was, it is not any more; and what it was about to hand over may have got records since.
  if (leading_) stuck_ = false;
  next_.reset();
  hand_over_at_.reset();
  leading_.reset();
  following_.reset();
  ask_fence();
}

void Replica::ask_fence() {
  asking_ = true;
  const Wanted aim = wanted_;
  host_.take_role(id_, {.role = ReplicaRole::fenced,
                        .leader_node = aim.leader.value(),
                        .done = [this, alive = alive_, aim](Result<log::RoleOutcome> outcome) {
                          if (!*alive) return;
                          asking_ = false;
                          reached_ = {.role = ReplicaRole::fenced, .leader = NodeId(~0u)};
                          if (!outcome) {
                            retry_ns_ = monotonic_ns() + kRetryNs;
                            return;
                          }
                          partition_ = outcome->partition;
                          if (aim != wanted_) return approach();
                          if (aim.role == ReplicaRole::leader) return ask_lead();
                          reached_ = aim;
                          if (aim.role == ReplicaRole::follower) begin_follow(*outcome);
                        }});
}

// Before the role: who sees this host lead must not see fewer replicas in sync than the record has.
void Replica::tell_replicas() const {
  shm::Partition& entry = partition_->entry();
  entry.replicas.store(static_cast<std::uint32_t>(record_.replicas.size()), std::memory_order_relaxed);
  entry.in_sync.store(static_cast<std::uint32_t>(record_.isr.size()), std::memory_order_relaxed);
}

void Replica::ask_lead() {
  if (is_given_up()) return;
  asking_ = asking_to_lead_ = true;
  tell_replicas();
  const Wanted aim = asked_ = wanted_;
  host_.take_role(id_, {.role = ReplicaRole::leader,
                        .epoch = aim.epoch,
                        .leader_node = context_.self.value(),
                        .lease_deadline_ns = host_.lease_deadline_ns(),
                        .done = [this, alive = alive_, aim](Result<log::RoleOutcome> outcome) {
                          if (!*alive) return;
                          asking_ = false;
                          const bool taken_back = !std::exchange(asking_to_lead_, false);
                          if (taken_back || (!outcome && aim != wanted_)) return approach();
                          if (outcome) return begin_lead(*outcome, aim);
                          retry_ns_ = monotonic_ns() + kRetryNs;
                        }});
}

void Replica::begin_lead(const log::RoleOutcome& outcome, const Wanted& aim) {
  auto leading = LeadingPartition::open(context_, outcome, aim.epoch, counts_synced(),
                                        static_cast<std::uint32_t>(config_.min_insync_replicas));
  if (!leading) {
    logger().error("replication: {}", to_string(leading.error()));
    // What it took from now on would be shipped to nobody, and cut off by the next leader.
    host_.take_role(id_, {.role = ReplicaRole::fenced, .leader_node = wanted_.leader.value()});
    reached_ = {.role = ReplicaRole::fenced, .leader = NodeId(~0u)};
    retry_ns_ = monotonic_ns() + kRetryNs;
    return;
  }
  reached_ = aim;
  leading_ = std::move(*leading);
  // Streams of an earlier leadership in the same epoch ended with it: followers ask anew.
  for (const NodeId node : record_.replicas)
    if (Link* const link = context_.network->link(node))
      refuse(*link, aim.epoch, "the leader begins anew", kAskAgain);
  confirm();
  // What an earlier leadership in this epoch has proposed may yet be made.
  if (!proposed_.empty()) leading_->progress().propose(proposed_);
  approach();
  if (leading_) look_at_isr(monotonic_ns());
}

void Replica::begin_follow(const log::RoleOutcome& outcome) {
  tell_replicas();
  following_ = std::make_unique<FollowingPartition>(
      context_, outcome, wanted_.leader, wanted_.epoch,
      [this](log::RoleRequest request) { host_.take_role(id_, std::move(request)); });
  following_->ask();
}

// --- What comes ----------------------------------------------------------------------------------

bool Replica::pump() {
  if (!leading_) return false;
  const bool progress = leading_->pump();
  if (next_) step_hand_over();
  return progress;
}

void Replica::on_follow(Link& link, const Message& message) {
  if (leading_ && leading_->epoch() == message.epoch()) return leading_->on_follow(link, message);
  refuse(link, message.epoch(), "this node does not lead in that epoch");
}

void Replica::refuse(Link& link, LeaderEpoch epoch, std::string_view why, std::uint8_t flags) const {
  link.send({.type = MessageType::refuse,
             .topic_id = id_.topic_id,
             .partition = id_.partition,
             .leader_epoch = epoch.value(),
             .flags = flags},
            std::as_bytes(std::span(why)));
}

void Replica::on_ack(NodeId node, const Message& message) {
  if (!leading_ || leading_->epoch() != message.epoch()) return;
  leading_->on_ack(node, message);
  if (next_) step_hand_over();
}

void Replica::on_link_up(NodeId node) {
  if (following_ && following_->leader() == node) following_->ask();
}

void Replica::on_link_down(NodeId node) {
  if (leading_) leading_->end_stream(node);
  if (following_ && following_->leader() == node) following_->on_link_down();
}

void Replica::on_progress() {
  if (leading_) leading_->on_synced();
  if (following_) following_->on_progress();
}

// --- Now and then --------------------------------------------------------------------------------

bool Replica::is_quiet() const {
  if (asking_ || wanted_ != reached_ || next_ || committing_ || await_record_) return false;
  if (following_) return following_->is_streaming();
  return leading_ && leading_->progress().isr().size() == record_.replicas.size() &&
         !leading_->progress().is_proposing() && !leading_->is_behind() && !leading_->failure();
}

void Replica::tick(std::int64_t now_ns) {
  if (!asking_ && wanted_ != reached_ && now_ns >= retry_ns_) approach();
  if (following_) following_->ask();
  look_at_vain(now_ns);
  if (!leading_) return;
  const bool may_be_given = next_ && (committing_ || await_record_);
  if (next_ && !may_be_given) {
    const bool in_vain = now_ns >= hand_over_until_ns_;
    if (in_vain) not_to_ = {*next_->leader, now_ns + 2 * patience_ns()};
    if (in_vain || !host_.life_of(*next_->leader, config_.acks_synced())) return lead_anew();
  }
  if (has_stopped() && !may_be_given && now_ns >= retry_ns_) {
    retry_ns_ = now_ns + kRetryNs;  // what stopped it may do so again at once
    return lead_anew();
  }
  renew_lease();
  if (partition_->entry().role.load(std::memory_order_acquire) !=  // SYNC: as above
      static_cast<std::uint32_t>(ReplicaRole::leader)) {
    if (!next_) return lead_anew();  // the keeper fenced it, for the lease had run out
  }
  leading_->mark(now_ns);
  look_at_isr(now_ns);
  look_at_disk(now_ns);
}

void Replica::renew_lease() {
  if (!leading_) return;
  // SYNC: pairs with Appender::still_leads and PartitionKeeper::step_role.
  partition_->entry().lease_deadline_ns.store(host_.lease_deadline_ns(), std::memory_order_release);
}

// How long a replica may lack records. Where they must be synced to count, they are not before that is due.
std::int64_t Replica::patience_ns() const {
  return host_.lag_time_max_ns() + (config_.acks_synced() ? config_.flush_interval_ms * kNsPerMs : 0);
}

// Whether nothing more can be had of the log: the keeper gave it up, or what is in the ring cannot be read.
bool Replica::has_failed() const {
  if (leading_ && leading_->failure() && leading_->failure()->code == Code::corrupt) return true;
  // SYNC: pairs with PartitionKeeper::fail_with.
  return partition_ && partition_->entry().state.load(std::memory_order_acquire) ==
                           static_cast<std::uint32_t>(shm::PartitionState::failed);
}

// Whether it can ship no more for a reason that passes: no descriptors, or no memory, just when its ring was replaced.
bool Replica::has_stopped() const { return leading_ && leading_->failure() && !has_failed(); }

void Replica::look_at_disk(std::int64_t now_ns) {
  const std::int64_t patience_ns = host_.lag_time_max_ns() + config_.flush_interval_ms * kNsPerMs;
  const bool stuck = has_failed() ||
                     (config_.storage == Storage::disk && leading_->progress().is_stuck(now_ns, patience_ns));
  if (stuck && !stuck_)
    logger().warn(
        "replication: {}-{}: this host leads, and {}; another replica in sync is to lead, if there is one",
        name_.topic, name_.partition.value(),
        has_failed() ? "its log has failed" : "its disk does not take what is appended");
  stuck_ = stuck;
}

// Who is to lead and cannot, be it that his log has failed or that his disk has no room for the epoch, is alive, so
// nobody else takes his place.
void Replica::look_at_vain(std::int64_t now_ns) {
  if (wanted_.role != ReplicaRole::leader || leading_) {
    vain_since_ns_ = 0;
    if (!leading_) stuck_ = false;
    return;
  }
  if (vain_since_ns_ == 0) vain_since_ns_ = now_ns;
  const bool stuck = now_ns - vain_since_ns_ > host_.lag_time_max_ns();
  if (stuck && !stuck_)
    logger().warn(
        "replication: {}-{}: this host is to lead, and cannot; another replica in sync is to, if there is "
        "one",
        name_.topic, name_.partition.value());
  stuck_ = stuck;
}

// All replicas are in sync, alive and not too far behind: most partitions, nearly always.
bool Replica::isr_stands(std::int64_t now_ns) const {
  const LeaderProgress& progress = leading_->progress();
  return !progress.is_proposing() && progress.isr().size() == record_.replicas.size() &&
         progress.isr().contains(context_.self) &&
         std::ranges::all_of(progress.isr(),
                             [&](NodeId node) {
                               return node == context_.self ||
                                      (lives_on(node) && !progress.is_lagging(node, now_ns, patience_ns()));
                             }) &&
         !some_join_anew();
}

// Whether a replica in sync is there with the life that counted before replica.ack was altered, and has all that it
// takes to be there with the one that counts now: as if it had left, and come back.
bool Replica::may_join_anew(const IsrMember& member) const {
  const auto life = host_.life_of(member.node, config_.acks_synced());
  return life && member.life != *life && lives_on(member.node) &&
         (member.node == context_.self || host_.is_met(member.node)) &&
         leading_->progress().has_all(member.node);
}

bool Replica::some_join_anew() const {
  return std::ranges::any_of(record_.isr, [this](const IsrMember& member) { return may_join_anew(member); });
}

// Whether a replica in sync has the life that the record has it with: in another it may have lost what it had.
bool Replica::lives_on(NodeId node) const {
  const auto member = std::ranges::find(record_.isr, node, &IsrMember::node);
  return member != record_.isr.end() &&
         (member->life == host_.life_of(node, true) || member->life == host_.life_of(node, false));
}

void Replica::look_at_isr(std::int64_t now_ns) {
  if (committing_ || await_record_ || next_ || isr_stands(now_ns)) return;
  std::set<NodeId> isr = leading_->progress().isr();
  const std::set<NodeId> before = isr;
  isr.insert(context_.self);
  for (const NodeId node : leading_->progress().lagging(now_ns, patience_ns())) isr.erase(node);
  // Nobody waits for the dead.
  std::erase_if(isr, [&](NodeId node) { return node != context_.self && !lives_on(node); });
  for (const NodeId node : leading_->progress().caught_up())
    if (std::ranges::find(record_.replicas, node) != record_.replicas.end() && host_.is_met(node))
      isr.insert(node);
  // Of a change whose outcome is not known, the next one tells.
  if (isr == before && !leading_->progress().is_proposing() && !some_join_anew()) return;
  tell_change(before, isr, now_ns);
  propose(isr);
}

void Replica::tell_change(const std::set<NodeId>& before, const std::set<NodeId>& after,
                          std::int64_t now_ns) const {
  for (const NodeId node : before) {
    if (after.contains(node)) continue;
    const auto* follower = leading_->progress().find(node);
    std::string why = "it is not alive";
    if (follower != nullptr && host_.life_of(node, config_.acks_synced()))
      why = fmt::format("for {} ms it has not had all records: it has {}, {} of them synced, of {}{}",
                        (now_ns - follower->caught_up_ns) / kNsPerMs, follower->end.offset.value(),
                        follower->synced.offset.value(), leading_->end().offset.value(),
                        follower->streaming ? "; its own log may tell more" : ", and it is not connected");
    logger().warn("replication: {}-{}: node {} leaves the in-sync replicas: {}", name_.topic,
                  name_.partition.value(), node.value(), why);
  }
  for (const NodeId node : after)
    if (!before.contains(node))
      logger().info("replication: {}-{}: node {} is in sync again", name_.topic, name_.partition.value(),
                    node.value());
}

void Replica::propose(const std::set<NodeId>& isr) {
  PartitionRecord next = record_;
  next.isr.clear();
  for (const NodeId node : isr) {
    // Who stays does so in the life in which he was in sync.
    if (const auto member = std::ranges::find(record_.isr, node, &IsrMember::node);
        member != record_.isr.end() && !may_join_anew(*member))
      next.isr.push_back(*member);
    else if (auto life = host_.life_of(node, config_.acks_synced()))
      next.isr.push_back({node, *life});
  }
  ++next.partition_epoch;
  begin_commit();
  proposed_synced_ |=
      !std::ranges::all_of(next.isr, [this](const IsrMember& member) { return is_there_by_memory(member); });
  proposed_.insert(isr.begin(), isr.end());
  leading_->progress().propose(isr);
  host_.commit(next, [this, alive = alive_](std::optional<bool> made) {
    if (*alive) on_committed(made);
  });
}

// --- Handing over --------------------------------------------------------------------------------

void Replica::hand_over(const PartitionRecord& next) {
  // A change that is on its way would be undone.
  if (next_ || committing_ || await_record_) return;
  if (!next.leader || *next.leader == context_.self) return;
  if (!leading_ && stuck_) return give_up(next);
  if (!leading_) return;
  // Producers would be refused in vain, again and again. Of who is not shipped to the lag runs on, and when he has left
  // the in-sync replicas it is another's turn.
  if (!has_failed() && (!is_shipped_to(*next.leader) || took_nothing(*next.leader))) return;
  next_ = next;
  hand_over_at_.reset();
  hand_over_until_ns_ = monotonic_ns() + host_.lag_time_max_ns();
  host_.take_role(id_, {.role = ReplicaRole::fenced,
                        .leader_node = next.leader->value(),
                        .done = [this, alive = alive_](Result<log::RoleOutcome> outcome) {
                          if (!*alive || !next_ || (!outcome && !has_failed())) return;
                          // Of a log that has failed, the others have all that can be had.
                          hand_over_at_ = has_failed() ? log::LogPoint{} : outcome->end;
                          pump();
                        }});
}

// Whether it was handed to that one a while ago, who did not come to have all, for his disk is full or too slow.
bool Replica::took_nothing(NodeId node) const {
  return not_to_.first == node && monotonic_ns() < not_to_.second;
}

// What it is to lead, and cannot: nobody can be shipped what is here. The keeper may come to it just now, and what was
// appended then would be cut off: so it is told not to, and not asked again before it is known who leads.
void Replica::give_up(const PartitionRecord& next) {
  asking_to_lead_ = false;
  host_.take_role(id_, {.role = ReplicaRole::fenced, .leader_node = next.leader->value()});
  put(next);
  given_up_ = true;
}

void Replica::change(const PartitionRecord& next) {
  if (!leading_ || next_ || committing_ || await_record_) return;
  put(next);
}

void Replica::put(const PartitionRecord& next) {
  begin_commit();
  host_.commit(next, [this, alive = alive_](std::optional<bool> made) {
    if (*alive) on_committed(made);
  });
}

// Once the next leader has all that was appended.
void Replica::step_hand_over() {
  if (!hand_over_at_ || committing_ || await_record_ || !leading_) return;
  if (next_->partition_epoch != record_.partition_epoch + 1) return lead_anew();
  if (!is_shipped_to(*next_->leader)) return;
  if (leading_->progress().find(*next_->leader)->end < *hand_over_at_) return;
  begin_commit();
  host_.commit(*next_, [this, alive = alive_](std::optional<bool> made) {
    if (!*alive) return;
    on_committed(made);
    if (made && *made) return;  // the record's change tells the rest
    if (next_) lead_anew();
  });
}

bool Replica::is_shipped_to(NodeId node) const {
  const auto* follower = leading_->progress().find(node);
  return follower != nullptr && follower->streaming;
}

// In the same epoch. A hand-over that was under way is given up.
void Replica::lead_anew() {
  reached_ = {.role = ReplicaRole::fenced, .leader = NodeId(~0u)};
  approach();
}

}  // namespace ringtail::replication
