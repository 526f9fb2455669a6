// The ring: the hot end of a partition, in shared memory. ring.md beside this file tells how claims,
// rotation, sealing and recycling fit together.
//
// A ring is a header and `term_count` terms of `term_bytes` each. Terms are numbered from 0 for the
// ring's life; term T lies at index T % term_count and holds the positions
// [base_position + T * term_bytes, ... + term_bytes). Terms begin at multiples of term_bytes, in every ring
// of the partition and on every host, so that the same frames fit everywhere. Each term's tail word packs
//
//     [63 fence] [62..54 lap] [53..30 records claimed] [29..0 bytes claimed / 8]
//
// so that one fetch_add claims a byte range and the offsets of its records. The lap, the term's
// number divided by term_count, tells a claimer that was asleep for a whole lap which term it hit,
// and makes the opening of a term a compare-and-set without ABA.
//
// Every word has its writers named. A process may die between any two instructions.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "format/frame.h"
#include "ringtail/error.h"
#include "ringtail/types.h"
#include "shm/control.h"
#include "shm/mapping.h"

namespace ringtail::log {

inline constexpr std::uint64_t kRingMagic = 0x474e52'4c544752;  // "RGTLRNG"
inline constexpr std::uint32_t kRingVersion = 3;
inline constexpr std::uint32_t kMaxTerms = 64;
inline constexpr std::size_t kRingHeaderBytes = 16 * 1024;
// A term ends with room for at least a pad's header.
inline constexpr std::uint64_t kTermReserve = format::kFrameHeaderBytes;
inline constexpr std::uint32_t kMaxBatchRecords = 4096;

// --- The tail word -------------------------------------------------------------------------------

inline constexpr std::uint64_t kFence = std::uint64_t{1} << 63;
inline constexpr unsigned kLapShift = 54;
inline constexpr std::uint64_t kLapMask = 0x1ff;
inline constexpr unsigned kRecordsShift = 30;
inline constexpr std::uint64_t kRecordsMask = 0xffffff;
inline constexpr std::uint64_t kUnitsMask = 0x3fffffff;

constexpr std::uint64_t make_tail(std::uint64_t lap, std::uint64_t records, std::uint64_t bytes) {
  return (lap & kLapMask) << kLapShift | records << kRecordsShift | bytes / format::kFrameAlignment;
}
constexpr std::uint64_t tail_lap(std::uint64_t tail) { return tail >> kLapShift & kLapMask; }
constexpr std::uint64_t tail_records(std::uint64_t tail) { return tail >> kRecordsShift & kRecordsMask; }
constexpr std::uint64_t tail_bytes(std::uint64_t tail) {
  return (tail & kUnitsMask) * format::kFrameAlignment;
}
constexpr bool tail_fenced(std::uint64_t tail) { return (tail & kFence) != 0; }

// Every slot may overshoot a term once, with a claim of at most an eighth of it: no field overflows.
static_assert((shm::kMaxSlots / 8 + 2) * std::uint64_t{format::kMaxFrameBytes} / 8 <= kUnitsMask);
static_assert(std::uint64_t{format::kMaxFrameBytes} / format::kFrameHeaderBytes +
                  std::uint64_t{shm::kMaxSlots} * kMaxBatchRecords <=
              kRecordsMask);

// --- Layout --------------------------------------------------------------------------------------

struct alignas(shm::kLine) TermLine {
  shm::Shared<std::uint64_t> tail;           // by claimers; opened by any process
  shm::Shared<std::int64_t> last_append_ns;  // LogAppendTime: moves with the tail in one 16-byte CAS
  shm::Shared<std::uint64_t> number;         // by whoever opens the term; the same value from all
  shm::Shared<std::uint64_t> base_offset;    // likewise
  shm::Shared<std::uint64_t> end;            // by the claimer that tripped: the tail without its claim;
                                             // by the keeper when that one died. Valid if the lap matches
  shm::Shared<std::uint64_t> fenced;         // by the keeper that fenced it: the tail as it was then, with
      // the fence; 0 while not, or when that one died first. By who fills
      // the ring alone: the tail of what he has committed, with the fence
};
static_assert(sizeof(TermLine) == shm::kLine);

enum class RingState : std::uint32_t {
  active = 0,
  sealed = 1,
  being_cut =
      2,  // active, but that the keeper takes back what stands behind sealed_position; by its death it is to be
          // taken back still
};

// By whom records come into the ring. With the latter two all tails are fenced, and `fenced` tells where it ends.
enum class FilledBy : std::uint32_t {
  claimers = 0,  // any number of producers
  follower = 1,  // what another host ships: ReplicaWriter
  owner = 2,     // one producer alone, by plain stores; see Grant
};

// Whether memory may still be written to by the owner of a claim that was given up.
enum class Scribbled : std::uint32_t {
  no = 0,
  by_claimer = 1,  // whose commit fails
  by_owner = 2,    // whose commit, a plain store, does not: what stands behind the ring's end is no record
};

// Whom the ring was given to last: [63..32 how often it was given][31..0 frame_owner, 0 once that has ended].
// It never recurs, so an owner who slept while others had the ring does not take it for his.
constexpr std::uint32_t grant_owner(std::uint64_t grant) { return static_cast<std::uint32_t>(grant); }
constexpr std::uint64_t next_grant(std::uint64_t grant, std::uint32_t owner) {
  return ((grant >> 32) + 1) << 32 | owner;
}
constexpr std::uint64_t ended_grant(std::uint64_t grant) { return grant >> 32 << 32; }

struct RingHeader {
  // Written once, before the file is published.
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t header_bytes;
  std::array<std::uint64_t, 2> log_id;
  std::uint64_t topic_id;
  std::uint32_t partition;
  std::uint32_t term_count;
  std::uint64_t term_bytes;
  std::uint64_t generation;
  std::uint64_t base_position;   // of term 0: a multiple of term_bytes
  std::uint64_t first_position;  // where this ring's part of the log begins, within term 0
  std::uint64_t first_offset;
  std::uint32_t crc32c;  // of all above
  std::uint32_t reserved;

