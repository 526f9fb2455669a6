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

Result<std::string> Transactions::encode_decision(std::uint32_t index) const {
  auto topics = attachment_.catalog().list_topics();
  if (!topics) return std::unexpected(topics.error());
  const shm::TransactionalId& entry = control_.transactional_id(index);
  const std::uint64_t word = entry.word.load(memory_order_relaxed);
  Json value{{"producer_id", to_hex(entry.producer_id.load(memory_order_relaxed))},
             {"epoch", shm::transaction_epoch(word)},
             {"transaction", shm::transaction_number(word)},
             {"revision", control_.groups().revision.fetch_add(1, memory_order_relaxed) + 1},
             {"partitions", Json::array()},
             {"offsets", Json::array()}};
  for (const std::uint32_t one : partitions_of(entry)) {
    const shm::Partition& partition = control_.partition(one);
    value["partitions"].push_back({{"topic_id", to_hex(partition.topic_id.load(memory_order_relaxed))},
                                   {"partition", partition.partition.load(memory_order_relaxed)}});
  }
  const shm::GroupTableLayout& table = control_.groups();
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_relaxed), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    const shm::GroupPartition& at = table.partitions[i];
    const log::WideWord pending = log::wide_load(&at.pending_offset);
    if (pending.high == 0 || shm::pending_entry(pending.high) != index ||
        !shm::is_pending_of(pending.high, word))
      continue;
    const std::uint64_t topic_id = at.topic_id.load(memory_order_relaxed);
    const auto topic = std::ranges::find(*topics, topic_id, &log::TopicEntry::topic_id);
    if (topic == topics->end()) continue;  // deleted since
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

std::string Transactions::encode_rest(const Closing& closing) const {
  Json value{{"producer_id", to_hex(closing.of.producer_id)},
             {"epoch", closing.of.producer_epoch},
             {"transaction", closing.of.transaction},
             {"revision", 0},
             {"partitions", Json::array()},
             {"offsets", Json::array()}};
  for (const auto& [index, topic_id] : closing.unmarked)
    value["partitions"].push_back(
        {{"topic_id", to_hex(topic_id)},
         {"partition", control_.partition(index).partition.load(memory_order_relaxed)}});
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

// The end of what has been claimed in a partition. Errors: closed: it was deleted; not_found: it has no ring now.
Result<Transactions::End> Transactions::claimed_end(std::uint32_t partition) const {
  auto ref = find_ref(partition);
  if (!ref) return std::unexpected(ref.error());
  auto ring = log::Ring::open(log::ring_path(ref->shm_dir, ref->topic, ref->partition), true);
  if (!ring) return std::unexpected(ring.error());
  return End{ref->topic_id, ring->claimed_end().position};
}

// Of an attempt that came to nothing.
void Transactions::forget() {
  decided_.clear();
  closing_.clear();
  left_open_.clear();
  taken_up_.clear();
}

// --- After the death of a coordinator ------------------------------------------------------------

// Which partitions have transactions, and up to where they must come to the disk. What one that has failed has on
// disk will not change, and nobody knows whose positions stand for the rest: it holds none back.
Status Transactions::survey(std::map<PartitionKey, std::uint32_t>& index_of) {
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    const shm::Partition& partition = control_.partition(i);
    const std::uint32_t transactional = partition.transactional.load(memory_order_relaxed);
    if (transactional == shm::kNoTransactions || is_memory(partition)) continue;
    const PartitionKey key{partition.topic_id.load(memory_order_relaxed),
                           partition.partition.load(memory_order_relaxed)};
    if (!log::Attachment::failure_of(partition)) {
      auto end = claimed_end(i);
      if (!end && end.error().code == Code::closed) continue;
      if (!end && end.error().code != Code::not_found) return std::unexpected(end.error());
      if (end) taken_up_[i] = *end;
    }
    if (transactional == shm::kUnendedTransactions) left_open_[i] = key.first;
    index_of[key] = i;
  }
  return {};
}

