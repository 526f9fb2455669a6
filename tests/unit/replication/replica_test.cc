// What a leader says of the in-sync replicas, and in whose lives.
#include <chrono>
#include <thread>

#include "support/no_descriptors.h"
#include "unit/replication/replica_test_support.h"

namespace ringtail::replication {
namespace {

using ::testing::ElementsAre;

// As a host that crashed: it may have lost what it was in sync with.
TEST_F(ReplicaTest, WhoLivesAnotherLifeIsNotInSyncAnyMore) {
  boots_[kTwo] = "boot-2 again";
  lead();
  catch_up(kTwo);
  tick();
  ASSERT_EQ(commits_.size(), 1u);
  EXPECT_THAT(commits_[0].isr, ElementsAre(IsrMember{kOne, "boot-1"}));
  EXPECT_EQ(commits_[0].partition_epoch, 2u);
}

// Somebody else's change must not make the life that counts a later one.
TEST_F(ReplicaTest, WhoStaysKeepsTheLifeInWhichHeWasInSync) {
  record_.isr[1].life = "log-2";
  lead();
  catch_up(kThree);
  tick();
  ASSERT_EQ(commits_.size(), 1u);
  EXPECT_THAT(commits_[0].isr,
              ElementsAre(IsrMember{kOne, "boot-1"}, IsrMember{kTwo, "log-2"}, IsrMember{kThree, "boot-3"}));
}

// What was acknowledged over a connection with its daemon of before says nothing of the one that is registered.
TEST_F(ReplicaTest, WhoCaughtUpInAnEarlierLifeDoesNotComeIn) {
  met_.erase(kThree);
  lead();
  catch_up(kThree);
  tick();
  EXPECT_TRUE(commits_.empty());
  met_.insert(kThree);
  tick();
  EXPECT_EQ(commits_.size(), 1u);
}

TEST_F(ReplicaTest, AChangeOfUnknownOutcomeCountsBesideTheNextOne) {
  lead();
  catch_up(kTwo);
  catch_up(kThree);
  tick();
  ASSERT_EQ(commits_.size(), 1u);
  done_(std::nullopt);
  boots_.erase(kThree);
  tick();
  ASSERT_EQ(commits_.size(), 2u);
  EXPECT_THAT(commits_[1].isr, ElementsAre(IsrMember{kOne, "boot-1"}, IsrMember{kTwo, "boot-2"}));
  const Position before = watermark();
  const log::LogPoint end = append();
  acknowledge(kTwo, end);
  EXPECT_EQ(watermark(), before) << "node 3 may be in sync, and could be elected without the record";
  record_.isr = commits_[1].isr;
  record_.partition_epoch = 2;
  see(2);
  acknowledge(kTwo, end);
  EXPECT_EQ(watermark(), end.position);
}

TEST_F(ReplicaTest, AChangeOfUnknownOutcomeOutlivesALeadershipThatIsTakenUpAgain) {
  lead();
  catch_up(kThree);
  tick();
  ASSERT_EQ(commits_.size(), 1u);
  done_(std::nullopt);
  replica_.fence();
  host_.turn_until([&] { return replica_.leading() == nullptr && host_.entry().role.load() != 0; });
  lead(1);
  EXPECT_TRUE(replica_.leading()->progress().is_proposing());
  catch_up(kTwo);
  const Position before = watermark();
  acknowledge(kTwo, append());
  EXPECT_EQ(watermark(), before);
  // The record that comes tells what has become of it.
  record_.partition_epoch = 2;
  see(2);
  EXPECT_FALSE(replica_.leading()->progress().is_proposing());
}

// Of one that was made or refused, the record is waited for: nothing more is proposed before it is seen.
TEST_F(ReplicaTest, OneChangeAtATime) {
  for (const bool made : {true, false}) {
    SCOPED_TRACE(made);
    const std::size_t before = commits_.size();
    lead(static_cast<std::int64_t>(2 * before + 1));
    catch_up(kThree);
    tick();
    ASSERT_EQ(commits_.size(), before + 1);
    tick();
    done_(made);
    boots_.erase(kTwo);
    tick();
    EXPECT_EQ(commits_.size(), before + 1);
    record_.partition_epoch += 1;
    see(static_cast<std::int64_t>(2 * before + 2));
    EXPECT_EQ(commits_.size(), before + 2);
    done_(false);
    boots_[kTwo] = "boot-2";
  }
}

// Nobody looks at a quiet partition for a while, in which its followers' time seems to run on.
TEST_F(ReplicaTest, WhatBecomesKnownLongAfterTheLastLookThrowsNobodyOut) {
  lag_time_max_ns_ = 1'000'000;
  lead();
  catch_up(kTwo);
  tick();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  see(1);
  EXPECT_TRUE(commits_.empty());
  tick();
  EXPECT_TRUE(commits_.empty());
  // Whoever has died is not waited for.
  boots_.erase(kTwo);
  see(1);
  EXPECT_EQ(commits_.size(), 1u);
}

// As when the one who ships is kept away for more than a lap, and nobody waits for him.
TEST_F(ReplicaTest, WhatIsOverwrittenBeforeItIsShippedDoesNotEndTheShipping) {
  config_.on_full = host_.config().on_full = OnFull::overwrite;
  host_.keeper().update_config(host_.config());
  lead();
  catch_up(kTwo);
  acknowledge(kTwo, append());
  const Position before = watermark();
  auto producer = host_.new_producer();
  host_.append(*producer, "value ", 3'000);  // several laps of the ring
  while (replica_.pump()) {
  }
  EXPECT_FALSE(replica_.leading()->failure());
  EXPECT_EQ(watermark(), before) << "node 2 lacks what was overwritten";
  catch_up(kTwo);
  acknowledge(kTwo, host_.end());
  EXPECT_EQ(watermark(), host_.end().position);
}

// One whose disk is full, or whose log has failed, asks again and again.
TEST_F(ReplicaTest, WhoDoesNotBeginToFollowDoesNotHoldTheRing) {
  lead();
  const auto epochs = encode_epochs(log::EpochList());
  const auto ask = [&] { replica_.on_follow(*network_.link(kTwo), {header(MessageType::follow), epochs}); };
  auto producer = host_.new_producer();
  const auto appended = [&] {
    for (int left = 3'000; left > 0;) {
      const auto sent = (*producer)->append({.value = std::string(300, 'v')});
      replica_.pump();
      host_.turn();
      if (sent)
        --left;
      else if (++refused_ > 1'000)
        return false;
    }
    return true;
  };
  ask();
  EXPECT_FALSE(appended()) << "it is waited for at first";
  refused_ = 0;
  replica_.tick(monotonic_ns() + kHour);
  EXPECT_TRUE(appended());
}

// He may have lost some of it.
TEST_F(ReplicaTest, WhoAsksInVainCountsWithNothingThatHeHad) {
  record_.isr.push_back({kThree, "boot-3"});
  lead();
  catch_up(kTwo);
  catch_up(kThree);
  const Position before = watermark();
  const log::LogPoint end = append();
  acknowledge(kTwo, end);
  {
    const testing::NoDescriptors none;
    const auto epochs = encode_epochs(log::EpochList());
    replica_.on_follow(*network_.link(kTwo), {header(MessageType::follow), epochs});
  }
  acknowledge(kThree, end);
  EXPECT_EQ(watermark(), before);
  catch_up(kTwo);
  acknowledge(kTwo, end);
  EXPECT_EQ(watermark(), end.position);
}

// --- A topic is altered while it is led ----------------------------------------------------------

TEST_F(ReplicaTest, AnAlteredMinInsyncCountsForALeaderThatSits) {
  config_.min_insync_replicas = 3;
  lead();
  catch_up(kTwo);
  const Position before = watermark();
  const log::LogPoint end = append();
  acknowledge(kTwo, end);
  ASSERT_EQ(watermark(), before);
  config_.min_insync_replicas = 2;
  see(1);  // its record is the same
  EXPECT_EQ(watermark(), end.position);
}

// Both replicas are there with the lives of their memory.
class ReplicaOfAlteredAckTest : public ReplicaTest {
 protected:
  ReplicaOfAlteredAckTest() : ReplicaTest(Storage::disk) {
    config_.replica_ack = ReplicaAck::memory;
    record_.replicas = {kOne, kTwo};
  }
  log::LogPoint append_durably() {
    const log::LogPoint end = append();
    host_.turn_until_durable();
    replica_.pump();
    replica_.on_progress();
    return end;
  }
  void take_up_last_commit() {
    ++record_.partition_epoch;
    record_.isr = commits_.back().isr;
    done_(true);
    see(static_cast<std::int64_t>(record_.partition_epoch));
  }
};

TEST_F(ReplicaOfAlteredAckTest, WhatMustBeSyncedFromNowOnIsNotConfirmedBefore) {
  lead();
  catch_up(kTwo);
  const log::LogPoint first = append_durably();
  acknowledge(kTwo, first);
  ASSERT_EQ(watermark(), first.position);
  config_.replica_ack = ReplicaAck::durable;
  see(1);
  const log::LogPoint second = append_durably();
  acknowledge(kTwo, second);
  EXPECT_EQ(watermark(), first.position) << "node 2 has not synced it";
  tick();
  ASSERT_EQ(commits_.size(), 1u) << "the leader has synced all";
  EXPECT_THAT(commits_[0].isr, ElementsAre(IsrMember{kOne, "log-1"}, IsrMember{kTwo, "boot-2"}));
  take_up_last_commit();
  acknowledge(kTwo, second, second);
  EXPECT_EQ(watermark(), second.position);
  tick();
  ASSERT_EQ(commits_.size(), 2u) << "and so has node 2, which need not have its memory any more";
  EXPECT_THAT(commits_[1].isr, ElementsAre(IsrMember{kOne, "log-1"}, IsrMember{kTwo, "log-2"}));
}

// Whoever is in sync with his disk may be elected without what was in his memory.
TEST_F(ReplicaOfAlteredAckTest, MemoryIsNotEnoughBeforeAllAreInSyncWithTheirMemory) {
  config_.replica_ack = ReplicaAck::durable;
  record_.isr = {{kOne, "log-1"}, {kTwo, "log-2"}};
  lead();
  catch_up(kTwo);
  met_.erase(kTwo);  // of the daemon that is registered now, nothing is known
  config_.replica_ack = ReplicaAck::memory;
  see(1);
  tick();
  const Position before = watermark();
  const log::LogPoint end = append_durably();
  acknowledge(kTwo, end);
  EXPECT_EQ(watermark(), before);
  ASSERT_EQ(commits_.size(), 1u);
  EXPECT_THAT(commits_[0].isr, ElementsAre(IsrMember{kOne, "boot-1"}, IsrMember{kTwo, "log-2"}));
  take_up_last_commit();
  EXPECT_EQ(watermark(), before);
  met_.insert(kTwo);
  tick();
  ASSERT_EQ(commits_.size(), 2u);
  EXPECT_THAT(commits_[1].isr, ElementsAre(IsrMember{kOne, "boot-1"}, IsrMember{kTwo, "boot-2"}));
  EXPECT_EQ(watermark(), before);
  take_up_last_commit();
  EXPECT_EQ(watermark(), end.position);
  EXPECT_EQ(commits_.size(), 2u);
}

// What another thread reads from files is shipped where it arrives, between two calls of pump. To whoever pumps it has
// to count all the same: a partition that seems quiet has its producers ring for every record.
class ReplicaOfFilesTest : public ReplicaTest {
 protected:
  ReplicaOfFilesTest() : ReplicaTest(Storage::disk) {
    context_.fetch = [](const std::function<void()>& task) { task(); };
    context_.post = [this](std::function<void()> task) { posted_.push_back(std::move(task)); };
  }
  std::vector<std::function<void()>> posted_;
};

TEST_F(ReplicaOfFilesTest, WhatWasFetchedCountsAsShipped) {
  lead();
  auto producer = host_.new_producer();
  host_.append(*producer, "value ", 3'000);  // several laps of the ring
  host_.turn_until_durable();
  while (replica_.pump()) {
  }
  catch_up(kThree);
  while (replica_.pump()) {
  }
  ASSERT_TRUE(replica_.leading()->is_behind());
  ASSERT_FALSE(posted_.empty());
  const std::uint64_t before = context_.bytes_shipped;
  for (const auto& task : std::exchange(posted_, {})) task();
  EXPECT_GT(context_.bytes_shipped, before);
  EXPECT_TRUE(replica_.pump());
  EXPECT_FALSE(replica_.pump());
}

TEST(Throttle, OwesNothingForWhatWasTakenWithoutOne) {
  Throttle throttle;
  throttle.refill(1'000'000'000);
  throttle.take(std::size_t{1} << 40);
  EXPECT_TRUE(throttle.open());
  throttle.set_rate(1'000'000);
  throttle.refill(2'000'000'000);
  EXPECT_TRUE(throttle.open());
  throttle.take(1'000'000);
  EXPECT_FALSE(throttle.open());
  throttle.refill(3'000'000'000);
  EXPECT_TRUE(throttle.open());
}

}  // namespace
}  // namespace ringtail::replication