  // The number of the term that claims go to. By whoever opens a term.
  alignas(shm::kLine) shm::Shared<std::uint64_t> active_term;
  // Terms below this number may be opened: the keeper has zeroed their memory. By the keeper.
  alignas(shm::kLine) shm::Shared<std::uint64_t> term_limit;
  // Positions below are, or are about to be, recycled; readers stay above. By the keeper.
  alignas(shm::kLine) shm::Shared<std::uint64_t> head;
  // Sealed: no claim will succeed again; the log goes on in the next ring at next_position.
  alignas(shm::kLine) shm::Shared<std::uint32_t> state;  // RingState; by the keeper, last
  shm::Shared<std::uint64_t> sealed_position;            // end of the last claim
  shm::Shared<std::uint64_t> sealed_offset;
  shm::Shared<std::uint64_t> next_position;  // base position of the next ring
  shm::Shared<std::uint32_t> scribbled;      // Scribbled; by the keeper
  shm::Shared<std::uint32_t> filled_by;      // FilledBy; by the keeper
  shm::Shared<std::uint64_t> grant;          // by the keeper

  alignas(shm::kLine) std::array<TermLine, kMaxTerms> terms;
};
static_assert(sizeof(RingHeader) <= kRingHeaderBytes);
static_assert(std::is_standard_layout_v<RingHeader>);
static_assert(offsetof(RingHeader, active_term) == 128);
static_assert(offsetof(RingHeader, terms) == 640);

struct RingSpec {
  std::array<std::uint64_t, 2> log_id{};
  std::uint64_t topic_id = 0;
  PartitionId partition{0};
  std::uint64_t term_bytes = 0;
  std::uint32_t term_count = 0;
  std::uint64_t generation = 0;
};

// --- A mapped ring -------------------------------------------------------------------------------

// Thread safety: const members may be called from any thread; so may claims, by different slots.
class Ring {
 public:
  Ring() = default;

  // Makes a ring in memory reserved, zeroed and prefaulted, without a name; publishing gives it `path`. Blocks for the
  // time of the prefault (about 0.3 ms a MiB).
  // Errors: shared_memory_full, permission_denied.
  static Result<Ring> create(const std::filesystem::path& path, const RingSpec& spec);
  // Sets where the log goes on; only before publishing. A position that is no multiple of 4096 comes with the
  // log's bytes before it in its block, of which files are made.
  void set_base(Position first, Offset first_offset, std::int64_t last_append_ns,
                std::span<const std::byte> before = {});
  Status publish_new();  // fails with already_exists when there is a ring
  Status publish_replacing();

