// What a rebalance takes the whole coordinator: of 1,000 partitions and 63 members, when a 64th joins. From
// the member's request on: until `join` has returned, and until the assignment stands in the table and every
// member has been called to look at it. Beside it what the assignor alone takes for the same members.
//
// Members are memberships without consumers around them, in this process, which also keeps the log.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "client/log_core.h"
#include "groups/assignment_input.h"
#include "groups/membership.h"
#include "groups/tenure.h"
#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::size_t kMembers = 64;
constexpr std::uint32_t kTopics = 10;
constexpr std::uint32_t kPartitions = 100;  // of each topic
constexpr const char* kGroup = "group";

double us_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

class RebalancedGroup {
 public:
  RebalancedGroup() : log_(".") {
    for (std::uint32_t t = 0; t < kTopics; ++t) {
      subscription_.topics.push_back("topic-" + std::to_string(t));
      check_or_die(Admin(log_.log())
                       .create_topic({.name = subscription_.topics.back(),
                                      .partitions = kPartitions,
                                      .configs = {{"storage", "memory"}, {"term.bytes", "64KiB"}}}));
    }
    for (std::size_t m = 0; m < kMembers; ++m) seats_.push_back(sit());
    for (std::size_t m = 0; m + 1 < kMembers; ++m) check_or_die(seats_[m]->member->join(subscription_));
    settle(kMembers - 1);
  }

  struct Times {
    double join_us, install_us;
  };
  // The last member joins; then it leaves again, and the others take what it had.
  Times rebalance() {
    groups::Membership& member = *seats_.back()->member;
    value_or_die(member.look());
    const auto begin = std::chrono::steady_clock::now();
    check_or_die(member.join(subscription_));
    Times times{us_since(begin), 0};
    while (!member.has_news()) {
    }
    times.install_us = us_since(begin);
    settle(kMembers);
    assignor_us_.push_back(assign());
    check_or_die(member.leave());
    settle(kMembers - 1);
    return times;
  }
  std::vector<double>& assignor_us() { return assignor_us_; }

 private:
  struct Seat {
    shm::OwnedSlot slot;
    std::unique_ptr<groups::Membership> member;
  };
  LogCore& core() { return *log_.log().core(); }
  const shm::GroupTableLayout& table() { return core().control().groups(); }

  std::unique_ptr<Seat> sit() {
    auto seat = std::make_unique<Seat>();
    seat->slot =
        value_or_die(shm::OwnedSlot::acquire(core().control(), core().locks(), shm::SlotRole::consumer));
    seat->member = value_or_die(groups::Membership::open(
        core().attachment(), seat->slot,
        {.group_id = kGroup, .client_id = {}, .assignor = sticky_assignor(), .auto_commit_interval = {}}));
    return seat;
  }
  // Until the first so many members have all there is.
  void settle(std::size_t members) {
    for (std::size_t held = 0; held != std::size_t{kTopics} * kPartitions || !is_stable();) {
      held = 0;
      for (std::size_t m = 0; m < members; ++m) {
        groups::Membership& member = *seats_[m]->member;
        member.beat();
        if (member.has_news())
          for (groups::Tenancy* tenancy : value_or_die(member.look()).to_give_up) member.release(tenancy);
        held += member.held().size();
      }
    }
  }
  bool is_stable() {
    const auto group = groups::find_group(core().control(), kGroup);
    return group &&
           table().groups[*group].state.load() == static_cast<std::uint32_t>(shm::GroupState::stable);
  }
  // The assignor's part alone, as if it had been asked before the last member had anything.
  double assign() {
    const auto group = groups::find_group(core().control(), kGroup);
    auto input = value_or_die(groups::load_assignment_input(core().attachment(), *group));
    input.members.back().owned.clear();
    const auto begin = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(sticky_assignor().assign(input.members, input.topics));
    return us_since(begin);
  }

  TemporaryLog log_;
  groups::Subscription subscription_;
  std::vector<std::unique_ptr<Seat>> seats_;  // a membership knows its slot by address
  std::vector<double> assignor_us_;
};

void count(benchmark::State& state, const std::string& name, std::vector<double>& values) {
  std::ranges::sort(values);
  state.counters[name + "_us"] = values[values.size() / 2];
  state.counters[name + "_min_us"] = values.front();
  state.counters[name + "_max_us"] = values.back();
}

void rebalance(benchmark::State& state) {
  RebalancedGroup group;
  std::vector<double> join_us, install_us;
  for (auto _ : state) {
    const auto times = group.rebalance();
    join_us.push_back(times.join_us);
    install_us.push_back(times.install_us);
    state.SetIterationTime(times.install_us / 1e6);
  }
  count(state, "join", join_us);
  count(state, "install", install_us);
  count(state, "assignor", group.assignor_us());
}
BENCHMARK(rebalance)->Iterations(100)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ringtail::bench
