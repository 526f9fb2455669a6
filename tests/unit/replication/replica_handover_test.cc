// How a replica gives the leadership away, and what becomes of one that is to lead and cannot.
#include "unit/replication/replica_test_support.h"

namespace ringtail::replication {
namespace {

// --- Handing over --------------------------------------------------------------------------------

// What is appended after the leadership was taken up again would be cut off: nothing had fenced it.
TEST_F(ReplicaTest, AHandOverDoesNotOutliveTheLease) {
  lead();
  catch_up(kTwo);
  const log::LogPoint first = append();
  const std::size_t before = answers_;
  replica_.hand_over(successor());
  host_.turn_until([&] { return answers_ > before; });
  ASSERT_TRUE(replica_.is_handing_over());
  replica_.fence();
  lead();
  EXPECT_FALSE(replica_.is_handing_over());
  append();
  catch_up(kTwo);
  acknowledge(kTwo, first);
  EXPECT_TRUE(commits_.empty());
}

// Else producers would be refused for as long as a replica may lag, again and again.
TEST_F(ReplicaTest, NothingIsHandedToOneWhoIsNotShippedTo) {
  lead();
  replica_.hand_over(successor());
  EXPECT_FALSE(replica_.is_handing_over());
  EXPECT_EQ(role(), shm::ReplicaRole::leader);
  catch_up(kTwo);
  replica_.on_link_down(kTwo);
  replica_.hand_over(successor());
  EXPECT_FALSE(replica_.is_handing_over());
  EXPECT_EQ(role(), shm::ReplicaRole::leader);
  catch_up(kTwo);
  replica_.hand_over(successor());
  EXPECT_TRUE(replica_.is_handing_over());
  host_.turn_until([&] { return !commits_.empty(); });
  EXPECT_EQ(commits_[0], successor());
}

// Where his disk is full the lag runs on, and when he has left the in-sync replicas it is another's turn.
TEST_F(ReplicaTest, NothingIsHandedSoonAgainToOneWhoTookNothing) {
  lead();
  catch_up(kTwo);
  append();
  replica_.pump();
  replica_.hand_over(successor());
  ASSERT_TRUE(replica_.is_handing_over());
  replica_.tick(monotonic_ns() + 2 * kHour);
  host_.turn_until([&] { return replica_.leading() != nullptr && role() == shm::ReplicaRole::leader; });
  EXPECT_FALSE(replica_.is_handing_over());
  catch_up(kTwo);
  replica_.hand_over(successor());
  EXPECT_FALSE(replica_.is_handing_over());
  EXPECT_EQ(role(), shm::ReplicaRole::leader);
}

// --- Who cannot lead -----------------------------------------------------------------------------

// Of a memory topic no keeper reads what is in the ring.
TEST_F(ReplicaTest, WhoseRingCannotBeReadGivesTheLeadershipAway) {
  lead();
  catch_up(kTwo);
  const log::LogPoint readable = append();
  acknowledge(kTwo, readable);
  append();
  const log::Ring ring =
      log::Ring::open(log::ring_path(host_.ref().shm_dir, "topic", PartitionId(0)), false).value();
  format::state_word(ring.at(readable.position)).store(format::committed_word(7, format::FrameType::data, 0));
  replica_.pump();
  EXPECT_FALSE(replica_.is_quiet());
  tick();
  ASSERT_TRUE(replica_.is_stuck());
  const std::size_t before = answers_;
  replica_.hand_over(successor());
  host_.turn_until([&] { return answers_ > before; });
  replica_.pump();
  ASSERT_EQ(commits_.size(), 1u);
  EXPECT_EQ(commits_[0], successor());
}

// It is alive, and in the record: so nobody else would take its place.
TEST_F(ReplicaTest, WhoIsToLeadAndCannotGivesTheLeadershipAway) {
  for (const bool answers : {false, true}) {
    SCOPED_TRACE(answers ? "the keeper refuses" : "the keeper waits for room");
    commits_.clear();
    cannot_lead_ = true;
    see(++revision_);
    host_.turn_until([&] { return pending_ != nullptr; });
    if (answers) std::exchange(pending_, {})(fail(Code::storage_failed, "the partition has failed"));
    tick();
    EXPECT_FALSE(replica_.is_stuck());
    replica_.hand_over(successor());
    EXPECT_TRUE(commits_.empty()) << "it may yet come to lead";
    replica_.tick(monotonic_ns() + 2 * kHour);
    EXPECT_TRUE(replica_.is_stuck());
    replica_.hand_over(successor());
    ASSERT_EQ(commits_.size(), 1u);
    EXPECT_EQ(commits_[0], successor());
    record_ = successor();
    done_(true);
    const std::size_t before = answers_;
    replica_.set_record({record_, ++revision_}, kTwo, config_);
    if (pending_) {
      host_.turn_until([&] { return answers_ > before; });
      std::exchange(pending_, {})(fail(Code::fenced, "another change of role came in between"));
    }
    host_.turn_until([&] {
      tick();
      return replica_.following() != nullptr;
    });
    EXPECT_FALSE(replica_.is_stuck());
    record_.leader = kOne;
    ++record_.leader_epoch;
  }
}

// The disk may have room just then: what is appended from then on would be cut off.
TEST_F(ReplicaTest, WhatIsGivenAwayUnledIsNotLedBeforeItIsKnownWhoDoes) {
  cannot_lead_ = true;
  see(1);
  host_.turn_until([&] { return pending_ != nullptr; });
  tick();
  replica_.tick(monotonic_ns() + 2 * kHour);
  ASSERT_TRUE(replica_.is_stuck());
  const std::size_t before = answers_;
  replica_.hand_over(successor());
  ASSERT_EQ(commits_.size(), 1u);
  std::exchange(pending_, {})(
      log::RoleOutcome{.partition = host_.ref(), .end = host_.end(), .epochs = {}, .writer = {}});
  ASSERT_EQ(replica_.leading(), nullptr);
  host_.turn_until([&] { return answers_ > before; });
  EXPECT_EQ(role(), shm::ReplicaRole::fenced);
  see(1);  // another record has changed
  replica_.tick(monotonic_ns() + 3 * kHour);
  for (int i = 0; i < 20; ++i) host_.turn();
  EXPECT_TRUE(pending_ == nullptr) << "it has asked to lead";
  done_(std::nullopt);
  replica_.tick(monotonic_ns() + 3 * kHour);
  host_.turn_until([&] { return pending_ != nullptr; });
}

// Nobody would be shipped what it takes.
TEST_F(ReplicaTest, WhoLeadsAndCannotReadItsLogTakesNoRecords) {
  cannot_open_ = true;
  see(1);
  host_.turn_until([&] { return answers_ >= 2; });
  ASSERT_EQ(replica_.leading(), nullptr);
  EXPECT_EQ(role(), shm::ReplicaRole::fenced);
  cannot_open_ = false;
  host_.turn_until([&] {
    tick();
    return replica_.leading() != nullptr;
  });
  EXPECT_EQ(role(), shm::ReplicaRole::leader);
}

// As when all descriptors are taken just when the ring is replaced.
TEST_F(ReplicaTest, WhatStopsTheShippingAndPassesCostsNoLeadership) {
  record_.replicas = {kOne};
  record_.isr = {{kOne, "boot-1"}};
  lead();
  const auto producer = host_.new_producer();
  const auto stop = [&] {
    const std::uint64_t generation = host_.entry().ring_generation.load();
    host_.keeper().on_slot_stuck(producer->slot.index(), 0);
    host_.turn_until([&] { return host_.entry().ring_generation.load() != generation; });
    const testing::NoDescriptors none;
    replica_.pump();
  };
  append();
  replica_.pump();
  stop();
  ASSERT_TRUE(replica_.leading()->failure());
  EXPECT_FALSE(replica_.is_quiet());
  const std::int64_t now_ns = monotonic_ns();
  replica_.tick(now_ns);
  ASSERT_FALSE(replica_.is_stuck());
  host_.turn_until([&] { return replica_.leading() != nullptr; });
  EXPECT_FALSE(replica_.leading()->failure());
  EXPECT_EQ(replica_.leading()->epoch(), record_.leader_epoch);
  const log::LogPoint end = append();
  replica_.pump();
  EXPECT_EQ(watermark(), end.position);
  // Not at once again: producers are refused meanwhile.
  stop();
  replica_.tick(now_ns + 1);
  EXPECT_NE(replica_.leading(), nullptr);
  replica_.tick(now_ns + kHour);
  EXPECT_EQ(replica_.leading(), nullptr);
}

}  // namespace
}  // namespace ringtail::replication
