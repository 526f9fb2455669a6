#include "ringtail/role.h"

#include <algorithm>
#include <atomic>
#include <functional>

#include "base/bounded_time.h"
#include "base/clock.h"
#include "client/log_core.h"
#include "log/partition_ref.h"
#include "ringtail/log.h"
#include "shm/futex.h"

namespace ringtail {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::int64_t kLeaseLookNs = 20'000'000;  // nobody wakes those who wait for the end of a lease

}  // namespace

class RoleWatchCore {
 public:
  RoleWatchCore(std::shared_ptr<LogCore> log, log::PartitionRef partition)
      : log_(std::move(log)), partition_(std::move(partition)), entry_(partition_.entry()) {}

  PartitionRole role() const {
    PartitionRole role;
    // SYNC: pairs with the stores in PartitionKeeper::publish_role; the epoch is that of the role or of a later one.
    role.kind = static_cast<PartitionRole::Kind>(entry_.role.load(memory_order_acquire));
    role.epoch = LeaderEpoch(entry_.leader_epoch.load(memory_order_acquire));
    role.leader_node = entry_.leader_node.load(memory_order_relaxed);
    // A leader whose lease has run out is none, though nobody is left here to say so.
    if (role.kind == PartitionRole::Kind::leader &&
        boottime_ns() >=
            entry_.lease_deadline_ns.load(memory_order_acquire)) {  // SYNC: as in Appender::still_leads
      role.kind = PartitionRole::Kind::fenced;
      role.leader_node = 0;
    }
    // Behind the looks: they may have been at what another topic is in this one's place.
    if (!partition_.is_current()) return {.kind = PartitionRole::Kind::fenced};
    return role;
  }

  Result<PartitionRole> wait(const std::function<bool(const PartitionRole&)>& wanted,
                             std::chrono::nanoseconds timeout) const {
    const std::int64_t deadline_ns = monotonic_ns() + bounded_time(timeout).count();
    for (;;) {
      // SYNC: before the look at the role; pairs with the bump behind its change.
      const std::uint32_t seq = entry_.role_seq.load(memory_order_acquire);
      if (auto mine = log_->check_mine(); !mine) return std::unexpected(mine.error());
      const PartitionRole now = role();
      if (!partition_.is_current()) return fail(Code::closed, "topic '" + partition_.topic + "' was deleted");
      if (wanted(now)) return now;
      if (woken_.exchange(false) || monotonic_ns() >= deadline_ns)
        return fail(Code::timed_out, "the partition's role is what it was");
      shm::futex_wait(entry_.role_seq, seq, std::min(deadline_ns, monotonic_ns() + kLeaseLookNs));
    }
  }

  void wake() const {
    woken_.store(true);
    entry_.role_seq.fetch_add(1, std::memory_order_release);  // SYNC: pairs with the load in wait
    shm::futex_wake_all(entry_.role_seq);
  }

 private:
  std::shared_ptr<LogCore> log_;
  log::PartitionRef partition_;
  shm::Partition& entry_;
  mutable std::atomic<bool> woken_{false};
};

RoleWatch::RoleWatch(std::unique_ptr<RoleWatchCore> core) : core_(std::move(core)) {}
RoleWatch::RoleWatch(RoleWatch&&) noexcept = default;
RoleWatch& RoleWatch::operator=(RoleWatch&&) noexcept = default;
RoleWatch::~RoleWatch() = default;

PartitionRole RoleWatch::role() const { return core_->role(); }

Result<PartitionRole> RoleWatch::wait_until_leader(std::chrono::nanoseconds timeout) const {
  using Kind = PartitionRole::Kind;
  return core_->wait([](const PartitionRole& r) { return r.kind == Kind::leader || r.kind == Kind::alone; },
                     timeout);
}

Result<PartitionRole> RoleWatch::wait_for_change(const PartitionRole& seen,
                                                 std::chrono::nanoseconds timeout) const {
  return core_->wait([&](const PartitionRole& r) { return r != seen; }, timeout);
}

void RoleWatch::wake() const { core_->wake(); }

Result<RoleWatch> Log::watch_role(const TopicPartition& partition) const {
  if (auto mine = core_->check_mine(); !mine) return std::unexpected(mine.error());
  auto topic = core_->catalog().load_topic(partition.topic);
  if (!topic) return std::unexpected(topic.error());
  auto ref = core_->find_partition(*topic, partition.partition);
  if (!ref) return std::unexpected(ref.error());
  return RoleWatch(std::make_unique<RoleWatchCore>(core_, std::move(*ref)));
}

}  // namespace ringtail
