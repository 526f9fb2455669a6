#include "monitor/history.h"

#include <algorithm>

namespace ringtail::monitor {
namespace {

Rate rate_of(const TopicSnapshot& before, const TopicSnapshot& now, double seconds) {
  Rate rate;
  for (std::size_t p = 0; p < std::min(before.partitions.size(), now.partitions.size()); ++p) {
    const PartitionDescription& was = before.partitions[p].is;
    const PartitionDescription& is = now.partitions[p].is;
    // A topic of the same name that was made anew begins at zero again.
    if (is.log_end_offset > was.log_end_offset)
      rate.records_per_s += static_cast<double>(is.log_end_offset - was.log_end_offset) / seconds;
    if (is.log_end_position > was.log_end_position)
      rate.bytes_per_s += static_cast<double>(is.log_end_position - was.log_end_position) / seconds;
  }
  return rate;
}

HistoryPoint point_between(const Snapshot& before, const Snapshot& now) {
  HistoryPoint point;
  point.wall_ns = now.wall_ns;
  const double seconds = std::max(static_cast<double>(now.taken_ns - before.taken_ns) / 1e9, 1e-3);
  for (const TopicSnapshot& topic : now.topics) {
    const auto was = std::ranges::find(before.topics, topic.name, &TopicSnapshot::name);
    if (was == before.topics.end()) continue;
    const Rate rate = rate_of(*was, topic, seconds);
    point.all.records_per_s += rate.records_per_s;
    point.all.bytes_per_s += rate.bytes_per_s;
    point.topics.emplace(topic.name, rate);
  }
  const Latencies writes = now.writes - before.writes;
  const Latencies syncs = now.syncs - before.syncs;
  point.write_p50 = writes.percentile(50);
  point.write_p99 = writes.percentile(99);
  point.sync_p50 = syncs.percentile(50);
  point.sync_p99 = syncs.percentile(99);
  return point;
}

}  // namespace

void History::add(const Snapshot& snapshot) {
  const std::lock_guard lock(mutex_);
  if (before_) points_.push_back(point_between(*before_, snapshot));
  if (points_.size() > kPoints) points_.pop_front();
  before_ = snapshot;
}

std::vector<HistoryPoint> History::points() const {
  const std::lock_guard lock(mutex_);
  return {points_.begin(), points_.end()};
}

}  // namespace ringtail::monitor
