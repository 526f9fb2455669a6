#include "log/replica_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "log/segment_walk.h"

namespace ringtail::log {

using format::FrameType;
using std::memory_order_relaxed;
using std::memory_order_release;

void ReplicaWriter::enter(const Ring* ring, LeaderEpoch epoch, const LogPoint& end) {
  std::lock_guard lock(mutex_);
  take(ring, epoch, end);
}

void ReplicaWriter::take(const Ring* ring, LeaderEpoch epoch, const LogPoint& end) {
  ring_ = ring;
  epoch_ = epoch;
  end_ = end;
  has_place_ = ring_ != nullptr && find_term();
}

// Other processes can write what tells of the end: its term is the one that it lies in, whichever is said to be active.
bool ReplicaWriter::find_term() {
  const auto told = ring_->exact_end();
  if (!told || told->position != end_.position || end_.position < ring_->first_position() ||
      end_.position.value() % format::kFrameAlignment != 0)
    return false;
  term_ = ring_->term_of(end_.position);
  // Where the term before is full, this one may not be open yet.
  if (end_.position == ring_->term_start(term_) &&
      ring_->header().active_term.load(memory_order_relaxed) < term_)
    --term_;
  return true;
}

LogPoint ReplicaWriter::end() const {
  std::lock_guard lock(mutex_);
  return end_;
}

Result<std::uint64_t> ReplicaWriter::append(LeaderEpoch epoch, Position at,
                                            std::span<const std::byte> frames) {
  std::lock_guard lock(mutex_);
  if (ring_ == nullptr || epoch != epoch_)
    return fail(Code::fenced, fmt::format("{}-{}: not followed in epoch {}", partition_.topic,
                                          partition_.partition.value(), epoch.value()));
  if (!has_place_)
    return fail(Code::corrupt,
                fmt::format("{}-{}: what its ring says of its end is impossible: some process wrote where it "
                            "must not",
                            partition_.topic, partition_.partition.value()));
  if (at != end_.position)
    return fail(
        Code::offset_out_of_range,
        fmt::format("{}-{}: bytes for position {} were shipped, but the log ends at {}", partition_.topic,
                    partition_.partition.value(), at.value(), end_.position.value()));
  std::uint64_t taken = 0;
  while (taken < frames.size()) {
    if (end_.position == ring_->term_start(term_ + 1) && !open_next_term()) break;
    const auto chunk = measure(frames.subspan(taken));
    if (!chunk) return std::unexpected(chunk.error());
    publish(frames.subspan(taken, chunk->bytes), *chunk);
    taken += chunk->bytes;
  }
  // SYNC: a full barrier behind the frames' publication, by plain stores; pairs with PartitionKeeper::arm_bell.
  if (taken > 0 && (partition_.entry().hot.fetch_or(0, std::memory_order_seq_cst) & shm::kKeeperWaits) != 0) {
    partition_.entry().hot.fetch_and(~std::uint64_t{shm::kKeeperWaits},
                                     std::memory_order_acq_rel);  // SYNC: as above
    partition_.control->wake_keeper();
  }
  return taken;
}

// The whole frames at the begin of `frames` that stand in the term where the log ends.
Result<ReplicaWriter::Chunk> ReplicaWriter::measure(std::span<const std::byte> frames) const {
  Chunk chunk{.next_offset = end_.offset};
  const std::uint64_t room = ring_->term_start(term_ + 1) - end_.position;
  const Offset base_offset(ring_->line(term_).base_offset.load(memory_order_relaxed));
  const auto bytes = frames.first(std::min<std::size_t>(frames.size(), room));
  while (chunk.bytes < bytes.size()) {
    const auto rest = bytes.subspan(chunk.bytes);
    const format::FrameFault fault = format::check_structure(rest);
    const format::FrameHeader header =
        fault == format::FrameFault::none ? format::load_header(rest.data()) : format::FrameHeader{};
    if (fault != format::FrameFault::none || header.offset != chunk.next_offset.value())
      return fail(
          Code::corrupt,
          fmt::format("{}-{}: what was shipped for position {} is no frame with offset {} ({})",
                      partition_.topic, partition_.partition.value(), (end_.position + chunk.bytes).value(),
                      chunk.next_offset.value(), format::to_string(fault)));
    chunk.last_at = chunk.bytes;
    chunk.last_offset = chunk.next_offset;
    chunk.ends_in_pad = header.type == FrameType::pad;
    if (has_timestamp(header.type)) chunk.timestamp_ns = std::max(chunk.timestamp_ns, header.timestamp_ns);
    chunk.next_offset += format::frame_records(header);
    // The tail counts the records of a term; one more would end up in its lap.
    if (chunk.next_offset - base_offset > kRecordsMask)
      return fail(
          Code::corrupt,
          fmt::format("{}-{}: what was shipped for position {} uses up {} offsets, more than a term has",
                      partition_.topic, partition_.partition.value(), (end_.position + chunk.bytes).value(),
                      format::frame_records(header)));
    chunk.bytes += format::align_frame(static_cast<std::uint32_t>(header.length));
  }
  if (chunk.bytes == room && !chunk.ends_in_pad)
    return fail(Code::corrupt,
                fmt::format("{}-{}: what was shipped for position {} fills a term, which must end "
                            "in a pad",
                            partition_.topic, partition_.partition.value(), end_.position.value()));
  return chunk;
}

void ReplicaWriter::publish(std::span<const std::byte> frames, const Chunk& chunk) {
  TermLine& line = ring_->line(term_);
  const std::uint64_t begin = end_.position - ring_->term_start(term_);
  std::byte* const to = ring_->term_data(term_) + begin;
  constexpr std::size_t word_bytes = sizeof(std::uint64_t);
  std::memcpy(to + word_bytes, frames.data() + word_bytes, frames.size() - word_bytes);
  std::uint64_t word;
  std::memcpy(&word, frames.data(), word_bytes);
  // SYNC: publishes all of the frames; pairs with the acquire loads of state words by readers and the keeper.
  format::state_word(to).store(word, memory_order_release);

  const std::uint64_t base_offset = line.base_offset.load(memory_order_relaxed);
  const std::uint64_t lap = ring_->lap(term_);
  end_ = {end_.position + chunk.bytes, chunk.next_offset};
  if (begin + chunk.bytes == ring_->term_bytes())
    ring_->publish_end(term_, make_tail(lap, chunk.last_offset.value() - base_offset, begin + chunk.last_at));
  if (chunk.timestamp_ns > line.last_append_ns.load(memory_order_relaxed))
    line.last_append_ns.store(chunk.timestamp_ns, memory_order_relaxed);
  const std::uint64_t tail = make_tail(lap, end_.offset.value() - base_offset, begin + chunk.bytes) | kFence;
  line.fenced.store(tail, memory_order_release);  // SYNC: pairs with claimed_tail; the frames are there
}

// The term behind the one that is full, if the keeper has made it clean.
bool ReplicaWriter::open_next_term() {
  if (!ring_->open_alone(term_, end_.offset)) return false;
  ++term_;
  return true;
}

}  // namespace ringtail::log
