// A topic's configuration: Kafka's names, our defaults, one table that parsing, validation, help and
// storage all go through.
//
// Thread and process safety: pure functions on values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/admin.h"
#include "ringtail/error.h"

namespace ringtail {

enum class Storage : std::uint8_t { disk, memory };
enum class OnFull : std::uint8_t { block, fail, overwrite };
enum class TimestampType : std::uint8_t { create_time, log_append_time };
enum class CleanupPolicy : std::uint8_t { remove, compact, compact_and_remove };  // remove: "delete"
enum class ReplicaAck : std::uint8_t { durable, memory };
enum class UncleanElection : std::uint8_t { refused, allowed };  // "false", "true"

struct TopicConfig {
  std::int64_t retention_ms = 7LL * 24 * 3600 * 1000;  // -1: unlimited
  std::int64_t retention_bytes = -1;                   // per partition; -1: unlimited
  std::int64_t segment_bytes = 256LL << 20;
  std::int64_t segment_ms = 7LL * 24 * 3600 * 1000;
  std::int64_t max_message_bytes = 1LL << 20;  // key + value + headers, at most term.bytes / 8
  std::int64_t min_insync_replicas = 1;
  std::int64_t flush_interval_ms = 5;  // flush.ms: at most this long unsynced
  std::int64_t index_interval_bytes = 64 << 10;
  std::int64_t term_bytes = 8LL << 20;  // power of two, 64 KiB to 64 MiB
  std::int64_t ring_terms = 4;          // 4 to 64
  std::int64_t claim_timeout_ms = 10'000;
  std::int64_t reader_pin_ms = 100;
  std::int64_t min_cleanable_dirty_billionths = 500'000'000;  // min.cleanable.dirty.ratio
  std::int64_t min_compaction_lag_ms = 0;
  std::int64_t max_compaction_lag_ms = -1;                // -1: unlimited
  std::int64_t delete_retention_ms = 24LL * 3600 * 1000;  // of tombstones in compacted topics
  TimestampType timestamp_type = TimestampType::create_time;
  CleanupPolicy cleanup_policy = CleanupPolicy::remove;
  Storage storage = Storage::disk;
  OnFull on_full = OnFull::block;
  ReplicaAck replica_ack = ReplicaAck::durable;
  UncleanElection unclean_election = UncleanElection::refused;

  friend bool operator==(const TopicConfig&, const TopicConfig&) = default;

  // Whether a replica has a record only when it has synced it.
  bool acks_synced() const { return replica_ack == ReplicaAck::durable && storage == Storage::disk; }
  bool compacts() const { return cleanup_policy != CleanupPolicy::remove; }
  bool removes() const { return cleanup_policy != CleanupPolicy::compact; }
  std::uint64_t ring_bytes() const {
    return static_cast<std::uint64_t>(term_bytes) * static_cast<std::uint64_t>(ring_terms);
  }
};

// The configuration that `overrides` make of the defaults. Sizes and durations may carry a unit
// ("64MiB", "2h"). max.message.bytes, when not given, shrinks to what term.bytes allows.
// Errors: invalid_argument, naming the configuration, its value and the values allowed (also for
// combinations that contradict each other).
Result<TopicConfig> parse_topic_config(const TopicConfigs& overrides);
// Every configuration by name, as text that parse_topic_config accepts.
TopicConfigs format_topic_config(const TopicConfig& config);
// `overrides` with `changes` made: an empty value takes its name out. Values are as format_topic_config
// writes them, so that what is stored and shown has one spelling. Errors: as parse_topic_config.
Result<TopicConfigs> merge_topic_configs(const TopicConfigs& overrides, const TopicConfigs& changes);
// Names among `changes` that cannot be altered after creation: an error; otherwise success.
// Errors: invalid_argument (also for a name that does not exist).
Status check_alterable(const TopicConfigs& changes);
// The table: what Admin::config_reference tells users.
std::vector<ConfigReference> topic_config_reference();

// Errors: invalid_argument, saying which rule the name breaks.
Status check_topic_name(std::string_view name);

}  // namespace ringtail
