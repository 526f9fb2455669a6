#include "shm/slots.h"

#include <set>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "support/tracer.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::array<std::uint64_t, 2> kLogId{1, 2};

class Slots : public ::testing::Test {
 protected:
  OwnedSlot acquire(SlotRole role = SlotRole::producer) {
    return OwnedSlot::acquire(control_, locks_, role).value();
  }
  Slot& slot(std::uint32_t index) { return control_.slot(index); }

  TempDir dir_;
  Control control_ = Control::open_or_create(dir_.path(), kLogId, dir_.path()).value();
  ByteLockFile locks_ = ByteLockFile::open(dir_ / "slots.lock").value();
  SlotMonitor monitor_{control_, locks_};
};

TEST_F(Slots, AreTakenInOrderSayWhoOwnsThemAndAreGivenBack) {
  {
    OwnedSlot first = acquire();
    OwnedSlot second = acquire(SlotRole::consumer);
    EXPECT_EQ(first.index(), 0u);
    EXPECT_EQ(second.index(), 1u);
    EXPECT_EQ(monitor_.state(0), SlotState::active);
    EXPECT_EQ(slot(0).pid.load(), static_cast<std::uint32_t>(::getpid()));
    EXPECT_EQ(slot(0).role.load(), 1u);
    EXPECT_EQ(slot(1).role.load(), 2u);
    EXPECT_NE(slot(0).token.load(), slot(1).token.load());
    EXPECT_NE(slot(0).name[0].load(), '\0');
    EXPECT_TRUE(*locks_.is_locked(0));
    EXPECT_EQ(control_.slots().size(), 2u);
  }
  EXPECT_EQ(monitor_.state(0), SlotState::free);
  EXPECT_FALSE(*locks_.is_locked(0));
  EXPECT_THAT(monitor_.find_deaths(), IsEmpty());
}

TEST_F(Slots, AnOwnerIsTellableFromEveryEarlierOneOfItsSlot) {
  std::set<std::uint32_t> owners;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(owners.insert(acquire().owner()).second);
  EXPECT_FALSE(owners.contains(0));
}

TEST_F(Slots, NoOperationRecursWithTheNextOwner) {
  std::set<std::uint64_t> ops;
  for (int i = 0; i < 20; ++i) {
    OwnedSlot owned = acquire();
    ASSERT_EQ(owned.index(), 0u);
    for (int j = 0; j < 3; ++j) {
      owned.announce(Phase::claiming, 5);
      EXPECT_TRUE(ops.insert(slot(0).op.load()).second);
    }
    if (i % 2 == 0) {
      owned.finish();
      continue;
    }
    owned = OwnedSlot();  // as a death
    ASSERT_THAT(monitor_.find_deaths(), ElementsAre(0u));
    monitor_.release_dead(0);
  }
}

TEST_F(Slots, TellWhatTheirOwnerIsDoing) {
  OwnedSlot owned = acquire();
  EXPECT_EQ(owned.phase(), Phase::idle);
  owned.announce(Phase::claiming, 17);
  EXPECT_EQ(op_phase(slot(0).op.load()), Phase::claiming);
  EXPECT_EQ(op_partition(slot(0).op.load()), 17u);
  owned.announce_open(17, 4096);
  EXPECT_EQ(op_phase(slot(0).op.load()), Phase::open);
  EXPECT_EQ(slot(0).open_position.load(), 4096u);
  EXPECT_FALSE(owned.given_up());
  slot(0).given_up.store(slot(0).op.load());
  EXPECT_TRUE(owned.given_up());
  EXPECT_FALSE(owned.given_up_done());
  slot(0).given_up_done.store(slot(0).op.load());
  EXPECT_TRUE(owned.given_up_done());
  owned.finish();
  EXPECT_EQ(owned.phase(), Phase::idle);
  owned.announce_fenced(Phase::helping, 3);
  EXPECT_FALSE(owned.given_up());
  EXPECT_EQ(op_phase(slot(0).op.load()), Phase::helping);
  owned.finish();
}

