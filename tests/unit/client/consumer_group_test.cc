// Consumers as members of groups: who gets what, and what becomes of it.
#include <fstream>
#include <tuple>

#include "base/files.h"
#include "client/log_core.h"
#include "log/ring.h"
#include "unit/client/group_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

TEST_F(GroupTest, TheOnlyMemberGetsEveryPartition) {
  create("orders", small(), 3);
  Consumer alone = member("billing", "orders");
  for (std::uint32_t p = 0; p < 3; ++p) send("orders", "record " + std::to_string(p), p);
  const Got got = poll_until({&alone}, [](const Got& g) { return count(g) == 3; });
  EXPECT_THAT(got[0], UnorderedElementsAre("record 0", "record 1", "record 2"));
  EXPECT_EQ(alone.assignment().size(), 3u);
}

TEST_F(GroupTest, MembersShareThePartitions) {
  create("orders", small(), 4);
  Consumer first = member("billing", "orders");
  wait_assigned({&first}, {4});
  Consumer second = member("billing", "orders");
  wait_assigned({&first, &second}, {2, 2});
  for (std::uint32_t p = 0; p < 4; ++p) send("orders", std::to_string(p), p);
  const Got got = poll_until({&first, &second}, [](const Got& g) { return count(g) == 4; });
  EXPECT_EQ(got[0].size(), 2u);
  EXPECT_EQ(got[1].size(), 2u);
}

TEST_F(GroupTest, EveryGroupGetsEveryRecord) {
  create("orders", small(), 2);
  Consumer billing = member("billing", "orders");
  Consumer shipping = member("shipping", "orders");
  send("orders", "a", 0);
  send("orders", "b", 1);
  const Got got = poll_until({&billing, &shipping}, [](const Got& g) { return count(g) == 4; });
  EXPECT_THAT(got[0], UnorderedElementsAre("a", "b"));
  EXPECT_THAT(got[1], UnorderedElementsAre("a", "b"));
}

TEST_F(GroupTest, AMemberTooManyIdlesAndTakesOver) {
  create("orders", small(), 2);
  std::optional<Consumer> first = member("billing", "orders");
  Consumer second = member("billing", "orders");
  wait_assigned({&*first, &second}, {1, 1});
  Consumer third = member("billing", "orders");
  poll_until({&*first, &second, &third}, [&, rounds = 0](const Got&) mutable { return ++rounds > 20; });
  EXPECT_EQ(third.assignment().size(), 0u);
  first.reset();
  wait_assigned({&second, &third}, {1, 1});
}

TEST_F(GroupTest, AMemberThatLeavesHandsItsPositionOver) {
  create("orders", small());
  for (int i = 0; i < 5; ++i) send("orders", std::to_string(i));
  {
    Consumer first = member("billing", "orders", {.max_poll_records = 3});
    const Got got = poll_until({&first}, [](const Got& g) { return count(g) == 3; });
    EXPECT_THAT(got[0], ElementsAre("0", "1", "2"));
  }  // commits by itself
  Consumer second = member("billing", "orders");
  const Got got = poll_until({&second}, [](const Got& g) { return count(g) == 2; });
  EXPECT_THAT(got[0], ElementsAre("3", "4"));
}

