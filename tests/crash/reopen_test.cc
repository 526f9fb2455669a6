// All processes of a log are killed at once, again and again. While shared memory survives, every record
// whose send returned is there. When it is gone too, as after a reboot, the log ends at a prefix that
// holds every record whose durability was waited for.
#include <csignal>
#include <random>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr std::uint32_t kProducers = 4;

class ReopenTest : public ::testing::TestWithParam<bool> {  // whether shared memory is lost
 protected:
  // Everybody sends, stands by for the keeper's role, and is killed in the middle of it.
  void run_and_kill_all(std::uint64_t sends) {
    const std::uint64_t before = sent();
    std::vector<Process> everybody;
    for (std::uint32_t i = 0; i < kProducers; ++i)
      everybody.emplace_back(fmt::format("producer {}", i), [this, i] {
        // Half of them never wait.
        const Load load{
            .by = Load::By::all, .records = ~std::uint64_t{0}, .durable_every = i % 2 == 0 ? 100u : 0u};
        return produce(scene_, KeeperMode::embedded, load, i, (*pages_)[i]);
      });
    wait_until([&] { return sent() >= before + sends; }, "enough has been sent", [this] { return sent(); },
               [this] { return Peek(scene_).describe() + (*pages_)[0].error; });
    ::usleep(static_cast<useconds_t>(random_() % 3000));
    for (const Process& process : everybody) process.signal(SIGKILL);
    for (Process& process : everybody) process.wait();
  }
  std::uint64_t sent() const {
    std::uint64_t sum = 0;
    for (const ProducerPage& page : *pages_) sum += page.returned.load();
    return sum;
  }

  // Reads the whole log and compares it with what was sent.
  void check(Ledger& all) {
    std::vector<std::uint64_t> numbers;
    for (std::uint32_t i = 0; i < kProducers; ++i) {
      ProducerPage& page = (*pages_)[i];
      truth_.note_death(i, page);
      numbers.push_back(page.attempted.load());
    }
    ASSERT_NO_FATAL_FAILURE(read_all(scene_, all));
    if (GetParam()) {
      // What is behind the end was never there; the next round goes on from it.
      for (std::uint32_t i = 0; i < kProducers; ++i) {
        ProducerPage& page = (*pages_)[i];
        EXPECT_LE(page.durable.load(), all.next[i]) << "producer " << i << " lost durable records";
        EXPECT_LE(all.next[i], numbers[i]);
        numbers[i] = all.next[i];
        page.attempted.store(numbers[i]);
        page.returned.store(numbers[i]);
        truth_.forget(i, numbers[i]);
      }
    }
    EXPECT_EQ(all.compare(truth_, numbers), "");
  }

  Scene scene_;
  SharedPage<std::array<ProducerPage, kProducers>> pages_;
  std::mt19937_64 random_;
  Truth truth_;
};

TEST_P(ReopenTest, HoldsWhatWasPromised) {
  random_.seed(test::print_seed());
  ASSERT_NO_FATAL_FAILURE(
      scene_.create_topic({{"term.bytes", "256KiB"}, {"ring.terms", "4"}, {"segment.bytes", "1MiB"}}));
  for (int round = 0; round < 12; ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    run_and_kill_all(500 + random_() % 8000);
    ASSERT_FALSE(HasFailure());
    if (GetParam()) std::filesystem::remove_all(scene_.shm_folder());
    // Every other time those who come next begin at once, and recovery is theirs.
    if (round % 2 == 0 && !GetParam()) {
      for (std::uint32_t i = 0; i < kProducers; ++i) truth_.note_death(i, (*pages_)[i]);
      continue;
    }
    SharedPage<Ledger> all;
    ASSERT_NO_FATAL_FAILURE(check(*all));
    ASSERT_NO_FATAL_FAILURE(verify_files(scene_, *all));
    ASSERT_FALSE(HasFailure());
  }
  std::cout << sent() << " sends, " << truth_.doubts() << " in doubt\n";
}

INSTANTIATE_TEST_SUITE_P(Crash, ReopenTest, ::testing::Bool(), [](const auto& lost) {
  return std::string(lost.param ? "WithoutSharedMemory" : "WithSharedMemory");
});

}  // namespace
}  // namespace ringtail::crash
