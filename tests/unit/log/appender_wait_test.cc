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
    ASSERT_TRUE((*producer)->wait_durable(Position(round)));
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
