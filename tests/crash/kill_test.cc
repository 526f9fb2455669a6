// Four producer processes append numbered records to one partition while processes are killed at
// random, fifty times, and started again. Every record whose send returned is there exactly once, each
// producer's own order holds, offsets are dense, and the files are well-formed.
//
// RINGTAIL_CRASH_RECORDS: records per producer (40000 unless told).
#include <array>
#include <random>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr std::uint32_t kProducers = 4;
constexpr std::uint32_t kKeepers = 3;
constexpr std::uint64_t kKills = 50;

// Who is killed.
enum class Victim : std::uint8_t {
  producer,  // one of the producers; the keeper is in a process of its own
  keeper,    // the keeper's process; two others stand by
  anyone,    // the keeper, while every producer stands by for it
};

struct Variant {
  const char* name;
  Victim victim = Victim::producer;
  TopicConfigs configs = {};
  Load load = {};
  std::vector<Reading> readings = {};
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

bool is_memory(const Variant& v) { return v.configs.contains("storage"); }
bool may_lose(const Variant& v) {
  const auto found = v.configs.find("on.full");
  return found != v.configs.end() && found->second == "overwrite";
}

class KillTest : public ::testing::TestWithParam<Variant> {
 protected:
  struct Shared {
    std::array<ProducerPage, kProducers> producers;
    std::array<Ledger, 2> ledgers;
    std::atomic<std::uint64_t> end{0};
  };

