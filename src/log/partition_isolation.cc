// Which records of transactions a reader hands out, and its part in what a scout does.

#include <algorithm>
#include <array>
#include <tuple>

#include "log/partition_reader.h"

namespace ringtail::log {

using std::memory_order_relaxed;

// A record that was asked for, if its transaction lets it be seen.
Result<PartitionReader::Taken> PartitionReader::take_record(const format::FrameHeader& header,
                                                            const std::byte* frame, Record& record) {
  if ((header.attributes & format::kTransactional) && isolation_ == IsolationLevel::read_committed)
      [[unlikely]] {
    auto taken = take_transactional(format::load_extension(frame));
    if (!taken || *taken != Taken::wanted) return taken;
  }
  record = format::decode_record(header, frame, &source_);
  if (on_stamped_ && (header.attributes & format::kHasExtension)) {
    const std::uint64_t extent = format::align_frame(static_cast<std::uint32_t>(header.length));
    on_stamped_(format::load_extension(frame), {.partition = source_.partition,
                                                .offset = record.offset,
                                                .end = compacted_ ? Position(0) : position_ + extent,
                                                .timestamp_ns = record.timestamp_ns});
  }
  return Taken::wanted;
}

Result<PartitionReader::Taken> PartitionReader::take_transactional(const format::Extension& of) {
  if (!scout_) {
    const std::uint32_t slot = entry_->owner.load(memory_order_relaxed) - 1;
    auto opened = TransactionScout::open(partition_, slot, read_ahead_bytes_);
    if (!opened) return std::unexpected(opened.error());
    scout_ = std::move(*opened);
  }
  auto outcome = scout_->find(of, here());
  if (!outcome) return std::unexpected(outcome.error());
  undecided_ = !*outcome;
  if (undecided_) return Taken::undecided;
  if (**outcome == Outcome::lost) ++missed_;
  return **outcome == Outcome::committed ? Taken::wanted : Taken::stepped;
}

// Whether a scout asked for it.
bool PartitionReader::take_marker(format::MarkerKind kind, const format::Extension& of) {
  if (notes_ != nullptr) {
    notes_->add(kind, of, offset_);
    return true;
  }
  if (scout_) scout_->pass(kind, of, offset_);
  return false;
}

Status PartitionReader::place(const ReadPlace& place, Offset skip_below) {
  rest();
  mode_ = Mode::detached;
  undecided_ = false;
  unread_ = {};
  position_ = place.position;
  offset_ = place.offset;
  skip_below_ = skip_below;
  may_jump_ = false;
  compacted_ = place.compacted;
  if (!compacted_) return {};
  if (auto opened = open_segments(); !opened) return opened;
  mode_ = Mode::segments;
  return {};
}

void PartitionReader::rest() {
  if (mode_ == Mode::ring) mode_ = Mode::detached;
  release_pin();
  // attach takes it back; until then no ring is kept for this reader.
  entry_->partition.store(~0u, memory_order_relaxed);
}

Result<Offset> PartitionReader::last_stable_offset() {
  auto end = log_end();
  if (!end) return std::unexpected(end.error());
  const std::uint32_t slot = entry_->owner.load(memory_order_relaxed) - 1;
  auto opened = create(partition_, slot, read_ahead_bytes_, IsolationLevel::read_committed);
  if (!opened) return std::unexpected(opened.error());
  PartitionReader& ahead = **opened;
  if (auto placed = ahead.place(here(), skip_below_); !placed) return std::unexpected(placed.error());
  const auto reached = [&ahead] {
    return std::tuple(ahead.offset(), ahead.position_, ahead.scout_ ? ahead.scout_->position() : Position(0));
  };
  std::array<Record, 256> records;
  for (auto farthest = reached(); ahead.offset_ < end->offset;) {
    auto polled = ahead.poll(records);
    if (!polled) return std::unexpected(polled.error());
    if (*polled > 0) continue;
    // What was appended since may decide it, but the end would move on forever.
    if (ahead.undecided_ && ahead.scout_->position() >= end->position) break;
    // The rest is not committed yet, or the end is none that a reader comes to.
    if (reached() <= farthest) break;
    farthest = reached();
  }
  return std::min(ahead.offset(), end->offset);
}

}  // namespace ringtail::log
