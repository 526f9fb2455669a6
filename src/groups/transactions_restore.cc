// Transactions after a reboot: what was decided is completed, what was open is aborted. And after the death
// of a coordinator: what it knew of what was still to come to the disk.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/logger.h"
#include "base/random.h"
#include "groups/json_fields.h"
#include "groups/tenure.h"
#include "groups/transactions.h"
#include "log/ring.h"
#include "log/wide_cas.h"

namespace ringtail::groups {

using std::memory_order_relaxed;

using PartitionKey = std::pair<std::uint64_t, std::uint32_t>;  // topic id, partition

struct Decision {
  std::string key;
  format::Extension of{};
  std::vector<PartitionKey> partitions;
  std::vector<StoredOffset> offsets;
};

namespace {

constexpr std::uint32_t kMostNumber = ~0u;

// What is no array has no elements.
const Json& list_in(const Json& object, const char* name) {
  static const Json nothing = Json::array();
  const auto field = object.find(name);
  return field != object.end() && field->is_array() ? *field : nothing;
}

std::optional<PartitionKey> partition_in(const Json& object) {
  const auto topic_id = hex_in(object, "topic_id");
  const auto partition = number_in(object, "partition", shm::kMaxPartitions - 1);
  if (!topic_id || !partition) return std::nullopt;
  return PartitionKey{*topic_id, static_cast<std::uint32_t>(*partition)};
}

std::optional<StoredOffset> offset_in(const Json& object) {
  const auto partition = partition_in(object);
  auto group = text_in(object, "group", shm::kMaxGroupIdBytes);
  auto topic = text_in(object, "topic", kMaxTopicBytes);
  const auto offset = number_in(object, "offset", shm::kNoOffset - 1);
  const auto committed_ns = number_in(object, "committed_ns", kMaxTime);
  if (!partition || !group || group->empty() || !topic || !offset || !committed_ns) return std::nullopt;
  return StoredOffset{.group = std::move(*group),
                      .topic = std::move(*topic),
                      .topic_id = partition->first,
                      .partition = PartitionId(partition->second),
                      .offset = offset,
                      .metadata = {},
                      .committed_ns = static_cast<std::int64_t>(*committed_ns)};
}

// Nothing when the record is not one of ours: half a decision would be none at all.
std::optional<Decision> decode_decision(const Record& record) {
  const Json value = parse_json(record.value);
  const auto producer_id = hex_in(value, "producer_id");
  const auto epoch = number_in(value, "epoch", std::numeric_limits<std::uint16_t>::max());
  const auto number = number_in(value, "transaction", kMostNumber);
  if (!producer_id || *producer_id == format::kEveryProducer || !epoch || !number) return std::nullopt;
  Decision decision{
      .key = std::string(record.key),
      .of = {*producer_id, static_cast<std::uint32_t>(*epoch), static_cast<std::uint32_t>(*number), 0},
      .partitions = {},
      .offsets = {}};
  for (const Json& one : list_in(value, "partitions")) {
    const auto partition = partition_in(one);
    if (!partition) return std::nullopt;
    decision.partitions.push_back(*partition);
  }
  for (const Json& one : list_in(value, "offsets")) {
    auto offset = offset_in(one);
    if (!offset) return std::nullopt;
    offset->revision = number_in(value, "revision", kMaxRevision).value_or(0);
    decision.offsets.push_back(std::move(*offset));
  }
  return decision;
}

}  // namespace

std::string Transactions::encode_decision(std::uint32_t index) const {
  const shm::TransactionalId& entry = control_.transactional_id(index);
  const std::uint64_t word = entry.word.load(memory_order_relaxed);
  Json value{{"producer_id", to_hex(entry.producer_id.load(memory_order_relaxed))},
             {"epoch", shm::transaction_epoch(word)},
             {"transaction", shm::transaction_number(word)},
             {"revision", control_.groups().revision.fetch_add(1, memory_order_relaxed) + 1},
             {"partitions", Json::array()},
             {"offsets", Json::array()}};
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    if ((entry.partitions[i / 64].load(memory_order_relaxed) >> i % 64 & 1) == 0) continue;
    const shm::Partition& partition = control_.partition(i);
    value["partitions"].push_back({{"topic_id", to_hex(partition.topic_id.load(memory_order_relaxed))},
                                   {"partition", partition.partition.load(memory_order_relaxed)}});
  }
  const shm::GroupTableLayout& table = control_.groups();
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_relaxed), shm::kMaxGroupPartitions);
  auto topics = attachment_.catalog().list_topics();
  for (std::uint32_t i = 0; i < used; ++i) {
    const shm::GroupPartition& at = table.partitions[i];
    const log::WideWord pending = log::wide_load(&at.pending_offset);
    if (pending.high == 0 || shm::pending_entry(pending.high) != index ||
        !shm::is_pending_of(pending.high, word))
      continue;
    const std::uint64_t topic_id = at.topic_id.load(memory_order_relaxed);
    const auto topic = topics ? std::ranges::find(*topics, topic_id, &log::TopicEntry::topic_id)
                              : std::vector<log::TopicEntry>::iterator();
    if (!topics || topic == topics->end()) continue;
    const std::uint32_t group = shm::assignment_group(table.assignments[i].load(memory_order_relaxed));
    value["offsets"].push_back(
        {{"group", text_field(table.groups[std::min(group, shm::kMaxGroups - 1)].group_id.load())},
         {"topic", topic->name},
         {"topic_id", to_hex(topic_id)},
         {"partition", at.partition.load(memory_order_relaxed)},
         {"offset", pending.low},
         {"committed_ns", wall_clock_ns()}});
  }
  return value.dump();
}

