// The control segment: the one shared-memory file of a log that every attached process maps. It holds
// liveness slots, reader pins, for each partition the words by which producers, consumers and the keeper
// find and wake each other, and consumer groups. Records are not here; they are in the rings.
//
// Process safety: every mutable field is a lock-free atomic with one of the writers named beside it.
// Nothing here is a lock; a process may die between any two stores. Trust: fields are validated by
// whoever uses them as an index or a size.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "ringtail/error.h"
#include "shm/group_table.h"
#include "shm/mapping.h"
#include "shm/producer_table.h"

namespace ringtail::shm {

inline constexpr std::uint64_t kControlMagic = 0x4c5254434c544752;  // "RGTLCTRL"
inline constexpr std::uint32_t kControlVersion = 4;
inline constexpr std::uint32_t kMaxSlots = 512;
inline constexpr std::uint32_t kMaxReaders = 4096;
inline constexpr std::uint32_t kMaxPartitions = 4096;
inline constexpr std::size_t kLine = 128;  // two cache lines: the prefetcher fetches pairs

template <class T>
using Shared = std::atomic<T>;
static_assert(Shared<std::uint64_t>::is_always_lock_free);
static_assert(Shared<std::uint32_t>::is_always_lock_free);

// --- Liveness slots ------------------------------------------------------------------------------

// One per Producer and Consumer. Its owner holds a lock on byte `index` of the lock file; the kernel
// drops the lock with the process, which is how a death is known.
enum class SlotState : std::uint8_t {
  free = 0,
  taken = 1,   // reserved, its byte not locked yet
  active = 2,  // owner lives as long as the byte is locked
  dead = 3,    // the keeper saw the lock gone and is repairing
};

// state word: [63..8 generation][7..0 SlotState]
constexpr std::uint64_t slot_word(std::uint64_t generation, SlotState state) {
  return generation << 8 | static_cast<std::uint8_t>(state);
}
constexpr SlotState slot_state(std::uint64_t word) { return static_cast<SlotState>(word & 0xff); }
constexpr std::uint64_t slot_generation(std::uint64_t word) { return word >> 8; }

// What the owner of a slot is doing in a ring right now.
enum class Phase : std::uint8_t {
  idle = 0,
  claiming = 1,  // may hold a claim whose frame header is not written yet
  open = 2,      // holds a claim whose header is complete (try_claim)
  helping = 3,   // rotates terms or waits for it; holds no claim
};

// op word: [63..24 sequence][23..20 phase][19..0 partition entry]
constexpr std::uint64_t op_word(std::uint64_t sequence, Phase phase, std::uint32_t partition) {
  return sequence << 24 | static_cast<std::uint64_t>(phase) << 20 | partition;
}
constexpr Phase op_phase(std::uint64_t op) { return static_cast<Phase>(op >> 20 & 0xf); }
constexpr std::uint64_t op_sequence(std::uint64_t op) { return op >> 24; }
constexpr std::uint32_t op_partition(std::uint64_t op) { return static_cast<std::uint32_t>(op & 0xfffff); }
inline constexpr std::uint64_t kNoOp = ~std::uint64_t{0};
// A claim keeps its sequence when its header is written and it becomes an open one.
constexpr bool is_same_claim(std::uint64_t a, std::uint64_t b) { return op_sequence(a) == op_sequence(b); }
static_assert(kMaxPartitions <= 1u << 20);

struct alignas(kLine) Slot {
  Shared<std::uint64_t> word;               // by claimers, the owner and the keeper, by compare-and-set
  Shared<std::uint64_t> token;              // random; tells this owner from an earlier one
  Shared<std::uint32_t> pid;                // for people; in the owner's pid namespace
  Shared<std::uint32_t> role;               // SlotRole
  Shared<std::uint64_t> start_ns;           // when it attached, wall clock
  std::array<Shared<char>, 16> name;        // of the process
  alignas(kLine) Shared<std::uint64_t> op;  // by the owner alone
  Shared<std::uint64_t> open_position;      // by the owner: where its open claim (Phase::open) starts
  Shared<std::uint64_t> given_up;           // by the keeper: the op whose claim it is giving up
  Shared<std::uint64_t> given_up_done;      // by the keeper: the same, once the ring tells what became of it
};
static_assert(sizeof(Slot) == 2 * kLine);

// The owner of a claimed frame, as it stands in the frame's crc32c field meanwhile:
// slot index in the low 12 bits, the slot's generation above. Never 0.
constexpr std::uint32_t frame_owner(std::uint32_t slot, std::uint64_t generation) {
  return static_cast<std::uint32_t>(generation << 12) | (slot + 1);
}
// Its slot; beyond kMaxSlots for what is none's.
constexpr std::uint32_t owner_slot(std::uint32_t owner) { return (owner & 0xfff) - 1; }
static_assert(kMaxSlots < 1u << 12);
static_assert(kMaxPartitions == 64 * 64, "TransactionalId::partitions has a bit for each");
static_assert(kMaxGroupPartitions <= 1u << 16 && kMaxSlots < 1u << 16);

// --- Readers -------------------------------------------------------------------------------------

inline constexpr std::uint64_t kNotPinned = ~std::uint64_t{0};

// One per partition that a consumer reads.
struct alignas(64) Reader {
  Shared<std::uint32_t> owner;            // slot + 1, or 0 when free; by consumers (CAS) and the keeper
  Shared<std::uint32_t> partition;        // entry index
  Shared<std::uint64_t> ring_generation;  // which ring `pin` is in
  Shared<std::uint64_t> pin;              // lowest position in use, or kNotPinned; by the owner
  Shared<std::uint64_t> position;         // next position to read, for lag figures
  Shared<std::uint64_t> offset;           // next offset to read, for lag figures
};
static_assert(sizeof(Reader) == 64);

// --- Partitions ----------------------------------------------------------------------------------

enum class PartitionState : std::uint32_t {
  free = 0,
  opening = 1,  // the keeper is recovering it or making its ring
  active = 2,
  failed = 3,  // a write or sync failed, or it could not be opened: see failure
  deleted = 4,
};

// hot word: [63..32 version][31..0 flags]. A producer compares it with what it saw last, once per
// append; whatever differs sends it to the slow path.
enum HotFlags : std::uint64_t {
  kDataWaiter = 1u << 0,    // a consumer sleeps on data_seq
  kKeeperWaits = 1u << 1,   // the keeper sleeps and wants to know of new records
  kShipperWaits = 1u << 2,  // whoever ships to other hosts sleeps likewise
};
inline constexpr std::uint64_t kHotVersion = std::uint64_t{1} << 32;
inline constexpr std::uint64_t kHotFlagsMask = kHotVersion - 1;

// What this host is to a partition that other hosts have, too.
enum class ReplicaRole : std::uint32_t {
  alone = 0,     // no other host has it
  fenced = 1,    // nobody may append here: it is not decided who leads, or this host must not any more
  follower = 2,  // what the leader ships is appended, and nothing else
  leader = 3,
};
std::string_view to_string(ReplicaRole role);
// Where readers may go in a partition that is not replicated: anywhere.
inline constexpr std::uint64_t kNoWatermark = ~std::uint64_t{0};

// Whether a partition has transactions.
inline constexpr std::uint32_t kNoTransactions = 0;
inline constexpr std::uint32_t kTransactions = 1;  // and that is on disk
// The same, and what was open when the host went down has no end there yet: the coordinator is to be asked first.
inline constexpr std::uint32_t kUnendedTransactions = 2;

struct alignas(kLine) Partition {
  // By the keeper. Read when a handle is opened and on the slow path.
  Shared<std::uint64_t> topic_id;
  Shared<std::uint32_t> partition;
  Shared<std::uint32_t> state;            // PartitionState
  Shared<std::uint64_t> ring_generation;  // of the ring file that is current
  Shared<std::uint32_t> failure_code;     // Code, in state failed; of a failed sync until all is written anew
  Shared<std::int32_t> failure_errno;
  Shared<std::uint32_t> transactional;  // kNoTransactions and so on; by the coordinator
  // Configuration in effect, for producers.
  Shared<std::uint32_t> max_message_bytes;
  Shared<std::uint32_t> min_insync_replicas;
  Shared<std::uint32_t> claim_timeout_ms;
  Shared<std::uint8_t> on_full;         // OnFull
  Shared<std::uint8_t> timestamp_type;  // TimestampType
  Shared<std::uint8_t> storage;         // Storage
  Shared<std::uint8_t> cleanup_policy;  // CleanupPolicy
  // The producer that wants the partition for itself, as frame_owner; 0: none. By producers, from 0 and back to
  // it, by compare-and-set; by the keeper when that one has died.
  Shared<std::uint32_t> exclusive;

