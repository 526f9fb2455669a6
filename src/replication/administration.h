// What whoever runs a cluster asks of its records: how it is doing, and topics that come, change and go.
//
// Changes are decided from a state, as placement.h has it: the caller commits what it is given, looks at the new
// state and asks again, until nothing is left to change. So it does not matter what others did meanwhile, whether
// the outcome of a commit was unknown, or where somebody before was interrupted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/topic_config.h"
#include "replication/coordinator.h"

namespace ringtail::replication {

// --- How it is doing -----------------------------------------------------------------------------

struct PartitionHealth {
  bool led = false;
  std::size_t in_sync = 0;        // members of the ISR that are alive
  bool under_replicated = false;  // a replica is not among these, other than those that are being added
  bool under_min_isr = false;     // fewer than min.insync.replicas
  bool reassigning = false;

  friend bool operator==(const PartitionHealth&, const PartitionHealth&) = default;
};

PartitionHealth health_of(const PartitionRecord& record, const ClusterState& state,
                          const TopicConfig& config);

// Its configuration; the defaults where it cannot be read.
TopicConfig config_of(const TopicRecord& topic);

// The partition of that topic; null when its record is missing, malformed, or left over from another topic of
// this name.
const Stored<PartitionRecord>* find_partition(const ClusterState& state, const TopicRecord& topic,
                                              PartitionId partition);

// How many partitions a node holds and leads. Those without a topic do not count, here and below.
struct NodeLoad {
  std::size_t replicas = 0;
  std::size_t led = 0;
};
std::map<NodeId, NodeLoad> loads(const ClusterState& state);

struct ClusterSummary {
  std::size_t nodes = 0;
  std::size_t live = 0;
  std::size_t draining = 0;
  std::size_t topics = 0;
  std::size_t partitions = 0;
  std::vector<TopicPartition> under_replicated;
  std::vector<TopicPartition> leaderless;  // those without a readable record, too
  std::vector<TopicPartition> under_min_isr;
  std::vector<TopicPartition> reassigning;
  std::vector<TopicPartition> unclean;
};
ClusterSummary summarize(const ClusterState& state);

// Why the partition's preferred leader is not to be asked to lead it; empty: it could lead, and does not.
std::string why_not_preferred(const PartitionRecord& record, const ClusterState& state);

// --- Topics --------------------------------------------------------------------------------------

// A topic that is being created, in as many commits as its partitions need; it exists from the last one on, which
// has its TopicRecord. A creation that ends before leaves partitions of no topic, which nobody looks at, and
// which the next creation of this name takes over. Of two at a time one ends with already_exists: every commit
// rewrites partition 0 as well, so that it fails once another creation has taken that over.
class TopicCreation {
 public:
  // Places its partitions; `topic_id` is random, and tells this creation from others.
  // Errors: invalid_argument (name, number, configuration), unsupported (compaction), already_exists,
  // not_enough_replicas.
  static Result<TopicCreation> plan(const ClusterState& state, TopicRecord topic);

  const TopicRecord& topic() const { return topic_; }

  // What is still to be changed, to be committed in this order; nothing: the topic is there.
  // Errors: already_exists (somebody else's topic, or creation, came first).
  Result<std::vector<Change>> next(const ClusterState& state);

 private:
  TopicCreation(TopicRecord topic, std::vector<std::vector<NodeId>> replicas)
      : topic_(std::move(topic)), replicas_(std::move(replicas)) {}

  TopicRecord topic_;
  std::vector<std::vector<NodeId>> replicas_;
  bool begun_ = false;  // partition 0 was seen to be of this creation
};

// What is left of the topic, its TopicRecord first; partitions after it are of no topic, should this be
// interrupted: leftovers_of.
std::vector<Change> removal_of(const ClusterState& state, std::string_view name, std::uint64_t topic_id);

// The removal of partitions of that name that are of no topic, since its removal or creation was interrupted. Of a
// topic, be it one whose record cannot be read, nothing. A creation that is under way loses partition 0 with the first
// commit, and so ends with already_exists.
std::vector<Change> leftovers_of(const ClusterState& state, std::string_view name);

// The topic's record with configurations changed, as merge_topic_configs has it; nothing: they are so already.
// Errors: not_found, invalid_argument, unsupported (compaction).
Result<std::vector<Change>> alteration_of(const ClusterState& state, std::string_view name,
                                          const TopicConfigs& changes);

// More partitions, the topic's record last: until it is changed, they are of no topic, and whoever adds partitions next
// takes them over; those that nobody could lead any more are placed anew. Nothing: it has as many.
// Errors: not_found, invalid_argument (it has more, or too many), not_enough_replicas.
Result<std::vector<Change>> addition_of(const ClusterState& state, std::string_view name,
                                        std::uint32_t partitions);

// Errors: not_found, with what to do.
Result<Stored<TopicRecord>> find_topic(const ClusterState& state, std::string_view name);

}  // namespace ringtail::replication
