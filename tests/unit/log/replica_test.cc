#include <random>

#include <gmock/gmock.h>

#include "shm/doorbell.h"
#include "unit/log/replica_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class Replicated : public ::testing::TestWithParam<Storage> {
 protected:
  Replicated() : a_(GetParam()), b_(GetParam()) {}
  // b has all that a has, and may be read to its end.
  void expect_same(ReplicaHost& a, ReplicaHost& b) {
    ASSERT_EQ(a.end(), b.end());
    a.set_watermark(a.end());
    b.set_watermark(b.end());
    const auto of_a = a.records();
    const auto of_b = b.records();
    ASSERT_FALSE(a.failed());
    ASSERT_FALSE(b.failed());
    // A memory topic's readers may begin later in one ring than in the other.
    const std::size_t common = std::min(of_a.size(), of_b.size());
    if (GetParam() == Storage::disk) {
      ASSERT_EQ(of_a.size(), of_b.size());
    }
    ASSERT_TRUE(std::equal(of_a.end() - static_cast<std::ptrdiff_t>(common), of_a.end(),
                           of_b.end() - static_cast<std::ptrdiff_t>(common)));
  }

  ReplicaHost a_;
  ReplicaHost b_;
};
INSTANTIATE_TEST_SUITE_P(, Replicated, ::testing::Values(Storage::disk, Storage::memory),
                         [](const auto& p) { return p.param == Storage::disk ? "Disk" : "Memory"; });

TEST_P(Replicated, NobodyAppendsBeforeItIsDecidedWhoLeads) {
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

TEST_P(Replicated, AFollowerHasTheSameBytesAtTheSamePositions) {
  a_.lead(1);
  auto producer = a_.new_producer();
  const bool memory = GetParam() == Storage::memory;
  a_.append(*producer, "one ", 900);  // several laps of its ring
  b_.follow(a_, 1);
  b_.fetch_from(a_);
  expect_same(a_, b_);
  a_.append(*producer, "two ", memory ? 60 : 300);
  b_.fetch_from(a_, 100);  // a frame at a time
  expect_same(a_, b_);
  auto refused = b_.new_producer();
  EXPECT_EQ((*refused)->append({.value = "here"}).error(), SendError::not_leader);
  EXPECT_THAT((*refused)->describe(SendError::not_leader).message, HasSubstr("node 1 leads"));
}

TEST_P(Replicated, ReadersStopAtTheHighWatermark) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto reader = a_.new_reader();
  a_.append(*producer, "r", 5);
  EXPECT_TRUE(a_.records_of(*reader).empty());
  EXPECT_FALSE(reader->has_data());
  const auto fourth = (*producer)->append({.value = "sixth"});
  ASSERT_TRUE(fourth);
  const LogPoint five{fourth->end - 40, Offset(5)};
  a_.set_watermark(five);
  EXPECT_TRUE(reader->has_data());
  EXPECT_EQ(a_.records_of(*reader).size(), 5u);
  EXPECT_EQ(reader->log_end()->offset, Offset(5));
  EXPECT_FALSE(reader->seek(Offset(6)));
  a_.set_watermark(a_.end());
  EXPECT_EQ(a_.records_of(*reader).size(), 1u);
}

TEST_P(Replicated, AFollowerTakesOverWhereItStands) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  a_.append(*producer, "one ", 50);
  b_.fetch_from(a_);
  a_.append(*producer, "lost ", 30);  // nobody else has these
  b_.lead(2);
  auto second = b_.new_producer();
  b_.append(*second, "two ", 100);
  a_.follow(b_, 2);
  a_.fetch_from(b_);
  expect_same(a_, b_);
  const auto records = a_.records();
  EXPECT_FALSE(std::ranges::any_of(records, [](const auto& r) { return r.second.starts_with("lost"); }));
  EXPECT_EQ((*producer)->append({.value = "late"}).error(), SendError::not_leader);
  a_.lead(3);
  a_.append(*producer, "three ", 20);
  b_.follow(a_, 3);
  b_.fetch_from(a_);
  expect_same(a_, b_);
}

