// What the producers that were made of one another (Producer::for_topic) have in common: a liveness slot,
// a clock, and the transactional id with its transaction.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "client/log_core.h"
#include "log/appender.h"
#include "ringtail/producer.h"
#include "shm/slots.h"

namespace ringtail {

class ProducerCore;

// Where the numbers of a transactional id's records stand in a partition.
struct Numbering {
  std::uint64_t next = 0;
  // Of the last transaction that has records there, unless it was aborted (0): what it began with. From there on only
  // its records count.
  std::uint64_t first = 0;
  std::uint32_t transaction = 0;
  bool unknown = false;  // nobody could tell what became of the last append
};

// Thread safety: one thread at a time, for all of its producers together. Lifetime: of the last of them,
// whose end aborts the transaction that is still open.
class ProducerShare {
 public:
  // Takes a slot, and the transactional id if there is one; blocks until what its last holder left open is
  // aborted. Errors: limit_exceeded, invalid_argument, no_keeper, timed_out, fenced (another has taken the id
  // meanwhile).
  static Result<std::shared_ptr<ProducerShare>> open(std::shared_ptr<LogCore> log,
                                                     const ProducerOptions& options);
  ProducerShare(const ProducerShare&) = delete;
  ProducerShare& operator=(const ProducerShare&) = delete;
  ~ProducerShare();

  shm::OwnedSlot& slot() { return slot_; }
  WallClock& clock() { return clock_; }

  // --- Producers ---

  void add(ProducerCore* producer) { producers_.push_back(producer); }
  void remove(const ProducerCore* producer) { std::erase(producers_, producer); }
  bool writes_to(std::uint64_t topic_id) const;
  // A slot has one operation under way, so there is one open claim over all producers.
  bool is_claim_open() const { return claimer_ != nullptr; }
  // Null: nobody's claim is open. The other producers choose their path anew; the claimer does itself.
  void set_claimer(ProducerCore* claimer) {
    claimer_ = claimer;
    if (producers_.size() > 1) [[unlikely]]
      tell_producers();
  }

  // --- Transactions ---

  bool has_id() const { return id_ != nullptr; }
  // What the records of all topics carry. Only with an id.
  const log::Stamp& stamp() const { return stamp_; }
  // The transaction that is open, by a number that never recurs; 0: none.
  std::uint64_t transaction() const { return in_transaction_ ? begun_ : 0; }
  Status begin();
  // Before the first append of a transaction to a partition, by its entry. Where the partition has had no transaction
  // yet, or since the boot, it waits for the keeper, at most max_block. Errors: timed_out, storage_failed.
  std::optional<SendError> enlist(std::uint32_t index);
  Status add_offsets(std::span<const OffsetCommit> offsets, const GroupMetadata& group);
  // The transaction that is open can only be aborted from here on. `why` must stay.
  void forbid_commit(const char* why) { must_abort_ = why; }
  Status commit();
  Status abort();
  Error fenced_error() const;
  // A producer for a partition numbers its records on from where the one before has ended.
  Numbering& numbering(const log::PartitionRef& of) {
    return numberings_[{of.topic_id, of.partition.value()}];
  }

 private:
  ProducerShare(std::shared_ptr<LogCore> log, const ProducerOptions& options);

  void tell_producers();
  bool is_mine() const { return log_->is_mine(); }
  Status take_id(bool durable);
  Status check_transaction() const;
  bool is_ending(std::uint64_t word) const;
  Status wait_ended(std::uint32_t number);
  Status add_offset(const OffsetCommit& offset, std::uint32_t group, const GroupMetadata& member);

  std::shared_ptr<LogCore> log_;
  std::string name_;  // the transactional id
  std::chrono::milliseconds timeout_;
  std::chrono::milliseconds max_block_;
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::vector<ProducerCore*> producers_;
  ProducerCore* claimer_ = nullptr;

  log::Stamp stamp_;
  shm::TransactionalId* id_ = nullptr;
  std::uint32_t id_index_ = 0;
  std::uint64_t word_ = 0;   // what id_->word is while the id is theirs
  std::uint64_t begun_ = 0;  // transactions so far
  bool in_transaction_ = false;
  // Why the transaction that is open can only be aborted, if so.
  const char* must_abort_ = nullptr;
  // By topic and partition, of producers that have ended.
  std::map<std::pair<std::uint64_t, std::uint32_t>, Numbering> numberings_;
};

}  // namespace ringtail
