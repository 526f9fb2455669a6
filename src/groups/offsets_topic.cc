#include "groups/offsets_topic.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/random.h"

namespace ringtail::groups {

namespace {

using Json = nlohmann::json;

std::string encode_key(const StoredOffset& stored) {
  return Json{{"group", stored.group}, {"topic", stored.topic}, {"partition", stored.partition.value()}}.dump(
      -1, ' ', false, Json::error_handler_t::replace);
}

std::string encode_value(const StoredOffset& stored) {
  return Json{{"offset", *stored.offset},
              {"topic_id", to_hex(stored.topic_id)},
              {"metadata", stored.metadata},
              {"committed_ns", stored.committed_ns},
              {"revision", stored.revision}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

KeyValue encode_offset(const StoredOffset& stored) {
  KeyValue record{encode_key(stored), {}};
  if (stored.offset) record.value = encode_value(stored);
  return record;
}

std::optional<StoredOffset> decode_offset(const Record& record) {
  try {
    const Json key = Json::parse(record.key);
    StoredOffset stored{.group = key.at("group"),
                        .topic = key.at("topic"),
                        .partition = PartitionId(key.at("partition")),
                        .offset = {},
                        .metadata = {}};
    if (record.is_tombstone()) return stored;
    const Json value = Json::parse(record.value);
    auto topic_id = parse_hex(value.at("topic_id").get<std::string>());
    if (!topic_id) return std::nullopt;
    stored.topic_id = *topic_id;
    stored.offset = value.at("offset").get<std::uint64_t>();
    stored.metadata = value.at("metadata");
    stored.committed_ns = value.at("committed_ns");
    stored.revision = value.at("revision");
    return stored;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace ringtail::groups
