// Litmus tests: programs of two or three steps, one a thread, run over and over at the same moment. What came of
// each round is counted, and must be among the outcomes that are allowed.
//
// For RINGTAIL_LITMUS_SECONDS each; 0.3 unless told.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace ringtail::log {

// On which CPUs the threads run.
enum class Placing : std::uint8_t {
  apart,     // one each, as far as there are so many
  together,  // all on one
  crowded,   // anywhere, beside threads that want all CPUs for themselves
};
inline void PrintTo(Placing placing, std::ostream* out) {
  static constexpr const char* kNames[] = {"apart", "together", "crowded"};
  *out << kNames[static_cast<std::size_t>(placing)];
}

// All threads pass it at about the same time.
class LitmusGate {
 public:
  explicit LitmusGate(std::size_t threads) : threads_(threads) {}

  void pass() {
    const std::uint64_t round = round_.load();
    if (arrived_.fetch_add(1) + 1 == threads_) {
      arrived_.store(0);
      round_.store(round + 1);
      return;
    }
    for (int spins = 0; round_.load() == round; ++spins)
      if (spins > 500) std::this_thread::yield();
  }

 private:
  const std::size_t threads_;
  std::atomic<std::size_t> arrived_{0};
  std::atomic<std::uint64_t> round_{0};
};

class LitmusRun {
 public:
  LitmusRun(Placing placing, std::set<std::string> allowed)
      : placing_(placing), allowed_(std::move(allowed)), seed_(std::random_device{}()) {}

  // Runs `parts` at once, after `prepare`, until the time is up; `outcome` says what came of a round.
  void run(const std::vector<std::function<void()>>& parts, const std::function<void()>& prepare,
           const std::function<std::string()>& outcome) {
    std::cout << "seed " << seed_ << '\n';
    LitmusGate gate(parts.size());
    std::atomic<bool> ended{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 1; i < parts.size(); ++i) {
      threads.emplace_back([&, i] {
        place(i);
        std::mt19937 random(seed_ + static_cast<unsigned>(i));
        for (gate.pass(); !ended.load(); gate.pass()) {
          rest(random);
          parts[i]();
          gate.pass();
        }
      });
    }
    std::vector<std::thread> crowd;
    for (unsigned i = 0; placing_ == Placing::crowded && i < 2 * std::thread::hardware_concurrency(); ++i)
      crowd.emplace_back([&ended] {
        while (!ended.load()) std::atomic_signal_fence(std::memory_order_seq_cst);
      });
    lead(parts[0], prepare, outcome, gate);
    ended.store(true);
    gate.pass();
    for (std::thread& thread : threads) thread.join();
    for (std::thread& thread : crowd) thread.join();
    judge();
  }

 private:
  void lead(const std::function<void()>& part, const std::function<void()>& prepare,
            const std::function<std::string()>& outcome, LitmusGate& gate) {
    cpu_set_t before;
    ::sched_getaffinity(0, sizeof before, &before);
    place(0);
    std::mt19937 random(seed_);
    const char* told = std::getenv("RINGTAIL_LITMUS_SECONDS");
    const std::chrono::duration<double> time(told != nullptr ? std::atof(told) : 0.3);
    const auto begun = std::chrono::steady_clock::now();
    do {
      prepare();
      gate.pass();
      rest(random);
      part();
      gate.pass();
      ++seen_[outcome()];
    } while (std::chrono::steady_clock::now() - begun < time && !::testing::Test::HasFatalFailure());
    ::sched_setaffinity(0, sizeof before, &before);
  }

  void judge() const {
    for (const auto& [outcome, count] : seen_) {
      std::cout << count << "  " << outcome << '\n';
      EXPECT_TRUE(allowed_.contains(outcome)) << outcome << ", " << count << " times";
    }
    for (const std::string& outcome : allowed_)
      if (!seen_.contains(outcome)) std::cout << "0  " << outcome << '\n';
  }

  // This thread to its CPU of those that the process may use.
  void place(std::size_t thread) const {
    cpu_set_t allowed;
    if (placing_ == Placing::crowded || ::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    const auto cpus = static_cast<std::size_t>(CPU_COUNT(&allowed));
    std::size_t wanted = placing_ == Placing::together ? 0 : thread % cpus;
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed) || wanted-- > 0) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      ::sched_setaffinity(0, sizeof one, &one);
      return;
    }
  }
  // So that the parts meet in every order.
  static void rest(std::mt19937& random) {
    if (random() % 8 == 0) std::this_thread::yield();
    // Nanoseconds mostly, microseconds now and then.
    for (auto spins = random() % (1u << random() % 13); spins > 0; --spins)
      std::atomic_signal_fence(std::memory_order_seq_cst);
  }

  const Placing placing_;
  const std::set<std::string> allowed_;
  const unsigned seed_;
  std::map<std::string, std::uint64_t> seen_;
};

}  // namespace ringtail::log
