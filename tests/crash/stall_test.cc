// Producers that stand still inside a claim for longer than claim.timeout.ms, and go on later. The others
// go on meanwhile, the sleeper learns that its claim is void, and nothing that was written is touched.
#include <sys/mman.h>

#include <csignal>
#include <random>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr std::uint32_t kProducers = 4;
constexpr std::uint32_t kSleeper = kProducers;  // its number among the producers

// --- A value whose second half cannot be read yet ------------------------------------------------------

// Where the copy of a value into the ring meets memory that faults: in the middle of the payload.
struct Trap {
  char* page = nullptr;
  std::atomic<bool>* reached = nullptr;
};
Trap trap;

void stand_still(int) {
  trap.reached->store(true);
  ::raise(SIGSTOP);
  ::mprotect(trap.page, 4096, PROT_READ | PROT_WRITE);
}

// A value of sleeper's, its end on a page that stops whoever reads it.
class TrappedValue {
 public:
  TrappedValue(const Value& value, std::atomic<bool>& reached) : size_(value.size()) {
    char* const pages =
        static_cast<char*>(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    start_ = pages + 4096 - size_ / 2;
    std::memcpy(start_, std::string_view(value).data(), size_);
    trap = {pages + 4096, &reached};
    struct sigaction action{};
    action.sa_handler = stand_still;
    ::sigaction(SIGSEGV, &action, nullptr);
    ::mprotect(trap.page, 4096, PROT_NONE);
  }
  operator std::string_view() const { return {start_, size_}; }

 private:
  char* start_;
  std::size_t size_;
};

// --- The test ------------------------------------------------------------------------------------------

enum class Where : std::uint8_t { claim, append, batch };

class StallTest : public ::testing::Test {
 protected:
  struct Shared {
    std::array<ProducerPage, kProducers + 1> producers;
    Ledger ledger;
    std::atomic<std::uint64_t> end{0};
    std::atomic<bool> stands{false};
    std::atomic<int> outcome{-1};  // of the sleeper's append, as SendError; 100: it was appended
  };

  void start(const TopicConfigs& configs, std::uint64_t records, const Reading& reading = {}) {
    random_.seed(test::print_seed());
    load_ = {.by = Load::By::all, .records = records};
    ASSERT_NO_FATAL_FAILURE(scene_.create_topic(configs));
    peek_.emplace(scene_);
    keeper_ = Process("keeper", [this] { return keep(scene_); });
    ASSERT_TRUE(wait([this] { return peek_->keeper_pid() == keeper_.pid(); }, "there is a keeper"));
    consumer_ = Process("consumer", [this, reading] {
      return consume(scene_, KeeperMode::none, reading, shared_->ledger, shared_->end);
    });
    ASSERT_TRUE(wait([this] { return shared_->ledger.ready.load(); }, "the consumer has attached"));
  }
  void start_producers() {
    for (std::uint32_t i = 0; i < kProducers; ++i)
      producers_[i] = Process(fmt::format("producer {}", i), [this, i] {
        return produce(scene_, KeeperMode::none, load_, i, shared_->producers[i]);
      });
  }
  std::string report() const {
    std::string text = peek_->describe();
    for (std::uint32_t i = 0; i <= kProducers; ++i)
      text += fmt::format("producer {}: attempted {}, returned {}, error '{}'\n", i,
                          shared_->producers[i].attempted.load(), shared_->producers[i].returned.load(),
                          shared_->producers[i].error);
    return text + fmt::format("consumer: {} records, next offset {} of {}, error '{}'\n",
                              shared_->ledger.records.load(), shared_->ledger.next_offset.load(),
                              shared_->end.load(), shared_->ledger.error);
  }
  std::uint64_t sent() const {
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; i < kProducers; ++i) sum += shared_->producers[i].returned.load();
    return sum;
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(
        done, what, [this] { return sent() + shared_->ledger.records.load(); }, [this] { return report(); });
  }

