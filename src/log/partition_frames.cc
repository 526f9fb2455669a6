// A partition's reader as the one who ships sees it: frames of every kind, as bytes.

#include <fmt/format.h>

#include <atomic>

#include "log/partition_reader.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::size_t kFramesAhead = 8;

}  // namespace

Result<std::unique_ptr<PartitionReader>> PartitionReader::open_for_shipping(const PartitionRef& partition,
                                                                            std::uint32_t slot,
                                                                            std::size_t read_ahead_bytes,
                                                                            std::optional<LogPoint> given) {
  auto reader = create(partition, slot, read_ahead_bytes, {});
  if (!reader) return reader;
  (*reader)->ships_ = true;
  const shm::Partition& entry = partition.entry();
  const LogPoint from = given.value_or(LogPoint{Position(entry.log_start_position.load(memory_order_relaxed)),
                                                Offset(entry.log_start_offset.load(memory_order_relaxed))});
  if (from.position.value() < entry.log_start_position.load(memory_order_relaxed))
    return fail(Code::offset_out_of_range,
                fmt::format("topic '{}' partition {}: position {} is before the log's start", partition.topic,
                            partition.partition.value(), from.position.value()));
  if (auto placed = (*reader)->place({from.position, from.offset, false}, Offset(0)); !placed)
    return std::unexpected(placed.error());
  (*reader)->tell_place();
  // From here on it holds the ring of a memory topic.
  if (auto attached = (*reader)->attach(); !attached) return std::unexpected(attached.error());
  if (given && (*reader)->position_ != from.position)
    return std::unexpected((*reader)->has_left(from.position));
  return reader;
}

Result<LogPoint> PartitionReader::claimed_end() {
  if (auto mapped = map_current(); !mapped) return std::unexpected(mapped.error());
  const Ring::End end = current_.claimed_end();
  return LogPoint{end.position, end.offset};
}

void PartitionReader::skip_to(const LogPoint& point) {
  rest();
  mode_ = Mode::detached;
  position_ = point.position;
  offset_ = point.offset;
  tell_place();
}

bool PartitionReader::is_near_end() const {
  return mode_ == Mode::ring && ring_->claimed_end().position < position_ + ring_->ring_bytes() / 2;
}

void PartitionReader::tell_place() {
  entry_->offset.store(offset().value(), memory_order_relaxed);
  entry_->position.store(position_.value(), memory_order_release);  // SYNC: pairs with slowest_reader
}

std::unexpected<Error> PartitionReader::has_left(Position position) const {
  return fail(Code::offset_out_of_range,
              fmt::format("topic '{}' partition {}: position {} has left the ring before it was shipped",
                          source_.topic, source_.partition.value(), position.value()));
}

Result<PartitionReader::Frames> PartitionReader::poll_frames(std::size_t max_bytes, bool may_block) {
  const LogPoint here{position_, offset_};
  for (int changes = 0; changes < 16; ++changes) {
    if (mode_ == Mode::ring) {
      auto frames = frames_in_ring(max_bytes);
      if (!frames || !frames->bytes.empty() || mode_ == Mode::ring) return frames;
    }
    if (auto mapped = map_current(); !mapped) return std::unexpected(mapped.error());
    // SYNC: pairs with the keeper's release store after the sync.
    const Position durable(partition_.entry().durable_position.load(memory_order_acquire));
    if (is_memory() || position_ >= durable || is_in_current()) {
      if (auto attached = attach(); !attached) return std::unexpected(attached.error());
      if (position_ != here.position) return has_left(here.position);
      if (mode_ == Mode::ring) continue;
      if (position_ >= durable) break;
    }
    if (!may_block) return Frames{{}, here, here, true};
    return frames_in_files();
  }
  return Frames{{}, here, here};
}

// A claim that was given up may still be scribbled on: then files alone tell for sure.
bool PartitionReader::is_in_current() const {
  const RingHeader& header = current_.header();
  return position_ >= current_.first_position() &&
         position_.value() >= header.head.load(memory_order_relaxed) &&
         header.scribbled.load(memory_order_acquire) == 0;  // SYNC: see frames_in_ring
}

