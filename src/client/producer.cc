#include "ringtail/producer.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "base/bounded_time.h"
#include "base/logger.h"
#include "base/random.h"
#include "client/producer_core.h"

namespace ringtail {

std::string_view to_string(SendError error) {
  switch (error) {
    case SendError::would_block: return "would_block";
    case SendError::timed_out: return "timed_out";
    case SendError::record_too_large: return "record_too_large";
    case SendError::invalid_record: return "invalid_record";
    case SendError::claim_expired: return "claim_expired";
    case SendError::not_enough_replicas: return "not_enough_replicas";
    case SendError::not_leader: return "not_leader";
    case SendError::lost_leadership: return "lost_leadership";
    case SendError::storage_failed: return "storage_failed";
    case SendError::claim_open: return "claim_open";
    case SendError::fenced: return "fenced";
    case SendError::held_exclusively: return "held_exclusively";
    case SendError::out_of_order_sequence: return "out_of_order_sequence";
    case SendError::no_transaction: return "no_transaction";
    case SendError::corrupt: return "corrupt";
    case SendError::closed: return "closed";
  }
  return "unknown";
}

// Of a record that was refused, with acks=none.
static constexpr Offset kRefused{~std::uint64_t{0}};

// --- ProducerCore --------------------------------------------------------------------------------

Result<std::unique_ptr<ProducerCore>> ProducerCore::open(const Log& log, ProducerOptions options) {
  const std::shared_ptr<LogCore>& attached = log.core();
  if (auto mine = attached->check_mine(); !mine) return std::unexpected(mine.error());
  auto topic = attached->catalog().load_topic(options.topic);
  if (!topic) return std::unexpected(topic.error());
  auto share = ProducerShare::open(attached, options);
  if (!share) return std::unexpected(share.error());
  std::unique_ptr<ProducerCore> core(new ProducerCore(attached, std::move(*share), std::move(options)));
  if (auto opened = core->open_appenders(*topic); !opened) return std::unexpected(opened.error());
  return core;
}

Result<std::unique_ptr<ProducerCore>> ProducerCore::for_topic(std::string name) const {
  if (auto mine = log_->check_mine(); !mine) return std::unexpected(mine.error());
  auto topic = log_->catalog().load_topic(name);
  if (!topic) return std::unexpected(topic.error());
  // Two would number the same partitions.
  if (share_->has_id() && share_->writes_to(topic->topic_id))
    return fail(Code::invalid_argument,
                fmt::format("'{}' has a producer for topic '{}' already; use that one",
                            options_.transactional_id, name));
  ProducerOptions options = options_;
  options.topic = std::move(name);
  std::unique_ptr<ProducerCore> core(new ProducerCore(log_, share_, std::move(options)));
  if (auto opened = core->open_appenders(*topic); !opened) return std::unexpected(opened.error());
  return core;
}

Status ProducerCore::check_producer_id() const {
  if (options_.producer_id == 0) return {};
  if (!options_.enable_idempotence || !options_.transactional_id.empty())
    return fail(
        Code::invalid_argument,
        "a producer_id is for enable_idempotence, without a transactional_id; set that, or no producer_id");
  if (options_.producer_id == format::kEveryProducer)
    return fail(Code::invalid_argument, "producer_id must be below 2^64 - 1");
  return {};
}

Status ProducerCore::open_appenders(const log::TopicEntry& topic) {
  // What decides a transaction is of this host alone.
  if (share_->has_id() && topic.replication_factor != 0)
    return fail(Code::unsupported,
                fmt::format("topic '{}' is a cluster's, and a transaction would not outlive this host; use "
                            "enable_idempotence with a producer_id, or a topic without --replication-factor",
                            topic.name));
  if (auto usable = check_producer_id(); !usable) return usable;
  if (share_->has_id() && options_.exclusive)
    return fail(
        Code::invalid_argument,
        "a producer with a transactional_id cannot have partitions for itself, for others append the ends of "
        "transactions; leave out one of the two");
  numbers_ = share_->has_id() || options_.enable_idempotence;
  if (numbers_ && !share_->has_id()) {
    const auto id = options_.producer_id != 0 ? Result<std::uint64_t>(options_.producer_id) : random_token();
    if (!id) return std::unexpected(id.error());
    own_stamp_.producer_id = *id;
  }
  appenders_.reserve(topic.partitions);
  for (std::uint32_t p = 0; p < topic.partitions; ++p)
    if (auto added = add_appender(topic, PartitionId(p)); !added) return added;
  if (options_.durable) {
    for (const log::Appender& appender : appenders_)
      if (!appender.can_be_durable())
        return fail(
            Code::unsupported,
            fmt::format("topic '{}' has storage=memory: its records are never durable", options_.topic));
  }
  share_->add(this);
  for (log::Appender& appender : appenders_)
    if (auto recalled = recall_given(appender); !recalled) return recalled;
  take_up_new_partitions();  // that came before the appenders were there to notice
  return {};
}

Status ProducerCore::add_appender(const log::TopicEntry& topic, PartitionId partition,
                                  std::chrono::nanoseconds patience) {
  auto ref = log_->find_partition(topic, partition, patience);
  if (!ref) return std::unexpected(ref.error());
  auto appender =
      log::Appender::open(*ref, share_->slot(), share_->clock(), options_.max_block, options_.exclusive);
  if (!appender) return std::unexpected(appender.error());
  appender->set_on_change([this] {
    changed_ = true;
    direct_ = nullptr;  // the next send comes by take_up_new_partitions
  });
  if (numbers_) appender->set_stamp(share_->has_id() ? &share_->stamp() : &own_stamp_);
  const Numbering before = share_->has_id() ? share_->numbering(*ref) : Numbering{};
  appender->set_next_sequence(before.next);
  appenders_.push_back(std::move(*appender));
  enlisted_.push_back(0);
  // One with an id of its own has sent nothing; what others have sent under a given id, the log knows.
  const bool given = !share_->has_id() && options_.producer_id != 0;
  numbered_.push_back({.epoch = given || before.unknown ? Numbered::kNeverRecalled : ref->epoch(),
                       .first = before.first,
                       .transaction = before.transaction});
  return {};
}

// Appenders of partitions that the topic has got since. One that cannot be opened is left until something
// changes again, or a record is for it; until then, keys go where they went. With a claim open, its appender stays
// where it is. Where the catalog cannot be read, the next send looks again.
void ProducerCore::take_up_new_partitions() {
  if (open_appender_ != nullptr || !is_mine()) return;
  const auto topic = log_->catalog().load_topic(options_.topic);
  changed_ = !topic && topic.error().code != Code::not_found;
  unopened_.reset();
  if (changed_) unopened_ = topic.error();
  if (topic && topic->topic_id == appenders_.front().partition().topic_id) {
    const auto last = last_appender_ == nullptr ? 0 : last_appender_ - appenders_.data();
    for (auto p = partitions(); p < topic->partitions; ++p) {
      auto added = add_appender(*topic, PartitionId(p), bounded_time(options_.max_block));
      if (added) continue;
      logger().warn("topic '{}': a producer cannot use the new partition {}: {}", options_.topic, p,
                    added.error().message);
      unopened_ = added.error();
      break;
    }
    if (last_appender_ != nullptr) last_appender_ = appenders_.data() + last;
  }
  choose_path();
}

// A record is for a partition that there is no appender for.
std::unexpected<SendError> ProducerCore::refuse_partition() {
  return refuse(unopened_ ? SendError::timed_out : SendError::invalid_record);
}

void ProducerCore::choose_path() {
  const bool plain = !numbers_ && !options_.durable && options_.acks == Acks::leader &&
                     !share_->is_claim_open() && !changed_;
  direct_ = plain && appenders_.size() == 1 ? appenders_.data() : nullptr;
}

ProducerCore::~ProducerCore() {
  share_->remove(this);
  if (!is_mine()) return;
  abort_claim();
  for (log::Appender& appender : appenders_) appender.release_exclusive();
  if (!share_->has_id()) return;
  for (const log::Appender& appender : appenders_) {
    const Numbered& numbered = numbered_of(appender);
    share_->numbering(appender.partition()) = {.next = appender.next_sequence(),
                                               .first = numbered.first,
                                               .transaction = numbered.transaction,
                                               .unknown = numbered.epoch == Numbered::kNeverRecalled};
  }
}

std::unexpected<SendError> ProducerCore::refuse(SendError error, const log::Appender* appender) {
  last_error_ = error;
  last_appender_ = appender;
  has_error_ = true;
  for (log::Appender& a : appenders_) a.forget_error();
  return std::unexpected(error);
}

// What it refuses is noted.
SendResult<void> ProducerCore::before_append(log::Appender& appender) {
  if (is_mine() && !share_->is_claim_open() && std::exchange(refused_, false))
    return refuse(last_error_, last_appender_);  // of whatever partition that was
  if (auto error = find_obstacle(appender)) return refuse(*error, &appender);
  return {};
}

std::optional<SendError> ProducerCore::find_obstacle(log::Appender& appender) {
  if (!is_mine()) return SendError::closed;
  if (share_->is_claim_open()) return SendError::claim_open;
  if (share_->has_id())
    if (auto error = enlist(appender)) return error;
  if (options_.acks == Acks::all)
    if (auto enough = appender.check_replicas(); !enough) return enough.error();
  if (!numbers_) return std::nullopt;
  return recall(appender,
                options_.acks == Acks::all ? appender.checked_epoch() : appender.partition().epoch());
}

// Before the first append of a transaction to a partition.
std::optional<SendError> ProducerCore::enlist(log::Appender& appender) {
  const std::uint64_t transaction = share_->transaction();
  if (transaction == 0) return SendError::no_transaction;
  std::uint64_t& enlisted = enlisted_[appender.partition().partition.value()];
  if (enlisted == transaction) return std::nullopt;
  // Others append its end, for which they would have to wait.
  if (appender.partition().entry().exclusive.load(std::memory_order_relaxed) != 0)
    return SendError::held_exclusively;
  if (auto error = share_->enlist(appender.partition().index)) return error;
  if (auto error = begin_numbers(appender)) return error;
  enlisted = transaction;
  return std::nullopt;
}

SendResult<RecordMetadata> ProducerCore::after_append(log::Appender& appender,
                                                      SendResult<RecordMetadata> appended) {
  if (!appended) [[unlikely]] {
    // The same number again must not become a second record: the log is asked first.
    if (appender.take_unknown() && numbers_) numbered_of(appender).epoch = Numbered::kNeverRecalled;
    auto refused = refuse(appended.error(), &appender);
    if (options_.acks != Acks::none) return refused;
    // Nobody waits for the outcome: the next call will tell it.
    refused_ = true;
    share_->forbid_commit("a record was refused");
    return RecordMetadata{.partition = appender.partition().partition, .offset = kRefused};
  }
  if (options_.acks == Acks::all)
    if (auto replicated = appender.wait_replicated(appended->end); !replicated)
      return refuse(replicated.error(), &appender);
  // Of a transaction, the commit waits for all records at once.
  if (options_.durable && !share_->has_id())
    if (auto durable = appender.wait_durable(*appended); !durable) {
      // All before it was waited for as well.
      if (durable.error() == SendError::lost_leadership) appender.forget_sent();
      return refuse(durable.error(), &appender);
    }
  return appended;
}

SendResult<RecordMetadata> ProducerCore::send(const ProducerRecord& record) {
  if (direct_ == nullptr || !is_mine() || record.partition.value_or(PartitionId(0)) != PartitionId(0))
      [[unlikely]]
    return send_slowly(record);
  return direct_->append(record);
}

SendResult<RecordMetadata> ProducerCore::send_slowly(const ProducerRecord& record) {
  if (changed_) [[unlikely]]
    take_up_new_partitions();
  const PartitionId partition = record.partition         ? *record.partition
                                : appenders_.size() == 1 ? PartitionId(0)
                                                         : partition_for(record.key);
  log::Appender* const to = appender(partition);
  if (to == nullptr) [[unlikely]]
    return refuse_partition();
  if (auto ready = before_append(*to); !ready) [[unlikely]]
    return std::unexpected(ready.error());
  if (numbers_) return send_numbered(*to, record);
  return after_append(*to, to->append(record));
}

SendResult<RecordMetadata> ProducerCore::send_batch(PartitionId partition,
                                                    std::span<const ProducerRecord> records) {
  if (changed_) [[unlikely]]
    take_up_new_partitions();
  log::Appender* const to = appender(partition);
  if (to == nullptr) return refuse_partition();
  if (auto ready = before_append(*to); !ready) return std::unexpected(ready.error());
  if (numbers_) return send_batch_numbered(*to, records);
  return after_append(*to, to->append_batch(records));
}

SendResult<Claim> ProducerCore::try_claim(std::size_t value_bytes, std::string_view key,
                                          std::optional<PartitionId> partition) {
  if (direct_ == nullptr || !is_mine() || partition.value_or(PartitionId(0)) != PartitionId(0)) [[unlikely]]
    return claim_slowly(value_bytes, key, partition);
  return claim_from(*direct_, value_bytes, key);
}

SendResult<Claim> ProducerCore::claim_slowly(std::size_t value_bytes, std::string_view key,
                                             std::optional<PartitionId> partition) {
  log::Appender* const to = appender(partition ? *partition : partition_for(key));
  if (to == nullptr) return refuse_partition();
  if (auto ready = before_append(*to); !ready) return std::unexpected(ready.error());
  return claim_from(*to, value_bytes, key);
}

inline SendResult<Claim> ProducerCore::claim_from(log::Appender& to, std::size_t value_bytes,
                                                  std::string_view key) {
  if (numbers_) [[unlikely]]
    to.expect_epoch(numbered_of(to).epoch);
  auto open = to.claim(key, value_bytes);
  if (numbers_) [[unlikely]]
    to.expect_epoch(std::nullopt);
  if (!open) [[unlikely]]
    return refuse(open.error(), &to);
  open_ = *open;
  open_appender_ = &to;
  direct_ = nullptr;
  share_->set_claimer(this);
  return Claim(this, ++claims_, open_.value, static_cast<std::uint32_t>(value_bytes));
}

SendResult<RecordMetadata> ProducerCore::commit_claim(std::uint32_t number) {
  if (open_appender_ == nullptr || number != claims_ || !is_mine())
    return refuse(SendError::closed, open_appender_);
  log::Appender& to = *std::exchange(open_appender_, nullptr);
  share_->set_claimer(nullptr);
  choose_path();
  if (!numbers_) [[likely]]
    return after_append(to, to.commit(open_));
  auto committed = to.commit(open_);
  if (committed) numbered_of(to).note(open_.sequence, *committed);
  return after_append(to, committed);
}

void ProducerCore::abort_claim() {
  if (open_appender_ == nullptr || !is_mine()) return;
  std::exchange(open_appender_, nullptr)->abort(open_);
  share_->set_claimer(nullptr);
  choose_path();
}

SendResult<void> ProducerCore::wait_durable(const RecordMetadata& record) {
  if (is_mine() && std::exchange(refused_, false)) return refuse(last_error_, last_appender_);
  log::Appender* const to = appender(record.partition);
  if (to == nullptr) return refuse(SendError::invalid_record);
  if (!is_mine()) return refuse(SendError::closed, to);
  if (record.offset == kRefused) return refuse(SendError::invalid_record, to);
  if (auto durable = to->wait_durable(record); !durable) return refuse(durable.error(), to);
  return {};
}

SendResult<void> ProducerCore::flush() {
  if (!is_mine()) return refuse(SendError::closed);
  if (std::exchange(refused_, false)) return refuse(last_error_, last_appender_);
  for (log::Appender& sender : appenders_)
    if (auto durable = sender.flush(); !durable) return refuse(durable.error(), &sender);
  return {};
}

PartitionId ProducerCore::partition_for(std::string_view key) {
  if (changed_) [[unlikely]]
    take_up_new_partitions();
  const std::uint32_t count = partitions();
  if (options_.partitioner) return PartitionId(options_.partitioner(key, count));
  if (key.data() == nullptr) {
    if (next_partition_ >= count) next_partition_ = 0;
    return PartitionId(next_partition_++);
  }
  return PartitionId(static_cast<std::uint32_t>(XXH3_64bits(key.data(), key.size()) % count));
}

Error ProducerCore::error() const {
  if (has_error_ && is_mine() && last_error_ == SendError::fenced && share_->has_id())
    return share_->fenced_error();
  if (is_mine())  // what the direct path has met stands in its appender
    for (const log::Appender& appender : appenders_)
      if (auto error = appender.last_error()) return appender.describe(*error);
  if (!has_error_) return {Code::invalid_argument, 0, "no operation of this producer has failed"};
  if (!is_mine()) return log_->check_mine().error();
  if (last_appender_ != nullptr) return last_appender_->describe(last_error_);
  if (last_error_ == SendError::timed_out && unopened_)
    return {Code::timed_out, unopened_->os_errno,
            fmt::format("topic '{}': the partition asked for is new, and cannot be used yet: {}",
                        options_.topic, unopened_->message)};
  return {Code::invalid_argument, 0,
          fmt::format("topic '{}' has partitions 0 to {}; the partition asked for is not one of them",
                      options_.topic, partitions() - 1)};
}

// --- Producer ------------------------------------------------------------------------------------

Producer::Producer(std::unique_ptr<ProducerCore> core) : core_(std::move(core)) {}
Producer::Producer(Producer&&) noexcept = default;
Producer& Producer::operator=(Producer&&) noexcept = default;
Producer::~Producer() = default;

Result<Producer> Producer::open(const Log& log, ProducerOptions options) {
  auto core = ProducerCore::open(log, std::move(options));
  if (!core) return std::unexpected(core.error());
  return Producer(std::move(*core));
}

Result<Producer> Producer::for_topic(std::string topic) const {
  auto core = core_->for_topic(std::move(topic));
  if (!core) return std::unexpected(core.error());
  return Producer(std::move(*core));
}

SendResult<RecordMetadata> Producer::send(const ProducerRecord& record) { return core_->send(record); }

SendResult<RecordMetadata> Producer::send_batch(PartitionId partition,
                                                std::span<const ProducerRecord> records) {
  return core_->send_batch(partition, records);
}

SendResult<Claim> Producer::try_claim(std::size_t value_bytes, std::string_view key,
                                      std::optional<PartitionId> partition) {
  return core_->try_claim(value_bytes, key, partition);
}

SendResult<void> Producer::wait_durable(const RecordMetadata& record) { return core_->wait_durable(record); }
SendResult<void> Producer::flush() { return core_->flush(); }
Status Producer::begin() { return core_->begin(); }
Status Producer::add_offsets(std::span<const OffsetCommit> offsets, const GroupMetadata& group) {
  return core_->add_offsets(offsets, group);
}
Status Producer::commit() { return core_->commit(); }
Status Producer::abort() { return core_->abort(); }
std::uint64_t Producer::next_sequence(PartitionId partition) const { return core_->next_sequence(partition); }
PartitionId Producer::partition_for(std::string_view key) { return core_->partition_for(key); }
std::uint32_t Producer::partitions() const { return core_->partitions(); }
Error Producer::error() const { return core_->error(); }

// --- Claim ---------------------------------------------------------------------------------------

Claim& Claim::operator=(Claim&& other) noexcept {
  if (this == &other) return *this;
  abort();
  producer_ = std::exchange(other.producer_, nullptr);
  value_ = other.value_;
  bytes_ = other.bytes_;
  number_ = other.number_;
  return *this;
}

SendResult<RecordMetadata> Claim::commit() {
  if (producer_ == nullptr) return std::unexpected(SendError::closed);
  return std::exchange(producer_, nullptr)->commit_claim(number_);
}

void Claim::abort() {
  if (producer_ != nullptr) std::exchange(producer_, nullptr)->abort_claim(number_);
}

}  // namespace ringtail
