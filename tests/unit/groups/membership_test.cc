// A member: what it may be called, what becomes of an assignor that fails, and what is left to it once it has
// lost a partition.
#include "groups/membership.h"

#include <fstream>
#include <stdexcept>

#include "base/files.h"
#include "unit/groups/groups_test_support.h"
#include "unit/groups/opens.h"

namespace ringtail::groups {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class MembershipTest : public GroupsTest {
 protected:
  MemberOptions in(const std::string& group) {
    return {.group_id = group, .client_id = {}, .assignor = sticky_assignor()};
  }
  Result<std::unique_ptr<Seat>> sit_with(MemberOptions options) {
    auto seat = std::make_unique<Seat>();
    seat->slot = shm::OwnedSlot::acquire(control(), attachment_->locks(), shm::SlotRole::consumer).value();
    auto opened = Membership::open(*attachment_, seat->slot, std::move(options));
    if (!opened) return std::unexpected(opened.error());
    seat->membership = std::move(*opened);
    return seat;
  }
  std::string refusal(MemberOptions options) {
    auto seat = sit_with(std::move(options));
    EXPECT_FALSE(seat);
    if (seat) return {};
    EXPECT_EQ(seat.error().code, Code::invalid_argument);
    return seat.error().message;
  }
  // Whoever `assign` is, as an assignor that only members know.
  std::unique_ptr<Seat> join_with(AssignFunction assign) {
    MemberOptions options = in("billing");
    options.assignor = {"ours", std::move(assign)};
    auto seat = sit_with(std::move(options)).value();
    const Status joined = (*seat)->join({.topics = {"orders"}, .pattern = {}});
    EXPECT_TRUE(joined) << to_string(joined.error());
    return seat;
  }
  // Looks until the group has come to rest.
  void look_until_stable(Seat& seat) {
    wait([&] {
      EXPECT_TRUE(seat->look());
      const auto group = find_group(control(), "billing");
      return group &&
             table().groups[*group].state.load() == static_cast<std::uint32_t>(shm::GroupState::stable);
    });
  }
  shm::GroupPartition& entry(std::uint32_t index) { return table().partitions[index]; }
};

// --- Names ---------------------------------------------------------------------------------------

TEST_F(MembershipTest, AGroupIdHas1To255BytesWithoutControlCharacters) {
  EXPECT_THAT(refusal(in("")), HasSubstr("cannot be empty"));
  EXPECT_THAT(refusal(in(std::string(256, 'g'))), HasSubstr("the group id has 256 bytes, at most 255"));
  for (const char* id : {"a\nb", "\t", "a\x1f", "\x01"})
    EXPECT_THAT(refusal(in(id)), HasSubstr("the group id contains a control character"));
  EXPECT_THAT(refusal(in(std::string("a\0b", 3))), HasSubstr("control character"));
  EXPECT_TRUE(sit_with(in(std::string(255, 'g'))));
}

TEST_F(MembershipTest, AClientIdHasAtMost127Bytes) {
  MemberOptions options = in("billing");
  options.client_id = std::string(128, 'c');
  EXPECT_THAT(refusal(options), HasSubstr("the client id has 128 bytes, at most 127"));
  options.client_id = "a\rb";
  EXPECT_THAT(refusal(options), HasSubstr("the client id contains a control character"));
  options.client_id = std::string(127, 'c');
  auto seat = sit_with(options);
  ASSERT_TRUE(seat);
  EXPECT_TRUE((**seat)->member_id().starts_with(options.client_id + "-"));
}

TEST_F(MembershipTest, TheLongestGroupIdIsAGroupOfItsOwn) {
  create("orders");
  const std::string most(255, 'g');
  auto seat = join(most, "orders");
  auto other = join(most.substr(1), "orders");
  settle({seat.get(), other.get()}, {1, 1});
}

TEST_F(MembershipTest, AnAssignorHasANameAndAFunction) {
  MemberOptions options = in("billing");
  options.assignor.name = "";
  EXPECT_THAT(refusal(options), HasSubstr("name of 1 to 63 bytes"));
  options.assignor.name = std::string(64, 'a');
  EXPECT_THAT(refusal(options), HasSubstr("name of 1 to 63 bytes"));
  options.assignor = {"ours", nullptr};
  EXPECT_THAT(refusal(options), HasSubstr("and a function"));
}

TEST_F(MembershipTest, AnIntervalBetweenPollsIsNotZero) {
  MemberOptions options = in("billing");
  options.max_poll_interval = milliseconds(0);
  EXPECT_THAT(refusal(options), HasSubstr("max_poll_interval is 0 ms"));
}

TEST_F(MembershipTest, ASubscriptionThatDoesNotFitIsRefusedWithTheRemedy) {
  create("orders");
  auto seat = sit("billing");
  Subscription many;
  for (int i = 0; i < 300; ++i) many.topics.push_back("topic-" + std::to_string(i));
  const Status joined = (*seat)->join(many);
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::limit_exceeded);
  EXPECT_THAT(joined.error().message, HasSubstr("at most 2047 fit; subscribe to a regular expression"));
  const Status expression = (*seat)->join({.topics = {}, .pattern = std::string(2048, 'a')});
  ASSERT_FALSE(expression);
  EXPECT_EQ(expression.error().code, Code::limit_exceeded);
  EXPECT_FALSE((*seat)->is_joined());
  EXPECT_FALSE(find_group(control(), "billing"));
  EXPECT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));
}

