// The coordinator: what it keeps, forgets, refuses, and what the next one makes of it.
#include <fstream>

#include "base/files.h"
#include "unit/groups/groups_test_support.h"
#include "unit/groups/log_capture.h"
#include "unit/groups/opens.h"

namespace ringtail::groups {
namespace {

using ::testing::HasSubstr;

class CoordinatorTest : public GroupsTest {
 protected:
  // Commits as a member of the group that then leaves.
  void commit(const std::string& group, const std::string& topic, std::uint64_t offset,
              std::string_view metadata = {}) {
    auto seat = join(group, topic);
    settle({seat.get()}, {attachment_->catalog().load_topic(topic)->partitions});
    for (Tenancy& tenancy : (*seat)->held()) ASSERT_TRUE((*seat)->commit(tenancy, Offset(offset), metadata));
    ASSERT_TRUE((*seat)->persist(seconds(60)));
    ASSERT_TRUE((*seat)->leave());
  }
  // As when a write to the topic of positions has failed.
  static void fail_writes(shm::Partition& positions) {
    positions.failure_code.store(static_cast<std::uint32_t>(Code::storage_failed));
    positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
    positions.hot.fetch_add(shm::kHotVersion);  // so that its appender looks
  }
  void remove_topic(const std::string& topic) {
    ASSERT_TRUE(attachment_->catalog().delete_topic(topic));
    ASSERT_TRUE(attachment_->apply_catalog());
    control().wake_coordinator();
  }
  // Positions of a group without members, in partitions of a topic from 0 on, as if it had just committed them. For the
  // next coordinator.
  void write_positions(std::uint32_t group, const std::string& id, const std::string& topic,
                       std::uint32_t count) {
    const std::uint64_t of = topic_id(topic);
    for (std::uint32_t i = 0; i < count; ++i) {
      shm::GroupPartition& entry = table().partitions[i];
      entry.topic_id.store(of);
      entry.partition.store(i);
      entry.committed.store(i + 1);
      entry.committed_ns.store(wall_clock_ns());
      table().assignments[i].store(shm::assignment_word(group, 0));
    }
    table().entries_used.store(count);
    shm::Group& entry = table().groups[group];
    entry.group_id.store(id);
    entry.empty_since_ns.store(wall_clock_ns());
    entry.state.store(static_cast<std::uint32_t>(shm::GroupState::empty));
  }
};

TEST_F(CoordinatorTest, PositionsSurviveAReboot) {
  create("orders", 2);
  commit("billing", "orders", 5, "five");
  reboot();
  EXPECT_EQ(committed("billing", "orders", 0), "5 five");
  EXPECT_EQ(committed("billing", "orders", 1), "5 five");
}

TEST_F(CoordinatorTest, TheLatestOfSeveralCommitsIsRestored) {
  create("orders");
  for (const std::uint64_t offset : {5u, 9u, 7u}) commit("billing", "orders", offset);
  reboot();
  EXPECT_EQ(committed("billing", "orders"), "7");
}

TEST_F(CoordinatorTest, ADeletedGroupStaysDeletedAfterAReboot) {
  create("orders");
  commit("billing", "orders", 5);
  commit("shipping", "orders", 6);
  ASSERT_TRUE(ask(shm::GroupRequest::remove, "billing"));
  EXPECT_FALSE(find_group(control(), "billing"));
  reboot();
  EXPECT_FALSE(find_group(control(), "billing"));
  EXPECT_EQ(committed("shipping", "orders"), "6");
}

TEST_F(CoordinatorTest, ADeletedGroupBeginsAnew) {
  create("orders");
  commit("billing", "orders", 5);
  ASSERT_TRUE(ask(shm::GroupRequest::remove, "billing"));
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  EXPECT_EQ((*seat)->held().front().committed, shm::kNoOffset);
}

TEST_F(CoordinatorTest, AGroupWithMembersIsNotDeleted) {
  create("orders");
  auto seat = join("billing", "orders");
  const Status removed = ask(shm::GroupRequest::remove, "billing");
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, Code::group_not_empty);
  EXPECT_THAT(removed.error().message, HasSubstr("has 1 member;"));
}

TEST_F(CoordinatorTest, ADeletedTopicTakesItsPositionsAlong) {
  create("orders");
  create("returns");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  const std::uint64_t id = topic_id("orders");
  // Also a coordinator that has not written the position itself knows whose it was.
  stop_coordinator();
  start_coordinator();
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  ASSERT_TRUE(attachment_->catalog().delete_topic("orders"));
  ASSERT_TRUE(attachment_->apply_catalog());
  control().wake_coordinator();
  wait([&] { return !entry_of("billing", id); });
  create("orders");
  seat.reset();
  reboot();
  EXPECT_EQ(committed("billing", "orders"), "none");
}

TEST_F(CoordinatorTest, AGroupThatNobodyIsInIsForgottenAfterTheRetention) {
  create("orders");
  commit("billing", "orders", 5);
  stop();
  start({.offsets_retention_ms = 1});
  wait([&] { return !find_group(control(), "billing"); });
  reboot();
  EXPECT_EQ(committed("billing", "orders"), "none");
}

TEST_F(CoordinatorTest, WhatAMemberReadsDoesNotExpire) {
  create("orders");
  stop();
  start({.offsets_retention_ms = 1});
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  commit("shipping", "orders", 6);
  wait([&] { return !find_group(control(), "shipping"); });  // it has looked for what is to expire
  EXPECT_EQ(committed("billing", "orders"), "5");
}

// Of an assignor that only the members know, nobody's is what the one who makes the assignment has not given away yet.
TEST_F(CoordinatorTest, WhatAMemberHasLeftDoesNotExpireBeforeItIsGivenToAnother) {
  create("orders", 2);
  stop();
  start({.offsets_retention_ms = 1});
  const auto join_with_ours = [this] {
    auto seat = std::make_unique<Seat>();
    seat->slot = shm::OwnedSlot::acquire(control(), attachment_->locks(), shm::SlotRole::consumer).value();
    seat->membership =
        Membership::open(
            *attachment_, seat->slot,
            {.group_id = "billing", .client_id = {}, .assignor = {"ours", sticky_assignor().assign}})
            .value();
    EXPECT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));
    return seat;
  };
  auto first = join_with_ours();
  settle({first.get()}, {2});
  auto second = join_with_ours();
  settle({first.get(), second.get()}, {1, 1});
  ASSERT_TRUE((*second)->commit((*second)->held().front(), Offset(5)));
  ASSERT_TRUE((*second)->persist(seconds(60)));
  const std::uint32_t left = (*second)->held().front().partition.partition.value();
  ASSERT_TRUE((*second)->leave());  // and the first one does not look
  commit("shipping", "orders", 6);
  wait([&] { return !find_group(control(), "shipping"); });  // it has looked for what is to expire
  EXPECT_EQ(committed("billing", "orders", left), "5");
  settle({first.get()}, {2});
  EXPECT_EQ((*first)->find({"orders", PartitionId(left)})->committed, 5u);
}

