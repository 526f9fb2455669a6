// Where a reader reads from: the newest ring, a retired one, or the files.

#include "log/partition_reader.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

// A keeper moves the head once in a term. Another process could write one number after the other.
constexpr int kMostLooks = 1'000;

}  // namespace

void PartitionReader::release_pin() {
  entry_->pin.store(shm::kNotPinned, memory_order_release);  // SYNC: pairs with readers_pin_below
}

Status PartitionReader::map_current() {
  for (int attempt = 0;; ++attempt) {
    if (!partition_.is_current()) return fail(Code::closed, "topic '" + source_.topic + "' was deleted");
    // SYNC: pairs with the keeper's release store after the new ring is in its place.
    const std::uint64_t generation = partition_.entry().ring_generation.load(memory_order_acquire);
    if (current_ && current_.generation() == generation) return {};
    auto ring = Ring::open(ring_path(partition_.shm_dir, partition_.topic, partition_.partition), true);
    if (!ring && (ring.error().code != Code::not_found || attempt == 100))
      return std::unexpected(ring.error());
    if (!ring) continue;
    if (ring->header().topic_id != partition_.topic_id)
      return fail(Code::closed, "topic '" + source_.topic + "' was deleted");
    // In the middle of it: it is read to its end first.
    if (ring_ == &current_) retired_ = std::move(current_), ring_ = &retired_;
    current_ = std::move(*ring);
    return {};
  }
}

Status PartitionReader::attach() {
  mode_ = Mode::detached;
  undecided_ = false;
  ring_ = nullptr;
  unread_ = {};
  if (auto mapped = map_current(); !mapped) return mapped;
  // SYNC: pairs with slowest_reader; before another look whether the entry is this partition's still, as
  // Keeper::allocate_entry gives it a new one before it looks for who reads the last: one of us sees the other.
  entry_->partition.store(partition_.index, std::memory_order_seq_cst);
  if (!partition_.is_current()) {
    rest();
    return fail(Code::closed, "topic '" + source_.topic + "' was deleted");
  }
  if (position_ >= current_.first_position()) {
    auto attached = attach_to(current_);
    if (!attached) return std::unexpected(attached.error());
    if (*attached) return {};
    if (is_memory()) return jump_to_head();
  } else {
    auto attached = attach_to_retired();
    if (!attached) return std::unexpected(attached.error());
    if (*attached) return {};
    if (is_memory()) return jump_to_head();
  }
  // SYNC: pairs with the keeper's release store after the sync.
  if (position_.value() < partition_.entry().durable_position.load(memory_order_acquire)) {
    if (auto opened = open_segments(); !opened) return opened;
    mode_ = Mode::segments;
  }
  return {};
}

// Pins position_ in `ring`, unless the keeper is about to recycle it.
Result<bool> PartitionReader::attach_to(Ring& ring) {
  if (position_.value() % format::kFrameAlignment != 0) return corrupt_frame("its position");
  entry_->ring_generation.store(ring.generation(), memory_order_relaxed);
  // SYNC: a full barrier between pin and look; pairs with the keeper's exchange of head before it looks
  // at the pins: one of us sees the other.
  entry_->pin.exchange(position_.value(), std::memory_order_seq_cst);
  if (ring.header().head.load(std::memory_order_seq_cst) > position_.value()) {
    release_pin();
    return false;
  }
  // The farthest a reader can be is the start of the term that will be opened next.
  const std::uint64_t active =
      ring.header().active_term.load(memory_order_acquire);  // SYNC: pairs with rotate
  if (position_ > ring.term_start(active + 1)) {
    release_pin();
    return corrupt_frame("being behind the log's end");
  }
  enter(ring);
  return true;
}

// A ring that was retired a moment ago holds what is not in segment files yet.
Result<bool> PartitionReader::attach_to_retired() {
  auto retired = retired_rings(partition_.shm_dir, partition_.topic, partition_.partition);
  if (!retired) return std::unexpected(retired.error());
  for (const auto& path : *retired) {
    auto ring = Ring::open(path, true);
    if (!ring && ring.error().code == Code::not_found) continue;
    if (!ring) return std::unexpected(ring.error());
    if (!ring->sealed() || position_ < ring->first_position() ||
        position_.value() >= ring->header().next_position.load(memory_order_relaxed))
      continue;
    retired_ = std::move(*ring);
    return attach_to(retired_);
  }
  return false;
}

void PartitionReader::enter(Ring& ring) {
  compacted_ = false;
  ring_ = &ring;
  mode_ = Mode::ring;
  term_ = ring.term_of(position_);
  // The start of a term that is not open yet is where the one before ends.
  const bool at_start = position_ == ring.term_start(term_);
  // SYNC: pairs with the release CAS in Ring::rotate.
  if (at_start && term_ > 0 && ring.header().active_term.load(memory_order_acquire) < term_) {
    --term_;
    frame_ = ring.term_data(term_) + ring.term_bytes();
  } else {
    frame_ = ring.at(position_);
  }
  term_end_ = ring.term_data(term_) + ring.term_bytes();
}

// To the oldest record that the newest ring holds, under a pin.
Status PartitionReader::enter_at_head() {
  for (int looks = 0;; ++looks) {
    const Position head(current_.header().head.load(memory_order_relaxed));
    const auto at_head = current_.offset_at(head);
    if (!at_head || looks == kMostLooks) return corrupt_frame("being the ring's first");
    entry_->ring_generation.store(current_.generation(), memory_order_relaxed);
    entry_->pin.exchange(head.value(), std::memory_order_seq_cst);  // SYNC: as in attach_to
    if (current_.header().head.load(std::memory_order_seq_cst) != head.value()) continue;
    position_ = head;
    offset_ = *at_head;
    may_jump_ = false;
    if (scout_) scout_->restart();
    enter(current_);
    return {};
  }
}

// The ring of a memory topic went past this reader: it goes on at the oldest record there is.
Status PartitionReader::jump_to_head() {
  const Offset was = offset_;
  if (auto entered = enter_at_head(); !entered) return entered;
  if (offset_ > was) missed_ += offset_ - std::max(was, std::min(offset_, skip_below_));
  if (notes_ != nullptr) notes_->add_gap(offset_);
  return {};
}

}  // namespace ringtail::log
