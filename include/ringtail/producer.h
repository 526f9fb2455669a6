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
  bool durable = false;          // also wait until this host has synced the record
  Partitioner partitioner = {};  // default: XXH3 of the key modulo partitions; round-robin without key
  std::chrono::milliseconds max_block{60'000};  // bound of every wait: space, durability, replicas
};

// Why an operation on the hot path did not happen. Producer::error() has the sentence.
enum class SendError : std::uint8_t {
  would_block,       // the ring is full and on.full=fail: nothing was appended
  timed_out,         // no space within max_block: nothing was appended;
                     // or not durable or replicated in time: the record was appended
  record_too_large,  // over max.message.bytes, or a batch over a term's eighth
  invalid_record,    // partition out of range, header malformed, empty batch
  claim_expired,     // given up after claim.timeout.ms: nothing was appended
  not_enough_replicas,
  storage_failed,  // the partition refuses writes after a failed write or sync
  claim_open,      // a claim of this producer is still open
  fenced,          // another producer with the same id has taken over, or its transaction was ended for it:
                   // nothing was appended
  out_of_order_sequence,  // the record's sequence leaves a gap behind the last one: nothing was appended
  closed,                 // topic deleted, producer closed, or used in a forked child
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
  Claim(Claim&& other) noexcept : producer_(other.producer_), value_(other.value_) {
    other.producer_ = nullptr;
  }
  Claim& operator=(Claim&& other) noexcept;
  ~Claim() { abort(); }

  // Where the value goes; exactly as long as was claimed. Not zeroed before first use of the ring
  // only: assume nothing about its content.
  std::span<std::byte> value() const { return value_; }

  // Makes the record visible. Lock-free. Errors: claim_expired; then nothing was appended.
  // With `durable` or Acks::all it waits as send does.
  SendResult<RecordMetadata> commit();

  // Gives the claim up: readers skip it, its offset stays unused. Lock-free.
  void abort();

 private:
  friend class ProducerCore;
  Claim(ProducerCore* producer, std::span<std::byte> value) : producer_(producer), value_(value) {}

  ProducerCore* producer_ = nullptr;
  std::span<std::byte> value_;
};

// Appends records to one topic.
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
  // Errors: not_found, limit_exceeded (all slots taken), closed, no_keeper, unsupported.
  static Result<Producer> open(const Log& log, ProducerOptions options);

  Producer(Producer&&) noexcept;
  Producer& operator=(Producer&&) noexcept;
  ~Producer();

  // Appends one record. Durable on return only if `durable` was asked for.
  SendResult<RecordMetadata> send(const ProducerRecord& record);
  SendResult<RecordMetadata> send(std::string_view value) { return send(ProducerRecord{.value = value}); }

  // Appends all records to `partition` with one claim and one commit: readers see all of them or
  // none, next to each other. Returns the metadata of the last one. At most 4096 records and an
  // eighth of a term; their own `partition` fields are ignored.
  SendResult<RecordMetadata> send_batch(PartitionId partition, std::span<const ProducerRecord> records);

  // Claims space for a value of `value_bytes` bytes to be written in place.
  SendResult<Claim> try_claim(std::size_t value_bytes, std::string_view key = {},
                              std::optional<PartitionId> partition = {});

  // Waits on a futex until the record is synced on this host.
  // Errors: timed_out, storage_failed, closed, unsupported (storage=memory, as invalid_record).
  SendResult<void> wait_durable(const RecordMetadata& record);
  // The same for everything this producer has sent.
  SendResult<void> flush();

  // The partition that `send` would choose for a record with this key.
  PartitionId partition_for(std::string_view key);
  std::uint32_t partitions() const;

  // The last failure of this producer, as a sentence with its remedy. Allocates.
  Error error() const;

 private:
  explicit Producer(std::unique_ptr<ProducerCore> core);
  std::unique_ptr<ProducerCore> core_;
};

}  // namespace ringtail
