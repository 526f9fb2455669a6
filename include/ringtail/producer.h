// Appending to a topic.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ringtail/consumer.h"
#include "ringtail/error.h"
#include "ringtail/log.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail {

// When `send` returns.
enum class Acks {
  none,    // 0: after the commit to the ring; a refused record is reported by the next call
  leader,  // 1: after the commit to the ring: the record survives the death of any process
  all,     // all: after the high watermark has passed the record
};

// Chooses the partition of a record: key (data() == nullptr: none) and partition count -> number
// below the count. Called on the sending thread.
using Partitioner = std::function<std::uint32_t(std::string_view key, std::uint32_t partitions)>;

struct ProducerOptions {
  std::string topic = {};
  Acks acks = Acks::leader;
  bool durable = false;          // also wait until this host has synced the record; in a transaction, the
                                 // commit waits, once for all
  Partitioner partitioner = {};  // default: XXH3 of the key modulo partitions; round-robin without key
  // Bound of every wait: for space, durability, replicas, the transactional_id, and the note of a partition's first
  // transaction.
  std::chrono::milliseconds max_block{60'000};
  // Numbers the records of each partition, so that a repeated send of the same number is no second record
  // (ProducerRecord::sequence).
  bool enable_idempotence = false;
  // With enable_idempotence: whose numbers these are; not 0 or ~0. Processes that share an id are one producer, one
  // after another: a process that begins again, or a standby on the next leader's host, goes on behind the last
  // number that the partition has of the id, and repeats a send whose outcome was unknown under its number. What
  // the last 64 MiB or so of a partition have is known to whoever opens one, and to who has it open, all that came
  // since, as far as retention has left it; where there is nothing of the id, the first number sent is taken as it is
  // given. Only one of them may send at a time. 0: an id of its own.
  std::uint64_t producer_id = 0;
  // Makes transactions possible, and numbers records as above. At most 255 bytes. Only one producer holds an
  // id: whoever opens it anew aborts what the one before left open, and fences that. Not for a cluster's topics.
  std::string transactional_id = {};
  std::chrono::milliseconds transaction_timeout{60'000};  // an older one is aborted: readers wait no longer
  // Has the topic's partitions for itself while it is open: sends of all others are refused (held_exclusively). An
  // append is then a few plain stores instead of two locked instructions: for the one writer of a feed. `open` waits
  // until it has them, some milliseconds, and sends wait where they have to be given to it anew: when a ring is
  // replaced, or when this host leads again. A producer that dies gives them back as one that closes does;
  // claim.timeout.ms is not for it, since it keeps nobody waiting. Not with a transactional_id.
  bool exclusive = false;
};

// Why an operation on the hot path did not happen. Producer::error() has the sentence.
enum class SendError : std::uint8_t {
  would_block,          // the ring is full and on.full=fail: nothing was appended
  timed_out,            // no space within max_block, no keeper to note the first transaction in the
                        // partition, or a new partition that is not open by then: nothing was appended;
                        // or not durable or replicated in time: it was appended, and may still be replicated;
                        // or claim.timeout.ms had passed at the commit, and no keeper came to say whether the
                        // record was kept
  record_too_large,     // over max.message.bytes, or a batch over a term's eighth
  invalid_record,       // partition out of range, header malformed, empty batch, or one whose sequences
                        // are not consecutive
  claim_expired,        // given up after claim.timeout.ms: nothing was appended
  not_enough_replicas,  // acks=all, and fewer replicas are in sync than min.insync.replicas: nothing was
                        // appended
  not_leader,           // another host leads the partition, or none does now: nothing was appended
  lost_leadership,      // this host ceased to lead before all replicas (acks=all) or its disk (durable) had
                        // it, or it is not known to have stayed in the log since. The next leader has it or
                        // not: send it there again, with the same sequence
  storage_failed,       // the partition refuses writes after a failed write or sync
  claim_open,           // a claim of this producer, or of one for another topic (for_topic), is still open
  no_transaction,       // a producer with a transactional id sends within transactions only: begin one
  fenced,            // another producer with the same id has taken over, or its transaction was ended for it:
                     // nothing was appended
  held_exclusively,  // another producer has the partition for itself (ProducerOptions::exclusive): nothing was
                     // appended
  out_of_order_sequence,  // the record's sequence leaves a gap behind the last one, or is too old to be
                          // remembered, or only some of a batch's were sent before: nothing was appended
  corrupt,  // the ring's words in shared memory are impossible, another process wrote over them: nothing was
            // appended
  closed,   // topic deleted, producer closed, or used in a forked child
};

std::string_view to_string(SendError error);

template <class T>
using SendResult = std::expected<T, SendError>;

class ProducerCore;  // internal

// A claimed, not yet committed record: the caller writes the value in place, in the ring.
// Commit it soon: readers of the partition wait for it, and after the topic's claim.timeout.ms it
// is given up. A claim that is destroyed is aborted. At most one per producer at a time; it must
// not outlive its producer.
class Claim {
 public:
  Claim() = default;
  Claim(Claim&& other) noexcept
      : producer_(other.producer_), value_(other.value_), bytes_(other.bytes_), number_(other.number_) {
    other.producer_ = nullptr;
  }
  Claim& operator=(Claim&& other) noexcept;
  ~Claim() { abort(); }

  // Where the value goes; exactly as long as was claimed. Not zeroed before first use of the ring
  // only: assume nothing about its content.
  std::span<std::byte> value() const { return {value_, bytes_}; }

  // Makes the record visible. Lock-free, but for a claim that is being given up: then it waits for the keeper.
  // Errors: claim_expired (nothing was appended), timed_out (no keeper says whether it was, within max_block), closed
  // (the claim has ended: by commit or abort, or by Producer::abort).
  // With `durable` or Acks::all it waits as send does, with its errors. Where records are numbered, one whose outcome
  // is unknown is repeated by a send with its number; see try_claim.
  SendResult<RecordMetadata> commit();

  // Gives the claim up: readers skip it, its offset stays unused. Lock-free.
  void abort();

 private:
  friend class ProducerCore;
  Claim(ProducerCore* producer, std::uint32_t number, std::byte* value, std::uint32_t bytes)
      : producer_(producer), value_(value), bytes_(bytes), number_(number) {}

  ProducerCore* producer_ = nullptr;
  std::byte* value_ = nullptr;
  std::uint32_t bytes_ = 0;
  std::uint32_t number_ = 0;  // its producer's claims, counted: one that has ended ends no other
};

// Appends records to one topic.
//
// Transactions (with a transactional id): begin, send any number of records, also to other topics (for_topic),
// add positions of a consumer group, then commit or abort. Consumers with IsolationLevel::read_committed see
// all of it or nothing, and the group's positions move exactly if it commits; also when the process dies at
// any point, when its transaction is then aborted or, if it was decided, completed by others. With `durable`
// that holds when the host crashes, too, at the price of two syncs a commit; without, a crash of the host may
// cut off the end of what was committed, in each partition elsewhere, but never keeps a position whose records
// are lost. In a memory topic that a reader of committed records holds (on.full=block or fail), a transaction
// and all that is appended beside it must fit into the ring: when that is full, sends wait (block) or are
// refused (fail) until the transaction ends.
//
// Thread safety: one thread at a time; open one producer per thread, they are cheap (one liveness
// slot each). Process safety: any number of producers in any number of processes append to the same
// partition. Crash safety: the death of the process at any instruction loses no record whose send
// returned, and leaves no partial record.
//
// Progress: an append is wait-free within a term and lock-free across terms (lock-free throughout in
// topics with message.timestamp.type=LogAppendTime), except where the topic asks for waiting
// (on.full=block with a full ring; acks=all; durable).
class Producer {
 public:
  // With a producer_id it reads the end of each partition. Waits while a ring is replaced, for an exclusive producer's
  // partitions, and until what the last holder of a transactional_id left open is aborted, at most max_block each time.
  // Errors: not_found, limit_exceeded (all slots taken), closed, no_keeper, held_exclusively, timed_out, unsupported,
  // invalid_argument, with a transactional_id fenced (another has taken it while this one was opened), and with a
  // producer_id those of reading.
  static Result<Producer> open(const Log& log, ProducerOptions options);

  // Another producer, of another topic, with the same options, that shares this one's liveness slot, and its
  // transactional id: transactions span the topics. begin, add_offsets, commit and abort of either are those
  // of both; the last one alive aborts what is open. Both are for the same thread, one claim may be open over
  // all of them, and neither has to outlive the other. Without a transactional id each numbers for itself.
  // Errors: not_found, closed, unsupported, invalid_argument (with a transactional id: a topic that has its
  // producer already).
  Result<Producer> for_topic(std::string topic) const;

  Producer(Producer&&) noexcept;
  Producer& operator=(Producer&&) noexcept;
  ~Producer();

  // Appends one record. Durable on return only if `durable` was asked for.
  SendResult<RecordMetadata> send(const ProducerRecord& record);
  SendResult<RecordMetadata> send(std::string_view value) { return send(ProducerRecord{.value = value}); }

  // Appends all records to `partition` with one claim and one commit: readers see all of them or
  // none, next to each other. Returns the metadata of the last one. At most 4096 records and an
  // eighth of a term; their own `partition` fields are ignored.
  // Of a producer that numbers its records, those of a batch have consecutive numbers, as if each were sent: from the
  // one to come next on, or as ProducerRecord::sequence says, of the first or of any that gives one. A batch all of
  // whose numbers were sent before, and are remembered, gives the metadata of then and appends nothing; of more than
  // 1024, the last 1024 have to be. One of which only some were (where another host led meanwhile, a log may have got
  // its first records only) is refused with out_of_order_sequence: next_sequence tells where to go on.
  SendResult<RecordMetadata> send_batch(PartitionId partition, std::span<const ProducerRecord> records);

  // Claims space for a value of `value_bytes` bytes to be written in place. It cannot be told a number: where records
  // are numbered it has the one that next_sequence tells before, and counts as sent under it once it is committed; that
  // of an aborted one goes to the next record.
  SendResult<Claim> try_claim(std::size_t value_bytes, std::string_view key = {},
                              std::optional<PartitionId> partition = {});

  // Waits on a futex until the record is synced on this host. Where another leadership has begun since, it tells the
  // record from what may have come to stand in its place by the list of leaderships, which it reads from a file.
  // With acks=none it first tells why a record was refused, once: that is true of flush, too.
  // Errors: timed_out, storage_failed, lost_leadership, closed, unsupported (storage=memory, as invalid_record).
  SendResult<void> wait_durable(const RecordMetadata& record);
  // The same for everything this producer has sent. lost_leadership is told once: from then on it is about what is sent
  // later.
  SendResult<void> flush();

  // Begins a transaction. Lock-free, unless the end of the one before is still to come, because commit or abort
  // ended with timed_out: that is waited for, at most max_block. Errors: invalid_argument (no transactional id, or
  // one is open), fenced, timed_out and no_keeper (that end has not come: nothing is begun; try again).
  Status begin();
  // Adds positions of the group whose member `group` is: they move when this transaction commits. Call it
  // with the offset behind the last record that this transaction's records were made of. Lock-free.
  // Who counts is who owns the partition now: the id of the member is looked at, the generation is not. So a member
  // that lost a partition and was given it again must not add what it had read before: RebalanceListener::lost tells.
  // Errors: stale_generation (the partition is not that member's any more: abort), fenced, not_found,
  // invalid_argument (no transaction is open, or a position has metadata, which is kept by a consumer's commits only).
  Status add_offsets(std::span<const OffsetCommit> offsets, const GroupMetadata& group);
  // Waits until records and positions are visible; with `durable`, until that is beyond the reach of a crash.
  // Errors: fenced (another producer has the id, or the transaction was aborted by its timeout or because
  // its consumer lost a partition: nothing of it counts), timed_out (it is decided, and will be completed),
  // invalid_argument (no transaction, an open claim, or add_offsets has failed, or acks=none has
  // hidden that a record was refused), no_keeper.
  Status commit();
  // Undoes it. Waits until that is visible. The numbers of what it has sent come once more: what is sent again under
  // them is appended. Errors: fenced, timed_out, invalid_argument, no_keeper.
  Status abort();

  // Of producers that number their records: the next number in a partition. On a replicated topic the log is asked
  // when another epoch has begun since: it may have lost records, or have some of another that shares producer_id.
  // Where it cannot be read, or another host leads, the number is the one known so far. Blocks while it is read.
  std::uint64_t next_sequence(PartitionId partition) const;

  // The partition that `send` would choose for a record with this key.
  PartitionId partition_for(std::string_view key);
  std::uint32_t partitions() const;  // rises with those of the topic, at a send

  // The last failure of this producer, as a sentence with its remedy. Allocates.
  Error error() const;

 private:
  explicit Producer(std::unique_ptr<ProducerCore> core);
  std::unique_ptr<ProducerCore> core_;
};

}  // namespace ringtail
