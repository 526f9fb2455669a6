// A node of a cluster of one: what it makes of the records, and how it ends. Its log, its keeper and its threads are
// real.
#include "replication/replicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

#include "base/logger.h"
#include "replication/local_coordinator.h"
#include "replication/node.h"
#include "unit/base/scratch_dir.h"
#include "unit/replication/replication_test_support.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::replication {
namespace {

using std::chrono::milliseconds;
using testing::ScratchDir;

constexpr const char* kTopic = "orders";

// Keeps the keeper's thread at something else until it is let go.
class KeeperHold {
 public:
  explicit KeeperHold(LogCore& log) {
    log.request_role(~std::uint64_t{0}, PartitionId(0), {.done = [hold = hold_](const auto&) {
      std::unique_lock lock(hold->mutex);
      hold->held = true;
      hold->changed.notify_all();
      hold->changed.wait(lock, [&] { return hold->let_go; });
    }});
    std::unique_lock lock(hold_->mutex);
    hold_->changed.wait(lock, [this] { return hold_->held; });
  }
  ~KeeperHold() { let_go(); }
  void let_go() {
    std::lock_guard lock(hold_->mutex);
    hold_->let_go = true;
    hold_->changed.notify_all();
  }

 private:
  struct Hold {
    std::mutex mutex;
    std::condition_variable changed;
    bool held = false;
    bool let_go = false;
  };
  std::shared_ptr<Hold> hold_ = std::make_shared<Hold>();
};

// Tells the node what it is given to tell, beside what the one it goes by tells; and its lease may seem to have ended.
class TellingCoordinator final : public Coordinator {
 public:
  explicit TellingCoordinator(std::shared_ptr<Coordinator> of) : of_(std::move(of)) {}

  void tell(ClusterState state) { tell_(std::make_shared<const ClusterState>(std::move(state))); }
  void let_lease_end(bool end) { lease_ended_.store(end); }

  void set_on_change(OnChange on_change) override {
    tell_ = on_change;
    of_->set_on_change(std::move(on_change));
  }
  Status observe(milliseconds wait) override { return of_->observe(wait); }
  Status join(const NodeRecord& node, const JoinOptions& options) override {
    return of_->join(node, options);
  }
  Status leave() override { return of_->leave(); }
  std::int64_t lease_deadline_ns() const override {
    return lease_ended_.load() ? 0 : of_->lease_deadline_ns();
  }
  std::shared_ptr<const ClusterState> state() const override { return of_->state(); }
  Result<bool> commit(std::span<const Change> changes) override { return of_->commit(changes); }
  Result<bool> expel(NodeId node, std::uint64_t incarnation) override {
    return of_->expel(node, incarnation);
  }
  CoordinatorHealth health() const override { return of_->health(); }

 private:
  std::shared_ptr<Coordinator> of_;
  OnChange tell_;
  std::atomic<bool> lease_ended_{false};
};

// Node 2 of the same cluster, on a thread of its own: says what it is told to say.
class ScriptedPeer {
 public:
  struct Heard {
    MessageHeader header;
    std::string body;
  };

  explicit ScriptedPeer(std::uint16_t port_of_one) {
    NetworkOptions options;
    options.self = NodeId(2);
    options.incarnation = node_record(2).incarnation;
    options.cluster = "test";
    options.listen = {"127.0.0.1", 0};
    network_ = Network::open(context_, options,
                             {.up = [this](Link&) { up_ = true; },
                              .message = [this](Link&, const Message& message) { hear(message); },
                              .down = [](Link&) {},
                              .writable = [](Link&) {},
                              .refused = [](NodeId) {}})
                   .value();
    network_->set_peers({{NodeId(1), {"127.0.0.1", port_of_one}}});
    port_ = network_->port();
    thread_ = std::thread([this] { context_.run(); });
  }
  ScriptedPeer(const ScriptedPeer&) = delete;
  ScriptedPeer& operator=(const ScriptedPeer&) = delete;
  ~ScriptedPeer() {
    context_.stop();
    thread_.join();
  }

