// Range and round-robin, what all assignors have in common, and the check of a user's assignor.
#include "unit/groups/assignor_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(RangeAssignor, DividesEachTopicIntoRangesTheFirstOfWhichAreLarger) {
  const Group group{{member("a", {"t", "u"}), member("b", {"t", "u"})}, {{"t", 3}, {"u", 3}}};
  EXPECT_THAT(assign(range_assignor(), group),
              ElementsAre(ElementsAre(tp("t", 0), tp("t", 1), tp("u", 0), tp("u", 1)),
                          ElementsAre(tp("t", 2), tp("u", 2))));
}

TEST(RangeAssignor, RanksMembersByIdAndAnswersInTheirOrder) {
  const Group group{{member("z", {"t"}), member("a", {"t"}), member("k", {"t"})}, {{"t", 4}}};
  EXPECT_THAT(
      assign(range_assignor(), group),
      ElementsAre(ElementsAre(tp("t", 3)), ElementsAre(tp("t", 0), tp("t", 1)), ElementsAre(tp("t", 2))));
}

TEST(RangeAssignor, GivesTheSameNumbersOfTopicsThatAreAlike) {
  const Group group{{member("a", {"t", "u"}), member("b", {"t", "u"}), member("c", {"t", "u"})},
                    {{"t", 7}, {"u", 7}}};
  for (const auto& partitions : assign(range_assignor(), group)) {
    std::vector<std::uint32_t> of_t;
    std::vector<std::uint32_t> of_u;
    for (const TopicPartition& p : partitions) (p.topic == "t" ? of_t : of_u).push_back(p.partition.value());
    EXPECT_EQ(of_t, of_u);
  }
}

TEST(RangeAssignor, LeavesMembersBeyondThePartitionsWithNothing) {
  const Group group{{member("a", {"t"}), member("b", {"t"}), member("c", {"t"})}, {{"t", 2}}};
  EXPECT_THAT(assign(range_assignor(), group),
              ElementsAre(ElementsAre(tp("t", 0)), ElementsAre(tp("t", 1)), IsEmpty()));
}

TEST(RoundRobinAssignor, DealsThePartitionsOfAllTopicsInTurn) {
  const Group group{{member("a", {"t", "u"}), member("b", {"t", "u"})}, {{"t", 3}, {"u", 3}}};
  EXPECT_THAT(assign(round_robin_assignor(), group),
              ElementsAre(ElementsAre(tp("t", 0), tp("t", 2), tp("u", 1)),
                          ElementsAre(tp("t", 1), tp("u", 0), tp("u", 2))));
}

TEST(RoundRobinAssignor, PassesOverMembersThatDoNotSubscribe) {
  const Group group{{member("a", {"t"}), member("b", {"t", "u"}), member("c", {"t", "u", "v"})},
                    {{"t", 1}, {"u", 2}, {"v", 3}}};
  EXPECT_THAT(assign(round_robin_assignor(), group),
              ElementsAre(ElementsAre(tp("t", 0)), ElementsAre(tp("u", 0)),
                          ElementsAre(tp("u", 1), tp("v", 0), tp("v", 1), tp("v", 2))));
}

TEST(Assignors, AreFoundByTheirNames) {
  for (const char* name : {"range", "roundrobin", "cooperative-sticky"}) {
    ASSERT_TRUE(find_assignor(name)) << name;
    EXPECT_EQ(find_assignor(name)->name, name);
  }
  EXPECT_FALSE(find_assignor("sticky"));
  EXPECT_FALSE(find_assignor(""));
}

class EveryAssignor : public ::testing::TestWithParam<const char*> {
 protected:
  Assignor assignor() const { return find_assignor(GetParam()).value(); }
};

INSTANTIATE_TEST_SUITE_P(All, EveryAssignor, ::testing::Values("range", "roundrobin", "cooperative-sticky"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(EveryAssignor, MakesDoWithNothing) {
  EXPECT_THAT(assign(assignor(), {}), IsEmpty());
  EXPECT_THAT(assign(assignor(), {{}, {{"t", 2}}}), IsEmpty());
  EXPECT_THAT(assign(assignor(), {{member("a", {"t"})}, {}}), ElementsAre(IsEmpty()));
  EXPECT_THAT(assign(assignor(), {{member("a", {"t"})}, {{"t", 0}}}), ElementsAre(IsEmpty()));
  EXPECT_THAT(assign(assignor(), {{member("a", {})}, {{"t", 3}}}), ElementsAre(IsEmpty()));
  EXPECT_THAT(assign(assignor(), {{member("a", {"gone"}, {tp("gone", 0)})}, {{"t", 3}}}),
              ElementsAre(IsEmpty()));
}

TEST_P(EveryAssignor, AssignsAllThatSomebodyMayHaveAndAlikeInWhateverOrderMembersCome) {
  Random random = make_random();
  for (int round = 0; round < 300; ++round) {
    Group group = random_group(random, {.equal = round % 2 == 0});
    give_at_random(random, group);
    const Assignment assignment = assign(assignor(), group);
    ASSERT_EQ(assigned(assignment), assignable(group));
    for (const auto& partitions : assignment) ASSERT_TRUE(std::ranges::is_sorted(partitions));

    std::vector<std::size_t> order(group.members.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::shuffle(order, random);
    Group shuffled{{}, group.topics};
    for (const std::size_t i : order) shuffled.members.push_back(group.members[i]);
    const Assignment again = assign(assignor(), shuffled);
    for (std::size_t i = 0; i < order.size(); ++i) ASSERT_EQ(again[i], assignment[order[i]]);
  }
}

class CheckAssignment : public ::testing::Test {
 protected:
  std::string complaint(const Assignment& assignment) const {
    const Status status = check_assignment(members_, topics_, assignment);
    if (status) return {};
    EXPECT_EQ(status.error().code, Code::invalid_argument);
    return status.error().message;
  }

  std::vector<GroupMember> members_ = {member("a", {"t"}), member("b", {"t", "u"})};
  std::vector<GroupTopic> topics_ = {{"t", 2}, {"u", 1}};
};

TEST_F(CheckAssignment, PermitsPartitionsToBeLeftOut) {
  EXPECT_EQ(complaint({{}, {}}), "");
  EXPECT_EQ(complaint({{tp("t", 1)}, {tp("u", 0)}}), "");
}

TEST_F(CheckAssignment, NamesWhatIsWrong) {
  EXPECT_THAT(complaint({{}}), HasSubstr("1 entries for 2 members"));
  EXPECT_THAT(complaint({{tp("x", 0)}, {}}), HasSubstr("topic 'x', which is no topic"));
  EXPECT_THAT(complaint({{}, {tp("t", 2)}}), HasSubstr("'b' partition 2 of topic 't', which has 2"));
  EXPECT_THAT(complaint({{tp("u", 0)}, {}}), HasSubstr("'a' partition 0 of topic 'u', to which it does not"));
  EXPECT_THAT(complaint({{tp("t", 0)}, {tp("t", 0)}}), HasSubstr("given already"));
  EXPECT_THAT(complaint({{tp("t", 0), tp("t", 0)}, {}}), HasSubstr("given already"));
}

}  // namespace
}  // namespace ringtail
