#include "shm/slots.h"

#include <unistd.h>

#include <cstdio>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"

namespace ringtail::shm {

namespace {

// A claimer that dies between taking a slot and locking its byte looks like one that is slow there.
// It is given this long; if it was only slow, it finds the word changed and takes another slot.
constexpr std::int64_t kTakenGraceNs = 1'000'000'000;

void write_name(Slot& slot) {
  char name[16] = {};
  if (std::FILE* file = std::fopen("/proc/self/comm", "re")) {
    const std::size_t n = std::fread(name, 1, sizeof name - 1, file);
    std::fclose(file);
    if (n > 0 && name[n - 1] == '\n') name[n - 1] = 0;
  }
  for (std::size_t i = 0; i < slot.name.size(); ++i) slot.name[i].store(name[i], std::memory_order_relaxed);
}

}  // namespace

Result<OwnedSlot> OwnedSlot::acquire(const Control& control, ByteLockFile& locks, SlotRole role) {
  const auto alone = locks.one_at_a_time();
  for (std::uint32_t index = 0; index < kMaxSlots; ++index) {
    Slot& slot = control.slot(index);
    std::uint64_t word = slot.word.load(std::memory_order_acquire);  // SYNC: pairs with free_dead
    if (slot_state(word) != SlotState::free) continue;
    const std::uint64_t generation = slot_generation(word) + 1;
    std::uint64_t taken = slot_word(generation, SlotState::taken);
    // SYNC: decides between claimers of the slot.
    if (!slot.word.compare_exchange_strong(word, taken, std::memory_order_acq_rel)) continue;
    control.use_slot(index);
    const auto locked = locks.lock(index);
    // Whoever stood still until here was taken for dead perhaps, and the slot has another owner: it is touched only
    // as the one that was taken, and with the lock, without which nobody else writes to it.
    // SYNC: pairs with the keeper's CAS.
    if (!locked || !*locked || slot.word.load(std::memory_order_acquire) != taken) {
      // SYNC: gives it back, unless it was taken away.
      slot.word.compare_exchange_strong(taken, slot_word(generation, SlotState::free),
                                        std::memory_order_acq_rel);
      if (!locked) return std::unexpected(locked.error());
      if (*locked) locks.unlock(index);
      continue;  // the last owner's process has not quite ended
    }
    // The sequence goes on from the last owner's: no op ever recurs.
    const std::uint64_t sequence = op_sequence(slot.op.load(std::memory_order_relaxed));
    slot.op.store(op_word(sequence, Phase::idle, 0), std::memory_order_relaxed);
    slot.given_up.store(kNoOp, std::memory_order_relaxed);
    slot.given_up_done.store(kNoOp, std::memory_order_relaxed);
    slot.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
    slot.role.store(static_cast<std::uint32_t>(role), std::memory_order_relaxed);
    slot.start_ns.store(static_cast<std::uint64_t>(wall_clock_ns()), std::memory_order_relaxed);
    slot.token.store(random_token().value_or(1), std::memory_order_relaxed);
    write_name(slot);
    // SYNC: publishes the fields above; fails if the keeper took us for dead just before the lock.
    if (!slot.word.compare_exchange_strong(taken, slot_word(generation, SlotState::active),
                                           std::memory_order_acq_rel)) {
      locks.unlock(index);
      continue;
    }
    OwnedSlot owned;
    owned.slot_ = &slot;
    owned.locks_ = &locks;
    owned.index_ = index;
    owned.op_ = op_word(sequence, Phase::idle, 0);
    owned.sequence_ = sequence;
    owned.generation_ = generation;
    owned.owner_ = frame_owner(index, generation);
    return owned;
  }
  return fail(
      Code::limit_exceeded,
      fmt::format("all {} slots are taken; close some producers or consumers of this log", kMaxSlots));
}

OwnedSlot::OwnedSlot(OwnedSlot&& other) noexcept { *this = std::move(other); }

OwnedSlot& OwnedSlot::operator=(OwnedSlot&& other) noexcept {
  if (this == &other) return *this;
  release();
  slot_ = std::exchange(other.slot_, nullptr);
  locks_ = other.locks_;
  op_ = other.op_;
  sequence_ = other.sequence_;
  generation_ = other.generation_;
  index_ = other.index_;
  owner_ = other.owner_;
  return *this;
}

void OwnedSlot::release() {
  if (slot_ == nullptr) return;
  Slot* slot = std::exchange(slot_, nullptr);
  const auto alone = locks_->one_at_a_time();  // between the word and the lock nobody else may take both
  if (op_phase(op_) == Phase::idle) {
    std::uint64_t expected = slot_word(generation_, SlotState::active);
    // SYNC: gives the slot to the next claimer.
    slot->word.compare_exchange_strong(expected, slot_word(generation_, SlotState::free),
                                       std::memory_order_acq_rel);
  }
  locks_->unlock(index_);
}

bool is_active_owner(const Control& control, std::uint32_t owner) {
  const std::uint32_t index = owner_slot(owner);
  if (owner == 0 || index >= kMaxSlots) return false;
  const std::uint64_t word =
      control.slot(index).word.load(std::memory_order_acquire);  // SYNC: see find_deaths
  return slot_state(word) == SlotState::active && frame_owner(index, slot_generation(word)) == owner;
}

std::vector<std::uint32_t> SlotMonitor::find_deaths() {
  std::vector<std::uint32_t> dead;
  const auto used = static_cast<std::uint32_t>(control_.slots().size());
  for (std::uint32_t index = 0; index < used; ++index) {
    Slot& slot = control_.slot(index);
    std::uint64_t word = slot.word.load(std::memory_order_acquire);  // SYNC: pairs with the owner's CAS
    const SlotState state = slot_state(word);
    if (state != SlotState::taken) taken_since_ns_[index] = 0;
    if (state == SlotState::free || state == SlotState::dead) continue;
    if (auto locked = locks_.is_locked(index); !locked || *locked) continue;
    if (state == SlotState::taken) {
      const std::int64_t now = monotonic_ns();
      if (taken_since_ns_[index] == 0) taken_since_ns_[index] = now;
      if (now - taken_since_ns_[index] < kTakenGraceNs) continue;
      // SYNC: against the claimer's last step, which then fails.
      slot.word.compare_exchange_strong(word, slot_word(slot_generation(word), SlotState::free),
                                        std::memory_order_acq_rel);
    } else if (slot.word.compare_exchange_strong(word, slot_word(slot_generation(word), SlotState::dead),
                                                 std::memory_order_acq_rel)) {
      // SYNC: against the owner's release, which wins if it came first.
      dead.push_back(index);
    }
  }
  return dead;
}

void SlotMonitor::release_dead(std::uint32_t index) const {
  Slot& slot = control_.slot(index);
  const std::uint64_t word = slot.word.load(std::memory_order_relaxed);
  if (slot_state(word) != SlotState::dead) return;
  slot.op.store(op_word(op_sequence(slot.op.load(std::memory_order_relaxed)), Phase::idle, 0),
                std::memory_order_relaxed);
  // SYNC: the next claimer acquires it; all traces of the last owner are repaired.
  slot.word.store(slot_word(slot_generation(word), SlotState::free), std::memory_order_release);
}

}  // namespace ringtail::shm
