// Processing records that may fail: again a few times, and then aside into a dead-letter topic.
//
//   auto retrier = Retrier::open(log, {.group = "billing"});
//   auto records = consumer.poll(timeout);
//   if (!records) return;
//   for (const Record& record : *records) {
//     auto outcome = retrier->process(record, [](const Record& r) -> Status { return charge(r); });
//     if (!outcome) break;  // neither processed nor set aside: do not commit this record
//   }
//
// A retry blocks the partition: nothing behind the record is processed before its outcome is known, so the
// order of a key's records is kept. All attempts and delays of a record together must therefore stay well
// below `ConsumerOptions::max_poll_interval`; the defaults add up to 1.5 s of delays at the most.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "ringtail/error.h"
#include "ringtail/log.h"
#include "ringtail/producer.h"
#include "ringtail/record.h"

namespace ringtail {

// When and how often a record is tried again.
struct RetryPolicy {
  std::uint32_t max_attempts = 5;                // the first one counts; at least 1
  std::chrono::milliseconds initial_delay{100};  // before the second attempt
  double multiplier = 2.0;                       // of the delay, from attempt to attempt; at least 1
  std::chrono::milliseconds max_delay{1'000};
  // Each delay is made shorter by a random part of it, up to this one, so that those who failed together do
  // not come back together. 0 to 1.
  double jitter = 0.2;
  // Which failures are worth another attempt; the others end it at once. Default: all.
  std::function<bool(const Error&)> is_retryable = {};
};

// Waits; false when it was asked to stop meanwhile.
using RetrySleep = std::function<bool(std::chrono::nanoseconds, const std::stop_token&)>;

struct RetryOptions {
  RetryPolicy policy = {};
  // Where records go that are given up. Default: the source's name and ".DLT". One topic for all sources
  // may be named.
  std::string dead_letter_topic = {};
  // Makes that topic when it is missing, with as many partitions as the source; otherwise it must exist
  // when the first record is given up.
  bool create_dead_letter_topic = false;
  bool durable = true;        // a dead letter is synced on this host before the record counts as set aside
  std::string group = {};     // noted in dead letters
  std::stop_token stop = {};  // ends delays and further attempts
  RetrySleep sleep = {};      // default: waits in real time
};

// Names of the headers of dead letters; those of Spring Kafka's DeadLetterPublishingRecoverer
// (org.springframework.kafka.support.KafkaHeaders), so that what knows these knows ours. All values are
// text: numbers are decimal, where Spring writes them as big-endian bytes. A dead letter keeps the record's
// own headers ahead of these; one that fails again has them twice, the latest last.
namespace dead_letter {
inline constexpr std::string_view kOriginalTopic = "kafka_dlt-original-topic";
inline constexpr std::string_view kOriginalPartition = "kafka_dlt-original-partition";
inline constexpr std::string_view kOriginalOffset = "kafka_dlt-original-offset";
inline constexpr std::string_view kOriginalTimestamp = "kafka_dlt-original-timestamp";  // ns since the epoch
inline constexpr std::string_view kOriginalGroup = "kafka_dlt-original-consumer-group";
// What kind of failure: the name of an error's code ("timed_out"), or an exception's type.
inline constexpr std::string_view kExceptionClass = "kafka_dlt-exception-fqcn";
inline constexpr std::string_view kExceptionMessage = "kafka_dlt-exception-message";  // its first 1,000 bytes
inline constexpr std::string_view kAttempts = "kafka_deliveryAttempt";
}  // namespace dead_letter

// What became of a record.
struct Processed {
  std::uint32_t attempts = 1;
  // Where the record was set aside, and why; neither when it was processed.
  std::optional<RecordMetadata> dead_letter = {};
  std::optional<Error> cause = {};
};

class RetrierCore;  // internal

// Runs a processing function until it succeeds or the policy gives up. Works with the records of any
// Consumer.
//
// Thread safety: one thread at a time. Process safety: as Producer's. At least once: a process that dies
// between a dead letter and the commit of its record processes it again.
class Retrier {
 public:
  using Process = std::function<Status(const Record&)>;

  // Errors: invalid_argument (policy).
  static Result<Retrier> open(const Log& log, RetryOptions options = {});

  Retrier(Retrier&&) noexcept;
  Retrier& operator=(Retrier&&) noexcept;
  ~Retrier();

  // Blocks for attempts, delays and the dead letter. An exception out of `process` is a failure like an
  // Error, with its what(). Once it returns a value, the record is dealt with and may be committed. Key,
  // value, timestamp and headers of a dead letter are the record's; its partition is the source's where the
  // dead-letter topic has that many, otherwise the key's. (LogAppendTime in that topic replaces the
  // timestamp; the original one is in the headers.)
  //
  // Errors, upon which the record must not be committed: closed (asked to stop before it was processed),
  // and why the dead letter could not be sent (not_found, limit_exceeded, timed_out, ...), with the cause
  // of giving up behind it.
  Result<Processed> process(const Record& record, const Process& process);

 private:
  explicit Retrier(std::unique_ptr<RetrierCore> core);
  std::unique_ptr<RetrierCore> core_;
};

}  // namespace ringtail
