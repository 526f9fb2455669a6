// Topics and consumer groups: create, list, describe, alter, delete.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"
#include "ringtail/log.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail {

// Topic configurations by name, as Kafka spells them, with values as text ("retention.ms" ->
// "604800000"). Names, ranges and defaults are listed by Admin::config_reference.
using TopicConfigs = std::map<std::string, std::string, std::less<>>;

struct TopicSpec {
  std::string name;  // [a-zA-Z0-9._-], 1 to 200 characters, neither "." nor ".."
  std::uint32_t partitions = 1;
  TopicConfigs configs = {};
};

// The state of one partition. All ends are exclusive: the next offset to come.
struct PartitionDescription {
  PartitionId partition{0};
  Offset log_start_offset{0};
  Offset durable_offset{0};  // written and synced on this host; equals log start for memory topics
  Offset high_watermark{0};  // on every in-sync replica
  Offset log_end_offset{0};  // the next to be given out; claims still open count
  Position log_start_position{0};
  Position durable_position{0};  // equals log start for memory topics
  Position log_end_position{0};
  std::uint64_t disk_bytes = 0;            // of records, in segment files
  std::uint64_t disk_allocated_bytes = 0;  // its files, which are made ahead of the records
  std::uint64_t ring_bytes = 0;
  std::uint64_t term_bytes = 0;  // of the ring's terms: only whole ones are used again
  std::uint64_t ring_generation = 0;
  LeaderEpoch leader_epoch{0};
  std::uint32_t exclusive_pid = 0;  // of the producer that has it for itself; 0: nobody
  std::optional<Error> failure;     // why the partition refuses records

  // 0 to 1: of the ring, what cannot be used again yet, which is all from the start of the term that holds the
  // durable end. A full ring lacks at most a frame of 1. 0: all is durable. Means nothing for memory topics.
  double ring_fill() const;
};

struct TopicDescription {
  std::string name;
  TopicConfigs configs;    // every configuration, with its value in effect
  TopicConfigs overrides;  // those that were set
  std::vector<PartitionDescription> partitions;
};

// Who takes part in a log.
enum class ProcessRole { producer, consumer, keeper, coordinator, admin };

std::string_view to_string(ProcessRole role);

// How far a consumer has read a partition: the next record it will be given.
struct ReadPosition {
  TopicPartition partition;
  Position position{0};
  Offset offset{0};
};

// One open Producer or Consumer, the keeper, or what it needs for consumer groups (coordinator); or somebody who
// is changing a group (admin). A process has one entry for each that it holds.
struct ProcessDescription {
  std::uint32_t pid = 0;  // in the pid namespace of that process
  std::string name;       // as `ps -o comm` shows it; any bytes; empty when not known
  ProcessRole role = ProcessRole::producer;
  std::int64_t started_ns = 0;      // when it was opened, since the Unix epoch; 0 for the keeper
  bool alive = true;                // false: died, and the keeper has not yet cleared up behind it
  std::vector<ReadPosition> reads;  // of consumers, by topic and partition
};

// --- Consumer groups ---

enum class GroupState {
  empty,        // no members; its positions are kept
  rebalancing,  // partitions are on their way between members
  stable,
};

std::string_view to_string(GroupState state);

struct GroupSummary {
  std::string id;
  GroupState state = GroupState::empty;
  std::uint32_t members = 0;
  std::uint32_t generation = 0;  // rises with each assignment
};

struct GroupMemberDescription {
  std::string id;
  std::string client_id;
  std::string host;
  std::uint32_t pid = 0;                   // in the pid namespace of that process
  std::int64_t joined_ns = 0;              // since the Unix epoch
  std::chrono::nanoseconds idle{0};        // since it last polled
  std::vector<std::string> subscription;   // names of topics, or one expression
  bool by_pattern = false;                 // which of the two
  std::vector<TopicPartition> partitions;  // that it owns
};

// A group's standing in one partition.
struct GroupPartitionDescription {
  TopicPartition partition;
  std::optional<Offset> committed;  // the next record to be read, as committed; none yet
  std::string metadata;             // of that commit
  Offset log_start_offset{0};
  Offset log_end_offset{0};
  std::uint64_t lag = 0;  // records from the committed offset (none: from the log start) to the log end
  std::string member_id;  // of the owner; empty: nobody reads it
};