  alignas(kLine) Shared<std::uint64_t> hot;  // flags set by waiters, version by the keeper

  // Futex words, bumped by whoever makes the thing waited for happen.
  alignas(kLine) Shared<std::uint32_t> data_seq;  // by producers
  Shared<std::uint32_t> space_seq;                // by the keeper
  Shared<std::uint32_t> durable_seq;              // by the keeper
  Shared<std::uint32_t> space_waiters;            // set by waiters, cleared by the keeper
  Shared<std::uint32_t> durable_waiters;

  // By the keeper. Each moves forward only.
  alignas(kLine) Shared<std::uint64_t> durable_position;
  Shared<std::uint64_t> durable_offset;
  Shared<std::uint64_t> log_start_offset;
  Shared<std::uint64_t> log_start_position;
  Shared<std::uint64_t> disk_bytes;
  Shared<std::uint64_t> repaired_records;  // offsets used up by aborted records
  Shared<std::uint64_t> retired_rings;
  // durable_position and durable_offset as a pair, twice, so that a keeper's death between the stores
  // leaves one copy whole: {position, offset, position ^ rotl(offset, 32) ^ kMarkSeed}.
  struct Mark {
    Shared<std::uint64_t> position, offset, check;
  };
  alignas(kLine) std::array<Mark, 2> mark;
  Shared<std::uint64_t> mark_turn;

