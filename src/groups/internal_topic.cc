#include "groups/internal_topic.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <thread>

#include "base/clock.h"
#include "groups/json_fields.h"
#include "log/partition_reader.h"
#include "shm/slots.h"

namespace ringtail::groups {

using std::memory_order_acquire;

namespace {

constexpr std::int64_t kPatienceNs = 10'000'000'000;  // for a claim that was under way, or its repair
constexpr std::chrono::milliseconds kLookAgainAfter{1};
constexpr std::size_t kReadAheadBytes = 1 << 20;

// What another release has written, and nobody has replaced since.
class ForeignRecords {
 public:
  explicit ForeignRecords(std::string_view topic) : topic_(topic) {}

  // Whether `record` is one of them.
  bool take(const Record& record) {
    auto version = other_version(record.value);
    if (!version) {
      if (!found_.empty()) found_.erase(std::string(record.key));
      return false;
    }
    found_.insert_or_assign(std::string(record.key), Found{record.offset, std::move(*version)});
    return true;
  }
  Status outcome() const {
    if (found_.empty()) return {};
    const auto& [offset, version] = found_.begin()->second;
    return fail(
        Code::incompatible_layout,
        fmt::format("topic '{}': the record at offset {} has version {}, this release reads version {}; "
                    "what it says of positions is not to be guessed: use the release that wrote it",
                    topic_, offset.value(), version, kRecordVersion));
  }

 private:
  struct Found {
    Offset offset{0};
    std::string version;
  };
  std::string_view topic_;
  std::map<std::string, Found, std::less<>> found_;  // by key
};

}  // namespace

Status InternalTopic::restore(const std::function<void(const Record&)>& take) {
  auto topic = attachment_.catalog().load_topic(name_);
  if (!topic && topic.error().code == Code::not_found) return {};
  if (!topic) return std::unexpected(topic.error());
  auto slot = shm::OwnedSlot::acquire(attachment_.control(), attachment_.locks(), shm::SlotRole::coordinator);
  if (!slot) return std::unexpected(slot.error());
  auto ref = attachment_.find_partition(*topic, PartitionId(0), kNoPatience);
  if (!ref) return std::unexpected(ref.error());
  auto reader = log::PartitionReader::open(*ref, slot->index(), kReadAheadBytes);
  if (!reader) return std::unexpected(reader.error());
  const auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  ForeignRecords foreign(name_);
  std::vector<Record> records(1024);
  std::int64_t progress_ns = monotonic_ns();
  while ((*reader)->offset() < end->offset) {
    if (stop_ != nullptr && stop_->load(memory_order_acquire))  // SYNC: pairs with Coordinator::stop
      return fail(Code::closed, fmt::format("topic '{}' was not read to its end: stopped", name_));
    const Offset before = (*reader)->offset();
    auto polled = (*reader)->poll(records);
    if (!polled) return std::unexpected(polled.error());
    const std::int64_t now_ns = monotonic_ns();
    if ((*reader)->offset() != before)
      progress_ns = now_ns;
    else if (now_ns - progress_ns > kPatienceNs)
      return fail(Code::timed_out, fmt::format("topic '{}' does not go on at offset {}, though its end is {}",
                                               name_, before.value(), end->offset.value()));
    else
      std::this_thread::sleep_for(kLookAgainAfter);
    for (const Record& record : std::span(records).first(*polled))
      if (!foreign.take(record)) take(record);
  }
  return foreign.outcome();
}

// The appender before stays until there is another: what was appended by it may be waited for still.
Status InternalTopic::open() {
  if (appender_ && appender_->partition().is_current()) return {};
  auto topic = attachment_.catalog().load_topic(name_);
  if (!topic && topic.error().code == Code::not_found) {
    topic = attachment_.catalog().create_topic(
        {.name = name_,
         .partitions = 1,
         .configs = {{"cleanup.policy", "compact"}, {"segment.bytes", "16MiB"}, {"term.bytes", "1MiB"}}});
    if (topic)
      if (auto applied = attachment_.apply_catalog(); !applied) return applied;
  }
  if (!topic) return std::unexpected(topic.error());
  auto ref = attachment_.find_partition(*topic, PartitionId(0), kNoPatience);
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

Status InternalTopic::append(std::span<const KeyValue> records) {
  if (auto opened = open(); !opened) return opened;
  for (const KeyValue& record : records) {
    auto sent = appender_->append(
        {.key = record.key, .value = record.value ? std::string_view(*record.value) : std::string_view()});
    if (!sent) return std::unexpected(appender_->describe(sent.error()));
    end_ = sent->end;
  }
  return {};
}

Status InternalTopic::include_others() {
  auto topic = attachment_.catalog().load_topic(name_);
  if (!topic && topic.error().code == Code::not_found) return {};
  if (auto opened = open(); !opened) return opened;
  auto reader = log::PartitionReader::open(appender_->partition(), slot_.index(), kReadAheadBytes);
  if (!reader) return std::unexpected(reader.error());
  auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  end_ = std::max(end_, end->position);
  return {};
}

bool InternalTopic::is_synced(Position end) const {
  if (!appender_) return true;
  // SYNC: pairs with the keeper's release store after the sync.
  return appender_->partition().entry().durable_position.load(memory_order_acquire) >= end.value();
}

std::optional<Error> InternalTopic::failure() const {
  return appender_ ? log::Attachment::failure_of(appender_->partition().entry()) : std::nullopt;
}

const shm::Shared<std::uint32_t>& InternalTopic::durable_futex() const {
  return appender_->partition().entry().durable_seq;
}

void InternalTopic::request_sync() const {
  // SYNC: a full barrier between raising the flag and the caller's next look; pairs with notify_waiters.
  appender_->partition().entry().durable_waiters.exchange(1, std::memory_order_seq_cst);
  attachment_.control().wake_keeper();
}

}  // namespace ringtail::groups
