// What the leadership is to producers of a replicated partition: to have it, to lose it, and to wait for the others.
#include <gmock/gmock.h>

#include <tuple>

#include "shm/doorbell.h"
#include "unit/log/replica_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class ReplicatedLeader : public ReplicaPairTest {};
INSTANTIATE_TEST_SUITE_P(, ReplicatedLeader, ::testing::Values(Storage::disk, Storage::memory), storage_name);
// Nothing in memory is ever durable.
class ReplicatedDurability : public ReplicaPairTest {};
INSTANTIATE_TEST_SUITE_P(, ReplicatedDurability, ::testing::Values(Storage::disk), storage_name);

TEST_P(ReplicatedLeader, NobodyAppendsBeforeItIsDecidedWhoLeads) {
  auto producer = a_.new_producer();
  const auto sent = (*producer)->append({.value = "early"});
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error(), SendError::not_leader);
  EXPECT_THAT((*producer)->describe(sent.error()).message, HasSubstr("no host leads"));
  a_.lead(3);
  const auto now = (*producer)->append({.value = "now"});
  ASSERT_TRUE(now);
  EXPECT_EQ(now->offset, Offset(0));
  EXPECT_EQ(a_.entry().leader_epoch.load(), 3u);
}

TEST_P(ReplicatedLeader, ARecordOfAllReplicasIsConfirmedByTheWatermark) {
  a_.lead(1);
  a_.entry().in_sync.store(1);
  auto producer = a_.new_producer(milliseconds(30));
  ASSERT_TRUE((*producer)->check_replicas());
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::timed_out);
  a_.set_watermark({sent->end, sent->offset + 1});
  EXPECT_TRUE((*producer)->wait_replicated(sent->end));
  a_.entry().min_insync_replicas.store(2);
  a_.entry().hot.fetch_add(shm::kHotVersion);
  EXPECT_EQ((*producer)->check_replicas().error(), SendError::not_enough_replicas);
}

// Between the seal and the next ring: for long, if the keeper dies or stands still just then.
TEST_P(ReplicatedLeader, WhoOpensWhileARingIsReplacedWaitsForTheNextOne) {
  a_.lead(1);
  auto owner = a_.new_producer();
  const auto open = [&](milliseconds max_block) {
    return Appender::open(a_.ref(), owner->slot, owner->clock, max_block, false);
  };
  const auto path = ring_path(a_.ref().shm_dir, a_.ref().topic, a_.ref().partition);
  const auto away = path.string() + ".away";
  std::filesystem::rename(path, away);
  EXPECT_EQ(open(milliseconds(5)).error().code, Code::not_found);
  std::thread keeper([&] {
    std::this_thread::sleep_for(milliseconds(20));
    std::filesystem::rename(away, path);
  });
  auto appender = open(milliseconds(60'000));
  keeper.join();
  ASSERT_TRUE(appender) << to_string(appender.error());
  EXPECT_TRUE(appender->append({.value = "v"}));
}

// The one who ships looks again by himself, but not soon enough for a producer that waits for him.
TEST_P(ReplicatedLeader, WhoWaitsForTheReplicasRingsForTheOneWhoRests) {
  const auto bell = shm::Doorbell::open(a_.ref().shm_dir);
  ASSERT_TRUE(bell) << to_string(bell.error());
  a_.lead(1);
  a_.entry().in_sync.store(1);
  auto producer = a_.new_producer(milliseconds(30));
  ASSERT_TRUE((*producer)->check_replicas());
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  std::uint32_t index = 99;
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::timed_out);
  EXPECT_FALSE(bell->next(index));
  a_.entry().replicated_waiters.store(shm::kShipperRests);
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::timed_out);
  EXPECT_TRUE(bell->next(index));
  EXPECT_EQ(index, a_.ref().index);
  a_.set_watermark({sent->end, sent->offset + 1});
  EXPECT_EQ(a_.entry().replicated_waiters.load(), shm::kShipperRests);
  EXPECT_TRUE((*producer)->wait_replicated(sent->end));
  EXPECT_FALSE(bell->next(index));
}

TEST_P(ReplicatedLeader, NothingIsConfirmedOnceTheLeadershipIsLost) {
  a_.lead(1);
  a_.entry().in_sync.store(1);
  auto producer = a_.new_producer(milliseconds(10'000));
  ASSERT_TRUE((*producer)->check_replicas());
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  std::thread waiting(
      [&] { EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::lost_leadership); });
  std::this_thread::sleep_for(milliseconds(10));
  a_.fence();
  waiting.join();
  a_.set_watermark({sent->end, sent->offset + 1});
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::lost_leadership);
  a_.lead(2);  // the same host, but another epoch
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::lost_leadership);
}

