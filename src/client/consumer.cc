#include "ringtail/consumer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "client/consumer_core.h"

namespace ringtail {

namespace {

constexpr std::size_t kMaxPollRecords = 65536;
constexpr std::size_t kMaxReadAheadBytes = std::size_t{1} << 40;

// What a consumer cannot work with. What means nothing without a group is looked at only where there is one.
Status check(const ConsumerOptions& options) {
  if (options.max_poll_records == 0 || options.max_poll_records > kMaxPollRecords)
    return fail(Code::invalid_argument, fmt::format("max_poll_records is {}, it must be 1 to {}",
                                                    options.max_poll_records, kMaxPollRecords));
  if (options.read_ahead_bytes > kMaxReadAheadBytes)
    return fail(Code::invalid_argument, fmt::format("read_ahead_bytes is {}, it must be at most {}",
                                                    options.read_ahead_bytes, kMaxReadAheadBytes));
  if (options.group_id.empty()) return {};
  if (options.enable_auto_commit && options.auto_commit_interval.count() <= 0)
    return fail(Code::invalid_argument,
                fmt::format("auto_commit_interval is {} ms, it must be at least 1; to commit by hand alone, "
                            "set enable_auto_commit to false",
                            options.auto_commit_interval.count()));
  if (options.max_poll_interval.count() <= 0)
    return fail(Code::invalid_argument,
                fmt::format("max_poll_interval is {} ms, it must be at least 1; the longest "
                            "is 49.7 days, which is what milliseconds::max() gives",
                            options.max_poll_interval.count()));
  return {};
}

}  // namespace

Consumer::Consumer(std::unique_ptr<ConsumerCore> core) : core_(std::move(core)) {}
Consumer::Consumer(Consumer&&) noexcept = default;
Consumer& Consumer::operator=(Consumer&&) noexcept = default;
Consumer::~Consumer() = default;

Result<Consumer> Consumer::open(const Log& log, ConsumerOptions options) {
  if (auto mine = log.core()->check_mine(); !mine) return std::unexpected(mine.error());
  if (auto valid = check(options); !valid) return std::unexpected(valid.error());
  if (!options.assignor.assign) options.assignor = sticky_assignor();
  auto slot = shm::OwnedSlot::acquire(log.core()->control(), log.core()->locks(), shm::SlotRole::consumer);
  if (!slot) return std::unexpected(slot.error());
  return Consumer(std::make_unique<ConsumerCore>(log, std::move(options), std::move(*slot)));
}

Status Consumer::assign(std::span<const TopicPartition> partitions) { return core_->assign(partitions); }
Status Consumer::assign(std::string_view topic) { return core_->assign(topic); }
const std::vector<TopicPartition>& Consumer::assignment() const { return core_->assignment(); }

Status Consumer::seek(const TopicPartition& partition, Offset offset) {
  return core_->seek(partition, offset);
}

Status Consumer::seek_to_beginning(const TopicPartition& partition) {
  return core_->seek_to_beginning(partition);
}

Status Consumer::seek_to_end(const TopicPartition& partition) { return core_->seek_to_end(partition); }

Status Consumer::seek_to_time(const TopicPartition& partition, std::int64_t timestamp_ns) {
  return core_->seek_to_time(partition, timestamp_ns);
}

Result<Offset> Consumer::position(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  return (*reader)->offset();
}

Result<std::span<const Record>> Consumer::poll(std::chrono::nanoseconds timeout) {
  return core_->poll(timeout);
}
void Consumer::wake() { core_->wake(); }

Result<Lag> Consumer::lag(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  Lag lag;
  if (end->offset > (*reader)->offset()) {
    lag.records = end->offset - (*reader)->offset();
    lag.bytes = end->position - (*reader)->position();
    if (auto oldest = (*reader)->next_timestamp())
      lag.time = std::chrono::nanoseconds(std::max<std::int64_t>(0, wall_clock_ns() - *oldest));
  }
  return lag;
}

Result<Offset> Consumer::end_offset(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  return end->offset;
}

Result<Offset> Consumer::last_stable_offset(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  return (*reader)->last_stable_offset();
}

// --- Membership of a group ---

Status Consumer::subscribe(std::span<const std::string> topics, RebalanceListener listener) {
  return core_->subscribe({.topics = {topics.begin(), topics.end()}, .pattern = {}}, std::move(listener));
}

Status Consumer::subscribe(std::string_view topic, RebalanceListener listener) {
  return core_->subscribe({.topics = {std::string(topic)}, .pattern = {}}, std::move(listener));
}

Status Consumer::subscribe_pattern(std::string_view expression, RebalanceListener listener) {
  if (expression.empty()) return fail(Code::invalid_argument, "an empty expression matches no topic");
  return core_->subscribe({.topics = {}, .pattern = std::string(expression)}, std::move(listener));
}

Status Consumer::unsubscribe() { return core_->unsubscribe(); }
Status Consumer::commit_async() { return core_->commit(); }
Status Consumer::commit_async(std::span<const OffsetCommit> offsets) { return core_->commit(offsets); }

Status Consumer::commit_sync(std::chrono::milliseconds timeout) {
  if (auto committed = core_->commit(); !committed) return committed;
  return core_->persist(timeout);
}

Status Consumer::commit_sync(std::span<const OffsetCommit> offsets, std::chrono::milliseconds timeout) {
  if (auto committed = core_->commit(offsets); !committed) return committed;
  return core_->persist(timeout);
}

Result<std::optional<CommittedOffset>> Consumer::committed(const TopicPartition& partition) const {
  return core_->committed(partition);
}

Status Consumer::pause(std::span<const TopicPartition> partitions) {
  return core_->set_paused(partitions, true);
}
Status Consumer::resume(std::span<const TopicPartition> partitions) {
  return core_->set_paused(partitions, false);
}
std::vector<TopicPartition> Consumer::paused() const { return core_->paused(); }
GroupMetadata Consumer::group_metadata() const { return core_->group_metadata(); }

std::uint64_t Consumer::missed() const { return core_->missed(); }

}  // namespace ringtail
