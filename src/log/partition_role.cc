// How a replicated partition changes its role: fenced, following, leading.
//
// Every change begins with the fence: no claim succeeds any more, and producers are told. Then the ring settles: the
// claims that came before become records or holes. What happens next needs nobody's consent, for nobody else
// touches the ring.

#include <fmt/format.h>

#include <limits>

#include "base/clock.h"
#include "base/logger.h"
#include "log/partition_keeper.h"
#include "log/passing.h"
#include "log/truncate.h"
#include "shm/futex.h"
#include "shm/light_fence.h"

namespace ringtail::log {

using shm::Phase;
using shm::ReplicaRole;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

// How long a living producer may take to finish what he has claimed: he, too, has been told.
constexpr std::int64_t kClaimGraceNs = 20'000'000;
constexpr std::int64_t kRoleRetryNs = 100'000'000;

}  // namespace

// A partition that other hosts have, too, waits for the word of its replicator. Whatever its role was, and
// whoever had it.
void PartitionKeeper::begin_replicated() {
  if (entry_.high_watermark.load(memory_order_relaxed) == shm::kNoWatermark)
    shm::set_high_watermark(entry_, entry_.log_start_position.load(memory_order_relaxed),
                            entry_.log_start_offset.load(memory_order_relaxed));
  settled_ = false;
  entry_.lease_deadline_ns.store(0, memory_order_relaxed);
  fence_role(0);
}

ReplicaRole PartitionKeeper::role() const {
  return static_cast<ReplicaRole>(entry_.role.load(memory_order_relaxed));
}

void PartitionKeeper::publish_role(ReplicaRole role, LeaderEpoch epoch, std::uint32_t leader_node) {
  // SYNC: the epoch before the role: who sees a new leadership sees no older epoch with it. Both before all that
  // follows. Pairs with Appender::still_leads, which looks in the reverse order.
  entry_.leader_epoch.store(epoch.value(), std::memory_order_seq_cst);
  entry_.role.store(static_cast<std::uint32_t>(role), std::memory_order_seq_cst);
  entry_.leader_node.store(leader_node, memory_order_relaxed);
  bump_version();
}

void PartitionKeeper::announce_role() {
  notify_all();
  entry_.replicated_seq.fetch_add(
      1, memory_order_release);  // SYNC: pairs with the waiter's load before its look
  shm::futex_wake_all(entry_.replicated_seq);
  entry_.role_seq.fetch_add(1, memory_order_release);  // SYNC: as above
  shm::futex_wake_all(entry_.role_seq);
}

// Nobody may append from here on, neither a producer nor the leader's shipper.
void PartitionKeeper::fence_role(std::uint32_t leader_node) {
  if (role() != ReplicaRole::fenced || !settled_) {
    publish_role(ReplicaRole::fenced, LeaderEpoch(entry_.leader_epoch.load(memory_order_relaxed)),
                 leader_node);
    if (replica_) replica_->enter(nullptr, LeaderEpoch(0), {});
    if (!settled_ || !current().ring().is_followed()) {
      settled_ = false;
      handing_over_ = false;
      fence_current();
    }
  } else {
    entry_.leader_node.store(leader_node, memory_order_relaxed);
  }
  announce_role();
}

void PartitionKeeper::request_role(RoleRequest request) {
  if (failure_) return refuse_role(request, *failure_);
  if (role_request_) refuse_role(*role_request_, {Code::fenced, 0, "another change of role came in between"});
  fence_role(request.leader_node);
  role_request_ = std::move(request);
  role_retry_ns_ = 0;
}

void PartitionKeeper::refuse_role(const RoleRequest& request, Error why) {
  if (request.done) request.done(std::unexpected(std::move(why)));
}

std::int64_t PartitionKeeper::lease_end_ns() const {
  if (failed_ || role() != ReplicaRole::leader) return std::numeric_limits<std::int64_t>::max();
  // SYNC: as in step_role.
  return entry_.lease_deadline_ns.load(memory_order_acquire);
}

