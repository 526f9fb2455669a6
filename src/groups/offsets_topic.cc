#include "groups/offsets_topic.h"

#include "base/random.h"
#include "groups/json_fields.h"
#include "shm/control.h"

namespace ringtail::groups {

KeyValue encode_offset(const StoredOffset& stored) {
  const Json key{
      {"group", text_field(stored.group)}, {"topic", stored.topic}, {"partition", stored.partition.value()}};
  KeyValue record{key.dump(), {}};
  if (stored.offset)
    record.value = Json{{"offset", *stored.offset},
                        {"topic_id", to_hex(stored.topic_id)},
                        {"metadata", text_field(stored.metadata)},
                        {"committed_ns", stored.committed_ns},
                        {"revision", stored.revision}}
                       .dump();
  return record;
}

std::optional<StoredOffset> decode_offset(const Record& record) {
  const Json key = parse_json(record.key);
  auto group = text_in(key, "group", shm::kMaxGroupIdBytes);
  auto topic = text_in(key, "topic", kMaxTopicBytes);
  const auto partition = number_in(key, "partition", shm::kMaxPartitions - 1);
  if (!group || group->empty() || !topic || !partition) return std::nullopt;
  StoredOffset stored{.group = std::move(*group),
                      .topic = std::move(*topic),
                      .partition = PartitionId(static_cast<std::uint32_t>(*partition)),
                      .offset = {},
                      .metadata = {}};
  if (record.is_tombstone()) return stored;
  const Json value = parse_json(record.value);
  const auto topic_id = hex_in(value, "topic_id");
  stored.offset = number_in(value, "offset", shm::kNoOffset - 1);
  auto metadata = text_in(value, "metadata", shm::kMaxOffsetMetadataBytes);
  const auto committed_ns = number_in(value, "committed_ns", kMaxTime);
  if (!topic_id || !stored.offset || !metadata || !committed_ns) return std::nullopt;
  stored.topic_id = *topic_id;
  stored.metadata = std::move(*metadata);
  stored.committed_ns = static_cast<std::int64_t>(*committed_ns);
  stored.revision = number_in(value, "revision", kMaxRevision).value_or(0);
  return stored;
}

}  // namespace ringtail::groups
