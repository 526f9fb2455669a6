#include "replication/administration.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/placement.h"
#include "replication/records.h"

namespace ringtail::replication {

namespace {

template <class Range>
bool holds(const Range& nodes, NodeId node) {
  return std::ranges::find(nodes, node) != nodes.end();
}

bool is_of(const PartitionRecord& record, const TopicRecord& topic) {
  return record.topic_id == topic.topic_id && record.partition.value() < topic.partitions;
}

// Partitions of the name, of this topic or left over from another one.
auto partitions_named(const ClusterState& state, std::string_view name) {
  const auto begin = state.partitions.lower_bound({std::string(name), PartitionId(0)});
  auto end = begin;
  while (end != state.partitions.end() && end->first.topic == name) ++end;
  return std::ranges::subrange(begin, end);
}

// Be it one whose record cannot be read.
bool has_topic(const ClusterState& state, std::string_view name) {
  return state.topics.contains(name) || state.malformed.contains(topic_key(name));
}

Status check_replication(const TopicConfig& config, std::uint32_t factor) {
  // A follower has the same bytes at the same positions; what compaction has left of a segment stands elsewhere.
  if (config.cleanup_policy != CleanupPolicy::remove)
    return fail(
        Code::unsupported,
        "cleanup.policy=compact is for topics of one host; a cluster's topics need cleanup.policy=delete");
  if (config.min_insync_replicas <= factor) return {};
  return fail(Code::invalid_argument,
              fmt::format("min.insync.replicas={} can never be met by {} replica{}; lower it, or raise the "
                          "replication factor",
                          config.min_insync_replicas, factor, factor == 1 ? "" : "s"));
}

// Of an empty partition everybody has all records. Who has died since is found to be dead by its incarnation.
PartitionRecord first_record(const TopicRecord& topic, const ClusterState& state, std::uint32_t partition,
                             const std::vector<NodeId>& replicas) {
  const bool synced = config_of(topic).acks_synced();
  PartitionRecord record{.topic = topic.name,
                         .topic_id = topic.topic_id,
                         .partition = PartitionId(partition),
                         .replicas = replicas,
                         .isr = {},
                         .leader = replicas.front(),
                         .leader_incarnation = 0,
                         .leader_epoch = LeaderEpoch(1),
                         .partition_epoch = 1,
                         .unclean = false,
                         .adding = {},
                         .removing = {}};
  for (const NodeId node : replicas) {
    const auto stored = state.nodes.find(node);
    if (stored == state.nodes.end()) continue;
    record.isr.push_back({node, synced ? stored->second.record.log_id : stored->second.record.life});
    if (node == replicas.front()) record.leader_incarnation = stored->second.record.incarnation;
  }
  return record;
}

}  // namespace

// --- How it is doing -----------------------------------------------------------------------------

PartitionHealth health_of(const PartitionRecord& record, const ClusterState& state,
                          const TopicConfig& config) {
  const auto in_sync = [&](NodeId node) {
    return find_live(state, node) != nullptr &&
           std::ranges::find(record.isr, node, &IsrMember::node) != record.isr.end();
  };
  const auto count = static_cast<std::size_t>(std::ranges::count_if(record.replicas, in_sync));
  return {.led = is_led(record, state),
          .in_sync = count,
          .under_replicated = std::ranges::any_of(
              record.replicas, [&](NodeId node) { return !holds(record.adding, node) && !in_sync(node); }),
          .under_min_isr = std::cmp_less(count, config.min_insync_replicas),
          .reassigning = !record.adding.empty() || !record.removing.empty()};
}

TopicConfig config_of(const TopicRecord& topic) {
  const auto config = parse_topic_config(topic.configs);
  return config ? *config : TopicConfig{};
}

const Stored<PartitionRecord>* find_partition(const ClusterState& state, const TopicRecord& topic,
                                              PartitionId partition) {
  const auto found = state.partitions.find({topic.name, partition});
  return found != state.partitions.end() && is_of(found->second.record, topic) ? &found->second : nullptr;
}

std::map<NodeId, NodeLoad> loads(const ClusterState& state) {
  std::map<NodeId, NodeLoad> all;
  for (const auto& [name, stored] : state.partitions) {
    const PartitionRecord& record = stored.record;
    const auto topic = state.topics.find(name.topic);
    if (topic == state.topics.end() || !is_of(record, topic->second.record)) continue;
    for (const NodeId node : record.replicas) ++all[node].replicas;
    if (is_led(record, state)) ++all[*record.leader].led;
  }
  return all;
}

ClusterSummary summarize(const ClusterState& state) {
  ClusterSummary summary;
  summary.nodes = state.nodes.size();
  summary.topics = state.topics.size();
  for (const auto& [id, node] : state.nodes) {
    if (find_live(state, id) != nullptr) ++summary.live;
    if (node.record.draining) ++summary.draining;
  }
  for (const auto& [name, topic] : state.topics) {
    const TopicConfig config = config_of(topic.record);
    summary.partitions += topic.record.partitions;
    for (std::uint32_t i = 0; i < topic.record.partitions; ++i) {
      const TopicPartition partition{name, PartitionId(i)};
      const auto* stored = find_partition(state, topic.record, PartitionId(i));
      const PartitionHealth health = stored != nullptr
                                         ? health_of(stored->record, state, config)
                                         : PartitionHealth{.under_replicated = true, .under_min_isr = true};
      if (health.under_replicated) summary.under_replicated.push_back(partition);
      if (!health.led) summary.leaderless.push_back(partition);
      if (health.under_min_isr) summary.under_min_isr.push_back(partition);
      if (health.reassigning) summary.reassigning.push_back(partition);
      if (stored != nullptr && stored->record.unclean) summary.unclean.push_back(partition);
    }
  }
  return summary;
}

std::string why_not_preferred(const PartitionRecord& record, const ClusterState& state) {
  const NodeId preferred = record.replicas.front();
  if (!is_led(record, state)) return "nobody leads it";
  if (record.leader == preferred) return "leads already";
  ClusterState alone;
  alone.nodes = state.nodes;
  alone.live = state.live;
  alone.partitions[{record.topic, record.partition}] = {record, 0};
  if (!move_to_preferred_leaders(alone, 1).empty()) return {};
  const std::string node = fmt::format("its preferred leader, node {}, is ", preferred.value());
  if (holds(record.removing, preferred)) return node + "being removed";
  const NodeRecord* live = find_live(state, preferred);
  return node + (live == nullptr ? "not alive" : live->draining ? "draining" : "not in sync");
}

// --- Topics --------------------------------------------------------------------------------------

Result<TopicCreation> TopicCreation::plan(const ClusterState& state, TopicRecord topic) {
  if (const Status named = check_topic_name(topic.name); !named) return std::unexpected(named.error());
  auto configs = merge_topic_configs({}, topic.configs);
  if (!configs) return std::unexpected(configs.error());
  topic.configs = std::move(*configs);
  const auto config = parse_topic_config(topic.configs);
  if (!config) return std::unexpected(config.error());
  if (const Status possible = check_replication(*config, topic.replication_factor); !possible)
    return std::unexpected(possible.error());
  if (const Status readable = check_record({topic}); !readable) return std::unexpected(readable.error());
  if (has_topic(state, topic.name))
    return fail(Code::already_exists, fmt::format("the cluster has a topic '{}' already", topic.name));
  auto replicas = place_replicas(state, topic.partitions, topic.replication_factor);
  if (!replicas) return std::unexpected(replicas.error());
  return TopicCreation(std::move(topic), std::move(*replicas));
}

Result<std::vector<Change>> TopicCreation::next(const ClusterState& state) {
  const auto existing = state.topics.find(topic_.name);
  if (existing != state.topics.end() && existing->second.record.topic_id == topic_.topic_id)
    return std::vector<Change>{};
  if (has_topic(state, topic_.name))
    return fail(Code::already_exists, fmt::format("the cluster has a topic '{}' already", topic_.name));
  const auto anchor = state.partitions.find({topic_.name, PartitionId(0)});
  const bool ours = anchor != state.partitions.end() && is_of(anchor->second.record, topic_);
  if (begun_ && !ours)
    return fail(
        Code::already_exists,
        fmt::format("somebody else is creating or deleting the topic '{}' at the same time", topic_.name));
  begun_ = begun_ || ours;

  std::vector<Change> changes;
  for (std::uint32_t i = 0; i < topic_.partitions; ++i) {
    const auto stored = state.partitions.find({topic_.name, PartitionId(i)});
    const bool there = stored != state.partitions.end();
    if (i > 0 && there && is_of(stored->second.record, topic_)) continue;
    changes.push_back({first_record(topic_, state, i, replicas_[i]), there ? stored->second.revision : 0});
  }
  for (const auto& [name, stored] : partitions_named(state, topic_.name))
    if (name.partition.value() >= topic_.partitions)
      changes.push_back({stored.record, stored.revision, true});
  changes.push_back({topic_, 0});
  return changes;
}

std::vector<Change> removal_of(const ClusterState& state, std::string_view name, std::uint64_t topic_id) {
  std::vector<Change> changes;
  const auto topic = state.topics.find(name);
  if (topic != state.topics.end() && topic->second.record.topic_id == topic_id)
    changes.push_back({topic->second.record, topic->second.revision, true});
  for (const auto& [partition, stored] : partitions_named(state, name))
    if (stored.record.topic_id == topic_id) changes.push_back({stored.record, stored.revision, true});
  return changes;
}

std::vector<Change> leftovers_of(const ClusterState& state, std::string_view name) {
  std::vector<Change> changes;
  if (has_topic(state, name)) return changes;
  for (const auto& [partition, stored] : partitions_named(state, name))
    changes.push_back({stored.record, stored.revision, true});
  return changes;
}

Result<Stored<TopicRecord>> find_topic(const ClusterState& state, std::string_view name) {
  const auto found = state.topics.find(name);
  if (found != state.topics.end()) return found->second;
  return fail(Code::not_found,
              fmt::format("the cluster has no topic '{}'; see `ringtail cluster describe`, or create it with "
                          "`ringtail topic create {} --replication-factor N`",
                          name, name));
}

Result<std::vector<Change>> alteration_of(const ClusterState& state, std::string_view name,
                                          const TopicConfigs& changes) {
  auto topic = find_topic(state, name);
  if (!topic) return std::unexpected(topic.error());
  if (const Status alterable = check_alterable(changes); !alterable)
    return std::unexpected(alterable.error());
  auto merged = merge_topic_configs(topic->record.configs, changes);
  if (!merged) return std::unexpected(merged.error());
  const auto config = parse_topic_config(*merged);
  if (!config) return std::unexpected(config.error());
  if (const Status possible = check_replication(*config, topic->record.replication_factor); !possible)
    return std::unexpected(possible.error());
  if (*merged == topic->record.configs) return std::vector<Change>{};
  topic->record.configs = std::move(*merged);
  return std::vector<Change>{{topic->record, topic->revision}};
}

Result<std::vector<Change>> addition_of(const ClusterState& state, std::string_view name,
                                        std::uint32_t partitions) {
  auto topic = find_topic(state, name);
  if (!topic) return std::unexpected(topic.error());
  TopicRecord& record = topic->record;
  if (partitions < record.partitions)
    return fail(Code::invalid_argument,
                fmt::format("topic '{}' has {} partitions already; their number only grows", name,
                            record.partitions));
  if (partitions == record.partitions) return std::vector<Change>{};
  const std::uint32_t had = std::exchange(record.partitions, partitions);
  if (const Status readable = check_record({record}); !readable) return std::unexpected(readable.error());
  auto placed = place_replicas(state, partitions - had, record.replication_factor);
  if (!placed) return std::unexpected(placed.error());
  std::vector<Change> changes;
  for (std::uint32_t i = had; i < partitions; ++i) {
    const auto stored = state.partitions.find({record.name, PartitionId(i)});
    const bool there = stored != state.partitions.end();
    // Who has lost his memory since an interrupted addition could not lead what it left. Nor was that ever led.
    if (there && stored->second.record.topic_id == record.topic_id &&
        has_in_sync(stored->second.record, state))
      continue;
    changes.push_back(
        {first_record(record, state, i, (*placed)[i - had]), there ? stored->second.revision : 0});
  }
  changes.push_back({record, topic->revision});
  return changes;
}

}  // namespace ringtail::replication
