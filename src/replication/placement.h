// Which node is to hold and to lead what. Everything here is decided from a state alone and is alike on every
// node, so it does not matter which of them carries it out: whose commit comes second is told so.
//
// Thread and process safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "replication/coordinator.h"

namespace ringtail::replication {

// Replicas for so many new partitions, the preferred leader of each first, on nodes that are alive and not
// draining. Replicas of a partition are on as many racks as there are; then nodes get as many replicas, and as
// many partitions to lead, as each other, those they have already counted in. Nodes without a rack are one
// rack together.
// Errors: invalid_argument (factor 0), not_enough_replicas (fewer nodes than `factor`).
Result<std::vector<std::vector<NodeId>>> place_replicas(const ClusterState& state, std::uint32_t partitions,
                                                        std::uint32_t factor);

// Whether the partition is led: by a living node, in the incarnation in which it was elected.
bool is_led(const PartitionRecord& record, const ClusterState& state);

// Whether a replica in the ISR, be it alive or not, still has the life in which it is there. Once none has, none ever
// will: but for an unclean election, nobody leads the partition any more.
bool has_in_sync(const PartitionRecord& record, const ClusterState& state);

// The record with its next leader, if there is to be one: when the leader is gone, began anew, or is draining
// while another replica is not. It is the first of `replicas` that is alive, not draining, and in the ISR with
// the life it has now, and of a leader that is draining the next one behind it, and on from the front; then, if
// nobody leads, one that is draining. With `allow_unclean`, if nobody leads and none is in the ISR, it is the first
// that lives: `unclean`, and alone in the ISR.
// The ISR is left to the new leader to shrink; but who has begun another life has lost what it was in sync
// with, and goes.
std::optional<PartitionRecord> elect(const PartitionRecord& record, const ClusterState& state,
                                     bool allow_unclean);

// The partitions whose preferred leader could lead and does not, led by it. In the order of their names, at
// most `most` of them.
std::vector<PartitionRecord> move_to_preferred_leaders(const ClusterState& state, std::size_t most);

// Begins to move the partition to `target`, the preferred leader first: the new ones are added now, and
// step_reassignment does the rest. One that is under way is replaced; the old replicas as `target` cancel it.
// Errors: invalid_argument (no node, one twice, or one that is not registered).
Result<PartitionRecord> begin_reassignment(const PartitionRecord& record, const ClusterState& state,
                                           std::span<const NodeId> target);

// The next step of a reassignment, if it can be made: once the new replicas are in the ISR, the leadership
// goes to one that stays, and then the old ones go.
std::optional<PartitionRecord> step_reassignment(const PartitionRecord& record, const ClusterState& state);

}  // namespace ringtail::replication
