#include "monitor/totals.h"

namespace ringtail::monitor {

void Totals::Sum::add(std::uint64_t now) {
  if (seen && now > *seen) total += now - *seen;
  seen = now;
}

void Totals::add(Snapshot& snapshot) {
  decltype(sums_) sums;
  if (snapshot.unreadable_topics > 0) sums = sums_;  // of what is not shown now
  for (TopicSnapshot& topic : snapshot.topics) {
    for (PartitionSnapshot& p : topic.partitions) {
      const std::pair key(topic.topic_id, p.is.partition);
      const auto known = sums_.find(key);
      Sums& sum = sums[key];
      sum = {};
      if (known != sums_.end())
        sum = known->second;
      else if (complete_)  // it is new, and all that it holds has come since
        sum = {.records = {.seen = p.is.log_start_offset.value()},
               .bytes = {.seen = p.is.log_start_position.value()}};
      // While a ring cannot be opened, nobody knows how far the log goes, only how far it is durable.
      if (p.is.ring_bytes != 0) {
        sum.records.add(p.is.log_end_offset.value());
        sum.bytes.add(p.is.log_end_position.value());
      }
      p.records_total = sum.records.total;
      p.bytes_total = sum.bytes.total;
    }
  }
  sums_ = std::move(sums);
  complete_ = snapshot.unreadable_topics == 0;
}

}  // namespace ringtail::monitor
