// How an appender gets its byte range and offset: the fetch_add, and everything that can be in its way.

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/topic_config.h"
#include "log/appender.h"
#include "log/wide_cas.h"
#include "shm/futex.h"

namespace ringtail::log {

using shm::Phase;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

// So often a call may go round before it asks how late it is: more than others' claims can make it.
constexpr unsigned kFreeTurns = 1'000;
constexpr std::int64_t kRoomBellNs = 20'000'000;  // as often as the keeper looks for those who wait

inline void cpu_relax() { __builtin_ia32_pause(); }

}  // namespace

// The way of a claim that is not the first to be tried, or not of the common kind.
std::optional<SendError> Appender::take_slowly(std::uint32_t bytes, std::uint32_t records, Claimed& out) {
  Patience patience;
  for (;;) {
    if (!exhausted_) {
      slot_->announce(Phase::claiming, partition_.index);
      if (place(advance_tail(bytes, records, out.timestamp_ns), bytes, out)) return std::nullopt;
    }
    if (auto error = next_term(patience)) {
      slot_->finish();
      return error;
    }
  }
}

// The same for a producer that others may fence: before each claim it asks whether it may. A claim made
// behind the question is known to who fences: he sees the slot's op, and waits for it.
std::optional<SendError> Appender::take_guarded(std::uint32_t bytes, std::uint32_t records, Claimed& out) {
  Patience patience;
  for (;;) {
    if (!exhausted_) {
      // SYNC: a full barrier between the announcement and the look at the guard; see Guard::holds.
      slot_->announce_fenced(Phase::claiming, partition_.index);
      if (!stamp_->guard.holds()) {
        slot_->finish();
        return SendError::fenced;
      }
      if (place(advance_tail(bytes, records, out.timestamp_ns), bytes, out)) return std::nullopt;
    }
    if (auto error = next_term(patience)) {
      slot_->finish();
      return error;
    }
  }
}

// What became of a claim that found `tail`. True when it has its place; otherwise the term is exhausted.
bool Appender::place(std::uint64_t tail, std::uint32_t bytes, Claimed& out) {
  const std::uint64_t at = tail_bytes(tail);
  if (!tail_fenced(tail) && at + bytes <= usable_) {
    // Nobody opens this line's next term while a claim of the present one is under way.
    if (line_->number.load(memory_order_relaxed) != term_) adopt();
    out.frame = term_data_ + at;
    out.position = Position(start_ + at);
    out.offset = Offset(line_->base_offset.load(memory_order_relaxed) + tail_records(tail));
    return true;
  }
  // This claim or an earlier one tripped over the term's end. The one that did says where it ended.
  if (!tail_fenced(tail) && at <= usable_) ring_.publish_end(term_, tail);
  exhausted_ = true;
  return false;
}

// The claim itself. Returns the tail before it.
std::uint64_t Appender::advance_tail(std::uint32_t bytes, std::uint32_t records, std::int64_t& timestamp_ns) {
  const std::uint64_t delta = make_tail(0, records, bytes);
  if (!append_time_)
    // SYNC: acquires what the opener of the term published; a full barrier behind the slot's op.
    return line_->tail.fetch_add(delta, memory_order_acq_rel);
  // Append time never runs backwards: it moves with the tail, in one wide compare-and-set.
  WideWord seen = wide_load(&line_->tail);
  for (;;) {
    const bool hopeless = tail_fenced(seen.low) || tail_bytes(seen.low) > usable_;
    const auto last = static_cast<std::int64_t>(seen.high);
    timestamp_ns = hopeless ? last : std::max(last, clock_->now_ns());
    // A claim that trips must not move the time: the term's last record has it.
    const bool trips = tail_bytes(seen.low) + bytes > usable_;
    const WideWord next{hopeless ? seen.low : seen.low + delta,
                        trips ? seen.high : static_cast<std::uint64_t>(timestamp_ns)};
    // SYNC: as the fetch_add above.
    if (wide_compare_exchange(&line_->tail, seen, next)) return seen.low;
  }
}

// A claim hit a later term on the same line than expected: this appender slept for a lap or more.
void Appender::adopt() {
  term_ = line_->number.load(memory_order_relaxed);
  start_ = ring_.term_start(term_).value();
}

// Requires Phase::helping, announced before active_term was read.
void Appender::attach_term(std::uint64_t term) {
  line_ = &ring_.line(term);
  term_ = term;
  term_data_ = ring_.term_data(term);
  start_ = ring_.term_start(term).value();
  usable_ = ring_.usable_term_bytes();
  // Overshooting a term that is full already would be one overshoot more than tails have room for.
  const std::uint64_t tail = line_->tail.load(memory_order_acquire);  // SYNC: pairs with its opening
  exhausted_ = tail_fenced(tail) || tail_bytes(tail) > usable_;
}

// Whether the call has waited for as long as it may, since the first time that this was asked.
bool Appender::is_late(Patience& patience, std::int64_t now_ns) const {
  if (patience.deadline_ns == 0) patience.deadline_ns = now_ns + std::chrono::nanoseconds(max_block_).count();
  return now_ns >= patience.deadline_ns;
}

// Readers do not ring when they have made room, and a keeper that rests does not look for it.
SendError Appender::refuse_for_room() {
  const std::int64_t now = monotonic_ns();
  if (now >= room_bell_ns_) {
    room_bell_ns_ = now + kRoomBellNs;
    partition_.control->wake_keeper();
  }
  return SendError::would_block;
}