void PartitionKeeper::step_role(std::int64_t now_ns) {
  if (role() == ReplicaRole::alone) return;
  if (role() == ReplicaRole::leader &&
      // SYNC: pairs with the replicator's store when its lease was renewed.
      boottime_ns() >= entry_.lease_deadline_ns.load(memory_order_acquire)) {
    logger().warn("{}: the lease of this host's leadership has run out; no more appends until it is renewed",
                  name());
    fence_role(0);
    if (context_.on_progress) context_.on_progress(partition_.index);
  }
  if (role() != ReplicaRole::fenced) return;
  if (!settled_ && !settle(now_ns)) return;
  if (!role_request_ || retire_ != Retire::no || now_ns < role_retry_ns_) return;
  // Other processes can write what tells of the end: from one that cannot be, nothing is cut off, or waited for.
  if (const Position end = end_point().position; end > current().frontier() && !current().can_end_at(end))
    return fail_with(impossible_end(end));
  // Somebody may still write into this ring: it is kept for him, and the next one used.
  if (role_request_->role != ReplicaRole::fenced && current().ring().scribbled() != Scribbled::no)
    return begin_retire("the partition gets another leader");
  if (cuts(*role_request_) && !may_cut(now_ns)) return;
  RoleRequest request = *std::exchange(role_request_, std::nullopt);
  Result<bool> taken = true;
  if (request.role == ReplicaRole::leader) taken = lead(request);
  if (request.role == ReplicaRole::follower) taken = follow(request);
  if (!taken) {
    fail_with(taken.error());
    return refuse_role(request, taken.error());
  }
  if (!*taken) {  // somebody may make room; or ask for something else, as nothing comes of this
    role_request_ = std::move(request);
    role_retry_ns_ = now_ns + kRoleRetryNs;
    return;
  }
  announce_role();
  if (request.done) request.done(RoleOutcome{partition_, end_point(), epochs_, replica_});
}

// Whether nobody else is at work in the files that are to be cut off, and all that earlier rings hold is in them, and
// what is kept of this one: a full disk is waited for.
bool PartitionKeeper::may_cut(std::int64_t now_ns) {
  if (!is_disk()) return true;
  if (!role_request_->restart && writer_->durable_position() < role_request_->cut->position) {
    writer_->request_sync();
    return false;
  }
  const bool drained = rings_.size() == 1;
  // Whoever still has a claim in an earlier ring had the same time to finish it.
  if (!drained && now_ns - fenced_since_ns_ >= kClaimGraceNs) give_up_claims();
  if (compacting_ || preparing_segment_) cancel_compaction();
  return drained && !compacting_ && !preparing_segment_;
}

bool PartitionKeeper::is_settling() const { return role() == ReplicaRole::fenced && !settled_; }

// Whether all claims of the fenced ring have come to an end; then its frames' end is fixed.
bool PartitionKeeper::settle(std::int64_t now_ns) {
  if (!come_to_rest(now_ns)) return false;
  current().ring().follow({current().frontier(), current().frontier_offset()});
  settled_ = true;
  return true;
}

// Whether nobody is at work in the fenced ring any more, and the frontier is where its frames end.
bool PartitionKeeper::come_to_rest(std::int64_t now_ns) {
  if (retire_ != Retire::no) return false;
  // A keeper before this one was about to replace it. One that is sealed takes no more; in one in which a claim was
  // given up its owner may write at any time.
  if (current().ring().sealed() || current().ring().scribbled() != Scribbled::no) {
    begin_retire("its replacement was begun");
    return false;
  }
  if (current().ring().is_owned()) {
    if (!owner_rests(now_ns) || !walk_to_end()) return false;
    current().ring().clear_behind({current().frontier(), current().frontier_offset()});
    return true;
  }
  if (!is_disk()) walk_to_end();
  if (failed_) return false;
  const Ring::SealPoint seal = current().ring().seal_point();
  if (seal.known && current().frontier() >= seal.position && !is_being_helped()) return true;
  if (now_ns - fenced_since_ns_ >= kClaimGraceNs) give_up_claims();
  return false;
}

// Whether the owner of the fenced ring is not within an append, or was given up there: then it goes on in another.
bool PartitionKeeper::owner_rests(std::int64_t now_ns) {
  // SYNC: pairs with the owner's light fences: from here on his announcement is visible, or his commit, or he has seen
  // what he was told (exclusive.pml, FENCE, GIVE_UP).
  if (now_ns - owner_told_ns_ < shm::kVisibleNs) return false;
  bool at_work = false;
  for_each_at_work([&](std::uint32_t, std::uint64_t) { at_work = true; });
  if (at_work && now_ns - fenced_since_ns_ >= kClaimGraceNs) give_up_claims();
  return !at_work;
}

