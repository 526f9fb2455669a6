#include "log/partition_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/topic_config.h"

namespace ringtail::log {

using format::FrameType;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

PartitionReader::PartitionReader(const PartitionRef& partition, std::size_t read_ahead_bytes,
                                 IsolationLevel isolation)
    : partition_(partition),
      source_{partition.topic, partition.partition},
      read_ahead_bytes_(read_ahead_bytes),
      isolation_(isolation) {}

Result<std::unique_ptr<PartitionReader>> PartitionReader::open(const PartitionRef& partition,
                                                               std::uint32_t slot,
                                                               std::size_t read_ahead_bytes,
                                                               IsolationLevel isolation) {
  auto reader = create(partition, slot, read_ahead_bytes, isolation);
  if (!reader) return reader;
  // A follower's log may begin behind its high watermark: there is nothing to stand at yet.
  if (auto started = (*reader)->seek_to_start();
      !started && started.error().code != Code::offset_not_available)
    return std::unexpected(started.error());
  return reader;
}

Result<std::unique_ptr<PartitionReader>> PartitionReader::create(const PartitionRef& partition,
                                                                 std::uint32_t slot,
                                                                 std::size_t read_ahead_bytes,
                                                                 IsolationLevel isolation) {
  std::unique_ptr<PartitionReader> reader(new PartitionReader(partition, read_ahead_bytes, isolation));
  if (auto taken = reader->take_entry(slot); !taken) return std::unexpected(taken.error());
  if (auto mapped = reader->map_current(); !mapped) return std::unexpected(mapped.error());
  return reader;
}

Status PartitionReader::take_entry(std::uint32_t slot) {
  for (std::uint32_t i = 0; i < shm::kMaxReaders; ++i) {
    shm::Reader& entry = partition_.control->reader(i);
    std::uint32_t expected = 0;
    // SYNC: pairs with the release stores that free an entry.
    if (entry.owner.load(memory_order_relaxed) != 0 ||
        !entry.owner.compare_exchange_strong(expected, slot + 1, memory_order_acq_rel))
      continue;
    partition_.control->use_reader(i);
    entry.pin.store(shm::kNotPinned, memory_order_relaxed);
    entry.ring_generation.store(partition_.entry().ring_generation.load(memory_order_relaxed),
                                memory_order_relaxed);
    entry.position.store(0, memory_order_relaxed);
    entry.partition.store(partition_.index, memory_order_release);  // SYNC: pairs with slowest_reader
    entry_ = &entry;
    return {};
  }
  return fail(
      Code::limit_exceeded,
      fmt::format("all {} reader entries are taken; close some consumers of this log", shm::kMaxReaders));
}

PartitionReader::~PartitionReader() {
  if (entry_ == nullptr) return;
  entry_->pin.store(shm::kNotPinned, memory_order_release);  // SYNC: pairs with readers_pin_below
  entry_->partition.store(~0u, memory_order_relaxed);
  entry_->owner.store(0, memory_order_release);  // SYNC: pairs with take_entry
}

bool PartitionReader::is_memory() const {
  return partition_.entry().storage.load(memory_order_relaxed) == static_cast<std::uint8_t>(Storage::memory);
}

bool PartitionReader::is_compacted_topic() const {
  return partition_.entry().cleanup_policy.load(memory_order_relaxed) !=
         static_cast<std::uint8_t>(CleanupPolicy::remove);
}

// --- Poll ----------------------------------------------------------------------------------------

Result<std::size_t> PartitionReader::poll(std::span<Record> out, bool distant) {
  Result<Look> look = Look{};
  // Changes of place (next ring, ring to segments and back) leave nothing read: then look again.
  for (int changes = 0; changes < 16; ++changes) {
    switch (mode_) {
      case Mode::ring: look = poll_ring(out, distant); break;
      case Mode::segments: look = poll_segments(out); break;
      case Mode::detached:
        if (auto attached = attach(); !attached) return std::unexpected(attached.error());
        look = Look{0, mode_ != Mode::detached};
        break;
    }
    if (!look) return std::unexpected(look.error());
    if (look->records > 0 || !look->moved) break;
  }
  tell_place();
  return look->records;
}

Result<PartitionReader::Look> PartitionReader::poll_ring(std::span<Record> out, bool distant) {
  // What was handed out last is given back, what is handed out now is pinned. The pin only rises, and
  // the keeper honours the lower one, so there is no moment without.
  entry_->pin.store(position_.value(), memory_order_release);  // SYNC: pairs with readers_pin_below
  // The keeper wants this space: leave it, and let the files (or the loss) take over.
  if (ring_->header().head.load(memory_order_relaxed) > position_.value()) [[unlikely]] {
    mode_ = Mode::detached;
    release_pin();
    return Look{0, true};
  }
  return take_from_ring<Doubt::heeded>(out, limit(), distant);
}

template <PartitionReader::Doubt kDoubt>
inline Result<PartitionReader::Look> PartitionReader::take_from_ring(std::span<Record> out, Position most,
                                                                     bool distant) {
  Look look;
  std::uint32_t terms = 0;
  const std::byte* stop = stop_before(most);
  if (distant && stop == term_end_) {
    look.records = keep_distance(out);
    if (look.records > 0) return look;
  }
  for (;;) {
    look.records += take_plain<kDoubt>(frame_, stop, out.subspan(look.records));
    if (look.records == out.size()) break;
    if (frame_ == stop) {
      // Of more the next call looks: another process could lead round in circles.
      if (frame_ != term_end_ || ++terms > ring_->term_count() || !next_term()) break;
      stop = stop_before(most);
      continue;
    }
    // SYNC: pairs with the release CAS of commit_word and publish_filler.
    const std::uint64_t word = format::load_state_word(frame_, memory_order_acquire);
    if (!format::word_is_resolved(word) || (kDoubt == Doubt::heeded && is_doubtful())) break;
    // A watermark stands where a frame begins: no frame reaches beyond it.
    const auto room = static_cast<std::uint64_t>(stop - frame_);
    auto taken = take_frame(frame_, word, room, out[look.records]);
    if (!taken && look.records == 0) return std::unexpected(taken.error());
    // What came before a fault is handed out first.
    if (!taken || *taken == Taken::undecided) break;
    look.records += *taken == Taken::wanted ? 1 : 0;
    frame_ += format::word_extent(word);
  }
  // Of a doubtful ring, what stands before its end; nothing as long as that is not decided.
  if (kDoubt == Doubt::heeded && look.records == 0 && is_doubtful()) [[unlikely]]
    return take_from_ring<Doubt::settled>(out, std::min(most, ring_->decided_end().value_or(position_)),
                                          false);
  if (look.records == 0 && left_ring()) [[unlikely]] {
    mode_ = Mode::detached;
    release_pin();
    look.moved = true;
  }
  return look;
}

// Takes only what stands kDistance before the end of the claims. Who reads along with a fast producer has the processor
// fetch the lines behind those that it reads, which the producer is about to write: it has to fetch them back, a round
// trip for each.
std::size_t PartitionReader::keep_distance(std::span<Record> out) {
  constexpr std::uint64_t kDistance = 1024;
  const std::byte* const data = ring_->term_data(term_);
  const TermLine& line = ring_->line(term_);
  const std::uint64_t tail =
      tail_bytes((ring_->is_filled_alone() ? line.fenced : line.tail).load(memory_order_relaxed));
  // A hint, and no more: what is taken is looked at as always, and the term is not left.
  if (tail >= ring_->term_bytes() || tail < kDistance) return 0;
  const std::byte* const stop = data + (tail - kDistance);
  return stop > frame_ ? take_plain<Doubt::heeded>(frame_, stop, out) : 0;
}

// Whether the ring's owner was given up within an append: what he commits behind the end that is decided then, or will
// be, is no record.
bool PartitionReader::is_doubtful() const {
  // SYNC: behind the loads of state words. The mark is set before the last look at what he has committed: a frame that
  // was seen ahead of the mark is seen by that look, too, and counts (exclusive.pml, READ).
  return ring_->header().scribbled.load(memory_order_acquire) ==
         static_cast<std::uint32_t>(Scribbled::by_owner);
}

const std::byte* PartitionReader::stop_before(Position limit) const {
  const auto room = static_cast<std::uint64_t>(term_end_ - frame_);
  if (limit <= position_) return frame_;
  return limit - position_ >= room ? term_end_ : frame_ + (limit - position_);
}

// Whether all of the ring is behind this reader, and nothing more will come.
bool PartitionReader::left_ring() const {
  return ring_->sealed() && position_.value() >= ring_->header().next_position.load(memory_order_relaxed);
}

// At the end of a term: on to the next one, if it has been opened.
bool PartitionReader::next_term() {
  // SYNC: pairs with the release CAS in Ring::rotate. Before that the next term may hold an old lap.
  if (ring_->header().active_term.load(memory_order_acquire) <= term_) return false;
  // A ring is not walked round, whatever number another process has left there.
  const std::uint64_t head = ring_->header().head.load(memory_order_relaxed);
  if (position_.value() - head >= ring_->ring_bytes()) [[unlikely]]
    return false;
  ++term_;
  frame_ = ring_->term_data(term_);
  term_end_ = frame_ + ring_->term_bytes();
  return true;
}

// The common frame, a record without key and headers, in as few steps as can be: there is no structure
// to get wrong but its length. Where it stands is kept in registers until there is no further one.
template <PartitionReader::Doubt kDoubt>
std::size_t PartitionReader::take_plain(const std::byte*& frame, const std::byte* stop,
                                        std::span<Record> out) {
  constexpr std::uint64_t plain = format::committed_word(0, FrameType::data, 0);
  if (offset_ < skip_below_) [[unlikely]]
    return 0;
  const std::byte* at = frame;
  Offset offset = offset_;
  std::size_t taken = 0;
  for (; taken < out.size() && at != stop; ++taken) {
    // SYNC: pairs with the release CAS of commit_word and publish_filler.
    const std::uint64_t word = format::load_state_word(at, memory_order_acquire);
    const auto length = static_cast<std::uint32_t>(word);
    const std::uint32_t extent = format::align_frame(length);
    if (word - length != plain || length < format::kFrameHeaderBytes ||
        extent > static_cast<std::uint64_t>(stop - at))
      break;
    const format::FrameHeader header = format::load_header(at);
    if (header.offset != offset.value()) [[unlikely]]
      break;
    Record& record = out[taken];
    record.offset = offset;
    record.timestamp_ns = header.timestamp_ns;
    record.key = {};
    record.value = {reinterpret_cast<const char*>(at) + format::kFrameHeaderBytes,
                    length - format::kFrameHeaderBytes};
    record.headers = {};
    record.source = &source_;
    ++offset;
    at += extent;
  }
  if (kDoubt == Doubt::heeded && is_doubtful()) [[unlikely]]
    return 0;
  position_ += static_cast<std::uint64_t>(at - frame);
  offset_ = offset;
  frame = at;
  return taken;
}

Result<PartitionReader::Taken> PartitionReader::take_frame(const std::byte* frame, std::uint64_t word,
                                                           std::uint64_t room, Record& record) {
  const std::uint32_t extent = format::word_extent(word);
  if (extent < format::kFrameHeaderBytes || extent > room) return corrupt_frame("its length");
  const format::FrameHeader header = format::load_header_once(frame, word);
  if (may_jump_ && header.offset > offset_.value()) offset_ = Offset(header.offset);
  may_jump_ = false;
  if (header.offset != offset_.value()) return corrupt_frame("its offset");
  const FrameType type = format::word_type(word);
  Taken result = Taken::stepped;
  if (type == FrameType::data || type == FrameType::control) {
    if (format::check_structure(header, {frame, extent}) != format::FrameFault::none)
      return corrupt_frame("its structure");
    if (type == FrameType::control) {
      result = take_marker(format::marker_kind(frame), format::load_extension(frame)) ? Taken::wanted
                                                                                      : Taken::stepped;
    } else if (offset_ >= skip_below_) {
      auto taken = take_record(header, frame, record);
      if (!taken || *taken == Taken::undecided) return taken;
      result = *taken;
    }
    ++offset_;
  } else {
    if (type == FrameType::none || type > FrameType::compressed) return corrupt_frame("its type");
    // The owner of a claim that was given up may have written his header over this one.
    may_jump_ =
        type == FrameType::aborted && mode_ == Mode::ring && ring_->scribbled() == Scribbled::by_claimer;
    if (!may_jump_) offset_ += format::frame_records(header);
  }
  position_ += extent;
  return result;
}

std::unexpected<Error> PartitionReader::corrupt_frame(const char* what) const {
  return fail(
      Code::corrupt,
      fmt::format("topic '{}' partition {}: the frame at position {} (offset {} expected) is "
                  "damaged: {} is impossible; check with `ringtail log verify`",
                  source_.topic, source_.partition.value(), position_.value(), offset_.value(), what));
}

Result<PartitionReader::Look> PartitionReader::poll_segments(std::span<Record> out) {
  if (unread_.empty()) {
    const Position most = limit_in_files();
    const bool in_ring = !compacted_ && position_ >= current_.first_position() &&
                         position_.value() >= current_.header().head.load(memory_order_relaxed);
    if (in_ring || position_ >= most) {
      if (auto attached = attach(); !attached) return std::unexpected(attached.error());
      return Look{0, mode_ != Mode::segments};
    }
    if (auto read = read_segments(most); !read) return std::unexpected(read.error());
  }
  Look look;
  const std::byte* frame = unread_.data();
  const std::byte* const end = frame + unread_.size();
  for (;;) {
    look.records += take_plain<Doubt::settled>(frame, end, out.subspan(look.records));
    if (frame == end || look.records == out.size()) break;
    const std::uint64_t word = format::load_state_word(frame, memory_order_relaxed);
    const auto room = static_cast<std::uint64_t>(end - frame);
    auto taken = take_frame(frame, word, room, out[look.records]);
    if (!taken && look.records == 0) return std::unexpected(taken.error());
    // What came before a fault is handed out first.
    if (!taken || *taken == Taken::undecided) break;
    look.records += *taken == Taken::wanted ? 1 : 0;
    frame += format::word_extent(word);
  }
  unread_ = {frame, end};
  look.moved = !undecided_;
  if (look.records > 0) last_timestamp_ns_ = out[look.records - 1].timestamp_ns;
  return look;
}

bool PartitionReader::has_data() const {
  if (undecided_) return scout_->has_data();
  if (position_ >= limit()) return false;
  if (mode_ != Mode::ring) return true;
  // SYNC: pairs with the release CAS in Ring::rotate.
  if (frame_ == term_end_)
    return ring_->header().active_term.load(memory_order_acquire) > term_ || left_ring();
  // SYNC: pairs with the release CAS of commit_word; behind the waiter's fetch_or of its flag.
  return format::word_is_resolved(format::load_state_word(frame_, std::memory_order_seq_cst)) || left_ring();
}

Status PartitionReader::open_segments() {
  if (segments_) return {};
  const format::SegmentIdentity identity{partition_.log_id, partition_.topic_id, partition_.partition};
  auto opened = SegmentReader::open(partition_.disk_dir, identity, {.read_ahead_bytes = read_ahead_bytes_});
  if (!opened) return unreadable(std::move(opened.error()));
  segments_ = std::move(*opened);
  return {};
}

// Fills unread_ with what comes next, and moves along where compaction has moved it.
Status PartitionReader::read_segments(Position durable) {
  auto frames = segments_->read(position_, durable, offset_);
  if (!frames) return unreadable(std::move(frames.error()));
  unread_ = frames->bytes;
  compacted_ = frames->compacted;
  if (frames->position == position_) return {};
  position_ = frames->position;
  skip_below_ = offset();
  if (!unread_.empty()) offset_ = std::min(offset_, Offset(format::load_header(unread_.data()).offset));
  return {};
}

// Files that are gone because their topic was deleted are no damage.
std::unexpected<Error> PartitionReader::unreadable(Error error) const {
  std::error_code ignored;
  if (partition_.is_current() && std::filesystem::exists(partition_.disk_dir, ignored))
    return std::unexpected(std::move(error));
  return fail(Code::closed, "topic '" + source_.topic + "' was deleted");
}

}  // namespace ringtail::log
