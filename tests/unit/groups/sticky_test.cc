// The sticky assignor: as even as can be, with as few moves as that takes.
#include "unit/groups/assignor_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

// The least sum of squares, and the fewest moves with it, of all assignments there are.
class BruteForce {
 public:
  explicit BruteForce(const Group& group) : group_(group), assignment_(group.members.size()) {
    for (const GroupTopic& topic : group.topics)
      for (std::uint32_t p = 0; p < topic.partitions; ++p) partitions_.push_back(tp(topic.name, p));
    try_all(0);
  }
  std::pair<std::size_t, std::size_t> best() const { return best_; }

 private:
  void try_all(std::size_t from) {
    if (from == partitions_.size()) {
      best_ = std::min(best_, {squares(loads(assignment_)), moves(group_, assignment_)});
      return;
    }
    bool anybody = false;
    for (std::size_t m = 0; m < assignment_.size(); ++m) {
      if (!may_have(group_.members[m], partitions_[from])) continue;
      anybody = true;
      assignment_[m].push_back(partitions_[from]);
      try_all(from + 1);
      assignment_[m].pop_back();
    }
    if (!anybody) try_all(from + 1);
  }

  const Group& group_;
  std::vector<TopicPartition> partitions_;
  Assignment assignment_;
  std::pair<std::size_t, std::size_t> best_{~std::size_t{0}, ~std::size_t{0}};
};

Assignment assign_sticky(const Group& group) { return assign(sticky_assignor(), group); }

TEST(StickyAssignor, AMemberThatJoinsGetsItsShareAndNothingElseMoves) {
  Group group{{member("a", {"t"}, {tp("t", 0), tp("t", 1), tp("t", 2)}),
               member("b", {"t"}, {tp("t", 3), tp("t", 4), tp("t", 5)}), member("c", {"t"})},
              {{"t", 6}}};
  const Assignment assignment = assign_sticky(group);
  EXPECT_THAT(loads(assignment), ElementsAre(2, 2, 2));
  EXPECT_EQ(moves(group, assignment), 2u);
}

TEST(StickyAssignor, WhatALeaverHadIsDividedAndNothingElseMoves) {
  Group group{{member("a", {"t"}, {tp("t", 0), tp("t", 1)}), member("c", {"t"}, {tp("t", 4), tp("t", 5)})},
              {{"t", 6}}};
  const Assignment assignment = assign_sticky(group);
  EXPECT_THAT(loads(assignment), ElementsAre(3, 3));
  EXPECT_EQ(moves(group, assignment), 0u);
}

TEST(StickyAssignor, AnEvenAssignmentStaysAsItIs) {
  Group group{{member("a", {"t"}, {tp("t", 1), tp("t", 4)}), member("b", {"t"}, {tp("t", 0), tp("t", 2)}),
               member("c", {"t"}, {tp("t", 3)})},
              {{"t", 5}}};
  const Assignment assignment = assign_sticky(group);
  for (std::size_t m = 0; m < 3; ++m) EXPECT_EQ(assignment[m], group.members[m].owned);
}

TEST(StickyAssignor, EvensOutThroughAMemberInBetween) {
  // Nobody may take from a what c could have: b hands on, and takes from a.
  const Group group{{member("a", {"t"}, {tp("t", 0), tp("t", 1), tp("t", 2)}),
                     member("b", {"t", "u"}, {tp("u", 0), tp("u", 1)}), member("c", {"u"})},
                    {{"t", 3}, {"u", 2}}};
  EXPECT_THAT(loads(assign_sticky(group)), UnorderedElementsAre(1, 2, 2));
}

TEST(StickyAssignor, AForgottenSubscriptionTakesItsPartitionsAway) {
  const Group group{{member("a", {"u"}, {tp("t", 0), tp("t", 1)}), member("b", {"t", "u"}, {tp("u", 0)})},
                    {{"t", 2}, {"u", 1}}};
  EXPECT_THAT(assign_sticky(group),
              ElementsAre(ElementsAre(tp("u", 0)), ElementsAre(tp("t", 0), tp("t", 1))));
}

TEST(StickyAssignor, OfTwoWhoClaimAPartitionOneKeepsIt) {
  const Group group{{member("a", {"t"}, {tp("t", 0), tp("t", 1)}), member("b", {"t"}, {tp("t", 1)})},
                    {{"t", 2}}};
  const Assignment assignment = assign_sticky(group);
  EXPECT_THAT(assignment, ElementsAre(ElementsAre(tp("t", 0)), ElementsAre(tp("t", 1))));
}

TEST(StickyAssignor, NoAssignmentIsMoreEvenNorAsEvenWithFewerMoves) {
  Random random = make_random();
  for (int round = 0; round < 400; ++round) {
    Group group = random_group(
        random, {.most_members = 4, .most_topics = 3, .most_partitions = 3, .equal = round % 4 == 0});
    give_at_random(random, group);
    const Assignment assignment = assign_sticky(group);
    ASSERT_EQ(std::pair(squares(loads(assignment)), moves(group, assignment)), BruteForce(group).best())
        << "round " << round;
  }
}

// What balance demands: nobody keeps more than the larger share, and only as many have it as there are.
std::size_t fewest_moves(const Group& group) {
  const std::size_t count = group.members.size();
  const std::size_t share = assignable(group) / count;
  std::size_t larger_shares = assignable(group) % count;
  std::size_t surplus = 0;
  for (const GroupMember& one : group.members) {
    if (one.owned.size() <= share) continue;
    const std::size_t kept = share + (larger_shares > 0 ? 1 : 0);
    if (larger_shares > 0) --larger_shares;
    surplus += one.owned.size() - kept;
  }
  return surplus;
}

TEST(StickyAssignor, WithEqualSubscriptionsMembersComeAndGoWithTheFewestMoves) {
  Random random = make_random();
  for (int round = 0; round < 20; ++round) {
    Group group = random_group(random, {.most_members = 12, .most_topics = 5, .most_partitions = 20});
    const std::vector<std::string> topics = group.members.front().topics;
    for (int change = 0; change < 20; ++change) {
      const Assignment assignment = assign_sticky(group);
      const auto [least, most] = std::ranges::minmax(loads(assignment));
      ASSERT_LE(most - least, 1u);
      ASSERT_EQ(moves(group, assignment), fewest_moves(group));
      adopt(group, assignment);
      if (up_to(random, 1) == 0 || group.members.size() == 1) {
        group.members.push_back(member("n" + std::to_string(round) + "-" + std::to_string(change), topics));
      } else {
        group.members.erase(group.members.begin() +
                            static_cast<std::ptrdiff_t>(up_to(random, group.members.size() - 1)));
      }
    }
  }
}

TEST(StickyAssignor, WithUnequalSubscriptionsNoSingleMoveWouldEvenOut) {
  Random random = make_random();
  for (int round = 0; round < 60; ++round) {
    Group group =
        random_group(random, {.most_members = 24, .most_topics = 12, .most_partitions = 24, .equal = false});
    give_at_random(random, group);
    const Assignment assignment = assign_sticky(group);
    for (std::size_t from = 0; from < assignment.size(); ++from) {
      for (const TopicPartition& partition : assignment[from]) {
        for (std::size_t to = 0; to < assignment.size(); ++to) {
          if (!may_have(group.members[to], partition)) continue;
          ASSERT_LT(assignment[from].size(), assignment[to].size() + 2);
        }
      }
    }
    // What is settled stays.
    adopt(group, assignment);
    ASSERT_TRUE(assign_sticky(group) == assignment);
  }
}

}  // namespace
}  // namespace ringtail
