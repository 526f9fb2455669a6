// A producer that has its partition for itself: how it gets it, and where the next record goes. Nobody else writes
// to the ring, so places are counted here and commits are plain stores; ring.md, "Alone", tells why that is safe.

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/clock.h"
#include "base/topic_config.h"
#include "log/appender.h"
#include "shm/futex.h"

namespace ringtail::log {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::int64_t kLookNs = 10'000'000;
constexpr unsigned kFreeTurns = 1'000;

}  // namespace

// --- Having it -----------------------------------------------------------------------------------

Status Appender::ask_exclusive() {
  const std::string where =
      fmt::format("topic '{}' partition {}", partition_.topic, partition_.partition.value());
  if (entry_->transactional.load(memory_order_relaxed) != 0)
    return fail(Code::unsupported,
                where +
                    ": transactions have been sent to it, whose ends others append; open the "
                    "producer without `exclusive`");
  exclusive_ = true;
  for (Patience patience;;) {
    std::uint32_t holder = 0;
    // SYNC: pairs with the keeper's acquire load, and with whoever held it before.
    if (entry_->exclusive.compare_exchange_strong(holder, slot_->owner(), memory_order_acq_rel)) break;
    if (shm::is_active_owner(*partition_.control, holder)) {
      const shm::Slot& slot = partition_.control->slot(shm::owner_slot(holder));
      return fail(Code::held_exclusively,
                  fmt::format("{}: the producer of pid {} has it for itself; close that one first", where,
                              slot.pid.load(memory_order_relaxed)));
    }
    // Of a dead one the keeper takes it back, within some milliseconds.
    if (is_late(patience, monotonic_ns()))
      return fail(
          Code::no_keeper,
          where + ": a producer that has died had it for itself, and no keeper is there to take it back");
    partition_.control->wake_keeper();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  partition_.control->wake_keeper();
  return {};
}

void Appender::release_exclusive() {
  if (!exclusive_ || !partition_.is_current()) return;
  std::uint32_t mine = slot_->owner();
  // SYNC: behind all that was appended; pairs with the keeper's acquire load.
  entry_->exclusive.compare_exchange_strong(mine, 0, memory_order_acq_rel);
  partition_.control->wake_keeper();
}

// Waits until the newest ring is this appender's, and goes on where its frames end.
std::optional<SendError> Appender::wait_for_grant(Patience& patience) {
  for (;;) {
    if (auto error = check_entry()) return error;
    const std::uint32_t seq = entry_->space_seq.load(memory_order_acquire);  // SYNC: pairs with the bump
    // SYNC: a full barrier between raising the flag and looking; pairs with notify_waiters.
    entry_->space_waiters.exchange(1, std::memory_order_seq_cst);
    // SYNC: pairs with the keeper's release store after the new ring is in its place.
    if (!ring_ || entry_->ring_generation.load(memory_order_acquire) != ring_.generation()) {
      const Status opened = open_ring();
      if (!opened && opened.error().code != Code::not_found) {
        cause_ = opened.error().message;
        return SendError::closed;
      }
    }
    // SYNC: pairs with the release store in Ring::own.
    const std::uint64_t grant = ring_ ? ring_.header().grant.load(memory_order_acquire) : 0;
    if (ring_ && ring_.is_owned() && grant_owner(grant) == slot_->owner()) {
      alone_.grant = grant;
      const auto error = adopt_alone();
      // What was read may be of a ring that was given on just then.
      if (!error || ring_.header().grant.load(memory_order_acquire) == grant) return error;  // SYNC: as above
      if (is_late(patience, monotonic_ns())) return SendError::timed_out;
      continue;
    }
    // The keeper has refused it.
    if (entry_->exclusive.load(memory_order_relaxed) != slot_->owner()) return SendError::held_exclusively;
    const std::int64_t now = monotonic_ns();
    if (is_late(patience, now)) return SendError::timed_out;
    partition_.control->wake_keeper();
    shm::futex_wait(entry_->space_seq, seq, std::min(patience.deadline_ns, now + kLookNs));
  }
}

// The place behind the last frame, as whoever filled the ring before has left it.
std::optional<SendError> Appender::adopt_alone() {
  const std::uint64_t term =
      ring_.header().active_term.load(memory_order_acquire);  // SYNC: pairs with open_alone
  TermLine& line = ring_.line(term);
  const std::uint64_t tail = line.fenced.load(memory_order_relaxed);
  const std::uint64_t used = tail_bytes(tail);
  // Unless it is full, a term has room for a pad.
  const bool possible = used <= ring_.usable_term_bytes() || used == ring_.term_bytes();
  if (!possible || tail_lap(tail) != ring_.lap(term)) return SendError::corrupt;
  line_ = &line;
  term_ = term;
  term_data_ = ring_.term_data(term);
  start_ = ring_.term_start(term).value();
  usable_ = ring_.usable_term_bytes();
  alone_.used = used;
  alone_.base = line.base_offset.load(memory_order_relaxed);
  alone_.next = alone_.base + tail_records(tail);
  alone_.lap = ring_.lap(term);
  alone_.line = line_;
  return std::nullopt;
}

// --- Places --------------------------------------------------------------------------------------

// Announced already: the ring is not this appender's any more, or the term is full.
std::optional<SendError> Appender::take_alone_slowly(std::uint32_t bytes, Claimed& out) {
  for (Patience patience;;) {
    if (has_grant()) {
      if (alone_.used + bytes <= usable_) {
        out = place_alone();
        return std::nullopt;
      }
      if (end_term_alone()) continue;
    }
    const bool full = has_grant();
    slot_->finish();
    // Words that another process wrote over could lead round in circles.
    if (++patience.turns > kFreeTurns && is_late(patience, monotonic_ns())) return SendError::timed_out;
    if (full && static_cast<OnFull>(on_full_) == OnFull::fail) return refuse_for_room();
    if (auto error = full ? wait_for_space(patience) : wait_for_grant(patience)) return error;
    announce_alone();
  }
}

// On to the next term, if the keeper has made it clean.
bool Appender::end_term_alone() {
  const Offset next(alone_.next);
  // SYNC: as in Ring::open_alone; asked before anything is done that ends this term.
  if (ring_.header().term_limit.load(memory_order_acquire) <= term_ + 1) return false;
  if (alone_.used < ring_.term_bytes()) {
    // Said ahead of the pad: a keeper that comes behind a death between finds the pad missing, not the end.
    ring_.publish_end(term_, tail_alone() & ~kFence);
    publish_filler(term_data_ + alone_.used, 0, format::FrameType::pad,
                   static_cast<std::uint32_t>(ring_.term_bytes() - alone_.used), next, 0);
    alone_.used = ring_.term_bytes();
    // SYNC: as in commit_alone.
    line_->fenced.store(tail_alone(), memory_order_release);
  }
  if (!ring_.open_alone(term_, next)) return false;
  return !adopt_alone();
}

std::int64_t Appender::next_append_time() {
  const std::int64_t now = std::max(line_->last_append_ns.load(memory_order_relaxed), clock_->now_ns());
  line_->last_append_ns.store(now, memory_order_relaxed);
  return now;
}

// The keeper was giving this append up while it was committed. It counts if it stands before the ring's end, which is
// decided when the ring is replaced.
bool Appender::was_kept_alone(const std::byte* frame) {
  const Position at(start_ + static_cast<std::uint64_t>(frame - term_data_));
  for (Patience patience;;) {
    if (const auto end = ring_.decided_end()) return at < *end;
    const auto state =
        entry_->state.load(memory_order_acquire);  // SYNC: pairs with PartitionKeeper::fail_with
    const bool has_failed = state == static_cast<std::uint32_t>(shm::PartitionState::failed);
    if (has_failed || is_late(patience, monotonic_ns())) {
      unanswered_ = true;
      notify();
      return false;
    }
    partition_.control->wake_keeper();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace ringtail::log