  NodeRecord record() const {
    NodeRecord record = node_record(2);
    record.replication = {"127.0.0.1", port_};
    return record;
  }
  bool is_up() const { return up_; }
  void send(const MessageHeader& header) {
    asio::post(context_, [this, header] {
      if (Link* const link = network_->link(NodeId(1))) link->send(header);
    });
  }
  // The first message of that type, which is forgotten.
  std::optional<Heard> take(MessageType type) {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::ranges::find_if(heard_, [&](const Heard& one) { return one.header.type == type; });
    if (found == heard_.end()) return std::nullopt;
    Heard one = std::move(*found);
    heard_.erase(found);
    return one;
  }

 private:
  void hear(const Message& message) {
    const std::lock_guard lock(mutex_);
    heard_.push_back(
        {message.header, {reinterpret_cast<const char*>(message.body.data()), message.body.size()}});
  }

  asio::io_context context_{1};
  std::unique_ptr<Network> network_;
  std::uint16_t port_ = 0;
  std::atomic<bool> up_{false};
  std::mutex mutex_;
  std::vector<Heard> heard_;
  std::thread thread_;
};

class ReplicatorTest : public ::testing::Test {
 protected:
  explicit ReplicatorTest(milliseconds lag_time_max = ReplicatorOptions{}.lag_time_max) {
    logger().set_level(spdlog::level::off);
    log_ = LogCore::open({.dir = dir_ / "log",
                          .keeper = KeeperMode::daemon,
                          .io = IoBackend::pwrite,
                          .shared_memory_dir = memory_.path()})
               .value();
    coordinator_ = std::make_shared<TellingCoordinator>(LocalCoordinator::open(dir_ / "log").value());
    ReplicatorOptions options;
    options.node = node_record(1);
    options.node.replication = {"127.0.0.1", 0};
    options.network.cluster = "test";
    options.network.listen = {"127.0.0.1", 0};
    options.lag_time_max = lag_time_max;
    replicator_ = Replicator::start(log_, coordinator_, std::move(options)).value();
  }

  // A topic whose partitions this node leads, as it is to be from now on.
  void put(const TopicRecord& topic) {
    const auto seen = coordinator_->state();
    const auto before = seen->topics.find(topic.name);
    std::vector<Change> changes{{topic, before == seen->topics.end() ? 0 : before->second.revision}};
    for (std::uint32_t i = 0; i < topic.partitions; ++i) {
      const auto stored = seen->partitions.find({topic.name, PartitionId(i)});
      if (stored != seen->partitions.end() && stored->second.record.topic_id == topic.topic_id) continue;
      PartitionRecord record = partition_record(topic.name, i, {1});
      record.topic_id = topic.topic_id;
      changes.push_back({record, stored == seen->partitions.end() ? 0 : stored->second.revision});
    }
    ASSERT_EQ(coordinator_->commit(changes), true);
    ASSERT_TRUE(wait_until([&] {
      const auto cluster = replicator_->status().cluster;
      const auto found = cluster->topics.find(topic.name);
      return found != cluster->topics.end() && found->second.record == topic;
    }));
  }
  static TopicRecord topic(std::uint32_t partitions, TopicConfigs configs = {}) {
    TopicRecord record = topic_record(kTopic);
    record.partitions = partitions;
    record.replication_factor = 1;
    configs.insert({{"ring.terms", "4"}, {"term.bytes", "64KiB"}, {"segment.bytes", "1MiB"}});
    configs.insert({"max.message.bytes", "4KiB"});
    record.configs = std::move(configs);
    return record;
  }
  // The records as they are, without the topic.
  ClusterState without_topic() const {
    ClusterState state = *coordinator_->state();
    state.topics.erase(kTopic);
    std::erase_if(state.partitions, [](const auto& one) { return one.first.topic == kTopic; });
    return state;
  }
  // Whether the topic is still here once the node has done all that it was to do with topics.
  bool outlives(const ClusterState& told) {
    coordinator_->tell(told);
    ClusterState with_another = told;
    TopicRecord another = topic(1);
    another.name = "another";
    ++another.topic_id;
    PartitionRecord partition = partition_record(another.name, 0, {1});
    partition.topic_id = another.topic_id;
    with_another.topics[another.name] = {another, told.revision};
    with_another.partitions[{another.name, PartitionId(0)}] = {partition, told.revision};
    coordinator_->tell(with_another);
    EXPECT_TRUE(wait_until([&] { return log_->catalog().load_topic(another.name).has_value(); }));
    return log_->catalog().load_topic(kTopic).has_value();
  }
  std::size_t led() {
    const ReplicatorStatus status = replicator_->status();
    return static_cast<std::size_t>(std::ranges::count(status.partitions, "leader", &ReplicaStatus::role));
  }
  // A bound against hanging, not a measurement.
  static bool wait_until(const std::function<bool()>& done) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return true;
  }

