#include "ringtail/consumer.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <ctime>
#include <set>

#include "client/log_core.h"
#include "log/ring.h"
#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConsumerTest : public ClientTest {
 protected:
  static TopicPartition part(std::uint32_t partition = 0) { return {"t", PartitionId(partition)}; }
  void send(Producer& p, int count) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(p.send(std::to_string(next_++)));
  }
  int next_ = 0;
};

// --- Polling -------------------------------------------------------------------------------------

TEST_F(ConsumerTest, ReadsWhatWasSentAndWaitsForMoreInEveryManner) {
  create("t");
  Producer p = producer("t");
  for (const WaitStrategy wait : {WaitStrategy::busy_spin, WaitStrategy::yield, WaitStrategy::futex}) {
    SCOPED_TRACE(static_cast<int>(wait));
    Consumer c = consumer("t", {.wait = wait});
    ASSERT_TRUE(c.seek_to_end(part()));
    EXPECT_TRUE(c.poll(milliseconds(5))->empty());
    std::thread sending([&] {
      std::this_thread::sleep_for(milliseconds(20));
      ASSERT_TRUE(p.send("late"));
    });
    EXPECT_THAT(take(c, 1), ElementsAre("late"));
    sending.join();
  }
}

TEST_F(ConsumerTest, PollsAtMostSoMany) {
  create("t");
  Producer p = producer("t");
  send(p, 10);
  Consumer c = consumer("t", {.max_poll_records = 4});
  EXPECT_EQ(c.poll(milliseconds(0))->size(), 4u);
  EXPECT_EQ(c.poll(milliseconds(0))->size(), 4u);
  EXPECT_EQ(c.poll(milliseconds(0))->size(), 2u);
  for (const std::size_t bad : {std::size_t{0}, std::size_t{65537}}) {
    auto opened = Consumer::open(*log_, {.max_poll_records = bad});
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Code::invalid_argument);
  }
}

TEST_F(ConsumerTest, WakeEndsAWaitOrTheNextOne) {
  create("t");
  for (const WaitStrategy wait : {WaitStrategy::busy_spin, WaitStrategy::yield, WaitStrategy::futex}) {
    Consumer c = consumer("t", {.wait = wait});
    c.wake();
    EXPECT_TRUE(c.poll(std::chrono::hours(10))->empty());
    std::thread waking([&] {
      std::this_thread::sleep_for(milliseconds(10));
      c.wake();
    });
    EXPECT_TRUE(c.poll(std::chrono::nanoseconds::max())->empty());
    waking.join();
  }
}

// Two consumers and two producers hand a record to and fro; a lost wake-up hangs the test.
TEST_F(ConsumerTest, NobodySleepsThroughARecord) {
  create("ping", small({{"storage", "memory"}, {"on.full", "overwrite"}}));
  create("pong", small({{"storage", "memory"}, {"on.full", "overwrite"}}));
  constexpr int kRounds = 20'000;
  std::thread other([&] {
    Consumer c = consumer("ping");
    Producer p = producer("pong");
    for (int i = 0; i < kRounds;) {
      const auto polled = c.poll(std::chrono::hours(1));
      ASSERT_TRUE(polled);
      for (std::size_t n = polled->size(); n > 0; --n, ++i) ASSERT_TRUE(p.send("pong"));
    }
  });
  Consumer c = consumer("pong");
  Producer p = producer("ping");
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(p.send("ping"));
    const auto polled = c.poll(std::chrono::hours(1));
    ASSERT_TRUE(polled);
    ASSERT_EQ(polled->size(), 1u);
  }
  other.join();
}

// Some schedulers let nobody else have a CPU that is only yielded.
TEST_F(ConsumerTest, WhoYieldsSleepsNowAndThen) {
  create("t");
  Consumer c = consumer("t", {.wait = WaitStrategy::yield});
  const auto sleeps = [] {
    ::rusage usage = {};
    ::getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;  // a yield is not among these
  };
  EXPECT_TRUE(c.poll(std::chrono::milliseconds(20)));  // whose first look at the files may wait for the disk
  const long before = sleeps();
  EXPECT_TRUE(c.poll(std::chrono::milliseconds(100)));
  EXPECT_GT(sleeps(), before);
}

