// A producer that has its partition for itself: how it gets it, and what others see of it meanwhile.
#include <gmock/gmock.h>

#include "shm/futex.h"
#include "shm/light_fence.h"
#include "unit/log/exclusive_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Topics, ExclusiveTest, ::testing::Values(Storage::memory, Storage::disk),
                         [](const auto& topic) { return topic.param == Storage::disk ? "Disk" : "Memory"; });

// --- Having it -----------------------------------------------------------------------------------

TEST_P(ExclusiveTest, WhatOneAppendsIsReadOverManyTerms) {
  auto owner = new_owner();
  EXPECT_EQ(ring().owner(), owner->slot.owner());
  auto reader = new_reader();
  for (int round = 0; round < 40; ++round) {
    append_while_turning(*owner, 200);
    expect_rest(*reader, numbers_[numbers_.size() - 200].first);
  }
  EXPECT_EQ(numbers_.back().first, Offset(7'999));
  EXPECT_GT(ring().header().active_term.load(), 10u);
  EXPECT_EQ(generation(), 1u);
  if (!is_disk()) return;
  turn_until_durable(Offset(8'000));
  auto second = new_reader();
  expect_rest(*second, Offset(0));
}

TEST_P(ExclusiveTest, OthersAreRefusedMeanwhileAndGoOnBehindIt) {
  auto before = new_producer();
  append(*before, 10);
  auto owner = new_owner();
  append(*owner, 10);
  const auto refused = (*before)->append({.value = "not now"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), SendError::held_exclusively);
  const Error why = (*before)->describe(refused.error());
  EXPECT_EQ(why.code, Code::held_exclusively);
  EXPECT_THAT(why.message, HasSubstr("pid " + std::to_string(::getpid())));
  const auto opened = Appender::open(ref_, before->slot, before->clock, milliseconds(100));
  EXPECT_EQ(opened.error().code, Code::held_exclusively) << "a producer that comes now";
  release(std::move(owner));
  append(*before, 10);
  auto again = new_owner();
  append(*again, 10);
  release(std::move(again));
  append(*before, 10);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  for (std::size_t i = 0; i < numbers_.size(); ++i) ASSERT_EQ(numbers_[i].first, Offset(i));
  EXPECT_EQ(generation(), 1u) << "the ring was handed on, and not replaced";
}

TEST_P(ExclusiveTest, AnotherThatWantsItIsToldWhoHasIt) {
  auto owner = new_owner();
  auto slot = new_slot();
  WallClock clock;
  const auto second = Appender::open(ref_, slot, clock, milliseconds(10'000), true);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::held_exclusively);
  EXPECT_THAT(second.error().message, HasSubstr("pid " + std::to_string(::getpid())));
  append(*owner, 5);
  // Of a dead one it is taken back.
  owner.reset();
  auto next = new_owner();
  append(*next, 5);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

TEST_P(ExclusiveTest, WhereTransactionsAreItIsUnsupported) {
  entry().transactional.store(1);
  auto slot = new_slot();
  WallClock clock;
  const auto refused = Appender::open(ref_, slot, clock, milliseconds(100), true);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unsupported);
  EXPECT_EQ(entry().exclusive.load(), 0u);
}

TEST_P(ExclusiveTest, WithoutAKeeperItIsToldAndLeavesNothing) {
  kill_keeper();
  auto slot = new_slot();
  WallClock clock;
  const auto late = Appender::open(ref_, slot, clock, milliseconds(30), true);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::timed_out);
  EXPECT_EQ(entry().exclusive.load(), 0u);
}

// --- Kinds of appends ----------------------------------------------------------------------------

TEST_P(ExclusiveTest, BatchesAndClaimsAndWhatIsGivenUpByTheOwnerHimself) {
  auto owner = new_owner();
  const std::array<ProducerRecord, 3> batch{ProducerRecord{.key = "k", .value = "one"},
                                            ProducerRecord{.value = "two"},
                                            ProducerRecord{.key = "m", .value = "three"}};
  const auto sent = (*owner)->append_batch(batch);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(2));
  const auto open = (*owner)->claim("key", 4);
  ASSERT_TRUE(open);
  auto reader = new_reader();
  std::vector<Record> records(16);
  ASSERT_EQ(reader->poll(records).value(), 3u) << "a claim is not seen before its commit";
  EXPECT_EQ(records[2].value, "three");
  std::memcpy(open->value, "four", 4);
  const auto committed = (*owner)->commit(*open);
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->offset, Offset(3));
  const auto aborted = (*owner)->claim({}, 500);
  ASSERT_TRUE(aborted);
  std::memset(aborted->value, 0xff, 500);
  (*owner)->abort(*aborted);
  ASSERT_TRUE((*owner)->append({.value = "six"}));
  ASSERT_EQ(reader->poll(records).value(), 2u);
  EXPECT_EQ(records[0].value, "four");
  EXPECT_EQ(records[0].key, "key");
  EXPECT_EQ(records[1].value, "six");
  EXPECT_EQ(records[1].offset, Offset(5)) << "the offset of the aborted one stays unused";
}

// The topic was altered, or another keeper has come, and the owner asks for something else before he commits.
TEST_P(ExclusiveTest, AClaimIsCommittedThoughItsOwnerHasLookedAtTheTopicAnew) {
  auto owner = new_owner(std::chrono::seconds(1));  // each wait below takes so long, and so may the opening
  ASSERT_TRUE(owner);
  for (const bool commits : {true, false}) {
    append(*owner, 3);
    const auto open = (*owner)->claim({}, 100);
    ASSERT_TRUE(open);
    entry().hot.fetch_add(shm::kHotVersion);
    std::ignore = (*owner)->wait_durable(open->metadata);
    std::ignore = (*owner)->check_replicas();
    if (commits)
      ASSERT_TRUE((*owner)->commit(*open));
    else
      (*owner)->abort(*open);
  }
  const auto sent = (*owner)->append({.value = "next"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(8));
  auto reader = new_reader();
  std::vector<Record> records(16);
  EXPECT_EQ(reader->poll(records).value(), 8u) << "of nine, one was aborted";
}

TEST_P(ExclusiveTest, NumbersItsRecords) {
  auto owner = new_owner();
  const Stamp stamp{.producer_id = 4711};
  (*owner)->set_stamp(&stamp);
  ASSERT_TRUE((*owner)->append({.value = "a"}));
  ASSERT_TRUE((*owner)->append({.value = "b"}));
  EXPECT_EQ((*owner)->next_sequence(), 2u);
  auto reader = new_reader();
  std::vector<std::uint64_t> sequences;
  reader->set_on_stamped([&](const format::Extension& extension, const RecordMetadata&) {
    EXPECT_EQ(extension.producer_id, 4711u);
    sequences.push_back(extension.sequence);
  });
  std::vector<Record> records(16);
  ASSERT_EQ(reader->poll(records).value(), 2u);
  EXPECT_EQ(sequences, (std::vector<std::uint64_t>{0, 1}));
}

TEST_P(ExclusiveTest, AppendTimeGoesOnAndNeverBack) {
  config_.timestamp_type = TimestampType::log_append_time;
  keeper_->update_config(config_);
  auto shared = new_producer();
  std::int64_t last = 0;
  const auto in_order = [&](Producer& producer) {
    for (int i = 0; i < 100; ++i) {
      const auto sent = producer->append({.value = "x", .timestamp_ns = 1});
      ASSERT_TRUE(sent);
      ASSERT_GE(sent->timestamp_ns, last);
      last = sent->timestamp_ns;
    }
  };
  in_order(*shared);
  auto owner = new_owner();
  in_order(*owner);
  release(std::move(owner));
  in_order(*shared);
}

TEST_P(ExclusiveTest, AFullRingIsToldOrWaitedFor) {
  config_.on_full = OnFull::fail;
  keeper_->update_config(config_);
  auto owner = new_owner();
  const std::string value(4'000, 'v');
  std::uint64_t taken = 0;
  for (;; ++taken) {
    const auto sent = (*owner)->append({.value = value});
    if (sent) continue;
    ASSERT_EQ(sent.error(), SendError::would_block);
    break;
  }
  EXPECT_GE(taken, 3 * (kTestTerm / 4'100));
  if (!is_disk()) return;
  config_.on_full = OnFull::block;
  keeper_->update_config(config_);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(meanwhile([&] { return (*owner)->append({.value = value}); }));
}

// --- Order of plain stores -----------------------------------------------------------------------

class MemoryExclusiveTest : public ExclusiveTest {};

INSTANTIATE_TEST_SUITE_P(Topics, MemoryExclusiveTest, ::testing::Values(Storage::memory),
                         [](const auto&) { return "Memory"; });

// As Handshake.TheKeepersBellIsRungForEveryRecordBehindItsLastLook, by one whose commit is no barrier.
TEST_P(MemoryExclusiveTest, WhoLooksAgainBeforeHeSleepsIsWokenByEveryCommit) {
  constexpr std::uint64_t kRounds = 20'000;
  config_.on_full = OnFull::overwrite;
  keeper_->update_config(config_);
  auto owner = new_owner(milliseconds(1'000'000));
  std::atomic<std::uint64_t> seen{0};
  std::thread reading([&] {
    auto reader = new_reader();
    std::vector<Record> records(64);
    std::uint64_t got = 0;
    while (got < kRounds) {
      const std::uint32_t seq = entry().data_seq.load();
      const std::uint64_t hot = entry().hot.fetch_or(shm::kDataWaiter);
      auto polled = reader->poll(records);
      ASSERT_TRUE(polled);
      if (*polled == 0) {
        // No deadline could save it but for the first: by then flag and commit are seen.
        const bool sure = (hot & shm::kDataWaiter) != 0;
        shm::futex_wait(entry().data_seq, seq, monotonic_ns() + (sure ? 3'600'000'000'000 : shm::kVisibleNs));
        continue;
      }
      got += *polled;
      seen.store(got);
    }
  });
  std::thread sending([&] {
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      ASSERT_TRUE((*owner)->append({.value = "x"}));
      while (seen.load() < round) {
      }
    }
  });
  turn_until([&] { return seen.load() >= kRounds; });
  sending.join();
  reading.join();
}

}  // namespace
}  // namespace ringtail::log
