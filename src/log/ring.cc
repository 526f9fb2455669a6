#include "log/ring.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/crc32c.h"
#include "base/result.h"
#include "log/wide_cas.h"

namespace ringtail::log {

using format::FrameType;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::uint64_t kClosed = ~std::uint64_t{0};  // in sealed_offset: no offset is
// Producers open a term in microseconds. Another process could write one number after the other.
constexpr int kMostLooks = 1'000;

std::uint32_t static_crc(const RingHeader& header) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&header);
  return crc32c(0, std::span(bytes, offsetof(RingHeader, crc32c)));
}

std::unexpected<Error> damaged(const std::string& path) {
  return fail(Code::corrupt, fmt::format("{} has a damaged header; move it away to go on without it", path));
}

// Whether it was written by us, by a program of this layout, and is possible.
Status check_static(const RingHeader& header, const std::string& path) {
  if (header.magic == std::byteswap(kRingMagic))
    return fail(
        Code::incompatible_layout,
        fmt::format("{} is a ring in the other byte order: no program of this machine wrote it; move it away",
                    path));
  if (header.magic != kRingMagic)
    return fail(Code::corrupt, fmt::format("{} is no ring of Ringtail (bad magic); move it away", path));
  if (header.version != kRingVersion)
    return fail(Code::incompatible_layout,
                fmt::format("{} has ring layout version {}, this program has {}; stop all processes that "
                            "use the log and let the version that wrote it flush it, or move it away",
                            path, header.version, kRingVersion));
  const bool possible = header.header_bytes == kRingHeaderBytes && header.term_count >= 4 &&
                        header.term_count <= kMaxTerms && header.term_bytes >= 4096 &&
                        header.term_bytes <= format::kMaxFrameBytes && header.term_bytes % 4096 == 0 &&
                        header.base_position % header.term_bytes == 0 &&
                        header.first_position >= header.base_position &&
                        header.first_position - header.base_position < header.term_bytes &&
                        header.first_position % format::kFrameAlignment == 0;
  return possible && static_crc(header) == header.crc32c ? Status() : damaged(path);
}

}  // namespace

// --- Creation and mapping ------------------------------------------------------------------------

Result<Ring> Ring::create(const std::filesystem::path& path, const RingSpec& spec) {
  const std::size_t bytes = kRingHeaderBytes + spec.term_bytes * spec.term_count;
  auto mapping = shm::create_shared_file(path, bytes);
  if (!mapping) return std::unexpected(mapping.error());
  Ring ring;
  ring.mapping_ = std::move(*mapping);
  auto& header = *reinterpret_cast<RingHeader*>(ring.mapping_.data());
  header.magic = kRingMagic;
  header.version = kRingVersion;
  header.header_bytes = kRingHeaderBytes;
  header.log_id = spec.log_id;
  header.topic_id = spec.topic_id;
  header.partition = spec.partition.value();
  header.term_count = spec.term_count;
  header.term_bytes = spec.term_bytes;
  header.generation = spec.generation;
  ring.header_ = &header;
  ring.data_ = ring.mapping_.data() + kRingHeaderBytes;
  ring.term_bytes_ = spec.term_bytes;
  ring.term_count_ = spec.term_count;
  ring.generation_ = spec.generation;
  ring.set_base(Position(0), Offset(0), 0);
  return ring;
}

void Ring::set_base(Position first, Offset first_offset, std::int64_t last_append_ns,
                    std::span<const std::byte> before) {
  RingHeader& header = *header_;
  const std::uint64_t used = first.value() % term_bytes_;
  base_position_ = first.value() - used;
  first_position_ = first.value();
  first_offset_ = first_offset.value();
  header.base_position = base_position_;
  header.first_position = first.value();
  header.first_offset = first_offset.value();
  header.crc32c = static_crc(header);
  header.head.store(first.value(), memory_order_relaxed);
  header.term_limit.store(term_count_, memory_order_relaxed);
  // Terms that were never opened look like terms of the lap before the first, full.
  for (std::uint32_t i = 0; i < term_count_; ++i) {
    header.terms[i].tail.store(make_tail(kLapMask, 0, term_bytes_), memory_order_relaxed);
    header.terms[i].end.store(make_tail(kLapMask, 0, 0), memory_order_relaxed);
  }
  if (!before.empty()) std::memcpy(at(first) - before.size(), before.data(), before.size());
  // Who walks through the first term finds its frames from its start, or a pad in the place of those that are not
  // here. A log may begin in the midst of the block: before that there is nothing.
  std::uint64_t missing = before.size() == used ? 0 : used;
  while (missing < used && format::load_state_word(before.data() + missing, memory_order_relaxed) == 0)
    missing += format::kFrameAlignment;
  Offset base_offset = first_offset;
  if (missing < used) base_offset = Offset(format::load_header(before.data() + missing).offset);
  if (missing > 0)
    format::write_filler(data_, FrameType::pad, static_cast<std::uint32_t>(missing), base_offset, 0);
  TermLine& opened = header.terms[0];
  opened.tail.store(make_tail(0, first_offset - base_offset, used), memory_order_relaxed);
  opened.base_offset.store(base_offset.value(), memory_order_relaxed);
  opened.last_append_ns.store(last_append_ns, memory_order_relaxed);
}