TEST_F(CoordinatorTest, WhatIsGivenBackAfterItWasMeantForItsOwnerAgainComesBack) {
  create("orders", 2);
  auto seat = join("billing", "orders");
  settle({seat.get()}, {2});
  auto other = join("billing", "orders");
  std::vector<Tenancy*> to_give_up;
  wait([&] {
    auto changes = (*seat)->look();
    to_give_up = changes ? changes->to_give_up : std::vector<Tenancy*>();
    return !to_give_up.empty();
  });
  ASSERT_TRUE((*other)->leave());
  const shm::Group& group = table().groups[*find_group(control(), "billing")];
  wait([&] { return group.state.load() == static_cast<std::uint32_t>(shm::GroupState::stable); });
  for (Tenancy* tenancy : to_give_up) (*seat)->release(tenancy);
  settle({seat.get()}, {2});
}

TEST_F(CoordinatorTest, OneGroupTooManyIsRefusedWithTheRemedy) {
  create("orders");
  std::vector<std::unique_ptr<Seat>> seats;
  for (std::uint32_t i = 0; i < shm::kMaxGroups; ++i)
    seats.push_back(join("group-" + std::to_string(i), "orders"));
  auto seat = sit("one-too-many");
  const Status joined = (*seat)->join({.topics = {"orders"}, .pattern = {}});
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::limit_exceeded);
  EXPECT_THAT(joined.error().message, HasSubstr("ringtail group delete"));
  ASSERT_TRUE((*seats.front())->leave());  // nothing was committed: its place is free
  EXPECT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));
}

