// What stands behind Producer and its Claim.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "client/log_core.h"
#include "client/producer_share.h"
#include "log/appender.h"
#include "log/sent_records.h"
#include "ringtail/producer.h"
#include "shm/process.h"

namespace ringtail {

// Thread safety: one thread at a time, for all that share.
class ProducerCore {
 public:
  static Result<std::unique_ptr<ProducerCore>> open(const Log& log, ProducerOptions options);
  // Another that shares with this one. Errors: those of Producer::for_topic.
  Result<std::unique_ptr<ProducerCore>> for_topic(std::string topic) const;
  ~ProducerCore();

  SendResult<RecordMetadata> send(const ProducerRecord& record);
  SendResult<RecordMetadata> send_batch(PartitionId partition, std::span<const ProducerRecord> records);
  SendResult<Claim> try_claim(std::size_t value_bytes, std::string_view key,
                              std::optional<PartitionId> partition);
  // Of the claim with that number. Errors: closed: it is not the one that is open.
  SendResult<RecordMetadata> commit_claim(std::uint32_t number);
  void abort_claim(std::uint32_t number) {
    if (number == claims_) abort_claim();
  }
  void abort_claim();
  SendResult<void> wait_durable(const RecordMetadata& record);
  SendResult<void> flush();

  Status begin() { return share_->begin(); }
  Status add_offsets(std::span<const OffsetCommit> offsets, const GroupMetadata& group) {
    return share_->add_offsets(offsets, group);
  }
  Status commit() { return share_->commit(); }
  Status abort() { return share_->abort(); }
  std::uint64_t next_sequence(PartitionId partition);

  // The transaction that is open ends as if nothing had been sent in it: its numbers come once more.
  void on_abort();
  // Whether sends and claims may go the direct way; to be asked when one that shares opens or ends a claim.
  void choose_path();
  std::uint64_t topic_id() const { return appenders_.front().partition().topic_id; }

  PartitionId partition_for(std::string_view key);
  std::uint32_t partitions() const { return static_cast<std::uint32_t>(appenders_.size()); }
  Error error() const;

 private:
  ProducerCore(std::shared_ptr<LogCore> log, std::shared_ptr<ProducerShare> share, ProducerOptions options)
      : log_(std::move(log)),
        share_(std::move(share)),
        options_(std::move(options)),
        fork_generation_(shm::fork_generation()) {}

  Status check_producer_id() const;
  Status open_appenders(const log::TopicEntry& topic);
  bool is_mine() const { return shm::fork_generation() == fork_generation_; }
  Status add_appender(const log::TopicEntry& topic, PartitionId partition,
                      std::chrono::nanoseconds patience = log::kKeeperPatience);
  void take_up_new_partitions();
  std::unexpected<SendError> refuse_partition();
  SendResult<RecordMetadata> send_slowly(const ProducerRecord& record);
  SendResult<Claim> claim_slowly(std::size_t value_bytes, std::string_view key,
                                 std::optional<PartitionId> partition);
  SendResult<Claim> claim_from(log::Appender& to, std::size_t value_bytes, std::string_view key);
  // Null when the topic has no such partition. Opens those that have come since, but for a claim in place.
  log::Appender* appender(PartitionId partition) {
    if (partition.value() >= appenders_.size()) [[unlikely]]
      take_up_new_partitions();
    return partition.value() < appenders_.size() ? &appenders_[partition.value()] : nullptr;
  }
  SendResult<void> before_append(log::Appender& appender);
  std::optional<SendError> find_obstacle(log::Appender& appender);
  SendResult<RecordMetadata> send_numbered(log::Appender& appender, const ProducerRecord& record);
  SendResult<RecordMetadata> send_batch_numbered(log::Appender& appender,
                                                 std::span<const ProducerRecord> records);
  SendResult<RecordMetadata> answer_again(log::Appender& appender, const RecordMetadata* sent);
  // Nothing to do within an epoch.
  std::optional<SendError> recall(log::Appender& appender, LeaderEpoch epoch) {
    if (numbered_of(appender).epoch == epoch) [[likely]]
      return std::nullopt;
    return recall_again(appender, epoch);
  }
  std::optional<SendError> recall_again(log::Appender& appender, LeaderEpoch epoch);
  std::optional<SendError> begin_numbers(log::Appender& appender);
  Status recall_given(log::Appender& appender);
  Status read_back(log::Appender& appender);
  // `append` under the epoch in which the numbers are known.
  template <class Append>
  auto append_known(log::Appender& to, const Append& append) {
    to.expect_epoch(numbered_of(to).epoch);
    auto appended = append();
    to.expect_epoch(std::nullopt);
    return appended;
  }
  std::optional<SendError> enlist(log::Appender& appender);
  SendResult<RecordMetadata> after_append(log::Appender& appender, SendResult<RecordMetadata> appended);
  std::unexpected<SendError> refuse(SendError error, const log::Appender* appender = nullptr);

  std::shared_ptr<LogCore> log_;
  std::shared_ptr<ProducerShare> share_;  // outlives the appenders, which use its slot and its clock
  ProducerOptions options_;
  std::uint32_t fork_generation_;
  // The appender of the only partition, while there is nothing to do but to append (acks=1): no claim
  // is open, nothing is waited for. It notes its own failures.
  log::Appender* direct_ = nullptr;
  std::vector<log::Appender> appenders_;  // one per partition
  std::uint32_t next_partition_ = 0;      // for records without a key
  bool changed_ = false;                  // something of the topic has: perhaps it has more partitions
  std::optional<Error> unopened_;         // why the topic's next partition, if any, has no appender
  bool refused_ = false;                  // acks=0: a failure to be told by the next call

  // Of producers that number their records. With a transactional id the appenders use the stamp of all that
  // share, otherwise this one.
  log::Stamp own_stamp_;
  bool numbers_ = false;
  struct Numbered {
    // Nothing has been read, or not since something was sent of which nobody could tell what became of it.
    static constexpr LeaderEpoch kNeverRecalled{~std::uint32_t{0}};
    log::SentRecords sent = {};
    LeaderEpoch epoch{0};  // under which `sent` and the next number are what the log says
    bool known = true;     // otherwise the next number is whatever it is given
    Offset known_until = log::SentRecords::kUnknown;  // in the log, it has read or sent
    std::uint64_t first = 0;                          // as in Numbering
    std::uint32_t transaction = 0;

    void note(std::uint64_t sequence, const RecordMetadata& metadata) {
      sent.note(sequence, metadata);
      known = true;
      known_until = metadata.offset;
    }
  };
  std::vector<Numbered> numbered_;  // by partition
  Numbered& numbered_of(const log::Appender& of) { return numbered_[of.partition().partition.value()]; }
  // By partition: the last transaction that has records there, by ProducerShare::transaction.
  std::vector<std::uint64_t> enlisted_;

  std::uint32_t claims_ = 0;  // the number of the last one
  log::Appender* open_appender_ = nullptr;
  log::Appender::Open open_;

  SendError last_error_ = SendError::closed;
  const log::Appender* last_appender_ = nullptr;
  bool has_error_ = false;
};

}  // namespace ringtail
