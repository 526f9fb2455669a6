#include "log/sent_records.h"

#include "unit/log/replica_test_support.h"

namespace ringtail::log {
namespace {

constexpr Stamp kStamp{.producer_id = 4711};
constexpr std::chrono::seconds kPatience{30};

// The ring may recycle records before the keeper has told where the log begins now.
TEST(SentRecordsTest, WhatHasLeftAMemoryTopicsRingIsNotRecalledAndNoError) {
  ReplicaHost host(Storage::memory);
  host.lead(1);
  auto producer = host.new_producer();
  producer->appender->set_stamp(&kStamp);
  std::uint64_t sent = 0;
  while (host.entry().log_start_offset.load() == 0) {
    host.append(*producer, "r", 50);
    sent += 50;
  }
  host.entry().log_start_offset.store(0);
  host.entry().log_start_position.store(0);
  SentRecords records;
  const auto recalled = records.recall(host.ref(), 402, kStamp, 0, kPatience);
  ASSERT_TRUE(recalled) << to_string(recalled.error());
  EXPECT_EQ(recalled->next, sent);
  EXPECT_NE(records.find(sent - 1), nullptr);
  EXPECT_EQ(records.find(0), nullptr);
}

TEST(SentRecordsTest, WhoWaitsForEverWaitsForAClaimUnderWay) {
  ReplicaHost host;
  host.lead(1);
  auto producer = host.new_producer();
  producer->appender->set_stamp(&kStamp);
  auto claim = (*producer)->claim({}, 8);
  ASSERT_TRUE(claim);
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_TRUE((*producer)->commit(*claim));
  });
  SentRecords records;
  const auto recalled = records.recall(host.ref(), 402, kStamp, 0, std::chrono::milliseconds::max());
  later.join();
  ASSERT_TRUE(recalled) << to_string(recalled.error());
  EXPECT_EQ(recalled->next, 1u);
}

}  // namespace
}  // namespace ringtail::log