// It stands in the log, which the next leader may lack.
TEST_P(ReplicatedLeader, WhatWasNotSyncedWhenTheLeadershipWasLostIsOfUnknownOutcome) {
  a_.lead(1);
  auto producer = a_.new_producer();
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  a_.entry().role.store(static_cast<std::uint32_t>(shm::ReplicaRole::fenced));
  a_.entry().hot.fetch_add(shm::kHotVersion);
  const bool is_in_memory = GetParam() == Storage::memory;
  EXPECT_EQ((*producer)->wait_durable(*sent).error(),
            is_in_memory ? SendError::invalid_record : SendError::lost_leadership);
  EXPECT_EQ((*producer)->append({.value = "later"}).error(), SendError::not_leader);
}

// What stands there now is synced, but it is what the next leader appended in its place.
TEST_P(ReplicatedDurability, AnothersRecordAtTheSamePositionDoesNotConfirmOne) {
  a_.lead(1);
  auto producer = a_.new_producer();
  const auto sent = (*producer)->append({.value = "mine"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->epoch, LeaderEpoch(1));
  b_.lead(2);
  auto other = b_.new_producer();
  b_.append(*other, "other ", 20);
  follow_and_expect_same(a_, b_, 2);
  a_.turn_until([&] { return a_.entry().durable_position.load() >= b_.end().position.value(); });
  EXPECT_EQ((*producer)->wait_durable(*sent).error(), SendError::lost_leadership);
  a_.lead(3);
  EXPECT_EQ((*producer)->wait_durable(*sent).error(), SendError::lost_leadership);
  EXPECT_EQ((*producer)->flush().error(), SendError::lost_leadership);
  EXPECT_TRUE((*producer)->flush()) << "it was told";
  const auto later = (*producer)->append({.value = "later"});
  ASSERT_TRUE(later);
  EXPECT_EQ(later->epoch, LeaderEpoch(3));
  a_.turn_until([&] { return a_.entry().durable_position.load() >= later->end.value(); });
  EXPECT_TRUE((*producer)->wait_durable(*later));
  EXPECT_TRUE((*producer)->flush());
  EXPECT_EQ((*producer)->wait_durable(*sent).error(), SendError::lost_leadership);
}

// Its daemon was restarted, and nothing was cut off.
TEST_P(ReplicatedDurability, WhatHasStayedIsConfirmedUnderTheNextLeadership) {
  a_.lead(1);
  auto producer = a_.new_producer();
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  a_.lead(2);
  a_.turn_until([&] { return a_.entry().durable_position.load() >= sent->end.value(); });
  EXPECT_TRUE((*producer)->wait_durable(*sent));
  EXPECT_TRUE((*producer)->flush());
  const auto claim = (*producer)->claim({}, 10);
  ASSERT_TRUE(claim);
  a_.entry().leader_epoch.store(3);
  a_.entry().hot.fetch_add(shm::kHotVersion);
  std::ignore = (*producer)->check_replicas();  // which notices the new leadership
  EXPECT_TRUE((*producer)->commit(*claim));
  EXPECT_EQ((*producer)->flush().error(), SendError::timed_out);
  a_.turn_until([&] { return a_.entry().durable_position.load() >= claim->metadata.end.value(); });
  EXPECT_TRUE((*producer)->flush());
}

// As one that answers for another does.
TEST_P(ReplicatedDurability, WhatIsNotedAsSentIsFlushed) {
  a_.lead(1);
  auto other = a_.new_producer();
  const auto sent = (*other)->append({.value = "v"});
  ASSERT_TRUE(sent);
  auto producer = a_.new_producer();
  EXPECT_TRUE((*producer)->flush()) << "it has sent nothing";
  (*producer)->note_sent(*sent);
  EXPECT_EQ((*producer)->flush().error(), SendError::timed_out);
  a_.turn_until([&] { return a_.entry().durable_position.load() >= sent->end.value(); });
  EXPECT_TRUE((*producer)->flush());
}

TEST_P(ReplicatedLeader, NumbersOfOneEpochAreNotAppendedUnderAnother) {
  a_.lead(1);
  const Stamp stamp{.producer_id = 7};
  auto producer = a_.new_producer();
  (*producer)->set_stamp(&stamp);
  (*producer)->expect_epoch(LeaderEpoch(1));
  ASSERT_TRUE((*producer)->append({.value = "v"}));
  a_.lead(2);
  EXPECT_EQ((*producer)->append({.value = "w"}).error(), SendError::not_leader);
  EXPECT_EQ((*producer)->next_sequence(), 1u);
  (*producer)->expect_epoch(std::nullopt);
  EXPECT_TRUE((*producer)->append({.value = "w"}));
}

TEST_P(ReplicatedLeader, AClaimThatIsDroppedTakesBackNoNumberThatTheLogHasGivenMeanwhile) {
  a_.lead(1);
  const Stamp stamp{.producer_id = 7};
  auto producer = a_.new_producer();
  (*producer)->set_stamp(&stamp);
  auto claim = (*producer)->claim({}, 10);
  ASSERT_TRUE(claim);
  (*producer)->abort(*claim);
  EXPECT_EQ((*producer)->next_sequence(), 0u);
  claim = (*producer)->claim({}, 10);
  ASSERT_TRUE(claim);
  (*producer)->set_next_sequence(20);
  (*producer)->abort(*claim);
  EXPECT_EQ((*producer)->next_sequence(), 20u);
}

TEST_P(ReplicatedLeader, TheNextTopicInItsPlaceConfirmsNothing) {
  a_.lead(1);
  a_.entry().in_sync.store(1);
  auto producer = a_.new_producer(milliseconds(30));
  ASSERT_TRUE((*producer)->check_replicas());
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  a_.set_watermark({sent->end, sent->offset + 1});
  a_.entry().durable_position.store(sent->end.value());
  a_.entry().topic_id.fetch_add(1);
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::closed);
  if (GetParam() == Storage::disk) {
    EXPECT_EQ((*producer)->wait_durable(*sent).error(), SendError::closed);
    EXPECT_EQ((*producer)->flush().error(), SendError::closed);
  }
  a_.entry().topic_id.fetch_sub(1);
}

