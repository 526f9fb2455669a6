#include "shm/control.h"

#include <bit>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "shm/futex.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

using ::testing::HasSubstr;

constexpr std::array<std::uint64_t, 2> kLogId{0x1111, 0x2222};

class ControlSegment : public ::testing::Test {
 protected:
  Result<Control> open(std::array<std::uint64_t, 2> log_id = kLogId) {
    return Control::open_or_create(dir_.path(), log_id, "/some/log");
  }
  Error refusal(std::array<std::uint64_t, 2> log_id = kLogId) {
    auto opened = open(log_id);
    EXPECT_FALSE(opened);
    return opened ? Error{} : opened.error();
  }
  std::filesystem::path path() const { return dir_ / "control"; }

  TempDir dir_;
};

TEST_F(ControlSegment, IsMadeOnceAndSharedByAllWhoOpenIt) {
  auto first = open();
  ASSERT_TRUE(first);
  auto second = open();
  ASSERT_TRUE(second);
  first->slot(3).pid.store(77);
  EXPECT_EQ(second->slot(3).pid.load(), 77u);
  EXPECT_STREQ(second->header().dir.data(), "/some/log");
  EXPECT_EQ(second->header().log_id, kLogId);
  EXPECT_EQ(std::filesystem::file_size(path()), sizeof(ControlLayout));
  EXPECT_EQ(second->partition(kMaxPartitions - 1).state.load(), 0u);
}

TEST_F(ControlSegment, OpenedByManyAtOnceIsOne) {
  std::vector<std::thread> threads;
  std::array<std::optional<Control>, 4> opened;
  for (std::optional<Control>& control : opened)
    threads.emplace_back([&control, this] {
      auto result = open();
      ASSERT_TRUE(result) << result.error().message;
      control = std::move(*result);
    });
  for (std::thread& thread : threads) thread.join();
  opened[0]->header().keeper_pid.store(5);
  for (const auto& control : opened) EXPECT_EQ(control->header().keeper_pid.load(), 5u);
}

TEST_F(ControlSegment, OfAnotherLayoutIsRefusedWithBothVersions) {
  open()->header().version = 8;
  const Error error = refusal();
  EXPECT_EQ(error.code, Code::incompatible_layout);
  EXPECT_THAT(error.message, HasSubstr("version 8"));
  EXPECT_THAT(error.message, HasSubstr(fmt::format("this program has {}", kControlVersion)));
  EXPECT_THAT(error.message, HasSubstr(path().string()));
  EXPECT_THAT(error.message, HasSubstr("stop all processes that use the log, then start one version only"));
}

TEST_F(ControlSegment, OfAnotherSizeIsAnotherLayout) {
  open()->header().total_bytes = 4096;
  EXPECT_EQ(refusal().code, Code::incompatible_layout);
}

TEST_F(ControlSegment, OfAnotherLogIsRefused) {
  ASSERT_TRUE(open());
  const Error error = refusal({0x1111, 0x3333});
  EXPECT_EQ(error.code, Code::corrupt);
  EXPECT_THAT(error.message, HasSubstr("another log"));
}

TEST_F(ControlSegment, OfAnEarlierBootIsRefused) {
  open()->header().boot_id[0] ^= 1;
  const Error error = refusal();
  EXPECT_EQ(error.code, Code::corrupt);
  EXPECT_THAT(error.message, HasSubstr("earlier boot"));
}

TEST_F(ControlSegment, WithABadMagicIsNone) {
  open()->header().magic = 0;
  EXPECT_EQ(refusal().code, Code::corrupt);
}

TEST_F(ControlSegment, CutShortIsCorrupt) {
  ASSERT_TRUE(open());
  for (const std::uintmax_t bytes :
       {sizeof(ControlLayout) - 4096, std::size_t{4096}, std::size_t{100}, std::size_t{0}}) {
    std::filesystem::resize_file(path(), bytes);
    EXPECT_EQ(refusal().code, Code::corrupt) << bytes;
  }
}

TEST_F(ControlSegment, CountsTheEntriesThatWereEverInUse) {
  auto control = open();
  EXPECT_TRUE(control->slots().empty());
  control->use_slot(4);
  control->use_slot(2);
  EXPECT_EQ(control->slots().size(), 5u);
  control->use_reader(kMaxReaders - 1);
  EXPECT_EQ(control->readers().size(), kMaxReaders);
  control->header().slots_used.store(~0u);  // not ours to believe
  EXPECT_EQ(control->slots().size(), kMaxSlots);
}

// --- The durable mark ----------------------------------------------------------------------------

