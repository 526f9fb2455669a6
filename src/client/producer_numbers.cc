// What a producer that numbers its records knows of what it has sent, so that none of them is appended twice.
#include "base/logger.h"
#include "client/producer_core.h"

namespace ringtail {
namespace {

bool may_append(const shm::Partition& entry) {
  const auto role = static_cast<shm::ReplicaRole>(entry.role.load(std::memory_order_relaxed));
  return role == shm::ReplicaRole::alone || role == shm::ReplicaRole::leader;
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
  if (!may_append(entry) || epoch_of(entry) != epoch) return SendError::not_leader;
  numbered_of(appender).epoch = epoch;
  return std::nullopt;
}

// At the beginning, so that what is in the way of it is told then. A host that leads or is alone is through with
// it; another one reads again when it leads.
Status ProducerCore::recall_given(log::Appender& appender) {
  const shm::Partition& entry = appender.partition().entry();
  Numbered& numbered = numbered_of(appender);
  if (numbered.epoch != Numbered::kNeverRecalled) return {};
  const LeaderEpoch epoch = epoch_of(entry);
  const bool may = may_append(entry);
  auto recalled = read_back(appender);
  if (recalled && may && may_append(entry) && epoch_of(entry) == epoch) numbered.epoch = epoch;
  return recalled;
}

Status ProducerCore::read_back(log::Appender& appender) {
  Numbered& numbered = numbered_of(appender);
  const bool given = !share_->has_id() && options_.producer_id != 0;
  const bool unknown = numbered.epoch == Numbered::kNeverRecalled;
  if (!given && !unknown && appender.next_sequence() == 0) return {};  // it has sent nothing
  const log::Stamp& stamp = share_->has_id() ? share_->stamp() : own_stamp_;
  const auto recalled = numbered.sent.recall(appender.partition(), share_->slot().index(), stamp,
                                             options_.max_block, numbered.known_until);
  if (!recalled) return std::unexpected(recalled.error());
  numbered.known = recalled->next.has_value();
  numbered.known_until = recalled->known_until;
  if (recalled->next) appender.set_next_sequence(*recalled->next);
  return {};
}

// A number that was sent before gives what it gave then.
SendResult<RecordMetadata> ProducerCore::send_numbered(log::Appender& to, const ProducerRecord& record) {
  Numbered& numbered = numbered_of(to);
  if (!numbered.known && record.sequence) to.set_next_sequence(*record.sequence);
  const std::uint64_t next = to.next_sequence();
  const std::uint64_t sequence = record.sequence.value_or(next);
  if (sequence > next) return refuse(SendError::out_of_order_sequence, &to);
  if (sequence < next) {
    const RecordMetadata* const sent = numbered.sent.find(sequence);
    return sent != nullptr ? after_append(to, *sent) : refuse(SendError::out_of_order_sequence, &to);
  }
  auto appended = to.append(record);
  if (appended) {
    numbered.sent.note(sequence, *appended);
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
  if (numbers_) recall(*of, epoch_of(of->partition().entry()));
  return of->next_sequence();
}

}  // namespace ringtail