// Moves to a term that can be claimed from, helping to open it. On success claims may go on.
std::optional<SendError> Appender::next_term(Patience& patience) {
  for (unsigned spins = 0;; ++spins) {
    // Words that another process wrote over could lead round in circles.
    if (++patience.turns > kFreeTurns && is_late(patience, monotonic_ns())) return SendError::timed_out;
    if (!ring_ || ring_.sealed()) {
      if (auto error = next_ring(patience)) return error;
    }
    slot_->announce_fenced(Phase::helping, partition_.index);
    // SYNC: pairs with the release CAS in rotate; behind the announcement's full barrier.
    const std::uint64_t active = ring_.header().active_term.load(memory_order_acquire);
    // No term is opened ahead of the limit, which only rises.
    if (active >= ring_.header().term_limit.load(memory_order_relaxed)) return SendError::corrupt;
    if (line_ == nullptr || active > term_) {
      attach_term(active);
      if (!exhausted_) return std::nullopt;
      spins = 0;
    }
    switch (ring_.rotate(term_)) {
      case Ring::Rotation::done: continue;
      case Ring::Rotation::full:
        slot_->finish();
        if (static_cast<OnFull>(on_full_) == OnFull::fail) return refuse_for_room();
        if (auto error = wait_for_space(patience)) return error;
        break;
      case Ring::Rotation::sealed:
        slot_->finish();
        if (auto error = next_ring(patience)) return error;
        break;
      case Ring::Rotation::unknown_end:
        // Its tripper is between two instructions; if it died there, the keeper finds out.
        if (tail_fenced(line_->tail.load(memory_order_relaxed))) {
          slot_->finish();
          if (auto error = next_ring(patience)) return error;
        } else if (spins < 1000) {
          cpu_relax();
        } else {
          slot_->finish();
          if (auto error = leave_to_keeper(patience)) return error;
        }
        break;
    }
  }
}

// Lets the keeper find out about a tripper that says nothing. By a sleep, not by yielding:
// docs/performance.md, "Yielding".
std::optional<SendError> Appender::leave_to_keeper(Patience& patience) {
  if (auto error = check_entry()) return error;
  if (is_late(patience, monotonic_ns())) return SendError::timed_out;
  partition_.control->wake_keeper();
  std::this_thread::sleep_for(std::chrono::nanoseconds(1));
  return std::nullopt;
}

std::optional<SendError> Appender::wait_for_space(Patience& patience) {
  if (is_late(patience, monotonic_ns())) return SendError::timed_out;
  const std::uint32_t seq = entry_->space_seq.load(memory_order_acquire);  // SYNC: pairs with the bump
  // SYNC: a full barrier between raising the flag and looking again; pairs with notify_waiters.
  entry_->space_waiters.exchange(1, std::memory_order_seq_cst);
  if (auto error = check_entry()) return error;
  // SYNC: pairs with the keeper's release store of term_limit.
  const bool space = ring_.header().term_limit.load(memory_order_acquire) > term_ + 1;
  if (space || ring_.sealed()) return std::nullopt;
  partition_.control->wake_keeper();
  shm::futex_wait(entry_->space_seq, seq, patience.deadline_ns);
  return check_entry();
}

// Waits for the ring that follows the sealed (or fenced) one, and maps it.
std::optional<SendError> Appender::next_ring(Patience& patience) {
  for (;;) {
    if (auto error = check_entry()) return error;
    // SYNC: pairs with the keeper's release store after the new ring is in its place.
    const std::uint64_t generation = entry_->ring_generation.load(memory_order_acquire);
    // Something has changed; it may have been the fence, which is lifted where this host leads again.
    if (ring_ && line_ == nullptr && generation == ring_.generation() && !ring_.sealed()) return std::nullopt;
    if (!ring_ || generation != ring_.generation()) {
      const std::optional<std::uint64_t> left = ring_ ? std::optional(ring_.generation()) : std::nullopt;
      const Status opened = open_ring();
      if (!opened && opened.error().code != Code::not_found) {
        cause_ = opened.error().message;
        return SendError::closed;
      }
      // The one that was left may still be in its place, whatever the entry says.
      if (opened && left != ring_.generation()) return std::nullopt;
    }
    const std::int64_t now = monotonic_ns();
    if (is_late(patience, now)) return SendError::timed_out;
    const std::uint32_t seq = entry_->space_seq.load(memory_order_acquire);  // SYNC: pairs with the bump
    // SYNC: as in wait_for_space.
    entry_->space_waiters.exchange(1, std::memory_order_seq_cst);
    if (entry_->ring_generation.load(memory_order_acquire) != generation) continue;  // SYNC: as above
    partition_.control->wake_keeper();
    shm::futex_wait(entry_->space_seq, seq, std::min(patience.deadline_ns, now + 10'000'000));
  }
}

Status Appender::open_ring() {
  auto ring = Ring::open(ring_path(partition_.shm_dir, partition_.topic, partition_.partition), false);
  if (!ring) return std::unexpected(ring.error());
  if (ring->header().topic_id != partition_.topic_id)
    return fail(Code::closed, "topic '" + partition_.topic + "' was deleted");
  ring_ = std::move(*ring);
  line_ = nullptr;
  exhausted_ = true;
  limit_records();
  return {};
}

}  // namespace ringtail::log