TEST_F(MembershipTest, AMalformedExpressionIsRefusedByTheCoordinator) {
  auto seat = sit("billing");
  // Past Membership, which would refuse it first.
  control().member(seat->slot.index()).by_pattern.store(1);
  control().member(seat->slot.index()).assignor.store("sticky");
  const Status joined =
      ask_coordinator(*attachment_, seat->slot, shm::GroupRequest::join, "billing", "orders(");
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::invalid_argument);
  EXPECT_THAT(joined.error().message, HasSubstr("'orders(' is no extended regular expression"));
  EXPECT_FALSE(find_group(control(), "billing"));
}

TEST_F(MembershipTest, AChangeOfSubscriptionThatIsRefusedLeavesTheMemberWhatItHas) {
  create("orders", 2);
  auto seat = join("billing", "orders");
  settle({seat.get()}, {2});
  for (const char* const bad : {"orders(", "(o?){20000}"}) {
    const Status joined = (*seat)->join({.topics = {}, .pattern = bad});
    ASSERT_FALSE(joined) << bad;
    EXPECT_EQ(joined.error().code, Code::invalid_argument);
  }
  EXPECT_TRUE((*seat)->is_joined());
  // Another one comes: the group is balanced anew, by what stands in the entries.
  auto other = join("billing", "orders");
  settle({seat.get(), other.get()}, {1, 1});
}

// --- Assignors -----------------------------------------------------------------------------------

TEST_F(MembershipTest, AnAssignorOfOnesOwnIsApplied) {
  create("orders", 3);
  auto seat = join_with([](auto members, auto) {
    Assignment assignment(members.size());
    assignment[0] = {{"orders", PartitionId(0)}, {"orders", PartitionId(2)}};
    return assignment;
  });
  settle({seat.get()}, {2});
  EXPECT_TRUE((*seat)->find({"orders", PartitionId(2)}));
  EXPECT_FALSE((*seat)->find({"orders", PartitionId(1)}));
}

TEST_F(MembershipTest, AnAssignorThatThrowsAssignsNothingUntilItIsWell) {
  create("orders", 2);
  int calls = 0;
  auto seat = join_with([&calls](auto members, auto topics) -> Assignment {
    ++calls;
    if (calls == 1) throw std::runtime_error("no idea");
    if (calls == 2) throw 7;
    return sticky_assignor().assign(members, topics);
  });
  for (int failures = 1; failures <= 2; ++failures) {
    look_until_stable(*seat);
    EXPECT_EQ(calls, failures);
    EXPECT_THAT((*seat)->held(), IsEmpty());
    ASSERT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));  // asked again
    wait([&] {
      EXPECT_TRUE((*seat)->look());
      return calls > failures;
    });
  }
  settle({seat.get()}, {2});
}

