#include "tools/replay_source.h"

#include <algorithm>

#include "tools/session.h"

namespace ringtail::tools {

Result<ReplaySource> ReplaySource::open(const Log& log, const TopicDescription& topic, TimeRange range,
                                        IsolationLevel isolation) {
  ReplaySource source(range, isolation);
  for (const PartitionDescription& partition : topic.partitions) {
    Result<Consumer> consumer = Consumer::open(log, {.isolation_level = isolation});
    if (!consumer) return std::unexpected(consumer.error());
    Lane lane{std::move(*consumer), {topic.name, partition.partition}, partition.log_end_offset};
    if (const Status done = lane.consumer.assign(std::span(&lane.id, 1)); !done) {
      return std::unexpected(done.error());
    }
    const Status sought = range.from_ns ? lane.consumer.seek_to_time(lane.id, *range.from_ns)
                                        : lane.consumer.seek_to_beginning(lane.id);
    if (!sought) return std::unexpected(sought.error());
    source.lanes_.push_back(std::move(lane));
  }
  return source;
}

Result<const Record*> ReplaySource::next() {
  if (played_ != nullptr) played_->records = played_->records.subspan(1);
  played_ = nullptr;
  for (Lane& lane : lanes_) {
    if (const Status filled = refill(lane); !filled) return std::unexpected(filled.error());
    if (lane.ended) continue;
    if (played_ == nullptr || lane.records.front().timestamp_ns < played_->records.front().timestamp_ns) {
      played_ = &lane;
    }
  }
  return played_ == nullptr ? nullptr : &played_->records.front();
}

// Makes the lane's first record the next one that is wanted, or finds that there is none.
Status ReplaySource::refill(Lane& lane) {
  while (!lane.ended) {
    while (!lane.records.empty() && lane.records.front().offset < lane.end) {
      if (wanted(lane.records.front())) return {};
      lane.records = lane.records.subspan(1);
    }
    const Result<Offset> position = lane.consumer.position(lane.id);
    if (!position) return std::unexpected(position.error());
    const Result<bool> at_end = is_at_end(lane, *position);
    if (!at_end) return std::unexpected(at_end.error());
    lane.ended = !lane.records.empty() || *at_end || interrupt::pending();
    if (lane.ended) break;
    const std::uint64_t missed = lane.consumer.missed();
    const Result<std::span<const Record>> records = lane.consumer.poll(std::chrono::milliseconds(100));
    if (!records) return std::unexpected(records.error());
    missed_ += std::min(lane.consumer.missed() - missed, lane.end - *position);
    lane.records = *records;
    lane.idle = records->empty();
  }
  return {};
}

// What stands behind an open transaction is not there yet for who reads committed records. To find out takes
// a walk to the log end, so it is asked only once a poll has brought nothing.
Result<bool> ReplaySource::is_at_end(const Lane& lane, Offset position) const {
  if (position >= lane.end) return true;
  if (isolation_ == IsolationLevel::read_uncommitted || !lane.idle) return false;
  const Result<Offset> stable = lane.consumer.last_stable_offset(lane.id);
  if (!stable) return std::unexpected(stable.error());
  return *stable <= position;
}

// Timestamps given by producers need not rise with the offsets, so each one is looked at.
bool ReplaySource::wanted(const Record& record) const {
  return (!range_.from_ns || record.timestamp_ns >= *range_.from_ns) &&
         (!range_.to_ns || record.timestamp_ns <= *range_.to_ns);
}

}  // namespace ringtail::tools
