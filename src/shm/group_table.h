// Consumer groups in the control segment: groups, their members, and one entry for each partition that a
// group has to do with. src/groups is what works on it; here is the layout.
//
// Who writes what: a member writes its own request and its count of polls. The coordinator, a role that one
// process holds together with the keeper's, writes all else, but for the position of a partition, which its
// owner moves. Nothing here is a lock: a request is published by one store, an assignment by one store a
// partition, and a position changes together with the right to change it by one 16-byte compare-and-set.
// So a death between any two instructions leaves a state from which the coordinator, or its successor, goes on.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shm/shared_text.h"

namespace ringtail::shm {

inline constexpr std::uint32_t kMaxGroups = 128;
inline constexpr std::uint32_t kMaxGroupPartitions = 8192;  // of all groups together
inline constexpr std::size_t kMaxGroupIdBytes = 255;
inline constexpr std::size_t kMaxClientIdBytes = 127;
inline constexpr std::size_t kMaxSubscriptionBytes = 2047;  // names, or one expression, with separators
inline constexpr std::size_t kMaxOffsetMetadataBytes = 127;

// --- Members -------------------------------------------------------------------------------------

// What a member asks of the coordinator. Whoever has a slot may ask; only `join` makes a member.
enum class GroupRequest : std::uint32_t {
  none = 0,
  join = 1,  // become a member, or change the subscription
  leave = 2,
  prepare = 3,  // have entries for the topic named as subscription, in a group that exists
  remove = 4,   // delete the group
  forget = 5,   // delete the group's positions in the topic named as subscription
  take_id = 6,  // hold the transactional id named as group id, with the terms that the subscription says
                // ("<timeout_ms> <durable>"); the answer is its index
  enlist = 7,   // note on disk that the partition (number of its entry) has transactions, and end there what was
                // open before a reboot
};

enum class MemberStatus : std::uint32_t {
  none = 0,
  joined = 1,
  expelled = 2,  // did not poll for max.poll.interval.ms; may join again
};

// One per liveness slot, for the consumer that holds it.
struct alignas(128) Member {
  // By the coordinator.
  std::atomic<std::uint32_t> attention;     // futex: bumped when there is something for the member to do
  std::atomic<std::uint32_t> answered;      // futex: the last request that was dealt with
  std::atomic<std::uint32_t> status;        // MemberStatus
  std::atomic<std::uint32_t> group;         // index + 1; 0: none
  std::atomic<std::uint64_t> slot_word;     // of the slot, while this consumer holds it
  std::atomic<std::int64_t> joined_ns;      // wall clock
  std::atomic<std::int64_t> polled_ns;      // monotonic clock: when the coordinator last saw `polls` change
  std::atomic<std::uint32_t> commit_due;    // bumped every auto_commit_interval_ms
  std::atomic<std::uint32_t> assign_due;    // bumped when this member's assignor is to propose an assignment
  std::atomic<std::uint32_t> refusal_code;  // Code of the answer + 1; 0: granted
  std::atomic<std::uint32_t> reply;         // what take_id asked for

  // By the member.
  alignas(128) std::atomic<std::uint32_t> polls;    // bumped by each poll, and while one waits
  alignas(128) std::atomic<std::uint32_t> request;  // bumped once all below is stored
  std::atomic<std::uint32_t> kind;                  // GroupRequest
  std::atomic<std::uint64_t> asker;                 // the slot's word
  std::atomic<std::uint32_t> max_poll_interval_ms;
  std::atomic<std::uint32_t> auto_commit_interval_ms;  // 0: the member commits by itself
  std::atomic<std::uint32_t> by_pattern;               // the subscription is an expression, not names
  std::atomic<std::uint32_t> assigned;                 // assign_due for which the proposal is made
  SharedText<kMaxGroupIdBytes + 1> group_id;
  SharedText<kMaxClientIdBytes + 1> client_id;
  SharedText<64> assignor;
  SharedText<64> host;
  SharedText<kMaxSubscriptionBytes + 1> subscription;  // names, a line each

  SharedText<256> refusal;  // by the coordinator: why, as a sentence
};

// --- Groups --------------------------------------------------------------------------------------

enum class GroupState : std::uint32_t {
  free = 0,
  empty = 1,        // no members; positions are kept
  rebalancing = 2,  // some partitions are not with the member they are meant for yet
  stable = 3,
};

// By the coordinator, but for commits_wanted and releases.
struct alignas(128) Group {
  std::atomic<std::uint32_t> state;       // GroupState
  std::atomic<std::uint32_t> generation;  // rises with every new assignment
  std::atomic<std::uint32_t> members;
  std::atomic<std::uint32_t> trouble_code;   // Code of what keeps the group from being served; 0: nothing
  std::atomic<std::int64_t> empty_since_ns;  // wall clock
  SharedText<kMaxGroupIdBytes + 1> group_id;
  SharedText<64> assignor;
  SharedText<512> trouble;