TEST_F(ConsumerTest, ReadsAllPartitionsInTurn) {
  create("t", {}, 3);
  Producer p = producer("t");
  send(p, 30);
  Consumer c = consumer("t", {.max_poll_records = 5});
  std::set<int> seen;
  std::vector<std::uint32_t> order;
  while (seen.size() < 30) {
    const auto polled = c.poll(seconds(10));
    ASSERT_TRUE(polled);
    const PartitionId partition = polled->front().source->partition;
    order.push_back(partition.value());
    for (const Record& record : *polled) {
      EXPECT_EQ(record.source->partition, partition);
      seen.insert(std::stoi(std::string(record.value)));
    }
  }
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 0, 1, 2));
}

TEST_F(ConsumerTest, FollowsAProducerThroughRingAndFiles) {
  create("t", small({{"segment.bytes", "1MiB"}}));
  constexpr int kRecords = 60'000;
  std::thread sending([&] {
    Producer p = producer("t");
    for (int i = 0; i < kRecords; ++i)
      ASSERT_TRUE(p.send(std::to_string(i) + std::string(static_cast<std::size_t>(i % 100), '.')));
  });
  Consumer fast = consumer("t", {.wait = WaitStrategy::yield});
  Consumer slow = consumer("t");
  int fast_next = 0;
  int slow_next = 0;
  while (slow_next < kRecords) {
    for (Consumer* c : {&fast, &slow}) {
      int& next = c == &fast ? fast_next : slow_next;
      const auto polled = c->poll(milliseconds(1));
      ASSERT_TRUE(polled) << to_string(polled.error());
      for (const Record& record : *polled) {
        ASSERT_EQ(record.offset.value(), static_cast<std::uint64_t>(next));
        ASSERT_EQ(std::atoi(record.value.data()), next++);
      }
      if (c == &slow && next % 7 == 0) std::this_thread::sleep_for(milliseconds(3));
    }
  }
  sending.join();
  EXPECT_EQ(slow.missed() + fast.missed(), 0u);
}

// --- Assignment ----------------------------------------------------------------------------------

TEST_F(ConsumerTest, AssignReplacesTheSetAndKeepsThePositionsOfThoseThatStay) {
  create("t", {}, 3);
  Producer p = producer("t");
  send(p, 9);
  auto c = Consumer::open(*log_);
  EXPECT_TRUE(c->poll(milliseconds(0))->empty());
  const std::array first{part(0), part(1)};
  ASSERT_TRUE(c->assign(first));
  EXPECT_THAT(c->assignment(), ElementsAre(part(0), part(1)));
  EXPECT_EQ(take(*c, 6).size(), 6u);
  const std::array second{part(1), part(2)};
  ASSERT_TRUE(c->assign(second));
  EXPECT_EQ(*c->position(part(1)), Offset(3));
  EXPECT_EQ(*c->position(part(2)), Offset(0));
  EXPECT_EQ(c->position(part(0)).error().code, Code::not_found);
  EXPECT_EQ(take(*c, 3).size(), 3u);
  ASSERT_TRUE(c->assign(std::span<const TopicPartition>()));
  EXPECT_TRUE(c->poll(milliseconds(0))->empty());
}

TEST_F(ConsumerTest, AssignRefusesWhatIsNotThere) {
  create("t");
  auto c = Consumer::open(*log_);
  EXPECT_EQ(c->assign("nowhere").error().code, Code::not_found);
  EXPECT_EQ(c->assign(std::array{part(1)}).error().code, Code::not_found);
  const std::vector<TopicPartition> many(128, part());
  EXPECT_EQ(c->assign(many).error().code, Code::limit_exceeded);
}

TEST_F(ConsumerTest, AFailedAssignLeavesWhatWas) {
  create("t");
  Producer p = producer("t");
  send(p, 5);
  Consumer c = consumer("t", {.max_poll_records = 2});
  ASSERT_EQ(c.poll(milliseconds(0))->size(), 2u);
  EXPECT_FALSE(c.assign(std::array{part(0), part(9)}));
  EXPECT_THAT(c.assignment(), ElementsAre(part()));
  EXPECT_EQ(*c.position(part()), Offset(2));
  EXPECT_EQ(take(c, 3).size(), 3u);
}