Result<PartitionReader::Frames> PartitionReader::frames_in_ring(std::size_t max_bytes) {
  entry_->pin.store(position_.value(), memory_order_release);  // SYNC: pairs with readers_pin_below
  Frames frames{{}, {position_, offset_}, {position_, offset_}};
  if (frame_ == term_end_) next_term();
  const std::byte* const begin = frame_;
  Position position = position_;
  Offset offset = offset_;
  const auto has_gone_on = [&] {
    return ring_->header().head.load(memory_order_relaxed) > position_.value();
  };
  const bool left = has_gone_on();
  const char* damage = nullptr;
  while (!left && frame_ < term_end_ && static_cast<std::size_t>(frame_ - begin) < max_bytes) {
    // SYNC: pairs with the release CAS of commit_word and publish_filler.
    const std::uint64_t word = format::load_state_word(frame_, memory_order_acquire);
    if (!format::word_is_resolved(word)) break;
    const std::uint32_t extent = format::word_extent(word);
    if (extent < format::kFrameHeaderBytes || extent > static_cast<std::uint64_t>(term_end_ - frame_)) {
      damage = "its length";
      break;
    }
    const format::FrameHeader header = format::load_header_once(frame_, word);
    if (header.offset != offset.value()) {
      damage = "its offset";
      break;
    }
    offset += format::frame_records(header);
    position += extent;
    frame_ += extent;
    __builtin_prefetch(frame_ + kFramesAhead * extent);  // where a frame begins if all are alike
  }
  // SYNC: set before the frame of a claim that was given up is resolved; its state word was acquired above.
  const bool scribbled = ring_->header().scribbled.load(memory_order_acquire) != 0;
  if (scribbled && !left && is_memory()) {
    frame_ = begin;
    return frames_in_doubt(max_bytes);
  }
  if (left || scribbled || (begin == frame_ && left_ring())) {
    mode_ = Mode::detached;
    release_pin();
    return frames;
  }
  // SYNC: the frame was looked at before the head is once more: who overwrites it moves that first.
  std::atomic_thread_fence(memory_order_acquire);
  if (damage != nullptr && begin == frame_ && !has_gone_on()) return corrupt_frame(damage);
  position_ = position;
  offset_ = offset;
  frames.bytes = {begin, frame_};
  frames.is_final = is_memory();  // whose keeper computes no checksums
  frames.end = {position_, offset_};
  tell_place();
  return frames;
}

// Of a ring in which a claim was given up, where there are no files to tell for sure: from a copy, in which what the
// late owner may have written over is put right.
Result<PartitionReader::Frames> PartitionReader::frames_in_doubt(std::size_t max_bytes) {
  Frames frames{{}, {position_, offset_}, {position_, offset_}};
  copied_.clear();
  const bool by_owner = ring_->scribbled() == Scribbled::by_owner;
  const Position end = by_owner ? ring_->decided_end().value_or(position_) : Position(~std::uint64_t{0});
  while (frame_ < term_end_ && position_ < end && copied_.size() < max_bytes) {
    // SYNC: pairs with the release CAS of commit_word and publish_filler.
    const std::uint64_t word = format::load_state_word(frame_, memory_order_acquire);
    if (!format::word_is_resolved(word)) break;
    const std::uint32_t extent = format::word_extent(word);
    if (extent < format::kFrameHeaderBytes || extent > static_cast<std::uint64_t>(term_end_ - frame_))
      return corrupt_frame("its length");
    std::uint64_t records = 0;
    const std::size_t at = copied_.size();
    if (!by_owner && format::word_type(word) == format::FrameType::aborted) {
      const auto told = ring_->scribbled_records(position_, extent, offset_);
      if (!told) break;
      records = *told;
      copied_.resize(at + extent);
      format::write_filler(copied_.data() + at, format::FrameType::aborted, extent, offset_,
                           static_cast<std::uint32_t>(records));
    } else {
      const format::FrameHeader header = format::load_header_once(frame_, word);
      if (header.offset != offset_.value()) return corrupt_frame("its offset");
      records = format::frame_records(header);
      copied_.insert(copied_.end(), frame_, frame_ + extent);
    }
    offset_ += records;
    position_ += extent;
    frame_ += extent;
  }
  if (copied_.empty() && left_ring()) {
    mode_ = Mode::detached;
    release_pin();
    return frames;
  }
  frames.bytes = copied_;
  frames.is_final = true;
  frames.end = {position_, offset_};
  tell_place();
  return frames;
}

Result<PartitionReader::Frames> PartitionReader::frames_in_files() {
  mode_ = Mode::segments;
  if (auto opened = open_segments(); !opened) return std::unexpected(opened.error());
  // SYNC: pairs with the keeper's release store after the sync.
  const Position durable(partition_.entry().durable_position.load(memory_order_acquire));
  Frames frames{{}, {position_, offset_}, {position_, offset_}};
  auto read = segments_->read(position_, durable, offset_);
  if (!read) return unreadable(std::move(read.error()));
  if (read->compacted || read->position != position_)
    return fail(Code::unsupported,
                fmt::format("topic '{}' partition {}: compaction has moved what stood at position {}",
                            source_.topic, source_.partition.value(), position_.value()));
  frames.bytes = read->bytes;
  frames.is_final = true;
  for (std::size_t at = 0; at < read->bytes.size();) {
    const std::byte* const frame = read->bytes.data() + at;
    const format::FrameHeader header = format::load_header(frame);
    offset_ += format::frame_records(header);
    at += format::word_extent(format::load_state_word(frame, memory_order_relaxed));
  }
  position_ += read->bytes.size();
  tell_place();
  frames.end = {position_, offset_};
  return frames;
}

std::optional<PartitionReader::UncheckedFrames> PartitionReader::read_unchecked(std::size_t most_bytes) {
  if (mode_ == Mode::ring || is_memory() || !map_current()) return std::nullopt;
  // SYNC: pairs with the keeper's release store after the sync.
  const Position durable(partition_.entry().durable_position.load(memory_order_acquire));
  if (position_ >= durable || is_in_current() || !open_segments()) return std::nullopt;
  auto read = segments_->read_unchecked(position_, durable, offset_, most_bytes);
  if (!read) return std::nullopt;
  UncheckedFrames frames{std::move(read->bytes), {read->end, read->next}};
  mode_ = Mode::segments;
  position_ = frames.end.position;
  offset_ = frames.end.offset;
  tell_place();
  return frames;
}

}  // namespace ringtail::log
