// A ring that one alone fills, a follower's shipper or an exclusive producer; and what is taken back of it.
#include <cstring>

#include "log/ring.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// The term that takes what comes next; its opener may have died before he said so.
std::uint64_t Ring::settle_active_term() const {
  std::uint64_t active = header_->active_term.load(memory_order_relaxed);
  for (std::uint32_t i = 1; i < term_count_; ++i, ++active)
    if (tail_lap(line(active + 1).tail.load(memory_order_relaxed)) != lap(active + 1)) break;
  header_->active_term.store(active, memory_order_release);  // SYNC: as in rotate
  return active;
}

std::uint64_t Ring::tail_at(std::uint64_t term, const End& end) const {
  return make_tail(lap(term), end.offset.value() - line(term).base_offset.load(memory_order_relaxed),
                   end.position - term_start(term));
}

void Ring::follow(const End& end) const { fill_alone(end, FilledBy::follower); }

void Ring::own(const End& end, std::uint32_t owner) const {
  fill_alone(end, FilledBy::owner);
  const std::uint64_t grant = next_grant(header_->grant.load(memory_order_relaxed), owner);
  header_->grant.store(grant,
                       memory_order_release);  // SYNC: publishes the tails; pairs with Appender::adopt_alone
}

void Ring::clear_behind(const End& end) const {
  const std::uint64_t term = term_of(end.position);
  const std::uint64_t used = end.position - term_start(term);
  // Where the term before is full, this one may not be open yet.
  if (used == 0 && settle_active_term() != term) return;
  std::memset(term_data(term) + used, 0, term_bytes_ - used);
  // He may have said that the term ends there, and not come to its pad.
  line(term).end.store(make_tail(lap(term) - 1, 0, 0), memory_order_relaxed);
}

std::optional<Position> Ring::decided_end() const {
  if (!sealed()) return std::nullopt;
  return Position(header_->sealed_position.load(memory_order_relaxed));
}

bool Ring::open_alone(std::uint64_t term, Offset base) const {
  // SYNC: pairs with the keeper's release store of term_limit: the term's memory is zero.
  if (header_->term_limit.load(memory_order_acquire) <= term + 1) return false;
  TermLine& to = line(term + 1);
  const std::uint64_t tail = make_tail(lap(term + 1), 0, 0) | kFence;
  to.number.store(term + 1, memory_order_relaxed);
  to.base_offset.store(base.value(), memory_order_relaxed);
  to.last_append_ns.store(line(term).last_append_ns.load(memory_order_relaxed), memory_order_relaxed);
  to.tail.store(tail, memory_order_relaxed);
  to.fenced.store(tail, memory_order_release);                 // SYNC: pairs with claimed_tail
  header_->active_term.store(term + 1, memory_order_release);  // SYNC: pairs with the acquire loads of it
  return true;
}

void Ring::fill_alone(const End& end, FilledBy by) const {
  const std::uint64_t active = settle_active_term();
  for (std::uint32_t i = 0; i < term_count_; ++i) {
    TermLine& l = header_->terms[i];
    const std::uint64_t tail =
        i == active % term_count_ ? tail_at(active, end) : l.tail.load(memory_order_relaxed);
    l.fenced.store(tail | kFence, memory_order_relaxed);
  }
  // SYNC: publishes the tails; pairs with claimed_tail.
  header_->filled_by.store(static_cast<std::uint32_t>(by), memory_order_release);
}

void Ring::unfence(const End& end) const {
  const std::uint64_t active = settle_active_term();
  const auto tail_of = [&](std::uint32_t i) {
    // The others are used up, or not open yet: whoever still claims there finds no room.
    const std::uint64_t lap = tail_lap(header_->terms[i].tail.load(memory_order_relaxed));
    return i == active % term_count_ ? tail_at(active, end) : make_tail(lap, 0, term_bytes_);
  };
  // What holds once claims count, while none does yet; for a keeper that comes behind a death in the midst of this.
  for (std::uint32_t i = 0; i < term_count_; ++i)
    header_->terms[i].fenced.store(tail_of(i) | kFence, memory_order_relaxed);
  header_->filled_by.store(static_cast<std::uint32_t>(FilledBy::claimers),
                           memory_order_release);  // SYNC: as below
  // The first line comes last, as it does in fence: as long as it is fenced, the ring is taken for one that is being
  // replaced.
  for (std::uint32_t i = term_count_; i-- > 0;) {
    TermLine& l = header_->terms[i];
    const std::uint64_t tail = tail_of(i);
    // While one alone filled the ring, the tail stood still: it holds again before `fenced` does not any more.
    l.tail.store(tail | kFence, memory_order_relaxed);
    l.fenced.store(
        0, memory_order_release);  // SYNC: behind the tail, for who comes behind a death; see claimed_tail
    // SYNC: claims are read-modify-writes of this word: each came before, and failed, or finds this and what
    // stands before it.
    l.tail.store(tail, memory_order_release);
  }
}

void Ring::begin_cut(const End& end) const {
  header_->sealed_position.store(end.position.value(), memory_order_relaxed);
  header_->sealed_offset.store(end.offset.value(), memory_order_relaxed);
  // SYNC: publishes both to a keeper that comes behind this one's death.
  header_->state.store(static_cast<std::uint32_t>(RingState::being_cut), memory_order_release);
}

std::optional<Ring::End> Ring::unfinished_cut() const {
  // SYNC: as in begin_cut
  if (header_->state.load(memory_order_acquire) != static_cast<std::uint32_t>(RingState::being_cut))
    return std::nullopt;
  return End{Position(header_->sealed_position.load(memory_order_relaxed)),
             Offset(header_->sealed_offset.load(memory_order_relaxed))};
}

void Ring::end_cut() const {
  // SYNC: as in begin_cut
  header_->state.store(static_cast<std::uint32_t>(RingState::active), memory_order_release);
}

void Ring::cut(const End& end) const {
  const std::uint64_t term = term_of(end.position);
  // Those behind it that are open, as their own lines tell: another process may have left any number in active_term.
  for (std::uint64_t t = term + term_count_ - 1; t > term; --t) {
    TermLine& l = line(t);
    if (tail_lap(l.tail.load(memory_order_relaxed)) != lap(t)) continue;
    const std::uint64_t before = make_tail(lap(t) - 1, 0, term_bytes_) | kFence;
    std::memset(term_data(t), 0, term_bytes_);
    l.end.store(make_tail(lap(t) - 1, 0, 0), memory_order_relaxed);
    l.fenced.store(before, memory_order_relaxed);
    // SYNC: last, for who comes behind a death: then this term is cut.
    l.tail.store(before, memory_order_release);
  }
  const std::uint64_t used = end.position - term_start(term);
  std::memset(term_data(term) + used, 0, term_bytes_ - used);
  line(term).end.store(make_tail(lap(term) - 1, 0, 0), memory_order_relaxed);
  line(term).fenced.store(tail_at(term, end) | kFence, memory_order_relaxed);
  header_->active_term.store(term, memory_order_release);  // SYNC: as in rotate
}

}  // namespace ringtail::log
