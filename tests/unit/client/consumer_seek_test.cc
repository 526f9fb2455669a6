// Going to a log's start and end while they move.
#include <atomic>
#include <fstream>
#include <thread>

#include "client/log_core.h"
#include "support/no_descriptors.h"
#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

// A ring of some 250 records, whose producers write over the oldest.
class ConsumerSeekTest : public ClientTest {
 protected:
  using Reset = ConsumerOptions::Reset;
  ConsumerSeekTest() { create("t", small({{"storage", "memory"}, {"on.full", "overwrite"}})); }

  static TopicPartition part() { return {"t", PartitionId(0)}; }
  shm::Partition& entry() {
    const LogCore& core = *log_->core();
    return core.find_partition(core.catalog().load_topic("t").value(), PartitionId(0)).value().entry();
  }
  void overwrite() {
    Producer p = producer("t");
    for (int i = 0; i < 2'000; ++i) ASSERT_TRUE(p.send(value_));
  }
  // The start, of which nothing is told from here on: as while the keeper has moved the ring's head alone.
  Offset hide_start() { return Offset(entry().log_start_offset.exchange(0)); }
  const std::string value_ = std::string(1'000, 'v');
};

TEST_F(ConsumerSeekTest, ToTheBeginningGoesToWhatIsThereThoughTheStartThatIsToldIsGone) {
  overwrite();
  for (const Reset reset : {Reset::none, Reset::latest, Reset::earliest}) {
    SCOPED_TRACE(static_cast<int>(reset));
    Consumer c = consumer("t", {.auto_offset_reset = reset});
    ASSERT_TRUE(c.seek_to_end(part()));
    const Offset start = hide_start();
    const Status sought = c.seek_to_beginning(part());
    ASSERT_TRUE(sought) << to_string(sought.error());
    EXPECT_GE(c.position(part()).value(), start);
    EXPECT_LT(c.position(part()).value(), c.end_offset(part()).value());
    const auto polled = c.poll(seconds(60));
    ASSERT_TRUE(polled) << to_string(polled.error());
    ASSERT_FALSE(polled->empty());
    EXPECT_EQ(polled->front().value, value_);
    entry().log_start_offset.store(start.value());
  }
}

TEST_F(ConsumerSeekTest, WhatWasGoneBeforeAConsumerCameItHasNotMissed) {
  overwrite();
  const Offset start = hide_start();
  Consumer c = consumer("t", {.auto_offset_reset = Reset::none});
  EXPECT_GE(c.position(part()).value(), start);
  const auto polled = c.poll(seconds(60));
  ASSERT_TRUE(polled) << to_string(polled.error());
  ASSERT_FALSE(polled->empty());
  EXPECT_GE(polled->front().offset, start);
  EXPECT_LT(c.missed(), start.value());  // a term or two, if the keeper was still at work
}

// The start moves between any two steps of a seek. Who has gone to the end instead has to come back.
TEST_F(ConsumerSeekTest, ToTheBeginningSucceedsWhileATopicIsOverwritten) {
  for (const Reset reset : {Reset::none, Reset::latest}) {
    SCOPED_TRACE(static_cast<int>(reset));
    Consumer c = consumer("t", {.auto_offset_reset = reset});
    std::atomic<bool> done{false};
    std::thread sending([&] {
      Producer p = producer("t");
      while (!done.load()) {
        if (p.send(value_)) continue;
        ADD_FAILURE() << "nothing can be sent";
        done.store(true);
      }
    });
    const Offset until = c.end_offset(part()).value() + 20'000;
    Offset last(0);
    while (!done.load()) {
      const Status sought = c.seek_to_beginning(part());
      const Offset at = c.position(part()).value();
      EXPECT_TRUE(sought) << to_string(sought.error());
      EXPECT_GE(at, last);
      if (!sought || at < last || at >= until) done.store(true);
      last = at;
    }
    sending.join();
    EXPECT_EQ(c.missed(), 0u);
  }
}

TEST_F(ConsumerSeekTest, ToTheEndSucceedsWhileATopicIsOverwritten) {
  for (const Reset reset : {Reset::none, Reset::earliest}) {
    SCOPED_TRACE(static_cast<int>(reset));
    Consumer c = consumer("t", {.auto_offset_reset = reset});
    std::atomic<bool> done{false};
    std::thread sending([&] {
      Producer p = producer("t");
      for (int i = 0; i < 20'000; ++i) EXPECT_TRUE(p.send(value_));
      done.store(true);
    });
    Offset last(0);
    while (!done.load()) {
      const Status sought = c.seek_to_end(part());
      EXPECT_TRUE(sought) << to_string(sought.error());
      const Offset at = c.position(part()).value();
      EXPECT_GE(at, last);
      if (!sought || at < last) break;
      last = at;
    }
    sending.join();
  }
}

TEST_F(ConsumerSeekTest, OneThatFailsLeavesThePositionAsItWas) {
  create("disk", small());
  Producer p = producer("disk", {.durable = true});
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(p.send(value_));
  const TopicPartition disk{"disk", PartitionId(0)};
  Consumer c = consumer("disk");
  ASSERT_TRUE(c.seek_to_end(disk));
  {
    const testing::NoDescriptors none;
    EXPECT_FALSE(c.seek(disk, Offset(0)));
    EXPECT_FALSE(c.seek_to_beginning(disk));
    EXPECT_FALSE(c.seek_to_time(disk, 0));
  }
  EXPECT_EQ(c.position(disk).value(), Offset(1'000));
  {
    const auto first = options().dir / "topics" / "disk" / "0" / "00000000000000000000.log";
    std::fstream segment(first, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(segment.seekp(4'096 + 100).write("damaged!", 8).flush());
  }
  const Status damaged = c.seek(disk, Offset(0));
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, Code::corrupt);
  EXPECT_EQ(c.position(disk).value(), Offset(1'000));
  ASSERT_TRUE(p.send("next"));
  EXPECT_THAT(take(c, 1), ::testing::ElementsAre("next"));
  EXPECT_EQ(c.missed(), 0u);
}

TEST_F(ConsumerSeekTest, BeyondTheEndIsNothingMissed) {
  Consumer c = consumer("t", {.auto_offset_reset = Reset::latest});
  Producer p = producer("t");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(p.send("v"));
  ASSERT_TRUE(c.seek(part(), Offset(1'000)));
  EXPECT_EQ(c.position(part()).value(), Offset(10));
  EXPECT_EQ(c.missed(), 0u);
}

}  // namespace
}  // namespace ringtail
