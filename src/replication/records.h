// The records as they are stored: keys, and values in JSON. README.md here has an example of each.
//
//   nodes/<id>  live/<id>  topics/<name>  partitions/<name>/<number>  settings  identity
//
// Whoever has the password of the store may write there, so everything is checked when it is read. A field
// that is not known is passed over; a value of another version is refused, for it may mean something else.
//
// Thread and process safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "replication/coordinator.h"

namespace ringtail::replication {

inline constexpr std::uint64_t kRecordVersion = 1;

inline constexpr std::string_view kIdentityKey = "identity";
inline constexpr std::string_view kSettingsKey = "settings";
inline constexpr std::string_view kNodePrefix = "nodes/";
inline constexpr std::string_view kLivePrefix = "live/";
inline constexpr std::string_view kTopicPrefix = "topics/";
inline constexpr std::string_view kPartitionPrefix = "partitions/";

std::string node_key(NodeId id);
std::string live_key(NodeId id);
std::string topic_key(std::string_view topic);
std::string partition_key(std::string_view topic, PartitionId partition);
// The key of the record that is to be changed.
std::string key_of(const Change& change);
// Its new value.
std::string value_of(const Change& change);

// Whether the record is one that can be read again. Errors: invalid_argument, which names the field.
Status check_record(const Change& change);
// Whether they can be one commit. Errors: those of check_record, limit_exceeded, invalid_argument (one record
// twice).
Status check_changes(std::span<const Change> changes);

std::string encode(const NodeRecord& record);
std::string encode(const TopicRecord& record);
std::string encode(const PartitionRecord& record);
std::string encode(const ClusterSettings& record);
std::string encode_live(std::uint64_t incarnation);
std::string encode_identity(std::string_view id, std::int64_t created_ns);

// Each takes the key as well, for it must agree with the value. Errors: corrupt, which names key and field;
// incompatible_layout, which names key and both versions.
Result<NodeRecord> decode_node(std::string_view key, std::string_view value);
Result<TopicRecord> decode_topic(std::string_view key, std::string_view value);
Result<PartitionRecord> decode_partition(std::string_view key, std::string_view value);
Result<ClusterSettings> decode_settings(std::string_view key, std::string_view value);
Result<std::uint64_t> decode_live(std::string_view key, std::string_view value);
Result<std::string> decode_identity(std::string_view key, std::string_view value);
// The node that a key of kLivePrefix names. Errors: corrupt.
Result<NodeId> node_of_live_key(std::string_view key);

}  // namespace ringtail::replication
