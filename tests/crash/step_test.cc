// Death at every instruction: a producer is single-stepped through one append and killed behind its
// k-th instruction. After each death a neighbour appends and reads at once, and in the end the log holds
// what it must, with dense offsets.
//
// RINGTAIL_CRASH_STEPS: how many places in each append (150 unless told); 0: all of them.
#include <random>

#include "crash/scene.h"
#include "support/single_step.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr std::uint32_t kVictim = 0;
constexpr std::uint32_t kNeighbour = 1;
constexpr std::uint64_t kTermBytes = 64 << 10;

enum class How : std::uint8_t { send, batch, commit, abort };

struct Variant {
  const char* name;
  How how = How::send;
  bool rotates = false;  // the append is the first that does not fit into its term
  bool alone = false;    // no neighbour: the victim is the keeper too, and its successor recovers the log
  TopicConfigs configs = {};
  bool exclusive = false;  // the victim has the topic for itself while it lives
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class StepTest : public ::testing::TestWithParam<Variant> {
 protected:
  struct Shared {
    ProducerPage victim;
    ProducerPage neighbour;
    Ledger ledger;                        // the neighbour's
    std::atomic<std::uint64_t> asked{0};  // for so many records of the neighbour
    std::atomic<bool> finish{false};
  };

  void SetUp() override {
    random_.seed(test::print_seed());
    TopicConfigs configs = GetParam().configs;
    configs.insert(
        {{"term.bytes", std::to_string(kTermBytes)}, {"ring.terms", "4"}, {"segment.bytes", "4MiB"}});
    ASSERT_NO_FATAL_FAILURE(scene_.create_topic(configs));
    shared_->ledger.append_time = configs.contains("message.timestamp.type");
    peek_.emplace(scene_);
    if (GetParam().alone) return;
    neighbour_ = Process("neighbour", [this] { return be_neighbour(); });
    ASSERT_TRUE(wait([this] { return shared_->ledger.ready.load(); }, "the neighbour has attached"));
  }

  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(done, what, {}, [this] {
      return peek_->describe() + fmt::format("victim: '{}', neighbour: '{}' {} of {}, ledger: '{}'\n",
                                             shared_->victim.error, shared_->neighbour.error,
                                             shared_->neighbour.returned.load(), shared_->asked.load(),
                                             shared_->ledger.error);
    });
  }

  // Keeps the log, and at each request appends a record and reads up to it.
  int be_neighbour() {
    auto log = scene_.open(KeeperMode::embedded);
    if (!log) return give_up(shared_->neighbour.error, to_string(log.error()));
    auto producer = Producer::open(*log, {.topic = kTopic});
    auto consumer = Consumer::open(*log, {.wait = WaitStrategy::futex});
    if (!producer || !consumer || !consumer->assign(kTopic))
      return give_up(shared_->neighbour.error, "cannot attach");
    Ledger& ledger = shared_->ledger;
    ledger.ready.store(true);
    for (std::uint64_t number = 0; !shared_->finish.load();) {
      if (shared_->asked.load() <= number) {
        ::usleep(50);
        continue;
      }
      shared_->neighbour.attempted.store(number + 1);
      auto sent = producer->send(Value(kNeighbour, number));
      // Until the keeper has taken it back from the dead victim.
      while (!sent && sent.error() == SendError::held_exclusively && GetParam().exclusive) {
        ::usleep(50);
        sent = producer->send(Value(kNeighbour, number));
      }
      if (!sent) return give_up(shared_->neighbour.error, to_string(producer->error()));
      while (ledger.next[kNeighbour] <= number) {
        auto records = consumer->poll(std::chrono::seconds(1));
        if (!records) return give_up(shared_->neighbour.error, to_string(records.error()));
        for (const Record& record : *records)
          if (!ledger.take(record)) return 2;
      }
      shared_->neighbour.returned.store(++number);
    }
    return 0;
  }

  // Appends some records, then one between two stops, at which the test steps in.
  int be_victim() {
    ProducerPage& page = shared_->victim;
    auto log = scene_.open(GetParam().alone ? KeeperMode::embedded : KeeperMode::none);
    if (!log) return give_up(page.error, to_string(log.error()));
    auto producer = Producer::open(*log, {.topic = kTopic, .exclusive = GetParam().exclusive});
    if (!producer) return give_up(page.error, to_string(producer.error()));
    const Load load{.by = Load::By::send, .records = ~std::uint64_t{0}};
    std::uint64_t number = page.attempted.load();
    for (int warm = 0; warm < 3; ++warm) {
      if (auto sent = send_some(*producer, load, kVictim, number, page); !sent)
        return give_up(page.error, to_string(producer->error()));
      ++number;
    }
    if (GetParam().rotates && !fill_term(*producer, number))
      return give_up(page.error, to_string(producer->error()));

    const std::uint64_t count = GetParam().how == How::batch ? 3 : GetParam().how == How::abort ? 0 : 1;
    std::vector<Value> values;
    std::vector<ProducerRecord> records;
    for (std::uint64_t i = 0; i < 3; ++i) values.emplace_back(kVictim, number + i);
    for (const Value& value : values) records.push_back({.value = value});
    page.attempted.store(number + count);
    const bool appended = test::offer_steps([&] { return append(*producer, values[0], records, number); });
    if (!appended) return give_up(page.error, to_string(producer->error()));
    page.returned.store(number + count);
    for (;;) ::pause();
  }