Status Ring::publish_new() { return mapping_.publish_new(); }
Status Ring::publish_replacing() { return mapping_.publish_replacing(); }

Result<Ring> Ring::open(const std::filesystem::path& path, bool read_only) {
  auto mapping = shm::open_shared_file(path, read_only);
  if (!mapping) return std::unexpected(mapping.error());
  auto ring = attach(std::move(*mapping), path.string());
  if (!ring) return ring;
  if (ring->mapping_.size() != kRingHeaderBytes + ring->ring_bytes()) return damaged(path.string());
  ring->data_ = ring->mapping_.data() + kRingHeaderBytes;
  return ring;
}

Result<Ring> Ring::open_header(const std::filesystem::path& path) {
  auto mapping = shm::open_shared_file(path, true, 1, kRingHeaderBytes);
  if (!mapping) return std::unexpected(mapping.error());
  return attach(std::move(*mapping), path.string());
}

Result<Ring> Ring::attach(shm::Mapping mapping, const std::string& name) {
  Ring ring;
  ring.mapping_ = std::move(mapping);
  if (ring.mapping_.size() < kRingHeaderBytes)
    return fail(Code::corrupt, fmt::format("{} is too short for a ring ({} bytes); move it away to go on "
                                           "without it",
                                           name, ring.mapping_.size()));
  // A copy, so that what is checked is what is used: producers can write to it.
  RingHeader fixed;
  std::memcpy(static_cast<void*>(&fixed), ring.mapping_.data(), offsetof(RingHeader, active_term));
  if (auto valid = check_static(fixed, name); !valid) return std::unexpected(valid.error());
  ring.header_ = reinterpret_cast<RingHeader*>(ring.mapping_.data());
  ring.term_bytes_ = fixed.term_bytes;
  ring.term_count_ = fixed.term_count;
  ring.base_position_ = fixed.base_position;
  ring.first_position_ = fixed.first_position;
  ring.first_offset_ = fixed.first_offset;
  ring.generation_ = fixed.generation;
  return ring;
}

// --- Ends ----------------------------------------------------------------------------------------

std::uint64_t Ring::last_open_term() const {
  // SYNC: pairs with the release CAS of active_term in rotate.
  std::uint64_t term = header_->active_term.load(memory_order_acquire);
  // Of each line once, whatever other processes write meanwhile.
  for (std::uint32_t i = 1; i < term_count_ && tail_lap(claimed_tail(term + 1)) == lap(term + 1); ++i) ++term;
  return term;
}

Ring::End Ring::claimed_end() const {
  for (int looks = 0;; ++looks) {
    const std::uint64_t term = last_open_term();
    const Offset base(line(term).base_offset.load(memory_order_relaxed));
    if (auto end = end_of(term)) return *end;
    // The tripper has not said yet where the term ends: no more is known than its start.
    if (looks == kMostLooks || last_open_term() == term) return {term_start(term), base};
  }
}

std::optional<Ring::End> Ring::exact_end() const {
  if (is_closed()) return std::nullopt;
  if (sealed())
    return End{Position(header_->sealed_position.load(memory_order_relaxed)),
               Offset(header_->sealed_offset.load(memory_order_relaxed))};
  const std::uint64_t term = last_open_term();
  const auto end = end_of(term);
  // Claims behind a fence fail, but move the tail.
  if (!is_filled_alone() && tail_fenced(line(term).tail.load(memory_order_relaxed))) return std::nullopt;
  // SYNC: behind the tail, which acquires: it may be that of a commit that does not count (exclusive.pml, SEEK).
  if (scribbled() == Scribbled::by_owner) return std::nullopt;
  return end;
}

