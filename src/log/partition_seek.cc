// How a partition's reader finds an offset or a time.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>
#include <tuple>

#include "base/clock.h"
#include "log/partition_reader.h"

namespace ringtail::log {

using format::FrameType;
using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

// A claimer between tripping a term and saying so is there for nanoseconds, a dead one until its repair.
constexpr int kEndAttempts = 2000;
// How often the log's start may move on while a place is looked for; more, and what is told of it is none.
constexpr int kMostMoves = 1000;
// The same of a ring's head.
constexpr int kMostLooks = 1000;

bool is_outside(const Status& sought) {
  return !sought && (sought.error().code == Code::offset_out_of_range ||
                     sought.error().code == Code::offset_not_available);
}

}  // namespace

Result<Ring::End> PartitionReader::log_end() {
  auto end = exact_end();
  if (end) *end = limited(*end);
  return end;
}

// Where claims end, whatever the high watermark.
Result<Ring::End> PartitionReader::exact_end() {
  if (auto mapped = map_current(); !mapped) return std::unexpected(mapped.error());
  for (int attempt = 0; attempt < kEndAttempts; ++attempt) {
    if (auto end = current_.exact_end()) return *end;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
  return fail(Code::no_keeper,
              fmt::format("topic '{}' partition {}: a producer died at the end of a term and no "
                          "keeper repairs it; attach a process with a keeper",
                          source_.topic, source_.partition.value()));
}

Ring::End PartitionReader::limited(Ring::End end) const {
  const Position most = limit();
  if (end.position <= most) return end;
  return {most, Offset(partition_.entry().high_watermark_offset.load(memory_order_relaxed))};
}

// Leaves the reader where it was when `how` fails: what has been read on the way is nobody's.
template <class How>
Status PartitionReader::or_stay(const How& how) {
  const ReadPlace was = here();
  const Offset skip_below = skip_below_;
  const Mode mode = mode_;
  const std::uint64_t missed = missed_;
  Status gone = how();
  if (gone || (mode_ == mode && here() == was)) return gone;
  missed_ = missed;
  // As far as it can: what keeps it from that, the next poll tells.
  if (place(was, skip_below) && mode != Mode::detached && !compacted_) std::ignore = attach();
  return gone;
}

// Whether the high watermark may rise to an offset beyond it: without a role nobody has told it yet, and a follower's
// log may end before the leader's.
bool PartitionReader::may_come(Offset offset, Offset claimed) const {
  const shm::Partition& entry = partition_.entry();
  if (ships_ || entry.high_watermark.load(memory_order_relaxed) == shm::kNoWatermark) return false;
  const auto role = static_cast<shm::ReplicaRole>(entry.role.load(memory_order_relaxed));
  return role != shm::ReplicaRole::leader || offset <= claimed;
}

Status PartitionReader::seek(Offset offset) {
  return or_stay([&] { return go_to(offset); });
}

Status PartitionReader::seek_to_start() {
  return or_stay([&] { return go_to_start(); });
}

Status PartitionReader::seek_to_end() {
  return or_stay([&] { return go_to_end(); });
}

Status PartitionReader::seek_to_time(std::int64_t timestamp_ns) {
  return or_stay([&] { return go_to_time(timestamp_ns); });
}

Status PartitionReader::go_to(Offset offset) {
  auto claimed = exact_end();
  if (!claimed) return std::unexpected(claimed.error());
  const Ring::End end = limited(*claimed);
  if (offset > end.offset && offset >= log_start() && may_come(offset, claimed->offset))
    return fail(
        Code::offset_not_available,
        fmt::format("topic '{}' partition {}: offset {} is beyond {}, the high watermark as far as this host "
                    "knows it; seek again once it has risen",
                    source_.topic, source_.partition.value(), offset.value(), end.offset.value()));
  if (offset < log_start() || offset > end.offset)
    return fail(Code::offset_out_of_range,
                fmt::format("topic '{}' partition {}: offset {} is outside the log, which has {} to {}",
                            source_.topic, source_.partition.value(), offset.value(), log_start().value(),
                            end.offset.value()));
  mode_ = Mode::detached;
  unread_ = {};
  undecided_ = false;
  if (scout_) scout_->restart();
  // SYNC: before the position below, as in seek_to_time: what lies below the offset is in the files.
  const Offset durable_offset(partition_.entry().durable_offset.load(memory_order_acquire));
  // Rings may still hold what compaction has left out.
  if (is_compacted_topic() && offset < durable_offset) return seek_in_files(offset);
  if (auto place = find_in(current_, offset)) {
    start_at(current_, *place, offset);
    return {};
  }
  auto retired = retired_rings(partition_.shm_dir, partition_.topic, partition_.partition);
  if (!retired) return std::unexpected(retired.error());
  for (const auto& path : *retired) {
    auto ring = Ring::open(path, true);
    if (!ring && ring.error().code != Code::not_found) return std::unexpected(ring.error());
    if (!ring || offset.value() >= ring->header().sealed_offset.load(memory_order_relaxed)) continue;
    retired_ = std::move(*ring);
    if (auto place = find_in(retired_, offset)) {
      start_at(retired_, *place, offset);
      return {};
    }
  }
  if (is_memory()) return fail(Code::offset_out_of_range, "the ring has just passed that offset; seek again");
  return seek_in_files(offset);
}

// What is told of the start comes a little behind it: the keeper deletes files, and moves a ring's head, before it says
// so. Where the start that is told is gone, this goes by what is there.
Status PartitionReader::go_to_start() {
  Offset start = log_start();
  auto sought = go_to(start);
  for (int moves = 0; moves < kMostMoves && is_outside(sought); ++moves) {
    if (is_memory()) return go_to_head();
    auto moved = start_in_files();
    if (!moved) return std::unexpected(moved.error());
    if (*moved == start) break;  // it is where it was: the log ends before it
    start = *moved;
    sought = go_to(start);
  }
  return sought;
}

Result<Offset> PartitionReader::start_in_files() {
  auto listing = list_segments(partition_.disk_dir);
  if (!listing) return unreadable(std::move(listing.error()));
  return std::max(log_start(), listing->logs.empty() ? Offset(0) : listing->logs.front());
}

// To the oldest record in the newest ring of a memory topic.
Status PartitionReader::go_to_head() {
  if (auto entered = enter_at_head(); !entered) return entered;
  unread_ = {};
  undecided_ = false;
  skip_below_ = offset_;
  tell_place();  // as in start_at
  return {};
}

// A memory topic may be overwritten up to the end that was told, before this stands there.
Status PartitionReader::go_to_end() {
  for (int moves = 0;; ++moves) {
    auto end = log_end();
    if (!end) return std::unexpected(end.error());
    auto sought = go_to(end->offset);
    if (!is_outside(sought) || moves == kMostMoves) return sought;
  }
}

Status PartitionReader::seek_in_files(Offset offset) {
  if (auto opened = open_segments(); !opened) return opened;
  // SYNC: pairs with the keeper's release store after the sync.
  const Position durable(partition_.entry().durable_position.load(memory_order_acquire));
  auto position = segments_->locate(offset, durable);
  if (!position) return unreadable(std::move(position.error()));
  release_pin();
  position_ = *position;
  offset_ = skip_below_ = offset;
  may_jump_ = false;
  mode_ = Mode::segments;
  return fix_offset();
}

// A frame that stands for several offsets (aborted) may hold the one that was sought.
Status PartitionReader::fix_offset() {
  const Position most = limit_in_files();
  compacted_ = false;
  if (position_ >= most) return {};
  if (auto read = read_segments(most); !read) return read;
  if (!unread_.empty()) offset_ = Offset(format::load_header(unread_.data()).offset);
  return {};
}

// Walks from the start of the term that holds `offset`, under a pin. Nothing when the offset is older
// than the ring's content.
std::optional<ReadPlace> PartitionReader::find_in(Ring& ring, Offset offset) {
  Position head(0);
  int looks = 0;
  do {
    if (++looks > kMostLooks) {
      release_pin();
      return std::nullopt;
    }
    head = Position(ring.header().head.load(memory_order_relaxed));
    entry_->ring_generation.store(ring.generation(), memory_order_relaxed);
    // SYNC: as in attach_to: from here on nothing behind `head` is recycled.
    entry_->pin.exchange(head.value(), std::memory_order_seq_cst);
  } while (ring.header().head.load(std::memory_order_seq_cst) != head.value());

  std::uint64_t term = ring.header().active_term.load(memory_order_acquire);  // SYNC: pairs with Ring::rotate
  const std::uint64_t first = ring.term_of(head);
  // Other processes wrote these.
  if (!ring.offset_at(head) || term - first > ring.term_count()) {
    release_pin();
    return std::nullopt;
  }
  auto base_of = [&ring](std::uint64_t t) {
    return Offset(ring.line(t).base_offset.load(memory_order_relaxed));
  };
  while (term > first && base_of(term) > offset) --term;
  if (term < first || base_of(term) > offset) {
    release_pin();
    return std::nullopt;
  }
  ReadPlace place{ring.term_start(term), base_of(term), false};
  const std::byte* frame = ring.term_data(term);
  const std::byte* const end = frame + ring.term_bytes();
  while (frame < end && place.offset <= offset) {
    const std::uint64_t word = format::load_state_word(frame, memory_order_acquire);  // SYNC: see poll_ring
    if (!format::word_is_resolved(word)) break;
    const std::uint32_t extent = format::word_extent(word);
    if (extent < format::kFrameHeaderBytes || extent > static_cast<std::uint64_t>(end - frame)) break;
    const format::FrameHeader header = format::load_header_once(frame, word);
    place.offset = Offset(header.offset);
    if (place.offset > offset) break;
    const Offset following = place.offset + format::frame_records(header);
    if (following > offset && format::word_type(word) != FrameType::pad) break;
    place = {place.position + extent, following, false};
    frame += extent;
  }
  // A ring that began within a term has a copy of what comes before it there, and does not keep that for readers.
  if (place.position < head) {
    release_pin();
    return std::nullopt;
  }
  return place;
}

// Requires the pin of find_in in that ring.
void PartitionReader::start_at(Ring& ring, const ReadPlace& place, Offset wanted) {
  position_ = place.position;
  offset_ = place.offset;
  skip_below_ = wanted;
  may_jump_ = false;
  entry_->pin.store(position_.value(), std::memory_order_release);  // SYNC: pairs with readers_pin_below
  tell_place();  // from here on it holds the ring of a memory topic, though it polls later
  enter(ring);
}

// The start may pass what is looked at, or what was found.
Status PartitionReader::go_to_time(std::int64_t timestamp_ns) {
  // Of a memory topic, the ring's head tells, too: what is told of the start comes behind it.
  const auto start_now = [this]() -> Result<LogPoint> {
    if (is_memory())
      return LogPoint{Position(current_.header().head.load(memory_order_relaxed)), log_start()};
    auto in_files = start_in_files();
    if (!in_files) return std::unexpected(in_files.error());
    return LogPoint{Position(0), *in_files};
  };
  const std::uint64_t missed = missed_;  // by the search: nobody's loss
  // Of a memory topic once more, for a retired ring may be gone, of which its start tells nothing.
  int unmoved = is_memory() ? -1 : 0;
  for (int moves = 0;; ++moves) {
    auto start = start_now();
    if (!start) return std::unexpected(start.error());
    auto sought = find_time(timestamp_ns);
    missed_ = missed;
    if (!is_outside(sought) || moves == kMostMoves) return sought;
    auto now = start_now();
    if (!now) return std::unexpected(now.error());
    if (*now == *start && ++unmoved > 0) return sought;  // the log ends before it, or it is no start
  }
}

Status PartitionReader::find_time(std::int64_t timestamp_ns) {
  auto end = log_end();
  if (!end) return std::unexpected(end.error());
  Offset from = log_start();
  if (!is_memory()) {
    if (auto opened = open_segments(); !opened) return opened;
    // SYNC: in the reverse order of the keeper's stores: what lies below the offset lies below the position,
    // and so in the files that are searched.
    const Offset durable_offset(partition_.entry().durable_offset.load(memory_order_acquire));
    auto found = segments_->locate_time(timestamp_ns, limit_in_files());
    if (!found) return unreadable(std::move(found.error()));
    if (*found) return go_to(**found);
    from = std::max(from, std::min(durable_offset, end->offset));
  }
  // What is only in the ring is looked through, as it stands there: an open transaction must not stop this.
  const IsolationLevel isolation = std::exchange(isolation_, IsolationLevel::read_uncommitted);
  auto sought = find_time_in_ring(timestamp_ns, from, end->offset);
  isolation_ = isolation;
  return sought;
}

Status PartitionReader::find_time_in_ring(std::int64_t timestamp_ns, Offset from, Offset end) {
  if (auto sought = from == log_start() ? go_to_start() : go_to(from); !sought) return sought;
  std::array<Record, 256> records;
  while (offset() < end) {
    const Offset before = offset();
    auto polled = poll(records);
    if (!polled) return std::unexpected(polled.error());
    for (const Record& record : std::span(records).first(*polled))
      if (record.timestamp_ns >= timestamp_ns) return go_to(record.offset);
    if (*polled == 0 && offset() == before) break;  // the rest is not committed yet
  }
  return {};
}

std::optional<std::int64_t> PartitionReader::next_timestamp() {
  if (mode_ == Mode::ring && frame_ != term_end_) {
    const std::uint64_t word = format::load_state_word(frame_, memory_order_acquire);  // SYNC: see poll_ring
    const bool whole = term_end_ - frame_ >= std::ptrdiff_t{format::kFrameHeaderBytes};
    if (!whole || !format::word_is_resolved(word) || format::word_type(word) != FrameType::data)
      return std::nullopt;
    return format::load_header(frame_).timestamp_ns;
  }
  // Reading on would take back what poll has handed out; at the end of what was read, the record before
  // tells the age well enough.
  if (mode_ != Mode::segments) return std::nullopt;
  if (unread_.empty()) return last_timestamp_ns_;
  const format::FrameHeader header = format::load_header(unread_.data());
  return header.type == FrameType::data ? std::optional(header.timestamp_ns) : last_timestamp_ns_;
}

}  // namespace ringtail::log