TEST_F(MembershipTest, AnAssignmentThatMakesNoSenseIsNotInstalled) {
  create("orders", 2);
  const TopicPartition first{"orders", PartitionId(0)};
  const std::vector<Assignment> wrong{
      {{first, first}},
      {{first, {"orders", PartitionId(2)}}},
      {{first, {"returns", PartitionId(0)}}},
      {{first}, {}},
      {},
  };
  for (const Assignment& assignment : wrong) {
    int calls = 0;
    auto seat = join_with([&](auto, auto) {
      ++calls;
      return assignment;
    });
    look_until_stable(*seat);
    EXPECT_EQ(calls, 1);
    EXPECT_THAT((*seat)->held(), IsEmpty());
    ASSERT_TRUE((*seat)->leave());
  }
}

// --- Tenures -------------------------------------------------------------------------------------

TEST_F(MembershipTest, WhatWasTakenAwayIsLostAtTheNextLookAndItsCommitsAreRefused) {
  create("orders", 2);
  auto seat = join("billing", "orders");
  settle({seat.get()}, {2});
  Tenancy& kept = (*seat)->held().front();
  Tenancy& taken = (*seat)->held().back();
  ASSERT_TRUE((*seat)->commit(taken, Offset(5), "mine"));
  stop_coordinator();  // which would give it back
  change_owner(entry(taken.entry), shm::kMaxSlots);
  const Standing after = load_standing(entry(taken.entry));
  EXPECT_FALSE((*seat)->commit(taken, Offset(9), "late"));
  EXPECT_TRUE((*seat)->commit(kept, Offset(9)));
  EXPECT_EQ(load_standing(entry(taken.entry)), after);
  EXPECT_EQ(load_metadata(entry(taken.entry), after), "mine");
  const TopicPartition name = taken.partition;
  auto changes = (*seat)->look();
  ASSERT_TRUE(changes);
  EXPECT_THAT(changes->lost, ::testing::ElementsAre(name));
  EXPECT_THAT(changes->to_give_up, IsEmpty());
  EXPECT_THAT((*seat)->held(), SizeIs(1));
  EXPECT_FALSE((*seat)->find(name));
}

TEST_F(MembershipTest, ReleasingWhatWasTakenAwayLeavesItsNextOwnerAlone) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  Tenancy& taken = (*seat)->held().front();
  const std::uint32_t index = taken.entry;
  stop_coordinator();
  change_owner(entry(index), shm::kMaxSlots);
  const Standing after = load_standing(entry(index));
  (*seat)->release(&taken);
  EXPECT_EQ(load_standing(entry(index)), after);
  EXPECT_THAT((*seat)->held(), IsEmpty());
}

TEST_F(MembershipTest, AnExpelledMemberLosesEverythingAndMayJoinAgain) {
  create("orders", 2);
  MemberOptions options = in("billing");
  options.max_poll_interval = milliseconds(20);
  auto seat = sit_with(options).value();
  ASSERT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));
  settle({seat.get()}, {2});
  Tenancy late = (*seat)->held().front();
  Changes changes;
  wait([&] {
    changes = (*seat)->look().value();
    return changes.expelled;
  });
  EXPECT_THAT(changes.lost, SizeIs(2));
  EXPECT_FALSE((*seat)->is_joined());
  wait([&] { return !(*seat)->commit(late, Offset(1)); });
  auto persisted = (*seat)->persist(seconds(1));
  ASSERT_FALSE(persisted);
  EXPECT_EQ(persisted.error().code, Code::stale_generation);
  ASSERT_TRUE((*seat)->join({.topics = {"orders"}, .pattern = {}}));
  settle({seat.get()}, {2});
}

