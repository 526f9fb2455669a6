// The state of the cluster, built from keys and values as they come from the store.
//
// Thread safety: none. A value that cannot be read is left out, and said once for each value.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "replication/coordinator.h"

namespace ringtail::replication {

class StateBuilder {
 public:
  // Forgets everything but what was said of malformed values, and the gaps.
  void clear();
  // What comes is not known to follow on what came before.
  void note_gap() { ++state_.gaps; }
  // Keys are without the cluster's prefix. One that is none of ours is passed over.
  void put(std::string_view key, std::string_view value, std::int64_t revision);
  void remove(std::string_view key);
  void set_revision(std::int64_t revision) { state_.revision = revision; }

  const ClusterState& current() const { return state_; }
  std::shared_ptr<const ClusterState> snapshot() const {
    return std::make_shared<const ClusterState>(state_);
  }

 private:
  Status read(std::string_view key, std::string_view value, std::int64_t revision);

  ClusterState state_;
  std::map<std::string, std::int64_t, std::less<>> said_;  // revisions of malformed values, by key
};

}  // namespace ringtail::replication