TEST_F(CoordinatorTest, AFullTableOfPositionsIsToldAndHeals) {
  create("orders", 4);
  const std::uint64_t topic_id_of_orders = topic_id("orders");
  ASSERT_TRUE(wait_until_ready(*attachment_));  // the next one restores nothing
  stop_coordinator();
  // Another group has all entries but two.
  constexpr std::uint32_t kTaken = shm::kMaxGroupPartitions - 2;
  for (std::uint32_t i = 0; i < kTaken; ++i) {
    shm::GroupPartition& entry = table().partitions[i];
    entry.topic_id.store(topic_id_of_orders);
    entry.partition.store(i);
    entry.committed.store(0);
    entry.persistent.store(1);
    entry.committed_ns.store(wall_clock_ns());
    table().assignments[i].store(shm::assignment_word(7, 0));
  }
  table().entries_used.store(kTaken);
  shm::Group& hoarder = table().groups[7];
  hoarder.group_id.store("hoarder");
  hoarder.empty_since_ns.store(wall_clock_ns());
  hoarder.state.store(static_cast<std::uint32_t>(shm::GroupState::empty));
  start_coordinator();
  auto seat = join("billing", "orders");
  settle({seat.get()}, {2});
  const shm::Group& group = table().groups[*find_group(control(), "billing")];
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(1)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));  // which is not what the trouble is about
  EXPECT_EQ(static_cast<Code>(group.trouble_code.load() - 1), Code::limit_exceeded);
  EXPECT_THAT(group.trouble.load(), HasSubstr("2 partitions of group 'billing'"));
  EXPECT_THAT(group.trouble.load(), HasSubstr("delete groups"));
  ASSERT_TRUE(ask(shm::GroupRequest::remove, "hoarder"));
  ASSERT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));
  settle({seat.get()}, {4});
  EXPECT_EQ(group.trouble_code.load(), 0u);
}

TEST_F(CoordinatorTest, TroubleWithCommitsIsOverOnceTheyAreOnDisk) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  const auto topic = attachment_->catalog().load_topic(kOffsetsTopic).value();
  shm::Partition& positions = attachment_->find_partition(topic, PartitionId(0)).value().entry();
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  positions.hot.fetch_add(shm::kHotVersion);  // so that its appender looks
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(6)));
  EXPECT_FALSE((*seat)->persist(milliseconds(1)));
  const shm::Group& group = table().groups[*find_group(control(), "billing")];
  wait([&] { return group.trouble_code.load() != 0; });
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  EXPECT_EQ(group.trouble_code.load(), 0u);
}