std::optional<std::uint64_t> Ring::scribbled_records(Position position, std::uint32_t extent,
                                                     Offset offset) const {
  const auto load = [](const std::byte* frame, std::size_t at, auto value) {
    std::memcpy(&value, frame + at, sizeof value);
    return value;
  };
  const Position behind = position + extent;
  if (const auto end = exact_end(); end && end->position == behind) return end->offset - offset;
  if (term_start(term_of(position) + 1) - position < extent + format::kFrameHeaderBytes) return std::nullopt;
  const std::byte* const frame = at(behind);
  // SYNC: pairs with the release CAS of commit_word and publish_filler.
  const std::uint64_t word = format::load_state_word(frame, memory_order_acquire);
  if (!format::word_is_resolved(word)) return std::nullopt;
  const Offset following(load(frame, offsetof(format::FrameHeader, offset), std::uint64_t{}));
  // Of several, the last one uses up what the others cannot tell.
  const auto said = load(at(position), offsetof(format::FrameHeader, key_length), std::uint32_t{});
  if (following < offset || (format::word_type(word) == FrameType::aborted && offset + said != following))
    return 0;
  return following - offset;
}

std::optional<Offset> Ring::offset_at(Position head) const {
  if (head == first_position()) return Offset(first_offset_);
  if (head < base_position() || (head - base_position()) % term_bytes_ != 0) return std::nullopt;
  return Offset(line(term_of(head)).base_offset.load(memory_order_relaxed));
}

bool Ring::can_end_at(Position end, Position from) const {
  // Behind the end there may be a pad already, of a keeper that died there.
  const bool near = end >= from ? end - from <= ring_bytes() : position_after_seal(end) >= from;
  return near && end.value() % format::kFrameAlignment == 0 &&
         end - term_start(term_of(end)) <= usable_term_bytes();
}

Position Ring::frame_limit() const {
  const std::uint64_t term = last_open_term();
  const std::uint64_t tail = line(term).tail.load(memory_order_acquire);  // SYNC: see end_of
  const bool may_be_padded = tail_fenced(tail) || tail_bytes(tail) > usable_term_bytes();
  return may_be_padded ? term_start(term + 1) : term_start(term) + tail_bytes(tail);
}

// The end of claims in the active term; nothing while only its tripper knows it, when a lap went by, or when it is said
// to be where none can be.
std::optional<Ring::End> Ring::end_of(std::uint64_t term) const {
  const TermLine& l = line(term);
  // SYNC: pairs with the opener's CAS of the tail: base_offset belongs to this lap.
  const std::uint64_t tail = claimed_tail(term);
  const Offset base(l.base_offset.load(memory_order_relaxed));
  if (tail_lap(tail) != lap(term)) return std::nullopt;
  const End claimed{term_start(term) + tail_bytes(tail), base + tail_records(tail)};
  if (tail_bytes(tail) <= usable_term_bytes()) return claimed;
  // His tail counts the pad, too.
  if (is_filled_alone()) return tail_bytes(tail) <= term_bytes_ ? std::optional(claimed) : std::nullopt;
  // SYNC: pairs with the tripper's release store.
  const std::uint64_t end = l.end.load(memory_order_acquire);
  if (tail_lap(end) != lap(term) || tail_bytes(end) > usable_term_bytes()) return std::nullopt;
  // Claims end there; the pad that follows reaches to the next term.
  return End{term_start(term) + tail_bytes(end), base + tail_records(end)};
}

// --- Rotation ------------------------------------------------------------------------------------

void store_filler_fields(std::byte* frame, Offset offset, std::uint32_t records) {
  auto word = [frame](std::size_t at) {
    return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(frame + at));
  };
  word(8).store(offset.value(), memory_order_relaxed);
  word(16).store(0, memory_order_relaxed);
  // Not the CRC behind it: of several who write the same pad, one may be late, and the keeper have been
  // here already.
  std::atomic_ref<std::uint32_t>(
      *reinterpret_cast<std::uint32_t*>(frame + offsetof(format::FrameHeader, key_length)))
      .store(records, memory_order_relaxed);
}

bool publish_filler(std::byte* frame, std::uint64_t expected, FrameType type, std::uint32_t extent,
                    Offset offset, std::uint32_t records) {
  store_filler_fields(frame, offset, records);
  const std::uint64_t resolved =
      type == FrameType::aborted ? format::aborted_word(extent) : format::committed_word(extent, type, 0);
  // SYNC: pairs with the acquire loads of state words by readers and the keeper.
  return format::state_word(frame).compare_exchange_strong(expected, resolved, memory_order_acq_rel,
                                                           memory_order_acquire);
}