// What is taken back may reach further than the ring does.
TEST(ReplicatedOnDisk, CutsOffWhatIsOnlyInFiles) {
  ReplicaHost a(Storage::disk);
  ReplicaHost b(Storage::disk);
  a.lead(1);
  auto producer = a.new_producer();
  b.follow(a, 1);
  a.append(*producer, "one ", 50);
  b.fetch_from(a);
  a.append(*producer, "lost ", 6'000);
  a.turn_until_durable();
  b.lead(2);
  auto second = b.new_producer();
  b.append(*second, "two ", 10);
  a.follow(b, 2);
  a.fetch_from(b);
  a.set_watermark(a.end());
  b.set_watermark(b.end());
  EXPECT_EQ(a.end(), b.end());
  EXPECT_EQ(a.records(), b.records());
  a.turn_until_durable();
  a.reboot();
  a.set_watermark(a.end());
  EXPECT_EQ(a.records(), b.records());
}

TEST_P(Replicated, ARecordOfAllReplicasIsConfirmedByTheWatermark) {
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
TEST_P(Replicated, WhoOpensWhileARingIsReplacedWaitsForTheNextOne) {
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
TEST_P(Replicated, WhoWaitsForTheReplicasRingsForTheOneWhoRests) {
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

TEST_P(Replicated, NothingIsConfirmedOnceTheLeadershipIsLost) {
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

// Its daemon stands still: the lease's end alone tells.
TEST_P(Replicated, NothingIsConfirmedBehindTheEndOfTheLease) {
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

TEST_P(Replicated, AnOpenClaimIsGivenUpWhenTheLeadershipIs) {
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
  a_.follow(b_, 2);
  a_.fetch_from(b_);
  expect_same(a_, b_);
}

// --- Producers that have the partition for themselves ----------------------------------------------

TEST_P(Replicated, AnExclusiveProducerHasItsRingAgainWhenItsHostLeadsAgain) {
  auto alone = a_.new_producer(std::chrono::milliseconds(1), true);
  a_.lead(1);
  a_.append(*alone, "one ", 40);
  EXPECT_EQ(a_.ring().owner(), alone->slot.owner());
  b_.follow(a_, 1);
  b_.fetch_from(a_);
  expect_same(a_, b_);
  a_.fence();
  EXPECT_EQ((*alone)->append({.value = "not now"}).error(), SendError::not_leader);
  a_.lead(2);
  a_.append(*alone, "two ", 40);
  EXPECT_EQ(a_.ring().owner(), alone->slot.owner());
  b_.follow(a_, 2);
  b_.fetch_from(a_);
  expect_same(a_, b_);
}

TEST_P(Replicated, AnExclusiveProducerThatStandsStillIsGivenUpWhenTheLeadershipIs) {
  auto alone = a_.new_producer(std::chrono::milliseconds(1), true);
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
  a_.follow(b_, 2);
  a_.fetch_from(b_);
  expect_same(a_, b_);
}

// The next keeper must not take the ring for one at rest, in which nobody writes any more.
TEST_P(Replicated, AKeeperMayDieWhenItHasGivenUpAnExclusiveProducer) {
  auto alone = a_.new_producer(std::chrono::milliseconds(1), true);
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
  b_.follow(a_, 2);
  b_.fetch_from(a_);
  expect_same(a_, b_);
}

// Of any ring: it was sealed, and the next one not in its place yet.
TEST_P(Replicated, AKeeperMayDieBetweenTheSealAndTheNextRing) {
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
  b_.follow(a_, 2);
  b_.fetch_from(a_);
  expect_same(a_, b_);
}

TEST_P(Replicated, AProducerThatDiesInTheMiddleOfAClaimDoesNotHoldUpTheFence) {
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
  b_.follow(a_, 2);
  b_.fetch_from(a_);
  expect_same(a_, b_);
}

// The ring was replaced, for a claim in it was given up, and another producer stands still there, too, when the log
// is to be cut off: the files are cut when they have all that the ring holds.
TEST_P(Replicated, AProducerThatStandsStillInAnEarlierRingDoesNotHoldUpTheCut) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto holder = a_.new_producer();
  auto late = a_.new_producer();
  a_.append(*producer, "one ", 3);
  b_.follow(a_, 1);
  b_.fetch_from(a_);
  ASSERT_TRUE((*holder)->claim({}, 100));
  a_.append(*producer, "lost ", 20);
  b_.lead(2);
  std::optional<Result<RoleOutcome>> fenced;
  a_.keeper().request_role({.role = ReplicaRole::fenced,
                            .done = [&](Result<RoleOutcome> outcome) { fenced = std::move(outcome); }});
  const shm::Slot& slot = a_.ref().control->slot(holder->slot.index());
  a_.turn_until([&] { return slot.given_up.load() == slot.op.load(); });
  late->slot.announce(shm::Phase::claiming, a_.ref().index);
  a_.turn_until([&] { return fenced.has_value(); });
  ASSERT_TRUE(*fenced);
  a_.follow(b_, 2);
  EXPECT_FALSE(a_.failed());
  auto successor = b_.new_producer();
  b_.append(*successor, "two ", 20);
  a_.fetch_from(b_);
  late->slot.finish();
  expect_same(a_, b_);
}

// He may store what he knew of the ring before it was cut: so it is left to him.
TEST_P(Replicated, AProducerThatStandsStillInARotationKeepsTheRing) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto helper = a_.new_producer();
  a_.append(*producer, "one ", 3);
  b_.follow(a_, 1);
  b_.fetch_from(a_);
  a_.append(*producer, "lost ", 3);
  b_.lead(2);
  const std::uint64_t generation = a_.entry().ring_generation.load();
  helper->slot.announce_fenced(shm::Phase::helping, a_.ref().index);
  a_.follow(b_, 2);
  EXPECT_GT(a_.entry().ring_generation.load(), generation);
  helper->slot.finish();
  auto successor = b_.new_producer();
  b_.append(*successor, "two ", 20);
  a_.fetch_from(b_);
  expect_same(a_, b_);
}

TEST_P(Replicated, TheNextKeeperFindsWhatTheDeadOneWasShipped) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  for (int i = 0; i < 5; ++i) {
    a_.append(*producer, "r" + std::to_string(i) + ' ', 60);
    b_.fetch_from(a_);
    const LogPoint end = b_.end();
    b_.restart_keeper();
    EXPECT_EQ(b_.end(), end);
    b_.follow(a_, 1);
  }
  expect_same(a_, b_);
}

TEST(ReplicatedOnDisk, AfterACrashOfItsHostAFollowerGoesOnFromWhatItHasSynced) {
  ReplicaHost a(Storage::disk);
  ReplicaHost b(Storage::disk);
  a.lead(1);
  auto producer = a.new_producer();
  b.follow(a, 1);
  for (int i = 0; i < 4; ++i) {
    a.append(*producer, "r" + std::to_string(i) + ' ', 100);
    b.fetch_from(a);
    if (i % 2 == 0) b.turn_until_durable();
    const LogPoint end = b.end();
    b.reboot();
    EXPECT_LE(b.end(), end);
    b.follow(a, 1);
    b.fetch_from(a);
    b.turn_until_durable();
  }
  b.set_watermark(b.end());
  a.set_watermark(a.end());
  EXPECT_EQ(a.records(), b.records());
}

// A reader that stands still in the follower's ring gets to keep it.
TEST_P(Replicated, AFollowersRingIsReplacedWhereItStands) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  a_.append(*producer, "r", 20);
  b_.fetch_from(a_);
  b_.set_watermark(b_.end());
  auto reader = b_.new_reader();
  std::array<Record, 4> some;
  ASSERT_EQ(*reader->poll(some), 4u);
  const std::string held(some[3].value);
  const std::uint64_t generation = b_.entry().ring_generation.load();
  for (int i = 0; i < 100 && b_.entry().ring_generation.load() == generation; ++i) {
    a_.append(*producer, "more ", 40);
    b_.fetch_from(a_, 1'000);
    std::this_thread::sleep_for(milliseconds(2));
    b_.turn();
  }
  if (GetParam() == Storage::disk) {
    EXPECT_NE(b_.entry().ring_generation.load(), generation);
  }
  EXPECT_EQ(held, some[3].value);
  expect_same(a_, b_);
  // In memory, what it did not come to may be gone: then it is told so.
  EXPECT_TRUE(!b_.records_of(*reader).empty() || reader->missed() > 0);
}

TEST_P(Replicated, RefusesWhatIsNoFrameOrNotForThisPlaceOrEpoch) {
  a_.lead(1);
  auto producer = a_.new_producer();
  a_.append(*producer, "r", 3);
  b_.follow(a_, 1);
  auto from = PartitionReader::open_for_shipping(a_.ref(), 401, 4096, {});
  auto frames = (*from)->poll_frames(1 << 20, true);
  ASSERT_TRUE(frames);
  ReplicaWriter& writer = *b_.outcome().writer;
  EXPECT_EQ(writer.append(LeaderEpoch(2), Position(0), frames->bytes).error().code, Code::fenced);
  EXPECT_EQ(writer.append(LeaderEpoch(1), Position(8), frames->bytes).error().code,
            Code::offset_out_of_range);
  EXPECT_EQ(writer.append(LeaderEpoch(1), Position(0), frames->bytes.subspan(8)).error().code, Code::corrupt);
  std::vector<std::byte> damaged(frames->bytes.begin(), frames->bytes.end());
  damaged[8] ^= std::byte{1};
  EXPECT_EQ(writer.append(LeaderEpoch(1), Position(0), damaged).error().code, Code::corrupt);
  EXPECT_EQ(writer.end(), LogPoint{});
  EXPECT_TRUE(writer.append(LeaderEpoch(1), Position(0), frames->bytes));
  b_.fence();
  EXPECT_EQ(writer.append(LeaderEpoch(1), frames->end.position, frames->bytes).error().code, Code::fenced);
}

// Leaders in turn, cut off at random places, keepers dying, records of all sizes; in the end all have the same.
TEST_P(Replicated, StaysTheSameThroughRandomChangesOfLeaders) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::array<ReplicaHost*, 2> hosts{&a_, &b_};
  for (std::uint32_t epoch = 1; epoch <= 24; ++epoch) {
    ReplicaHost& leader = *hosts[random() % 2];
    ReplicaHost& follower = &leader == &a_ ? b_ : a_;
    if (random() % 4 == 0) leader.restart_keeper();
    if (random() % 4 == 0) follower.restart_keeper();
    leader.lead(epoch);
    auto producer = leader.new_producer();
    leader.append(*producer, std::to_string(epoch) + ' ', random() % 120);
    follower.follow(leader, epoch);
    follower.fetch_from(leader, 64 + random() % 20'000);
    leader.append(*producer, std::to_string(epoch) + "- ", random() % 200);
    ASSERT_FALSE(leader.failed());
    ASSERT_FALSE(follower.failed());
  }
  a_.lead(100);
  b_.follow(a_, 100);
  b_.fetch_from(a_);
  expect_same(a_, b_);
}

}  // namespace
}  // namespace ringtail::log
