// What stands behind Producer and its Claim.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "client/log_core.h"
#include "log/appender.h"
#include "ringtail/producer.h"
#include "shm/slots.h"

namespace ringtail {

// Thread safety: one thread at a time.
class ProducerCore {
 public:
  static Result<std::unique_ptr<ProducerCore>> open(const Log& log, ProducerOptions options);
  ~ProducerCore();

  SendResult<RecordMetadata> send(const ProducerRecord& record);
  SendResult<RecordMetadata> send_batch(PartitionId partition, std::span<const ProducerRecord> records);
  SendResult<Claim> try_claim(std::size_t value_bytes, std::string_view key,
                              std::optional<PartitionId> partition);
  SendResult<RecordMetadata> commit_claim();
  void abort_claim();
  SendResult<void> wait_durable(const RecordMetadata& record);
  SendResult<void> flush();

  // producer_transaction.cc
  Status begin();
  Status add_offsets(std::span<const OffsetCommit> offsets, const GroupMetadata& group);
  Status commit();
  Status abort();
  std::uint64_t next_sequence(PartitionId partition) const;

  PartitionId partition_for(std::string_view key);
  std::uint32_t partitions() const { return static_cast<std::uint32_t>(appenders_.size()); }
  Error error() const;

 private:
  ProducerCore(const Log& log, ProducerOptions options)
      : log_(log.core()), options_(std::move(options)), fork_generation_(shm::fork_generation()) {}

  bool is_mine() const { return shm::fork_generation() == fork_generation_; }
  void choose_path();
  Status add_appender(const log::TopicEntry& topic, PartitionId partition);
  void take_up_new_partitions();
  SendResult<RecordMetadata> send_slowly(const ProducerRecord& record);
  // Null when the topic has no such partition. Opens those that have come since, but for a claim in place.
  log::Appender* appender(PartitionId partition) {
    if (partition.value() >= appenders_.size()) [[unlikely]]
      take_up_new_partitions();
    return partition.value() < appenders_.size() ? &appenders_[partition.value()] : nullptr;
  }
  std::optional<SendError> before_append(log::Appender& appender);
  SendResult<RecordMetadata> send_numbered(log::Appender& appender, const ProducerRecord& record);
  // producer_transaction.cc
  Status take_id();
  std::optional<SendError> enlist(const log::Appender& appender);
  Status check_transaction() const;
  Error fenced_error() const;
  Status wait_ended(std::uint32_t number);
  Status add_offset(const OffsetCommit& offset, std::uint32_t group, const GroupMetadata& member);
  SendResult<RecordMetadata> after_append(log::Appender& appender, SendResult<RecordMetadata> appended);
  std::unexpected<SendError> refuse(SendError error, const log::Appender* appender = nullptr);

  std::shared_ptr<LogCore> log_;
  ProducerOptions options_;
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::uint32_t fork_generation_;
  // The appender of the only partition, while there is nothing to do but to append (acks=1): no claim
  // is open, nothing is waited for. It notes its own failures.
  log::Appender* direct_ = nullptr;
  std::vector<log::Appender> appenders_;  // one per partition
  std::uint32_t next_partition_ = 0;      // for records without a key
  bool changed_ = false;                  // something of the topic has: perhaps it has more partitions
  bool refused_ = false;                  // acks=0: a failure to be told by the next call

  // Of producers that number their records.
  log::Stamp stamp_;
  struct Sent {
    std::array<RecordMetadata, 1024> last;  // by sequence
  };
  std::vector<std::unique_ptr<Sent>> sent_;  // by partition
  shm::TransactionalId* id_ = nullptr;
  std::uint32_t id_index_ = 0;
  std::uint64_t word_ = 0;      // what id_->word is while the id is this producer's
  std::vector<bool> enlisted_;  // partitions of the transaction that is open
  bool in_transaction_ = false;
  bool must_abort_ = false;

  log::Appender* open_appender_ = nullptr;
  log::Appender::Open open_;

  SendError last_error_ = SendError::closed;
  const log::Appender* last_appender_ = nullptr;
  bool has_error_ = false;
};

}  // namespace ringtail
