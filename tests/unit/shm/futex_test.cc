#include "shm/futex.h"

#include <sys/mman.h>

#include <chrono>
#include <climits>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "shm/mapping.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

using Word = std::atomic<std::uint32_t>;

constexpr std::int64_t kMillisecond = 1'000'000;

// Words in a file, as two processes see them.
class FutexTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kWords = 1024;

  void SetUp() override {
    auto made = create_shared_file(dir_ / "words", kWords * sizeof(Word));
    ASSERT_TRUE(made.has_value()) << made.error().message;
    ASSERT_TRUE(made->publish_new().has_value());
    mapping_ = std::move(*made);
    words_ = reinterpret_cast<Word*>(mapping_.data());
  }

  // The same words through another mapping, which can only be read.
  const Word* map_read_only() {
    auto opened = open_shared_file(dir_ / "words", true);
    EXPECT_TRUE(opened.has_value());
    read_only_ = std::move(*opened);
    return reinterpret_cast<const Word*>(read_only_.data());
  }

  std::vector<FutexWaiter> waiters(std::size_t count, std::uint32_t expected = 0) const {
    std::vector<FutexWaiter> all(count);
    for (std::size_t i = 0; i < count; ++i) all[i] = {&words_[i], expected};
    return all;
  }

  TempDir dir_;
  Mapping mapping_;
  Mapping read_only_;
  Word* words_ = nullptr;
};

// A child that changes a word and wakes its sleepers until it is told to stop.
auto bump_until_told(Word& word) {
  return [&word](const Line& line) {
    do {
      word.fetch_add(1, std::memory_order_release);  // SYNC: pairs with the test's acquire load
      futex_wake_all(word);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } while (!line.is_dead());
  };
}

TEST_F(FutexTest, DoesNotSleepOnAChangedWord) {
  words_[0] = 7;
  EXPECT_EQ(futex_wait(words_[0], 6), FutexResult::changed);
  EXPECT_EQ(futex_wait(map_read_only()[0], 6), FutexResult::changed);
}

TEST_F(FutexTest, EndsAtItsDeadline) {
  const std::int64_t start = monotonic_ns();
  EXPECT_EQ(futex_wait(words_[0], 0, start + 20 * kMillisecond), FutexResult::timed_out);
  EXPECT_GE(monotonic_ns(), start + 20 * kMillisecond);
  EXPECT_EQ(futex_wait(map_read_only()[0], 0, start), FutexResult::timed_out);
  EXPECT_EQ(futex_wait(words_[0], 0, 0), FutexResult::timed_out);
  EXPECT_EQ(futex_wait(words_[0], 0, INT64_MIN), FutexResult::timed_out);
}

TEST_F(FutexTest, IsWokenByAnotherProcess) {
  Child waker(bump_until_told(words_[0]));
  for (std::uint32_t seen = 0; seen < 20;) {
    futex_wait(words_[0], seen, INT64_MAX);
    seen = words_[0].load(std::memory_order_acquire);  // SYNC: pairs with bump_until_told
  }
}

TEST_F(FutexTest, IsWokenThroughAReadOnlyMapping) {
  const Word* words = map_read_only();
  Child waker(bump_until_told(words_[3]));
  for (std::uint32_t seen = 0; seen < 20;) {
    futex_wait(words[3], seen);
    seen = words[3].load(std::memory_order_acquire);  // SYNC: pairs with bump_until_told
  }
}

