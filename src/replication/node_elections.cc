#include "replication/node.h"

#include <algorithm>
#include <span>

#include "base/logger.h"
#include "replication/placement.h"

namespace ringtail::replication {

namespace {

constexpr std::size_t kChangesAtOnce = 32;

}  // namespace

// Partitions that nobody leads, and that this node is to; and those it leads and is to give away.
void Node::hold_elections() {
  if (!is_registered() || boottime_ns() >= lease_deadline_ns()) return;
  std::vector<std::pair<PartitionRecord, std::int64_t>> elected;
  // It is about to end, or a tool has asked for that: it leads nothing that another node could lead.
  const NodeRecord* const self = find_live(*state_, options_.node.id);
  const bool told = self != nullptr && self->draining;
  const bool drains = draining_ || told;
  const std::set<std::uint64_t> in_vain = topics_in_vain();
  const bool gives_away = drains || !in_vain.empty() || std::ranges::any_of(replicas_, [](const auto& one) {
                            return one.second->is_stuck();
                          });
  std::optional<ClusterState> drained;  // as if this node's record said so, where it does not
  if (gives_away && !told) {
    drained = *state_;
    drained->nodes[options_.node.id].record.draining = true;
  }
  for (auto& [id, replica] : replicas_) {
    const PartitionRecord& record = replica->record();
    if (electing_.contains(replica->name())) continue;
    const bool led = is_led(record, *state_);
    if (led && record.leader == options_.node.id) {
      const bool given_away = drains || replica->is_stuck();
      // What nobody else can lead is moved all the same, when somebody wishes for that.
      if (!given_away || !give_away(*replica, drained ? *drained : *state_)) carry_out_wishes(*replica);
    } else if (!led) {
      auto next = elect_next(record, *state_);
      if (!next || next->leader != options_.node.id) continue;
      elected.emplace_back(std::move(*next), replica->revision());
      electing_.insert(replica->name());
    }
  }
  for (const auto& [name, stored] : state_->partitions) {
    if (!in_vain.contains(stored.record.topic_id) || electing_.contains(name)) continue;
    auto next = give_up(stored.record, drained ? *drained : *state_);
    if (!next) continue;
    elected.emplace_back(std::move(*next), stored.revision);
    electing_.insert(name);
  }
  if (!elected.empty())
    decide_.submit([this, elected = std::move(elected)]() mutable { commit_elections(std::move(elected)); });
}

// Topics that could not be had here for as long as a replica may lack records, since that was found or since their
// partitions were given away.
std::set<std::uint64_t> Node::topics_in_vain() {
  const std::int64_t now_ns = monotonic_ns();
  std::erase_if(topic_trouble_, [this](const auto& one) {
    const bool named = std::ranges::any_of(
        state_->topics, [&](const auto& topic) { return topic.second.record.topic_id == one.first; });
    return !named && !retried_topics_.contains(one.first) && !provided_.contains(one.first);
  });
  std::set<std::uint64_t> topics;
  for (auto& [id, trouble] : topic_trouble_) {
    if (now_ns - trouble.since_ns <= lag_time_max_ns()) continue;
    trouble.since_ns = now_ns;
    topics.insert(id);
  }
  return topics;
}

// Of a partition that this node is to lead and does not have: led by another, if one can. This node is alive, so nobody
// takes its place.
std::optional<PartitionRecord> Node::give_up(const PartitionRecord& record,
                                             const ClusterState& drained) const {
  const bool is_replica = std::ranges::find(record.replicas, options_.node.id) != record.replicas.end();
  if (!is_replica || replicas_.contains({record.topic_id, record.partition.value()})) return std::nullopt;
  const auto turn = is_led(record, *state_) ? std::optional(record) : elect_next(record, *state_);
  if (!turn || turn->leader != options_.node.id) return std::nullopt;
  auto next = elect_next(record, drained);
  if (!next || next->leader == options_.node.id) return std::nullopt;
  logger().warn(
      "replication: {}-{}: this host is to lead, and cannot have the topic; node {} is to lead instead",
      record.topic, record.partition.value(), next->leader->value());
  return next;
}

std::optional<PartitionRecord> Node::elect_next(const PartitionRecord& record,
                                                const ClusterState& state) const {
  const TopicConfig config = config_of(record.topic);
  auto next = elect(record, state, config.unclean_election == UncleanElection::allowed);
  if (!next) return next;
  // Of this node, that life counts which the topic's replicas vouch with. But who was in sync with his memory, before
  // replica.ack was altered, may not have synced all yet.
  if (config.acks_synced() && !next->unclean) return next;
  for (IsrMember& member : next->isr)
    if (const auto life = life_of(member.node, config.acks_synced()); life && member.node == options_.node.id)
      member.life = *life;
  return next;
}

// False: nobody else can lead it.
bool Node::give_away(Replica& replica, const ClusterState& drained) {
  if (!replica.is_handing_over()) {
    const auto next = elect_next(replica.record(), drained);
    if (!next || next->leader == options_.node.id) return false;
    replica.hand_over(*next);
  }
  elections_due_ = true;  // until it is done
  return true;
}

// Those that another node may come to have.
std::size_t Node::leaderships() const {
  std::size_t count = 0;
  for (const auto& [id, replica] : replicas_)
    if (replica->record().leader == options_.node.id && replica->record().replicas.size() > 1 &&
        replica->record().isr.size() > 1)
      ++count;
  return count;
}

// Of a partition that this node leads: the next step of moving it to other replicas, or to the leader that somebody
// has asked for.
void Node::carry_out_wishes(Replica& replica) {
  const PartitionRecord& record = replica.record();
  if (replica.is_handing_over()) return;
  auto next = step_reassignment(record, *state_);
  if (!next && record.wanted_leader) {
    next = record;
    next->wanted_leader.reset();
    ++next->partition_epoch;
    const NodeRecord* const wanted = find_live(*state_, *record.wanted_leader);
    const bool in_sync =
        std::ranges::find(record.isr, *record.wanted_leader, &IsrMember::node) != record.isr.end();
    if (*record.wanted_leader != options_.node.id) {
      if (wanted == nullptr || wanted->draining || !in_sync) return;  // it cannot lead yet
      next->leader = record.wanted_leader;
      next->leader_incarnation = wanted->incarnation;
      next->leader_epoch = record.leader_epoch + 1;
    }
  }
  if (!next) return;
  elections_due_ = true;  // until it is done
  if (next->leader == record.leader)
    replica.change(*next);
  else
    replica.hand_over(*next);
}

void Node::commit_elections(std::vector<std::pair<PartitionRecord, std::int64_t>> elected) {
  std::uint64_t won = 0;
  const auto note = [&](const Change& change) {
    const auto& record = std::get<PartitionRecord>(change.record);
    won += record.leader == options_.node.id ? 1 : 0;
    if (record.unclean)
      logger().warn(
          "{}-{}: unclean election of node {} in epoch {}: records that were acknowledged may be lost",
          record.topic, record.partition.value(), record.leader->value(), record.leader_epoch.value());
  };
  for (std::size_t begin = 0; begin < elected.size(); begin += kChangesAtOnce) {
    const auto some = std::span(elected).subspan(begin, std::min(kChangesAtOnce, elected.size() - begin));
    std::vector<Change> changes;
    for (const auto& [record, revision] : some) changes.push_back({record, revision});
    auto made = coordinator_->commit(changes);
    if (made && *made) std::ranges::for_each(changes, note);
    if (!made || *made || changes.size() == 1) continue;
    // One of them was not as it was seen: then each by itself.
    for (const Change& change : changes) {
      auto one = coordinator_->commit(std::span(&change, 1));
      if (one && *one) note(change);
    }
  }
  asio::post(context_, [this, won, elected = std::move(elected)] {
    elections_ += won;
    elections_due_ = true;
    for (const auto& [record, revision] : elected) electing_.erase({record.topic, record.partition});
    update_replicas();
  });
}

}  // namespace ringtail::replication
