// Liveness slots: who is attached, whether it still lives, and what it is doing in which ring.
//
// A slot belongs to one Producer or Consumer. Its owner holds a lock on the slot's byte of the lock
// file; the kernel drops it when the process ends in whatever way, so a death is a fact and not a guess.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ringtail/error.h"
#include "shm/byte_lock.h"
#include "shm/control.h"

namespace ringtail::shm {

enum class SlotRole : std::uint32_t { producer = 1, consumer = 2, admin = 3, coordinator = 4 };

// A slot that this process owns. Given back on destruction, unless an operation is under way in a
// ring: then it is left to the keeper, as after a death.
// Thread safety: one thread at a time. The control segment and the lock file must outlive it.
class OwnedSlot {
 public:
  // Errors: limit_exceeded when all slots are taken, system.
  static Result<OwnedSlot> acquire(const Control& control, ByteLockFile& locks, SlotRole role);

  OwnedSlot() = default;
  OwnedSlot(OwnedSlot&& other) noexcept;
  OwnedSlot& operator=(OwnedSlot&& other) noexcept;
  ~OwnedSlot() { release(); }

  std::uint32_t index() const { return index_; }
  // What the slot's word is while it is held by this owner.
  std::uint64_t word() const { return slot_word(generation_, SlotState::active); }
  std::uint32_t owner() const { return owner_; }  // as frame_owner

  // Says what comes next. Wait-free: one store to the slot's own line. The claim that follows is a
  // locked instruction, which orders it.
  void announce(Phase phase, std::uint32_t partition) {
    op_ = op_word(++sequence_, phase, partition);
    // SYNC: pairs with the keeper's acquire load of op, as finish does for what was before.
    slot_->op.store(op_, std::memory_order_release);
  }
  // The same with a full barrier, for what is followed by plain loads. Wait-free.
  void announce_fenced(Phase phase, std::uint32_t partition) {
    op_ = op_word(++sequence_, phase, partition);
    // SYNC: pairs with the keeper's grace check in RingKeeper: it sees this op, or we see its stores.
    slot_->op.exchange(op_, std::memory_order_seq_cst);
  }
  // The claim announced last is at `position`, has its header and stays open until finish(). It is the same
  // claim still: if it was given up before, it is given up.
  void announce_open(std::uint32_t partition, std::uint64_t position) {
    slot_->open_position.store(position, std::memory_order_relaxed);
    op_ = op_word(sequence_, Phase::open, partition);
    // SYNC: pairs with the keeper's acquire load of op: it then sees the header and open_position.
    slot_->op.store(op_, std::memory_order_release);
  }
  // What was begun is complete.
  void finish() {
    op_ = op_word(sequence_, Phase::idle, 0);
    // SYNC: pairs with the keeper's acquire load of op: it then sees the frame as it was left.
    slot_->op.store(op_, std::memory_order_release);
  }
  // Whether the keeper gave up the claim announced last. Call after the commit, before finish().
  bool given_up() const {
    // SYNC: pairs with the keeper's seq_cst store before it looks at the frame again.
    return is_same_claim(slot_->given_up.load(std::memory_order_seq_cst), op_);
  }
  // After given_up(): whether the ring already tells if the record was kept.
  bool given_up_done() const {
    // SYNC: pairs with the keeper's release store after its repair.
    return is_same_claim(slot_->given_up_done.load(std::memory_order_acquire), op_);
  }
  Phase phase() const { return op_phase(op_); }

  // Forgets the slot without a word, in a forked child: it is the parent's.
  void abandon() { slot_ = nullptr; }

 private:
  void release();

  Slot* slot_ = nullptr;
  ByteLockFile* locks_ = nullptr;
  std::uint64_t op_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint64_t generation_ = 0;
  std::uint32_t index_ = 0;
  std::uint32_t owner_ = 0;
};

// Whether the slot that `owner` (as frame_owner) names is its still, as far as the keeper knows. Lock-free.
bool is_active_owner(const Control& control, std::uint32_t owner);

// Looks at all slots for the keeper. Thread safety: one thread.
class SlotMonitor {
 public:
  SlotMonitor(const Control& control, ByteLockFile& locks) : control_(control), locks_(locks) {}

  // Marks slots dead whose owners are gone, and returns them. A system call per slot in use.
  std::vector<std::uint32_t> find_deaths();
  // Gives a dead slot free for use; its claims have been repaired.
  void release_dead(std::uint32_t index) const;

  SlotState state(std::uint32_t index) const {
    // SYNC: pairs with the CASes of the word.
    return slot_state(control_.slot(index).word.load(std::memory_order_acquire));
  }

 private:
  const Control& control_;
  ByteLockFile& locks_;
  std::array<std::int64_t, kMaxSlots> taken_since_ns_{};
};

}  // namespace ringtail::shm
