// Retiring: the current ring gives way to a fresh one, so that whoever holds its space too long, or
// may still write where it must not, keeps it for himself.
//
// The order of steps lets the next keeper go on after a death at any of them: the fresh ring is made
// beside the old one; the old is fenced, which fixes its end; its file gets a second name; it is marked
// sealed; the fresh one takes its first name; the generation is published.

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"
#include "log/partition_keeper.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::int64_t kNextRetryNs = 250'000'000;
constexpr std::uint64_t kWalkBytes = 256 << 10;

}  // namespace

void PartitionKeeper::begin_retire(const char* reason) {
  if (retire_ != Retire::no) return;
  logger().info("{}: retiring ring generation {}: {}", name(), current().ring().generation(), reason);
  retire_ = Retire::preparing;
}

void PartitionKeeper::step_retire(std::int64_t now_ns) {
  if (retire_ == Retire::no) return;
  if (retire_ == Retire::preparing) {
    if (!next_) return request_next_ring(now_ns);
    fence_current();
    retire_ = Retire::fenced;
  }
  if (current().ring().is_owned() && !owner_rests(now_ns)) return;
  // Until the next ring is in its place, nothing more is shipped into this one.
  const auto held = replica_ ? replica_->hold() : std::unique_lock<std::mutex>();
  if (current().ring().is_filled_alone() && !walk_to_end()) return;
  const Ring::SealPoint seal = end_to_seal();
  if (!seal.known) return;  // its tripper is about to say it, or repair will find out
  if (!current().can_end_at(seal.position)) return fail_with(impossible_end(seal.position));
  if (auto replaced = replace_ring(seal); !replaced) return fail_with(replaced.error());
  retire_ = Retire::no;
  handing_over_ = false;
  pinned_since_ns_ = 0;
}

// An owner may have died, or stand still, between a commit and telling the tail: there the frontier tells.
Ring::SealPoint PartitionKeeper::end_to_seal() {
  const Ring& ring = current().ring();
  if (!ring.is_owned() || ring.sealed()) return ring.seal_point();
  const TermLine& line = ring.line(ring.header().active_term.load(memory_order_relaxed));
  return {true, current().frontier(), current().frontier_offset(),
          line.last_append_ns.load(memory_order_relaxed)};
}

Error PartitionKeeper::impossible_end(Position end) const {
  return {
      Code::corrupt, 0,
      fmt::format("ring generation {} is said to end at position {}: some process wrote where it must not",
                  rings_.back().ring().generation(), end.value())};
}

// Walks a ring that one alone fills to the end of its frames. Then, of a disk topic, all have their checksums: its last
// bytes go to the next ring as they are.
bool PartitionKeeper::walk_to_end() {
  if (is_disk() && (rings_.size() > 1 || !prepare_copy())) return false;
  for (;;) {
    auto run = current().scan(kWalkBytes);
    if (!run) fail_with(run.error());
    if (!run) return false;
    if (run->bytes == 0) return true;
    if (is_disk() && !write(*run)) return false;
  }
}

void PartitionKeeper::request_next_ring(std::int64_t now_ns) {
  if (next_requested_ || now_ns < next_retry_ns_) return;
  next_requested_ = true;
  const auto path = ring_path(partition_.shm_dir, partition_.topic, partition_.partition);
  context_.workshop->submit([this, alive = alive_, path, spec = spec()](io::Backend&) -> Workshop::Delivery {
    auto ring = std::make_shared<Result<Ring>>(Ring::create(path, spec));
    return [this, alive, ring] {
      if (!*alive) return;
      next_requested_ = false;
      if (*ring)
        next_.emplace(std::move(**ring));
      else {
        next_retry_ns_ = monotonic_ns() + kNextRetryNs;
        logger().warn("{}: cannot make the next ring yet: {}", name(), to_string(ring->error()));
      }
    };
  });
}