TEST_F(CoordinatorTest, WhatCannotBeForgottenIsToldAndBalancesNobodyAnew) {
  create("orders");
  create("returns");
  auto seat = sit("billing");
  ASSERT_TRUE((*seat)->join({.topics = {"orders", "returns"}, .pattern = {}}));
  settle({seat.get()}, {2});
  for (Tenancy& tenancy : (*seat)->held()) ASSERT_TRUE((*seat)->commit(tenancy, Offset(5)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  const std::uint64_t gone = topic_id("returns");
  const shm::Group& group = table().groups[*find_group(control(), "billing")];
  const std::uint32_t before = group.generation.load();
  shm::Partition& positions = ref(kOffsetsTopic).entry();
  fail_writes(positions);
  ASSERT_NO_FATAL_FAILURE(remove_topic("returns"));
  wait([&] { return group.generation.load() != before; });
  settle({seat.get()}, {1});
  std::this_thread::sleep_for(milliseconds(300));  // many rounds
  EXPECT_LE(group.generation.load(), before + 2);
  EXPECT_EQ(group.state.load(), static_cast<std::uint32_t>(shm::GroupState::stable));
  EXPECT_EQ(static_cast<Code>(group.trouble_code.load() - 1), Code::storage_failed);
  EXPECT_TRUE(entry_of("billing", gone));
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  wait([&] { return !entry_of("billing", gone); });
  wait([&] { return group.trouble_code.load() == 0; });
}

// On disk both go by the same name.
TEST_F(CoordinatorTest, WhatIsForgottenLateTakesNoPositionOfTheNextTopicOfThatNameAlong) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  const std::uint64_t gone = topic_id("orders");
  shm::Partition& positions = ref(kOffsetsTopic).entry();
  fail_writes(positions);
  ASSERT_NO_FATAL_FAILURE(remove_topic("orders"));
  create("orders");
  const std::uint64_t next = topic_id("orders");
  wait([&] {
    settle({seat.get()}, {1});
    return (*seat)->held().front().topic_id == next;
  });
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(7)));
  EXPECT_FALSE((*seat)->persist(milliseconds(1)));
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  wait([&] { return !entry_of("billing", gone); });
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  seat.reset();
  reboot();
  EXPECT_EQ(committed("billing", "orders"), "7");
}

// The ring of positions has room for some of what deletes a group, and not for all.
TEST_F(CoordinatorTest, WhatWasForgottenInPartAndIsKeptIsThereAfterAReboot) {
  constexpr std::uint32_t kCount = 2000;
  create("orders");
  ASSERT_TRUE(wait_until_ready(*attachment_));
  stop_coordinator();
  write_positions(7, "hoarder", "orders", kCount);
  start_coordinator();
  wait([&] { return table().partitions[kCount - 1].persistent.load() == 1; });
  stop_keeper();
  {
    const log::Ring ring = ring_of(kOffsetsTopic);
    const Position end = ring.term_start(ring.header().term_limit.load());
    InternalTopic others(*attachment_, kOffsetsTopic);
    const KeyValue filler{"filler", std::string(50'000, 'x')};
    while (end - ring.claimed_end().position > 100'000) {
      const Status appended = others.append(std::span(&filler, 1));
      ASSERT_TRUE(appended) << to_string(appended.error());
    }
  }
  const Status removed = ask(shm::GroupRequest::remove, "hoarder");
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, Code::timed_out) << to_string(removed.error());
  start_keeper();
  wait([&] { return table().partitions[kCount - 1].persisted.load() == kCount; });
  reboot();
  std::uint32_t there = 0;
  for (std::uint32_t p = 0; p < kCount; ++p)
    if (committed("hoarder", "orders", p) == std::to_string(p + 1)) ++there;
  EXPECT_EQ(there, kCount);
}

TEST_F(CoordinatorTest, ACatalogThatCannotBeReadIsNotReadInEveryRound) {
  create("orders");
  create("other");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  const auto path = dir_ / "log" / "topics" / "other" / "topic.toml";
  std::string healthy;
  std::getline(std::ifstream(path), healthy, '\0');
  ASSERT_TRUE(write_file_atomically(path, "nonsense"));
  Opens opens(dir_ / "log" / "topics" / "orders");
  ASSERT_TRUE(attachment_->apply_catalog());
  control().wake_coordinator();
  std::this_thread::sleep_for(milliseconds(500));  // with a member, a round takes at most 4
  const int opened = opens.count();
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, 40);
  ASSERT_TRUE(write_file_atomically(path, healthy));
  create("returns");
  auto other = join("shipping", "returns");
  settle({other.get()}, {1});
}

