// What the keeper does to one ring: walks its frontier, repairs holes, recycles terms. It never
// touches a file. One RingKeeper per ring; the partition's keeper owns it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "log/frame_run.h"
#include "log/ring.h"
#include "ringtail/error.h"
#include "shm/slots.h"

namespace ringtail::log {

// Thread safety: the keeper's thread alone. Process safety: by the keeper role, one process at a time;
// everything it needs is in the ring, so another process can go on after any instruction.
class RingKeeper {
 public:
  // `frontier`: where walking starts. Requires a frame boundary of the ring, with its offset.
  RingKeeper(Ring ring, const shm::Control& control, std::uint32_t partition, Position frontier,
             Offset offset)
      : ring_(std::move(ring)),
        control_(&control),
        partition_(partition),
        frontier_(frontier),
        offset_(offset),
        oldest_(frontier) {}

  Ring& ring() { return ring_; }
  const Ring& ring() const { return ring_; }
  // Everything before it is resolved and, after scan, checked and with its CRC filled in.
  Position frontier() const { return frontier_; }
  Offset frontier_offset() const { return offset_; }

  // Walks resolved frames, fills in their CRC32C, and moves the frontier behind them, for at most about
  // `max_bytes`. Returns what it walked as one run that is contiguous in memory; empty when the next
  // frame is not resolved yet. Errors: corrupt.
  Result<FrameRun> scan(std::uint64_t max_bytes);
  // From here on frames are copied to `copy`, of ring_bytes(), instead of being completed in place: a
  // claim was given up, and its owner may still write into this ring. What stands before the frontier in
  // its block is the caller's to put there.
  void walk_into(std::byte* copy) { copy_ = copy; }
  // Whether the ring can end there; see Ring::can_end_at.
  bool can_end_at(Position end) const { return ring_.can_end_at(end, frontier_); }
  // Moves the frontier without looking at the frames between; for topics that never leave memory.
  void skip_to_term_of_head();

  // Whether something claimed stands before the frontier's end: a claim under way, or a hole.
  bool has_unresolved() const {
    const auto end = ring_.exact_end();
    return !end || frontier_ < end->position;
  }

  // Repair of holes: begin, then call step each tick until it says done.
  void begin_inquiry();
  bool inquiring() const { return inquiry_.active; }
  // Fills the holes once every live claimer that could own one has moved on, or his operation has been
  // given up (Slot::given_up). True when complete.
  Result<bool> step_inquiry(const shm::SlotMonitor& slots);
  std::uint64_t repaired_records() const { return repaired_records_; }
  // Claims of the living that the last inquiry found, when it was complete: to be resolved by their owners.
  std::uint64_t open_claims() const { return open_claims_; }

  // Recycling: makes terms clean ahead of the active one as far as everything below `reusable` allows.
  // Zeroes one slice at a call, so that on a crowded machine nobody is kept off his CPU for long; all
  // that is missing when producers wait for it.
  struct Recycled {
    std::uint64_t zeroed = 0;     // bytes; more are to come at the next call, unless it progressed
    bool progressed = false;      // the limit rose: producers may go on
    bool hurry = false;           // producers have used half of what is clean
    bool blocked_by_pin = false;  // a reader holds what is needed
    bool starving = false;        // not one clean term is left behind the active one
  };
  Recycled recycle(Position reusable, const shm::SlotMonitor& slots);

  // Completes a rotation that nobody completes.
  void help_rotate();

 private:
  struct Inquiry {
    bool active = false;
    std::uint64_t term = 0;  // the active one when it began, and its tail
    std::uint64_t tail = 0;
    std::array<std::uint64_t, shm::kMaxSlots> waiting_for{};  // op that has to change; kNoOp: none
  };

  std::byte* place_of(std::byte* frame, std::uint32_t extent) const;
  void settle_record(std::byte* frame, std::uint32_t extent, std::uint32_t length) const;
  void settle_filler(std::byte* frame, std::uint32_t extent, Offset offset, std::uint32_t records) const;
  Status check_word(std::uint64_t word, std::uint64_t room) const;
  bool is_given_up(std::uint32_t slot) const;
  bool is_live_open(const std::byte* frame, std::uint64_t word, std::uint64_t room) const;
  // How far the claims of a term are to be accounted for: bytes, the offset there, and whether that is
  // where they end or only where they could.
  struct Bounds {
    std::uint64_t limit;
    Offset following;
    bool known;
  };
  Result<Bounds> bounds_of(std::uint64_t term) const;
  // False: it changed under the repair, and is to be looked at again.
  Result<bool> fill_term(std::uint64_t term);
  static bool seize(std::byte* frame, std::uint64_t word, std::uint32_t extent);
  static void fill_seized(std::byte* frame, std::uint32_t extent, Offset offset, std::uint32_t records);
  bool is_scribbled() const;
  std::uint64_t end_of_hole(const std::byte* data, std::uint64_t at, std::uint64_t limit) const;
  Result<bool> close_tripped_term(std::uint64_t term, std::uint64_t at, Offset next);
  std::unexpected<Error> corrupt_term(std::uint64_t term, const char* what) const;
  bool readers_pin_below(Position end) const;
  bool grace_passed(std::uint64_t term, const shm::SlotMonitor& slots);

  Ring ring_;
  const shm::Control* control_;
  std::uint32_t partition_;
  Position frontier_;
  Offset offset_;
  Position oldest_;  // where the ring's contents begin at the earliest, by what this keeper has seen and done
  std::byte* copy_ = nullptr;
  Inquiry inquiry_;
  std::uint64_t repaired_records_ = 0;
  std::uint64_t open_claims_ = 0;

  std::uint64_t zeroed_ = 0;  // bytes of the term being recycled
  std::uint64_t grace_term_ = ~std::uint64_t{0};
  std::array<std::uint64_t, shm::kMaxSlots> grace_ops_{};
};

}  // namespace ringtail::log