// A ring that takes claims ends at a block. That of a follower ends where it is, for its bytes are the leader's; that
// of an owner, too, who may write over a pad.
Status PartitionKeeper::replace_ring(const Ring::SealPoint& seal) {
  Ring& old = current().ring();
  // Decided by a keeper before this one, perhaps, and written over since.
  const std::uint64_t in_ring = seal.position - old.base_position();
  const std::uint64_t active = old.header().active_term.load(memory_order_relaxed);
  if (seal.position < old.first_position() || in_ring / old.term_bytes() > active + 2 ||
      in_ring % old.term_bytes() > old.usable_term_bytes() || in_ring % format::kFrameAlignment != 0)
    return fail(
        Code::corrupt,
        fmt::format("ring generation {}: it cannot end at position {}: some process wrote where it must "
                    "not",
                    old.generation(), seal.position.value()));
  const Position base = old.is_filled_alone() ? seal.position : Ring::position_after_seal(seal.position);
  const std::uint64_t in_block = base - format::block_down(base);
  // Of a ring that may be scribbled on, the checksums are in the copy, unless that is of the ring before it.
  const std::byte* const from = old.at(base - in_block);
  const bool is_copied = copy_ && rings_.size() == 1;
  next_->set_base(base, seal.offset, seal.last_append_ns,
                  {is_copied ? copy_->data() + (from - old.data()) : from, in_block});
  if (replicated_ && role() != shm::ReplicaRole::leader) {
    next_->fence();
    next_->follow({base, seal.offset});
  } else if (const std::uint32_t wanted = wants_exclusive(); wanted != 0) {
    next_->fence();
    next_->own({base, seal.offset}, wanted);
  }
  const auto path = ring_path(partition_.shm_dir, partition_.topic, partition_.partition);
  const auto retired =
      retired_ring_path(partition_.shm_dir, partition_.topic, partition_.partition, old.generation());
  if (auto linked = shm::link_path(path, retired); !linked && linked.error().code != Code::already_exists)
    return linked;
  old.finish_seal(seal.position, seal.offset, base);
  if (auto published = next_->publish_replacing(); !published) return published;
  const LeaderEpoch epoch(entry_.leader_epoch.load(memory_order_relaxed));
  const std::uint64_t generation = next_->generation();
  rings_.emplace_back(std::move(*next_), *context_.control, partition_.index, base, seal.offset);
  next_.reset();
  if (is_disk()) context_.backend->register_buffer({current().ring().data(), current().ring().ring_bytes()});
  entry_.retired_rings.fetch_add(1, memory_order_relaxed);
  // SYNC: the new ring is in its place; pairs with the acquire loads by appenders and readers.
  entry_.ring_generation.store(generation, memory_order_release);
  if (replica_ && role() == shm::ReplicaRole::follower)
    replica_->take(&current().ring(), epoch, {base, seal.offset});
  notify_all();
  // A follower has room again.
  if (replicated_ && context_.on_progress) context_.on_progress(partition_.index);
  return {};
}

// The sealed ring of a memory topic is let go when it is whole: nobody would repair it later.
void PartitionKeeper::drop_settled_rings() {
  while (rings_.size() > 1 && !inquiring() && draining().ring().generation() <= whole_generation_ &&
         !owes_answer(draining().ring().generation())) {
    retired_.push_back(draining().ring().generation());
    rings_.pop_front();
  }
}

// It stays under its second name while a reader is in it or before it.
void PartitionKeeper::unlink_retired() {
  std::erase_if(retired_, [this](std::uint64_t generation) {
    for (const shm::Reader& reader : context_.control->readers()) {
      if (reader.owner.load(memory_order_acquire) != 0 &&  // SYNC: pairs with the reader's attach
          reader.partition.load(memory_order_relaxed) == partition_.index &&
          reader.ring_generation.load(memory_order_relaxed) <= generation)
        return false;
    }
    auto removed = shm::unlink_path(
        retired_ring_path(partition_.shm_dir, partition_.topic, partition_.partition, generation));
    if (!removed) logger().warn("{}", to_string(removed.error()));
    return true;
  });
}

}  // namespace ringtail::log