  ScratchDir dir_;
  shm::TempDir memory_;
  std::shared_ptr<LogCore> log_;
  std::shared_ptr<TellingCoordinator> coordinator_;
  std::unique_ptr<Replicator> replicator_;
};

TEST_F(ReplicatorTest, ATopicThatIsAlteredTwiceInARowIsHadAsItIsInTheEnd) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  KeeperHold hold(*log_);  // the first change is under way until it is let go
  put(topic(1, {{"retention.ms", "60000"}}));
  put(topic(2, {{"retention.ms", "60000"}}));
  hold.let_go();
  EXPECT_TRUE(wait_until([&] { return led() == 2; }));
}

TEST_F(ReplicatorTest, ATopicThatReplacesAnotherOfItsNameIsHad) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  TopicRecord other = topic(1);
  ++other.topic_id;
  put(other);
  EXPECT_TRUE(wait_until([&] {
    const auto here = log_->catalog().load_topic(kTopic);
    return here && here->topic_id == other.topic_id && led() == 1;
  }));
}

TEST_F(ReplicatorTest, ATopicThatIsDeletedWhileItIsMadeIsNotHad) {
  KeeperHold hold(*log_);
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return log_->catalog().load_topic(kTopic).has_value(); }));
  const auto seen = coordinator_->state();
  ASSERT_EQ(coordinator_->commit(
                std::vector<Change>{{topic(1), seen->topics.at(kTopic).revision, true},
                                    {seen->partitions.at({kTopic, PartitionId(0)}).record,
                                     seen->partitions.at({kTopic, PartitionId(0)}).revision, true}}),
            true);
  ASSERT_TRUE(wait_until([&] { return replicator_->status().cluster->topics.empty(); }));
  hold.let_go();
  EXPECT_TRUE(wait_until([&] {
    const auto here = log_->catalog().load_topic(kTopic);
    return !here && here.error().code == Code::not_found;
  }));
}

TEST_F(ReplicatorTest, ATopicThatWasRemovedFromTheRecordsIsDeleted) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  EXPECT_FALSE(outlives(without_topic()));
}

// Another release may have written it, or a hand that slipped.
TEST_F(ReplicatorTest, ATopicWhoseRecordCannotBeReadIsNotDeleted) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  ClusterState state = without_topic();
  state.malformed.emplace("topics/" + std::string(kTopic),
                          MalformedRecord{state.revision, "its version is 2"});
  EXPECT_TRUE(outlives(state));
}

// As when etcd was restored from a snapshot that is older than the topic.
TEST_F(ReplicatorTest, ATopicThatIsMissingFromRecordsThatWereReadAnewIsNotDeleted) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  ClusterState state = without_topic();
  ++state.gaps;
  EXPECT_TRUE(outlives(state));
}

// It cannot be had as it is now, of which the partitions that are here know nothing.
TEST_F(ReplicatorTest, RecordsThatWereReadAnewAreToldWhereTheTopicCannotBeAdapted) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  ClusterState state = *coordinator_->state();
  state.topics.at(kTopic).record.configs["a.later.release"] = "1";
  auto& [record, revision] = state.partitions.at({kTopic, PartitionId(0)});
  ++record.leader_epoch;
  ++record.partition_epoch;
  ++revision;
  ++state.gaps;
  coordinator_->tell(state);
  EXPECT_TRUE(wait_until([&] {
    const ReplicatorStatus status = replicator_->status();
    return status.partitions.size() == 1 && status.partitions[0].epoch == record.leader_epoch;
  }));
}