TEST_F(CoordinatorTest, ATenuresNumberRisesWhenItsEntryGoesToAnotherGroup) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  Tenancy late = (*seat)->held().front();
  ASSERT_TRUE((*seat)->leave());  // nothing was committed: the group is gone, and its entry free
  auto other = join("shipping", "orders");
  settle({other.get()}, {1});
  ASSERT_EQ((*other)->held().front().entry, late.entry);
  EXPECT_GT(shm::tenure_number((*other)->held().front().tenure), shm::tenure_number(late.tenure));
  EXPECT_FALSE((*seat)->commit(late, Offset(9)));
  EXPECT_EQ(committed("shipping", "orders"), "none");
}

TEST_F(CoordinatorTest, ASecondCoordinatorGoesOnWhereTheFirstStopped) {
  create("orders", 4);
  auto first = join("billing", "orders");
  settle({first.get()}, {4});
  ASSERT_TRUE((*first)->commit((*first)->held().front(), Offset(5)));
  stop_coordinator();
  start_coordinator();
  auto second = join("billing", "orders");
  settle({first.get(), second.get()}, {2, 2});
  EXPECT_TRUE((*second)->persist(seconds(60)));
}

// --- Syncs that do not come ----------------------------------------------------------------------

class UnsyncedTest : public CoordinatorTest {
 protected:
  // A commit stands in the ring of positions, waited for, and nobody syncs it.
  void commit_unsynced() {
    create("orders");
    seat_ = join("billing", "orders");
    settle({seat_.get()}, {1});
    Tenancy& tenancy = (*seat_)->held().front();
    ASSERT_TRUE((*seat_)->commit(tenancy, Offset(5)));
    ASSERT_TRUE((*seat_)->persist(seconds(60)));
    stop_keeper();
    ASSERT_TRUE((*seat_)->commit(tenancy, Offset(6)));
    ASSERT_FALSE((*seat_)->persist(milliseconds(1)));
    wait([&] { return table().partitions[tenancy.entry].persisted.load() == 6; });
  }

  std::unique_ptr<Seat> seat_;
};

TEST_F(UnsyncedTest, TheCoordinatorWaitsAsleep) {
  ASSERT_NO_FATAL_FAILURE(commit_unsynced());
  std::this_thread::sleep_for(milliseconds(200));  // what nobody waits for would be due by then
  const std::int64_t begin_ns = monotonic_ns();
  const std::uint32_t before = control().header().keeper_wake.load();  // which each of its rounds bumps
  std::this_thread::sleep_for(milliseconds(500));
  const std::uint32_t rounds = control().header().keeper_wake.load() - before;
  EXPECT_LT(rounds, (monotonic_ns() - begin_ns) / 1'000'000);
  start_keeper();
  EXPECT_TRUE((*seat_)->persist(seconds(60)));
}

TEST_F(UnsyncedTest, WhoWaitsIsToldWhyItCannotCome) {
  ASSERT_NO_FATAL_FAILURE(commit_unsynced());
  shm::Partition& positions = ref(kOffsetsTopic).entry();
  positions.failure_code.store(static_cast<std::uint32_t>(Code::storage_failed));
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  positions.hot.fetch_add(shm::kHotVersion);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Status persisted = (*seat_)->persist(std::chrono::hours(1));
    ASSERT_FALSE(persisted);
    EXPECT_EQ(persisted.error().code, Code::storage_failed) << to_string(persisted.error());
  }
  start_keeper();  // which opens it anew
  wait([&] { return positions.state.load() == static_cast<std::uint32_t>(shm::PartitionState::active); });
  const Status persisted = (*seat_)->persist(seconds(60));
  EXPECT_TRUE(persisted) << to_string(persisted.error());
  EXPECT_EQ(table().groups[*find_group(control(), "billing")].trouble_code.load(), 0u);
}

