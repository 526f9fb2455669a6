// Three groups read what eight producers send, while their members are killed, stopped for longer than
// max.poll.interval.ms, and added, at random. In the end every group has processed every record at least
// once, never past one that it had not; no commit that was told to count is taken back; and lag is 0. Groups
// that copy in transactions leave each record once in their copy, in its order. Those that commit before they
// process have processed none twice.
//
// RINGTAIL_CRASH_RECORDS: records per producer (3000 unless told).
// RINGTAIL_CRASH_RATE: how many of them it sends a second (1000 unless told).
#include <algorithm>
#include <array>
#include <csignal>
#include <random>

#include "crash/group_copier.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kMembers = 4;  // of a group, to begin with
constexpr std::uint64_t kRate = 1000;  // records per second and producer, unless told

// Who may hold the keeper's role, and with it that of the coordinator.
enum class Keepers : std::uint8_t {
  apart,         // a process that is not killed
  apart_killed,  // one of three, which is killed
  anyone,        // every member
};

// What members do with records: process them and commit, or copy them in transactions.
enum class Work : std::uint8_t { process, copy, copy_durably };

struct Variant {
  const char* name;
  Commits commits = Commits::async;
  Keepers keepers = Keepers::apart;
  Work work = Work::process;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class GroupKillTest : public ::testing::TestWithParam<Variant> {
 protected:
  struct Shared {
    std::array<ProducerPage, kMaxProducers> producers;
    std::array<GroupLedger, kGroups> groups;
    std::array<CopyCounts, kGroups> copies;
    std::array<std::atomic<std::uint64_t>, kPartitions> ends{};
    std::atomic<std::uint64_t> lag{0};
    char error[512] = {};
  };
  struct Seat {
    Process process;
    std::optional<Clock::time_point> stopped_until;
    bool leaving = false;
  };

  void SetUp() override {
    random_.seed(test::print_seed());
    records_ = std::min<std::uint64_t>(test::number_from_environment("RINGTAIL_CRASH_RECORDS", 3'000),
                                       kMostOffsets / kMaxProducers);
    rate_ = test::number_from_environment("RINGTAIL_CRASH_RATE", kRate);
    {
      auto log = scene_.open(KeeperMode::embedded);
      ASSERT_TRUE(log) << to_string(log.error());
      std::vector<std::string> topics{kTopic};
      for (std::uint32_t g = 0; copies() && g < kGroups; ++g) topics.push_back(copies_of(g));
      for (const std::string& topic : topics) {
        const Status created = Admin(*log).create_topic(
            {.name = topic,
             .partitions = kPartitions,
             .configs = {{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"segment.bytes", "1MiB"}}});
        ASSERT_TRUE(created) << to_string(created.error());
      }
    }
    peek_.emplace(scene_);
    if (GetParam().keepers != Keepers::anyone) start_keeper(0);
    if (GetParam().keepers == Keepers::apart_killed)
      for (std::uint32_t i = 1; i < keepers_.size(); ++i) start_keeper(i);
    for (std::uint32_t g = 0; g < kGroups; ++g)
      for (std::uint32_t s = 0; s < kMembers; ++s) start_member(g, s);
    for (std::uint32_t i = 0; i < kMaxProducers; ++i)
      producers_[i] = Process(fmt::format("producer {}", i), [this, i] {
        return produce_with_keys(scene_, i, records_, rate_, shared_->producers[i]);
      });
  }

  static bool copies() { return GetParam().work != Work::process; }

  std::string report() const {
    std::string text =
        fmt::format("keeper {}, lag {}, '{}'\n", peek_->keeper_pid(), shared_->lag.load(), shared_->error);
    for (std::uint32_t g = 0; g < kGroups; ++g) {
      const GroupLedger& ledger = shared_->groups[g];
      text += fmt::format("{}: {} records, {} of them again\n", group_name(g), ledger.records.load(),
                          ledger.repeats.load());
      for (std::uint32_t s = 0; s < kSeats; ++s)
        text += fmt::format("  seat {}: pid {}, error '{}'\n", s, seats_[g][s].process.pid(),
                            ledger.seats[s].error);
    }
    for (const ProducerPage& page : shared_->producers)
      text += fmt::format("producer: {} of {}, error '{}'\n", page.returned.load(), records_, page.error);
    return text;
  }
  std::uint64_t sent() const {
    std::uint64_t sum = 0;
    for (const ProducerPage& page : shared_->producers) sum += page.returned.load();
    return sum;
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(
        done, what,
        [this] {
          std::uint64_t sum = sent() + peek_->keeper_term();
          for (const GroupLedger& ledger : shared_->groups) sum += ledger.records.load();
          return sum;
        },
        [this] { return report(); });
  }

  void start_keeper(std::uint32_t i) {
    keepers_[i] = Process(fmt::format("keeper {}", i), [this] { return keep(scene_); });
  }
  void start_member(std::uint32_t group, std::uint32_t seat) {
    GroupLedger& ledger = shared_->groups[group];
    ledger.seats[seat].leave.store(false);
    const GroupMemberOptions options{
        .mode = GetParam().keepers == Keepers::anyone ? KeeperMode::embedded : KeeperMode::none,
        .commits = GetParam().commits,
        .most_us_per_record = 300,
        .durable = GetParam().work == Work::copy_durably};
    seats_[group][seat].leaving = false;
    seats_[group][seat].stopped_until.reset();
    seats_[group][seat].process =
        Process(fmt::format("member {} of group {}", seat, group), [this, options, group, seat, &ledger] {
          return copies() ? be_group_copier(scene_, options, group, seat, ledger, shared_->copies[group])
                          : be_group_member(scene_, options, group, seat, ledger);
        });
  }

  // --- Blows ---

  void strike() {
    const auto group = static_cast<std::uint32_t>(random_() % kGroups);
    const auto at = static_cast<std::uint32_t>(random_() % kSeats);
    Seat& seat = seats_[group][at];
    if (!seat.process.is_running()) {
      start_member(group, at);
      ++added_;
      return;
    }
    const std::uint64_t how = random_() % 8;
    if (how == 0) {
      shared_->groups[group].seats[at].leave.store(true);
      seat.leaving = true;
      ++left_;
    } else if (how < 4 && !seat.stopped_until) {
      seat.process.signal(SIGSTOP);
      seat.stopped_until = Clock::now() + std::chrono::milliseconds(random_() % 400);
      ++stopped_;
    } else {
      seat.process.kill();
      seat.stopped_until.reset();
      seat.leaving = false;
      ++killed_;
      if (random_() % 4 != 0) start_member(group, at);
    }
  }
  void kill_keeper() {
    const pid_t keeper = peek_->keeper_pid();
    for (std::uint32_t i = 0; i < keepers_.size(); ++i) {
      if (!keepers_[i].is_running() || keepers_[i].pid() != keeper) continue;
      keepers_[i].kill();
      start_keeper(i);
      ++keepers_killed_;
    }
    for (std::uint32_t g = 0; g < kGroups; ++g)
      for (std::uint32_t s = 0; s < kSeats; ++s) {
        if (!seats_[g][s].process.is_running() || seats_[g][s].process.pid() != keeper) continue;
        seats_[g][s].process.kill();
        start_member(g, s);
        ++keepers_killed_;
      }
  }
  void let_go_on(bool all) {
    for (auto& group : seats_)
      for (Seat& seat : group) {
        if (seat.stopped_until && (all || Clock::now() >= *seat.stopped_until)) {
          seat.process.signal(SIGCONT);
          seat.stopped_until.reset();
        }
        if (seat.leaving) {
          EXPECT_EQ(seat.process.poll(), 0) << report();
        }
      }
  }
  // Until all has been sent.
  void strike_again_and_again() {
    auto next = Clock::now();
    auto done = [&] {
      let_go_on(false);
      if (Clock::now() >= next) {
        next = Clock::now() + std::chrono::milliseconds(random_() % 40);
        if (GetParam().keepers != Keepers::apart && random_() % 8 == 0)
          kill_keeper();
        else
          strike();
      }
      return std::ranges::all_of(shared_->producers, [](const auto& page) { return page.done.load(); });
    };
    if (!wait(done, "all has been sent")) return;
    let_go_on(true);
    for (std::uint32_t g = 0; g < kGroups; ++g)
      for (std::uint32_t s = 0; s < kSeats; ++s)
        if (seats_[g][s].leaving) {
          EXPECT_EQ(seats_[g][s].process.wait(), 0) << report();
        }
  }

  // --- What is true in the end ---

  // Notes the log's ends and the lag of all groups, until there is none.
  int watch_lag() {
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(shared_->error, to_string(log.error()));
    const Admin admin(*log);
    auto topic = admin.describe_topic(kTopic);
    if (!topic) return give_up(shared_->error, to_string(topic.error()));
    for (std::uint32_t p = 0; p < kPartitions; ++p)
      shared_->ends[p].store(topic->partitions[p].log_end_offset.value());
    for (std::uint64_t lag = 1; lag != 0; ::usleep(1000)) {
      lag = 0;
      for (std::uint32_t g = 0; g < kGroups; ++g) {
        auto group = admin.describe_group(group_name(g));
        if (!group && group.error().code == Code::not_found) {
          ++lag;  // nobody has committed, and nobody is a member now
          continue;
        }
        if (!group) return give_up(shared_->error, to_string(group.error()));
        if (group->partitions.size() < kPartitions || group->state != GroupState::stable) ++lag;
        for (const auto& partition : group->partitions) lag += partition.lag;
      }
      shared_->lag.store(lag);
    }
    return 0;
  }
  void check_group(std::uint32_t group) const {
    for (const auto& seat : shared_->groups[group].seats) EXPECT_STREQ(seat.error, "");
    if (GetParam().commits == Commits::before)
      return;  // what its dead had committed and not processed is lost
    for (std::uint32_t p = 0; p < kPartitions; ++p) {
      const auto& processed = shared_->groups[group].partitions[p].processed;
      const std::uint64_t end = shared_->ends[p].load();
      std::uint64_t first = 0;
      while (first < end && processed[first].load() != 0) ++first;
      EXPECT_EQ(first, end) << group_name(group) << ", partition " << p << ": not processed";
    }
  }
  int compare() {
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(shared_->error, to_string(log.error()));
    for (std::uint32_t g = 0; g < kGroups; ++g)
      if (const std::string wrong = compare_copies(*log, g); !wrong.empty())
        return give_up(shared_->error, wrong);
    return 0;
  }
  // What was sent is what there is.
  void check_log() const {
    std::uint64_t there = 0;
    for (const auto& end : shared_->ends) there += end.load();
    EXPECT_EQ(there, records_ * kMaxProducers);
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  std::uint64_t records_ = 0, rate_ = 0;
  std::optional<Peek> peek_;
  std::array<Process, 3> keepers_;
  std::array<Process, kMaxProducers> producers_;
  std::array<std::array<Seat, kSeats>, kGroups> seats_;
  int killed_ = 0, stopped_ = 0, added_ = 0, left_ = 0, keepers_killed_ = 0;
};

TEST_P(GroupKillTest, EveryGroupProcessesRecordsAsItIsMeantTo) {
  ASSERT_FALSE(HasFatalFailure());
  strike_again_and_again();
  ASSERT_FALSE(HasFailure());
  for (Process& producer : producers_) EXPECT_EQ(producer.wait(), 0) << report();
  if (GetParam().keepers == Keepers::anyone) start_keeper(0);
  for (std::uint32_t g = 0; g < kGroups; ++g)
    if (!seats_[g][0].process.is_running()) start_member(g, 0);
  Process watcher("watcher", [this] { return watch_lag(); });
  const auto has_ended = [&] {
    watcher.poll();
    return !watcher.is_running();
  };
  ASSERT_TRUE(wait(has_ended, "no group lags"));
  ASSERT_EQ(watcher.wait(), 0) << report();
  for (std::uint32_t g = 0; g < kGroups; ++g) check_group(g);
  check_log();
  if (copies()) {
    EXPECT_EQ(Process("comparer", [this] { return compare(); }).wait(), 0) << report();
  }
  std::cout << killed_ << " members killed, " << stopped_ << " stopped, " << added_ << " added, " << left_
            << " left, " << keepers_killed_ << " keepers killed\n";
  for (std::uint32_t g = 0; g < kGroups; ++g) {
    const GroupLedger& ledger = shared_->groups[g];
    std::cout << group_name(g) << ": " << ledger.records.load() << " records, " << ledger.repeats.load()
              << " of them again, in " << ledger.tenancies.load() << " tenancies, " << ledger.refused.load()
              << " commits refused\n";
    if (const CopyCounts& counts = shared_->copies[g]; copies())
      std::cout << "  transactions: " << counts.committed.load() << " committed, " << counts.aborted.load()
                << " aborted, " << counts.fenced.load() << " fenced\n";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Crash, GroupKillTest,
    ::testing::Values(
        Variant{.name = "AutoCommit", .commits = Commits::automatically}, Variant{.name = "CommitAsync"},
        Variant{.name = "CommitSync", .commits = Commits::sync},
        Variant{.name = "AutoCommitAndKeeper",
                .commits = Commits::automatically,
                .keepers = Keepers::apart_killed},
        Variant{.name = "CommitAsyncAndKeeper", .keepers = Keepers::apart_killed},
        Variant{.name = "CommitSyncAndKeeper", .commits = Commits::sync, .keepers = Keepers::apart_killed},
        Variant{.name = "AutoCommitAndAnyone", .commits = Commits::automatically, .keepers = Keepers::anyone},
        Variant{.name = "CommitAsyncAndAnyone", .keepers = Keepers::anyone},
        Variant{.name = "CommitSyncAndAnyone", .commits = Commits::sync, .keepers = Keepers::anyone},
        Variant{.name = "CommitBefore", .commits = Commits::before},
        Variant{.name = "CommitBeforeAndAnyone", .commits = Commits::before, .keepers = Keepers::anyone},
        Variant{.name = "Transactions", .work = Work::copy},
        Variant{.name = "TransactionsAndKeeper", .keepers = Keepers::apart_killed, .work = Work::copy},
        Variant{.name = "TransactionsAndAnyone", .keepers = Keepers::anyone, .work = Work::copy},
        Variant{.name = "DurableTransactions", .work = Work::copy_durably},
        Variant{
            .name = "DurableTransactionsAndAnyone", .keepers = Keepers::anyone, .work = Work::copy_durably}),
    [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace ringtail::crash