TEST_F(ReplicatorTest, WhatAnInterruptedDeletionLeftOfATopicIsNoReplica) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  ClusterState state = *coordinator_->state();
  state.topics.erase(kTopic);
  coordinator_->tell(state);
  EXPECT_TRUE(wait_until([&] { return replicator_->status().partitions.empty(); }));
}

// The renewal comes before the next tick has seen the end, and no record changes.
TEST_F(ReplicatorTest, ALeaseThatIsRenewedAtTheLastMomentIsLedWith) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  coordinator_->let_lease_end(true);
  coordinator_->tell(*coordinator_->state());
  ASSERT_TRUE(wait_until([&] { return led() == 0; }));
  coordinator_->let_lease_end(false);
  EXPECT_TRUE(wait_until([&] { return led() == 1; }));
}

// What he was in sync with, he may not have synced yet: the topic may have been altered to replica.ack=durable.
TEST_F(ReplicatorTest, WhoIsElectedKeepsTheLifeInWhichHeWasInSync) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  KeeperHold hold(*log_);  // so that he comes to nothing else
  auto [record, revision] = coordinator_->state()->partitions.at({kTopic, PartitionId(0)});
  record.isr = {{NodeId(1), coordinator_->state()->nodes.at(NodeId(1)).record.life}};
  record.leader.reset();
  ASSERT_EQ(coordinator_->commit(std::vector<Change>{{record, revision}}), true);
  PartitionRecord elected;
  ASSERT_TRUE(wait_until([&] {
    elected = coordinator_->state()->partitions.at({kTopic, PartitionId(0)}).record;
    return elected.leader == NodeId(1);
  }));
  EXPECT_EQ(elected.isr, record.isr);
}

// Its name is taken, for a while: as if there were no space, or no descriptors.
TEST_F(ReplicatorTest, ATopicThatCannotBeHadIsTriedAgain) {
  ASSERT_TRUE(log_->catalog().create_topic({.name = kTopic}));
  put(topic(1));
  std::this_thread::sleep_for(milliseconds(100));  // it has been tried, most likely
  EXPECT_EQ(led(), 0u);
  ASSERT_TRUE(log_->catalog().delete_topic(kTopic));
  EXPECT_TRUE(wait_until([&] { return led() == 1; }));
}

// As when its web server is told to listen elsewhere.
TEST_F(ReplicatorTest, ItsRecordTellsWhereItsMetricsAreNow) {
  const Address moved{"127.0.0.1", 9'999};
  ASSERT_NE(coordinator_->state()->nodes.at(NodeId(1)).record.http, moved);
  replicator_->set_http(moved);
  EXPECT_TRUE(wait_until([&] { return coordinator_->state()->nodes.at(NodeId(1)).record.http == moved; }));
  EXPECT_EQ(coordinator_->state()->nodes.at(NodeId(1)).record.log_id, log_->catalog().identity().id);
}

// It may come late: of one who has led since, and was asked when he followed.
TEST_F(ReplicatorTest, ARefusalOfAnEarlierEpochEndsNoStream) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  ClusterState state = *coordinator_->state();
  ScriptedPeer peer(state.nodes.at(NodeId(1)).record.replication.port);
  state.nodes[NodeId(2)] = {peer.record(), state.revision};
  state.live[NodeId(2)] = peer.record().incarnation;
  auto& [record, revision] = state.partitions.at({kTopic, PartitionId(0)});
  record.replicas.emplace_back(2);
  ++record.partition_epoch;
  ++revision;
  coordinator_->tell(state);
  ASSERT_TRUE(wait_until([&] { return peer.is_up(); }));
  MessageHeader header{
      .type = MessageType::follow, .topic_id = record.topic_id, .leader_epoch = record.leader_epoch.value()};
  peer.send(header);
  ASSERT_TRUE(wait_until([&] { return peer.take(MessageType::start).has_value(); }));
  header.type = MessageType::ack;
  peer.send(header);
  header.type = MessageType::refuse;
  --header.leader_epoch;
  peer.send(header);
  // What it is told of this shows whether it is shipped to.
  header.type = MessageType::ack;
  ++header.leader_epoch;
  header.position = 64;
  header.offset = 1;
  peer.send(header);
  std::optional<ScriptedPeer::Heard> refusal;
  ASSERT_TRUE(wait_until([&] {
    refusal = peer.take(MessageType::refuse);
    return refusal.has_value();
  }));
  EXPECT_EQ(refusal->body, "acknowledged what was never shipped");
}