// The living who are at work in this partition's rings, but for those who have been given up.
template <class Visit>
void PartitionKeeper::for_each_at_work(Visit visit) const {
  const auto used = static_cast<std::uint32_t>(context_.control->slots().size());
  for (std::uint32_t i = 0; i < used; ++i) {
    const shm::Slot& slot = context_.control->slot(i);
    const std::uint64_t op = slot.op.load(std::memory_order_seq_cst);  // SYNC: see Ring::rotate
    if (shm::op_phase(op) == Phase::idle || shm::op_partition(op) != partition_.index) continue;
    if (context_.slots->state(i) != shm::SlotState::active) continue;
    if (!shm::is_same_claim(slot.given_up.load(memory_order_relaxed), op)) visit(i, op);
  }
}

// Whether somebody is in the midst of a rotation that he began before the fence: what he stores would be wrong
// in a ring that is cut, or led again.
bool PartitionKeeper::is_being_helped() const {
  bool helped = false;
  for_each_at_work([&](std::uint32_t, std::uint64_t op) { helped |= shm::op_phase(op) == Phase::helping; });
  return helped;
}

void PartitionKeeper::give_up_claims() {
  for_each_at_work([this](std::uint32_t slot, std::uint64_t op) { on_slot_stuck(slot, op); });
}

bool PartitionKeeper::cuts(const RoleRequest& request) const {
  return request.role == ReplicaRole::follower && request.cut &&
         (request.restart || *request.cut < end_point());
}

LogPoint PartitionKeeper::end_point() const {
  const Ring::End end = rings_.back().ring().claimed_end();
  return {end.position, end.offset};
}

// False: there is no room on the disk for it now, or no descriptor. What this costs is the role, not the partition:
// nothing was written, and all that is here is as it was.
Result<bool> PartitionKeeper::store_epochs(EpochList epochs) {
  if (auto stored = epochs.store(partition_.disk_dir); !stored) {
    if (!is_passing(stored.error())) return std::unexpected(stored.error());
    const std::string trouble = to_string(stored.error());
    if (trouble != announced_role_trouble_)
      logger().warn("{}: cannot take part in another epoch before it is noted: {}", name(), trouble);
    announced_role_trouble_ = trouble;
    return false;
  }
  epochs_ = std::move(epochs);
  announced_role_trouble_.clear();
  return true;
}

// After a reboot, or where the log was begun anew at the leader's start, the watermark may stand before the first record
// that there is. What is gone from files was confirmed, for retention asks for that; what a memory topic's ring has
// overwritten nobody can read any more. Only while no replicator raises it.
void PartitionKeeper::raise_watermark_to_start() {
  const std::uint64_t start = entry_.log_start_position.load(memory_order_relaxed);
  if (entry_.high_watermark.load(memory_order_relaxed) < start)
    shm::set_high_watermark(entry_, start, entry_.log_start_offset.load(memory_order_relaxed));
}

// Durable before the first record of the epoch: the list of epochs. False: see store_epochs.
Result<bool> PartitionKeeper::lead(const RoleRequest& request) {
  const LogPoint end = end_point();
  if (!current().can_end_at(end.position)) return std::unexpected(impossible_end(end.position));
  EpochList epochs = epochs_;
  epochs.cut({end.position + 1, end.offset});
  if (!epochs.begin(request.epoch, end))
    epochs_ = std::move(epochs);
  else if (auto stored = store_epochs(std::move(epochs)); !stored || !*stored)
    return stored;
  if (entry_.high_watermark.load(memory_order_relaxed) > end.position.value())
    shm::set_high_watermark(entry_, end.position.value(), end.offset.value());
  raise_watermark_to_start();
  entry_.lease_deadline_ns.store(request.lease_deadline_ns, memory_order_release);  // SYNC: as in step_role
  settled_ = false;
  // Ahead of the first claim that succeeds: should this process die in between, what stands behind `end` is no longer of
  // an earlier epoch.
  entry_.leader_epoch.store(request.epoch.value(), std::memory_order_seq_cst);
  current().ring().unfence({end.position, end.offset});
  publish_role(ReplicaRole::leader, request.epoch, request.leader_node);
  logger().info("{}: led by this host in epoch {}, from offset {} on", name(), request.epoch.value(),
                end.offset.value());
  return true;
}