// Its daemon stands still: the lease's end alone tells.
TEST_P(ReplicatedLeader, NothingIsConfirmedBehindTheEndOfTheLease) {
  a_.lead(1);
  a_.entry().in_sync.store(1);
  auto producer = a_.new_producer();
  ASSERT_TRUE((*producer)->check_replicas());
  const auto sent = (*producer)->append({.value = "v"});
  ASSERT_TRUE(sent);
  a_.set_watermark({sent->end, sent->offset + 1});
  a_.entry().lease_deadline_ns.store(boottime_ns() - 1);
  EXPECT_EQ((*producer)->wait_replicated(sent->end).error(), SendError::lost_leadership);
  a_.turn();
  EXPECT_EQ((*producer)->append({.value = "late"}).error(), SendError::not_leader);
}

TEST_P(ReplicatedLeader, AnOpenClaimIsGivenUpWhenTheLeadershipIs) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto slow = a_.new_producer();
  a_.append(*producer, "one ", 3);
  auto claim = (*slow)->claim({}, 100);
  ASSERT_TRUE(claim);
  a_.append(*producer, "two ", 3);
  const RoleOutcome fenced = a_.fence();
  EXPECT_EQ(fenced.end.offset, Offset(7));
  EXPECT_EQ((*slow)->commit(*claim).error(), SendError::claim_expired);
  b_.lead(2);
  auto second = b_.new_producer();
  b_.append(*second, "other ", 2);
  follow_and_expect_same(a_, b_, 2);
}

// Memory topics have no files by which it could be told.
TEST_P(ReplicatedLeader, WhatStandsBesideAClaimThatWasGivenUpIsShippedStill) {
  a_.lead(1);
  b_.follow(a_, 1);
  auto producer = a_.new_producer();
  auto slow = a_.new_producer();
  a_.append(*producer, "one ", 3);
  b_.fetch_from(a_);
  auto claim = (*slow)->claim({}, 100);
  ASSERT_TRUE(claim);
  a_.append(*producer, "two ", 3);
  const std::uint64_t before = a_.ring().generation();
  a_.keeper().on_slot_stuck(slow->slot.index(), a_.ref().control->slot(slow->slot.index()).op.load());
  a_.turn_until([&] { return a_.ring().generation() > before && slow->slot.given_up_done(); });
  EXPECT_EQ((*slow)->commit(*claim).error(), SendError::claim_expired);
  a_.append(*producer, "three ", 3);
  b_.fetch_from(a_);
  EXPECT_EQ(b_.end().offset, Offset(10));
  expect_same(a_, b_);
}

