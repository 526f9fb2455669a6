// What a rebalance listener may call and what it may not, and what becomes of the member when it throws.
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>

#include "unit/client/group_test_support.h"

namespace ringtail {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RebalanceListenerTest : public GroupTest {
 protected:
  using Callback = RebalanceListener::Callback;

  // A callback that throws when it is first called.
  static Callback throws(const std::string& what) {
    return [what, thrown = false](std::span<const TopicPartition>) mutable {
      if (!std::exchange(thrown, true)) throw std::runtime_error(what);
    };
  }
  static std::string thrown_by(const std::function<void()>& act) {
    try {
      act();
    } catch (const std::runtime_error& thrown) {
      return thrown.what();
    }
    return "nothing was thrown";
  }
  // Polls until one of the polls throws.
  static std::string thrown_by_poll(const std::vector<Consumer*>& members) {
    return thrown_by([&] { poll_until(members, [](const Got&) { return false; }); });
  }
  // The answers to all that is refused within a callback.
  static std::vector<Error> try_what_is_refused(Consumer& consumer) {
    std::vector<Error> answers;
    const auto note = [&answers](const auto& answer) {
      answers.push_back(answer ? Error{Code::system, 0, "it was not refused"} : answer.error());
    };
    note(consumer.unsubscribe());
    note(consumer.subscribe("others"));
    note(consumer.subscribe(std::span<const std::string>()));
    note(consumer.subscribe_pattern("others.*"));
    note(consumer.poll(milliseconds(0)));
    note(consumer.assign("orders"));
    return answers;
  }
  static void expect_refused(const std::vector<Error>& answers) {
    EXPECT_THAT(answers, SizeIs(6));
    EXPECT_THAT(answers, Each(Field("code", &Error::code, Code::invalid_argument)));
    for (const Error& answer : answers) {
      EXPECT_THAT(answer.message, HasSubstr("within a callback"));
      EXPECT_THAT(answer.message, HasSubstr("once the poll or unsubscribe"));
    }
  }
};

// --- Calls within a callback ---------------------------------------------------------------------

TEST_F(RebalanceListenerTest, WhatWouldChangeTheMembershipIsRefusedWithinEachCallbackAndHarmsNothing) {
  create("orders", small(), 2);
  std::map<std::string, std::vector<Error>> answers;
  std::optional<Consumer> first;
  const auto try_within = [&](const std::string& callback) -> Callback {
    return [&answers, &first, callback](std::span<const TopicPartition>) {
      answers[callback] = try_what_is_refused(*first);
    };
  };
  first =
      member("billing", "orders", {}, {.assigned = try_within("assigned"), .revoked = try_within("revoked")});
  wait_assigned({&*first}, {2});
  Consumer second = member("billing", "orders");
  wait_assigned({&*first, &second}, {1, 1});
  for (const char* callback : {"assigned", "revoked"}) {
    SCOPED_TRACE(callback);
    expect_refused(answers[callback]);
  }
  ASSERT_TRUE(second.unsubscribe());
  wait_assigned({&*first}, {2});
  answers.clear();
  ASSERT_TRUE(first->unsubscribe());
  expect_refused(answers["revoked"]);
  EXPECT_TRUE(first->assign("orders"));
}

TEST_F(RebalanceListenerTest, OneThatWasExpelledTriesInVainToLeaveWithinLostAndGoesOn) {
  create("orders", small(), 2);
  std::vector<Error> answers;
  std::optional<Consumer> first;
  first = member("billing", "orders", {.max_poll_interval = milliseconds(1500)},
                 {.lost = [&](std::span<const TopicPartition>) { answers = try_what_is_refused(*first); }});
  wait_assigned({&*first}, {2});
  Consumer second = member("billing", "orders");
  wait_assigned({&second}, {2});  // the first has not polled
  poll_until({&*first}, [&](const Got&) { return !answers.empty(); });
  expect_refused(answers);
  ASSERT_TRUE(second.unsubscribe());
  wait_assigned({&*first}, {2});
}

TEST_F(RebalanceListenerTest, TheListenerThatTriedToBeReplacedHearsOfTheNextChange) {
  create("orders", small(), 2);
  std::vector<std::string> heard;
  std::optional<Consumer> first;
  first = member("billing", "orders", {},
                 {.assigned =
                      [&](std::span<const TopicPartition>) {
                        heard.emplace_back("assigned");
                        EXPECT_FALSE(first->subscribe("others"));
                        heard.emplace_back("still here");
                      },
                  .revoked = [&](std::span<const TopicPartition>) { heard.emplace_back("revoked"); }});
  wait_assigned({&*first}, {2});
  EXPECT_THAT(heard, Contains("still here"));
  heard.clear();  // both partitions may have come at once, or one after the other
  Consumer second = member("billing", "orders");
  wait_assigned({&*first, &second}, {1, 1});
  EXPECT_THAT(heard, ElementsAre("revoked"));
}

TEST_F(RebalanceListenerTest, WithinACallbackItSeeksPausesCommitsAndAsks) {
  create("orders", small());
  for (const char* value : {"a", "b", "c"}) send("orders", value);
  const TopicPartition partition{"orders", PartitionId(0)};
  std::optional<Consumer> reader;
  int called = 0;
  reader = member("billing", "orders",
                  {.auto_offset_reset = ConsumerOptions::Reset::none, .enable_auto_commit = false},
                  {.assigned = [&](std::span<const TopicPartition> partitions) {
                    ++called;
                    EXPECT_EQ(partitions.size(), 1u);
                    EXPECT_THAT(reader->assignment(), ElementsAre(partition));
                    EXPECT_TRUE(reader->seek(partition, Offset(1)));
                    EXPECT_TRUE(reader->commit_sync());
                    EXPECT_EQ(reader->position(partition), Offset(1));
                    EXPECT_EQ(reader->end_offset(partition), Offset(3));
                    EXPECT_FALSE(reader->group_metadata().member_id.empty());
                    EXPECT_TRUE(reader->pause(partitions));
                  }});
  wait_assigned({&*reader}, {1});
  EXPECT_EQ(called, 1);
  EXPECT_THAT(reader->paused(), ElementsAre(partition));
  const auto committed = reader->committed(partition);
  ASSERT_TRUE(committed && *committed);
  EXPECT_EQ((*committed)->offset, Offset(1));
  ASSERT_TRUE(reader->resume(std::span(&partition, 1)));
  const Got got = poll_until({&*reader}, [](const Got& g) { return count(g) == 2; });
  EXPECT_THAT(got[0], ElementsAre("b", "c"));
}

// --- Callbacks that throw ------------------------------------------------------------------------

TEST_F(RebalanceListenerTest, AThrowInRevokedComesOutOfThePollAndThePartitionGoesOverAllTheSame) {
  create("orders", small(), 2);
  Consumer first = member("billing", "orders", {}, {.revoked = throws("in revoked")});
  wait_assigned({&first}, {2});
  Consumer second = member("billing", "orders");
  EXPECT_EQ(thrown_by_poll({&first, &second}), "in revoked");
  EXPECT_THAT(first.assignment(), SizeIs(1));
  wait_assigned({&first, &second}, {1, 1});
  send("orders", "a", 0);
  send("orders", "b", 1);
  const Got got = poll_until({&first, &second}, [](const Got& g) { return count(g) == 2; });
  EXPECT_THAT(got, ElementsAre(SizeIs(1), SizeIs(1)));
}

TEST_F(RebalanceListenerTest, AThrowInAssignedComesOutOfThePollAndThePartitionIsRead) {
  create("orders", small());
  Consumer reader = member("billing", "orders", {}, {.assigned = throws("in assigned")});
  send("orders", "a");
  EXPECT_EQ(thrown_by_poll({&reader}), "in assigned");
  EXPECT_THAT(reader.assignment(), SizeIs(1));
  const Got got = poll_until({&reader}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("a"));
}

TEST_F(RebalanceListenerTest, AThrowInLostComesOutOfThePollAndTheMemberJoinsAgain) {
  create("orders", small());
  Consumer stuck =
      member("billing", "orders", {.max_poll_interval = milliseconds(1500)}, {.lost = throws("in lost")});
  wait_assigned({&stuck}, {1});
  Consumer other = member("billing", "orders");
  wait_assigned({&other}, {1});
  EXPECT_EQ(thrown_by_poll({&stuck}), "in lost");
  EXPECT_THAT(stuck.assignment(), IsEmpty());
  ASSERT_TRUE(other.unsubscribe());
  wait_assigned({&stuck}, {1});
}

TEST_F(RebalanceListenerTest, AThrowInRevokedComesOutOfUnsubscribeAndTheMemberHasLeft) {
  create("orders", small());
  Consumer first = member("billing", "orders", {}, {.revoked = throws("in revoked")});
  wait_assigned({&first}, {1});
  EXPECT_EQ(thrown_by([&] { EXPECT_TRUE(first.unsubscribe()); }), "in revoked");
  EXPECT_THAT(first.assignment(), IsEmpty());
  Consumer second = member("billing", "orders");
  wait_assigned({&second}, {1});
  EXPECT_TRUE(first.assign("orders"));
}

TEST_F(RebalanceListenerTest, AThrowIsToldOnce) {
  create("orders", small());
  Consumer reader = member("billing", "orders", {}, {.assigned = throws("in assigned")});
  EXPECT_EQ(thrown_by_poll({&reader}), "in assigned");
  EXPECT_EQ(thrown_by([&] { EXPECT_TRUE(reader.poll(milliseconds(10))); }), "nothing was thrown");
  EXPECT_EQ(thrown_by([&] { EXPECT_TRUE(reader.unsubscribe()); }), "nothing was thrown");
}

}  // namespace
}  // namespace ringtail