TEST_F(ControlSegment, TheMarkIsThePairStoredLast) {
  auto control = open();
  Partition& entry = control->partition(0);
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  EXPECT_FALSE(load_mark(entry, position, offset));
  for (std::uint64_t i = 1; i < 10; ++i) {
    store_mark(entry, i * 1000, i);
    ASSERT_TRUE(load_mark(entry, position, offset));
    EXPECT_EQ(position, i * 1000);
    EXPECT_EQ(offset, i);
  }
}

TEST_F(ControlSegment, AMarkThatItsWriterDiedOverGivesWayToTheOneBefore) {
  auto control = open();
  Partition& entry = control->partition(0);
  store_mark(entry, 1000, 1);
  store_mark(entry, 2000, 2);
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  Partition::Mark& next = entry.mark[(entry.mark_turn.load() + 1) % 2];
  next.check.store(0);
  ASSERT_TRUE(load_mark(entry, position, offset));
  EXPECT_EQ(position, 2000u);
  next.position.store(3000);
  ASSERT_TRUE(load_mark(entry, position, offset));
  EXPECT_EQ(position, 2000u);
  entry.mark[entry.mark_turn.load() % 2].position.store(2001);  // damaged: neither copy is whole
  EXPECT_FALSE(load_mark(entry, position, offset));
}

// --- Waking --------------------------------------------------------------------------------------

TEST_F(ControlSegment, NotifyTouchesNothingWhenNobodyWaits) {
  Shared<std::uint32_t> seq{5};
  Shared<std::uint32_t> waiters{0};
  notify_waiters(seq, waiters);
  EXPECT_EQ(seq.load(), 5u);
  waiters.store(1);
  notify_waiters(seq, waiters);
  EXPECT_EQ(seq.load(), 6u);
  EXPECT_EQ(waiters.load(), 0u);
}

TEST_F(ControlSegment, NotifyLeavesTheFlagsThatAreNotTheWaiters) {
  Shared<std::uint32_t> seq{5};
  Shared<std::uint32_t> waiters{2};
  notify_waiters(seq, waiters);
  EXPECT_EQ(seq.load(), 5u);
  waiters.store(3);
  notify_waiters(seq, waiters);
  EXPECT_EQ(seq.load(), 6u);
  EXPECT_EQ(waiters.load(), 2u);
}

// Two threads wake each other without end; a lost wake-up would let both sleep.
TEST_F(ControlSegment, NotifyLosesNoWaiter) {
  constexpr std::uint32_t kRounds = 50'000;
  Shared<std::uint32_t> event[2]{0, 0};
  Shared<std::uint32_t> seq[2]{0, 0};
  Shared<std::uint32_t> waiters[2]{0, 0};
  const auto play = [&](int me) {
    for (std::uint32_t round = 1; round <= kRounds; ++round) {
      event[me].store(round, std::memory_order_release);
      notify_waiters(seq[me], waiters[me]);
      const int other = 1 - me;
      for (;;) {
        const std::uint32_t seen = seq[other].load(std::memory_order_acquire);
        if (event[other].load(std::memory_order_acquire) >= round) break;
        waiters[other].exchange(1, std::memory_order_seq_cst);
        if (event[other].load(std::memory_order_acquire) >= round) break;
        futex_wait(seq[other], seen);
      }
    }
  };
  std::thread first(play, 0);
  std::thread second(play, 1);
  first.join();
  second.join();
  EXPECT_EQ(event[0].load(), kRounds);
  EXPECT_EQ(event[1].load(), kRounds);
}

TEST_F(ControlSegment, WakeKeeperEndsItsSleepHoweverTheyMeet) {
  auto control = open();
  ControlHeader& header = control->header();
  std::atomic<std::uint32_t> asked{0};
  std::atomic<std::uint32_t> answered{0};
  constexpr std::uint32_t kRounds = 30'000;
  std::thread keeper([&] {
    while (answered.load() < kRounds) {
      const std::uint32_t wake = header.keeper_wake.load(std::memory_order_acquire);
      answered.store(asked.load());
      if (answered.load() >= kRounds) break;
      header.keeper_asleep.store(1, std::memory_order_seq_cst);
      futex_wait(header.keeper_wake, wake);
      header.keeper_asleep.store(0, std::memory_order_relaxed);
    }
  });
  for (std::uint32_t round = 1; round <= kRounds; ++round) {
    asked.store(round);
    control->wake_keeper();
    while (answered.load() < round) std::this_thread::yield();
  }
  keeper.join();
}

}  // namespace
}  // namespace ringtail::shm
