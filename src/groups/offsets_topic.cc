#include "groups/offsets_topic.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/logger.h"
#include "base/random.h"
#include "log/partition_reader.h"
#include "shm/slots.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

using Json = nlohmann::json;

constexpr std::size_t kReadAheadBytes = 1 << 20;

std::string encode_key(const StoredOffset& stored) {
  return Json{{"group", stored.group}, {"topic", stored.topic}, {"partition", stored.partition.value()}}.dump(
      -1, ' ', false, Json::error_handler_t::replace);
}

std::string encode_value(const StoredOffset& stored) {
  return Json{{"offset", *stored.offset},
              {"topic_id", to_hex(stored.topic_id)},
              {"metadata", stored.metadata},
              {"committed_ns", stored.committed_ns}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Nothing when the record is not one of ours.
std::optional<StoredOffset> decode(const Record& record) {
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
    return stored;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Status OffsetsTopic::restore(const std::function<void(const StoredOffset&)>& take) {
  auto topic = attachment_.catalog().load_topic(kOffsetsTopic);
  if (!topic && topic.error().code == Code::not_found) return {};
  if (!topic) return std::unexpected(topic.error());
  auto slot = shm::OwnedSlot::acquire(attachment_.control(), attachment_.locks(), shm::SlotRole::coordinator);
  if (!slot) return std::unexpected(slot.error());
  std::vector<Record> records(1024);
  for (std::uint32_t p = 0; p < topic->partitions; ++p) {
    auto ref = attachment_.find_partition(*topic, PartitionId(p));
    if (!ref) return std::unexpected(ref.error());
    auto reader = log::PartitionReader::open(*ref, slot->index(), kReadAheadBytes);
    if (!reader) return std::unexpected(reader.error());
    const auto end = (*reader)->log_end();
    if (!end) return std::unexpected(end.error());
    while ((*reader)->offset() < end->offset) {
      auto polled = (*reader)->poll(records);
      if (!polled) return std::unexpected(polled.error());
      for (const Record& record : std::span(records).first(*polled)) {
        if (auto stored = decode(record))
          take(*stored);
        else
          logger().warn("{}-{}: the record at offset {} is no committed offset; passed over", kOffsetsTopic,
                        p, record.offset.value());
      }
    }
  }
  return {};
}

Status OffsetsTopic::open() {
  if (appender_ && appender_->partition().is_current()) return {};
  appender_.reset();
  auto topic = attachment_.catalog().load_topic(kOffsetsTopic);
  if (!topic && topic.error().code == Code::not_found) {
    topic = attachment_.catalog().create_topic(
        {.name = std::string(kOffsetsTopic),
         .partitions = 1,
         .configs = {{"cleanup.policy", "compact"}, {"segment.bytes", "16MiB"}, {"term.bytes", "1MiB"}}});
    if (topic)
      if (auto applied = attachment_.apply_catalog(); !applied) return applied;
  }
  if (!topic) return std::unexpected(topic.error());
  auto ref = attachment_.find_partition(*topic, PartitionId(0));
  if (!ref) return std::unexpected(ref.error());
  if (auto failure = log::Attachment::failure_of(ref->entry())) return std::unexpected(*failure);
  auto slot = shm::OwnedSlot::acquire(attachment_.control(), attachment_.locks(), shm::SlotRole::coordinator);
  if (!slot) return std::unexpected(slot.error());
  slot_ = std::move(*slot);
  auto appender = log::Appender::open(*ref, slot_, clock_, std::chrono::milliseconds(0));
  if (!appender) return std::unexpected(appender.error());
  appender_.emplace(std::move(*appender));
  return {};
}

Result<Position> OffsetsTopic::append(std::span<const StoredOffset> offsets) {
  if (auto opened = open(); !opened) return std::unexpected(opened.error());
  Position end{0};
  for (const StoredOffset& stored : offsets) {
    const std::string key = encode_key(stored);
    const std::string value = stored.offset ? encode_value(stored) : std::string();
    auto sent = appender_->append(
        {.key = key, .value = stored.offset ? std::string_view(value) : std::string_view()});
    if (!sent) return std::unexpected(appender_->describe(sent.error()));
    end = sent->end;
  }
  return end;
}

Position OffsetsTopic::durable() const {
  // SYNC: pairs with the keeper's release store after the sync.
  return Position(appender_->partition().entry().durable_position.load(memory_order_acquire));
}

std::optional<Error> OffsetsTopic::failure() const {
  return log::Attachment::failure_of(appender_->partition().entry());
}

const shm::Shared<std::uint32_t>& OffsetsTopic::durable_futex() const {
  return appender_->partition().entry().durable_seq;
}

void OffsetsTopic::request_sync() const {
  // SYNC: a full barrier between raising the flag and the caller's next look; pairs with notify_waiters.
  appender_->partition().entry().durable_waiters.exchange(1, std::memory_order_seq_cst);
  attachment_.control().wake_keeper();
}

}  // namespace ringtail::groups
