// What has come to each partition: the ends of its log, as counters that do not fall. An end itself falls when
// a follower cuts off what its leader does not have: as a counter, it would have begun anew at zero, and all of
// it have come at once.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "monitor/snapshot.h"

namespace ringtail::monitor {

// Thread safety: none.
class Totals {
 public:
  // Fills in what is counted: of a partition that was not in the snapshot before, the ends of its log; then
  // every rise of them. A topic of the same name that was made anew begins anew. Snapshots must come in the
  // order in which they were taken.
  void add(Snapshot& snapshot);

 private:
  // Adds rises up. What has fallen rises from where it is.
  struct Sum {
    std::uint64_t seen = 0;
    std::uint64_t total = 0;

    void add(std::uint64_t now);
  };
  struct Sums {
    Sum records;
    Sum bytes;
  };

  std::map<std::pair<std::uint64_t, PartitionId>, Sums> sums_;  // by topic id and partition
};

}  // namespace ringtail::monitor