TEST_F(ConsumerTest, AssignReadsAPartitionThatIsNamedTwiceOnce) {
  create("t");
  Producer p = producer("t");
  send(p, 3);
  auto c = Consumer::open(*log_);
  ASSERT_TRUE(c->assign(std::array{part(), part()}));
  EXPECT_THAT(c->assignment(), ElementsAre(part()));
  EXPECT_THAT(take(*c, 3), ElementsAre("0", "1", "2"));
  EXPECT_TRUE(c->poll(milliseconds(0))->empty());
}

TEST_F(ConsumerTest, AssignFindsTheTopicThatTookADeletedOnesName) {
  create("t");
  Consumer c = consumer("t");
  ASSERT_TRUE(admin().delete_topic("t"));
  create("t");
  ASSERT_TRUE(c.assign("t"));
  Producer p = producer("t");
  send(p, 1);
  EXPECT_THAT(take(c, 1), ElementsAre("0"));
}

// --- Seeking -------------------------------------------------------------------------------------

TEST_F(ConsumerTest, SeeksToOffsetsTimesBeginningAndEnd) {
  create("t");
  Producer p = producer("t");
  for (int i = 0; i < 20; ++i)
    ASSERT_TRUE(p.send({.value = std::to_string(i), .timestamp_ns = 1'000 + i * 10}));
  Consumer c = consumer("t", {.max_poll_records = 1});
  ASSERT_TRUE(c.seek(part(), Offset(7)));
  EXPECT_EQ(*c.position(part()), Offset(7));
  EXPECT_THAT(take(c, 1), ElementsAre("7"));
  ASSERT_TRUE(c.seek_to_time(part(), 1'101));
  EXPECT_THAT(take(c, 1), ElementsAre("11"));
  ASSERT_TRUE(c.seek_to_beginning(part()));
  EXPECT_THAT(take(c, 1), ElementsAre("0"));
  ASSERT_TRUE(c.seek_to_end(part()));
  EXPECT_TRUE(c.poll(milliseconds(0))->empty());
  EXPECT_EQ(*c.position(part()), Offset(20));
  ASSERT_TRUE(c.seek_to_time(part(), 99'999));
  EXPECT_EQ(*c.position(part()), Offset(20));
}

TEST_F(ConsumerTest, SeeksOutsideTheLogGoWhereTheResetSays) {
  create("t");
  Producer p = producer("t");
  send(p, 5);
  using Reset = ConsumerOptions::Reset;
  Consumer earliest = consumer("t", {.auto_offset_reset = Reset::earliest});
  ASSERT_TRUE(earliest.seek(part(), Offset(100)));
  EXPECT_EQ(*earliest.position(part()), Offset(0));
  Consumer latest = consumer("t", {.auto_offset_reset = Reset::latest});
  ASSERT_TRUE(latest.seek(part(), Offset(100)));
  EXPECT_EQ(*latest.position(part()), Offset(5));
  Consumer none = consumer("t", {.auto_offset_reset = Reset::none});
  EXPECT_EQ(none.seek(part(), Offset(100)).error().code, Code::offset_out_of_range);
  EXPECT_EQ(none.seek({"t", PartitionId(4)}, Offset(0)).error().code, Code::not_found);
}

// --- Behind --------------------------------------------------------------------------------------

TEST_F(ConsumerTest, LagIsToldInRecordsBytesAndTime) {
  create("t");
  Producer p = producer("t");
  send(p, 10);
  Consumer c = consumer("t", {.max_poll_records = 4});
  auto lag = c.lag(part());
  ASSERT_TRUE(lag);
  EXPECT_EQ(lag->records, 10u);
  EXPECT_EQ(lag->bytes, 400u);
  EXPECT_GT(lag->time.count(), 0);
  ASSERT_EQ(c.poll(milliseconds(0))->size(), 4u);
  EXPECT_EQ(c.lag(part())->records, 6u);
  EXPECT_EQ(c.lag(part())->bytes, 240u);
  take(c, 6);
  lag = c.lag(part());
  EXPECT_EQ(lag->records, 0u);
  EXPECT_EQ(lag->bytes, 0u);
  EXPECT_EQ(lag->time.count(), 0);
  EXPECT_EQ(*c.end_offset(part()), Offset(10));
}

TEST_F(ConsumerTest, LagAskedInTheMiddleOfARetiredRingLosesNothing) {
  create("t", {{"claim.timeout.ms", "20"}});
  Producer p = producer("t");
  send(p, 10);
  Consumer c = consumer("t", {.max_poll_records = 4});
  const auto held = c.poll(milliseconds(0));
  Producer sleeper = producer("t");
  auto claim = sleeper.try_claim(8);
  while (admin().describe_topic("t")->partitions[0].ring_generation < 2)
    std::this_thread::sleep_for(milliseconds(1));
  send(p, 10);
  EXPECT_EQ(c.lag(part())->records, 17u);
  EXPECT_EQ(held->front().value, "0");
  std::vector<std::string> expected;
  for (int i = 4; i < 20; ++i) expected.push_back(std::to_string(i));
  EXPECT_EQ(take(c, 16), expected);
  EXPECT_EQ(claim->commit().error(), SendError::claim_expired);
}

TEST_F(ConsumerTest, IsPassedUnderOverwriteAndToldHowMuchItMissed) {
  create("t", small({{"storage", "memory"}, {"on.full", "overwrite"}}));
  Producer p = producer("t");
  Consumer c = consumer("t");
  for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(p.send(std::to_string(i)));
  std::uint64_t seen = 0;
  int last = -1;
  while (last != 19'999) {
    const auto polled = c.poll(seconds(10));
    ASSERT_TRUE(polled) << to_string(polled.error());
    for (const Record& record : *polled) {
      ASSERT_GT(std::stoi(std::string(record.value)), last);
      last = std::stoi(std::string(record.value));
      ++seen;
    }
  }
  EXPECT_EQ(seen + c.missed(), 20'000u);
  EXPECT_GT(c.missed(), 0u);
}

TEST_F(ConsumerTest, RetentionPassesItToo) {
  create("t", small({{"segment.bytes", "1MiB"}, {"retention.bytes", "1MiB"}}));
  Producer p = producer("t");
  Consumer c = consumer("t");
  using Reset = ConsumerOptions::Reset;
  Consumer strict = consumer("t", {.auto_offset_reset = Reset::none});
  const std::string value(1'000, 'v');
  std::uint64_t sent = 0;
  while (admin().describe_topic("t")->partitions[0].log_start_offset == Offset(0)) {
    ASSERT_TRUE(p.send(value));
    if (++sent % 1'000 == 0) std::this_thread::sleep_for(milliseconds(20));
  }
  std::uint64_t seen = 0;
  while (seen + c.missed() < sent) {
    const auto polled = c.poll(seconds(10));
    ASSERT_TRUE(polled) << to_string(polled.error());
    seen += polled->size();
  }
  EXPECT_GT(c.missed(), 0u);
  const auto refused = strict.poll(milliseconds(0));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::offset_out_of_range);
}

// --- Words that another process has written over -------------------------------------------------

// There seems to be something to read for ever.
class ScribbledRing : public ConsumerTest {
 protected:
  log::Ring ring() {
    const LogCore& core = *log_->core();
    const auto at = core.find_partition(core.catalog().load_topic("t").value(), PartitionId(0)).value();
    return log::Ring::open(log::ring_path(at.shm_dir, at.topic, at.partition), false).value();
  }
  static std::chrono::nanoseconds cpu() {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
  }
  static void expect_sleep(Consumer& c) {
    const auto before = cpu();
    for (int i = 0; i < 5; ++i) {
      const auto polled = c.poll(milliseconds(100));
      ASSERT_TRUE(polled) << to_string(polled.error());
      EXPECT_TRUE(polled->empty());
    }
    EXPECT_LT(cpu() - before, milliseconds(250));
  }
};

TEST_F(ScribbledRing, OneWhoseHeadIsBehindItsEndIsWaitedForAsleep) {
  create("t");
  Producer p = producer("t");
  send(p, 1);
  Consumer c = consumer("t");
  ASSERT_THAT(take(c, 1), ElementsAre("0"));
  ring().header().head.store(std::uint64_t{1} << 63);
  expect_sleep(c);
}

TEST_F(ScribbledRing, OneThatIsSealedAndEndsBeforeItsBeginIsWaitedForAsleep) {
  create("t");
  Producer p = producer("t");
  send(p, 1);
  Consumer c = consumer("t");
  ASSERT_THAT(take(c, 1), ElementsAre("0"));
  const log::Ring sealed = ring();
  sealed.header().next_position.store(0);
  sealed.header().state.store(static_cast<std::uint32_t>(log::RingState::sealed));
  expect_sleep(c);
}

// --- Ends ----------------------------------------------------------------------------------------

TEST_F(ConsumerTest, OfADeletedTopicIsClosedThoughItWaits) {
  for (const char* storage : {"disk", "memory"}) {
    SCOPED_TRACE(storage);
    create("t", {{"storage", storage}});
    Consumer idle = consumer("t");
    std::thread deleting([&] {
      std::this_thread::sleep_for(milliseconds(20));
      ASSERT_TRUE(admin().delete_topic("t"));
    });
    Result<std::span<const Record>> polled = std::span<const Record>();
    while (polled) polled = idle.poll(seconds(60));
    EXPECT_EQ(polled.error().code, Code::closed);
    deleting.join();
    EXPECT_EQ(idle.lag(part()).error().code, Code::closed);
  }
}

TEST_F(ConsumerTest, OutlivesAProducerThatDiedWithinAnAppend) {
  create("t");
  Producer p = producer("t");
  send(p, 1);
  shm::Child child([&](const shm::Line& line) {
    auto mine =
        Log::open({.dir = options().dir, .keeper = KeeperMode::none, .shared_memory_dir = shm_.path()});
    auto dying = Producer::open(*mine, {.topic = "t"});
    auto claim = dying->try_claim(100);
    line.say(claim ? 'y' : 'n');
    line.hear();
  });
  ASSERT_EQ(child.line().hear(), 'y');
  send(p, 1);
  Consumer c = consumer("t");
  EXPECT_THAT(take(c, 1), ElementsAre("0"));
  EXPECT_TRUE(c.poll(milliseconds(20))->empty()) << "the claim stands before it";
  child.kill();
  EXPECT_THAT(take(c, 1), ElementsAre("1"));
}

shm::Partition& entry_of(LogCore& core, const std::string& topic) {
  return core.find_partition(core.catalog().load_topic(topic).value(), PartitionId(0)).value().entry();
}

TEST_F(ConsumerTest, IsWokenThoughWhoWasToWakeItDied) {
  create("t");
  shm::Partition& entry = entry_of(*log_->core(), "t");
  const std::uint32_t before = entry.data_seq.load();
  shm::Child child([&](const shm::Line& line) {
    auto mine =
        Log::open({.dir = options().dir, .keeper = KeeperMode::none, .shared_memory_dir = shm_.path()});
    auto dying = Producer::open(*mine, {.topic = "t"});
    line.say(dying ? 'y' : 'n');
    line.hear();
  });
  ASSERT_EQ(child.line().hear(), 'y');
  child.kill();
  while (entry.data_seq.load() == before)
    std::this_thread::yield();  // where nobody wakes it, ctest ends this
}

TEST_F(ConsumerTest, DoesNotSleepOnThoughWhoWasToWakeItStandsStill) {
  create("t");
  Producer p = producer("t");
  Consumer c = consumer("t", {.wait = WaitStrategy::futex});
  shm::Partition& entry = entry_of(*log_->core(), "t");
  std::thread sending([&] {
    while ((entry.hot.load() & shm::kDataWaiter) == 0) std::this_thread::yield();
    std::this_thread::sleep_for(milliseconds(50));          // it sleeps now
    entry.hot.fetch_and(~std::uint64_t{shm::kDataWaiter});  // taken by one who does not go on
    send(p, 1);
  });
  const auto begin = std::chrono::steady_clock::now();
  auto polled = c.poll(std::chrono::minutes(10));
  while (polled && polled->empty()) polled = c.poll(std::chrono::minutes(10));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(1));
  sending.join();
}

TEST_F(ConsumerTest, InAForkedChildIsClosed) {
  create("t");
  Producer p = producer("t");
  send(p, 3);
  Consumer c = consumer("t", {.max_poll_records = 1});
  take(c, 1);
  shm::Child child([&](const shm::Line&) {
    EXPECT_EQ(c.poll(milliseconds(0)).error().code, Code::closed);
    EXPECT_EQ(c.assign("t").error().code, Code::closed);
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(take(c, 2).size(), 2u);
}

}  // namespace
}  // namespace ringtail
