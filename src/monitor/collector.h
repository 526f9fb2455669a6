// Takes snapshots of a log: from Admin, and of the control segment what Admin does not tell.
#pragma once

#include <mutex>
#include <utility>

#include "monitor/snapshot.h"
#include "monitor/totals.h"

namespace ringtail::monitor {

// Thread safety: all members from any thread. Process safety: reads only.
class Collector {
 public:
  explicit Collector(Log log) : log_(std::move(log)) {}

  // Topics and groups that go meanwhile are left out, and all groups until their positions have been restored. Blocks
  // on the disk, where the keeper has not noticed a topic yet until it has, and while another thread collects: totals
  // need the ends of partitions in the order of time. Errors: those of Admin::list_topics.
  Result<Snapshot> collect();

  // Who keeps the log. Does not wait for anybody.
  KeeperSnapshot keeper() const;

 private:
  Log log_;
  std::mutex mutex_;
  Totals totals_;
};

}  // namespace ringtail::monitor
