// What this host is to a partition that several hosts have, and word of when that changes.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "ringtail/error.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail {

struct PartitionRole {
  enum class Kind : std::uint32_t {
    alone,     // no other host has the partition; producers here append to it
    fenced,    // it is not decided who leads, or the host that led it has just ceased to
    follower,  // another host leads; what it appends can be read here
    leader,    // producers of this host append to it
  };
  Kind kind = Kind::alone;
  LeaderEpoch epoch{0};           // rises with each leader
  std::uint32_t leader_node = 0;  // the leader's id in the cluster; 0: none, or not known here

  friend bool operator==(const PartitionRole&, const PartitionRole&) = default;
};

class RoleWatchCore;  // internal

// Follows the role of one partition: a standby waits here for its host to lead.
//
// Thread safety: one thread at a time, but for wake(). Process safety: any number. Lifetime: keeps its Log attached.
class RoleWatch {
 public:
  RoleWatch(RoleWatch&&) noexcept;
  RoleWatch& operator=(RoleWatch&&) noexcept;
  ~RoleWatch();

  // The role as it is now; fenced in epoch 0 when the topic was deleted. Lock-free.
  PartitionRole role() const;
  // Waits on a futex until this host leads (or is alone). It is woken by the store that lets producers append.
  // Errors: timed_out (also after wake()), closed (the topic was deleted).
  Result<PartitionRole> wait_until_leader(std::chrono::nanoseconds timeout) const;
  // Waits until the role is another than `seen`. Errors: as above.
  Result<PartitionRole> wait_for_change(const PartitionRole& seen, std::chrono::nanoseconds timeout) const;
  // Ends a wait that is under way, or the next one. From any thread or signal handler.
  void wake() const;

 private:
  friend class Log;
  explicit RoleWatch(std::unique_ptr<RoleWatchCore> core);
  std::unique_ptr<RoleWatchCore> core_;
};

}  // namespace ringtail