  // Maps the ring at `path`. Errors: not_found, corrupt, incompatible_layout, permission_denied.
  static Result<Ring> open(const std::filesystem::path& path, bool read_only);
  // The same, read-only and without its records, for those who ask where it ends: data() is null. Takes
  // microseconds, whatever its size.
  static Result<Ring> open_header(const std::filesystem::path& path);

  explicit operator bool() const { return header_ != nullptr; }
  RingHeader& header() const { return *header_; }
  std::uint64_t generation() const { return generation_; }
  std::uint64_t term_bytes() const { return term_bytes_; }
  std::uint32_t term_count() const { return term_count_; }
  std::uint64_t ring_bytes() const { return term_bytes_ * term_count_; }
  std::uint64_t usable_term_bytes() const { return term_bytes_ - kTermReserve; }
  Position base_position() const { return Position(base_position_); }
  Position first_position() const { return Position(first_position_); }
  std::byte* data() const { return data_; }

  TermLine& line(std::uint64_t term) const { return header_->terms[term % term_count_]; }
  std::uint64_t lap(std::uint64_t term) const { return term / term_count_ & kLapMask; }
  // How many offsets an aborted frame of a scribbled ring uses up, from `offset` on: those up to what follows it, for
  // the late owner of the claim may have written over what it says. Nothing while that is not there yet; a term's last
  // frame is always a pad.
  std::optional<std::uint64_t> scribbled_records(Position position, std::uint32_t extent,
                                                 Offset offset) const;
  // The offset at `head`, which is where a term starts, or where the ring does; nothing at other places.
  std::optional<Offset> offset_at(Position head) const;
  // Requires position >= base_position().
  std::uint64_t term_of(Position p) const { return (p.value() - base_position_) / term_bytes_; }
  Position term_start(std::uint64_t term) const { return Position(base_position_ + term * term_bytes_); }
  std::byte* at(Position p) const { return data_ + (p.value() - base_position_) % ring_bytes(); }
  std::byte* term_data(std::uint64_t term) const { return data_ + (term % term_count_) * term_bytes_; }

  bool sealed() const {
    // SYNC: pairs with the release store in finish_seal; sealed_position is visible with it.
    return header_->state.load(std::memory_order_acquire) == static_cast<std::uint32_t>(RingState::sealed);
  }

  // The newest term that is open. Its own line tells: whoever opened it may not have said so in active_term yet, and
  // other processes can write there. Wait-free.
  std::uint64_t last_open_term() const;

  // End of what is claimed, as far as it can be known without waiting: between a term's trip and the
  // opening of the next it is the trip's place. Lock-free.
  struct End {
    Position position;
    Offset offset;
  };
  End claimed_end() const;
  // The same, or nothing while it cannot be known exactly.
  std::optional<End> exact_end() const;
  // Whether the ring's claims can end there, as seen from `from`, where its frames are known to reach: for ends
  // that were read from it, since other processes can write there.
  bool can_end_at(Position end, Position from) const;
  // The farthest that frames reach: the end of claims, or that of the pad which may follow the last of a
  // term or of the ring.
  Position frame_limit() const;

  // Completes the rotation behind `term`, if its end is known: pads it and opens the next. Any
  // process may call it, several at once; needs the caller's slot in Phase::helping, or the keeper.
  enum class Rotation { done, unknown_end, full, sealed };
  Rotation rotate(std::uint64_t term) const;

  // Says where the claims of `term` end: the tail that its tripper found. The first to say it counts, be
  // it the tripper or the keeper that took him for dead; false for the other.
  bool publish_end(std::uint64_t term, std::uint64_t tail) const;

