// The coordinator of consumer groups dies at some moment of its work on a group: one member of three was
// killed, another asks to join, a third waits for its commit to be on disk. Whatever the coordinator leaves,
// the next one goes on from there: the group's members share the partitions, no record is passed over, and
// no commit taken back.
//
// RINGTAIL_CRASH_STEPS: how many of them die (60 unless told).
#include <array>
#include <chrono>
#include <csignal>
#include <random>

#include "crash/group_scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr std::uint32_t kGroup = 0;

class GroupCoordinatorTest : public ::testing::Test {
 protected:
  struct Shared {
    GroupLedger ledger;
    std::atomic<std::uint64_t> asked{0};  // for so many records in each partition
    std::atomic<std::uint64_t> sent{0};
    char error[512] = {};
  };

  void SetUp() override {
    random_.seed(test::print_seed());
    {
      auto log = scene_.open(KeeperMode::embedded);
      ASSERT_TRUE(log) << to_string(log.error());
      const Status created = Admin(*log).create_topic(
          {.name = kTopic, .partitions = kPartitions, .configs = {{"term.bytes", "64KiB"}}});
      ASSERT_TRUE(created) << to_string(created.error());
    }
    peek_.emplace(scene_);
    for (Process& keeper : keepers_) start_keeper(keeper);
    producer_ = Process("producer", [this] { return produce_on_demand(); });
    for (std::uint32_t seat = 0; seat < 3; ++seat) start_member(seat);
    ASSERT_TRUE(wait([this] { return is_shared_by(3); }, "three members share the partitions"));
  }

  std::string report() const {
    std::string text =
        fmt::format("keeper {}, generation {}, state {}, members {}, sent {} of {} '{}'\n",
                    peek_->keeper_pid(), group().generation.load(), group().state.load(),
                    group().members.load(), shared_->sent.load(), shared_->asked.load(), shared_->error);
    text += fmt::format("commits wanted {}, done {}\n", group().commits_wanted.load(),
                        group().commits_done.load());
    for (std::uint32_t i = 0; i <= kPartitions; ++i) {
      const shm::Partition& p = peek_->layout().partitions[i];
      text += fmt::format("log of partition {}: state {}, durable {} = offset {}, '{}'\n", i, p.state.load(),
                          p.durable_position.load(), p.durable_offset.load(),
                          reinterpret_cast<const char*>(p.failure_text.data()));
    }
    for (const auto& seat : shared_->ledger.seats) text += fmt::format("seat: '{}'\n", seat.error);
    const shm::GroupTableLayout& table = peek_->layout().groups;
    for (std::uint32_t i = 0; i < kPartitions; ++i)
      text += fmt::format(
          "partition {}: meant for {}, owner {}, committed {}\n", table.partitions[i].partition.load(),
          shm::assignment_owner(table.assignments[i].load()),
          shm::tenure_owner(table.partitions[i].tenure.load()), table.partitions[i].committed.load());
    return text;
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(done, what, {}, [this] { return report(); });
  }

  // --- Children ---

  void start_keeper(Process& keeper) {
    keeper = Process("keeper", [this] { return keep(scene_); });
  }
  void start_member(std::uint32_t seat) {
    shared_->ledger.seats[seat].ready.store(false);
    const GroupMemberOptions options{.commits = Commits::sync,
                                     .max_poll_interval = std::chrono::seconds(100)};
    members_[seat] = Process(fmt::format("member {}", seat), [this, options, seat] {
      return be_group_member(scene_, options, kGroup, seat, shared_->ledger);
    });
  }
  int produce_on_demand() {
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(shared_->error, to_string(log.error()));
    auto producer = Producer::open(*log, {.topic = kTopic});
    if (!producer) return give_up(shared_->error, to_string(producer.error()));
    for (std::uint64_t number = 0;; ++number) {
      while (shared_->asked.load() <= number) ::usleep(100);
      for (std::uint32_t p = 0; p < kPartitions; ++p)
        if (auto sent = producer->send({.value = Value(p, number), .partition = PartitionId(p)}); !sent)
          return give_up(shared_->error, to_string(producer->error()));
      shared_->sent.store(number + 1);
    }
  }

  // --- What can be seen ---

  const shm::Group& group() const { return peek_->layout().groups.groups[0]; }
  bool is_shared_by(std::uint32_t members) const {
    return group().members.load() == members &&
           group().state.load() == static_cast<std::uint32_t>(shm::GroupState::stable);
  }
  bool is_asked() const {
    return std::ranges::any_of(peek_->layout().members, [](const shm::Member& member) {
      return member.request.load() != member.answered.load();
    });
  }
  // Everything asked for has come to the group, and is committed.
  bool is_all_committed() const {
    return std::ranges::all_of(shared_->ledger.partitions, [this](const GroupLedger::Partition& partition) {
      return partition.acknowledged.load() == shared_->asked.load();
    });
  }
  bool is_settled() const {
    return is_all_committed() && is_shared_by(3) && !is_asked() &&
           group().commits_done.load() == group().commits_wanted.load();
  }

  // --- Deaths ---

  // The one that holds the role, once its log is recovered: who joins waits for that.
  Process* keeper() {
    for (Process& keeper : keepers_)
      if (keeper.pid() == peek_->keeper_pid()) return &keeper;
    return nullptr;
  }

  // With a death, a join and a commit pending, lets the coordinator work for a moment, then kills it.
  void kill_within_a_rebalance() {
    if (!wait([this] { return keeper() != nullptr; }, "somebody has become the keeper")) return;
    Process& victim = *keeper();
    victim.signal(SIGSTOP);
    victim.wait_for_stop();  // until then it may answer who asks below
    const std::uint32_t joiner = std::exchange(free_, (free_ + 1) % members_.size());
    members_[free_].kill();
    start_member(joiner);
    shared_->asked.fetch_add(1);
    if (!wait([this] { return is_asked(); }, "a member asks to join")) return;
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(random_() % 1000);
    victim.signal(SIGCONT);
    while (std::chrono::steady_clock::now() < until) {
    }
    victim.kill();
    answered_ += is_asked() ? 0 : 1;
    start_keeper(victim);
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  std::optional<Peek> peek_;
  std::array<Process, 2> keepers_;
  Process producer_;
  std::array<Process, 4> members_;
  std::uint32_t free_ = 3;  // the seat nobody has
  int answered_ = 0;        // joins, before the coordinator died
};

TEST_F(GroupCoordinatorTest, NoMomentOfARebalanceIsABadOneToDie) {
  ASSERT_FALSE(HasFatalFailure());
  const std::uint64_t deaths = test::number_from_environment("RINGTAIL_CRASH_STEPS", 60);
  for (std::uint64_t k = 0; k < deaths; ++k) {
    SCOPED_TRACE(fmt::format("death {}", k));
    kill_within_a_rebalance();
    ASSERT_FALSE(HasFailure());
    ASSERT_TRUE(wait([this] { return is_settled(); }, "the group goes on"));
  }
  for (const auto& seat : shared_->ledger.seats) EXPECT_STREQ(seat.error, "");
  std::cout << deaths << " deaths, " << answered_ << " of them behind the answer, "
            << shared_->ledger.records.load() << " records, " << shared_->ledger.repeats.load()
            << " of them again\n";
}

}  // namespace
}  // namespace ringtail::crash
