#include "log/ring_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"

namespace ringtail::log {

namespace {

constexpr std::uint64_t kZeroSlice = 256 << 10;
constexpr std::uint32_t kMostLooks = 2 * shm::kMaxSlots;
constexpr std::size_t kCrcAt = offsetof(format::FrameHeader, crc32c);

template <class T>
T load(const std::byte* frame, std::size_t at) {
  T value;
  std::memcpy(&value, frame + at, sizeof value);
  return value;
}

}  // namespace

using format::FrameType;
using shm::Phase;
using shm::SlotState;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// --- The frontier --------------------------------------------------------------------------------

// Other processes wrote this word. Could it be a frame with `room` bytes left in its term?
static inline bool is_possible(std::uint64_t word, std::uint64_t room) {
  const FrameType type = format::word_type(word);
  const bool known = type >= FrameType::data && type <= FrameType::compressed;
  const bool long_enough =
      type == FrameType::aborted || static_cast<std::uint32_t>(word) >= format::kFrameHeaderBytes;
  const std::uint32_t extent = format::word_extent(word);
  return known && long_enough && extent >= format::kFrameHeaderBytes && extent <= room;
}

Status RingKeeper::check_word(std::uint64_t word, std::uint64_t room) const {
  if (is_possible(word, room)) [[likely]]
    return {};
  return fail(Code::corrupt, fmt::format("ring generation {} holds no valid frame at position {} (state word "
                                         "{:#018x}): some process wrote where it must not",
                                         ring_.generation(), frontier_.value(), word));
}

Result<FrameRun> RingKeeper::scan(std::uint64_t max_bytes) {
  FrameRun run{frontier_, 0, offset_, offset_, format::kNoTimestamp};
  std::uint64_t term = ring_.term_of(frontier_);
  // A term not opened yet may hold an old lap's bytes.
  if (ring_.last_open_term() < term) return run;
  if (term - ring_.term_of(oldest_) >= ring_.term_count()) [[unlikely]]
    return corrupt_term(term, "is said to be there beside all those before it");
  // What the owner of such a ring commits behind its end is no record.
  if (ring_.scribbled() == Scribbled::by_owner) [[unlikely]]
    if (const auto end = ring_.decided_end())
      max_bytes = std::min<std::uint64_t>(max_bytes, *end > frontier_ ? *end - frontier_ : 0);
  std::byte* frame = ring_.at(frontier_);
  std::uint64_t room = ring_.term_start(term + 1) - frontier_;
  while (run.bytes < max_bytes) {
    // SYNC: pairs with the release CAS of commit_word and publish_filler.
    const std::uint64_t word = format::load_state_word(frame, memory_order_acquire);
    if (!format::word_is_resolved(word)) break;
    if (!is_possible(word, room)) [[unlikely]]
      return std::unexpected(check_word(word, room).error());
    const std::uint32_t extent = format::word_extent(word);
    const FrameType type = format::word_type(word);
    std::uint64_t records = 1;
    // Only claimers write over what was theirs: an owner's frame that is aborted tells by itself.
    if (type == FrameType::aborted && ring_.scribbled() == Scribbled::by_claimer) [[unlikely]] {
      const auto told = ring_.scribbled_records(run.position + run.bytes, extent, run.next_offset);
      if (!told) break;
      if (*told > kRecordsMask) return corrupt_term(term, "holds an impossible number of records");
      records = *told;
    } else if (const auto offset = load<std::uint64_t>(frame, offsetof(format::FrameHeader, offset));
               offset != run.next_offset.value()) [[unlikely]] {
      return fail(
          Code::corrupt,
          fmt::format("ring generation {}: the frame at position {} has offset {}, expected {}",
                      ring_.generation(), run.position.value() + run.bytes, offset, run.next_offset.value()));
    } else if (type == FrameType::pad || type == FrameType::aborted) {
      records = load<std::uint32_t>(frame, offsetof(format::FrameHeader, key_length));
    }
    if (type != FrameType::pad && type != FrameType::aborted) [[likely]] {
      settle_record(frame, extent, static_cast<std::uint32_t>(word));
      run.max_timestamp_ns = std::max(run.max_timestamp_ns,
                                      load<std::int64_t>(frame, offsetof(format::FrameHeader, timestamp_ns)));
    } else {
      settle_filler(frame, extent, run.next_offset, static_cast<std::uint32_t>(records));
    }
    run.next_offset += records;
    run.bytes += extent;
    frame += extent;
    room -= extent;
    if (room == 0) break;  // the next term is looked at by the next call
  }
  frontier_ = run.position + run.bytes;
  offset_ = run.next_offset;
  return run;
}

// Where the keeper completes a frame: where it stands, or in the copy.
std::byte* RingKeeper::place_of(std::byte* frame, std::uint32_t extent) const {
  if (copy_ == nullptr) [[likely]]
    return frame;
  std::byte* const place = copy_ + (frame - ring_.data());
  std::memcpy(place, frame, extent);
  return place;
}

// Gives a record its checksum. `length` was read once and checked: other processes could change what
// stands in the ring.
void RingKeeper::settle_record(std::byte* frame, std::uint32_t extent, std::uint32_t length) const {
  std::byte* const place = place_of(frame, extent);
  constexpr std::size_t body_at = format::kFrameHeaderBytes;
  const std::uint32_t crc = crc32c(crc32c(0, {place, kCrcAt}), {place + body_at, length - body_at});
  std::memcpy(place + kCrcAt, &crc, sizeof crc);
}

// The same for a pad or an aborted frame, which hold nothing that counts. The late owner of an aborted
// claim may have written his header over it.
void RingKeeper::settle_filler(std::byte* frame, std::uint32_t extent, Offset offset,
                               std::uint32_t records) const {
  std::byte* const place = place_of(frame, extent);
  if (copy_ != nullptr) {
    const std::uint64_t at = offset.value();
    std::memcpy(place, &extent, sizeof extent);
    std::memcpy(place + offsetof(format::FrameHeader, offset), &at, sizeof at);
    std::memcpy(place + offsetof(format::FrameHeader, key_length), &records, sizeof records);
  }
  const std::uint32_t crc = crc32c(0, {place, kCrcAt});
  std::memcpy(place + kCrcAt, &crc, sizeof crc);
}

// A claim was given up in this ring: what aborted frames say of offsets may have been written over.
bool RingKeeper::is_scribbled() const { return ring_.scribbled() != Scribbled::no; }

void RingKeeper::skip_to_term_of_head() {
  const Position head(ring_.header().head.load(memory_order_relaxed));
  if (head <= frontier_) return;
  const auto offset = ring_.offset_at(head);
  if (!offset) return;
  frontier_ = oldest_ = head;
  offset_ = *offset;
}

void RingKeeper::help_rotate() {
  const std::uint64_t term = ring_.header().active_term.load(memory_order_acquire);  // SYNC: see rotate
  const std::uint64_t tail = ring_.line(term).tail.load(memory_order_acquire);       // SYNC: see rotate
  if (!tail_fenced(tail) && tail_bytes(tail) > ring_.usable_term_bytes()) ring_.rotate(term);
}

// --- Repair --------------------------------------------------------------------------------------

void RingKeeper::begin_inquiry() {
  inquiry_.active = true;
  // SYNC: the tail before the ops: who claimed below it had announced so before (its fetch_add is a
  // full barrier), or has moved on already (ring.pml, INQUIRE).
  inquiry_.term = ring_.header().active_term.load(memory_order_acquire);
  inquiry_.tail = ring_.claimed_tail(inquiry_.term);
  inquiry_.waiting_for.fill(shm::kNoOp);
  const auto used = static_cast<std::uint32_t>(control_->slots().size());
  for (std::uint32_t i = 0; i < used; ++i) {
    const std::uint64_t op = control_->slot(i).op.load(std::memory_order_seq_cst);  // SYNC: see above
    const bool claims = shm::op_phase(op) == Phase::claiming && shm::op_partition(op) == partition_;
    inquiry_.waiting_for[i] = claims ? op : shm::kNoOp;
  }
}

Result<bool> RingKeeper::step_inquiry(const shm::SlotMonitor& slots) {
  bool waiting = false;
  const auto used = static_cast<std::uint32_t>(control_->slots().size());
  for (std::uint32_t i = 0; i < used; ++i) {
    std::uint64_t& op = inquiry_.waiting_for[i];
    if (op == shm::kNoOp) continue;
    // SYNC: pairs with OwnedSlot::finish: the claim's frame is visible.
    const bool moved_on = control_->slot(i).op.load(memory_order_acquire) != op;
    if (moved_on || slots.state(i) != SlotState::active || is_given_up(i))
      op = shm::kNoOp;
    else
      waiting = true;
  }
  if (waiting) return false;
  inquiry_.active = false;
  open_claims_ = 0;
  // Terms of a memory topic may have been recycled meanwhile: what is zero there is no hole.
  skip_to_term_of_head();
  // All that is unresolved now below the noted tail, but for open claims, belongs to nobody.
  const std::uint64_t first = ring_.term_of(frontier_);
  if (inquiry_.term > first && inquiry_.term - first > ring_.term_count())
    return corrupt_term(inquiry_.term, "is said to be the active one");
  for (std::uint64_t term = first; term <= inquiry_.term; ++term) {
    // Owners of claims that were given up may wake meanwhile, each once.
    Result<bool> filled = false;
    for (std::uint32_t looks = 0; filled && !*filled && looks < kMostLooks; ++looks) filled = fill_term(term);
    if (!filled) return std::unexpected(filled.error());
    if (!*filled) return corrupt_term(term, "does not come to rest");
  }
  return true;
}

// Once its owner has gone on to another operation, the claim is settled, and the next one counts.
bool RingKeeper::is_given_up(std::uint32_t slot) const {
  const shm::Slot& entry = control_->slot(slot);
  // SYNC: pairs with OwnedSlot's stores of op.
  return shm::is_same_claim(entry.op.load(memory_order_acquire), entry.given_up.load(memory_order_relaxed));
}

// Whether the frame whose state was `word`, with `room` bytes up to where claims end, is that of a living try_claim:
// resolved by its owner, later. One that a keeper has seized is not, whoever made it: its owner cannot resolve it. Nor
// is one whose word claims nothing, whatever owner it names: some process wrote where it must not.
bool RingKeeper::is_live_open(const std::byte* frame, std::uint64_t word, std::uint64_t room) const {
  if (format::word_length(word) >= 0 || room < format::kFrameHeaderBytes || format::word_is_seized(word))
    return false;
  const std::uint32_t owner = format::load_header(frame).crc32c;
  return shm::is_active_owner(*control_, owner) && !is_given_up(shm::owner_slot(owner));
}

std::unexpected<Error> RingKeeper::corrupt_term(std::uint64_t term, const char* what) const {
  return fail(Code::corrupt,
              fmt::format("ring generation {}: term {} {}: some process wrote where it must not",
                          ring_.generation(), term, what));
}

Result<RingKeeper::Bounds> RingKeeper::bounds_of(std::uint64_t term) const {
  const Position start = ring_.term_start(term);
  const Offset base(ring_.line(term).base_offset.load(memory_order_relaxed));
  const Bounds noted{tail_bytes(inquiry_.tail), base + tail_records(inquiry_.tail), true};
  // Claims that failed at the fence moved the tail, but nothing lies behind the seal.
  if (const auto end = ring_.sealed() ? ring_.exact_end() : std::nullopt) {
    if ((end->position - start) % format::kFrameAlignment != 0)
      return corrupt_term(term, "has an impossible seal");
    if (end->position <= start) return Bounds{0, end->offset, true};
    // Of who claimed behind the noted tail, and before the fence, nobody has asked.
    if (end->position <= ring_.term_start(term + 1))
      return term == inquiry_.term && start + tail_bytes(inquiry_.tail) < end->position
                 ? noted
                 : Bounds{end->position - start, end->offset, true};
  }
  if (term == inquiry_.term && tail_bytes(inquiry_.tail) <= ring_.usable_term_bytes()) return noted;
  const std::uint64_t end = ring_.line(term).end.load(memory_order_acquire);  // SYNC: pairs with publish_end
  if (tail_lap(end) != ring_.lap(term)) return Bounds{ring_.usable_term_bytes(), base, false};
  if (tail_bytes(end) > ring_.usable_term_bytes()) return corrupt_term(term, "has an impossible end");
  return Bounds{tail_bytes(end), base + tail_records(end), true};
}

Result<bool> RingKeeper::fill_term(std::uint64_t term) {
  const Position start = ring_.term_start(term);
  std::byte* const data = ring_.term_data(term);
  std::uint64_t at = frontier_ > start ? frontier_ - start : 0;
  Offset next = frontier_ > start ? offset_ : Offset(ring_.line(term).base_offset.load(memory_order_relaxed));
  const auto bounds = bounds_of(term);
  if (!bounds) return std::unexpected(bounds.error());
  const std::uint64_t limit = bounds->limit;
  // Owners of claims that were given up may wake meanwhile, each once; another process could write without end.
  std::uint32_t looks = 0;

  while (at < limit) {
    const std::uint64_t word = format::load_state_word(data + at, memory_order_acquire);  // SYNC: see scan
    if (format::word_is_resolved(word)) {
      if (auto valid = check_word(word, ring_.term_bytes() - at); !valid)
        return std::unexpected(valid.error());
      const format::FrameHeader header = format::load_header_once(data + at, word);
      next = Offset(header.offset) + format::frame_records(header);
      at += format::word_extent(word);
      continue;
    }
    if (is_live_open(data + at, word, limit - at)) {
      if (format::claimed_bytes(word) > limit - at) return corrupt_term(term, "holds an impossible claim");
      next = Offset(format::load_header(data + at).offset) + 1;
      at += format::claimed_bytes(word);
      ++open_claims_;
      continue;
    }
    const std::uint64_t hole_end = end_of_hole(data, at, limit);
    // A claim that was given up was committed since the look above; look at it again.
    if (hole_end == at) {
      if (++looks > kMostLooks) return corrupt_term(term, "does not come to rest");
      continue;
    }
    if (hole_end != limit && limit - hole_end < format::kFrameHeaderBytes)
      return corrupt_term(term, "has no room for its last frame");
    if (hole_end == limit && !bounds->known) break;
    const Offset following =
        hole_end == limit ? bounds->following : Offset(format::load_header(data + hole_end).offset);
    if (is_scribbled()) next = std::min(next, following);
    const std::uint64_t records = following - next;
    if (following < next || records > kRecordsMask || hole_end - at < format::kFrameHeaderBytes)
      return fail(Code::corrupt,
                  fmt::format("ring generation {}: the hole at position {} ({} bytes) lies between "
                              "offsets {} and {}",
                              ring_.generation(), (start + at).value(), hole_end - at, next.value(),
                              following.value()));
    // Fails when a claim that was given up woke just now; then look at it again.
    const auto extent = static_cast<std::uint32_t>(hole_end - at);
    if (!seize(data + at, word, extent)) {
      if (++looks > kMostLooks) return corrupt_term(term, "does not come to rest");
      continue;
    }
    fill_seized(data + at, extent, next, static_cast<std::uint32_t>(records));
    repaired_records_ += records;
    at = hole_end;
    next = following;
  }
  if (bounds->known) return true;
  return close_tripped_term(term, at, next);
}

// Takes the hole at `frame` from whoever may still wake and commit it; false when its word is another by now.
// The filler's fields come behind this: before it they would end up in the record of an owner who wakes just
// then, and of a keeper that dies just then they would be bytes that look like a frame (ring.pml, SEIZE).
bool RingKeeper::seize(std::byte* frame, std::uint64_t word, std::uint32_t extent) {
  // SYNC: pairs with the compare-and-set of commit_word: one of both fails.
  return format::state_word(frame).compare_exchange_strong(word, format::seized_word(extent),
                                                           std::memory_order_acq_rel, memory_order_relaxed);
}

void RingKeeper::fill_seized(std::byte* frame, std::uint32_t extent, Offset offset, std::uint32_t records) {
  store_filler_fields(frame, offset, records);
  // SYNC: pairs with the acquire loads of state words by readers and the keeper.
  format::state_word(frame).store(format::aborted_word(extent), memory_order_release);
}

// From the hole's start over everything that nobody wrote or will finish.
std::uint64_t RingKeeper::end_of_hole(const std::byte* data, std::uint64_t at, std::uint64_t limit) const {
  std::uint64_t untouched = at;  // from here to `at` all words were zero
  while (at < limit) {
    const std::uint64_t word = format::load_state_word(data + at, memory_order_acquire);  // SYNC: see scan
    if (word == 0) {
      at += format::kFrameAlignment;
      continue;
    }
    // A claim's length is written before all else of it. If a word passed as zero is so no more, the
    // owner of a claim that was given up woke just now: his frame begins there, and `word` is within it.
    // SYNC: see scan
    while (untouched < at && format::load_state_word(data + untouched, memory_order_acquire) == 0)
      untouched += format::kFrameAlignment;
    if (untouched < at) {
      at = untouched;
    } else if (!format::word_is_resolved(word) && !is_live_open(data + at, word, limit - at)) {
      // A word of no length at all is nobody's claim; some process wrote where it must not.
      const std::uint64_t bytes =
          std::max<std::uint64_t>(format::claimed_bytes(word), format::kFrameAlignment);
      at = untouched = at + std::min(bytes, limit - at);
    } else {
      return at;
    }
  }
  return limit;
}

// The claimer that tripped over the term's end died before it said where. Nothing that was committed
// lies at or behind `at`; the rest is given to one aborted frame and a last pad.
Result<bool> RingKeeper::close_tripped_term(std::uint64_t term, std::uint64_t at, Offset next) {
  const std::uint64_t usable = ring_.usable_term_bytes();
  const Offset base(ring_.line(term).base_offset.load(memory_order_relaxed));
  if (at > usable || next < base || next - base > kRecordsMask)
    return corrupt_term(term, "is filled beyond its end");
  const std::uint64_t end = usable - at >= format::kFrameHeaderBytes ? usable : at;
  std::byte* const frame = ring_.term_data(term) + at;
  const auto extent = static_cast<std::uint32_t>(end - at);
  if (extent > 0) {
    // Before the end is said, and with it, that nothing more was claimed. The owner of a claim that was given
    // up may have woken and committed it just now.
    const std::uint64_t word = format::load_state_word(frame, memory_order_acquire);  // SYNC: see scan
    if (format::word_is_resolved(word) || !seize(frame, word, extent)) return false;
  }
  // It was given up, but has woken and said it: then there is an end to go by.
  if (!ring_.publish_end(term, make_tail(ring_.lap(term), next - base, end))) return false;
  if (extent > 0) fill_seized(frame, extent, next, 0);
  ring_.rotate(term);
  return true;
}

// --- Recycling -----------------------------------------------------------------------------------

RingKeeper::Recycled RingKeeper::recycle(Position reusable, const shm::SlotMonitor& slots) {
  RingHeader& header = ring_.header();
  Recycled result;
  const std::uint64_t active = header.active_term.load(memory_order_acquire);  // SYNC: see Ring::rotate
  const std::uint64_t limit = header.term_limit.load(memory_order_relaxed);
  if (limit <= active || limit >= active + 1 + ring_.term_count() / 2) return result;
  result.starving = limit <= active + 1;
  result.hurry = result.starving || tail_bytes(ring_.claimed_tail(active)) > ring_.term_bytes() / 2;
  const std::uint64_t term = limit - ring_.term_count();
  const Position end = ring_.term_start(term + 1);
  if (term >= active || end > reusable || !grace_passed(term, slots)) return result;
  // SYNC: readers that pin below `end` from here on see the new head and leave; those that did
  // before are seen below. Pairs with the pin and look of PartitionReader (ring.pml, HEAD).
  header.head.exchange(end.value(), std::memory_order_seq_cst);
  oldest_ = std::max(oldest_, end);
  // Of a memory topic nobody has scanned that far: producers may use up what becomes clean here before the keeper's
  // next round, and the ring ends no more than a ring's length behind the frontier (can_end_at).
  skip_to_term_of_head();
  if (readers_pin_below(end)) {
    result.blocked_by_pin = true;
    return result;
  }
  const std::uint64_t rest = ring_.term_bytes() - zeroed_;
  result.zeroed = result.starving ? rest : std::min(rest, kZeroSlice);
  std::memset(ring_.term_data(term) + zeroed_, 0, result.zeroed);
  zeroed_ += result.zeroed;
  if (zeroed_ < ring_.term_bytes()) return result;
  zeroed_ = 0;
  // SYNC: publishes the zeroes; pairs with the acquire load in Ring::rotate.
  header.term_limit.store(limit + 1, memory_order_release);
  result.progressed = true;
  return result;
}

// Whether everybody who was at work in this ring when `term` was already behind has moved on since:
// nobody can touch the term's memory or its line any more.
bool RingKeeper::grace_passed(std::uint64_t term, const shm::SlotMonitor& slots) {
  const bool first = grace_term_ != term;
  grace_term_ = term;
  bool passed = true;
  if (first) grace_ops_.fill(shm::kNoOp);
  const auto used = static_cast<std::uint32_t>(control_->slots().size());
  for (std::uint32_t i = 0; i < used; ++i) {
    const shm::Slot& slot = control_->slot(i);
    if (!first && grace_ops_[i] == shm::kNoOp) continue;
    // SYNC: pairs with OwnedSlot::announce_fenced, and with announce by the claim's full barrier
    // (ring.pml, GRACE).
    const std::uint64_t op = slot.op.load(std::memory_order_seq_cst);
    const Phase phase = shm::op_phase(op);
    const bool concerned = phase != Phase::idle && shm::op_partition(op) == partition_ &&
                           !(phase == Phase::open && slot.open_position.load(memory_order_relaxed) >=
                                                         ring_.term_start(term + 1).value()) &&
                           // Settled: it stands still in a ring before this one.
                           !shm::is_same_claim(slot.given_up_done.load(memory_order_relaxed), op);
    // A claim that has become an open one is the same claim still.
    const bool goes_on = first || op == grace_ops_[i] || phase == Phase::open;
    grace_ops_[i] = concerned && goes_on && slots.state(i) == SlotState::active ? op : shm::kNoOp;
    passed = passed && grace_ops_[i] == shm::kNoOp;
  }
  return passed;
}

bool RingKeeper::readers_pin_below(Position end) const {
  for (const shm::Reader& reader : control_->readers()) {
    if (reader.owner.load(memory_order_relaxed) == 0) continue;
    // SYNC: pairs with the reader's seq_cst store of its pin before it looks at head.
    const std::uint64_t pin = reader.pin.load(std::memory_order_seq_cst);
    if (pin < end.value() && reader.partition.load(memory_order_relaxed) == partition_ &&
        reader.ring_generation.load(memory_order_relaxed) == ring_.generation())
      return true;
  }
  return false;
}

}  // namespace ringtail::log
