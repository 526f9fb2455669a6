// The keeper dies at each of its system calls: while it recovers a log and flushes it; and while it gives
// up the claim of a producer that stands still, and replaces the ring for that. Whatever it leaves, the
// next one goes on from there, and the log holds what was sent.
//
// RINGTAIL_CRASH_STEPS: at how many of the calls (100 unless told); 0: at all of them.
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include <chrono>
#include <csignal>
#include <random>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

enum class Part : std::uint8_t { from_recovery, from_give_up };

class KeeperStepTest : public ::testing::TestWithParam<Part> {
 protected:
  struct Shared {
    ProducerPage worker;
    ProducerPage sleeper;
    std::atomic<bool> attached{false};
    std::atomic<bool> stands{false};
    std::atomic<bool> left{false};
  };

  std::string report() const {
    return peek_->describe() + fmt::format("worker: '{}' {} of {}, sleeper: '{}'\n", shared_->worker.error,
                                           shared_->worker.returned.load(), shared_->worker.attempted.load(),
                                           shared_->sleeper.error);
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(done, what, {}, [this] { return report(); });
  }

  // Recovers the log, appends to it, and once the sleeper stands in a claim, appends behind that.
  int work(std::uint64_t records) {
    ProducerPage& page = shared_->worker;
    auto log = scene_.open(KeeperMode::embedded);
    if (!log) return give_up(page.error, to_string(log.error()));
    auto producer = Producer::open(*log, {.topic = kTopic});
    if (!producer) return give_up(page.error, to_string(producer.error()));
    const Load load{.by = Load::By::all, .records = ~std::uint64_t{0}, .durable_every = 64};
    std::uint64_t number = page.attempted.load();
    for (const std::uint64_t end = number + records; number < end;) {
      auto sent = send_some(*producer, load, 0, number, page);
      if (!sent) return give_up(page.error, to_string(producer->error()));
      number += *sent;
    }
    shared_->attached.store(true);
    while (!shared_->stands.load()) ::usleep(100);
    const Load behind{.by = Load::By::send, .records = ~std::uint64_t{0}};
    for (int i = 0; i < 20; ++i, ++number)
      if (!send_some(*producer, behind, 0, number, page))
        return give_up(page.error, to_string(producer->error()));
    shared_->left.store(true);
    for (;;) ::pause();
  }

  int sleep_in_claim() {
    ProducerPage& page = shared_->sleeper;
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(page.error, to_string(log.error()));
    auto producer = Producer::open(*log, {.topic = kTopic});
    if (!producer) return give_up(page.error, to_string(producer.error()));
    const Value value(1, page.attempted.load());
    auto claim = producer->try_claim(value.size());
    if (!claim) return give_up(page.error, to_string(producer->error()));
    shared_->stands.store(true);
    for (;;) ::pause();
  }

  // Leaves a log with records in its ring, and a claim in their midst whose owner lives; nobody keeps it.
  bool leave_work(Process& sleeper) {
    for (auto* flag : {&shared_->attached, &shared_->stands, &shared_->left}) flag->store(false);
    const std::uint64_t records = 1 + random_() % 900;
    Process worker("worker", [this, records] { return work(records); });
    if (!wait([this] { return shared_->attached.load(); }, "the log was recovered and appended to"))
      return false;
    sleeper = Process("sleeper", [this] { return sleep_in_claim(); });
    if (!wait([this] { return shared_->left.load(); }, "there is a claim, and records behind it"))
      return false;
    worker.kill();
    truth_.note_death(0, shared_->worker);
    return true;
  }

  bool is_replaced(std::uint64_t retired_before) const {
    if (peek_->partition().retired_rings.load() == retired_before) return false;
    for (const auto& file : std::filesystem::directory_iterator(scene_.shm_folder()))
      if (file.path().extension() == ".retired") return false;
    return true;
  }

  // Waiting, and looking for deaths, are as frequent as time allows; they change nothing.
  static bool counts(pid_t thread) {
    user_regs_struct registers{};
    ::ptrace(PTRACE_GETREGS, thread, nullptr, &registers);
    return registers.orig_rax != SYS_futex && registers.orig_rax != SYS_fcntl;
  }

