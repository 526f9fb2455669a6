// What a leader says of the in-sync replicas, and in whose lives: its keeper and its log are real, the network and
// the cluster's records are not.
#include "replication/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "unit/log/replica_test_support.h"

namespace ringtail::replication {
namespace {

using ::testing::ElementsAre;

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr NodeId kThree{3};
constexpr std::int64_t kHour = 3'600'000'000'000;

class SilentLink : public Link {
 public:
  explicit SilentLink(NodeId peer) : peer_(peer) {}
  NodeId peer() const override { return peer_; }
  std::uint64_t peer_incarnation() const override { return 1; }
  void send(const MessageHeader&, std::span<const std::byte>) override {}
  bool takes_unchecked() const override { return false; }
  void send_unchecked(const MessageHeader&, io::FileBytes) override {}
  std::size_t queued() const override { return 0; }
  void close(const std::string&) override {}

 private:
  NodeId peer_;
};

class SilentNetwork : public Network {
 public:
  void set_peers(const std::map<NodeId, Address>&) override {}
  Status renew_tls(const PeerTls&) override { return {}; }
  Link* link(NodeId peer) override {
    const auto found = links_.find(peer);
    return found == links_.end() ? nullptr : &found->second;
  }
  std::uint16_t port() const override { return 0; }
  std::string trouble(NodeId) const override { return {}; }

 private:
  std::map<NodeId, SilentLink> links_{{kTwo, SilentLink(kTwo)}, {kThree, SilentLink(kThree)}};
};

class ReplicaTest : public ::testing::Test, public ReplicaHost {
 protected:
  explicit ReplicaTest(Storage storage = Storage::memory) : host_(storage) {
    context_.self = kOne;
    context_.window_bytes = 1 << 20;
    context_.network = &network_;
    context_.slot = 402;
    config_.storage = storage;
    record_.topic = "topic";
    record_.topic_id = host_.ref().topic_id;
    record_.replicas = {kOne, kTwo, kThree};
    record_.isr = {{kOne, "boot-1"}, {kTwo, "boot-2"}};
    record_.leader = kOne;
    record_.leader_epoch = LeaderEpoch(1);
    record_.partition_epoch = 1;
  }

  void take_role(const StreamId&, log::RoleRequest request) override {
    if (request.role == shm::ReplicaRole::leader && cannot_lead_) {
      pending_ = std::move(request.done);
      return;
    }
    request.done = [this, done = std::move(request.done)](Result<log::RoleOutcome> outcome) {
      if (done) done(std::move(outcome));
      ++answers_;
    };
    host_.keeper().request_role(std::move(request));
  }
  void commit(const PartitionRecord& record, std::function<void(std::optional<bool>)> done) override {
    commits_.push_back(record);
    done_ = std::move(done);
  }
  std::int64_t lease_deadline_ns() const override { return boottime_ns() + kHour; }
  std::int64_t lag_time_max_ns() const override { return kHour; }
  std::optional<std::string> life_of(NodeId node, bool synced) const override {
    if (!boots_.contains(node)) return std::nullopt;
    return synced ? "log-" + std::to_string(node.value()) : boots_.at(node);
  }
  bool is_met(NodeId node) const override { return met_.contains(node); }

  void see(std::int64_t revision) { replica_.set_record({record_, revision}, kOne, config_); }
  void lead(std::int64_t revision = 1) {
    see(revision);
    host_.turn_until([&] { return replica_.leading() != nullptr; });
  }
  void tick() { replica_.tick(monotonic_ns()); }
  // The record, led by node 2.
  PartitionRecord successor() const {
    PartitionRecord next = record_;
    next.leader = kTwo;
    ++next.leader_epoch;
    ++next.partition_epoch;
    return next;
  }
  MessageHeader header(MessageType type, const log::LogPoint& at = {}) const {
    return {.type = type,
            .topic_id = record_.topic_id,
            .leader_epoch = record_.leader_epoch.value(),
            .position = at.position.value(),
            .offset = at.offset.value()};
  }
  // A follower asks, is shipped everything, and says that it has it.
  void catch_up(NodeId node) {
    const auto epochs = encode_epochs(log::EpochList());
    replica_.on_follow(*network_.link(node), {header(MessageType::follow), epochs});
    acknowledge(node, {});
  }
  void acknowledge(NodeId node, const log::LogPoint& at, const log::LogPoint& synced = {}) {
    replica_.pump();
    MessageHeader ack = header(MessageType::ack, at);
    ack.mark_position = synced.position.value();
    ack.mark_offset = synced.offset.value();
    replica_.on_ack(node, {ack, {}});
  }
  log::LogPoint append() {
    auto producer = host_.new_producer();
    host_.append(*producer, "value ", 1);
    return host_.end();
  }
  Position watermark() { return Position(host_.entry().high_watermark.load()); }

  log::ReplicaHost host_;
  SilentNetwork network_;
  ShipContext context_;
  TopicConfig config_;
  PartitionRecord record_;
  std::map<NodeId, std::string> boots_{{kOne, "boot-1"}, {kTwo, "boot-2"}, {kThree, "boot-3"}};
  std::set<NodeId> met_{kTwo, kThree};
  std::vector<PartitionRecord> commits_;
  std::function<void(std::optional<bool>)> done_;
  std::int64_t revision_ = 0;
  int refused_ = 0;
  std::size_t answers_ = 0;  // of the keeper
  bool cannot_lead_ = false;
  std::function<void(Result<log::RoleOutcome>)> pending_;  // of the keeper that cannot
  Replica replica_{context_, *this, {"topic", PartitionId(0)}, {host_.ref().topic_id, 0}};
};

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

}  // namespace
}  // namespace ringtail::replication