Status Transactions::read_topic(std::map<std::string, Decision>& decisions,
                                std::set<std::pair<std::uint64_t, std::uint32_t>>& transactional) {
  return topic_.restore([&](const Record& record) {
    if (const auto partition = partition_in(parse_json(record.key)))
      transactional.insert(*partition);
    else if (record.is_tombstone())
      decisions.erase(std::string(record.key));
    else if (auto decision = decode_decision(record))
      decisions[decision->key] = std::move(*decision);
    else
      logger().warn("{}: the record at offset {} is not understood; passed over", kTransactionsTopic,
                    record.offset.value());
  });
}

// The end of what has been claimed in a partition. Errors: closed: it was deleted.
Result<Transactions::End> Transactions::claimed_end(std::uint32_t partition) {
  auto to = appender(partition);
  if (!to) return std::unexpected(to.error());
  const log::PartitionRef& ref = (*to)->partition();
  auto ring = log::Ring::open(log::ring_path(ref.shm_dir, ref.topic, ref.partition), true);
  if (!ring) return std::unexpected(ring.error());
  return End{ref.topic_id, ring->claimed_end().position};
}

// Decisions that are not followed by their tombstones are of transactions that are still being ended, or not
// closed yet; positions may have moved with transactions whose markers are not on disk.
Status Transactions::take_up() {
  std::map<std::string, Decision> decisions;
  std::set<std::pair<std::uint64_t, std::uint32_t>> transactional;
  if (auto read = read_topic(decisions, transactional); !read) return read;
  if (auto included = topic_.include_others(); !included) return included;
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    const shm::Partition& partition = control_.partition(i);
    if (partition.transactional.load(memory_order_relaxed) == 0 || is_memory(partition)) continue;
    auto end = claimed_end(i);
    if (!end && end.error().code != Code::closed && end.error().code != Code::not_found)
      return std::unexpected(end.error());
    if (end) taken_up_[i] = *end;
  }
  for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds; ++i) {
    const shm::TransactionalId& entry = control_.transactional_id(i);
    // SYNC: pairs with the producer's CASes.
    const std::uint64_t word = entry.word.load(std::memory_order_acquire);
    if (shm::transaction_state(word) != shm::TransactionState::committing) continue;
    std::string key = decision_key(entry, word);
    if (decisions.erase(key) > 0) decided_.insert(std::move(key));
  }
  for (const auto& [key, decision] : decisions) closing_.push_back({key, taken_up_, {}, {}});
  return {};
}

Result<std::vector<StoredOffset>> Transactions::restore() {
  std::map<std::string, Decision> decisions;
  std::set<std::pair<std::uint64_t, std::uint32_t>> transactional;
  if (auto read = read_topic(decisions, transactional); !read) return std::unexpected(read.error());

  std::map<PartitionKey, std::uint32_t> index_of;
  auto topics = attachment_.catalog().list_topics();
  if (!topics) return std::unexpected(topics.error());
  for (const log::TopicEntry& topic : *topics)
    for (std::uint32_t p = 0; p < topic.partitions; ++p)
      if (transactional.contains({topic.topic_id, p})) {
        auto ref = attachment_.find_partition(topic, PartitionId(p));
        if (!ref) return std::unexpected(ref.error());
        index_of[{topic.topic_id, p}] = ref->index;
      }
  std::vector<StoredOffset> offsets;
  for (const auto& [key, decision] : decisions) {
    Closing closing{key, {}, {}, {}};
    for (const auto& partition : decision.partitions) {
      const auto index = index_of.find(partition);
      if (index == index_of.end()) continue;  // deleted since
      auto to = appender(index->second);
      if (!to) return std::unexpected(to.error());
      auto sent = (*to)->append_marker(format::MarkerKind::commit, decision.of);
      if (!sent) return std::unexpected((*to)->describe(sent.error()));
      closing.markers_end[index->second] = {partition.first, sent->end};
    }
    offsets.insert(offsets.end(), decision.offsets.begin(), decision.offsets.end());
    closing_.push_back(std::move(closing));
  }
  for (const auto& [partition, index] : index_of) {
    auto to = appender(index);
    if (!to) return std::unexpected(to.error());
    auto sent = (*to)->append_marker(format::MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0});
    if (!sent) return std::unexpected((*to)->describe(sent.error()));
    control_.partition(index).transactional.store(1, memory_order_relaxed);
  }
  if (!decisions.empty())
    logger().info("transactions: {} decided before the reboot were completed", decisions.size());
  return offsets;
}

}  // namespace ringtail::groups