  bool has_given_up() const {
    return std::ranges::any_of(peek_->layout().slots, [](const shm::Slot& slot) {
      const std::uint64_t op = slot.op.load();
      return shm::op_phase(op) == shm::Phase::open && slot.given_up.load() == op;
    });
  }

  // Runs a keeper until it has made `calls` system calls (their beginnings and ends count) in the part that
  // is tested, or has replaced the ring and flushed the old one. Returns how many it made.
  std::uint64_t keep_for(std::uint64_t calls) {
    const std::uint64_t retired = peek_->partition().retired_rings.load();
    Process keeper("keeper", [this] {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::raise(SIGSTOP);
      return keep(scene_);
    });
    keeper.wait_for_stop();
    ::ptrace(PTRACE_SETOPTIONS, keeper.pid(), nullptr,
             PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
    std::uint64_t made = 0;
    bool begun = GetParam() == Part::from_recovery;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(100);
    ::ptrace(PTRACE_SYSCALL, keeper.pid(), nullptr, nullptr);
    while (made < calls && !is_replaced(retired)) {
      int status = 0;
      const pid_t thread = ::waitpid(-1, &status, __WALL);
      if (thread == keeper.pid() && !WIFSTOPPED(status)) {
        ADD_FAILURE() << "the keeper ended by itself\n" << report();
        return 0;
      }
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "the keeper comes to no end\n" << report();
        return 0;
      }
      if (!WIFSTOPPED(status)) continue;
      begun = begun || has_given_up();
      if (begun && WSTOPSIG(status) == (SIGTRAP | 0x80) && counts(thread)) ++made;
      ::ptrace(PTRACE_SYSCALL, thread, nullptr, nullptr);
    }
    keeper.signal(SIGKILL);
    // All its threads tell of their ends, its first one last.
    for (int status = 0; ::waitpid(-1, &status, __WALL) != keeper.pid() || WIFSTOPPED(status);) {
    }
    keeper.forget();
    return made;
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  Truth truth_;
  std::optional<Peek> peek_;
};

TEST_P(KeeperStepTest, NoSystemCallIsABadPlaceToDie) {
  random_.seed(test::print_seed());
  ASSERT_NO_FATAL_FAILURE(scene_.create_topic(
      {{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"segment.bytes", "1MiB"}, {"claim.timeout.ms", "10"}}));
  peek_.emplace(scene_);
  Process sleeper;
  ASSERT_TRUE(leave_work(sleeper));
  const std::uint64_t length = keep_for(~std::uint64_t{0});
  ASSERT_FALSE(HasFailure());
  const std::uint64_t points = test::number_from_environment("RINGTAIL_CRASH_STEPS", 100);
  const std::uint64_t stride = points == 0 ? 1 : std::max<std::uint64_t>(1, length / points);
  for (std::uint64_t k = 1 + random_() % stride; k < length + stride; k += stride) {
    SCOPED_TRACE(fmt::format("killed at system call {} of about {}", k, length));
    sleeper.kill();
    ASSERT_TRUE(leave_work(sleeper));
    keep_for(k);
    ASSERT_FALSE(HasFailure());
  }
  sleeper.kill();

  SharedPage<Ledger> all;
  ASSERT_NO_FATAL_FAILURE(read_all(scene_, *all));
  const std::array<std::uint64_t, 1> sent{shared_->worker.attempted.load()};
  EXPECT_EQ(all->compare(truth_, sent), "");
  ASSERT_NO_FATAL_FAILURE(verify_files(scene_, *all));
  for (const auto& file : std::filesystem::directory_iterator(scene_.shm_folder()))
    EXPECT_NE(file.path().extension(), ".tmp") << "left behind: " << file.path();
  std::cout << length << " system calls, " << sent[0] << " records, " << all->skipped_offsets
            << " offsets of holes, " << peek_->partition().retired_rings.load() << " rings retired\n";
}

INSTANTIATE_TEST_SUITE_P(Crash, KeeperStepTest, ::testing::Values(Part::from_recovery, Part::from_give_up),
                         [](const auto& part) {
                           return std::string(part.param == Part::from_recovery ? "FromRecovery"
                                                                                : "FromGiveUp");
                         });

}  // namespace
}  // namespace ringtail::crash
