// What a producer that numbers its records knows of what it has sent, so that none of them is appended twice.
#include <algorithm>

#include "base/logger.h"
#include "base/topic_config.h"
#include "client/producer_core.h"

namespace ringtail {
namespace {

bool may_append(const shm::Partition& entry) {
  const auto role = static_cast<shm::ReplicaRole>(entry.role.load(std::memory_order_relaxed));
  return role == shm::ReplicaRole::alone || role == shm::ReplicaRole::leader;
}

bool has_append_time(const shm::Partition& entry) {
  return entry.timestamp_type.load(std::memory_order_relaxed) ==
         static_cast<std::uint8_t>(TimestampType::log_append_time);
}

// The number of a batch's first record, by those of its records that have one; nothing where none has.
SendResult<std::optional<std::uint64_t>> first_number(std::span<const ProducerRecord> records) {
  const auto given =
      std::ranges::find_if(records, [](const ProducerRecord& one) { return one.sequence.has_value(); });
  if (given == records.end()) return std::nullopt;
  const auto before = static_cast<std::uint64_t>(given - records.begin());
  const std::uint64_t number = given->sequence.value_or(0);
  if (number < before) return std::unexpected(SendError::invalid_record);
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::uint64_t expected = number - before + i;
    if (records[i].sequence.value_or(expected) != expected) return std::unexpected(SendError::invalid_record);
  }
  return number - before;
}

// Whether the last record says when it was sent, and another does not.
bool has_unknown_times(std::span<const ProducerRecord> records) {
  return !records.empty() && records.back().timestamp_ns &&
         std::ranges::any_of(records, [](const ProducerRecord& one) { return !one.timestamp_ns; });
}

std::vector<ProducerRecord> with_times(std::span<const ProducerRecord> records, std::int64_t now_ns) {
  std::vector<ProducerRecord> timed(records.begin(), records.end());
  for (ProducerRecord& record : timed)
    if (!record.timestamp_ns) record.timestamp_ns = now_ns;
  return timed;
}

}  // namespace

// Since another epoch began, the log may have lost records of this producer, and got some of another that goes by
// its id; and it may have one of which nobody could tell. What it has counts.
std::optional<SendError> ProducerCore::recall_again(log::Appender& appender, LeaderEpoch epoch) {
  const shm::Partition& entry = appender.partition().entry();
  if (!may_append(entry)) return SendError::not_leader;
  if (auto recalled = read_back(appender); !recalled) {
    logger().warn("a producer cannot read what it has sent: {}", to_string(recalled.error()));
    const Code code = recalled.error().code;
    return code == Code::timed_out || code == Code::no_keeper ? SendError::timed_out
                                                              : SendError::storage_failed;
  }
  if (!may_append(entry) || appender.partition().epoch() != epoch) return SendError::not_leader;
  numbered_of(appender).epoch = epoch;
  return std::nullopt;
}

// At the beginning, so that what is in the way of it is told then. A host that leads or is alone is through with
// it; another one reads again when it leads.
Status ProducerCore::recall_given(log::Appender& appender) {
  const shm::Partition& entry = appender.partition().entry();
  Numbered& numbered = numbered_of(appender);
  if (numbered.epoch != Numbered::kNeverRecalled) return {};
  const LeaderEpoch epoch = appender.partition().epoch();
  const bool may = may_append(entry);
  auto recalled = read_back(appender);
  if (recalled && may && may_append(entry) && appender.partition().epoch() == epoch) numbered.epoch = epoch;
  return recalled;
}

Status ProducerCore::read_back(log::Appender& appender) {
  Numbered& numbered = numbered_of(appender);
  const bool given = !share_->has_id() && options_.producer_id != 0;
  const bool unknown = numbered.epoch == Numbered::kNeverRecalled;
  if (!given && !unknown && appender.next_sequence() == 0) return {};  // it has sent nothing
  log::Stamp stamp = share_->has_id() ? share_->stamp() : own_stamp_;
  stamp.transaction = numbered.transaction;
  auto recalled = numbered.sent.recall(appender.partition(), share_->slot().index(), stamp, numbered.first,
                                       options_.max_block, numbered.known_until);
  if (!recalled) return std::unexpected(recalled.error());
  // Nobody else appends under a transactional id, so what this one knows was sent was, wherever it stands now.
  if (share_->has_id()) recalled->next = std::max(appender.next_sequence(), recalled->next.value_or(0));
  numbered.known = recalled->next.has_value();
  numbered.known_until = recalled->known_until;
  if (recalled->next) appender.set_next_sequence(*recalled->next);
  return {};
}