  // Until the next record does not fit into the active term.
  bool fill_term(Producer& producer, std::uint64_t& number) {
    for (;;) {
      const Value value(kVictim, number);
      shared_->victim.attempted.store(number + 1);
      auto sent = producer.send(value);
      if (!sent) return false;
      shared_->victim.returned.store(++number);
      const std::uint64_t frame = format::align_frame(
          static_cast<std::uint32_t>(format::data_frame_bytes(0, Value(kVictim, number).size(), 0)));
      if (sent->end.value() % kTermBytes + frame > kTermBytes - log::kTermReserve) return true;
    }
  }

  [[gnu::noinline]] bool append(Producer& producer, const Value& value,
                                std::span<const ProducerRecord> records, std::uint64_t number) {
    if (GetParam().how == How::send) return producer.send(value).has_value();
    if (GetParam().how == How::batch) return producer.send_batch(PartitionId(0), records).has_value();
    auto claim = producer.try_claim(value.size());
    if (!claim) return false;
    value.write(claim->value().data(), kVictim, number);
    if (GetParam().how == How::commit) return claim->commit().has_value();
    claim->abort();
    return true;
  }

  // Lets a victim take `steps` instructions of its append, then kills it. Returns how many it took: fewer
  // when the append was complete before.
  std::uint64_t kill_after(std::uint64_t steps) {
    Process victim("victim", [this] { return be_victim(); });
    const auto taken = test::take_steps(victim, steps);
    if (!taken) {
      ADD_FAILURE() << "the victim did not come to its append: " << shared_->victim.error
                    << peek_->describe();
      return 0;
    }
    victim.kill();
    truth_.note_death(kVictim, shared_->victim);
    return *taken;
  }

  bool neighbour_goes_on() {
    if (GetParam().alone) return true;
    const std::uint64_t wanted = shared_->asked.fetch_add(1) + 1;
    return wait([&] { return shared_->neighbour.returned.load() >= wanted; },
                "the neighbour has read its record");
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  Truth truth_;
  std::optional<Peek> peek_;
  Process neighbour_;
};

TEST_P(StepTest, NoInstructionIsABadPlaceToDie) {
  ASSERT_FALSE(HasFatalFailure());
  const std::uint64_t length = kill_after(~std::uint64_t{0});
  ASSERT_TRUE(neighbour_goes_on());
  ASSERT_GT(length, 50u);
  const auto [first, stride] = test::choose_deaths(length, 150, random_());
  for (std::uint64_t k = first; k <= length + 1; k += stride) {
    SCOPED_TRACE(fmt::format("killed behind instruction {} of about {}", k, length));
    kill_after(k);
    ASSERT_TRUE(neighbour_goes_on());
    ASSERT_FALSE(HasFailure());
  }
  shared_->finish.store(true);
  if (neighbour_.is_running()) {
    EXPECT_EQ(neighbour_.wait(), 0);
  }

  SharedPage<Ledger> all;
  all->append_time = shared_->ledger.append_time;
  ASSERT_NO_FATAL_FAILURE(read_all(scene_, *all));
  const std::array<std::uint64_t, 2> sent{shared_->victim.attempted.load(), shared_->asked.load()};
  EXPECT_EQ(all->compare(truth_, sent), "");
  ASSERT_NO_FATAL_FAILURE(verify_files(scene_, *all));
  std::cout << length << " instructions, " << truth_.doubts() << " sends in doubt, " << all->skipped_offsets
            << " offsets of holes\n";
}

const TopicConfigs kAppendTime{{"message.timestamp.type", "LogAppendTime"}};

const std::vector<Variant> kVariants{
    {.name = "Send"},
    {.name = "SendThatRotates", .rotates = true},
    {.name = "Batch", .how = How::batch},
    {.name = "BatchThatRotates", .how = How::batch, .rotates = true},
    {.name = "Claim", .how = How::commit},
    {.name = "ClaimThatRotates", .how = How::commit, .rotates = true},
    {.name = "ClaimThatIsAborted", .how = How::abort},
    {.name = "SendWithAppendTime", .configs = kAppendTime},
    {.name = "SendThatRotatesWithAppendTime", .rotates = true, .configs = kAppendTime},
    {.name = "SendByTheKeeper", .alone = true},
    {.name = "SendThatRotatesByTheKeeper", .rotates = true, .alone = true},
    {.name = "ExclusiveSend", .exclusive = true},
    {.name = "ExclusiveSendThatRotates", .rotates = true, .exclusive = true},
    {.name = "ExclusiveBatchThatRotates", .how = How::batch, .rotates = true, .exclusive = true},
    {.name = "ExclusiveClaim", .how = How::commit, .exclusive = true},
    {.name = "ExclusiveClaimThatIsAborted", .how = How::abort, .exclusive = true},
    {.name = "ExclusiveSendThatRotatesByTheKeeper", .rotates = true, .alone = true, .exclusive = true},
};

INSTANTIATE_TEST_SUITE_P(Crash, StepTest, ::testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace ringtail::crash
