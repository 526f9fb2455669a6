// The latest minutes, a point for each time that a snapshot was taken: what rates and curves are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "monitor/snapshot.h"

namespace ringtail::monitor {

struct Rate {
  double records_per_s = 0;
  double bytes_per_s = 0;
};

// What came between a snapshot and the one before it.
struct HistoryPoint {
  std::int64_t wall_ns = 0;
  Rate all;
  std::map<std::string, Rate, std::less<>> topics;
  // In ns; nothing where there was no write or sync.
  std::optional<double> write_p50, write_p99, sync_p50, sync_p99;
};

// Thread safety: all members from any thread.
class History {
 public:
  static constexpr std::size_t kPoints = 180;

  // Snapshots must come in the order in which they were taken.
  void add(const Snapshot& snapshot);
  std::vector<HistoryPoint> points() const;  // the oldest first

 private:
  mutable std::mutex mutex_;
  std::optional<Snapshot> before_;
  std::deque<HistoryPoint> points_;
};

}  // namespace ringtail::monitor
