// The checker of histories, on histories made by hand: what is in order, and each promise broken.
#include "cluster/checker.h"

#include <gmock/gmock.h>

namespace ringtail::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Kind = Event::Kind;

Event invoked(const std::string& value, std::int64_t time_ns) {
  return {.kind = Kind::invoked, .who = "p", .value = value, .time_ns = time_ns};
}
Event acked(const std::string& value, std::uint64_t offset, std::int64_t time_ns, std::uint32_t epoch = 1) {
  return {
      .kind = Kind::acked, .who = "p", .value = value, .offset = offset, .epoch = epoch, .time_ns = time_ns};
}
Event ended(Kind kind, const std::string& value, const std::string& why) {
  return {.kind = kind, .who = "p", .value = value, .time_ns = 50, .detail = why};
}
Event read(const std::string& who, std::uint64_t offset, const std::string& value) {
  return {.kind = Kind::read, .who = who, .value = value, .offset = offset, .time_ns = 60};
}

// Two records acknowledged, one read by two, one of unknown outcome, one refused; offset 1 was aborted.
const std::vector<Event> kGood = {invoked("a", 1),
                                  acked("a", 0, 2),
                                  invoked("b", 3),
                                  acked("b", 2, 4),
                                  invoked("c", 5),
                                  invoked("d", 6),
                                  ended(Kind::unknown, "c", "lost_leadership"),
                                  ended(Kind::failed, "d", "not_leader"),
                                  read("r1", 0, "a"),
                                  read("r1", 2, "b"),
                                  read("r2", 0, "a")};
const FinalLog kLog = {{0, "a"}, {2, "b"}};