// False: see store_epochs. Then the log is cut already.
Result<bool> PartitionKeeper::follow(RoleRequest& request) {
  if (cuts(request))
    if (auto cut = cut_log(*request.cut, request.restart); !cut) return std::unexpected(cut.error());
  request.cut.reset();
  if (auto stored = store_epochs(request.epochs); !stored || !*stored) return stored;
  replica_ = std::make_shared<ReplicaWriter>(partition_);
  replica_->enter(&current().ring(), request.epoch, end_point());
  raise_watermark_to_start();
  publish_role(ReplicaRole::follower, request.epoch, request.leader_node);
  logger().info("{}: follows node {} in epoch {}, from offset {} on", name(), request.leader_node,
                request.epoch.value(), end_point().offset.value());
  return true;
}

// Takes back what the leader does not have. Readers have not seen it: it was never below the high watermark,
// but for an unclean election.
Status PartitionKeeper::cut_log(const LogPoint& cut, bool restart) {
  const LogPoint end = end_point();
  logger().info("{}: cuts off its log at offset {}, position {}; it had records up to offset {}", name(),
                cut.offset.value(), cut.position.value(), end.offset.value());
  if (entry_.high_watermark.load(memory_order_relaxed) > cut.position.value()) {
    logger().warn("{}: an unclean election has taken back records below the high watermark", name());
    shm::set_high_watermark(entry_, cut.position.value(), cut.offset.value());
  }
  // Nor is anything kept where the leader's log ends before this one begins.
  restart = restart || (is_disk() && cut.position < writer_->log_start_position());
  const Ring& ring = current().ring();
  const bool in_ring = !restart && cut.position.value() >= ring.header().head.load(memory_order_relaxed) &&
                       cut.position >= ring.first_position();
  if (is_disk()) {
    flush_blocking();
    if (failed_) return fail(Code::storage_failed, "what was appended cannot be written");
  }
  // From here on a keeper that comes behind this one's death goes by the files, where there are any.
  if (in_ring)
    ring.begin_cut({cut.position, cut.offset});
  else
    for (const RingKeeper& left : rings_) left.ring().close();
  if (is_disk())
    if (auto done = cut_files(cut, restart); !done) return done;
  if (in_ring) {
    ring.cut({cut.position, cut.offset});
    Ring kept = std::move(current().ring());
    rings_.pop_back();
    rings_.emplace_back(std::move(kept), *context_.control, partition_.index, cut.position, cut.offset);
  } else if (auto made = restart_ring(cut); !made) {
    return made;
  }
  if (is_disk())
    use_as_source(current());
  else
    publish_memory_start();
  current().ring().end_cut();
  return {};
}

Status PartitionKeeper::cut_files(const LogPoint& cut, bool restart) {
  writer_.reset();
  copy_.reset();
  auto done = restart ? clear_log(*context_.backend, partition_.disk_dir)
                      : truncate_log(*context_.backend, partition_.disk_dir, identity(), cut);
  if (!done) return done;
  if (auto opened = open_files({}, restart ? std::optional(cut) : std::nullopt); !opened) return opened;
  if (writer_->end_position() != cut.position || writer_->end_offset() != cut.offset)
    return fail(Code::corrupt,
                fmt::format("{} ends at position {}, offset {} instead of {}, {}",
                            partition_.disk_dir.string(), writer_->end_position().value(),
                            writer_->end_offset().value(), cut.position.value(), cut.offset.value()));
  entry_.durable_position.store(0, memory_order_relaxed);
  // Also where nothing is left, so that no follower tells as synced what was cut off. Ahead of a ring that counts again:
  // with that, the next keeper believes it.
  shm::store_mark(entry_, writer_->durable_position().value(), writer_->durable_offset().value());
  publish_durable();
  enforce_retention();
  return {};
}

// A fresh ring in the place of the one that does not reach back to `at`.
Status PartitionKeeper::restart_ring(const LogPoint& at) {
  if (is_disk())
    for (RingKeeper& ring : rings_)
      context_.backend->unregister_buffer({ring.ring().data(), ring.ring().ring_bytes()});
  for (std::size_t i = 0; i + 1 < rings_.size(); ++i) retired_.push_back(rings_[i].ring().generation());
  rings_.clear();
  return make_first_ring(at.position, at.offset);
}

}  // namespace ringtail::log
