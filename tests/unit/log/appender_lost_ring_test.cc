// An appender whose ring was fenced, cut or given up meanwhile.
#include <gmock/gmock.h>

#include "log/appender.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// --- Changes of role -----------------------------------------------------------------------------

class LedAgain : public RingScene {
 protected:
  // As a host that has followed and leads again, with `end` for where its frames end.
  static void follow_and_lead(const Ring& ring, const Ring::End& end) {
    ring.fence();
    ring.follow({ring.term_start(ring.header().active_term.load()), Offset(0)});
    ring.cut(end);
    ring.unfence(end);
  }
};

TEST_F(LedAgain, AnAppenderThatMetTheFenceGoesOnInTheSameTerm) {
  const Ring ring = make_ring();
  auto producer = new_producer(milliseconds(30));
  ASSERT_TRUE((*producer)->append({.value = "one"}));
  ring.fence();
  EXPECT_EQ((*producer)->append({.value = "two"}).error(), SendError::timed_out);
  const Ring::End end{Position(40), Offset(1)};
  ring.follow(end);
  ring.unfence(end);
  entry().hot.fetch_add(shm::kHotVersion);
  const auto sent = (*producer)->append({.value = "two"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(1));
}

// The term is cut off and opened anew with other records before it; an append that was begun before does not
// notice.
TEST_F(LedAgain, ATermThatWasOpenedTwiceHasTheOffsetsOfTheSecondTime) {
  const Ring ring = make_ring();
  auto sleeper = new_producer();
  for (int i = 0; i < 8; ++i) ASSERT_TRUE((*sleeper)->append({.value = value_of_eighth()}));
  ASSERT_EQ(ring.header().active_term.load(), 1u);
  follow_and_lead(ring, {Position(kTestTerm / 8), Offset(1)});
  auto other = new_producer();
  std::vector<ProducerRecord> few(3, ProducerRecord{.value = "x"});
  ASSERT_TRUE((*other)->append_batch(few));
  while (ring.header().active_term.load() == 0) ASSERT_TRUE((*other)->append({.value = value_of_eighth()}));
  const auto before = ring.claimed_end().offset;
  const auto sent = (*sleeper)->append({.value = "late"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, before);
}

// --- Given up ------------------------------------------------------------------------------------

class GivenUpAppender : public RingScene {
 protected:
  void give_up(RingKeeper& keeper, Producer& producer) {
    const std::uint32_t slot = producer.slot.index();
    const std::uint64_t op = control_.slot(slot).op.load();
    keeper.ring().header().scribbled.store(1);
    control_.slot(slot).given_up.store(op);
    keeper.begin_inquiry();
    ASSERT_TRUE(*keeper.step_inquiry(monitor_));
    control_.slot(slot).given_up_done.store(op);
  }
};

TEST_F(GivenUpAppender, LearnsOnCommitThatNothingWasAppended) {
  const Ring ring = make_ring();
  RingKeeper keeper = keeper_of(open_ring());
  auto producer = new_producer();
  auto claim = (*producer)->claim({}, 32);
  ASSERT_TRUE(claim);
  give_up(keeper, *producer);
  EXPECT_EQ((*producer)->commit(*claim).error(), SendError::claim_expired);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 64, 0, 1)));
  EXPECT_EQ((*producer)->append({.value = "next"})->offset, Offset(1));
  EXPECT_THAT((*producer)->describe(SendError::claim_expired).message, HasSubstr("claim.timeout.ms"));
}

TEST_F(GivenUpAppender, MayStillAbort) {
  const Ring ring = make_ring();
  RingKeeper keeper = keeper_of(open_ring());
  auto producer = new_producer();
  auto claim = (*producer)->claim({}, 32);
  give_up(keeper, *producer);
  (*producer)->abort(*claim);
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 64, 0, 1)));
}

// The commit came first: the keeper finds a record, and the producer hears that it stands, though others
// before it are still writing theirs.
TEST_F(GivenUpAppender, HearsThatItsRecordStandsWhenTheCommitCameFirst) {
  const Ring ring = make_ring();
  RingKeeper keeper = keeper_of(open_ring());
  auto neighbour = new_producer();
  auto before = (*neighbour)->claim({}, 100);
  ASSERT_TRUE(before);
  auto producer = new_producer();
  auto claim = (*producer)->claim({}, 32);
  ASSERT_TRUE(claim);
  // As if the owner had stood still right behind his compare-and-set.
  format::state_word(claim->frame).store(format::committed_word(claim->length, format::FrameType::data, 0));
  give_up(keeper, *producer);
  ASSERT_TRUE(frames_of(ring, 0).empty());
  ASSERT_EQ(format::load_state_word(claim->frame, std::memory_order_relaxed),
            format::committed_word(64, format::FrameType::data, 0));
  EXPECT_EQ((*producer)->commit(*claim)->offset, Offset(1));
  ASSERT_TRUE((*neighbour)->commit(*before));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 136, 0), data_at(136, 64, 1)));
}

TEST_F(GivenUpAppender, HearsThatItsRecordStandsAlsoAtTheStartOfATerm) {
  const Ring ring = make_ring();
  RingKeeper keeper = keeper_of(open_ring());
  auto producer = new_producer();
  auto claim = (*producer)->claim({}, 32);
  ASSERT_TRUE(claim);
  format::state_word(claim->frame).store(format::committed_word(claim->length, format::FrameType::data, 0));
  give_up(keeper, *producer);
  const auto committed = (*producer)->commit(*claim);
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->offset, Offset(0));
  EXPECT_THAT(frames_of(ring, 0), ElementsAre(data_at(0, 64, 0)));
}

TEST_F(GivenUpAppender, HearsThatItsRecordWentWithTheHoleItLayIn) {
  const Ring ring = make_ring();
  RingKeeper keeper = keeper_of(open_ring());
  HandClaim(ring, new_slot(), 128);
  static_cast<void>(monitor_.find_deaths());
  auto producer = new_producer();
  auto claim = (*producer)->claim({}, 32);
  ASSERT_TRUE(claim);
  give_up(keeper, *producer);
  ASSERT_THAT(frames_of(ring, 0), ElementsAre(aborted_at(0, 192, 0, 2)));
  EXPECT_EQ((*producer)->commit(*claim).error(), SendError::claim_expired);
}

}  // namespace
}  // namespace ringtail::log