Ring::Rotation Ring::rotate(std::uint64_t term) const {
  TermLine& from = line(term);
  // SYNC: pairs with the tripper's release store of `end`.
  const std::uint64_t end = from.end.load(memory_order_acquire);
  const std::uint64_t bytes = tail_bytes(end);
  if (tail_lap(end) != lap(term) || bytes > usable_term_bytes()) return Rotation::unknown_end;
  // SYNC: behind the helper's announcement, a full barrier, and before all that he stores: he sees the fence,
  // or whoever fenced sees him at work, and waits for him (PartitionKeeper::settle; ring.pml, FENCE).
  if (tail_fenced(from.tail.load(std::memory_order_seq_cst))) return Rotation::sealed;
  const Offset next_offset(from.base_offset.load(memory_order_relaxed) + tail_records(end));
  publish_filler(term_data(term) + bytes, 0, FrameType::pad, static_cast<std::uint32_t>(term_bytes_ - bytes),
                 next_offset, 0);
  // SYNC: pairs with the keeper's release store of term_limit: the term's memory is zero.
  if (header_->term_limit.load(memory_order_acquire) <= term + 1) return Rotation::full;

  TermLine& to = line(term + 1);
  // Everybody who helps stores the same values; whoever is late is kept from a later lap by the
  // keeper, which recycles no term while a helper that began before is still under way.
  to.number.store(term + 1, memory_order_relaxed);
  to.base_offset.store(next_offset.value(), memory_order_relaxed);
  const std::int64_t last_append_ns = from.last_append_ns.load(memory_order_relaxed);
  WideWord seen = wide_load(&to.tail);
  while (tail_lap(seen.low) != lap(term + 1)) {
    if (tail_fenced(seen.low)) return Rotation::sealed;
    // SYNC: publishes number and base_offset to claimers of the new lap: their fetch_add acquires
    // (ring.pml, OPEN_TERM).
    const WideWord opened{make_tail(lap(term + 1), 0, 0), static_cast<std::uint64_t>(last_append_ns)};
    if (wide_compare_exchange(&to.tail, seen, opened)) break;
  }
  // Whoever opened `term` may have died before it said so: then active_term rises by more than one.
  std::uint64_t active = header_->active_term.load(memory_order_relaxed);
  // SYNC: pairs with the acquire loads of active_term.
  while (active <= term && !header_->active_term.compare_exchange_weak(active, term + 1, memory_order_release,
                                                                       memory_order_relaxed)) {
  }
  return Rotation::done;
}

bool Ring::publish_end(std::uint64_t term, std::uint64_t tail) const {
  auto& end = line(term).end;
  std::uint64_t seen = end.load(memory_order_relaxed);
  // SYNC: pairs with the acquire loads of `end` by whoever completes the rotation (ring.pml, TRIP).
  return tail_lap(seen) != tail_lap(tail) &&
         end.compare_exchange_strong(seen, tail, memory_order_release, memory_order_relaxed);
}

// --- Sealing -------------------------------------------------------------------------------------

// The first line comes last: whoever finds it fenced knows that all are, also behind a keeper that died in the
// midst of it.
void Ring::fence() const {
  for (std::uint32_t i = term_count_; i-- > 0;) {
    TermLine& l = header_->terms[i];
    // SYNC: claims and openings are read-modify-writes of the same word: each comes before the fence
    // and counts, or after it and sees it (ring.pml, FENCE).
    const std::uint64_t before = l.tail.fetch_or(kFence, std::memory_order_seq_cst);
    if (!tail_fenced(before)) l.fenced.store(before | kFence, memory_order_relaxed);
  }
  if (!is_owned()) return;
  // SYNC: pairs with the owner's look behind his announcement (Appender::take_alone).
  header_->grant.store(ended_grant(header_->grant.load(memory_order_relaxed)), memory_order_release);
}

std::uint64_t Ring::claimed_tail(std::uint64_t term) const {
  const TermLine& l = line(term);
  const std::uint64_t tail = l.tail.load(std::memory_order_seq_cst);  // SYNC: see RingKeeper::begin_inquiry
  if (!tail_fenced(tail)) return tail;
  const std::uint64_t fenced = l.fenced.load(memory_order_relaxed);
  return fenced != 0 ? fenced : tail;
}