std::vector<Event> good_and(const std::vector<Event>& more) {
  std::vector<Event> all = kGood;
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST(Checker, IsContentWithWhatOneLogExplains) {
  EXPECT_THAT(check(kGood, kLog), IsEmpty());
  EXPECT_THAT(check({}, {}), IsEmpty());
  EXPECT_THAT(report(kGood, kLog, {}), HasSubstr("2 acked"));
}

TEST(Checker, LetsARecordOfUnknownOutcomeBeThereOrNot) {
  EXPECT_THAT(check(kGood, {{0, "a"}, {2, "b"}, {3, "c"}}), IsEmpty());
}

Event numbered(const std::string& value, std::int64_t time_ns) {
  Event event = invoked(value, time_ns);
  event.detail = kNumbered;
  return event;
}

TEST(Checker, LetsANumberedValueBeSentAgain) {
  const std::vector<Event> history = {numbered("q-0", 1), ended(Kind::unknown, "q-0", "lost_leadership"),
                                      invoked("a", 2),    acked("a", 1, 3),
                                      numbered("q-0", 4), acked("q-0", 0, 5),
                                      numbered("q-1", 6), acked("q-1", 2, 7)};
  EXPECT_THAT(check(history, {{0, "q-0"}, {1, "a"}, {2, "q-1"}}), IsEmpty());
}

TEST(Checker, FindsANumberedValueThatStandsTwice) {
  EXPECT_THAT(check({numbered("q-0", 1), numbered("q-0", 2)}, {{0, "q-0"}, {1, "q-0"}}),
              ::testing::Contains(HasSubstr("stands in the log twice")));
}

TEST(Checker, FindsANumberThatIsLeftOut) {
  EXPECT_THAT(check({numbered("q-0", 1), numbered("q-1", 2), numbered("q-2", 3)}, {{0, "q-0"}, {1, "q-2"}}),
              ElementsAre(AllOf(HasSubstr("numbers are out of order"), HasSubstr("q-2 at 1"))));
}

TEST(Checker, FindsAValueSentTwiceThatHasNoNumber) {
  EXPECT_THAT(check({invoked("a", 1), invoked("a", 2)}, {{0, "a"}}),
              ElementsAre(HasSubstr("the history is no good")));
}

TEST(Checker, FindsAnAcknowledgedRecordThatIsLost) {
  EXPECT_THAT(check({invoked("a", 1), acked("a", 0, 2)}, {}),
              ElementsAre(AllOf(HasSubstr("is lost"), HasSubstr("acked p a 0"))));
}

TEST(Checker, FindsAnAcknowledgedRecordThatAnotherReplaced) {
  EXPECT_THAT(check({invoked("a", 1), acked("a", 0, 4), invoked("b", 3)}, {{0, "b"}}),
              ElementsAre(AllOf(HasSubstr("is lost"), HasSubstr("the log has b at 0"))));
}

TEST(Checker, FindsAnAcknowledgedRecordAtAnotherOffset) {
  EXPECT_THAT(check({invoked("a", 1), acked("a", 0, 2)}, {{1, "a"}}),
              ElementsAre(AllOf(HasSubstr("elsewhere"), HasSubstr("the log has a at 1"))));
}

TEST(Checker, FindsARecordTwice) {
  EXPECT_THAT(check(kGood, {{0, "a"}, {2, "b"}, {3, "a"}}),
              ElementsAre(AllOf(HasSubstr("twice"), HasSubstr("a at 0"), HasSubstr("a at 3"))));
}

TEST(Checker, FindsARecordThatWasRefusedAndOneThatNobodySent) {
  EXPECT_THAT(check(kGood, {{0, "a"}, {2, "b"}, {3, "d"}}), ElementsAre(HasSubstr("refused")));
  EXPECT_THAT(check(kGood, {{0, "a"}, {2, "b"}, {3, "z"}}), ElementsAre(HasSubstr("nobody sent")));
}

TEST(Checker, FindsWhatWasReadAndTakenBack) {
  EXPECT_THAT(check(good_and({read("r1", 3, "c")}), kLog),
              ElementsAre(AllOf(HasSubstr("taken back"), HasSubstr("nothing at 3"))));
}

TEST(Checker, FindsAReaderThatGoesBack) {
  EXPECT_THAT(check(good_and({read("r1", 0, "a")}), kLog), ElementsAre(HasSubstr("went back")));
}

TEST(Checker, FindsAReaderThatSkips) {
  EXPECT_THAT(check(good_and({read("r3", 2, "b")}), kLog),
              ElementsAre(AllOf(HasSubstr("skipped"), HasSubstr("a at 0"))));
  EXPECT_THAT(check(good_and({read("r1", 4, "c")}), {{0, "a"}, {2, "b"}, {3, "e"}, {4, "c"}}),
              ElementsAre(HasSubstr("nobody sent"), HasSubstr("skipped")));
}

TEST(Checker, FindsThatALaterRecordStandsBefore) {
  EXPECT_THAT(check({invoked("a", 1), acked("a", 5, 2), invoked("b", 3)}, {{4, "b"}, {5, "a"}}),
              ElementsAre(AllOf(HasSubstr("stands before"), HasSubstr("b at 4"))));
  // At once they may stand in any order.
  EXPECT_THAT(check({invoked("a", 1), invoked("b", 2), acked("a", 5, 3)}, {{4, "b"}, {5, "a"}}), IsEmpty());
}

// A leader that was superseded and had lost its fence: it goes on to acknowledge what its successor does not know.
TEST(Checker, CatchesALostFence) {
  const std::vector<Event> history = {invoked("a", 1),     acked("a", 0, 2, 1),   invoked("old", 3),
                                      invoked("new", 4),   acked("new", 1, 5, 2), acked("old", 1, 6, 1),
                                      read("r1", 0, "a"),  read("r1", 1, "new"),  read("r2", 0, "a"),
                                      read("r2", 1, "old")};
  const auto found = check(history, {{0, "a"}, {1, "new"}});
  EXPECT_THAT(found, ::testing::Contains(AllOf(HasSubstr("two contents"), HasSubstr("acked p new 1 2"),
                                               HasSubstr("acked p old 1 1"))));
  EXPECT_THAT(found, ::testing::Contains(HasSubstr("is lost")));
  EXPECT_THAT(found, ::testing::Contains(HasSubstr("taken back")));
}

// A watermark ahead of the replicas: acknowledged and read on the leader, and nowhere when that is gone.
TEST(Checker, CatchesAWatermarkThatRoseTooEarly) {
  const std::vector<Event> history = {invoked("a", 1),    acked("a", 0, 2),   invoked("b", 3),
                                      acked("b", 1, 4),   read("r1", 0, "a"), read("r1", 1, "b"),
                                      read("r2", 0, "a"), invoked("c", 9),    acked("c", 1, 10, 2)};
  const auto found = check(history, {{0, "a"}, {1, "c"}});
  EXPECT_THAT(found, ::testing::Contains(AllOf(HasSubstr("is lost"), HasSubstr("acked p b 1"))));
  EXPECT_THAT(found, ::testing::Contains(AllOf(HasSubstr("taken back"), HasSubstr("read r1 b 1"))));
}

TEST(Checker, ShowsTheFirstFewOfAKind) {
  std::vector<Event> history;
  for (std::uint64_t i = 0; i < 100; ++i) {
    history.push_back(invoked("v" + std::to_string(i), static_cast<std::int64_t>(i)));
    history.push_back(acked("v" + std::to_string(i), i, 1'000));
  }
  EXPECT_THAT(check(history, {}), SizeIs(3));
}

TEST(Checker, ReadsTheLinesThatItWrites) {
  for (const Event& event : kGood) EXPECT_EQ(parse_line(to_line(event)), event);
  for (const char* const torn : {"", "acked", "acked p a 1 1 5", "acked p a 1 1 5 ", "acked p a x 1 5 -",
                                 "said p a 1 1 5 -", "acked p a 1 1 5 - -"})
    EXPECT_EQ(parse_line(torn), std::nullopt) << torn;
}

}  // namespace
}  // namespace ringtail::test
