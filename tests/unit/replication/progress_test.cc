#include "replication/progress.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringtail::replication {
namespace {

using log::LogPoint;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::int64_t kSecond = 1'000'000'000;

LogPoint at(std::uint64_t n) { return {Position(n * 64), Offset(n)}; }
std::set<NodeId> nodes(std::initializer_list<std::uint32_t> ids) {
  std::set<NodeId> set;
  for (const auto id : ids) set.insert(NodeId(id));
  return set;
}

class Progress : public ::testing::Test {
 protected:
  Progress() { progress_.confirm(nodes({1, 2, 3})); }
  void ack(std::uint32_t node, std::uint64_t end) { progress_.on_ack(NodeId(node), at(end), at(end)); }

  LeaderProgress progress_{NodeId(1), 2, false};
};

TEST_F(Progress, TheWatermarkIsWhatEveryInSyncReplicaHas) {
  EXPECT_EQ(progress_.watermark(), at(0));
  ack(1, 10);
  ack(2, 7);
  EXPECT_EQ(progress_.watermark(), at(0));
  ack(3, 5);
  EXPECT_EQ(progress_.watermark(), at(5));
  ack(3, 20);
  EXPECT_EQ(progress_.watermark(), at(7));
  ack(2, 30);
  EXPECT_EQ(progress_.watermark(), at(10));
}

TEST_F(Progress, WhereReplicasMustSyncTheWatermarkIsWhatTheyHaveSynced) {
  LeaderProgress synced(NodeId(1), 1, true);
  synced.confirm(nodes({1, 2}));
  synced.on_ack(NodeId(1), at(9), at(4));
  synced.on_ack(NodeId(2), at(9), at(6));
  EXPECT_EQ(synced.watermark(), at(4));
  synced.on_ack(NodeId(1), at(9), at(9));
  EXPECT_EQ(synced.watermark(), at(6));
}

TEST_F(Progress, TheWatermarkStandsWhileTooFewAreInSync) {
  ack(1, 10);
  ack(2, 10);
  ack(3, 10);
  EXPECT_EQ(progress_.watermark(), at(10));
  progress_.confirm(nodes({1}));
  ack(1, 20);
  EXPECT_EQ(progress_.watermark(), at(10));
  progress_.confirm(nodes({1, 2}));
  ack(2, 15);
  EXPECT_EQ(progress_.watermark(), at(15));
}

TEST_F(Progress, ItNeverMovesBack) {
  ack(1, 10);
  ack(2, 10);
  ack(3, 10);
  EXPECT_EQ(progress_.watermark(), at(10));
  progress_.on_stream_end(NodeId(3));
  progress_.confirm(nodes({1, 2, 3, 4}));
  EXPECT_EQ(progress_.watermark(), at(10));
}

// Who is to leave still counts, and who is to come counts already, until it is known which of both it is.
TEST_F(Progress, AChangeOfTheInSyncReplicasCountsBothWaysUntilItIsKnown) {
  ack(1, 10);
  ack(2, 10);
  ack(3, 4);
  progress_.propose(nodes({1, 2}));
  EXPECT_EQ(progress_.watermark(), at(4));
  progress_.confirm(nodes({1, 2}));
  EXPECT_EQ(progress_.watermark(), at(10));
  ack(1, 20);
  ack(2, 20);
  ack(3, 12);
  progress_.propose(nodes({1, 2, 3}));
  EXPECT_EQ(progress_.watermark(), at(12));
  progress_.confirm(nodes({1, 2}));  // it was refused: the record that stands tells
  EXPECT_EQ(progress_.watermark(), at(20));
}

// The first one may be made after all.
TEST_F(Progress, AChangeWhoseOutcomeIsNotKnownCountsBesideTheNext) {
  progress_.confirm(nodes({1, 2}));
  ack(1, 10);
  ack(2, 10);
  ack(3, 4);
  progress_.propose(nodes({1, 2, 3}));
  progress_.propose(nodes({1, 2}));
  EXPECT_EQ(progress_.watermark(), at(4));
}

// It may have lost what it had.
TEST_F(Progress, WhoBeginsAnewHasNothingUntilHeSaysSo) {
  progress_.confirm(nodes({1, 2}));
  ack(1, 10);
  ack(2, 6);
  EXPECT_EQ(progress_.watermark(), at(6));
  ack(2, 9);
  progress_.on_stream_begin(NodeId(2));
  EXPECT_EQ(progress_.watermark(), at(6));
  ack(2, 3);
  EXPECT_EQ(progress_.watermark(), at(6));
}

// The new leader's watermark lags behind what was acknowledged before it.
TEST_F(Progress, NobodyComesBackBeforeWhereTheEpochBegins) {
  progress_ = LeaderProgress(NodeId(1), 2, false, at(10));
  progress_.confirm(nodes({1, 2}));
  progress_.mark(at(10), kSecond);
  progress_.mark(at(10), 2 * kSecond);
  ack(1, 10);
  ack(3, 8);
  EXPECT_TRUE(progress_.caught_up().empty());
  ack(3, 10);
  EXPECT_EQ(progress_.caught_up(), std::vector{NodeId(3)});
}

TEST_F(Progress, WhoHasNotBeenAtTheEndForTooLongLags) {
  ack(1, 0);
  progress_.mark(at(10), kSecond);
  ack(2, 10);
  ack(3, 9);
  progress_.mark(at(20), 2 * kSecond);
  ack(2, 20);
  ack(3, 19);
  progress_.mark(at(30), 3 * kSecond);
  ack(2, 30);
  EXPECT_THAT(progress_.lagging(3 * kSecond, kSecond / 2), ElementsAre(NodeId(3)));
  EXPECT_THAT(progress_.lagging(3 * kSecond, 3 * kSecond), IsEmpty());
  // One record late at every look is no lag.
  ack(3, 29);
  EXPECT_THAT(progress_.lagging(3 * kSecond, kSecond), IsEmpty());
}

TEST_F(Progress, WhoNeverSaidAnythingLagsInTime) {
  progress_.mark(at(10), kSecond);
  EXPECT_THAT(progress_.lagging(kSecond, kSecond), IsEmpty());
  progress_.mark(at(10), 3 * kSecond);
  EXPECT_THAT(progress_.lagging(3 * kSecond, kSecond), ElementsAre(NodeId(2), NodeId(3)));
}

// Its acknowledgement may come before the new leader has noted where the log ends for the first time.
TEST_F(Progress, NobodyLagsInTheMomentInWhichALeaderBegins) {
  ack(1, 10);
  ack(2, 9);
  EXPECT_THAT(progress_.lagging(99 * kSecond, kSecond), IsEmpty());
  progress_.mark(at(10), 100 * kSecond);
  EXPECT_THAT(progress_.lagging(100 * kSecond, kSecond), IsEmpty());
  EXPECT_THAT(progress_.lagging(102 * kSecond, kSecond), ElementsAre(NodeId(2), NodeId(3)));
}

TEST_F(Progress, AnIdlePartitionsFollowersDoNotLag) {
  ack(2, 10);
  ack(3, 10);
  for (std::int64_t second = 1; second < 100; ++second) progress_.mark(at(10), second * kSecond);
  EXPECT_THAT(progress_.lagging(99 * kSecond, kSecond), IsEmpty());
}

// A disk that takes nothing: what comes is in the ring, and that does not count.
TEST_F(Progress, WhereReplicasMustSyncWhoDoesNotSyncLags) {
  LeaderProgress synced(NodeId(1), 1, true);
  synced.confirm(nodes({1, 2}));
  for (std::int64_t second = 1; second <= 5; ++second) {
    const auto end = static_cast<std::uint64_t>(second) * 10;
    synced.mark(at(end), second * kSecond);
    synced.on_ack(NodeId(1), at(end), at(end));
    synced.on_ack(NodeId(2), at(end), at(10));
  }
  EXPECT_THAT(synced.lagging(5 * kSecond, 3 * kSecond), ElementsAre(NodeId(2)));
  EXPECT_FALSE(synced.is_stuck(5 * kSecond, 3 * kSecond));
  synced.on_ack(NodeId(2), at(50), at(50));
  EXPECT_THAT(synced.lagging(5 * kSecond, 3 * kSecond), IsEmpty());
  for (std::int64_t second = 6; second <= 10; ++second) synced.mark(at(60), second * kSecond);
  EXPECT_TRUE(synced.is_stuck(10 * kSecond, 3 * kSecond));
  synced.on_ack(NodeId(1), at(60), at(60));
  EXPECT_FALSE(synced.is_stuck(10 * kSecond, 3 * kSecond));
}

TEST_F(Progress, WhoHasCaughtUpMayComeBack) {
  progress_.confirm(nodes({1, 2}));
  ack(1, 20);
  ack(2, 20);
  EXPECT_EQ(progress_.watermark(), at(20));
  progress_.mark(at(20), kSecond);
  progress_.mark(at(20), 2 * kSecond);
  ack(3, 19);
  EXPECT_THAT(progress_.caught_up(), IsEmpty());
  ack(3, 20);
  EXPECT_THAT(progress_.caught_up(), ElementsAre(NodeId(3)));
  progress_.on_stream_end(NodeId(3));
  EXPECT_THAT(progress_.caught_up(), IsEmpty());
}

// Whatever happens, what is below the watermark is on every replica that could be elected.
TEST_F(Progress, RandomHistoriesKeepWhatIsBelowTheWatermarkOnAllWhoCouldLead) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    const auto any = [&random](std::uint32_t below) { return static_cast<std::uint32_t>(random() % below); };
    LeaderProgress progress(NodeId(1), 1 + any(3), false);
    std::set<NodeId> recorded = nodes({1, 2, 3});
    progress.confirm(recorded);
    std::map<NodeId, std::uint64_t> has{{NodeId(1), 0}, {NodeId(2), 0}, {NodeId(3), 0}};
    std::optional<std::set<NodeId>> proposed;
    for (int step = 0; step < 200; ++step) {
      const NodeId node(1 + any(3));
      switch (random() % 5) {
        case 0:
        case 1:
          has[node] = node == NodeId(1) ? has[node] + random() % 5
                                        : std::min(has[node] + random() % 5, has[NodeId(1)]);
          progress.on_ack(node, at(has[node]), at(0));
          break;
        case 2:
          if (proposed) break;
          proposed = nodes({1});
          if (random() % 2) proposed->insert(NodeId(2));
          if (random() % 2) proposed->insert(NodeId(3));
          // As a leader does: only who has come up to the watermark is let in.
          std::erase_if(*proposed,
                        [&](NodeId n) { return !recorded.contains(n) && at(has[n]) < progress.watermark(); });
          progress.propose(*proposed);
          break;
        case 3:
          if (proposed && random() % 2) recorded = *proposed;
          if (proposed) progress.confirm(recorded);
          proposed.reset();
          break;
        default: break;
      }
      // Which of both stands in the store the leader does not know: all of both could be elected.
      const LogPoint watermark = progress.watermark();
      for (const NodeId n : recorded) ASSERT_GE(at(has[n]), watermark) << "step " << step;
      if (!proposed) continue;
      for (const NodeId n : *proposed) ASSERT_GE(at(has[n]), watermark) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace ringtail::replication