struct GroupDescription {
  std::string id;
  GroupState state = GroupState::empty;
  std::uint32_t generation = 0;
  std::string assignor;
  std::vector<GroupMemberDescription> members;
  std::vector<GroupPartitionDescription> partitions;  // by topic and number
  std::optional<Error> trouble;                       // what keeps the group from being served
};

// Where to set a group's positions.
struct OffsetReset {
  enum class To { earliest, latest, offset, time, shift_by } to = To::earliest;
  std::int64_t value = 0;  // the offset, the time in ns since the Unix epoch, or the number of records
};

struct OffsetChange {
  TopicPartition partition;
  std::optional<Offset> from;
  Offset to{0};
};

struct ConfigReference {
  std::string_view name;
  std::string_view default_value;
  std::string_view values;       // range or list of values
  std::string_view description;  // one sentence
  bool alterable;                // by alter_topic, without creating the topic anew
};

// Administration of one log. Blocking; not for hot paths.
// Thread safety: may be used from any thread. Process safety: changes of several processes are
// serialised by a lock that the kernel drops at the death of its holder.
class Admin {
 public:
  explicit Admin(Log log) : log_(std::move(log)) {}

  // Creates a topic and waits until producers can append to it.
  // Durable on return: the topic's existence and configuration.
  // Errors: invalid_argument (name, partitions, configuration), already_exists, no_space,
  // shared_memory_full, limit_exceeded, no_keeper, permission_denied, read_only.
  Status create_topic(const TopicSpec& spec);

  // Names in alphabetical order, also of topics whose description cannot be read: describe_topic says why.
  // Errors: closed, permission_denied, system.
  Result<std::vector<std::string>> list_topics() const;

  // Does not wait for a partition that the keeper is opening: `failure` tells of it (would_block). Errors: not_found,
  // corrupt, incompatible_layout, permission_denied, system (of the topic's description on disk).
  Result<TopicDescription> describe_topic(std::string_view name) const;

  // The keeper, if there is one, then producers and consumers by pid, role and time of opening. A moment's
  // look at what changes: what comes or goes meanwhile may be missing, and what is read of a topic that cannot be loaded.
  // Errors: closed, and those of list_topics.
  Result<std::vector<ProcessDescription>> list_processes() const;

  // Sets the given configurations and leaves the others; an empty value restores the default.
  // Durable on return. Takes effect at the next operation of every attached process. Blocks until the keeper knows, for
  // 60 s at most.
  // Errors: not_found, invalid_argument (also for a configuration that cannot be altered), no_keeper (it is altered, and
  // takes effect once somebody keeps the log).
  Status alter_topic(std::string_view name, const TopicConfigs& changes);

  // Gives the topic so many partitions, while it is in use; as many as it has is no change. Producers that
  // are open begin to use the new ones, groups get them assigned; from then on a key may go to another
  // partition than before. Durable on return: that they exist.
  // Errors: not_found, invalid_argument (fewer than now: records cannot be moved; more than 4096),
  // limit_exceeded, no_keeper; shared_memory_full, when there is no room for their rings; it and no_space also
  // when room ran out meanwhile: then the partitions exist, and refuse records.
  Status create_partitions(std::string_view name, std::uint32_t total);

  // Deletes the topic with its records. Producers and consumers of it get Code::closed.
  // Durable on return. Errors: not_found, no_keeper.
  Status delete_topic(std::string_view name);

  // Consumer groups by id. Errors: closed.
  Result<std::vector<GroupSummary>> list_groups() const;

  // Errors: not_found (no such group), and those of describe_topic.
  Result<GroupDescription> describe_group(std::string_view id) const;

  // Sets the group's positions in a topic, in one partition of it where that is given; an offset outside
  // the log becomes its start or end, which in a topic with replicas is the high watermark. Returns what changes; with
  // `dry_run` nothing does. Durable on return. Errors: not_found (group, topic, partition), group_not_empty (it has
  // members, or a transaction is about to move a position), limit_exceeded, no_keeper, timed_out, and why it is not
  // known where a partition ends.
  Result<std::vector<OffsetChange>> reset_group_offsets(std::string_view id, std::string_view topic,
                                                        std::optional<PartitionId> partition,
                                                        OffsetReset reset, bool dry_run);

  // Forgets the group with its positions. Errors: not_found, group_not_empty, no_keeper, timed_out.
  Status delete_group(std::string_view id);

  static std::vector<ConfigReference> config_reference();

 private:
  Log log_;
};

}  // namespace ringtail
