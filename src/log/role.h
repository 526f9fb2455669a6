// What the replicator asks of the keeper for one partition: to be led here, to follow another host, or neither.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "log/epoch_list.h"
#include "log/partition_ref.h"
#include "log/replica_writer.h"
#include "ringtail/error.h"

namespace ringtail::log {

// How a change of role came out. Plain values; `writer` while following.
struct RoleOutcome {
  PartitionRef partition;
  LogPoint end;
  EpochList epochs;
  std::shared_ptr<ReplicaWriter> writer;
};

struct RoleRequest {
  shm::ReplicaRole role = shm::ReplicaRole::fenced;  // anything but alone
  LeaderEpoch epoch{0};
  std::uint32_t leader_node = 0;  // 0: nobody leads
  // Of a leader: its lease's end, CLOCK_BOOTTIME. It fences itself then.
  std::int64_t lease_deadline_ns = 0;
  // Of a follower: the leader's list of epochs; where this log is to be cut off; or, with `restart`, where it
  // is to begin anew, without anything that is here.
  EpochList epochs = {};
  std::optional<LogPoint> cut = {};
  bool restart = false;
  // Called on the keeper's thread. Errors: fenced (another request took its place), storage_failed, corrupt,
  // not_found, and what opening a partition's files may come to.
  std::function<void(Result<RoleOutcome>)> done = {};
};

}  // namespace ringtail::log
