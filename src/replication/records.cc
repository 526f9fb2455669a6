#include "replication/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

#include "base/parse.h"
#include "base/random.h"
#include "base/topic_config.h"
#include "replication/record_fields.h"

namespace ringtail::replication {

namespace {

constexpr std::size_t kMaxText = 255;
constexpr std::size_t kMaxLifeDigits = 64;
constexpr std::size_t kLogIdDigits = 32;
constexpr std::uint64_t kMaxPartitions = 4096;
constexpr std::uint64_t kMaxReplicas = 64;
constexpr std::uint64_t kMaxEpoch = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t kMaxTime = std::numeric_limits<std::int64_t>::max();

Json json_of(const Address& address) { return {{"host", address.host}, {"port", address.port}}; }

Json json_of(const std::vector<NodeId>& nodes) {
  Json all = Json::array();
  for (const NodeId node : nodes) all.push_back(node.value());
  return all;
}

Address address_in(RecordFields& fields, const char* name) {
  RecordFields inner = fields.inner(name);
  Address address{inner.text("host", kMaxText), static_cast<std::uint16_t>(inner.number("port", 0, 65535))};
  fields.join(inner);
  return address;
}

NodeId node_in(RecordFields& fields, const char* name) {
  return NodeId(static_cast<std::uint32_t>(fields.number(name, 1, kMaxNodeId)));
}

std::vector<NodeId> nodes_in(RecordFields& fields, const char* name) {
  std::vector<NodeId> nodes;
  for (const std::uint64_t number : fields.numbers(name, 1, kMaxNodeId)) {
    const NodeId node(static_cast<std::uint32_t>(number));
    if (std::ranges::find(nodes, node) != nodes.end())
      fields.refuse(fmt::format("'{}' names node {} twice", name, node.value()));
    nodes.push_back(node);
  }
  if (nodes.size() > kMaxReplicas)
    fields.refuse(fmt::format("'{}' names more than {} nodes", name, kMaxReplicas));
  return nodes;
}

std::vector<IsrMember> isr_in(RecordFields& fields) {
  std::vector<IsrMember> isr;
  for (RecordFields& inner : fields.inner_array("isr")) {
    isr.push_back({NodeId(static_cast<std::uint32_t>(inner.number("node", 1, kMaxNodeId))),
                   inner.hex_text("life", 2, kMaxLifeDigits)});
    fields.join(inner);
  }
  return isr;
}

std::map<NodeId, std::string> unreached_in(RecordFields& fields) {
  std::map<NodeId, std::string> unreached;
  for (const auto& [node, why] : fields.texts("unreached")) {
    const auto number = parse_integer(node);
    if (number && *number >= 1 && *number <= kMaxNodeId && why.size() <= kMaxText)
      unreached[NodeId(static_cast<std::uint32_t>(*number))] = why;
    else
      fields.refuse("'unreached' names what is no node, or says too much of it");
  }
  return unreached;
}

bool holds(const std::vector<NodeId>& nodes, NodeId node) {
  return std::ranges::find(nodes, node) != nodes.end();
}

// What else than replicas can be in the ISR, lead, come or go.
void check_members(RecordFields& fields, const PartitionRecord& record) {
  if (record.replicas.empty()) fields.refuse("it has no replicas");
  const auto require = [&](NodeId node, std::string_view what) {
    if (!holds(record.replicas, node))
      fields.refuse(fmt::format("node {} of '{}' is none of its replicas", node.value(), what));
  };
  std::set<NodeId> seen;
  for (const IsrMember& member : record.isr) {
    require(member.node, "isr");
    if (!seen.insert(member.node).second)
      fields.refuse(fmt::format("'isr' names node {} twice", member.node.value()));
  }
  if (record.leader) require(*record.leader, "leader");
  if (record.wanted_leader) require(*record.wanted_leader, "wanted_leader");
  for (const NodeId node : record.adding) require(node, "adding");
  for (const NodeId node : record.removing) require(node, "removing");
}

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

// JSON is UTF-8; text that is not cannot be stored.
std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// The error of a value whose key says something else.
void check_key(RecordFields& fields, std::string_view key, std::string_view expected) {
  if (key != expected) fields.refuse(fmt::format("its fields belong to '{}'", expected));
}

}  // namespace

const NodeRecord* find_live(const ClusterState& state, NodeId id) {
  const auto node = state.nodes.find(id);
  const auto live = state.live.find(id);
  if (node == state.nodes.end() || live == state.live.end()) return nullptr;
  return node->second.record.incarnation == live->second ? &node->second.record : nullptr;
}

std::string node_key(NodeId id) { return fmt::format("{}{}", kNodePrefix, id.value()); }
std::string live_key(NodeId id) { return fmt::format("{}{}", kLivePrefix, id.value()); }
std::string topic_key(std::string_view topic) { return fmt::format("{}{}", kTopicPrefix, topic); }
std::string partition_key(std::string_view topic, PartitionId partition) {
  return fmt::format("{}{}/{}", kPartitionPrefix, topic, partition.value());
}

std::string key_of(const Change& change) {
  return std::visit(
      Overloaded{[](const NodeRecord& node) { return node_key(node.id); },
                 [](const TopicRecord& topic) { return topic_key(topic.name); },
                 [](const PartitionRecord& record) { return partition_key(record.topic, record.partition); },
                 [](const ClusterSettings&) { return std::string(kSettingsKey); }},
      change.record);
}

std::string value_of(const Change& change) {
  return std::visit([](const auto& record) { return encode(record); }, change.record);
}

Status check_record(const Change& change) {
  const std::string key = key_of(change);
  const std::string value = value_of(change);
  const auto same = [](const auto& decoded, const auto& record) -> Status {
    if (!decoded) return fail(Code::invalid_argument, decoded.error().message);
    if (*decoded == record) return {};
    return fail(Code::invalid_argument, "a text of the record is not UTF-8");
  };
  return std::visit(
      Overloaded{[&](const NodeRecord& record) { return same(decode_node(key, value), record); },
                 [&](const TopicRecord& record) { return same(decode_topic(key, value), record); },
                 [&](const PartitionRecord& record) { return same(decode_partition(key, value), record); },
                 [&](const ClusterSettings& record) { return same(decode_settings(key, value), record); }},
      change.record);
}

Status check_changes(std::span<const Change> changes) {
  if (changes.size() > Coordinator::kMaxChanges) {
    return fail(Code::limit_exceeded, fmt::format("{} changes are more than the {} that can be made at once",
                                                  changes.size(), Coordinator::kMaxChanges));
  }
  std::set<std::string> keys;
  for (const Change& change : changes) {
    if (!keys.insert(key_of(change)).second)
      return fail(Code::invalid_argument, fmt::format("'{}' is to be changed twice at once", key_of(change)));
    if (change.remove) continue;
    if (auto valid = check_record(change); !valid) return valid;
  }
  return {};
}

// --- Encoding ------------------------------------------------------------------------------------

std::string encode(const NodeRecord& record) {
  Json object{{"version", kRecordVersion},
              {"id", record.id.value()},
              {"incarnation", to_hex(record.incarnation)},
              {"started_ns", record.started_ns},
              {"replication", json_of(record.replication)},
              {"http", json_of(record.http)},
              {"rack", record.rack},
              {"log_id", record.log_id},
              {"life", record.life},
              {"draining", record.draining},
              {"release", record.release}};
  for (const auto& [node, why] : record.unreached) object["unreached"][std::to_string(node.value())] = why;
  return dump(object);
}

std::string encode(const TopicRecord& record) {
  Json configs = Json::object();
  for (const auto& [name, value] : record.configs) configs[name] = value;
  return dump({{"version", kRecordVersion},
               {"name", record.name},
               {"topic_id", to_hex(record.topic_id)},
               {"partitions", record.partitions},
               {"replication_factor", record.replication_factor},
               {"configs", std::move(configs)},
               {"created_ns", record.created_ns}});
}

std::string encode(const PartitionRecord& record) {
  Json isr = Json::array();
  for (const IsrMember& member : record.isr)
    isr.push_back({{"node", member.node.value()}, {"life", member.life}});
  Json json{{"version", kRecordVersion},
            {"topic", record.topic},
            {"topic_id", to_hex(record.topic_id)},
            {"partition", record.partition.value()},
            {"replicas", json_of(record.replicas)},
            {"isr", std::move(isr)},
            {"leader_incarnation", to_hex(record.leader_incarnation)},
            {"leader_epoch", record.leader_epoch.value()},
            {"partition_epoch", record.partition_epoch},
            {"unclean", record.unclean},
            {"adding", json_of(record.adding)},
            {"removing", json_of(record.removing)}};
  if (!record.origin.empty()) json["origin"] = json_of(record.origin);
  if (record.leader) json["leader"] = record.leader->value();
  if (record.wanted_leader) json["wanted_leader"] = record.wanted_leader->value();
  return dump(json);
}

std::string encode(const ClusterSettings& record) {
  return dump({{"version", kRecordVersion},
               {"replication_throttle_bytes_per_s", record.replication_throttle_bytes_per_s}});
}

std::string encode_live(std::uint64_t incarnation) {
  return dump({{"version", kRecordVersion}, {"incarnation", to_hex(incarnation)}});
}

std::string encode_identity(std::string_view id, std::int64_t created_ns) {
  return dump({{"version", kRecordVersion}, {"id", id}, {"created_ns", created_ns}});
}

// --- Decoding ------------------------------------------------------------------------------------

Result<NodeRecord> decode_node(std::string_view key, std::string_view value) {
  RecordFields fields(key, value);
  NodeRecord record{.id = node_in(fields, "id"),
                    .incarnation = fields.hex("incarnation"),
                    .started_ns = fields.signed_number("started_ns"),
                    .replication = address_in(fields, "replication"),
                    .http = address_in(fields, "http"),
                    .rack = fields.text("rack", kMaxText),
                    .log_id = fields.hex_text("log_id", kLogIdDigits, kLogIdDigits),
                    .life = fields.hex_text("life", 2, kMaxLifeDigits),
                    .draining = fields.flag("draining"),
                    .release = fields.text("release", kMaxText)};
  if (record.incarnation == 0) fields.refuse("'incarnation' is 0");
  if (fields.has("unreached")) record.unreached = unreached_in(fields);
  check_key(fields, key, node_key(record.id));
  if (!fields.good()) return fields.failure();
  return record;
}

Result<TopicRecord> decode_topic(std::string_view key, std::string_view value) {
  RecordFields fields(key, value);
  TopicRecord record{
      .name = fields.text("name", kMaxText),
      .topic_id = fields.hex("topic_id"),
      .partitions = static_cast<std::uint32_t>(fields.number("partitions", 1, kMaxPartitions)),
      .replication_factor = static_cast<std::uint32_t>(fields.number("replication_factor", 1, kMaxReplicas)),
      .configs = fields.texts("configs"),
      .created_ns = fields.signed_number("created_ns")};
  if (const auto name = check_topic_name(record.name); !name) fields.refuse(name.error().message);
  check_key(fields, key, topic_key(record.name));
  if (!fields.good()) return fields.failure();
  return record;
}

Result<PartitionRecord> decode_partition(std::string_view key, std::string_view value) {
  RecordFields fields(key, value);
  PartitionRecord record{
      .topic = fields.text("topic", kMaxText),
      .topic_id = fields.hex("topic_id"),
      .partition = PartitionId(static_cast<std::uint32_t>(fields.number("partition", 0, kMaxPartitions - 1))),
      .replicas = nodes_in(fields, "replicas"),
      .isr = isr_in(fields),
      .leader = {},
      .leader_incarnation = fields.hex("leader_incarnation"),
      .leader_epoch = LeaderEpoch(static_cast<std::uint32_t>(fields.number("leader_epoch", 0, kMaxEpoch))),
      .partition_epoch = fields.number("partition_epoch", 0, kMaxTime),
      .unclean = fields.flag("unclean"),
      .adding = nodes_in(fields, "adding"),
      .removing = nodes_in(fields, "removing")};
  if (fields.has("leader")) record.leader = node_in(fields, "leader");
  if (fields.has("origin")) record.origin = nodes_in(fields, "origin");
  if (fields.has("wanted_leader")) record.wanted_leader = node_in(fields, "wanted_leader");
  if (const auto name = check_topic_name(record.topic); !name) fields.refuse(name.error().message);
  check_members(fields, record);
  check_key(fields, key, partition_key(record.topic, record.partition));
  if (!fields.good()) return fields.failure();
  return record;
}

Result<ClusterSettings> decode_settings(std::string_view key, std::string_view value) {
  RecordFields fields(key, value);
  ClusterSettings record;
  if (fields.has("replication_throttle_bytes_per_s"))
    record.replication_throttle_bytes_per_s = fields.signed_number("replication_throttle_bytes_per_s");
  if (!fields.good()) return fields.failure();
  return record;
}

Result<std::uint64_t> decode_live(std::string_view key, std::string_view value) {
  RecordFields fields(key, value);
  const std::uint64_t incarnation = fields.hex("incarnation");
  if (!fields.good()) return fields.failure();
  return incarnation;
}

Result<std::string> decode_identity(std::string_view key, std::string_view value) {
  RecordFields fields(key, value);
  std::string id = fields.hex_text("id", kLogIdDigits, kLogIdDigits);
  if (!fields.good()) return fields.failure();
  return id;
}

Result<NodeId> node_of_live_key(std::string_view key) {
  std::uint32_t number = 0;
  const std::string_view digits = key.substr(std::min(kLivePrefix.size(), key.size()));
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error == std::errc{} && number >= 1 && number <= kMaxNodeId && key == live_key(NodeId(number)))
    return NodeId(number);
  return fail(Code::corrupt, fmt::format("the record '{}' is malformed: its key names no node", key));
}

}  // namespace ringtail::replication
