#include "ringtail/admin.h"

#include <fmt/format.h>

#include "base/topic_config.h"
#include "client/log_core.h"
#include "log/ring.h"

namespace ringtail {

using std::memory_order_relaxed;

namespace {

PartitionDescription describe(const LogCore& core, const log::TopicEntry& topic, const TopicConfig& config,
                              PartitionId partition) {
  PartitionDescription d;
  d.partition = partition;
  auto ref = core.find_partition(topic, partition);
  if (!ref) {
    d.failure = ref.error();
    return d;
  }
  const shm::Partition& entry = ref->entry();
  d.failure = log::Attachment::failure_of(entry);
  d.log_start_offset = Offset(entry.log_start_offset.load(memory_order_relaxed));
  d.log_start_position = Position(entry.log_start_position.load(memory_order_relaxed));
  d.durable_offset = config.storage == Storage::disk ? Offset(entry.durable_offset.load(memory_order_relaxed))
                                                     : d.log_start_offset;
  d.disk_bytes = entry.disk_bytes.load(memory_order_relaxed);
  d.ring_generation = entry.ring_generation.load(memory_order_relaxed);
  d.log_end_offset = d.durable_offset;
  d.log_end_position = Position(entry.durable_position.load(memory_order_relaxed));
  auto ring = log::Ring::open(log::ring_path(ref->shm_dir, topic.name, partition), true);
  if (ring) {
    const log::Ring::End end = ring->claimed_end();
    d.log_end_offset = end.offset;
    d.log_end_position = end.position;
    d.ring_bytes = ring->ring_bytes();
  } else if (!d.failure) {
    d.failure = ring.error();
  }
  d.high_watermark = d.log_end_offset;  // this host is the only replica
  return d;
}

}  // namespace

Status Admin::create_topic(const TopicSpec& spec) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  auto topic = core.catalog().create_topic(spec);
  if (!topic) return std::unexpected(topic.error());
  Status opened = core.apply_catalog();
  for (std::uint32_t p = 0; opened && p < topic->partitions; ++p) {
    auto ref = core.find_partition(*topic, PartitionId(p));
    if (!ref)
      opened = std::unexpected(ref.error());
    else if (auto failure = log::Attachment::failure_of(ref->entry()))
      opened = std::unexpected(*failure);
  }
  if (opened || opened.error().code == Code::no_keeper) return opened;
  // It cannot be used: better no topic than half a one.
  if (auto deleted = core.catalog().delete_topic(spec.name); deleted) {
    if (auto applied = core.apply_catalog(); !applied)
      opened.error().message += "; " + applied.error().message;
  }
  return opened;
}

Result<std::vector<std::string>> Admin::list_topics() const {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  auto topics = core.catalog().list_topics();
  if (!topics) return std::unexpected(topics.error());
  std::vector<std::string> names;
  for (log::TopicEntry& topic : *topics) names.push_back(std::move(topic.name));
  return names;
}

Result<TopicDescription> Admin::describe_topic(std::string_view name) const {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  auto topic = core.catalog().load_topic(name);
  if (!topic) return std::unexpected(topic.error());
  auto config = parse_topic_config(topic->overrides);
  if (!config) return std::unexpected(config.error());
  TopicDescription description{topic->name, format_topic_config(*config), topic->overrides, {}};
  for (std::uint32_t p = 0; p < topic->partitions; ++p)
    description.partitions.push_back(describe(core, *topic, *config, PartitionId(p)));
  return description;
}

Status Admin::alter_topic(std::string_view name, const TopicConfigs& changes) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  auto topic = core.catalog().alter_topic(name, changes);
  if (!topic) return std::unexpected(topic.error());
  return core.apply_catalog();
}

Status Admin::delete_topic(std::string_view name) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  if (auto deleted = core.catalog().delete_topic(name); !deleted) return deleted;
  return core.apply_catalog();
}

std::vector<ConfigReference> Admin::config_reference() { return topic_config_reference(); }

}  // namespace ringtail
