// Names one partition of an attached log: where its words, its ring and its files are.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "ringtail/types.h"
#include "shm/control.h"

namespace ringtail::log {

// A plain value. `control` must outlive it.
struct PartitionRef {
  const shm::Control* control = nullptr;
  std::uint32_t index = 0;  // of the partition's entry in the control segment
  std::uint64_t topic_id = 0;
  std::array<std::uint64_t, 2> log_id{};
  std::string topic;
  PartitionId partition{0};
  std::filesystem::path shm_dir;
  std::filesystem::path disk_dir;

  shm::Partition& entry() const { return control->partition(index); }
  // Whether the entry still belongs to this partition.
  bool is_current() const {
    const auto state = static_cast<shm::PartitionState>(entry().state.load(std::memory_order_acquire));
    // SYNC: pairs with the keeper's release store of state; topic_id is set before it.
    return entry().topic_id.load(std::memory_order_relaxed) == topic_id &&
           (state == shm::PartitionState::active || state == shm::PartitionState::failed);
  }
  // Of the leadership under which its log grows, on this host or another; 0: it is not replicated.
  LeaderEpoch epoch() const {
    // SYNC: role before epoch, which publish_role stores in the reverse order: who sees a leadership sees no older epoch.
    const auto role = static_cast<shm::ReplicaRole>(entry().role.load(std::memory_order_acquire));
    const LeaderEpoch epoch(entry().leader_epoch.load(std::memory_order_acquire));
    return role == shm::ReplicaRole::alone ? LeaderEpoch(0) : epoch;
  }
};

}  // namespace ringtail::log
