#include "shm/role_lock.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <semaphore>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

std::unique_ptr<RoleCandidate> start(const std::filesystem::path& path, RoleCandidate::Role role) {
  auto candidate = RoleCandidate::start(path, std::move(role));
  if (!candidate) {
    ADD_FAILURE() << candidate.error().message;
    std::abort();
  }
  return std::move(*candidate);
}

// A role that does nothing until it is told to stop.
void hold(const std::stop_token& stop) {
  std::binary_semaphore stopped(0);
  const std::stop_callback wake(stop, [&] { stopped.release(); });
  stopped.acquire();
}

// Holds the role of `path` in a process of its own, and says so, until it is killed.
auto hold_until_killed(const std::filesystem::path& path) {
  return [path](const Line& line) {
    const auto candidate = start(path, [&](const std::stop_token& stop) {
      line.say('h');
      hold(stop);
    });
    while (line.hear() != 0) {
    }
  };
}

class RoleLockTest : public ::testing::Test {
 protected:
  TempDir dir_;
  std::filesystem::path path_ = dir_ / "keeper.lock";
};

TEST_F(RoleLockTest, WhatIsToBeDoneOnceItIsTakenIsDoneBeforeAnybodyKnows) {
  std::atomic<int> taken{0};
  std::atomic<const RoleCandidate*> waiting{nullptr};
  auto first = RoleCandidate::start(path_, hold, [&] { ++taken; }).value();
  ASSERT_EQ(taken.load(), 1);
  std::promise<bool> known;
  auto second =
      RoleCandidate::start(path_, hold, [&] { known.set_value(waiting.load()->holds_role()); }).value();
  waiting.store(second.get());
  EXPECT_FALSE(second->holds_role());
  first->stop();
  EXPECT_FALSE(known.get_future().get());
  while (!second->holds_role()) std::this_thread::yield();
}

TEST_F(RoleLockTest, AFreeRoleIsTakenAtOnce) {
  std::promise<void> runs;
  const auto candidate = start(path_, [&](const std::stop_token& stop) {
    runs.set_value();
    hold(stop);
  });
  EXPECT_TRUE(candidate->holds_role());
  runs.get_future().wait();
  candidate->stop();
  EXPECT_FALSE(candidate->holds_role());
  candidate->stop();
}

TEST_F(RoleLockTest, OneHoldsItAndTheNextFollows) {
  std::atomic<int> holders{0};
  std::atomic<int> runs{0};
  const auto role = [&](const std::stop_token& stop) {
    EXPECT_EQ(++holders, 1);
    ++runs;
    hold(stop);
    --holders;
  };
  std::vector<std::unique_ptr<RoleCandidate>> candidates;
  for (int i = 0; i < 5; ++i) candidates.push_back(start(path_, role));
  while (!candidates.empty()) {
    const auto holder = [&] {
      return std::ranges::find_if(candidates, [](const auto& c) { return c->holds_role(); });
    };
    while (holder() == candidates.end()) std::this_thread::yield();
    candidates.erase(holder());
  }
  EXPECT_EQ(runs, 5);
}

TEST_F(RoleLockTest, ARoleThatEndsByItselfIsGivenUp) {
  const auto first = start(path_, [](const std::stop_token&) {});
  std::promise<void> runs;
  const auto second = start(path_, [&](const std::stop_token&) { runs.set_value(); });
  runs.get_future().wait();
  EXPECT_FALSE(first->holds_role());
}

TEST_F(RoleLockTest, ARoleThatEndsByItselfIsTakenAgainAfterAWhileIfNobodyElseHasIt) {
  std::atomic<int> taken{0};
  std::atomic<int> ended{0};
  const auto first =
      RoleCandidate::start(
          path_, [&](const std::stop_token&) { ++ended; }, [&] { ++taken; }, std::chrono::milliseconds(1))
          .value();
  while (ended.load() < 3) std::this_thread::yield();
  const auto second = start(path_, hold);
  while (!second->holds_role()) std::this_thread::yield();
  const int before = taken.load();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(taken.load(), before);
  second->stop();
  while (ended.load() <= before) std::this_thread::yield();
}

TEST_F(RoleLockTest, WhoAsksWhetherItIsHeldDoesNotTakeIt) {
  EXPECT_FALSE(is_role_held(path_).value());
  const auto candidate = start(path_, hold);
  EXPECT_TRUE(candidate->holds_role());
  EXPECT_TRUE(is_role_held(path_).value());
  candidate->stop();
  std::vector<std::thread> asking;
  for (int i = 0; i < 4; ++i)
    asking.emplace_back([&] {
      for (int k = 0; k < 1000; ++k) ASSERT_FALSE(is_role_held(path_).value());
    });
  for (std::thread& thread : asking) thread.join();
}

TEST_F(RoleLockTest, ErrorsNameTheFile) {
  const auto candidate = RoleCandidate::start(dir_ / "none" / "keeper.lock", hold);
  ASSERT_FALSE(candidate.has_value());
  EXPECT_EQ(candidate.error().code, Code::not_found);
  EXPECT_NE(candidate.error().message.find("none/keeper.lock"), std::string::npos);
  EXPECT_EQ(is_role_held(dir_ / "none" / "keeper.lock").error().code, Code::not_found);
}

