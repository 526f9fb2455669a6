#include "replication/node.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/logger.h"
#include "replication/records.h"

namespace ringtail::replication {

namespace {

constexpr std::size_t kMostNamed = 8;
constexpr std::size_t kMostOfTrouble = 200;

}  // namespace

void Node::on_state(std::shared_ptr<const ClusterState> state) {
  // Records that were read anew, be it that they were lost and begun anew, restored from an older snapshot or compacted,
  // do not say of a topic that is here, and not among them, that it was deleted.
  const bool anew = state->cluster_id != state_->cluster_id || state->gaps != state_->gaps;
  if (anew)
    std::erase_if(provided_, [&](const auto& one) {
      const auto found = state->topics.find(one.second.name);
      return found == state->topics.end() || found->second.record.topic_id != one.first;
    });
  if (anew && !state->cluster_id.empty()) tell_strays(*state);
  state_ = std::move(state);
  apply_throttle();
  connect();
  take_up_topics();
  hold_elections();
}

// What has changed while a topic was being made or removed is taken up when that is done. One that is removed goes
// before another of its name comes.
void Node::take_up_topics() {
  update_replicas();
  remove_topics();
  provide_topics();
}

// What did not come off may have been for a reason that passes: no space, no descriptors.
void Node::retry_topics() {
  if (std::exchange(retried_topics_, {}).empty()) return;
  remove_topics();
  provide_topics();
}

// Topics of a cluster that its records do not name, as when etcd has lost its data. They are left as they are.
void Node::tell_strays(const ClusterState& state) const {
  const auto here = log_->catalog().list_topics();
  if (!here) return logger().warn("replication: {}", to_string(here.error()));
  std::vector<std::string> strays;
  for (const log::TopicEntry& topic : *here) {
    const auto found = state.topics.find(topic.name);
    const bool named = found != state.topics.end() && found->second.record.topic_id == topic.topic_id;
    if (topic.replication_factor != 0 && !named) strays.push_back(topic.name);
  }
  if (strays.empty()) return;
  const std::size_t count = strays.size();
  if (count > kMostNamed) strays.resize(kMostNamed);
  logger().error(
      "replication: the records of cluster '{}' (id {}) do not name {} of its topics that {} on this host "
      "({}{}). "
      "They are fenced, and nothing of them is deleted. If etcd has lost its data, restore it from a "
      "snapshot; "
      "see \"etcd\" in docs/daemon.md",
      options_.network.cluster, state.cluster_id, count, count == 1 ? "is" : "are", fmt::join(strays, ", "),
      count > kMostNamed ? ", ..." : "");
}

void Node::apply_throttle() {
  const std::int64_t of_cluster = state_->settings.record.replication_throttle_bytes_per_s;
  ship_.throttle.set_rate(of_cluster > 0 ? of_cluster : options_.throttle_bytes_per_s);
}

void Node::connect() {
  std::map<NodeId, Address> peers;
  for (const auto& [id, stored] : state_->nodes)
    if (id != options_.node.id) peers[id] = stored.record.replication;
  network_->set_peers(peers);
}

// Puts into this node's record whom it cannot connect to, so that it is seen from anywhere, and where its metrics are
// now. What comes and goes between two looks is not told.
void Node::tell_of_itself() {
  std::map<NodeId, std::string> now;
  for (const auto& [id, incarnation] : state_->live)
    if (id != options_.node.id && network_->link(id) == nullptr)
      if (std::string why = network_->trouble(id); !why.empty()) now[id] = why.substr(0, kMostOfTrouble);
  const bool lasts = now == std::exchange(unreached_, now);
  const NodeRecord* const record = find_live(*state_, options_.node.id);
  if (!lasts || telling_ || !may_lead_ || record == nullptr) return;
  if (record->unreached == now && record->http == options_.node.http) return;
  Change change{*record, state_->nodes.at(options_.node.id).revision};
  std::get<NodeRecord>(change.record).unreached = std::move(now);
  std::get<NodeRecord>(change.record).http = options_.node.http;
  telling_ = true;
  decide_.submit([this, change = std::move(change)] {
    if (auto told = coordinator_->commit(std::span(&change, 1)); !told)
      logger().debug("replication: {}", to_string(told.error()));
    asio::post(context_, [this] { telling_ = false; });
  });
}

// Topics of which this node is to have a partition, and has none yet, or has it otherwise.
void Node::provide_topics() {
  std::set<std::string> wanted;
  for (const auto& [name, stored] : state_->partitions)
    if (std::ranges::find(stored.record.replicas, options_.node.id) != stored.record.replicas.end())
      wanted.insert(name.topic);
  for (const auto& [name, stored] : state_->topics) {
    const std::uint64_t id = stored.record.topic_id;
    const auto known = provided_.find(id);
    if (!wanted.contains(name) || (known != provided_.end() && known->second == stored.record)) continue;
    if (retried_topics_.contains(id) || !providing_.insert(id).second) continue;
    topics_.submit([this, topic = stored.record, of = state_] {
      const Status made = provide_topic(topic);
      asio::post(context_, [this, topic, of, made] {
        providing_.erase(topic.topic_id);
        if (made && is_told_on(*of)) provided_[topic.topic_id] = topic;
        note_topic(topic, made, "cannot be had here");
        elections_due_ = true;
        take_up_topics();
      });
    });
  }
}

Status Node::provide_topic(const TopicRecord& topic) const {
  const log::Catalog& catalog = log_->catalog();
  Status made;
  auto known = catalog.load_topic(topic.name);
  if (known)
    made = adapt_topic(*known, topic);
  else
    made = catalog.adopt_topic({.name = topic.name,
                                .topic_id = topic.topic_id,
                                .partitions = topic.partitions,
                                .replication_factor = topic.replication_factor,
                                .overrides = topic.configs,
                                .created_ns = topic.created_ns});
  return made ? log_->apply_catalog() : made;
}

// Says what is wrong once, however often it is tried.
void Node::note_topic(const TopicRecord& topic, const Status& made, std::string_view what) {
  if (made) {
    topic_trouble_.erase(topic.topic_id);
    return;
  }
  retried_topics_.insert(topic.topic_id);
  std::string trouble = fmt::format("topic '{}' {}: {}", topic.name, what, to_string(made.error()));
  TopicTrouble& known = topic_trouble_.try_emplace(topic.topic_id, "", monotonic_ns()).first->second;
  if (known.told == trouble) return;
  logger().error("replication: {}; it is tried again", trouble);
  known.told = std::move(trouble);
}

// Makes a topic that is here what its record says.
Status Node::adapt_topic(const log::TopicEntry& known, const TopicRecord& topic) const {
  if (known.topic_id != topic.topic_id)
    return fail(Code::already_exists,
                fmt::format("this host has another topic of that name, with id {:016x}; delete it here with "
                            "`ringtail topic delete {}`, or the cluster's",
                            known.topic_id, topic.name));
  if (topic.partitions > known.partitions)
    if (auto added = log_->catalog().add_partitions(topic.name, topic.partitions); !added)
      return std::unexpected(added.error());
  const auto wanted = merge_topic_configs({}, topic.configs);  // in the spelling of those that are known
  if (!wanted) return std::unexpected(wanted.error());
  TopicConfigs changes;
  for (const auto& [name, value] : *wanted)
    if (const auto had = known.overrides.find(name); had == known.overrides.end() || had->second != value)
      changes[name] = value;
  for (const auto& [name, value] : known.overrides)
    if (!wanted->contains(name)) changes[name] = "";
  if (changes.empty()) return {};
  auto altered = log_->catalog().alter_topic(topic.name, changes);
  return altered ? Status{} : std::unexpected(altered.error());
}

// Whether what is known now follows, change by change, on that state: records that were read anew meanwhile must not
// delete what that state had.
bool Node::is_told_on(const ClusterState& state) const {
  return state.cluster_id == state_->cluster_id && state.gaps == state_->gaps;
}

// Topics that were deleted from the records. From these alone: records that are gone altogether delete nothing, nor does
// one that cannot be read.
void Node::remove_topics() {
  for (auto it = provided_.begin(); it != provided_.end();) {
    const auto found = state_->topics.find(it->second.name);
    const bool stays = found != state_->topics.end() ? found->second.record.topic_id == it->first
                                                     : state_->malformed.contains(topic_key(it->second.name));
    if (stays || retried_topics_.contains(it->first)) {
      ++it;
      continue;
    }
    topics_.submit([this, topic = it->second, of = state_] {
      const Status removed = remove_topic(topic);
      asio::post(context_, [this, topic, of, removed] {
        if (!removed && is_told_on(*of)) provided_[topic.topic_id] = topic;  // it is here still
        note_topic(topic, removed, "was deleted from the cluster, and cannot be here");
      });
    });
    it = provided_.erase(it);
  }
}

Status Node::remove_topic(const TopicRecord& topic) const {
  const auto known = log_->catalog().load_topic(topic.name);
  if (!known && known.error().code == Code::not_found) return {};
  if (!known) return std::unexpected(known.error());
  if (known->topic_id != topic.topic_id) return {};
  auto removed = log_->catalog().delete_topic(topic.name);
  if (removed) removed = log_->apply_catalog();
  if (removed) logger().info("topic '{}' was deleted from the cluster, and so here", topic.name);
  return removed;
}

void Node::update_replicas() {
  // Without a lease it leads nothing: the tick that finds one, be it the next, has to look again.
  if (boottime_ns() >= lease_deadline_ns()) may_lead_ = false;
  std::map<std::string, TopicConfig> configs;
  for (const auto& [id, topic] : provided_)
    configs[topic.name] = parse_topic_config(topic.configs).value_or(TopicConfig{});
  for (const auto& [name, stored] : state_->partitions) {
    const PartitionRecord& record = stored.record;
    if (std::ranges::find(record.replicas, options_.node.id) == record.replicas.end()) continue;
    // One of those that are just being added is not here yet.
    const auto topic = provided_.find(record.topic_id);
    if (topic == provided_.end() || record.partition.value() >= topic->second.partitions) continue;
    const StreamId id{record.topic_id, record.partition.value()};
    // It was given away while it was not here: what was appended before that is known would be cut off.
    if (electing_.contains(name) && !replicas_.contains(id)) continue;
    auto& replica = replicas_[id];
    if (!replica) replica = std::make_unique<Replica>(ship_, *this, name, id);
    replica->set_record(stored, leader_of(record), configs[name.topic]);
    restless_.insert(replica.get());
  }
  // Those that are deleted, be it that an interrupted deletion has left their records, or are no business of this node
  // any more.
  for (auto it = replicas_.begin(); it != replicas_.end();) {
    const TopicPartition& name = it->second->name();
    const auto topic = state_->topics.find(name.topic);
    const bool named = topic != state_->topics.end() ? topic->second.record.topic_id == it->first.topic_id
                                                     : state_->malformed.contains(topic_key(name.topic));
    const auto found = state_->partitions.find(name);
    const bool stays = named && found != state_->partitions.end() &&
                       found->second.record.topic_id == it->first.topic_id &&
                       std::ranges::find(found->second.record.replicas, options_.node.id) !=
                           found->second.record.replicas.end();
    if (stays) {
      ++it;
      continue;
    }
    take_role(it->first, {.role = shm::ReplicaRole::fenced});
    // The entry may be another's by now.
    if (const auto index = it->second->index()) {
      const auto known = by_index_.find(*index);
      if (known != by_index_.end() && known->second == it->second.get()) by_index_.erase(known);
    }
    active_.erase(it->second.get());
    restless_.erase(it->second.get());
    it = replicas_.erase(it);
  }
}

}  // namespace ringtail::replication
