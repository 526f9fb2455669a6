// How a cluster is doing, and topics that are created and removed in several commits, by several at once, and by
// some that are interrupted.
#include "replication/administration.h"

#include <algorithm>
#include <random>

#include "replication/placement.h"
#include "replication/records.h"
#include "support/crash_process.h"
#include "unit/replication/cluster_test_support.h"

namespace ringtail::replication {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TopicPartition named(std::string topic, std::uint32_t partition) {
  return {std::move(topic), PartitionId(partition)};
}

template <class Records, class Name, class Record>
bool put(Records& records, const Name& name, const Record& record, const Change& change,
         std::int64_t revision) {
  const auto found = records.find(name);
  if ((found == records.end() ? 0 : found->second.revision) != change.revision) return false;
  if (change.remove)
    records.erase(name);
  else
    records[name] = {record, revision};
  return true;
}

// As the store does it: all, or none because one has another revision.
bool commit(ClusterState& state, std::span<const Change> changes) {
  EXPECT_TRUE(check_changes(changes));
  ClusterState next = state;
  ++next.revision;
  for (const Change& change : changes) {
    bool good = false;
    if (const auto* topic = std::get_if<TopicRecord>(&change.record))
      good = put(next.topics, topic->name, *topic, change, next.revision);
    else if (const auto* partition = std::get_if<PartitionRecord>(&change.record))
      good = put(next.partitions, named(partition->topic, partition->partition.value()), *partition, change,
                 next.revision);
    if (!good) return false;
  }
  state = std::move(next);
  return true;
}

std::span<const Change> first(const std::vector<Change>& changes, std::size_t most) {
  return std::span(changes).first(std::min(most, changes.size()));
}

ClusterState cluster_of(std::uint32_t nodes) {
  ClusterState state;
  for (std::uint32_t id = 1; id <= nodes; ++id) add_node(state, node_record(id));
  state.revision = 100;
  return state;
}

TopicRecord wanted(std::uint64_t id, std::uint32_t partitions, std::uint32_t factor = 2) {
  return {.name = "orders",
          .topic_id = id,
          .partitions = partitions,
          .replication_factor = factor,
          .configs = {},
          .created_ns = 1};
}

TopicCreation plan(const ClusterState& state, TopicRecord topic) {
  auto made = TopicCreation::plan(state, std::move(topic));
  EXPECT_TRUE(made) << to_string(made.error());
  return std::move(*made);
}

ClusterState with_topic(std::uint32_t partitions) {
  ClusterState state = cluster_of(3);
  TopicCreation creation = plan(state, wanted(7, partitions));
  for (auto changes = creation.next(state).value(); !changes.empty(); changes = creation.next(state).value())
    EXPECT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  return state;
}

// Whether each partition of the topic has a record of it, and no other record has its name.
void expect_whole(const ClusterState& state, std::uint64_t id, std::uint32_t partitions) {
  ASSERT_TRUE(state.topics.contains("orders"));
  const TopicRecord& topic = state.topics.find("orders")->second.record;
  EXPECT_EQ(topic.topic_id, id);
  for (std::uint32_t i = 0; i < partitions; ++i)
    EXPECT_NE(find_partition(state, topic, PartitionId(i)), nullptr) << "partition " << i;
  EXPECT_THAT(state.partitions, SizeIs(partitions));
}

// --- How it is doing -----------------------------------------------------------------------------

TEST(HealthTest, TellsWhatIsMissing) {
  ClusterState state = cluster_of(3);
  PartitionRecord record = partition_record("t", 0, {1, 2, 3});
  const TopicConfig config{.min_insync_replicas = 2};
  EXPECT_EQ(health_of(record, state, config), (PartitionHealth{.led = true, .in_sync = 3}));

  record.isr.pop_back();
  EXPECT_EQ(health_of(record, state, config),
            (PartitionHealth{.led = true, .in_sync = 2, .under_replicated = true}));

  state.live.erase(NodeId(2));  // in the ISR still, and no copy to rely on
  EXPECT_EQ(health_of(record, state, config),
            (PartitionHealth{.led = true, .in_sync = 1, .under_replicated = true, .under_min_isr = true}));

  state.live.erase(NodeId(1));
  EXPECT_FALSE(health_of(record, state, config).led);
}

TEST(HealthTest, AReplicaThatIsBeingAddedIsNotMissedYet) {
  const ClusterState state = cluster_of(3);
  PartitionRecord record = partition_record("t", 0, {1, 2});
  record.replicas.emplace_back(3);
  record.adding = {NodeId(3)};
  EXPECT_EQ(health_of(record, state, {}), (PartitionHealth{.led = true, .in_sync = 2, .reassigning = true}));
}

TEST(HealthTest, TheSummaryNamesPartitionsAndCountsTheirTopicsOnly) {
  ClusterState state = cluster_of(2);
  state.nodes[NodeId(2)].record.draining = true;
  state.topics["t"] = {topic_record("t"), 1};
  add_partition(state, partition_record("t", 0, {1, 2}));
  PartitionRecord lost = partition_record("t", 1, {2, 1});
  lost.leader.reset();
  lost.unclean = true;
  add_partition(state, lost);
  add_partition(state, partition_record("gone", 0, {1, 2}));  // of no topic
  const ClusterSummary summary = summarize(state);
  EXPECT_EQ(summary.nodes, 2u);
  EXPECT_EQ(summary.live, 2u);
  EXPECT_EQ(summary.draining, 1u);
  EXPECT_EQ(summary.topics, 1u);
  EXPECT_EQ(summary.partitions, 3u);
  EXPECT_THAT(summary.leaderless, ElementsAre(named("t", 1), named("t", 2)));  // the third has no record
  EXPECT_THAT(summary.under_min_isr, ElementsAre(named("t", 2)));
  EXPECT_THAT(summary.unclean, ElementsAre(named("t", 1)));
  EXPECT_EQ(loads(state)[NodeId(1)].replicas, 2u);
  EXPECT_EQ(loads(state)[NodeId(1)].led, 1u);
  EXPECT_EQ(loads(state)[NodeId(2)].led, 0u);
}

TEST(PreferredLeaderTest, WhyItIsNotToBeAsked) {
  ClusterState state = cluster_of(2);
  PartitionRecord record = partition_record("t", 0, {1, 2});
  EXPECT_EQ(why_not_preferred(record, state), "leads already");
  record.leader = NodeId(2);
  record.leader_incarnation = state.live[NodeId(2)];
  EXPECT_EQ(why_not_preferred(record, state), "");
  PartitionRecord behind = record;
  std::erase_if(behind.isr, [](const IsrMember& member) { return member.node == NodeId(1); });
  EXPECT_THAT(why_not_preferred(behind, state), HasSubstr("not in sync"));
  behind = record;
  behind.removing = {NodeId(1)};
  EXPECT_THAT(why_not_preferred(behind, state), HasSubstr("being removed"));
  state.nodes[NodeId(1)].record.draining = true;
  EXPECT_THAT(why_not_preferred(record, state), HasSubstr("draining"));
  state.live.erase(NodeId(1));
  EXPECT_THAT(why_not_preferred(record, state), HasSubstr("node 1, is not alive"));
  state.live.erase(NodeId(2));
  EXPECT_EQ(why_not_preferred(record, state), "nobody leads it");
}

// --- Topics --------------------------------------------------------------------------------------

TEST(TopicCreationTest, PartitionsBeginLedAndInSyncInTheLifeThatCounts) {
  for (const bool synced : {true, false}) {
    ClusterState state = cluster_of(3);
    TopicRecord topic = wanted(7, 2, 3);
    if (!synced) topic.configs = {{"replica.ack", "memory"}};
    TopicCreation creation = plan(state, topic);
    const auto changes = creation.next(state);
    ASSERT_TRUE(changes);
    ASSERT_TRUE(commit(state, *changes));
    EXPECT_THAT(creation.next(state).value(), IsEmpty());
    expect_whole(state, 7, 2);
    for (const auto& [name, stored] : state.partitions) {
      const PartitionRecord& record = stored.record;
      EXPECT_TRUE(is_led(record, state));
      EXPECT_EQ(record.leader, record.replicas.front());
      EXPECT_EQ(record.leader_epoch, LeaderEpoch(1));
      EXPECT_EQ(record.partition_epoch, 1u);
      ASSERT_THAT(record.isr, SizeIs(3));
      for (const IsrMember& member : record.isr) {
        const NodeRecord& node = state.nodes[member.node].record;
        EXPECT_EQ(member.life, synced ? node.log_id : node.life);
      }
    }
  }
}

TEST(TopicCreationTest, WhatCannotBeIsRefused) {
  ClusterState state = cluster_of(2);
  const auto code = [&](TopicRecord topic) {
    const auto planned = TopicCreation::plan(state, std::move(topic));
    return planned ? std::string("planned") : std::string(to_string(planned.error().code));
  };
  EXPECT_EQ(code(wanted(7, 1)), "planned");
  EXPECT_EQ(code(wanted(7, 1, 3)), "not_enough_replicas");
  EXPECT_EQ(code(wanted(7, 0)), "invalid_argument");
  EXPECT_EQ(code(wanted(7, 5000)), "invalid_argument");
  TopicRecord topic = wanted(7, 1);
  topic.configs = {{"no.such", "1"}};
  EXPECT_EQ(code(topic), "invalid_argument");
  topic.configs = {{"min.insync.replicas", "3"}};
  EXPECT_EQ(code(topic), "invalid_argument");
  topic.configs = {{"cleanup.policy", "compact"}};
  EXPECT_EQ(code(topic), "unsupported");
  topic = wanted(7, 1);
  topic.name = "a/b";
  EXPECT_EQ(code(topic), "invalid_argument");
  TopicCreation creation = plan(state, wanted(7, 300));
  state.malformed[topic_key("orders")] = {5, "of another release"};  // its partitions stay
  EXPECT_EQ(code(wanted(7, 1)), "already_exists");
  EXPECT_EQ(creation.next(state).error().code, Code::already_exists);
  state.malformed.clear();
  state.topics["orders"] = {wanted(8, 1), 5};
  EXPECT_EQ(code(wanted(7, 1)), "already_exists");
}

TEST(TopicCreationTest, ATopicOfManyPartitionsIsThereWithItsLastCommitOnly) {
  ClusterState state = cluster_of(3);
  TopicCreation creation = plan(state, wanted(7, 300));
  std::size_t commits = 0;
  for (auto changes = creation.next(state).value(); !changes.empty();
       changes = creation.next(state).value()) {
    EXPECT_FALSE(state.topics.contains("orders"));
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
    ++commits;
  }
  EXPECT_EQ(commits, 3u);
  expect_whole(state, 7, 300);
}

TEST(TopicCreationTest, TheLeftoversOfOneThatWasInterruptedAreTakenOver) {
  ClusterState state = cluster_of(3);
  TopicCreation interrupted = plan(state, wanted(7, 300));
  ASSERT_TRUE(commit(state, first(interrupted.next(state).value(), Coordinator::kMaxChanges)));
  EXPECT_EQ(summarize(state).partitions, 0u);
  TopicCreation next = plan(state, wanted(8, 50));
  for (auto changes = next.next(state).value(); !changes.empty(); changes = next.next(state).value())
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  expect_whole(state, 8, 50);
}

// Each looks at the state at some time and commits what it decided on at another; some commits are done although
// their author does not know. In the end there is one topic, and it is whole.
TEST(TopicCreationTest, OfSeveralAtATimeOneSucceedsAndNothingIsMixed) {
  std::mt19937_64 random(test::print_seed());
  for (int round = 0; round < 40; ++round) {
    ClusterState state = cluster_of(3);
    struct Creator {
      TopicCreation creation;
      std::uint32_t partitions;
      std::vector<Change> pending;
      bool done = false;
      bool created = false;
    };
    std::vector<Creator> creators;
    for (std::uint64_t id = 1; id <= 3; ++id) {
      const auto partitions = static_cast<std::uint32_t>(1 + random() % 40);
      creators.push_back({plan(state, wanted(id, partitions)), partitions, {}});
    }
    for (int step = 0; step < 3000; ++step) {
      Creator& creator = creators[random() % creators.size()];
      if (creator.done) continue;
      if (!creator.pending.empty()) {
        commit(state, first(creator.pending, 10));  // the outcome is told by the state
        creator.pending.clear();
        continue;
      }
      auto changes = creator.creation.next(state);
      creator.done = !changes || changes->empty();
      creator.created = creator.done && changes;
      if (!creator.done) creator.pending = std::move(*changes);
    }
    const auto created = std::ranges::count_if(creators, &Creator::created);
    ASSERT_EQ(created, 1) << "round " << round;
    const auto winner = std::ranges::find_if(creators, &Creator::created);
    expect_whole(state, winner->creation.topic().topic_id, winner->partitions);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(TopicRemovalTest, TheTopicGoesFirstAndANewOneOfItsNameStays) {
  ClusterState state = cluster_of(3);
  TopicCreation old = plan(state, wanted(7, 200));
  for (auto changes = old.next(state).value(); !changes.empty(); changes = old.next(state).value())
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  ASSERT_TRUE(commit(state, first(removal_of(state, "orders", 7), Coordinator::kMaxChanges)));
  EXPECT_FALSE(state.topics.contains("orders"));
  EXPECT_THAT(state.partitions, SizeIs(74));

  TopicCreation fresh = plan(state, wanted(8, 150));
  ASSERT_TRUE(commit(state, first(fresh.next(state).value(), Coordinator::kMaxChanges)));
  for (auto changes = removal_of(state, "orders", 7); !changes.empty();
       changes = removal_of(state, "orders", 7))
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  for (auto changes = fresh.next(state).value(); !changes.empty(); changes = fresh.next(state).value())
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  expect_whole(state, 8, 150);
}

TEST(TopicRemovalTest, WhatAnInterruptedOneLeftIsRemovedByTheNext) {
  ClusterState state = with_topic(300);
  ASSERT_TRUE(commit(state, first(removal_of(state, "orders", 7), Coordinator::kMaxChanges)));
  EXPECT_EQ(find_topic(state, "orders").error().code, Code::not_found);
  for (auto changes = leftovers_of(state, "orders"); !changes.empty();
       changes = leftovers_of(state, "orders"))
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  EXPECT_THAT(state.partitions, IsEmpty());
}

TEST(TopicRemovalTest, NothingOfATopicIsLeftOverAlsoIfItsRecordCannotBeRead) {
  ClusterState state = with_topic(2);
  add_partition(state, partition_record("other", 0, {1, 2}));
  EXPECT_THAT(leftovers_of(state, "orders"), IsEmpty());
  state.topics.clear();
  EXPECT_THAT(leftovers_of(state, "orders"), SizeIs(2));
  state.malformed[topic_key("orders")] = {5, "of another release"};
  EXPECT_THAT(leftovers_of(state, "orders"), IsEmpty());
}

// A creation and a removal of what another has left, each deciding at one time and committing at another.
TEST(TopicRemovalTest, ATopicThatIsCreatedMeanwhileIsWholeOrNotThere) {
  std::mt19937_64 random(test::print_seed());
  int created = 0;
  int ended = 0;
  for (int round = 0; round < 300; ++round) {
    ClusterState state = cluster_of(3);
    TopicCreation interrupted = plan(state, wanted(7, 40));
    ASSERT_TRUE(commit(state, first(interrupted.next(state).value(), 1 + random() % 40)));
    const auto partitions = static_cast<std::uint32_t>(1 + random() % 40);
    TopicCreation creation = plan(state, wanted(8, partitions));
    std::vector<Change> additions;
    std::vector<Change> removals;
    for (bool done = false; !done;) {
      switch (random() % 5) {
        case 0: removals = leftovers_of(state, "orders"); break;
        case 1: commit(state, first(removals, 10)); break;
        default:
          commit(state, first(additions, 10));
          const auto next = creation.next(state);
          done = !next || next->empty();
          additions = next.value_or(std::vector<Change>{});
      }
    }
    commit(state, first(removals, 10));
    const bool there = state.topics.contains("orders");
    ++(there ? created : ended);
    if (there) expect_whole(state, 8, partitions);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(created, 0);
  EXPECT_GT(ended, 0);
}

TEST(TopicAlterationTest, ConfigurationsAreMergedAndChecked) {
  ClusterState state = cluster_of(2);
  TopicRecord topic = wanted(7, 1);
  topic.configs = {{"retention.ms", "3600000"}};
  state.topics["orders"] = {topic, 5};
  const auto changed = alteration_of(state, "orders", {{"retention.ms", ""}, {"retention.bytes", "1KiB"}});
  ASSERT_TRUE(changed);
  ASSERT_THAT(*changed, SizeIs(1));
  EXPECT_EQ(changed->front().revision, 5);
  EXPECT_EQ(std::get<TopicRecord>(changed->front().record).configs,
            (TopicConfigs{{"retention.bytes", "1024"}}));
  EXPECT_THAT(alteration_of(state, "orders", {{"retention.ms", "1h"}}).value(), IsEmpty());
  EXPECT_EQ(alteration_of(state, "orders", {{"storage", "memory"}}).error().code, Code::invalid_argument);
  EXPECT_EQ(alteration_of(state, "orders", {{"min.insync.replicas", "3"}}).error().code,
            Code::invalid_argument);
  EXPECT_EQ(alteration_of(state, "orders", {{"cleanup.policy", "compact"}}).error().code, Code::unsupported);
  EXPECT_EQ(alteration_of(state, "other", {}).error().code, Code::not_found);
}

// --- More partitions -----------------------------------------------------------------------------

TEST(TopicAdditionTest, TheTopicHasThemWithTheLastCommitOnly) {
  ClusterState state = with_topic(2);
  const ClusterState before = state;
  for (auto changes = addition_of(state, "orders", 300).value(); !changes.empty();
       changes = addition_of(state, "orders", 300).value()) {
    EXPECT_EQ(state.topics.find("orders")->second.record.partitions, 2U);
    ASSERT_TRUE(commit(state, first(changes, Coordinator::kMaxChanges)));
  }
  EXPECT_EQ(state.topics.find("orders")->second.record.partitions, 300U);
  expect_whole(state, 7, 300);
  for (std::uint32_t i = 0; i < 2; ++i)
    EXPECT_EQ(state.partitions.find(named("orders", i))->second.record,
              before.partitions.find(named("orders", i))->second.record);
}

TEST(TopicAdditionTest, OfTwoAtATimeTheLargerStays) {
  ClusterState state = with_topic(2);
  const auto small = addition_of(state, "orders", 4).value();
  const auto large = addition_of(state, "orders", 6).value();
  ASSERT_TRUE(commit(state, large));
  EXPECT_FALSE(commit(state, small));
  EXPECT_EQ(addition_of(state, "orders", 4).error().code, Code::invalid_argument);
  expect_whole(state, 7, 6);
}

TEST(TopicAdditionTest, WhatAnInterruptedOneLeftIsTakenOver) {
  ClusterState state = with_topic(2);
  auto interrupted = addition_of(state, "orders", 5).value();
  interrupted.pop_back();  // the topic's record
  ASSERT_TRUE(commit(state, interrupted));
  const auto changes = addition_of(state, "orders", 6).value();
  EXPECT_THAT(changes, SizeIs(2));
  ASSERT_TRUE(commit(state, changes));
  expect_whole(state, 7, 6);
}

TEST(TopicAdditionTest, WhatAnInterruptedOneLeftIsMadeAnewIfNobodyCouldLeadItAnyMore) {
  ClusterState state = with_topic(2);
  state.topics.find("orders")->second.record.configs = {{"storage", "memory"}};
  auto interrupted = addition_of(state, "orders", 5).value();
  interrupted.pop_back();  // the topic's record
  ASSERT_TRUE(commit(state, interrupted));
  const auto boot = [&](NodeId id) {
    NodeRecord& node = state.nodes.at(id).record;
    node.life = "beef";
    state.live[id] = ++node.incarnation;
  };
  boot(NodeId(1));
  EXPECT_THAT(addition_of(state, "orders", 5).value(), SizeIs(1));  // the other replica could lead
  boot(NodeId(2));
  boot(NodeId(3));
  ASSERT_TRUE(commit(state, addition_of(state, "orders", 5).value()));
  expect_whole(state, 7, 5);
  for (std::uint32_t i = 2; i < 5; ++i)
    EXPECT_TRUE(is_led(state.partitions.find(named("orders", i))->second.record, state)) << "partition " << i;
}

TEST(TopicAdditionTest, WhatCannotBeIsRefused) {
  ClusterState state = with_topic(2);
  EXPECT_THAT(addition_of(state, "orders", 2).value(), IsEmpty());
  EXPECT_EQ(addition_of(state, "orders", 1).error().code, Code::invalid_argument);
  EXPECT_EQ(addition_of(state, "orders", 1'000'000).error().code, Code::invalid_argument);
  EXPECT_EQ(addition_of(state, "other", 3).error().code, Code::not_found);
  state.live.clear();
  EXPECT_EQ(addition_of(state, "orders", 3).error().code, Code::not_enough_replicas);
}

}  // namespace
}  // namespace ringtail::replication