TEST_F(FutexTest, WakesAsManyAsItIsTold) {
  constexpr int kSleepers = 4;
  std::atomic<int> woken{0};
  std::vector<std::jthread> sleepers;
  for (int i = 0; i < kSleepers; ++i) {
    sleepers.emplace_back([&] {
      while (futex_wait(words_[0], 0) != FutexResult::woken) {
      }
      ++woken;
    });
  }
  for (int i = 1; i <= kSleepers; ++i) {
    while (woken < i) {  // until somebody has gone to sleep to be woken
      futex_wake(words_[0], 1);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  EXPECT_EQ(woken, kSleepers);
}

TEST_F(FutexTest, NoWakeIsLost) {
  constexpr std::uint32_t kRounds = 10'000;
  const auto wait_for = [](Word& word, std::uint32_t value) {
    for (;;) {
      const std::uint32_t seen = word.load(std::memory_order_acquire);  // SYNC: pairs with tell
      if (seen == value) return;
      futex_wait(word, seen);
    }
  };
  const auto tell = [](Word& word, std::uint32_t value) {
    word.store(value, std::memory_order_release);  // SYNC: pairs with wait_for
    futex_wake(word, 1);
  };
  Child pong([&](const Line&) {
    for (std::uint32_t i = 1; i <= kRounds; ++i) {
      wait_for(words_[0], i);
      tell(words_[1], i);
    }
  });
  for (std::uint32_t i = 1; i <= kRounds; ++i) {
    tell(words_[0], i);
    wait_for(words_[1], i);
  }
  EXPECT_EQ(pong.wait(), 0);
}

TEST_F(FutexTest, ASignalInterrupts) {
  struct sigaction nothing{};
  struct sigaction before{};
  nothing.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR1, &nothing, &before), 0);
  std::atomic<bool> is_over{false};
  FutexResult result{};
  std::thread sleeper([&] {
    result = futex_wait(words_[0], 0);
    is_over = true;
  });
  while (!is_over) {
    ::pthread_kill(sleeper.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  sleeper.join();
  EXPECT_EQ(result, FutexResult::interrupted);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(FutexTest, WakingKeepsErrno) {
  errno = 1234;
  futex_wake(words_[0], 1);
  EXPECT_EQ(errno, 1234);
  void* nowhere = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(nowhere, MAP_FAILED);
  errno = 1234;
  futex_wake_all(*static_cast<Word*>(nowhere));  // fails, inside
  EXPECT_EQ(errno, 1234);
  ::munmap(nowhere, 4096);
}

// --- Several words: with the system call, and above its limit ------------------------------------

class FutexWaitAnyTest : public FutexTest, public ::testing::WithParamInterface<std::size_t> {};

INSTANTIATE_TEST_SUITE_P(Words, FutexWaitAnyTest,
                         ::testing::Values(1, 2, kMaxFutexWaiters, kMaxFutexWaiters + 1, 1000));

TEST_P(FutexWaitAnyTest, DoesNotSleepWhenAnyHasChanged) {
  for (const std::size_t which : {std::size_t{0}, GetParam() / 2, GetParam() - 1}) {
    words_[which] = 1;
    EXPECT_EQ(futex_wait_any(waiters(GetParam())), FutexResult::changed) << which;
    words_[which] = 0;
  }
}

TEST_P(FutexWaitAnyTest, EndsAtItsDeadline) {
  const std::int64_t start = monotonic_ns();
  EXPECT_EQ(futex_wait_any(waiters(GetParam()), start + 20 * kMillisecond), FutexResult::timed_out);
  EXPECT_GE(monotonic_ns(), start + 20 * kMillisecond);
  EXPECT_EQ(futex_wait_any(waiters(GetParam()), 0), FutexResult::timed_out);
}

TEST_P(FutexWaitAnyTest, AnyOfThemWakes) {
  for (const std::size_t which : {std::size_t{0}, GetParam() - 1}) {
    words_[which] = 0;
    Child waker(bump_until_told(words_[which]));
    auto all = waiters(GetParam());
    while (all[which].expected < 20) {
      futex_wait_any(all);
      // SYNC: pairs with bump_until_told.
      all[which].expected = words_[which].load(std::memory_order_acquire);
    }
    waker.kill();
    words_[which] = 0;
  }
}

}  // namespace
}  // namespace ringtail::shm
