// Takes snapshots of a log: from Admin, and of the control segment what Admin does not tell.
#pragma once

#include "monitor/snapshot.h"

namespace ringtail::monitor {

// Thread safety: all members from any thread. Process safety: reads only.
class Collector {
 public:
  explicit Collector(Log log) : log_(std::move(log)) {}

  // Topics and groups that go meanwhile are left out. Blocks on the disk, and where a topic is new until the
  // keeper has opened it. Errors: those of Admin::list_topics.
  Result<Snapshot> collect() const;

  // Who keeps the log. Does not wait for anybody.
  KeeperSnapshot keeper() const;

 private:
  Log log_;
};

}  // namespace ringtail::monitor
