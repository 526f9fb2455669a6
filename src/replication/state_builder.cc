#include "replication/state_builder.h"

#include <charconv>

#include "base/logger.h"
#include "replication/records.h"

namespace ringtail::replication {

namespace {

std::uint32_t number_behind(std::string_view key, std::size_t at) {
  std::uint32_t number = 0;
  std::from_chars(key.data() + at, key.data() + key.size(), number);
  return number;
}

}  // namespace

void StateBuilder::clear() {
  const std::uint64_t gaps = state_.gaps;
  state_ = {};
  state_.gaps = gaps;
}

void StateBuilder::put(std::string_view key, std::string_view value, std::int64_t revision) {
  remove(key);
  const Status status = read(key, value, revision);
  if (status) return;
  state_.malformed.insert_or_assign(std::string(key), MalformedRecord{revision, status.error().message});
  std::int64_t& said = said_[std::string(key)];
  if (said == revision) return;
  said = revision;
  logger().error("{}; it is left out until it is mended", status.error().message);
}

Status StateBuilder::read(std::string_view key, std::string_view value, std::int64_t revision) {
  if (key.starts_with(kNodePrefix)) {
    auto node = decode_node(key, value);
    if (!node) return std::unexpected(node.error());
    const NodeId id = node->id;
    state_.nodes.insert_or_assign(id, Stored<NodeRecord>{std::move(*node), revision});
  } else if (key.starts_with(kLivePrefix)) {
    const auto id = node_of_live_key(key);
    const auto incarnation = decode_live(key, value);
    if (!id) return std::unexpected(id.error());
    if (!incarnation) return std::unexpected(incarnation.error());
    state_.live.insert_or_assign(*id, *incarnation);
  } else if (key.starts_with(kTopicPrefix)) {
    auto topic = decode_topic(key, value);
    if (!topic) return std::unexpected(topic.error());
    std::string name = topic->name;
    state_.topics.insert_or_assign(std::move(name), Stored<TopicRecord>{std::move(*topic), revision});
  } else if (key.starts_with(kPartitionPrefix)) {
    auto partition = decode_partition(key, value);
    if (!partition) return std::unexpected(partition.error());
    TopicPartition name{partition->topic, partition->partition};
    state_.partitions.insert_or_assign(std::move(name),
                                       Stored<PartitionRecord>{std::move(*partition), revision});
  } else if (key == kSettingsKey) {
    auto settings = decode_settings(key, value);
    if (!settings) return std::unexpected(settings.error());
    state_.settings = {*settings, revision};
  } else if (key == kIdentityKey) {
    auto id = decode_identity(key, value);
    if (!id) return std::unexpected(id.error());
    state_.cluster_id = std::move(*id);
  }
  return {};
}

void StateBuilder::remove(std::string_view key) {
  if (const auto found = state_.malformed.find(key); found != state_.malformed.end())
    state_.malformed.erase(found);
  // A key that is spelled otherwise ("nodes/01") is none of ours, and must not remove what is.
  if (key.starts_with(kNodePrefix)) {
    const NodeId id(number_behind(key, kNodePrefix.size()));
    if (key == node_key(id)) state_.nodes.erase(id);
  } else if (key.starts_with(kLivePrefix)) {
    const NodeId id(number_behind(key, kLivePrefix.size()));
    if (key == live_key(id)) state_.live.erase(id);
  } else if (key.starts_with(kTopicPrefix)) {
    state_.topics.erase(std::string(key.substr(kTopicPrefix.size())));
  } else if (key.starts_with(kPartitionPrefix)) {
    const std::size_t slash = key.rfind('/');
    if (slash < kPartitionPrefix.size()) return;
    const std::string topic(key.substr(kPartitionPrefix.size(), slash - kPartitionPrefix.size()));
    const PartitionId partition(number_behind(key, slash + 1));
    if (key == partition_key(topic, partition)) state_.partitions.erase({topic, partition});
  } else if (key == kSettingsKey) {
    state_.settings = {};
  } else if (key == kIdentityKey) {
    state_.cluster_id.clear();
  }
}

}  // namespace ringtail::replication
