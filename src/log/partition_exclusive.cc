// Producers that have a partition for themselves: the ring is given to the one that asks, and back to all when it has
// closed or died.
//
// Either way begins with the fence: no claim succeeds any more, nor does the owner begin another append. When nobody is
// at work in the ring, its end is fixed, and it is given on from there. Who stands still within an append meanwhile is
// given up, and the ring is replaced; the next one goes to whoever wants it then.

#include "base/clock.h"
#include "base/logger.h"
#include "log/partition_keeper.h"
#include "shm/slots.h"

namespace ringtail::log {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;

// The producer who wants it and lives, as frame_owner; 0: none. Takes back what the dead have asked for.
std::uint32_t PartitionKeeper::wants_exclusive() {
  std::uint32_t wanted =
      entry_.exclusive.load(memory_order_acquire);  // SYNC: pairs with Appender::ask_exclusive
  if (wanted == 0 || shm::is_active_owner(*context_.control, wanted)) return wanted;
  // SYNC: lets the next one in.
  entry_.exclusive.compare_exchange_strong(wanted, 0, memory_order_acq_rel);
  return 0;
}

bool PartitionKeeper::is_handed_to(std::uint32_t owner) const {
  const Ring& ring = rings_.back().ring();
  return owner != 0 ? ring.owner() == owner : !ring.is_owned();
}

// Whether it is another's than it is to be, on a host where producers may append.
bool PartitionKeeper::must_hand_over() {
  return role() != shm::ReplicaRole::fenced && role() != shm::ReplicaRole::follower &&
         !is_handed_to(wants_exclusive());
}

void PartitionKeeper::fence_current() {
  current().ring().fence();
  fenced_since_ns_ = owner_told_ns_ = monotonic_ns();
}

void PartitionKeeper::step_exclusive(std::int64_t now_ns) {
  if (retire_ != Retire::no) return;
  Ring& ring = current().ring();
  std::uint32_t wanted = wants_exclusive();
  if (!handing_over_) {
    if (!must_hand_over()) return;
    if (wanted != 0 && entry_.transactional.load(memory_order_relaxed) != 0) {
      logger().warn("{}: not given to one producer alone: transactions have been sent to it", name());
      entry_.exclusive.compare_exchange_strong(wanted, 0, memory_order_acq_rel);  // SYNC: as above
      return notify_all();
    }
    fence_current();
    handing_over_ = true;
    bump_version();  // the others are told
  }
  if (!come_to_rest(now_ns)) return;
  handing_over_ = false;
  const Ring::End end{current().frontier(), current().frontier_offset()};
  if (wanted != 0)
    ring.own(end, wanted);
  else
    ring.unfence(end);
  bump_version();
  notify_all();
  logger().info("{}: {} from offset {} on", name(),
                wanted != 0 ? "appended to by one producer alone" : "open to all producers again",
                end.offset.value());
}

}  // namespace ringtail::log
