// Transactions after a reboot: what was decided is completed, what was open is aborted. And after the death
// of a coordinator: what it knew of what was still to come to the disk.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/logger.h"
#include "base/random.h"
#include "groups/tenure.h"
#include "groups/transactions.h"
#include "log/wide_cas.h"

namespace ringtail::groups {

using std::memory_order_relaxed;

struct Decision {
  std::string key;
  format::Extension of{};
  std::vector<std::pair<std::uint64_t, std::uint32_t>> partitions;
  std::vector<StoredOffset> offsets;
};

namespace {

using Json = nlohmann::json;

std::uint64_t hex(const Json& text) { return parse_hex(text.get<std::string>()).value_or(0); }

// Nothing when the record does not speak of a partition with transactions.
std::optional<std::pair<std::uint64_t, std::uint32_t>> decode_partition(const Record& record) {
  try {
    const Json key = Json::parse(record.key);
    return std::pair{hex(key.at("topic_id")), key.at("partition").get<std::uint32_t>()};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

// Nothing when the record is no decision.
std::optional<Decision> decode_decision(const Record& record) {
  try {
    const Json value = Json::parse(record.value);
    Decision decision{.key = std::string(record.key),
                      .of = {hex(value.at("producer_id")), value.at("epoch"), value.at("transaction"), 0},
                      .partitions = {},
                      .offsets = {}};
    for (const Json& one : value.at("partitions"))
      decision.partitions.emplace_back(hex(one.at("topic_id")), one.at("partition"));
    for (const Json& one : value.at("offsets"))
      decision.offsets.push_back({.group = one.at("group"),
                                  .topic = one.at("topic"),
                                  .topic_id = hex(one.at("topic_id")),
                                  .partition = PartitionId(one.at("partition")),
                                  .offset = one.at("offset").get<std::uint64_t>(),
                                  .metadata = {},
                                  .committed_ns = one.at("committed_ns"),
                                  .revision = value.at("revision")});
    return decision;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
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
    value["offsets"].push_back({{"group", table.groups[std::min(group, shm::kMaxGroups - 1)].group_id.load()},
                                {"topic", topic->name},
                                {"topic_id", to_hex(topic_id)},
                                {"partition", at.partition.load(memory_order_relaxed)},
                                {"offset", pending.low},
                                {"committed_ns", wall_clock_ns()}});
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Status Transactions::read_topic(std::map<std::string, Decision>& decisions,
                                std::set<std::pair<std::uint64_t, std::uint32_t>>& transactional) {
  return topic_.restore([&](const Record& record) {
    if (auto partition = decode_partition(record))
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
Result<Position> Transactions::claimed_end(std::uint32_t partition) {
  auto to = appender(partition);
  if (!to) return std::unexpected(to.error());
  const log::PartitionRef& ref = (*to)->partition();
  auto ring = log::Ring::open(log::ring_path(ref.shm_dir, ref.topic, ref.partition), true);
  if (!ring) return std::unexpected(ring.error());
  return ring->claimed_end().position;
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

  std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint32_t> index_of;
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
      closing.markers_end[index->second] = sent->end;
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