// It looks at no other place of the log: where that is in files, to join would take long, and need them.
TEST_F(GroupTest, AMemberBeginsWhereItsGroupStandsThoughTheLogsStartCannotBeRead) {
  create("orders", small());
  {
    auto opened = producer("orders");
    for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(opened.send(std::string(1'000, 'x')));
  }
  {
    Consumer first = member("billing", "orders");
    poll_until({&first}, [](const Got& g) { return count(g) == 1'000; });
  }
  const auto segment = dir_ / "log" / "topics" / "orders" / "0" / "00000000000000000000.log";
  ASSERT_TRUE(std::filesystem::exists(segment));
  std::fstream(segment, std::ios::in | std::ios::out | std::ios::binary).seekp(4'096).write("damage", 6);
  auto from_start = Consumer::open(*log_, {});
  ASSERT_TRUE(from_start);
  auto refused = from_start->assign("orders");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::corrupt) << to_string(refused.error());
  Consumer second = member("billing", "orders");
  send("orders", "next");
  const Got got = poll_until({&second}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("next"));

  // One that has no position yet, and is to be given one.
  Consumer other = member("audit", "orders", {.auto_offset_reset = Options::Reset::none});
  Result<std::span<const Record>> polled = std::span<const Record>();
  while (polled && other.assignment().empty()) polled = other.poll(milliseconds(1));
  ASSERT_FALSE(polled);
  EXPECT_EQ(polled.error().code, Code::offset_out_of_range) << to_string(polled.error());
  ASSERT_TRUE(other.seek({"orders", PartitionId(0)}, Offset(1'000)));
  const Got rest = poll_until({&other}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(rest[0], ElementsAre("next"));
}

TEST_F(GroupTest, AConsumerThatEndsCommitsAllThatItHasReadAndTellsNobody) {
  create("orders", small());
  send("orders", "a");
  int told = 0;
  const auto count_call = [&told](auto) { ++told; };
  {
    Consumer first = member("billing", "orders", {}, {.revoked = count_call, .lost = count_call});
    const Got got = poll_until({&first}, [](const Got& g) { return count(g) == 1; });
    EXPECT_THAT(got[0], ElementsAre("a"));
  }
  EXPECT_EQ(told, 0);
  Consumer second = member("billing", "orders");
  send("orders", "b");
  const Got got = poll_until({&second}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("b"));
}

TEST_F(GroupTest, WithoutCommitsTheRecordsComeAgain) {
  create("orders", small());
  for (int i = 0; i < 3; ++i) send("orders", std::to_string(i));
  for (int round = 0; round < 2; ++round) {
    Consumer reader = member("billing", "orders", {.enable_auto_commit = false});
    const Got got = poll_until({&reader}, [](const Got& g) { return count(g) == 3; });
    EXPECT_THAT(got[0], ElementsAre("0", "1", "2"));
    auto committed = reader.committed({"orders", PartitionId(0)});
    ASSERT_TRUE(committed);
    EXPECT_FALSE(*committed);
  }
}

TEST_F(GroupTest, CommitsSurviveTheEndOfEverybodyAndOfSharedMemory) {
  create("orders", small(), 2);
  for (int i = 0; i < 4; ++i) send("orders", std::to_string(i), static_cast<std::uint32_t>(i) % 2);
  {
    Consumer reader = member("billing", "orders", {.enable_auto_commit = false});
    poll_until({&reader}, [](const Got& g) { return count(g) == 4; });
    const OffsetCommit offsets[] = {{{"orders", PartitionId(0)}, Offset(1), "half"},
                                    {{"orders", PartitionId(1)}, Offset(2), {}}};
    auto committed = reader.commit_sync(offsets);
    ASSERT_TRUE(committed) << to_string(committed.error());
  }
  const std::string id = log_->id();
  log_.reset();
  std::filesystem::remove_all(shm_.path() / ("ringtail-" + id));
  log_.emplace(open_log().value());
  Consumer reader = member("billing", "orders");
  auto zero = reader.committed({"orders", PartitionId(0)});
  ASSERT_TRUE(zero);
  ASSERT_TRUE(*zero);
  EXPECT_EQ((*zero)->offset, Offset(1));
  EXPECT_EQ((*zero)->metadata, "half");
  const Got got = poll_until({&reader}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("2"));
}

TEST_F(GroupTest, MetadataThatCannotBeKeptIsRefused) {
  create("orders", small());
  Consumer reader = member("billing", "orders", {.enable_auto_commit = false});
  wait_assigned({&reader}, {1});
  for (const std::string& metadata : {std::string(128, 'm'), std::string("a\0b", 3)}) {
    const OffsetCommit one[] = {{{"orders", PartitionId(0)}, Offset(0), metadata}};
    auto committed = reader.commit_async(one);
    ASSERT_FALSE(committed);
    EXPECT_EQ(committed.error().code, Code::invalid_argument);
  }
  EXPECT_FALSE(*reader.committed({"orders", PartitionId(0)}));
}

TEST_F(GroupTest, ListenersHearOfEachChange) {
  create("orders", small(), 2);
  std::vector<std::string> heard;
  const auto note = [&](const char* what) {
    return [&heard, what](std::span<const TopicPartition> partitions) {
      heard.push_back(what + std::to_string(partitions.size()));
    };
  };
  Consumer first =
      member("billing", "orders", {},
             {.assigned = note("assigned "), .revoked = note("revoked "), .lost = note("lost ")});
  wait_assigned({&first}, {2});
  Consumer second = member("billing", "orders");
  wait_assigned({&first, &second}, {1, 1});
  ASSERT_TRUE(first.unsubscribe());
  EXPECT_THAT(heard, ElementsAre("assigned 2", "revoked 1", "revoked 1"));
}

TEST_F(GroupTest, OnlyThePartitionsThatMoveAreRevoked) {
  create("orders", small(), 6);
  std::set<TopicPartition> revoked;
  Consumer first =
      member("billing", "orders", {}, {.revoked = [&](std::span<const TopicPartition> partitions) {
               revoked.insert(partitions.begin(), partitions.end());
             }});
  wait_assigned({&first}, {6});
  Consumer second = member("billing", "orders");
  wait_assigned({&first, &second}, {3, 3});
  EXPECT_EQ(revoked.size(), 3u);
  for (const TopicPartition& partition : first.assignment()) EXPECT_FALSE(revoked.contains(partition));
}

TEST_F(GroupTest, TheLastCommitWithinRevokedCounts) {
  create("orders", small(), 2);
  std::optional<Consumer> first;
  Status committed = fail(Code::system, "revoked was not called");
  first = member("billing", "orders", {.enable_auto_commit = false},
                 {.revoked = [&](std::span<const TopicPartition>) { committed = first->commit_sync(); }});
  send("orders", "a", 0);
  send("orders", "b", 1);
  poll_until({&*first}, [](const Got& g) { return count(g) == 2; });
  Consumer second = member("billing", "orders", {.enable_auto_commit = false});
  const Got got =
      poll_until({&*first, &second}, [&](const Got&) { return are_assigned({&*first, &second}, {1, 1}); });
  EXPECT_TRUE(committed) << to_string(committed.error());
  EXPECT_EQ(count(got), 0u);
}

TEST_F(GroupTest, AStuckMemberIsExpelledAndItsLateCommitDoesNotCount) {
  create("orders", small());
  bool lost = false;
  Consumer stuck =
      member("billing", "orders", {.enable_auto_commit = false, .max_poll_interval = milliseconds(50)},
             {.lost = [&](std::span<const TopicPartition>) { lost = true; }});
  for (int i = 0; i < 3; ++i) send("orders", std::to_string(i));
  poll_until({&stuck}, [](const Got& g) { return count(g) == 3; });
  Consumer other = member("billing", "orders", {.enable_auto_commit = false});
  const Got got = poll_until({&other}, [](const Got& g) { return count(g) == 3; });
  EXPECT_THAT(got[0], ElementsAre("0", "1", "2"));
  const OffsetCommit two[] = {{{"orders", PartitionId(0)}, Offset(2), {}}};
  ASSERT_TRUE(other.commit_async(two));
  auto late = stuck.commit_async();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::stale_generation);
  EXPECT_EQ((*other.committed({"orders", PartitionId(0)}))->offset, Offset(2));
  EXPECT_FALSE(lost);
  poll_until({&stuck, &other}, [&](const Got&) { return lost; });
  other.unsubscribe().value();
  wait_assigned({&stuck}, {1});  // it has joined again
}

TEST_F(GroupTest, TopicsThatMatchAnExpressionComeAndGo) {
  create("orders.eu", small());
  auto opened = Consumer::open(*log_, in_group("billing"));
  ASSERT_TRUE(opened);
  ASSERT_TRUE(opened->subscribe_pattern("orders\\..*"));
  wait_assigned({&*opened}, {1});
  create("orders.us", small(), 2);
  create("returns", small());
  wait_assigned({&*opened}, {3});
  ASSERT_TRUE(admin().delete_topic("orders.eu"));
  wait_assigned({&*opened}, {2});
  send("orders.us", "a", 1);
  const Got got = poll_until({&*opened}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("a"));
}

TEST_F(GroupTest, AMalformedExpressionIsRefused) {
  auto opened = Consumer::open(*log_, in_group("billing"));
  ASSERT_TRUE(opened);
  auto subscribed = opened->subscribe_pattern("orders(");
  ASSERT_FALSE(subscribed);
  EXPECT_EQ(subscribed.error().code, Code::invalid_argument);
}

TEST_F(GroupTest, APartitionThatWasGrantedWhileTheCatalogCouldNotBeReadIsReadAfterwards) {
  create("orders", small());
  create("other", small());
  const auto path = options().dir / "topics" / "other" / "topic.toml";
  std::string healthy;
  std::getline(std::ifstream(path), healthy, '\0');
  Consumer reader = member("billing", "orders");
  ASSERT_TRUE(write_file_atomically(path, "nonsense"));
  const auto give_up = std::chrono::steady_clock::now() + seconds(60);
  Result<std::span<const Record>> polled;
  do {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up);
    polled = reader.poll(milliseconds(1));
  } while (polled);
  EXPECT_EQ(polled.error().code, Code::corrupt);
  // It is looked at again a little later. Meanwhile other partitions would be read.
  while (!reader.poll(milliseconds(1))) ASSERT_LT(std::chrono::steady_clock::now(), give_up);
  ASSERT_TRUE(write_file_atomically(path, healthy));
  wait_assigned({&reader}, {1});
}

TEST_F(GroupTest, APartitionThatHasFailedIsToldAndHoldsUpNoneAndIsReadOnceItIsMended) {
  create("orders", small(), 2);
  send("orders", "good", 0);
  send("orders", "bad", 1);
  const LogCore& core = *log_->core();
  const log::PartitionRef bad =
      core.find_partition(core.catalog().load_topic("orders").value(), PartitionId(1)).value();
  // As when it could not be opened: it has no ring.
  const auto ring = log::ring_path(bad.shm_dir, bad.topic, bad.partition), aside = shm_.path() / "aside";
  bad.entry().failure_code.store(static_cast<std::uint32_t>(Code::corrupt));
  bad.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  std::filesystem::rename(ring, aside);
  Consumer reader = member("billing", "orders");
  std::vector<std::string> got;
  bool told = false;
  for (const auto give_up = std::chrono::steady_clock::now() + seconds(60); !told || got.empty();) {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "told: " << told;
    auto polled = reader.poll(milliseconds(1));
    if (!polled) {
      EXPECT_EQ(polled.error().code, Code::corrupt) << to_string(polled.error());
      told = true;
      continue;
    }
    for (const Record& record : *polled) got.emplace_back(record.value);
  }
  EXPECT_THAT(got, ElementsAre("good"));
  std::filesystem::rename(aside, ring);
  bad.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  EXPECT_THAT(poll_until({&reader}, [](const Got& g) { return count(g) == 1; })[0], ElementsAre("bad"));
}

TEST_F(GroupTest, TwoAssignorsInOneGroupAreRefused) {
  create("orders", small());
  Consumer first = member("billing", "orders", {.assignor = range_assignor()});
  auto second = Consumer::open(*log_, in_group("billing", {.assignor = round_robin_assignor()}));
  ASSERT_TRUE(second);
  auto subscribed = second->subscribe("orders");
  ASSERT_FALSE(subscribed);
  EXPECT_EQ(subscribed.error().code, Code::inconsistent_assignor);
  EXPECT_THAT(subscribed.error().message, ::testing::HasSubstr("range"));
}

TEST_F(GroupTest, AUsersAssignorIsAppliedByAMember) {
  create("orders", small(), 4);
  const Assignor all_to_the_last{
      "all-to-the-last", [](std::span<const GroupMember> members, std::span<const GroupTopic> topics) {
        Assignment assignment(members.size());
        std::size_t last = 0;
        for (std::size_t m = 1; m < members.size(); ++m)
          if (members[m].client_id > members[last].client_id) last = m;
        for (const GroupTopic& topic : topics)
          for (std::uint32_t p = 0; p < topic.partitions; ++p)
            assignment[last].push_back({topic.name, PartitionId(p)});
        return assignment;
      }};
  Consumer first = member("billing", "orders", {.client_id = "a", .assignor = all_to_the_last});
  wait_assigned({&first}, {4});
  Consumer second = member("billing", "orders", {.client_id = "b", .assignor = all_to_the_last});
  wait_assigned({&first, &second}, {0, 4});
  second.unsubscribe().value();
  wait_assigned({&first}, {4});
}

TEST_F(GroupTest, PausedPartitionsGiveNothingAndKeepTheirPosition) {
  create("orders", small(), 2);
  Consumer reader = member("billing", "orders");
  wait_assigned({&reader}, {2});
  const TopicPartition zero[] = {{"orders", PartitionId(0)}};
  ASSERT_TRUE(reader.pause(zero));
  EXPECT_THAT(reader.paused(), ElementsAre(zero[0]));
  send("orders", "a", 0);
  send("orders", "b", 1);
  Got got = poll_until({&reader}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("b"));
  EXPECT_EQ(reader.position(zero[0]), Offset(0));
  ASSERT_TRUE(reader.resume(zero));
  got = poll_until({&reader}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("a"));
  const TopicPartition unknown[] = {{"orders", PartitionId(7)}};
  EXPECT_EQ(reader.pause(unknown).error().code, Code::not_found);
}

// What a poll does while nothing comes: each of its looks says that the member lives.
TEST_F(GroupTest, AMemberThatMayBeSilentForEverSleepsBetweenItsLooks) {
  create("orders", small());
  Consumer reader = member("billing", "orders", {.max_poll_interval = milliseconds::max()});
  wait_assigned({&reader}, {1});
  const auto count_looks = [&] {
    std::uint32_t sum = 0;
    const shm::Control& control = log_->core()->control();
    for (std::uint32_t slot = 0; slot < control.slots().size(); ++slot)
      sum += control.member(slot).polls.load(std::memory_order_relaxed);
    return sum;
  };
  const std::uint32_t before = count_looks();
  ASSERT_TRUE(reader.poll(milliseconds(500)));
  EXPECT_LT(count_looks() - before, 2'000u);  // one that does not sleep looks a million times
}

TEST_F(GroupTest, AutoCommitMovesThePositionWhileReading) {
  create("orders", small());
  Consumer reader = member("billing", "orders", {.auto_commit_interval = milliseconds(20)});
  send("orders", "a");
  poll_until({&reader}, [&](const Got&) {
    auto committed = reader.committed({"orders", PartitionId(0)});
    return committed && *committed && (*committed)->offset == Offset(1);
  });
}

// As on a cluster's host that has just started: what its group has read lies behind a watermark that nobody has told yet.
TEST_F(GroupTest, APositionBeyondAWatermarkThatIsNotKnownYetIsWaitedForAndKept) {
  create("orders", small());
  for (int i = 0; i < 5; ++i) send("orders", "v");
  {
    Consumer reader = member("billing", "orders");
    poll_until({&reader}, [](const Got& g) { return count(g) == 5; });
    ASSERT_TRUE(reader.commit_sync());
  }
  const LogCore& core = *log_->core();
  shm::Partition& entry =
      core.find_partition(core.catalog().load_topic("orders").value(), PartitionId(0)).value().entry();
  shm::set_high_watermark(entry, 0, 0);
  Consumer reader = member("billing", "orders", {.auto_commit_interval = milliseconds(1)});
  const auto until = std::chrono::steady_clock::now() + milliseconds(500);
  while (std::chrono::steady_clock::now() < until) {
    const auto polled = reader.poll(milliseconds(1));
    ASSERT_TRUE(polled) << to_string(polled.error());
    ASSERT_TRUE(polled->empty());
  }
  EXPECT_TRUE(reader.assignment().empty());
  EXPECT_EQ(reader.committed({"orders", PartitionId(0)}).value()->offset, Offset(5));
  entry.high_watermark.store(shm::kNoWatermark);
  send("orders", "next");
  const auto got = poll_until({&reader}, [](const Got& g) { return count(g) > 0; });
  EXPECT_THAT(got[0], ElementsAre("next"));
  EXPECT_EQ(reader.missed(), 0u);
}

TEST_F(GroupTest, WhatRetentionTookBeforeAMemberCameItHasMissed) {
  create("orders", small({{"storage", "memory"}, {"on.full", "overwrite"}}));
  send("orders", "v");
  {
    Consumer reader = member("billing", "orders");
    poll_until({&reader}, [](const Got& g) { return count(g) == 1; });
    ASSERT_TRUE(reader.commit_sync());
  }
  {
    Producer p = producer("orders");
    const std::string value(1'000, 'v');
    for (int i = 0; i < 2'000; ++i) ASSERT_TRUE(p.send(value));
  }
  Consumer reader = member("billing", "orders", {.max_poll_records = 1});
  Result<std::span<const Record>> polled;
  do {
    polled = reader.poll(seconds(1));
    ASSERT_TRUE(polled) << to_string(polled.error());
  } while (polled->empty());
  EXPECT_EQ(reader.missed(), polled->front().offset.value() - 1);
}

// A listener is told of what it loses, not of what it never had.
TEST_F(GroupTest, APartitionThatCouldNotBeOpenedIsNotToldAsLost) {
  create("orders", small());
  const LogCore& core = *log_->core();
  const log::PartitionRef bad =
      core.find_partition(core.catalog().load_topic("orders").value(), PartitionId(0)).value();
  const auto ring = log::ring_path(bad.shm_dir, bad.topic, bad.partition), aside = shm_.path() / "aside";
  bad.entry().failure_code.store(static_cast<std::uint32_t>(Code::corrupt));
  bad.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  std::filesystem::rename(ring, aside);
  int told = 0;
  const auto count_told = [&](std::span<const TopicPartition>) { ++told; };
  Consumer reader = member("billing", "orders", {.max_poll_interval = milliseconds(200)},
                           {.assigned = count_told, .revoked = count_told, .lost = count_told});
  const auto give_up = std::chrono::steady_clock::now() + seconds(60);
  while (reader.poll(milliseconds(1))) ASSERT_LT(std::chrono::steady_clock::now(), give_up);
  const auto is_member = [&] {  // without members and positions there is no group
    const auto group = admin().describe_group("billing");
    return group && !group->members.empty();
  };
  while (is_member()) {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up);
    std::this_thread::sleep_for(milliseconds(10));
  }
  std::ignore = reader.poll(milliseconds(1));
  EXPECT_EQ(told, 0);
  std::filesystem::rename(aside, ring);
  bad.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  wait_assigned({&reader}, {1});
  EXPECT_EQ(told, 1);
}

// --- Resets --------------------------------------------------------------------------------------

class ResetTest : public GroupTest {
 protected:
  // A group that has read one record of each partition, and has no member.
  void read_all(std::uint32_t partitions) {
    create("orders", small(), partitions);
    for (std::uint32_t p = 0; p < partitions; ++p) send("orders", "v", p);
    Consumer reader = member("billing", "orders", {.enable_auto_commit = false});
    poll_until({&reader}, [&](const Got& g) { return count(g) == partitions; });
    ASSERT_TRUE(reader.commit_sync());
    ASSERT_TRUE(reader.unsubscribe());
  }
  log::PartitionRef ref(std::uint32_t partition) {
    const LogCore& core = *log_->core();
    return core.find_partition(core.catalog().load_topic("orders").value(), PartitionId(partition)).value();
  }
  Result<std::vector<OffsetChange>> reset(OffsetReset::To to, std::optional<PartitionId> partition = {}) {
    return admin().reset_group_offsets("billing", "orders", partition, {.to = to}, false);
  }
};

TEST_F(ResetTest, WhereNobodyKnowsWhereAPartitionEndsNoneIsReset) {
  ASSERT_NO_FATAL_FAILURE(read_all(2));
  const log::PartitionRef bad = ref(1);
  const auto ring = log::ring_path(bad.shm_dir, bad.topic, bad.partition), aside = shm_.path() / "aside";
  bad.entry().failure_code.store(static_cast<std::uint32_t>(Code::corrupt));
  bad.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  std::filesystem::rename(ring, aside);
  for (const auto to : {OffsetReset::To::earliest, OffsetReset::To::latest}) {
    const auto refused = reset(to);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::corrupt) << to_string(refused.error());
  }
  const auto good = reset(OffsetReset::To::earliest, PartitionId(0));
  ASSERT_TRUE(good) << to_string(good.error());
  EXPECT_EQ(good->front().from, Offset(1));
  std::filesystem::rename(aside, ring);
  bad.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
}

// The next leader may lack it, and have another record there.
TEST_F(ResetTest, WhatIsNotOnAllReplicasIsNotSkipped) {
  ASSERT_NO_FATAL_FAILURE(read_all(1));
  for (int i = 0; i < 2; ++i) send("orders", "v");
  shm::Partition& entry = ref(0).entry();
  entry.high_watermark_offset.store(2);
  entry.role.store(static_cast<std::uint32_t>(shm::ReplicaRole::leader));
  const auto changed = reset(OffsetReset::To::latest);
  entry.role.store(static_cast<std::uint32_t>(shm::ReplicaRole::alone));
  ASSERT_TRUE(changed) << to_string(changed.error());
  EXPECT_EQ(changed->front().to, Offset(2));
}

TEST_F(ResetTest, WhereOnePartitionsTargetCannotBeFoundNoneIsReset) {
  ASSERT_NO_FATAL_FAILURE(read_all(2));
  const log::PartitionRef bad = ref(1);
  Producer p = producer("orders", {.durable = true});
  for (std::uint32_t i = 0; i < 2; ++i) ASSERT_TRUE(p.send({.value = "v", .partition = PartitionId(i)}));
  for (const auto& file : std::filesystem::directory_iterator(bad.disk_dir)) {
    std::fstream segment(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    segment.write("damaged!", 8);
  }
  const auto refused =
      admin().reset_group_offsets("billing", "orders", {}, {.to = OffsetReset::To::time, .value = 0}, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::corrupt) << to_string(refused.error());
  const auto good = reset(OffsetReset::To::earliest, PartitionId(0));
  ASSERT_TRUE(good) << to_string(good.error());
  EXPECT_EQ(good->front().from, Offset(1));
}

}  // namespace
}  // namespace ringtail
