// The recorded log that `replay` plays: all partitions of a topic as one stream, by time.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "ringtail/ringtail.h"

namespace ringtail::tools {

struct TimeRange {
  std::optional<std::int64_t> from_ns;  // inclusive
  std::optional<std::int64_t> to_ns;    // inclusive
};

// Merges the partitions of a topic by timestamp; within a partition the order of offsets stays.
// Reads up to the log end offsets as they are when it is opened; with read_committed not past a transaction
// that is still open when it comes there.
// Thread safety: none. Lifetime: a record is valid until the next call of `next`.
class ReplaySource {
 public:
  // Errors: those of Consumer::open, assign and seek.
  static Result<ReplaySource> open(const Log& log, const TopicDescription& topic, TimeRange range,
                                   IsolationLevel isolation);

  // The next record, or null at the end. Blocks while it is read.
  Result<const Record*> next();

  // Of what was to be played, the records that were overwritten or deleted before they were read.
  std::uint64_t missed() const { return missed_; }

 private:
  // One partition. A consumer for each, for records stay valid only until their consumer polls again.
  struct Lane {
    Consumer consumer;
    TopicPartition id;
    Offset end;
    std::span<const Record> records = {};  // polled and not yet played
    bool idle = false;                     // the last poll brought nothing
    bool ended = false;
  };

  ReplaySource(TimeRange range, IsolationLevel isolation) : range_(range), isolation_(isolation) {}
  Status refill(Lane& lane);
  Result<bool> is_at_end(const Lane& lane, Offset position) const;
  bool wanted(const Record& record) const;

  TimeRange range_;
  IsolationLevel isolation_;
  std::vector<Lane> lanes_;
  Lane* played_ = nullptr;  // the lane whose first record was handed out
  std::uint64_t missed_ = 0;
};

}  // namespace ringtail::tools
