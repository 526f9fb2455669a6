// Who waits, and who must wake him.
#include <atomic>
#include <thread>

#include <gmock/gmock.h>

#include "log/appender.h"
#include "shm/futex.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// --- Space ---------------------------------------------------------------------------------------

class FullRing : public RingScene {
 protected:
  Ring make_full() {
    Ring ring = make_ring();
    ring.header().term_limit.store(1);
    auto producer = new_producer();
    for (int i = 0; i < 7; ++i) EXPECT_TRUE((*producer)->append({.value = value_of_eighth()}));
    return ring;
  }
};

TEST_F(FullRing, RefusesAtOnceUnderFailAndAppendsWhenThereIsSpace) {
  const Ring ring = make_full();
  set_on_full(OnFull::fail);
  auto producer = new_producer();
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ((*producer)->append({.value = value_of_eighth()}).error(), SendError::would_block);
  EXPECT_THAT((*producer)->describe(SendError::would_block).message, HasSubstr("on.full=fail"));
  EXPECT_EQ(producer->slot.phase(), shm::Phase::idle);
  ring.header().term_limit.store(2);
  EXPECT_EQ((*producer)->append({.value = value_of_eighth()})->offset, Offset(7));
}

// Readers do not, and a keeper that rests looks at nothing for seconds.
TEST_F(FullRing, WhoIsRefusedRingsForTheKeeper) {
  make_full();
  set_on_full(OnFull::fail);
  auto producer = new_producer();
  const std::uint32_t before = control_.header().keeper_wake.load();
  EXPECT_EQ((*producer)->append({.value = value_of_eighth()}).error(), SendError::would_block);
  EXPECT_GT(control_.header().keeper_wake.load(), before);
}

TEST_F(FullRing, TimesOutUnderBlock) {
  make_full();
  auto producer = new_producer(milliseconds(20));
  EXPECT_EQ((*producer)->append({.value = value_of_eighth()}).error(), SendError::timed_out);
  EXPECT_EQ(producer->slot.phase(), shm::Phase::idle);
  EXPECT_THAT((*producer)->describe(SendError::timed_out).message, HasSubstr("20 ms"));
}

TEST_F(FullRing, WaitsForATripperWhoIsGoneNoLongerThanForSpace) {
  const Ring ring = make_ring();
  {
    auto producer = new_producer();
    for (int i = 0; i < 7; ++i) ASSERT_TRUE((*producer)->append({.value = value_of_eighth()}));
  }
  HandClaim(ring, new_slot(), kEighth);
  auto producer = new_producer(milliseconds(20));
  EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::timed_out);
  EXPECT_EQ(producer->slot.phase(), shm::Phase::idle);
}

TEST_F(FullRing, WaitsForTheNextRingNoLongerThanForSpace) {
  const Ring ring = make_ring();
  ring.fence();
  auto producer = new_producer(milliseconds(20));
  EXPECT_EQ((*producer)->append({.value = "v"}).error(), SendError::timed_out);
}

TEST_F(FullRing, ADeletedTopicEndsEveryWait) {
  make_full();
  auto producer = new_producer();
  std::thread deleter([this] {
    while (entry().space_waiters.load() == 0) std::this_thread::yield();
    entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::deleted));
    entry().hot.fetch_add(shm::kHotVersion);
    shm::notify_waiters(entry().space_seq, entry().space_waiters);
  });
  EXPECT_EQ((*producer)->append({.value = value_of_eighth()}).error(), SendError::closed);
  deleter.join();
}

// --- Handshakes: nobody sleeps through what he waits for -----------------------------------------
//
// Each wait has no deadline that could save it: if a wake-up is lost, the test hangs and is killed.

class Handshake : public RingScene {
 protected:
  static constexpr milliseconds kForEver{1'000'000};
};

TEST_F(Handshake, DurableWaitersSeeEveryAdvance) {
  constexpr std::uint64_t kRounds = 30'000;
  make_ring();
  entry().storage.store(static_cast<std::uint8_t>(Storage::disk));
  std::atomic<std::uint64_t> asked{0};
  std::thread keeper([&] {
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      while (asked.load() < round) {
      }
      entry().durable_position.store(round, std::memory_order_release);
      shm::notify_waiters(entry().durable_seq, entry().durable_waiters);
    }
  });
  auto producer = new_producer(kForEver);
  for (std::uint64_t round = 1; round <= kRounds; ++round) {
    asked.store(round);
    ASSERT_TRUE((*producer)->wait_durable({.end = Position(round)}));
  }
  keeper.join();
}

TEST_F(Handshake, ProducersThatWaitForSpaceSeeEveryTermThatIsOpened) {
  constexpr std::uint64_t kTerms = 3'000;
  const Ring ring = make_ring();
  ring.header().term_limit.store(1);
  std::thread keeper([&] {
    for (std::uint64_t limit = 2; limit <= kTerms; ++limit) {
      // Without looking whether anybody waits: now before, now after.
      while (tail_bytes(ring.line(limit - 2).tail.load()) < ring.usable_term_bytes() / 2 ||
             ring.header().active_term.load() + 2 < limit) {
      }
      std::memset(ring.term_data(limit - 1), 0, ring.term_bytes());
      ring.header().term_limit.store(limit, std::memory_order_release);
      shm::notify_waiters(entry().space_seq, entry().space_waiters);
    }
  });
  auto producer = new_producer(kForEver);
  while (ring.header().active_term.load() + 1 < kTerms)
    ASSERT_TRUE((*producer)->append({.value = std::string(kTestTerm / 8 - format::kFrameHeaderBytes, 'e')}));
  keeper.join();
}

TEST_F(Handshake, TheKeepersBellIsRungForEveryRecordBehindItsLastLook) {
  constexpr std::uint64_t kRounds = 100'000;
  const Ring ring = make_ring(64);
  std::atomic<bool> done{false};
  std::uint64_t heard = 0;
  // As the keeper does: arm the bell, look once more, sleep on keeper_wake.
  std::thread keeper([&] {
    Position seen(0);
    shm::ControlHeader& header = control_.header();
    for (;;) {
      // Ahead of the look at `done`, or its bump could come between the two and go unnoticed.
      const std::uint32_t wake = header.keeper_wake.load();
      if (done.load()) break;
      entry().hot.fetch_or(shm::kKeeperWaits);
      if (ring.claimed_end().position == seen) {
        header.keeper_asleep.store(1);
        shm::futex_wait(header.keeper_wake, wake);
        header.keeper_asleep.store(0);
      }
      if (seen != ring.claimed_end().position) ++heard;
      seen = ring.claimed_end().position;
    }
  });
  auto producer = new_producer(kForEver);
  for (std::uint64_t i = 0; i < kRounds && ring.header().active_term.load() < 62; ++i) {
    ASSERT_TRUE((*producer)->append({}));
    // Now and then wait until the keeper has caught up and sleeps, so that the bell is all there is.
    if (i % 4 == 0) {
      while ((entry().hot.load() & shm::kKeeperWaits) == 0) std::this_thread::yield();
    }
  }
  done.store(true);
  control_.wake_keeper();
  keeper.join();
  EXPECT_GT(heard, 0u);
}

}  // namespace
}  // namespace ringtail::log
