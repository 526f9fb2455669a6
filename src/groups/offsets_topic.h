// The internal topic in which positions outlive the machine: one record for each group, topic and partition,
// the latest counts. Keys and values are JSON, so that `ringtail consume __consumer_offsets` can be read.
//
//   {"group":"g","topic":"t","partition":0}  ->  {"offset":42,"topic_id":"<16 digits>","metadata":"",
//                                                 "committed_ns":1763740800000000000}
//   a null value: the position was deleted
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "log/appender.h"
#include "log/attachment.h"

namespace ringtail::groups {

inline constexpr std::string_view kOffsetsTopic = "__consumer_offsets";

struct StoredOffset {
  std::string group;
  std::string topic;
  std::uint64_t topic_id = 0;
  PartitionId partition{0};
  std::optional<std::uint64_t> offset;  // none: deleted
  std::string metadata;
  std::int64_t committed_ns = 0;
};

// Thread safety: one thread at a time. Process safety: only the coordinator appends.
class OffsetsTopic {
 public:
  // The attachment must outlive it.
  explicit OffsetsTopic(log::Attachment& attachment) : attachment_(attachment) {}

  // Hands every record that there is to `take`, in order; none when there is no such topic. Blocks.
  // A record that cannot be understood is reported and passed over. Errors: those of reading.
  Status restore(const std::function<void(const StoredOffset&)>& take);

  // Appends, without waiting for the disk or for space; makes the topic when it is missing.
  // Returns the position behind the last one. Errors: timed_out (no space now: try again), and why
  // the topic cannot be written.
  Result<Position> append(std::span<const StoredOffset> offsets);

  // How far the topic is on disk, and what changes with it. Requires an append before.
  Position durable() const;
  const shm::Shared<std::uint32_t>& durable_futex() const;
  // Why the topic cannot be written any more, if so.
  std::optional<Error> failure() const;
  // Has the keeper sync what was appended, and wake the futex then.
  void request_sync() const;

 private:
  Status open();

  log::Attachment& attachment_;
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::optional<log::Appender> appender_;
};

}  // namespace ringtail::groups