  void SetUp() override {
    random_.seed(test::print_seed());
    load_ = GetParam().load;
    load_.records = test::number_from_environment("RINGTAIL_CRASH_RECORDS", 40'000);
    ASSERT_NO_FATAL_FAILURE(scene_.create_topic(GetParam().configs));
    peek_.emplace(scene_);
    for (std::uint32_t i = 0; i < keepers_.size() && GetParam().victim != Victim::anyone; ++i)
      start_keeper(i);
    if (GetParam().victim == Victim::anyone) start_producers();
    start_consumers();
    if (GetParam().victim != Victim::anyone) start_producers();
  }

  std::string report() const {
    std::string text = peek_->describe();
    for (std::uint32_t i = 0; i < kProducers; ++i)
      text += fmt::format("producer {}: attempted {}, returned {}, starts {}, error '{}'\n", i,
                          shared_->producers[i].attempted.load(), shared_->producers[i].returned.load(),
                          shared_->producers[i].starts.load(), shared_->producers[i].error);
    for (std::uint32_t i = 0; i < consumers_.size(); ++i)
      text += fmt::format("consumer {}: {} records, next offset {}, of {}, error '{}'\n", i,
                          shared_->ledgers[i].records.load(), shared_->ledgers[i].next_offset.load(),
                          shared_->end.load(), shared_->ledgers[i].error);
    return text;
  }
  std::uint64_t sent() const {
    std::uint64_t sum = 0;
    for (const ProducerPage& page : shared_->producers) sum += page.returned.load();
    return sum;
  }
  std::uint64_t progress() const {
    std::uint64_t sum = sent();
    for (const Ledger& ledger : shared_->ledgers) sum += ledger.records.load();
    return sum + peek_->keeper_term();
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(done, what, [this] { return progress(); }, [this] { return report(); });
  }

  void start_keeper(std::uint32_t i) {
    keepers_[i] = Process(fmt::format("keeper {}", i), [this] { return keep(scene_); });
  }
  void start_producer(std::uint32_t i) {
    const KeeperMode mode = GetParam().victim == Victim::anyone ? KeeperMode::embedded : KeeperMode::none;
    producers_[i] = Process(fmt::format("producer {}", i), [this, i, mode] {
      return produce(scene_, mode, load_, i, shared_->producers[i]);
    });
  }
  void start_producers() {
    for (std::uint32_t i = 0; i < kProducers; ++i) start_producer(i);
  }
  void start_consumers() {
    for (std::uint32_t i = 0; i < GetParam().readings.size(); ++i) {
      Ledger& ledger = shared_->ledgers[i];
      ledger.may_lose = may_lose(GetParam());
      ledger.append_time = GetParam().configs.contains("message.timestamp.type");
      consumers_.emplace_back(fmt::format("consumer {}", i), [this, i, &ledger] {
        return consume(scene_, KeeperMode::none, GetParam().readings[i], ledger, shared_->end);
      });
      ASSERT_TRUE(wait([&] { return ledger.ready.load(); }, "a consumer has attached"));
    }
  }

  void kill_producer(std::uint32_t i) {
    producers_[i].kill();
    truth_.note_death(i, shared_->producers[i]);
    start_producer(i);
  }
  bool all_sent() const {
    return std::all_of(shared_->producers.begin(), shared_->producers.end(),
                       [](const auto& p) { return p.done.load(); });
  }
  // Kills whoever holds the role; false when there is nobody left, or the watchdog bit.
  bool kill_keeper() {
    Process* holder = nullptr;
    const std::span<Process> candidates =
        GetParam().victim == Victim::keeper ? std::span<Process>(keepers_) : std::span<Process>(producers_);
    auto holds = [&] {
      for (Process& process : candidates)
        if (process.is_running() && process.pid() == peek_->keeper_pid()) holder = &process;
      return holder != nullptr;
    };
    // Who has sent all that he had is gone, and may have been the keeper.
    if (!wait([&] { return holds() || (GetParam().victim == Victim::anyone && all_sent()); },
              "somebody has become the keeper") ||
        holder == nullptr)
      return false;
    const auto i = static_cast<std::uint32_t>(holder - candidates.data());
    if (GetParam().victim == Victim::anyone) {
      kill_producer(i);
    } else {
      keepers_[i].kill();
      start_keeper(i);
    }
    return true;
  }

  void kill_again_and_again() {
    for (std::uint64_t k = 1; k <= kKills; ++k) {
      const std::uint64_t threshold = kProducers * load_.records * k / (kKills + 2);
      if (!wait([&] { return sent() >= threshold; }, "producers come further")) return;
      ::usleep(static_cast<useconds_t>(random_() % 500));
      if (GetParam().victim != Victim::producer) {
        if (!kill_keeper()) return;
        continue;
      }
      const auto i = static_cast<std::uint32_t>(random_() % kProducers);
      if (!shared_->producers[i].done.load()) kill_producer(i);
    }
  }

  void finish() {
    ASSERT_TRUE(wait([this] { return all_sent(); }, "all has been sent"));
    for (Process& producer : producers_) EXPECT_EQ(producer.wait(), 0) << report();
    if (GetParam().victim == Victim::anyone) start_keeper(0);
    // The end that consumers wait for counts repaired holes too; only the log knows it.
    Process asker("asker", [this] {
      auto log = scene_.open(KeeperMode::none);
      if (!log) return 2;
      auto consumer = Consumer::open(*log);
      if (!consumer || !consumer->assign(kTopic)) return 2;
      auto end = consumer->end_offset(kPartition);
      if (end) shared_->end.store(end->value());
      return end ? 0 : 2;
    });
    ASSERT_TRUE(wait([this] { return shared_->end.load() != 0; }, "the log's end is known"));
    EXPECT_EQ(asker.wait(), 0);
    for (std::uint32_t i = 0; i < consumers_.size(); ++i) {
      ASSERT_TRUE(
          wait([this, i] { return shared_->ledgers[i].done.load() || shared_->ledgers[i].error[0] != 0; },
               "consumers have read all"));
      EXPECT_EQ(consumers_[i].wait(), 0) << report();
    }
  }

  void check_ledger(const Ledger& ledger) const {
    if (ledger.may_lose) {
      EXPECT_STREQ(ledger.error, "");
      EXPECT_GT(ledger.records.load(), 0u);
      EXPECT_LE(ledger.records.load() + ledger.missed, shared_->end.load());
      // What was neither read nor missed are holes: of each kill at most one claim.
      EXPECT_GE(ledger.records.load() + ledger.missed + kKills * 8, shared_->end.load());
      return;
    }
    std::vector<std::uint64_t> sent(kProducers, load_.records);
    EXPECT_EQ(ledger.compare(truth_, sent), "") << report();
    EXPECT_EQ(ledger.missed, 0u);
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  Load load_;
  Truth truth_;
  std::optional<Peek> peek_;
  std::array<Process, kKeepers> keepers_;
  std::array<Process, kProducers> producers_;
  std::vector<Process> consumers_;
};

TEST_P(KillTest, EveryReturnedSendIsThereOnce) {
  ASSERT_FALSE(HasFatalFailure());
  kill_again_and_again();
  ASSERT_FALSE(HasFailure());
  ASSERT_NO_FATAL_FAILURE(finish());
  for (std::uint32_t i = 0; i < consumers_.size(); ++i) check_ledger(shared_->ledgers[i]);
  for (Process& keeper : keepers_) keeper.kill();
  if (is_memory(GetParam())) return;

  SharedPage<Ledger> all;
  all->append_time = GetParam().configs.contains("message.timestamp.type");
  ASSERT_NO_FATAL_FAILURE(read_all(scene_, *all));
  EXPECT_EQ(all->next_offset.load(), shared_->end.load());
  check_ledger(*all);
  ASSERT_NO_FATAL_FAILURE(verify_files(scene_, *all));
  std::cout << truth_.doubts() << " sends in doubt, " << all->skipped_offsets << " offsets of holes, "
            << peek_->partition().retired_rings.load() << " rings retired\n";
}

const TopicConfigs kSmall{{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"segment.bytes", "1MiB"}};

TopicConfigs with(TopicConfigs configs, const TopicConfigs& more) {
  configs.insert(more.begin(), more.end());
  return configs;
}

const std::vector<Reading> kFastAndSlow{{}, {.wait = WaitStrategy::yield, .slow_records = 20'000}};
const TopicConfigs kMemory{{"storage", "memory"}};
const TopicConfigs kOverwrite{{"storage", "memory"}, {"on.full", "overwrite"}};

const std::vector<Variant> kVariants{
    {.name = "Producer", .load = {.durable_every = 1000}, .readings = kFastAndSlow},
    {.name = "ProducerOfSmallTerms", .configs = kSmall, .readings = kFastAndSlow},
    {.name = "ProducerOfBatches",
     .configs = kSmall,
     .load = {.by = Load::By::batch},
     .readings = kFastAndSlow},
    {.name = "ProducerOfClaims",
     .configs = kSmall,
     .load = {.by = Load::By::claim, .abort_every = 10},
     .readings = kFastAndSlow},
    {.name = "ProducerWithAppendTime",
     .configs = with(kSmall, {{"message.timestamp.type", "LogAppendTime"}}),
     .load = {.by = Load::By::all},
     .readings = kFastAndSlow},
    {.name = "ProducerThatMayFail",
     .configs = with(kSmall, {{"on.full", "fail"}}),
     .load = {.by = Load::By::all},
     .readings = {{}}},
    {.name = "ProducerOfMemory",
     .configs = with(kMemory, kSmall),
     .load = {.by = Load::By::all},
     .readings = {{}}},
    {.name = "ProducerThatOverwrites",
     .configs = with(kOverwrite, kSmall),
     .load = {.by = Load::By::all},
     .readings = {{.wait = WaitStrategy::yield}}},
    {.name = "ProducerThatIsExclusiveAtTimes",
     .configs = kSmall,
     .load = {.by = Load::By::all, .durable_every = 1000, .exclusive = 700},
     .readings = kFastAndSlow},
    {.name = "ProducerThatIsExclusiveAtTimesInMemory",
     .configs = with(kMemory, kSmall),
     .load = {.by = Load::By::all, .exclusive = 300},
     .readings = {{}}},
    {.name = "Keeper", .victim = Victim::keeper, .load = {.durable_every = 1000}, .readings = kFastAndSlow},
    {.name = "KeeperOfSmallTerms",
     .victim = Victim::keeper,
     .configs = kSmall,
     .load = {.by = Load::By::all, .durable_every = 100},
     .readings = kFastAndSlow},
    {.name = "KeeperOfMemory",
     .victim = Victim::keeper,
     .configs = with(kMemory, kSmall),
     .load = {.by = Load::By::all},
     .readings = {{}}},
    {.name = "KeeperThatOverwrites",
     .victim = Victim::keeper,
     .configs = with(kOverwrite, kSmall),
     .load = {.by = Load::By::all},
     .readings = {{.wait = WaitStrategy::yield}}},
    {.name = "KeeperOfExclusiveProducers",
     .victim = Victim::keeper,
     .configs = kSmall,
     .load = {.by = Load::By::all, .durable_every = 100, .exclusive = 500},
     .readings = kFastAndSlow},
    {.name = "KeeperOfExclusiveProducersInMemory",
     .victim = Victim::keeper,
     .configs = with(kMemory, kSmall),
     .load = {.by = Load::By::all, .exclusive = 500},
     .readings = {{}}},
    {.name = "Anyone", .victim = Victim::anyone, .load = {.durable_every = 1000}, .readings = kFastAndSlow},
    {.name = "AnyoneOfSmallTerms",
     .victim = Victim::anyone,
     .configs = kSmall,
     .load = {.by = Load::By::all},
     .readings = kFastAndSlow},
    {.name = "AnyoneOfExclusiveProducers",
     .victim = Victim::anyone,
     .configs = with(kSmall, {{"message.timestamp.type", "LogAppendTime"}}),
     .load = {.by = Load::By::all, .exclusive = 500},
     .readings = kFastAndSlow},
};

INSTANTIATE_TEST_SUITE_P(Crash, KillTest, ::testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace ringtail::crash