  // Appends one record, then another in which it stops, then a third.
  int sleep_inside(Where where) {
    ProducerPage& page = shared_->producers[kSleeper];
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(page.error, to_string(log.error()));
    auto producer = Producer::open(*log, {.topic = kTopic});
    if (!producer) return give_up(page.error, to_string(producer.error()));
    const Load single{.by = Load::By::send, .records = 4};
    if (!send_some(*producer, single, kSleeper, 0, page)) return give_up(page.error, "the first was refused");

    const Value value(kSleeper, 1);
    int outcome = 100;
    if (where == Where::claim) {
      auto claim = producer->try_claim(value.size());
      if (!claim) return give_up(page.error, to_string(producer->error()));
      value.write(claim->value().data(), kSleeper, 1);
      shared_->stands.store(true);
      ::raise(SIGSTOP);
      value.write(claim->value().data(), kSleeper, 1);  // a scribble into what is not its own any more
      if (auto sent = claim->commit(); !sent) outcome = static_cast<int>(sent.error());
    } else if (where == Where::append) {
      const TrappedValue trapped(value, shared_->stands);
      if (auto sent = producer->send(trapped); !sent) outcome = static_cast<int>(sent.error());
    } else {
      const Value behind(kSleeper, 2);
      const TrappedValue trapped(value, shared_->stands);
      const std::array<ProducerRecord, 2> records{{{.value = trapped}, {.value = behind}}};
      if (auto sent = producer->send_batch(PartitionId(0), records); !sent)
        outcome = static_cast<int>(sent.error());
    }
    shared_->outcome.store(outcome);
    // Number 1 was not appended: the same number again, and it is there once.
    for (std::uint64_t number = 1; number < 3; ++number)
      if (!send_some(*producer, single, kSleeper, number, page))
        return give_up(page.error, to_string(producer->error()));
    return 0;
  }

  void finish(std::span<const std::uint64_t> sent_numbers) {
    shared_->end.store(log_end_by_child());
    ASSERT_TRUE(
        wait([this] { return shared_->ledger.done.load() || shared_->ledger.error[0] != 0; }, "all is read"));
    EXPECT_EQ(consumer_.wait(), 0) << report();
    EXPECT_EQ(shared_->ledger.compare(truth_, sent_numbers), "") << report();
    keeper_.kill();
    SharedPage<Ledger> all;
    ASSERT_NO_FATAL_FAILURE(read_all(scene_, *all));
    EXPECT_EQ(all->compare(truth_, sent_numbers), "");
    ASSERT_NO_FATAL_FAILURE(verify_files(scene_, *all));
  }
  std::uint64_t log_end_by_child() {
    SharedPage<std::atomic<std::uint64_t>> end;
    Process asker("asker", [this, &end] {
      auto log = scene_.open(KeeperMode::none);
      auto consumer = log ? Consumer::open(*log) : std::unexpected(log.error());
      if (!consumer || !consumer->assign(kTopic)) return 2;
      auto found = consumer->end_offset(kPartition);
      if (found) end->store(found->value());
      return found ? 0 : 2;
    });
    wait_until([&] { return end->load() != 0; }, "the log's end is known");
    asker.wait();
    return end->load();
  }

  void stop_one_inside(Where where, bool dies);
  void stop_anyone();

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  Load load_;
  Truth truth_;
  std::optional<Peek> peek_;
  Process keeper_;
  Process consumer_;
  std::array<Process, kProducers> producers_;
};