  // Replication. By the keeper, but for the watermark and who is in sync: those by the replicator.
  alignas(kLine) Shared<std::uint64_t> high_watermark;  // position; kNoWatermark while alone
  Shared<std::uint64_t> high_watermark_offset;
  Shared<std::int64_t> lease_deadline_ns;  // CLOCK_BOOTTIME: the leader must not act behind it
  Shared<std::uint32_t> role;              // ReplicaRole
  Shared<std::uint32_t> leader_epoch;
  Shared<std::uint32_t> leader_node;     // 0: none
  Shared<std::uint32_t> replicas;        // how many hosts are to have it
  Shared<std::uint32_t> in_sync;         // how many have it
  Shared<std::uint32_t> role_seq;        // futex: bumped when the role or its epoch changes
  Shared<std::uint32_t> replicated_seq;  // futex: bumped when the watermark rises
  Shared<std::uint32_t> replicated_waiters;

  alignas(kLine) std::array<Shared<char>, 256> failure_text;
};

// --- The segment ---------------------------------------------------------------------------------

struct alignas(kLine) ControlHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t slot_count;
  std::uint32_t reader_count;
  std::uint32_t partition_count;
  std::uint64_t total_bytes;
  std::array<std::uint64_t, 2> log_id;
  std::array<std::uint64_t, 2> boot_id;
  std::array<char, 512> dir;  // of the log, for tools that find this file

  alignas(kLine) Shared<std::uint32_t> keeper_wake;  // futex: bumped by whoever needs the keeper now
  Shared<std::uint32_t> keeper_asleep;               // set by the keeper before it sleeps on it
  alignas(kLine) Shared<std::uint32_t> keeper_term;  // futex: bumped at each takeover, when ready
  Shared<std::uint32_t> keeper_pid;
  Shared<std::uint32_t> keeper_ready;                   // 1 once a keeper has recovered the log
  alignas(kLine) Shared<std::uint32_t> catalog_wanted;  // bumped after each change on disk
  Shared<std::uint32_t> catalog_done;                   // futex: what the keeper has applied
  // How many entries of the tables were ever in use, so that nobody looks through the rest.
  Shared<std::uint32_t> slots_used;  // by claimers; rises only
  Shared<std::uint32_t> readers_used;
};

struct ControlLayout {
  ControlHeader header;
  std::array<Slot, kMaxSlots> slots;
  std::array<Reader, kMaxReaders> readers;
  std::array<Partition, kMaxPartitions> partitions;
  std::array<Member, kMaxSlots> members;
  GroupTableLayout groups;
  std::array<TransactionalId, kMaxTransactionalIds> transactional_ids;
};
static_assert(std::is_standard_layout_v<ControlLayout>);
static_assert(offsetof(ControlHeader, keeper_wake) == 640);
static_assert(offsetof(ControlHeader, catalog_wanted) == 896);
static_assert(offsetof(ControlLayout, slots) == 1024);
static_assert(sizeof(Partition) == 1024);

// A mapping of the control segment.
class Control {
 public:
  // Opens `dir`/control or makes it. A segment of an earlier boot, another log or a foreign layout is
  // an error that says so; one that is merely missing is created. `log_dir` is noted in it.
  static Result<Control> open_or_create(const std::filesystem::path& shm_dir,
                                        std::array<std::uint64_t, 2> log_id,
                                        const std::filesystem::path& log_dir);

  ControlHeader& header() const { return layout_->header; }
  Slot& slot(std::uint32_t index) const { return layout_->slots[index]; }
  Reader& reader(std::uint32_t index) const { return layout_->readers[index]; }
  Partition& partition(std::uint32_t index) const { return layout_->partitions[index]; }
  Member& member(std::uint32_t slot) const { return layout_->members[slot]; }
  GroupTableLayout& groups() const { return layout_->groups; }
  TransactionalId& transactional_id(std::uint32_t index) const { return layout_->transactional_ids[index]; }

  // The parts of the tables that were ever in use. Entries taken before the call are in them.
  std::span<Slot> slots() const;
  std::span<Reader> readers() const;
  // Notes that an entry is in use; before anything is stored in it.
  void use_slot(std::uint32_t index) const;
  void use_reader(std::uint32_t index) const;

  // Makes the keeper, or the coordinator of groups, look now. Lock-free; a system call only when it sleeps.
  void wake_keeper() const;
  void wake_coordinator() const;

 private:
  Mapping mapping_;
  ControlLayout* layout_ = nullptr;
};

// Wakes everybody who waits on `seq` if `waiters` says that somebody does.
// Lock-free. The caller must have made the event visible before.
void notify_waiters(Shared<std::uint32_t>& seq, Shared<std::uint32_t>& waiters);

// For the replicator: every in-sync replica has the log up to there. Never moves back by itself; wakes those
// who wait for it. Lock-free.
void set_high_watermark(Partition& entry, std::uint64_t position, std::uint64_t offset);

// For the keeper: publishes the pair that recovery resumes from.
void store_mark(Partition& entry, std::uint64_t position, std::uint64_t offset);
// False when neither copy is whole.
bool load_mark(const Partition& entry, std::uint64_t& position, std::uint64_t& offset);

}  // namespace ringtail::shm
