// The position of a group in a partition, and the right to move it: one pair of words that changes as a
// whole. So a commit cannot come too late: who lost the partition a moment ago finds another tenure there.
//
// Thread and process safety: every function is lock-free, from any thread of any process.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ringtail/consumer.h"
#include "shm/control.h"

namespace ringtail::groups {

// What stands in an entry at one moment.
struct Standing {
  std::uint64_t committed = shm::kNoOffset;
  std::uint64_t tenure = 0;

  std::uint32_t owner() const { return shm::tenure_owner(tenure); }
  friend bool operator==(const Standing&, const Standing&) = default;
};

Standing load_standing(const shm::GroupPartition& entry);

// True when the entry stood as `seen` and now stands as `desired`; otherwise `seen` is what was found.
bool exchange_standing(shm::GroupPartition& entry, Standing& seen, Standing desired);

// Moves the position if `tenure` is still the one; `last` is the position last known, and is updated.
// False: the partition has another owner, or none.
bool move_position(shm::GroupPartition& entry, std::uint64_t tenure, std::uint64_t& last,
                   std::uint64_t offset);

// Gives the partition from whoever has it to `owner` (slot + 1), with a new tenure where that is somebody.
void change_owner(shm::GroupPartition& entry, std::uint32_t owner);

// Metadata of a commit. Written by the owner before the commit of `offset`; a reader gets it only while
// that is the position. What a death or a late writer left half written is no metadata.
void store_metadata(shm::GroupPartition& entry, std::uint64_t tenure, std::uint64_t offset,
                    std::string_view text);
std::string load_metadata(const shm::GroupPartition& entry, const Standing& standing);

// The group of that id, as it stands in the table.
std::optional<std::uint32_t> find_group(const shm::Control& control, std::string_view group_id);
// The group's entry for a partition.
std::optional<std::uint32_t> find_entry(const shm::Control& control, std::uint32_t group,
                                        std::uint64_t topic_id, PartitionId partition);
// What a group has committed in a partition; nothing when it has not.
std::optional<CommittedOffset> find_committed(const shm::Control& control, std::string_view group_id,
                                              std::uint64_t topic_id, PartitionId partition);

}  // namespace ringtail::groups