  // A commit that is to be persistent takes a ticket, and waits until it is done.
  alignas(128) std::atomic<std::uint32_t> commits_wanted;
  std::atomic<std::uint32_t> commits_done;  // futex
  // Bumped by a member behind each partition it has given back.
  std::atomic<std::uint32_t> releases;
};

// --- Partitions of groups ------------------------------------------------------------------------

// Who may move a position: [63..16 number of the tenure][15..0 slot + 1 of the owner, 0: nobody].
// The number rises with every grant and never falls, also when the entry goes to another group.
constexpr std::uint64_t tenure_word(std::uint64_t number, std::uint32_t owner) {
  return number << 16 | owner;
}
constexpr std::uint64_t tenure_number(std::uint64_t word) { return word >> 16; }
constexpr std::uint32_t tenure_owner(std::uint64_t word) { return static_cast<std::uint32_t>(word & 0xffff); }

inline constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};

// What was committed along with an offset. Two copies, of odd and even tenures, so that a member that
// sleeps within a commit does not write over its successor's.
struct OffsetMetadata {
  std::atomic<std::uint64_t> check;  // of all below; anything else: it is being written
  std::atomic<std::uint64_t> offset;
  std::atomic<std::uint64_t> tenure;  // number
  SharedText<kMaxOffsetMetadataBytes + 1> text;
};

struct alignas(128) GroupPartition {
  // A pair that changes by 16-byte compare-and-set only: by the owner, which moves the position and gives
  // itself up, and by the coordinator, which makes owners.
  std::atomic<std::uint64_t> committed;  // the next offset to read; kNoOffset: nothing was committed
  std::atomic<std::uint64_t> tenure;
  // A pair, too: what the position becomes when a transaction commits. By the owner, within its transaction.
  std::atomic<std::uint64_t> pending_offset;
  std::atomic<std::uint64_t> pending;  // pending_word
  // By the coordinator.
  std::atomic<std::uint64_t> topic_id;
  std::atomic<std::uint32_t> partition;
  std::atomic<std::uint32_t> persistent;  // 1: `persisted` stands in the internal topic
  std::atomic<std::uint64_t> persisted;
  std::atomic<std::uint64_t> persisted_metadata;  // the checks of both copies, combined, as of then
  std::atomic<std::int64_t> committed_ns;         // wall clock: when it was last seen to change
  std::atomic<std::uint32_t> transactional;       // 1: a transaction has moved the position

  alignas(128) std::array<OffsetMetadata, 2> metadata;
};
static_assert(offsetof(GroupPartition, committed) % 16 == 0);
static_assert(offsetof(GroupPartition, pending_offset) % 16 == 0);
static_assert(offsetof(GroupPartition, tenure) == offsetof(GroupPartition, committed) + 8);

// Which group an entry belongs to and who is to have it: [31..16 group + 1][15..0 slot + 1].
constexpr std::uint32_t assignment_word(std::uint32_t group, std::uint32_t owner) {
  return (group + 1) << 16 | owner;
}
constexpr std::uint32_t assignment_group(std::uint32_t word) { return (word >> 16) - 1; }
constexpr std::uint32_t assignment_owner(std::uint32_t word) { return word & 0xffff; }

struct GroupTableLayout {
  alignas(128) std::atomic<std::uint32_t> wake;  // futex: bumped by whoever needs the coordinator now
  std::atomic<std::uint32_t> asleep;             // set by the coordinator before it sleeps on it
  std::atomic<std::uint32_t> ready;              // futex: 1 once the positions on disk have been taken up
  std::atomic<std::uint32_t> entries_used;       // rises only
  std::atomic<std::uint64_t> revision;           // of what was last written to the internal topics
  std::array<Group, kMaxGroups> groups;
  // Apart from the entries, so that looking for one's own touches 64 bytes for 16 of them. By the coordinator.
  alignas(128) std::array<std::atomic<std::uint32_t>, kMaxGroupPartitions> assignments;
  // By the member whose assignor the group uses: slot + 1 of who is to have the partition.
  alignas(128) std::array<std::atomic<std::uint16_t>, kMaxGroupPartitions> proposals;
  std::array<GroupPartition, kMaxGroupPartitions> partitions;
};

}  // namespace ringtail::shm