void StallTest::stop_one_inside(Where where, bool dies) {
  ASSERT_NO_FATAL_FAILURE(start(
      {{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"claim.timeout.ms", "300"}, {"segment.bytes", "1MiB"}},
      5'000));
  Process sleeper("sleeper", [this, where] { return sleep_inside(where); });
  ASSERT_TRUE(wait([this] { return shared_->stands.load(); }, "the sleeper stands in its claim"));
  const std::uint64_t retired = peek_->partition().retired_rings.load();
  start_producers();
  if (dies) {
    shared_->producers[kSleeper].attempted.store(2);  // number 1 may be there, if it dies
    sleeper.kill();
    truth_.note_death(kSleeper, shared_->producers[kSleeper]);
  }
  // More than a ring holds: it must be replaced, or the claim be repaired, for the others to go on.
  for (Process& producer : producers_) {
    ASSERT_TRUE(wait(
        [&] {
          return shared_->producers[static_cast<std::size_t>(&producer - producers_.data())].done.load();
        },
        "the others have sent all"));
    EXPECT_EQ(producer.wait(), 0) << report();
  }
  std::vector<std::uint64_t> sent_numbers(kProducers, load_.records);
  if (!dies) {
    EXPECT_GT(peek_->partition().retired_rings.load(), retired);
    sleeper.signal(SIGCONT);
    ASSERT_TRUE(
        wait([&] { return !sleeper.is_running() || shared_->producers[kSleeper].returned.load() == 3; },
             "the sleeper is done"));
    EXPECT_EQ(sleeper.wait(), 0) << report();
    EXPECT_EQ(shared_->outcome.load(), static_cast<int>(SendError::claim_expired));
    sent_numbers.push_back(3);
  } else {
    sent_numbers.push_back(2);
  }
  finish(sent_numbers);
}

TEST_F(StallTest, InsideAClaim) { stop_one_inside(Where::claim, false); }
TEST_F(StallTest, InTheMiddleOfAPayload) { stop_one_inside(Where::append, false); }
TEST_F(StallTest, InTheMiddleOfABatch) { stop_one_inside(Where::batch, false); }
TEST_F(StallTest, DeathInTheMiddleOfAPayload) { stop_one_inside(Where::append, true); }
TEST_F(StallTest, DeathInTheMiddleOfABatch) { stop_one_inside(Where::batch, true); }

// Anyone, the keeper too, is stopped at any place for about as long as the timeout, again and again: the
// keeper's giving up and the sleeper's commit meet in every order.
TEST_F(StallTest, AnyoneAnywhere) {
  ASSERT_NO_FATAL_FAILURE(start(
      {{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"claim.timeout.ms", "20"}, {"segment.bytes", "1MiB"}},
      test::number_from_environment("RINGTAIL_CRASH_RECORDS", 20'000)));
  load_.rest_us = 100;
  ASSERT_NO_FATAL_FAILURE(stop_anyone());
}

// The same, each having the topic for itself now and then; a slow reader has rings replaced under them, so that who
// stands still then is given up.
TEST_F(StallTest, AnyoneAnywhereAlone) {
  const std::uint64_t records = test::number_from_environment("RINGTAIL_CRASH_RECORDS", 20'000);
  ASSERT_NO_FATAL_FAILURE(start({{"term.bytes", "64KiB"},
                                 {"ring.terms", "4"},
                                 {"claim.timeout.ms", "20"},
                                 {"segment.bytes", "1MiB"},
                                 {"reader.pin.ms", "1"}},
                                records, {.slow_records = records * kProducers}));
  load_.rest_us = 20;
  load_.exclusive = 200;
  ASSERT_NO_FATAL_FAILURE(stop_anyone());
}

void StallTest::stop_anyone() {
  start_producers();
  auto all_done = [this] {
    return std::all_of(producers_.begin(), producers_.end(), [this](const Process& p) {
      return shared_->producers[static_cast<std::size_t>(&p - producers_.data())].done.load();
    });
  };
  std::uint64_t stops = 0;
  for (; !all_done() && !HasFailure(); ++stops) {
    const Process& victim = random_() % 8 == 0 ? keeper_ : producers_[random_() % kProducers];
    victim.signal(SIGSTOP);
    ::usleep(static_cast<useconds_t>(15'000 + random_() % 20'000));
    victim.signal(SIGCONT);
    ::usleep(static_cast<useconds_t>(random_() % 5'000));
    wait([this, before = sent(), &all_done] { return sent() > before || all_done(); },
         "somebody comes further");
  }
  for (Process& producer : producers_) EXPECT_EQ(producer.wait(), 0) << report();
  std::cout << stops << " stops, " << peek_->partition().retired_rings.load() << " rings retired, "
            << peek_->partition().repaired_records.load() << " records repaired\n";
  ASSERT_NO_FATAL_FAILURE(finish(std::vector<std::uint64_t>(kProducers, load_.records)));
}

}  // namespace
}  // namespace ringtail::crash