// Decisions that are not followed by their tombstones are of transactions that are still being ended, or not
// closed yet; positions may have moved with transactions whose markers are not on disk.
Status Transactions::take_up() {
  forget();
  std::map<std::string, Decision> decisions;
  std::set<PartitionKey> transactional;
  if (auto read = read_topic(decisions, transactional); !read) return read;
  if (auto included = topic_.include_others(); !included) return included;
  std::map<PartitionKey, std::uint32_t> index_of;
  if (auto surveyed = survey(index_of); !surveyed) return surveyed;
  for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds; ++i) {
    const shm::TransactionalId& entry = control_.transactional_id(i);
    // SYNC: pairs with the producer's CASes.
    const std::uint64_t word = entry.word.load(std::memory_order_acquire);
    if (shm::transaction_state(word) != shm::TransactionState::committing) continue;
    std::string key = decision_key(entry, word);
    if (decisions.erase(key) > 0) decided_.insert(std::move(key));
  }
  for (const auto& [key, decision] : decisions) {
    Closing closing{.key = key, .of = decision.of};
    for (const PartitionKey& partition : decision.partitions) {
      const auto found = index_of.find(partition);
      if (found == index_of.end()) continue;  // deleted since
      const std::uint32_t index = found->second;
      if (left_open_.contains(index))
        closing.unmarked[index] = partition.first;
      else if (const auto end = taken_up_.find(index); end != taken_up_.end())
        closing.markers_end[index] = end->second;
      else  // where its marker ends nobody knows: not closed as long as the partition has failed
        closing.markers_end[index] = {partition.first, Position(~std::uint64_t{0})};
    }
    closing.is_rest = decision.offsets.empty() && closing.unmarked.size() == decision.partitions.size();
    closing_.push_back(std::move(closing));
  }
  return {};
}

// --- After a reboot ------------------------------------------------------------------------------

Result<std::vector<StoredOffset>> Transactions::restore() {
  forget();
  std::map<std::string, Decision> decisions;
  std::set<PartitionKey> transactional;
  if (auto read = read_topic(decisions, transactional); !read) return std::unexpected(read.error());

  std::map<PartitionKey, std::uint32_t> index_of;
  auto topics = attachment_.catalog().list_topics();
  if (!topics) return std::unexpected(topics.error());
  for (const log::TopicEntry& topic : *topics)
    for (std::uint32_t p = 0; p < topic.partitions; ++p)
      if (transactional.contains({topic.topic_id, p})) {
        auto ref = attachment_.find_partition(topic, PartitionId(p), kNoPatience);
        if (!ref) return std::unexpected(ref.error());
        index_of[{topic.topic_id, p}] = ref->index;
        left_open_[ref->index] = topic.topic_id;
        ref->entry().transactional.store(shm::kUnendedTransactions, memory_order_relaxed);
      }
  std::vector<StoredOffset> offsets;
  for (const auto& [key, decision] : decisions) {
    Closing closing{.key = key, .of = decision.of};
    for (const PartitionKey& partition : decision.partitions)
      if (const auto index = index_of.find(partition); index != index_of.end())  // otherwise deleted since
        closing.unmarked[index->second] = partition.first;
    offsets.insert(offsets.end(), decision.offsets.begin(), decision.offsets.end());
    closing_.push_back(std::move(closing));
  }
  end_all_left_open();
  for (const auto& [index, topic_id] : left_open_)
    if (auto failure = log::Attachment::failure_of(control_.partition(index)))
      logger().warn("transactions of before the reboot are ended once it can be opened: {}",
                    to_string(*failure));
  const auto complete =
      std::ranges::count_if(closing_, [](const Closing& one) { return one.unmarked.empty(); });
  if (complete > 0) logger().info("transactions: {} decided before the reboot were completed", complete);
  return offsets;
}

void Transactions::end_all_left_open() {
  std::vector<std::uint32_t> left;
  for (const auto& [index, topic_id] : left_open_) left.push_back(index);
  for (const std::uint32_t index : left)
    if (!log::Attachment::failure_of(control_.partition(index))) busy_ = !end_left_open(index) || busy_;
}

// Ends what was open in a partition when the host went down: first what was decided, then all else. True: done, or
// the topic was deleted.
bool Transactions::end_left_open(std::uint32_t index) {
  shm::Partition& partition = control_.partition(index);
  const auto left = left_open_.find(index);
  const bool is_there =
      left == left_open_.end() || partition.topic_id.load(memory_order_relaxed) == left->second;
  for (Closing& closing : closing_) {
    if (!closing.unmarked.contains(index)) continue;
    if (is_there && !write_marker(index, format::MarkerKind::commit, closing.of, closing.markers_end))
      return false;
    closing.unmarked.erase(index);
  }
  Ends end;
  if (is_there && !write_marker(index, format::MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0}, end))
    return false;
  // The entry may be another topic's by now, of which nothing is noted.
  std::uint32_t expected = shm::kUnendedTransactions;
  // SYNC: pairs with the producer's load, which comes before its append: that is behind the markers.
  partition.transactional.compare_exchange_strong(expected, shm::kTransactions, std::memory_order_release,
                                                  memory_order_relaxed);
  left_open_.erase(index);
  return true;
}

}  // namespace ringtail::groups
