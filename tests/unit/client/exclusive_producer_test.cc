// Producers that have their topic for themselves, as their users see them.
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExclusiveProducerTest : public ClientTest {
 protected:
  Producer exclusive(const std::string& topic, ProducerOptions wanted = {}) {
    wanted.exclusive = true;
    return producer(topic, std::move(wanted));
  }
  static Result<Producer> try_exclusive(const Log& log, const std::string& topic) {
    return Producer::open(log, {.topic = topic, .exclusive = true});
  }
  // Of one who is told that another has it, until it has been given back.
  static SendResult<RecordMetadata> send_when_free(Producer& producer, std::string_view value) {
    for (;;) {
      auto sent = producer.send(value);
      if (sent || sent.error() != SendError::held_exclusively) return sent;
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
};

TEST_F(ExclusiveProducerTest, OthersGoOnWhenItHasClosed) {
  create("t", {{"storage", "memory"}});
  Producer before = producer("t");
  ASSERT_TRUE(before.send("first"));
  {
    Producer alone = exclusive("t");
    ASSERT_TRUE(alone.send("second"));
    const auto refused = before.send("not now");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error(), SendError::held_exclusively);
    EXPECT_EQ(before.error().code, Code::held_exclusively);
    EXPECT_THAT(before.error().message, HasSubstr("topic 't' partition 0"));
    EXPECT_THAT(before.error().message, HasSubstr("nothing was appended"));
    ASSERT_TRUE(alone.send("third"));
  }
  const auto sent = send_when_free(before, "fourth");
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(3));
  Consumer reader = consumer("t");
  EXPECT_THAT(take(reader, 4), ElementsAre("first", "second", "third", "fourth"));
}

TEST_F(ExclusiveProducerTest, ASecondIsRefusedInAllItsPartitions) {
  create("t", {}, 3);
  Producer alone = exclusive("t");
  for (std::uint32_t p = 0; p < 3; ++p) ASSERT_TRUE(alone.send({.value = "v", .partition = PartitionId(p)}));
  const auto second = try_exclusive(*log_, "t");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::held_exclusively);
  const auto ordinary = Producer::open(*log_, {.topic = "t"});
  ASSERT_FALSE(ordinary);
  EXPECT_EQ(ordinary.error().code, Code::held_exclusively);
}

// What the refused one had of it already, it gives back.
TEST_F(ExclusiveProducerTest, OneThatCannotHaveAllHasNone) {
  create("t", {{"storage", "memory"}}, 1);
  Producer alone = exclusive("t");
  ASSERT_TRUE(admin().create_partitions("t", 2));
  ASSERT_TRUE(alone.send({.value = "v", .partition = PartitionId(1)}));
  ASSERT_FALSE(try_exclusive(*log_, "t"));
  ASSERT_TRUE(alone.send({.value = "v", .partition = PartitionId(0)}));
}

TEST_F(ExclusiveProducerTest, WithTransactionsItIsRefused) {
  create("t");
  const auto refused = Producer::open(*log_, {.topic = "t", .transactional_id = "id", .exclusive = true});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
  EXPECT_THAT(refused.error().message, HasSubstr("transactional_id"));
}

TEST_F(ExclusiveProducerTest, ATopicThatHasSeenTransactionsIsNobodysAlone) {
  create("t");
  Producer transactional = producer("t", {.transactional_id = "id"});
  ASSERT_TRUE(transactional.begin());
  ASSERT_TRUE(transactional.send("v"));
  ASSERT_TRUE(transactional.commit());
  const auto refused = try_exclusive(*log_, "t");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unsupported);
}

TEST_F(ExclusiveProducerTest, ATransactionDoesNotBeginWhereAnotherIsAlone) {
  create("t");
  Producer transactional = producer("t", {.transactional_id = "id"});
  Producer alone = exclusive("t");
  ASSERT_TRUE(transactional.begin());
  const auto refused = transactional.send("v");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), SendError::held_exclusively);
  EXPECT_TRUE(transactional.abort()) << to_string(transactional.error());
  EXPECT_TRUE(alone.send("v"));
}

TEST_F(ExclusiveProducerTest, ForAnotherTopicItIsExclusiveToo) {
  create("t");
  create("u");
  Producer alone = exclusive("t");
  auto other = alone.for_topic("u");
  ASSERT_TRUE(other) << to_string(other.error());
  EXPECT_FALSE(Producer::open(*log_, {.topic = "u"}));
  const auto twice = alone.for_topic("t");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code, Code::held_exclusively);
  ASSERT_TRUE(alone.send("a"));
  ASSERT_TRUE(other->send("b"));
}

TEST_F(ExclusiveProducerTest, DurableAndNumberedItIsAsEver) {
  create("t", small());
  Producer alone = exclusive("t", {.durable = true, .enable_idempotence = true, .producer_id = 7});
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto sent = alone.send({.value = std::to_string(i), .sequence = i});
    ASSERT_TRUE(sent) << to_string(alone.error());
    const auto again = alone.send({.value = "again", .sequence = i});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->offset, sent->offset);
  }
  Consumer reader = consumer("t");
  EXPECT_EQ(take(reader, 50).back(), "49");
}

// Each waits asleep for the other's answer: a wake-up that is lost is never made up for.
TEST_F(ExclusiveProducerTest, WhoSleepsIsWoken) {
  create("ping", {{"storage", "memory"}});
  create("pong", {{"storage", "memory"}});
  constexpr int kTrips = 3'000;
  std::thread answering([&] {
    Producer back = exclusive("pong");
    Consumer reader = consumer("ping", {.wait = WaitStrategy::futex});
    for (int i = 0; i < kTrips; ++i) {
      ASSERT_EQ(take(reader, 1).size(), 1u);
      ASSERT_TRUE(back.send("pong"));
    }
  });
  Producer out = exclusive("ping");
  Consumer reader = consumer("pong", {.wait = WaitStrategy::futex});
  for (int i = 0; i < kTrips; ++i) {
    if (i % 100 == 0) std::this_thread::sleep_for(milliseconds(1));  // then nobody looks on
    ASSERT_TRUE(out.send("ping"));
    ASSERT_EQ(take(reader, 1).size(), 1u);
  }
  answering.join();
}

TEST_F(ExclusiveProducerTest, AForkedChildLeavesItToItsParent) {
  create("t");
  Producer alone = exclusive("t");
  const pid_t child = ::fork();
  if (child == 0) {
    {
      Producer inherited = std::move(alone);
    }
    ::_exit(0);
  }
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(alone.send("v"));
  EXPECT_FALSE(Producer::open(*log_, {.topic = "t"}));
}

TEST_F(ExclusiveProducerTest, ItsTopicMayBeDeleted) {
  create("t", {{"storage", "memory"}});
  Producer alone = exclusive("t");
  ASSERT_TRUE(alone.send("v"));
  ASSERT_TRUE(admin().delete_topic("t"));
  const auto refused = alone.send("v");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), SendError::closed);
  create("t", {{"storage", "memory"}});
  Producer again = exclusive("t");
  EXPECT_TRUE(again.send("v"));
}

}  // namespace
}  // namespace ringtail
