// Holes that dead and stuck producers leave in a partition's rings: when they are asked about, and whom the
// answer concerns.

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

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kInquiryPeriodNs = kMillisecond;
constexpr std::int64_t kSettlePeriodNs = 20 * kMillisecond;  // it walks whole rings

}  // namespace

void PartitionKeeper::repair(std::int64_t now_ns) {
  if (inquiring()) return step_inquiries();
  current().help_rotate();
  const RingKeeper& oldest = draining();
  const bool stuck = is_disk() && oldest.has_unresolved() && oldest.frontier() == stuck_at_;
  stuck_at_ = oldest.frontier();
  // Rings of memory topics are not walked, so sealed ones are looked through until they are whole.
  const bool unsettled = !is_disk() && rings_.size() > 1;
  // Fenced for longer than a tick: the end of its claims is not known, and only repair can tell it.
  const bool sealing = retire_ == Retire::fenced || is_settling() || handing_over_;
  if (dead_slots_.empty() && !owes_answer(fenced_generation()) && !sealing &&
      !std::exchange(look_anew_, false)) {
    if ((!stuck && !unsettled) || now_ns < inquiry_due_ns_) return;
  }
  inquiry_due_ns_ = now_ns + (is_disk() ? kInquiryPeriodNs : kSettlePeriodNs);
  // What this inquiry settles when it is complete: what was so before it began.
  settling_dead_ = dead_slots_.size();
  settling_generation_ = fenced_generation();
  settling_rings_ = rings_.size() - 1;
  for (RingKeeper& ring : rings_) ring.begin_inquiry();
}

bool PartitionKeeper::inquiring() const {
  return std::any_of(rings_.begin(), rings_.end(), [](const RingKeeper& ring) { return ring.inquiring(); });
}

void PartitionKeeper::step_inquiries() {
  std::uint64_t repaired = 0;
  for (RingKeeper& ring : rings_) {
    if (!ring.inquiring()) continue;
    const std::uint64_t before = ring.repaired_records();
    if (auto complete = ring.step_inquiry(*context_.slots); !complete) return fail_with(complete.error());
    repaired += ring.repaired_records() - before;
  }
  if (repaired > 0) {
    logger().info("{}: repaired holes of {} records that were never committed", name(), repaired);
    entry_.repaired_records.fetch_add(repaired, memory_order_relaxed);
    wake_readers();
  }
  if (!inquiring()) settle_inquiry();
}

void PartitionKeeper::settle_inquiry() {
  for (std::size_t i = 0; i < settling_dead_; ++i) context_.slots->release_dead(dead_slots_[i]);
  dead_slots_.erase(dead_slots_.begin(), dead_slots_.begin() + static_cast<std::ptrdiff_t>(settling_dead_));
  settling_dead_ = 0;
  for (std::size_t i = 0; i < settling_rings_ && rings_[i].open_claims() == 0; ++i)
    whole_generation_ = rings_[i].ring().generation();
  std::erase_if(given_up_, [this](const GivenUp& given_up) {
    if (given_up.generation > settling_generation_) return false;
    // SYNC: pairs with OwnedSlot::given_up_done: the ring now tells what became of the claim.
    context_.control->slot(given_up.slot).given_up_done.store(given_up.op, memory_order_release);
    return true;
  });
}

// The last ring that will have no new claims.
std::uint64_t PartitionKeeper::fenced_generation() const {
  const Ring& ring = rings_.back().ring();
  // SYNC: see Ring::fence
  const bool fenced = tail_fenced(ring.line(0).tail.load(memory_order_acquire)) && ring.owner() == 0;
  return fenced ? ring.generation() : ring.generation() - 1;
}

// Whether a claim in a ring up to that one was given up, and its owner has not been told what became of it.
bool PartitionKeeper::owes_answer(std::uint64_t generation) const {
  return std::any_of(given_up_.begin(), given_up_.end(),
                     [generation](const GivenUp& g) { return g.generation <= generation; });
}

void PartitionKeeper::on_slot_dead(std::uint32_t slot) {
  if (failed_) return context_.slots->release_dead(slot);  // the next keeper looks for what he left
  // Once, though another process has said that he lives, and he is found dead again.
  if (std::ranges::find(dead_slots_, slot) == dead_slots_.end()) dead_slots_.push_back(slot);
}

void PartitionKeeper::on_slot_stuck(std::uint32_t slot, std::uint64_t op) {
  // One that could not be opened has no ring.
  if (failed_)
    return context_.control->slot(slot).given_up_done.store(op, memory_order_release);  // SYNC: as above
  // Who has the partition for himself keeps nobody waiting, as long as it is his.
  if (const std::uint32_t owner = current().ring().owner(); owner != 0 && shm::owner_slot(owner) == slot)
    return;
  logger().warn("{}: slot {} (pid {}) stands still within a claim {}; giving it up", name(), slot,
                context_.control->slot(slot).pid.load(memory_order_relaxed),
                role() == shm::ReplicaRole::fenced
                    ? std::string("while the partition changes its role")
                    : fmt::format("for more than claim.timeout.ms={}", config_.claim_timeout_ms));
  for (const RingKeeper& keeper : rings_) {
    const Ring& ring = keeper.ring();
    // Nobody else writes into one that somebody has for himself; and what is marked stays as it was marked.
    if (ring.owner() != 0 || ring.scribbled() != Scribbled::no) continue;
    const Scribbled by = ring.is_owned() ? Scribbled::by_owner : Scribbled::by_claimer;
    ring.header().scribbled.store(static_cast<std::uint32_t>(by), memory_order_relaxed);
  }
  // SYNC: before the look at the frame; pairs with OwnedSlot::given_up after the commit.
  context_.control->slot(slot).given_up.store(op, std::memory_order_seq_cst);
  // His commit is visible some time behind it, and counts, or he finds himself given up (exclusive.pml, GIVE_UP).
  if (current().ring().is_owned()) owner_told_ns_ = monotonic_ns();
  // One for each slot: who has gone on to another operation waits for no answer any more.
  const GivenUp given_up{slot, op, current().ring().generation()};
  const auto known = std::ranges::find(given_up_, slot, &GivenUp::slot);
  if (known != given_up_.end())
    *known = given_up;
  else
    given_up_.push_back(given_up);
  begin_retire("a claim was given up while its owner lives");
}

}  // namespace ringtail::log