// A topic was deleted and made anew; the member looks between the coordinator's stores, and has not lost the partition
// of the first one yet when it is granted that of the second.
TEST_F(MembershipTest, OfTwoTopicsOfANameOneIsHeldAtATime) {
  create("orders");
  const TopicPartition name{"orders", PartitionId(0)};
  for (const bool gives_back : {false, true}) {
    auto seat = join("billing", "orders");
    settle({seat.get()}, {1});
    const std::uint32_t before = (*seat)->held().front().entry;
    stop_coordinator();
    ASSERT_TRUE(attachment_->catalog().delete_topic("orders"));
    ASSERT_TRUE(attachment_->apply_catalog());
    create("orders");
    const std::uint32_t group = *find_group(control(), "billing");
    const std::uint32_t me = seat->slot.index() + 1;
    const std::uint32_t next = table().entries_used.load();
    entry(next).topic_id.store(topic_id("orders"));
    entry(next).partition.store(0);
    entry(next).committed.store(shm::kNoOffset);
    change_owner(entry(next), me);
    table().assignments[next].store(shm::assignment_word(group, me));
    table().entries_used.store(next + 1);
    auto changes = (*seat)->look();
    ASSERT_TRUE(changes) << to_string(changes.error());
    EXPECT_THAT(changes->granted, IsEmpty());
    EXPECT_THAT((*seat)->held(), SizeIs(1));

    table().assignments[before].store(shm::assignment_word(group, 0));
    if (gives_back) {
      changes = (*seat)->look();
      ASSERT_TRUE(changes && changes->to_give_up.size() == 1);
      EXPECT_FALSE((*seat)->has_news());
      (*seat)->release(changes->to_give_up.front());
      EXPECT_TRUE((*seat)->has_news());
    } else {
      change_owner(entry(before), 0);
    }
    changes = (*seat)->look();
    ASSERT_TRUE(changes) << to_string(changes.error());
    if (!gives_back) {
      EXPECT_THAT(changes->lost, ::testing::ElementsAre(name));
    }
    EXPECT_THAT(changes->granted, SizeIs(1));
    ASSERT_TRUE((*seat)->find(name));
    EXPECT_EQ((*seat)->find(name)->entry, next);
    EXPECT_FALSE((*seat)->has_news());
    seat.reset();
    start_coordinator();
    wait([&] { return !find_group(control(), "billing"); });
  }
}

TEST_F(MembershipTest, WhatIsAbandonedStaysWithItsOwner) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  const std::uint32_t index = (*seat)->held().front().entry;
  const Standing before = load_standing(entry(index));
  (*seat)->abandon();
  seat->membership.reset();
  EXPECT_EQ(load_standing(entry(index)), before);
}

TEST_F(MembershipTest, WhoGoesWithoutAWordGivesEverythingBack) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  const std::uint32_t index = (*seat)->held().front().entry;
  stop_coordinator();
  seat->membership.reset();
  EXPECT_EQ(load_standing(entry(index)).owner(), 0u);
}

// --- What others may have written into the table -------------------------------------------------

TEST_F(MembershipTest, TopicsThatThereAreNotAreLookedForOnceALook) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  stop_coordinator();
  constexpr std::uint32_t kUnknown = 200;
  const std::uint32_t used = table().entries_used.load();
  const std::uint32_t me = seat->slot.index() + 1;
  for (std::uint32_t i = used; i < used + kUnknown; ++i) {
    entry(i).topic_id.store(i + 1);
    entry(i).partition.store(0);
    change_owner(entry(i), me);
    table().assignments[i].store(shm::assignment_word(*find_group(control(), "billing"), me));
  }
  table().entries_used.store(used + kUnknown);
  Opens opens(dir_ / "log" / "topics" / "orders");
  for (int look = 0; look < 2; ++look) {
    const auto changes = (*seat)->look();
    ASSERT_TRUE(changes) << to_string(changes.error());
    EXPECT_THAT(changes->granted, IsEmpty());
    const int opened = opens.count();
    EXPECT_GT(opened, 0);
    EXPECT_LT(opened, 10);
  }
}

// --- Nobody there --------------------------------------------------------------------------------

TEST_F(MembershipTest, WithoutAKeeperCommitsCountAndOnlyWaitingForTheDiskFails) {
  create("orders");
  auto seat = join("billing", "orders");
  settle({seat.get()}, {1});
  stop();
  EXPECT_TRUE((*seat)->commit((*seat)->held().front(), Offset(5)));
  const Status persisted = (*seat)->persist(milliseconds(1));
  ASSERT_FALSE(persisted);
  EXPECT_EQ(persisted.error().code, Code::no_keeper);
  EXPECT_EQ(committed("billing", "orders"), "5");
  start();
  EXPECT_TRUE((*seat)->persist(seconds(60)));
}

