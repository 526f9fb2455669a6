// Reading from topics.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"
#include "ringtail/log.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail {

// How poll waits for records.
enum class WaitStrategy {
  busy_spin,  // lowest latency, one CPU
  yield,      // spins and yields the CPU between looks
  futex,      // sleeps; producers pay a wake call only while somebody sleeps
};

struct ConsumerOptions {
  WaitStrategy wait = WaitStrategy::futex;
  std::size_t max_poll_records = 256;              // 1 to 65536
  std::size_t read_ahead_bytes = 4 * 1024 * 1024;  // per partition, when reading segment files
  // What to do when a position lies outside [log start, log end].
  enum class Reset { earliest, latest, none } auto_offset_reset = Reset::earliest;
};

// How far a consumer is behind the log end of one partition.
struct Lag {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  std::chrono::nanoseconds time{0};  // age of the oldest record not yet read; 0 when there is none
};

class ConsumerCore;  // internal

// Reads partitions of topics, at positions it keeps itself.
//
// Records come in place: from the ring while the consumer is within it, from the segment files
// while it is behind, with nothing lost or repeated at the change. A slow consumer never blocks a
// producer of a disk topic. Of a memory topic it does under on.full=block and fail; under overwrite
// it is passed, and `missed` counts what it lost.
//
// Thread safety: one thread at a time, but for wake(). Process safety: any number of consumers.
// poll is lock-free while records are in the ring.
class Consumer {
 public:
  // Errors: limit_exceeded (all slots taken), closed, invalid_argument.
  static Result<Consumer> open(const Log& log, ConsumerOptions options = {});

  Consumer(Consumer&&) noexcept;
  Consumer& operator=(Consumer&&) noexcept;
  ~Consumer();

  // Replaces the set of partitions. New ones start at the log start offset.
  // Errors: not_found, limit_exceeded (reader table, or more than 127 partitions).
  Status assign(std::span<const TopicPartition> partitions);
  // All partitions of one topic.
  Status assign(std::string_view topic);
  const std::vector<TopicPartition>& assignment() const;

  // Sets the offset of the next record. Errors: not_found (not assigned), offset_out_of_range
  // (only with Reset::none), corrupt, storage_failed.
  Status seek(const TopicPartition& partition, Offset offset);
  Status seek_to_beginning(const TopicPartition& partition);
  Status seek_to_end(const TopicPartition& partition);
  // To the first record with a timestamp of at least `timestamp_ns`, or the end when there is none.
  Status seek_to_time(const TopicPartition& partition, std::int64_t timestamp_ns);
  // The offset of the next record.
  Result<Offset> position(const TopicPartition& partition) const;

  // Returns the next records, all of one partition, in order; an empty span when `timeout` passed or
  // wake() was called. The records are valid until the next call of any non-const member.
  // Errors: corrupt, storage_failed, offset_out_of_range (only with Reset::none), closed.
  Result<std::span<const Record>> poll(std::chrono::nanoseconds timeout);

  // Makes a poll that waits, or the next one, return at once. From any thread or signal handler.
  void wake();

  Result<Lag> lag(const TopicPartition& partition) const;
  // Log end offset of the partition: the offset the next record will get.
  Result<Offset> end_offset(const TopicPartition& partition) const;
  // Records this consumer lost because an on.full=overwrite producer or retention passed it.
  std::uint64_t missed() const;

 private:
  explicit Consumer(std::unique_ptr<ConsumerCore> core);
  std::unique_ptr<ConsumerCore> core_;
};

}  // namespace ringtail