  // Forbids all further claims by fencing every tail, and the owner's next append. For the keeper; idempotent.
  // shm::kVisibleNs later the keeper sees the operation under way of an owner who has not seen it.
  void fence() const;
  // The tail of `term` as far as claims count: that before the fence, where it is known. Otherwise claims that
  // failed at the fence may have moved it; nobody owns those bytes, and repair fills them.
  std::uint64_t claimed_tail(std::uint64_t term) const;
  // After fence(): where the ring is to end, or nothing while the last term's end is not known yet
  // (its tripper is between two instructions, or dead).
  struct SealPoint {
    bool known;
    Position position;
    Offset offset;
    std::int64_t last_append_ns;
  };
  SealPoint seal_point() const;
  // Publishes that the ring ends at `end`, and the log goes on in another at `next`, if not given behind the
  // block; what lies between becomes a pad. Returns `next`.
  Position finish_seal(Position end, Offset offset, std::optional<Position> next = {}) const;
  // Of a fenced ring without a claim under way: from here on it is filled by whoever follows (follow), by `owner`
  // alone (own), or takes claims again (unfence), from `end` on, which is where its frames end.
  void follow(const End& end) const;
  void own(const End& end, std::uint32_t owner) const;
  void unfence(const End& end) const;
  // Of one whose owner is gone: zeroes what he has left behind `end`, in its term.
  void clear_behind(const End& end) const;
  // Of a followed ring: takes back what stands behind `end`, where a frame begins; zeroes its memory.
  // Requires an end that is still in the ring. A keeper that dies in the midst of it leaves the ring to the next one in
  // any state, so before anything is taken back, of files too, the ring says so, and afterwards that it is done.
  void begin_cut(const End& end) const;
  void cut(const End& end) const;
  void end_cut() const;
  // Of a ring whose keeper died between begin_cut and end_cut: where it was to end.
  std::optional<End> unfinished_cut() const;
  FilledBy filled_by() const {
    return static_cast<FilledBy>(header_->filled_by.load(std::memory_order_relaxed));
  }
  bool is_followed() const { return filled_by() == FilledBy::follower; }
  bool is_owned() const { return filled_by() == FilledBy::owner; }
  bool is_filled_alone() const { return filled_by() != FilledBy::claimers; }
  // The producer who has it for himself now, as frame_owner; 0: nobody.
  std::uint32_t owner() const {
    return is_owned() ? grant_owner(header_->grant.load(std::memory_order_acquire)) : 0;  // SYNC: see own
  }
  Scribbled scribbled() const {
    return static_cast<Scribbled>(header_->scribbled.load(std::memory_order_relaxed));
  }
  // Of a ring whose owner was given up within an append (Scribbled::by_owner): where its records end, whatever he
  // commits. Nothing as long as that is not decided. It goes on in another ring in any case.
  std::optional<Position> decided_end() const;
  // For who fills it alone: the term behind `term` begins with `base`. False while the keeper has not made it clean.
  bool open_alone(std::uint64_t term, Offset base) const;
  // Tells readers of a fenced ring that nothing follows it: its topic was deleted, or the log begins anew in another.
  void close() const;
  bool is_closed() const;
  // Where finish_seal will let the log go on.
  static Position position_after_seal(Position end);

  const shm::Mapping& mapping() const { return mapping_; }

 private:
  static Result<Ring> attach(shm::Mapping mapping, const std::string& name);
  std::optional<End> end_of(std::uint64_t term) const;
  std::uint64_t settle_active_term() const;
  std::uint64_t tail_at(std::uint64_t term, const End& end) const;
  void fill_alone(const End& end, FilledBy by) const;

  shm::Mapping mapping_;
  RingHeader* header_ = nullptr;
  std::byte* data_ = nullptr;
  std::uint64_t term_bytes_ = 0;
  // As they were when the ring was mapped.
  std::uint64_t base_position_ = 0;
  std::uint64_t first_position_ = 0;
  std::uint64_t first_offset_ = 0;
  std::uint64_t generation_ = 0;
  std::uint32_t term_count_ = 0;
};

// What a pad or an aborted frame says, but for its state word, by atomic stores.
void store_filler_fields(std::byte* frame, Offset offset, std::uint32_t records);
// Writes a resolved pad or aborted frame with atomic stores, state word by compare-and-set from
// `expected`; false when somebody else changed the word first. Several processes may write the same. For pads,
// and for a claim's owner: whoever takes the frame of another has to seize it first (RingKeeper).
bool publish_filler(std::byte* frame, std::uint64_t expected, format::FrameType type, std::uint32_t extent,
                    Offset offset, std::uint32_t records);

// "<shm dir>/<topic>-<partition>.ring", and the second name of one that was retired.
std::filesystem::path ring_path(const std::filesystem::path& shm_dir, std::string_view topic, PartitionId p);
std::filesystem::path retired_ring_path(const std::filesystem::path& shm_dir, std::string_view topic,
                                        PartitionId p, std::uint64_t generation);
// The files of this partition's retired rings, in no order. Errors: as system_error, where the folder cannot be listed:
// who took them for none would take their records for lost.
Result<std::vector<std::filesystem::path>> retired_rings(const std::filesystem::path& shm_dir,
                                                         std::string_view topic, PartitionId p);

}  // namespace ringtail::log
