// Topics: create, list, describe, alter, delete.
#pragma once

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
  std::uint64_t disk_bytes = 0;  // in segment files
  std::uint64_t ring_bytes = 0;
  std::uint64_t ring_generation = 0;
  LeaderEpoch leader_epoch{0};
  std::optional<Error> failure;  // why the partition refuses durable writes
};

struct TopicDescription {
  std::string name;
  TopicConfigs configs;    // every configuration, with its value in effect
  TopicConfigs overrides;  // those that were set
  std::vector<PartitionDescription> partitions;
};

// Who takes part in a log.
enum class ProcessRole { producer, consumer, keeper };

std::string_view to_string(ProcessRole role);

// How far a consumer has read a partition: the next record it will be given.
struct ReadPosition {
  TopicPartition partition;
  Position position{0};
  Offset offset{0};
};

// One open Producer or Consumer, or the keeper: a process has one entry for each that it holds.
struct ProcessDescription {
  std::uint32_t pid = 0;  // in the pid namespace of that process
  std::string name;       // as `ps -o comm` shows it; any bytes; empty when not known
  ProcessRole role = ProcessRole::producer;
  std::int64_t started_ns = 0;      // when it was opened, since the Unix epoch; 0 for the keeper
  bool alive = true;                // false: died, and the keeper has not yet cleared up behind it
  std::vector<ReadPosition> reads;  // of consumers, by topic and partition
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

  // Names in alphabetical order.
  Result<std::vector<std::string>> list_topics() const;

  // Errors: not_found.
  Result<TopicDescription> describe_topic(std::string_view name) const;

  // The keeper, if there is one, then producers and consumers by pid, role and time of opening. A moment's
  // look at what changes: what comes or goes meanwhile may be missing.
  // Errors: closed, and those of list_topics.
  Result<std::vector<ProcessDescription>> list_processes() const;

  // Sets the given configurations and leaves the others; an empty value restores the default.
  // Durable on return. Takes effect at the next operation of every attached process.
  // Errors: not_found, invalid_argument (also for a configuration that cannot be altered).
  Status alter_topic(std::string_view name, const TopicConfigs& changes);

  // Deletes the topic with its records. Producers and consumers of it get Code::closed.
  // Durable on return. Errors: not_found, no_keeper.
  Status delete_topic(std::string_view name);

  static std::vector<ConfigReference> config_reference();

 private:
  Log log_;
};

}  // namespace ringtail