TEST_F(UnsyncedTest, IsNotTakenForSyncedWhereItsTopicCannotBeOpenedAnew) {
  create("returns");
  commit("shipping", "returns", 3);
  ASSERT_NO_FATAL_FAILURE(commit_unsynced());
  const shm::Group& group = table().groups[*find_group(control(), "billing")];
  shm::Partition& positions = ref(kOffsetsTopic).entry();
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::deleted));  // so another process says
  EXPECT_FALSE(ask(shm::GroupRequest::remove, "shipping"));                         // for it takes an append
  auto other = join("selling", "orders");  // behind the round in which that was refused
  EXPECT_NE(group.commits_done.load(), group.commits_wanted.load());
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  start_keeper();
  EXPECT_TRUE((*seat_)->persist(seconds(60)));
}

// What an appender tells of where its record ends, it goes by a word of the ring.
TEST_F(CoordinatorTest, AnEndThatIsNoneIsNotWaitedForForEver) {
  ASSERT_TRUE(wait_until_ready(*attachment_));
  stop();
  start({.sync_patience_ms = 100});
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  Tenancy& tenancy = (*seat)->held().front();
  ASSERT_TRUE((*seat)->commit(tenancy, Offset(5)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  const log::Ring ring = ring_of(kOffsetsTopic);
  const std::uint64_t number = ring.line(0).number.load();
  ring.line(0).number.store(std::uint64_t{1} << 40);
  ASSERT_TRUE((*seat)->commit(tenancy, Offset(6)));
  EXPECT_FALSE((*seat)->persist(milliseconds(1)));
  const shm::Group& group = table().groups[*find_group(control(), "billing")];
  wait([&] {
    return table().partitions[tenancy.entry].persisted.load() == 6 || group.trouble_code.load() != 0;
  });
  ring.line(0).number.store(number);
  const Status persisted = (*seat)->persist(seconds(30));
  EXPECT_TRUE(persisted) << to_string(persisted.error());
  EXPECT_EQ(group.trouble_code.load(), 0u);
}

TEST_F(UnsyncedTest, IsWrittenAnewWhenItHasNotComeToTheDiskForLong) {
  ASSERT_TRUE(wait_until_ready(*attachment_));
  stop();
  start({.sync_patience_ms = 100});
  ASSERT_NO_FATAL_FAILURE(commit_unsynced());
  const log::Ring ring = ring_of(kOffsetsTopic);
  const Offset before = ring.claimed_end().offset;
  wait([&] { return ring.claimed_end().offset > before; });
  start_keeper();
  EXPECT_TRUE((*seat_)->persist(seconds(60)));
}

// --- What other processes may have written into the table ---------------------------------------------

TEST_F(CoordinatorTest, AnOwnerWhoIsNoMemberIsGrantedNothing) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  const std::uint32_t entry = *entry_of("billing", topic_id("orders"));
  const std::uint32_t group = *find_group(control(), "billing");
  const std::uint32_t mine = table().assignments[entry].load();
  for (const std::uint32_t owner : {seat->slot.index() + 2, shm::kMaxSlots + 1, 60'000u, 0xffffu}) {
    table().assignments[entry].store(shm::assignment_word(group, owner));
    (*seat)->release(&(*seat)->held().front());  // which makes the coordinator look
    wait([&] { return table().assignments[entry].load() == mine; });
    settle({seat.get()}, {1});
  }
}

TEST_F(CoordinatorTest, ACountOfEntriesThatCannotBeIsNotFollowed) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  stop_coordinator();
  table().entries_used.store(~0u);
  table().ready.store(0);  // as after a reboot
  start_coordinator();
  ASSERT_TRUE(wait_until_ready(*attachment_));
  EXPECT_EQ(committed("billing", "orders"), "5");
}

TEST_F(CoordinatorTest, NoExpressionKeepsTheCoordinatorBusyOrTooDeep) {
  const std::string name(60, 'a');
  create(name);
  auto seat = sit("billing");
  // Past Membership, which would refuse them first.
  control().member(seat->slot.index()).by_pattern.store(1);
  for (const char* const deep : {"(a?){20000}", "((a{200}){200}){200}", "(((a{30,}){30}){30})"}) {
    const Status joined = ask_coordinator(*attachment_, seat->slot, shm::GroupRequest::join, "billing", deep);
    ASSERT_FALSE(joined) << deep;
    EXPECT_EQ(joined.error().code, Code::invalid_argument);
    EXPECT_NE(joined.error().message.find("repeats too much"), std::string::npos) << joined.error().message;
  }
  // Every way to split the name would have to be tried.
  ASSERT_TRUE((*seat)->join({.topics = {}, .pattern = "(a|a)*b"}));
  ASSERT_TRUE(
      (*seat)->join({.topics = {}, .pattern = std::string(1000, '(') + "a" + std::string(1000, ')') + "*"}));
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->join({.topics = {}, .pattern = "a{40,80}"}));
  settle({seat.get()}, {1});
}