TEST_P(ReplicatedLeader, AnExclusiveProducerHasItsRingAgainWhenItsHostLeadsAgain) {
  auto alone = a_.new_producer(milliseconds(1), true);
  a_.lead(1);
  a_.append(*alone, "one ", 40);
  EXPECT_EQ(a_.ring().owner(), alone->slot.owner());
  follow_and_expect_same(b_, a_, 1);
  a_.fence();
  EXPECT_EQ((*alone)->append({.value = "not now"}).error(), SendError::not_leader);
  a_.lead(2);
  a_.append(*alone, "two ", 40);
  EXPECT_EQ(a_.ring().owner(), alone->slot.owner());
  follow_and_expect_same(b_, a_, 2);
}

TEST_P(ReplicatedLeader, AnExclusiveProducerThatStandsStillIsGivenUpWhenTheLeadershipIs) {
  auto alone = a_.new_producer(milliseconds(1), true);
  a_.lead(1);
  a_.append(*alone, "one ", 3);
  auto claim = (*alone)->claim({}, 100);
  ASSERT_TRUE(claim);
  const RoleOutcome fenced = a_.fence();
  EXPECT_EQ(fenced.end.offset, Offset(3));
  EXPECT_EQ((*alone)->commit(*claim).error(), SendError::claim_expired);
  b_.lead(2);
  auto second = b_.new_producer();
  b_.append(*second, "other ", 2);
  follow_and_expect_same(a_, b_, 2);
}

// The next keeper must not take the ring for one at rest, in which nobody writes any more.
TEST_P(ReplicatedLeader, AKeeperMayDieWhenItHasGivenUpAnExclusiveProducer) {
  auto alone = a_.new_producer(milliseconds(1), true);
  a_.lead(1);
  a_.append(*alone, "one ", 3);
  auto claim = (*alone)->claim({}, 100);
  ASSERT_TRUE(claim);
  const Ring before = a_.ring();
  a_.keeper().request_role({.role = ReplicaRole::fenced});
  a_.turn_until([&] { return before.scribbled() == Scribbled::by_owner; });
  a_.restart_keeper();
  a_.fence();
  EXPECT_NE(a_.ring().generation(), before.generation());
  a_.lead(2);
  std::memset(claim->value, 'z', 100);
  EXPECT_EQ((*alone)->commit(*claim).error(), SendError::claim_expired);
  a_.append(*alone, "two ", 10);
  follow_and_expect_same(b_, a_, 2);
}

// Of any ring: it was sealed, and the next one not in its place yet.
TEST_P(ReplicatedLeader, AKeeperMayDieBetweenTheSealAndTheNextRing) {
  a_.lead(1);
  auto producer = a_.new_producer();
  a_.append(*producer, "one ", 3);
  const Ring sealed = a_.ring();
  sealed.fence();
  const Ring::SealPoint seal = sealed.seal_point();
  ASSERT_TRUE(seal.known);
  sealed.finish_seal(seal.position, seal.offset);
  a_.restart_keeper();
  a_.lead(2);
  EXPECT_NE(a_.ring().generation(), sealed.generation());
  a_.append(*producer, "two ", 10);
  follow_and_expect_same(b_, a_, 2);
}

TEST_P(ReplicatedLeader, AProducerThatDiesInTheMiddleOfAClaimDoesNotHoldUpTheFence) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto dying = a_.new_producer();
  a_.append(*producer, "one ", 3);
  ASSERT_TRUE((*dying)->claim({}, 100));
  dying.reset();
  const RoleOutcome fenced = a_.fence();
  EXPECT_EQ(fenced.end.offset, Offset(4));
  a_.lead(2);
  a_.append(*producer, "two ", 3);
  follow_and_expect_same(b_, a_, 2);
}

// What it may become: of a leader, all that is claimed; of another, nobody here knows.
TEST_P(ReplicatedLeader, AnOffsetBeyondTheWatermarkMayComeUnlessItIsBeyondTheLeadersEnd) {
  a_.lead(1);
  auto producer = a_.new_producer();
  a_.append(*producer, "v", 10);
  auto reader = a_.new_reader();
  EXPECT_EQ(reader->seek(Offset(10)).error().code, Code::offset_not_available);
  EXPECT_EQ(reader->seek(Offset(11)).error().code, Code::offset_out_of_range);
  a_.set_watermark(a_.end());
  EXPECT_TRUE(reader->seek(Offset(10)));
  a_.fence();
  EXPECT_EQ(reader->seek(Offset(11)).error().code, Code::offset_not_available);
  EXPECT_EQ(reader->offset(), Offset(10));
}

}  // namespace
}  // namespace ringtail::log