TEST_F(RoleLockTest, SignalsDoNotReachARole) {
  std::promise<sigset_t> mask;
  const auto candidate = start(path_, [&](const std::stop_token&) {
    sigset_t blocked;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    mask.set_value(blocked);
  });
  const sigset_t blocked = mask.get_future().get();
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE, SIGALRM, SIGPROF})
    EXPECT_EQ(::sigismember(&blocked, signal), 1) << signal;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL})
    EXPECT_EQ(::sigismember(&blocked, signal), 0) << signal;
  sigset_t ours;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &ours);
  EXPECT_EQ(::sigismember(&ours, SIGTERM), 0) << "the starter's own mask is as it was";
}

// Reports how long a role is nobody's after the death of its holder.
TEST_F(RoleLockTest, TakesOverWhenTheHolderIsKilled) {
  constexpr int kDeaths = 50;
  std::vector<std::int64_t> times;
  for (int i = 0; i < kDeaths; ++i) {
    Child holder(hold_until_killed(path_));
    ASSERT_EQ(holder.line().hear(), 'h');
    std::promise<std::int64_t> acquired;
    const auto candidate = start(path_, [&](const std::stop_token&) { acquired.set_value(monotonic_ns()); });
    ASSERT_FALSE(candidate->holds_role());
    const std::int64_t killed = monotonic_ns();
    ASSERT_EQ(::kill(holder.pid(), SIGKILL), 0);
    times.push_back(acquired.get_future().get() - killed);
  }
  std::ranges::sort(times);
  std::cout << "from SIGKILL to the role, " << kDeaths << " times: median " << times[kDeaths / 2] / 1000
            << " us, longest " << times.back() / 1000 << " us\n";
}

TEST_F(RoleLockTest, OneOfTheLivingHoldsItUntilTheLastIsDead) {
  std::mt19937_64 random(print_seed());
  std::vector<std::unique_ptr<Child>> processes;
  for (int i = 0; i < 8; ++i) processes.push_back(std::make_unique<Child>(hold_until_killed(path_)));
  while (!processes.empty()) {
    std::vector<pollfd> looks;
    for (const auto& process : processes) looks.push_back({process->line().input(), POLLIN, 0});
    ASSERT_EQ(::poll(looks.data(), looks.size(), -1), 1) << "the holder, and no other, has said so";
    EXPECT_TRUE(is_role_held(path_).value());
    processes.erase(processes.begin() + static_cast<std::ptrdiff_t>(random() % processes.size()));
  }
  EXPECT_FALSE(is_role_held(path_).value());
}

// --- Cancelling ----------------------------------------------------------------------------------

// Threads that keep every CPU busy.
class Load {
 public:
  Load() {
    for (unsigned i = 0; i < std::max(2u, std::thread::hardware_concurrency()); ++i)
      threads_.emplace_back([](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
        }
      });
  }

 private:
  std::vector<std::jthread> threads_;
};

TEST_F(RoleLockTest, WaitingCanBeCancelledAnyNumberOfTimes) {
  const Load load;
  std::mt19937_64 random(print_seed());
  const auto held = start(path_, hold);
  for (int i = 0; i < 1000; ++i) {
    const auto candidate = start(path_, [](const std::stop_token&) { ADD_FAILURE() << "not free"; });
    if (random() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
    candidate->stop();
  }
  held->stop();
  EXPECT_FALSE(is_role_held(path_).value());
}

// The role becomes free at about the time when its candidate is cancelled.
TEST_F(RoleLockTest, CancelledWhileBeingGrantedItIsGivenBack) {
  const Load load;
  std::mt19937_64 random(print_seed());
  int runs = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto held = start(path_, hold);
    const auto candidate = start(path_, [&](const std::stop_token& stop) {
      ++runs;
      hold(stop);
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
    held->stop();
    const std::int64_t cancel_at = monotonic_ns() + static_cast<std::int64_t>(random() % 50'000);
    while (monotonic_ns() < cancel_at) {
    }
    candidate->stop();
    ASSERT_FALSE(candidate->holds_role());
    ASSERT_FALSE(is_role_held(path_).value()) << "round " << i;
  }
  std::cout << "of 1000 candidates " << runs << " came to run\n";
}

TEST_F(RoleLockTest, ARunningRoleIsNotTornOffByItsCancellation) {
  for (int i = 0; i < 200; ++i) {
    std::atomic<bool> is_complete{false};
    const auto candidate = start(path_, [&](const std::stop_token& stop) {
      // Each sleep and write is a point at which a thread may be cancelled.
      while (!stop.stop_requested()) std::this_thread::sleep_for(std::chrono::microseconds(50));
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      is_complete = true;
    });
    candidate->stop();
    EXPECT_TRUE(is_complete);
  }
}

// --- fork ----------------------------------------------------------------------------------------

TEST_F(RoleLockTest, AForkedChildHasNoRoleAndLeavesTheParentsAlone) {
  auto candidate = start(path_, hold);
  Child child([&](const Line&) {
    EXPECT_FALSE(candidate->holds_role());
    candidate->stop();
    candidate.reset();
    EXPECT_TRUE(is_role_held(path_).value());
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_TRUE(candidate->holds_role());
}

TEST_F(RoleLockTest, ADeadParentsRoleIsFreeWhileItsChildLives) {
  Child parent([&](const Line& line) {
    const auto candidate = start(path_, hold);
    if (::fork() == 0) {
      line.say('c');
      line.hear();
      ::_exit(0);
    }
    ::pause();
  });
  ASSERT_EQ(parent.line().hear(), 'c');
  std::promise<void> runs;
  const auto candidate = start(path_, [&](const std::stop_token&) { runs.set_value(); });
  ASSERT_FALSE(candidate->holds_role());
  parent.kill();
  runs.get_future().wait();
  EXPECT_FALSE(parent.line().is_dead()) << "the child lives";
}

}  // namespace
}  // namespace ringtail::shm