TEST_F(CoordinatorTest, WhoOnlyWritesThatHeIsAMemberIsAssignedNothing) {
  create("orders", 2);
  auto seat = join("billing", "orders");
  settle({seat.get()}, {2});
  auto other = sit("billing");
  const std::uint32_t index = *find_group(control(), "billing");
  const shm::Group& group = table().groups[index];
  shm::Member& said = control().member(other->slot.index());
  said.subscription.store("orders");
  said.status.store(static_cast<std::uint32_t>(shm::MemberStatus::joined));
  said.group.store(index + 1);
  const std::uint32_t before = group.generation.load();
  ASSERT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));  // which balances the group anew
  wait([&] { return group.generation.load() != before; });
  std::this_thread::sleep_for(milliseconds(100));  // many rounds
  wait([&] { return group.state.load() == static_cast<std::uint32_t>(shm::GroupState::stable); });
  EXPECT_EQ(group.generation.load(), before + 1);
  settle({seat.get()}, {2});
}

TEST_F(CoordinatorTest, APartitionThatIsSaidToBeOpenedHoldsUpNobody) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  ASSERT_TRUE((*seat)->persist(seconds(60)));
  stop_coordinator();
  shm::Partition& positions = ref(kOffsetsTopic).entry();
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  start_coordinator();
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(6)));
  EXPECT_FALSE((*seat)->persist(milliseconds(1)));
  auto first = join("shipping", "orders");
  auto second = join("selling", "orders");  // asked behind the round in which the first was answered
  positions.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  EXPECT_TRUE((*seat)->persist(seconds(60)));
}

TEST_F(CoordinatorTest, AnEndThatIsNeverReachedIsWaitedForAsleepAndNotBeyondTheCoordinatorsOwn) {
  create("orders");
  commit("billing", "orders", 5);
  stop_coordinator();
  ring_of(kOffsetsTopic).line(0).base_offset.fetch_add(1);
  table().ready.store(0);  // as after a reboot
  const LogCapture said;
  start_coordinator();
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_LT(cpu_of_coordinator(), milliseconds(250));
  EXPECT_EQ(table().ready.load(), 0u);
  stop_coordinator();
  EXPECT_THAT(said.text(), ::testing::Not(HasSubstr("does not go on")));  // which takes it its whole patience
}

TEST_F(CoordinatorTest, ARemovalThatWasCutShortLeavesAnEmptyGroup) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  stop_coordinator();
  // As when the coordinator died behind its first store.
  control().member(seat->slot.index()).group.store(0);
  const auto index = *find_group(control(), "billing");
  table().groups[index].empty_since_ns.store(0);
  const std::int64_t before_ns = wall_clock_ns();
  start_coordinator();
  wait([&] {
    return load_standing(table().partitions[*entry_of("billing", topic_id("orders"))]).owner() == 0;
  });
  EXPECT_EQ(table().groups[index].state.load(), static_cast<std::uint32_t>(shm::GroupState::empty));
  EXPECT_EQ(table().groups[index].members.load(), 0u);
  EXPECT_GE(table().groups[index].empty_since_ns.load(), before_ns);
  EXPECT_FALSE((*seat)->commit((*seat)->held().front(), Offset(6)));
}

}  // namespace
}  // namespace ringtail::groups