// Before the first append of a transaction. What became of one in the transaction before is asked while it is known
// which that was.
std::optional<SendError> ProducerCore::begin_numbers(log::Appender& appender) {
  Numbered& numbered = numbered_of(appender);
  const std::uint32_t transaction = share_->stamp().transaction;
  if (numbered.transaction == transaction) return std::nullopt;  // the producer before this one has begun
  if (auto error = recall(appender, appender.partition().epoch())) return error;
  numbered.first = appender.next_sequence();
  numbered.transaction = transaction;
  return std::nullopt;
}

void ProducerCore::on_abort() {
  refused_ = false;  // that of an append in it, if nobody was told
  for (log::Appender& appender : appenders_) {
    Numbered& numbered = numbered_of(appender);
    if (numbered.transaction != share_->stamp().transaction) continue;
    // Of more than are remembered, none before them is any more: the log still has those.
    const bool took_all =
        numbered.first != 0 && appender.next_sequence() - numbered.first >= log::SentRecords::kRemembered;
    appender.set_next_sequence(numbered.first);
    numbered.sent.forget_from(numbered.first);
    numbered.transaction = 0;
    // Otherwise, whatever became of its appends, they do not count.
    numbered.epoch = took_all ? Numbered::kNeverRecalled : appender.partition().epoch();
  }
}

// What was sent before stands in the log under the epoch in which it has been found there.
SendResult<RecordMetadata> ProducerCore::answer_again(log::Appender& to, const RecordMetadata* sent) {
  if (sent == nullptr) return refuse(SendError::out_of_order_sequence, &to);
  RecordMetadata found = *sent;
  found.epoch = numbered_of(to).epoch;
  to.note_sent(found);
  return after_append(to, found);
}

// A number that was sent before gives what it gave then.
SendResult<RecordMetadata> ProducerCore::send_numbered(log::Appender& to, const ProducerRecord& record) {
  Numbered& numbered = numbered_of(to);
  if (!numbered.known && record.sequence) to.set_next_sequence(*record.sequence);
  const std::uint64_t next = to.next_sequence();
  const std::uint64_t sequence = record.sequence.value_or(next);
  if (sequence > next) return refuse(SendError::out_of_order_sequence, &to);
  if (sequence < next) return answer_again(to, numbered.sent.find(sequence));
  auto appended = append_known(to, [&] { return to.append(record); });
  if (appended) numbered.note(sequence, *appended);
  return after_append(to, appended);
}

// The same of a batch, whose records have consecutive numbers. One of which only some were sent before is neither
// answered nor appended.
SendResult<RecordMetadata> ProducerCore::send_batch_numbered(log::Appender& to,
                                                             std::span<const ProducerRecord> records) {
  const auto given = first_number(records);
  if (!given) return refuse(given.error(), &to);
  Numbered& numbered = numbered_of(to);
  if (!numbered.known && *given) to.set_next_sequence(**given);
  const std::uint64_t next = to.next_sequence();
  const std::uint64_t first = given->value_or(next);
  if (first > next) return refuse(SendError::out_of_order_sequence, &to);
  if (first < next) {
    const bool all_sent = records.size() <= next - first;
    return answer_again(to, all_sent ? numbered.sent.find_last(first, records.size()) : nullptr);
  }
  // The appender tells one time, the last record's. What it takes for the others has to be known, too.
  std::vector<ProducerRecord> timed;
  if (has_unknown_times(records)) {
    timed = with_times(records, share_->clock().now_ns());
    records = timed;
  }
  auto appended = append_known(to, [&] { return to.append_batch(records); });
  if (appended) {
    numbered.sent.note_batch(first, records, *appended, has_append_time(to.partition().entry()));
    numbered.known = true;
    numbered.known_until = appended->offset;
  }
  return after_append(to, appended);
}

std::uint64_t ProducerCore::next_sequence(PartitionId partition) {
  log::Appender* const of = appender(partition);
  if (of == nullptr || !is_mine()) return 0;
  // Too few replicas are no hindrance: a host leads before the first follower is in sync with it. What a send would
  // be refused for, the send will tell.
  if (numbers_) recall(*of, of->partition().epoch());
  return of->next_sequence();
}

}  // namespace ringtail
