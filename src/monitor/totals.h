// What has come to each partition since somebody began to look: the rises of its log's ends, as counters that do not
// fall. An end itself falls when a follower cuts off what its leader does not have: as a counter, it would have begun
// anew at zero, and all of it have come at once. Nor do they begin with the ends: whoever starts anew behind a cut would
// begin lower than his predecessor, with the same outcome.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "monitor/snapshot.h"

namespace ringtail::monitor {

// Thread safety: none.
class Totals {
 public:
  // Fills in what is counted: of a partition that was not in the snapshot before, what its log holds, but nothing where
  // there was no snapshot before, or one that lacked topics for they could not be read; then every rise of its ends. A topic of the same name that was made anew begins anew.
  // Snapshots must come in the order in which they were taken.
  void add(Snapshot& snapshot);

 private:
  // Adds rises up. What has fallen rises from where it is; what was not seen before does not rise.
  struct Sum {
    std::optional<std::uint64_t> seen;
    std::uint64_t total = 0;

    void add(std::uint64_t now);
  };
  struct Sums {
    Sum records;
    Sum bytes;
  };

  std::map<std::pair<std::uint64_t, PartitionId>, Sums> sums_;  // by topic id and partition
  bool complete_ = false;  // the last snapshot had every topic that there was
};

}  // namespace ringtail::monitor