// A claim that is given up before its header is written is so behind it, too.
TEST_F(Slots, AClaimThatBecomesAnOpenOneIsTheSameClaim) {
  OwnedSlot owned = acquire();
  owned.announce(Phase::claiming, 17);
  slot(0).given_up.store(slot(0).op.load());
  slot(0).given_up_done.store(slot(0).op.load());
  owned.announce_open(17, 4096);
  EXPECT_TRUE(owned.given_up());
  EXPECT_TRUE(owned.given_up_done());
  owned.finish();
  owned.announce(Phase::claiming, 17);
  EXPECT_FALSE(owned.given_up());
  owned.announce_open(17, 4096);
  EXPECT_FALSE(owned.given_up());
  owned.finish();
}

TEST_F(Slots, MoveWithTheirOwner) {
  OwnedSlot first = acquire();
  OwnedSlot moved = std::move(first);
  EXPECT_EQ(moved.index(), 0u);
  moved.announce(Phase::claiming, 1);
  moved.finish();
  OwnedSlot other = acquire();
  other = std::move(moved);
  EXPECT_EQ(other.index(), 0u);
  EXPECT_EQ(monitor_.state(1), SlotState::free);
  EXPECT_EQ(monitor_.state(0), SlotState::active);
}

TEST_F(Slots, GivenBackWithinAnOperationAreLeftToTheKeeperAsAfterADeath) {
  {
    OwnedSlot owned = acquire();
    owned.announce(Phase::claiming, 2);
  }
  EXPECT_EQ(monitor_.state(0), SlotState::active);
  EXPECT_THAT(monitor_.find_deaths(), ElementsAre(0u));
  EXPECT_EQ(monitor_.state(0), SlotState::dead);
  EXPECT_THAT(monitor_.find_deaths(), IsEmpty());
  EXPECT_EQ(acquire().index(), 1u);
  EXPECT_EQ(op_phase(slot(0).op.load()), Phase::claiming);  // what the dead was doing stays to be read
  monitor_.release_dead(0);
  EXPECT_EQ(monitor_.state(0), SlotState::free);
  EXPECT_EQ(op_phase(slot(0).op.load()), Phase::idle);
  EXPECT_EQ(acquire().index(), 0u);
}

TEST_F(Slots, OfAProcessThatWasKilledAreFoundDead) {
  Child child([&](const Line& line) {
    auto locks = ByteLockFile::open(dir_ / "slots.lock");
    auto owned = OwnedSlot::acquire(control_, *locks, SlotRole::producer);
    owned->announce(Phase::claiming, 9);
    line.say(owned ? 'y' : 'n');
    line.hear();
  });
  ASSERT_EQ(child.line().hear(), 'y');
  EXPECT_THAT(monitor_.find_deaths(), IsEmpty());
  EXPECT_EQ(monitor_.state(0), SlotState::active);
  child.kill();
  EXPECT_THAT(monitor_.find_deaths(), ElementsAre(0u));
  EXPECT_EQ(op_partition(slot(0).op.load()), 9u);
}