Ring::SealPoint Ring::seal_point() const {
  std::uint64_t term = header_->active_term.load(memory_order_acquire);  // SYNC: pairs with rotate
  // Helpers may have opened the next term just before the fence, without telling active_term yet.
  for (std::uint32_t i = 1; i < term_count_; ++i, ++term)
    // SYNC: see fence
    if (tail_lap(line(term + 1).tail.load(memory_order_acquire)) != lap(term + 1)) break;
  const TermLine& last = line(term);
  const std::uint64_t tail = claimed_tail(term);
  const Offset base(last.base_offset.load(memory_order_relaxed));
  const std::int64_t append_ns = last.last_append_ns.load(memory_order_relaxed);
  // Decided already, by a keeper that died before the next ring was in its place. The tail has moved since.
  if (sealed())
    return {true, Position(header_->sealed_position.load(memory_order_relaxed)),
            Offset(header_->sealed_offset.load(memory_order_relaxed)), append_ns};
  if (tail_bytes(tail) <= usable_term_bytes())
    return {true, term_start(term) + tail_bytes(tail), base + tail_records(tail), append_ns};
  const std::uint64_t end = last.end.load(memory_order_acquire);  // SYNC: pairs with the tripper's store
  if (tail_lap(end) != lap(term) || tail_bytes(end) > usable_term_bytes())
    return {false, Position(0), Offset(0), 0};
  // The term is used up: its pad, which a helper may have written already, reaches to its end.
  publish_filler(term_data(term) + tail_bytes(end), 0, FrameType::pad,
                 static_cast<std::uint32_t>(term_bytes_ - tail_bytes(end)), base + tail_records(end), 0);
  return {true, term_start(term + 1), base + tail_records(end), append_ns};
}

Position Ring::position_after_seal(Position end) {
  constexpr std::uint64_t block = 4096;
  if (end.value() % block == 0) return end;
  return Position((end.value() + kTermReserve + block - 1) / block * block);
}

Position Ring::finish_seal(Position end, Offset offset, std::optional<Position> given) const {
  const Position next = given ? *given : position_after_seal(end);
  header_->sealed_position.store(end.value(), memory_order_relaxed);
  header_->sealed_offset.store(offset.value(), memory_order_relaxed);
  header_->next_position.store(next.value(), memory_order_relaxed);
  // SYNC: publishes the three above to sealed(). Ahead of the pad: a pad without a decision could lie
  // before what the next keeper decides.
  header_->state.store(static_cast<std::uint32_t>(RingState::sealed), memory_order_release);
  if (next > end)
    publish_filler(at(end), 0, FrameType::pad, static_cast<std::uint32_t>(next - end), offset, 0);
  return next;
}

void Ring::close() const {
  header_->next_position.store(0, memory_order_relaxed);
  header_->sealed_offset.store(kClosed, memory_order_relaxed);
  header_->state.store(static_cast<std::uint32_t>(RingState::sealed),
                       memory_order_release);  // SYNC: as above
}

bool Ring::is_closed() const {
  return sealed() && header_->next_position.load(memory_order_relaxed) == 0 &&
         header_->sealed_offset.load(memory_order_relaxed) == kClosed;
}

// --- Names ---------------------------------------------------------------------------------------

std::filesystem::path ring_path(const std::filesystem::path& shm_dir, std::string_view topic, PartitionId p) {
  return shm_dir / fmt::format("{}-{}.ring", topic, p.value());
}

std::filesystem::path retired_ring_path(const std::filesystem::path& shm_dir, std::string_view topic,
                                        PartitionId p, std::uint64_t generation) {
  return shm_dir / fmt::format("{}-{}.{}.ring.retired", topic, p.value(), generation);
}

Result<std::vector<std::filesystem::path>> retired_rings(const std::filesystem::path& shm_dir,
                                                         std::string_view topic, PartitionId p) {
  const std::string prefix = fmt::format("{}-{}.", topic, p.value());
  constexpr std::string_view suffix = ".ring.retired";
  std::vector<std::filesystem::path> found;
  std::error_code error;
  std::filesystem::directory_iterator file(shm_dir, error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    const std::string name = file->path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() <= prefix.size() + suffix.size())
      continue;
    const auto generation =
        std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    if (generation.find_first_not_of("0123456789") == std::string_view::npos) found.push_back(file->path());
  }
  if (error && error.value() != ENOENT)
    return fail_errno(error.value(), fmt::format("cannot list '{}'", shm_dir.native()));
  return found;
}

}  // namespace ringtail::log