TEST_F(MembershipTest, ARequestWaitsForTheNextCoordinator) {
  create("orders");
  stop();
  auto seat = sit("billing");
  std::atomic<bool> answered{false};
  Status joined;
  std::thread asker([&] {
    joined = (*seat)->join({.topics = {"orders"}, .pattern = {}});
    answered.store(true);
  });
  const shm::Member& member = control().member(seat->slot.index());
  wait([&] { return member.request.load() != member.answered.load(); });
  EXPECT_FALSE(answered.load());
  start();
  asker.join();
  EXPECT_TRUE(joined) << to_string(joined.error());
  settle({seat.get()}, {1});
}

TEST_F(MembershipTest, WhyThereIsNoKeeperIsToldAtOnce) {
  create("orders");
  stop();
  auto seat = sit("billing");
  attachment_->note_keeper_failure({Code::corrupt, 0, "a segment is damaged"});
  for (const Status& refused :
       {(*seat)->join({.topics = {"orders"}, .pattern = {}}), ask(shm::GroupRequest::remove, "billing")}) {
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::corrupt);
    EXPECT_EQ(refused.error().message, "a segment is damaged");
  }
  EXPECT_FALSE((*seat)->is_joined());
}

TEST_F(MembershipTest, WhatNobodyIsAMemberOfCannotBeLeftOrMadePersistent) {
  create("orders");
  auto seat = sit("billing");
  EXPECT_TRUE((*seat)->leave());
  EXPECT_EQ((*seat)->persist(seconds(60)).error().code, Code::stale_generation);
  auto changes = (*seat)->look();
  ASSERT_TRUE(changes);
  EXPECT_THAT(changes->granted, IsEmpty());
  EXPECT_EQ((*seat)->generation(), 0u);
}

// --- A catalog that cannot be read for a moment --------------------------------------------------

class UnreadableCatalogTest : public MembershipTest {
 protected:
  // The file of a topic that has nothing to do with the group; the catalog is read as a whole.
  void damage() {
    create("other");
    std::getline(std::ifstream(path_), healthy_, '\0');
    ASSERT_TRUE(write_file_atomically(path_, "nonsense"));
  }
  void mend() { ASSERT_TRUE(write_file_atomically(path_, healthy_)); }

 private:
  const std::filesystem::path path_ = dir_ / "log" / "topics" / "other" / "topic.toml";
  std::string healthy_;
};

TEST_F(UnreadableCatalogTest, WhatWasGrantedMeanwhileIsToldLater) {
  create("orders");
  auto seat = join("billing", "orders");
  wait([&] {
    const auto at = entry_of("billing", topic_id("orders"));
    return at && load_standing(entry(*at)).owner() == seat->slot.index() + 1;
  });
  stop_coordinator();  // which would draw its attention again
  damage();
  const auto looked = (*seat)->look();
  ASSERT_FALSE(looked);
  EXPECT_EQ(looked.error().code, Code::corrupt);
  EXPECT_TRUE((*seat)->has_news());
  mend();
  const auto changes = (*seat)->look();
  ASSERT_TRUE(changes);
  EXPECT_THAT(changes->granted, SizeIs(1));
  EXPECT_FALSE((*seat)->has_news());
}

TEST_F(UnreadableCatalogTest, WhatWasLostIsToldThoughNoAssignmentCanBeMade) {
  create("orders", 2);
  int calls = 0;
  auto seat = join_with([&calls](auto members, auto) {
    ++calls;
    Assignment assignment(members.size());
    assignment[0] = {{"orders", PartitionId(0)}, {"orders", PartitionId(1)}};
    return assignment;
  });
  settle({seat.get()}, {2});
  stop_coordinator();
  const int calls_before = calls;
  damage();
  change_owner(entry((*seat)->held().back().entry), shm::kMaxSlots);
  shm::Member& member = control().member(seat->slot.index());
  member.assign_due.fetch_add(1);  // as the coordinator does when it asks for an assignment
  const auto changes = (*seat)->look();
  ASSERT_TRUE(changes);
  EXPECT_THAT(changes->lost, SizeIs(1));
  EXPECT_TRUE((*seat)->has_news());
  EXPECT_FALSE((*seat)->look());
  mend();
  EXPECT_EQ(calls, calls_before);
  ASSERT_TRUE((*seat)->look());
  EXPECT_EQ(calls, calls_before + 1);
  EXPECT_FALSE((*seat)->has_news());
}

}  // namespace
}  // namespace ringtail::groups