TEST_F(Slots, AClaimerThatDiesBeforeItsLockIsGivenASecondAndNoMore) {
  control_.use_slot(0);
  slot(0).word.store(slot_word(1, SlotState::taken));
  EXPECT_THAT(monitor_.find_deaths(), IsEmpty());
  EXPECT_EQ(monitor_.state(0), SlotState::taken);
  EXPECT_EQ(acquire().index(), 1u);
  std::this_thread::sleep_for(std::chrono::milliseconds(1'100));
  EXPECT_THAT(monitor_.find_deaths(), IsEmpty());
  EXPECT_EQ(monitor_.state(0), SlotState::free);
}

TEST_F(Slots, ASlotWhoseByteIsStillLockedIsPassedOver) {
  auto others = ByteLockFile::open(dir_ / "slots.lock").value();
  ASSERT_TRUE(*others.lock(0));
  EXPECT_EQ(acquire().index(), 1u);
  EXPECT_EQ(monitor_.state(0), SlotState::free);
}

TEST_F(Slots, WhenAllAreTakenSayWhatToDo) {
  std::vector<OwnedSlot> owned;
  for (std::uint32_t i = 0; i < kMaxSlots; ++i) owned.push_back(acquire());
  auto refused = OwnedSlot::acquire(control_, locks_, SlotRole::producer);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::limit_exceeded);
  EXPECT_THAT(refused.error().message, HasSubstr("512 slots are taken; close some"));
  owned.pop_back();
  EXPECT_EQ(acquire().index(), kMaxSlots - 1);
}

// Threads share the lock file, and a keeper looks on.
TEST_F(Slots, ManyThreadsNeverShareOneAndNobodyIsTakenForDead) {
  std::array<std::atomic<int>, kMaxSlots> users{};
  std::vector<std::thread> threads;
  std::atomic<bool> ended{false};
  std::thread keeper([&] {
    while (!ended.load()) EXPECT_THAT(monitor_.find_deaths(), IsEmpty());
  });
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2'000; ++i) {
        OwnedSlot owned = acquire();
        ASSERT_EQ(users[owned.index()].fetch_add(1), 0);
        ASSERT_EQ(monitor_.state(owned.index()), SlotState::active);
        users[owned.index()].fetch_sub(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ended.store(true);
  keeper.join();
}

// They do not exclude each other by the lock: one that takes a slot between another's word and its unlocking would
// have the slot without the lock.
TEST_F(Slots, ThreadsThatShareTheLockFileTakeAndGiveBackOneBehindTheOther) {
  auto owned = std::make_unique<OwnedSlot>(acquire());
  const std::uint32_t index = owned->index();
  auto alone = locks_.one_at_a_time();
  std::atomic<int> done{0};
  std::thread giving([&] { owned.reset(), ++done; });
  std::thread taking([&] { acquire(), ++done; });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(done.load(), 0);
  EXPECT_EQ(monitor_.state(index), SlotState::active);
  EXPECT_EQ(monitor_.state(index + 1), SlotState::free);
  alone.unlock();
  giving.join();
  taking.join();
}

// One that takes a slot and is stopped at the `stop`-th beginning or end of a system call of that.
struct Sleeper {
  explicit Sleeper(std::uint64_t stop) { came = tracer.lead(stop) == stop; }

  TempDir dir;
  Control control = Control::open_or_create(dir.path(), kLogId, dir.path()).value();
  ByteLockFile locks = ByteLockFile::open(dir / "slots.lock").value();
  SlotMonitor monitor{control, locks};
  test::SharedPage<std::atomic<std::uint32_t>> taken;
  test::Process process{"sleeper", [this] {
                          auto own = ByteLockFile::open(dir / "slots.lock").value();
                          test::offer_calls(std::array<long, 4>{SYS_openat, SYS_read, SYS_close, SYS_fcntl});
                          const auto slot = OwnedSlot::acquire(control, own, SlotRole::consumer).value();
                          taken->store(slot.owner());
                          return 0;
                        }};
  test::Tracer tracer{process};
  bool came = false;
};

// For longer than a claimer is waited for.
TEST_F(Slots, WhoStandsStillWhileTakingOneTakesNothingFromTheNextOwner) {
  std::vector<std::unique_ptr<Sleeper>> sleepers;
  do sleepers.push_back(std::make_unique<Sleeper>(sleepers.size() + 1));
  while (sleepers.back()->came);
  sleepers.pop_back();
  ASSERT_GE(sleepers.size(), 4u);
  for (const auto& sleeper : sleepers) EXPECT_THAT(sleeper->monitor.find_deaths(), IsEmpty());
  std::this_thread::sleep_for(std::chrono::milliseconds(1'100));
  for (std::size_t i = 0; i < sleepers.size(); ++i) {
    Sleeper& sleeper = *sleepers[i];
    SCOPED_TRACE(fmt::format("stop {}", i + 1));
    EXPECT_THAT(sleeper.monitor.find_deaths(), IsEmpty());
    const OwnedSlot next = OwnedSlot::acquire(sleeper.control, sleeper.locks, SlotRole::producer).value();
    const auto is_its_own = [&] {
      const Slot& slot = sleeper.control.slot(next.index());
      return slot.word.load() == next.word() &&
             slot.role.load() == static_cast<std::uint32_t>(SlotRole::producer) &&
             slot.pid.load() == static_cast<std::uint32_t>(::getpid()) &&
             *sleeper.locks.is_locked(next.index());
    };
    EXPECT_TRUE(is_its_own());
    while (sleeper.tracer.next()) {
    }
    EXPECT_EQ(sleeper.tracer.exit_code(), 0);
    EXPECT_TRUE(is_its_own());
    EXPECT_NE(sleeper.taken->load(), 0u);
    EXPECT_NE(sleeper.taken->load(), next.owner());
    EXPECT_THAT(sleeper.monitor.find_deaths(), IsEmpty());  // it has given back what it took
  }
}

}  // namespace
}  // namespace ringtail::shm