class ReplicatorOfLittlePatienceTest : public ReplicatorTest {
 protected:
  ReplicatorOfLittlePatienceTest() : ReplicatorTest(milliseconds(100)) {}
};

// Whoever is not looked at seems to lag.
TEST_F(ReplicatorOfLittlePatienceTest, QuietPartitionsHaveTheirTurn) {
  constexpr std::uint32_t kPartitions = 40;
  put(topic(kPartitions, {{"storage", "memory"}}));
  ASSERT_TRUE(wait_until([&] { return led() == kPartitions; }));
  std::this_thread::sleep_for(milliseconds(500));  // they are quiet now, most likely
  // A look tells the end of the lease, which is another one.
  constexpr auto kUntold = std::numeric_limits<std::int64_t>::max();
  std::vector<shm::Partition*> partitions;
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i)
    if (shm::Partition& one = log_->control().partition(i); one.lease_deadline_ns.load() != 0)
      partitions.push_back(&one);
  ASSERT_EQ(partitions.size(), kPartitions);
  for (shm::Partition* const one : partitions) one->lease_deadline_ns.store(kUntold);
  EXPECT_TRUE(wait_until([&] {
    return std::ranges::none_of(partitions,
                                [](auto* one) { return one->lease_deadline_ns.load() == kUntold; });
  }));
}

TEST(ReplicatorTurns, ComeBeforeAFollowerWouldSeemToLag) {
  for (const auto lag : {milliseconds(4), milliseconds(100), milliseconds(3'000), milliseconds(60'000)}) {
    for (const std::size_t partitions : {1u, 3u, 40u, 1'000u, 4'096u}) {
      const std::size_t looks = looks_in_a_tick(partitions, lag);
      const auto turn = (partitions + looks - 1) / looks * tick_interval(lag);
      EXPECT_LE(turn, lag / 2) << partitions << " partitions, " << lag.count() << " ms";
      EXPECT_LE(turn, std::chrono::seconds(5));
    }
  }
}

// What it finds where the node was is not that any more.
TEST_F(ReplicatorTest, AnAnswerOfTheKeeperThatComesLateHasNobodyToGoTo) {
  put(topic(1));
  ASSERT_TRUE(wait_until([&] { return led() == 1; }));
  KeeperHold hold(*log_);
  auto [record, revision] = coordinator_->state()->partitions.at({kTopic, PartitionId(0)});
  ++record.leader_epoch;
  ++record.partition_epoch;
  ASSERT_EQ(coordinator_->commit(std::vector<Change>{{record, revision}}), true);
  ASSERT_TRUE(wait_until([&] {  // and it has asked the keeper
    const auto status = replicator_->status();
    return std::ranges::any_of(status.partitions,
                               [&](const ReplicaStatus& one) { return one.epoch == record.leader_epoch; });
  }));
  replicator_.reset();
  const std::vector<std::vector<std::byte>> in_its_place(10'000, std::vector<std::byte>(sizeof(Node)));
  hold.let_go();
  std::atomic<bool> answered{false};
  log_->request_role(~std::uint64_t{0}, PartitionId(0), {.done = [&](const auto&) { answered = true; }});
  EXPECT_TRUE(wait_until([&] { return answered.load(); }));
}

}  // namespace
}  // namespace ringtail::replication
