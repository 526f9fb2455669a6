// A producer that has its partition for itself: how it gets it, what it leaves, and who takes it away.
#include <gmock/gmock.h>

#include <future>

#include "shm/futex.h"
#include "shm/light_fence.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class ExclusiveTest : public PartitionScene, public ::testing::WithParamInterface<Storage> {
 protected:
  void SetUp() override {
    config_.storage = GetParam();
    open_keeper();
  }
  bool is_disk() const { return config_.storage == Storage::disk; }
  Ring ring() { return open_ring(); }

  // Opens one while the keeper makes its rounds.
  std::unique_ptr<Producer> new_owner(milliseconds max_block = milliseconds(10'000)) {
    auto producer = std::make_unique<Producer>();
    producer->slot = new_slot();
    auto opening = std::async(std::launch::async, [&] {
      return Appender::open(ref_, producer->slot, producer->clock, max_block, true);
    });
    turn_until([&] { return opening.wait_for(milliseconds(0)) == std::future_status::ready; });
    auto opened = opening.get();
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return nullptr;
    producer->appender.emplace(std::move(*opened));
    return producer;
  }
  void release(std::unique_ptr<Producer> owner) {
    (*owner)->release_exclusive();
    turn_until([&] { return !ring().is_owned(); });
  }
  // As a process that is killed: its lock is gone, and nothing is given back.
  void kill(std::unique_ptr<Producer> owner) {
    owner.reset();
    turn_until([&] { return !ring().is_owned(); });
  }
  // While the keeper makes its rounds.
  template <class Work>
  auto meanwhile(Work work) {
    auto working = std::async(std::launch::async, work);
    turn_until([&] { return working.wait_for(milliseconds(0)) == std::future_status::ready; });
    return working.get();
  }
};

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

// --- Ends ----------------------------------------------------------------------------------------

// What he has written of it, longer than what comes in its place, must not be taken for frames.
TEST_P(ExclusiveTest, OfAnAppendThatItsOwnerDiedInNothingIsLeft) {
  auto owner = new_owner();
  append(*owner, 20);
  const auto open = (*owner)->claim({}, 3'000);
  ASSERT_TRUE(open);
  const std::uint64_t word = format::committed_word(64, format::FrameType::data, 0);
  for (std::size_t at = 0; at + 8 <= 3'000; at += 8) std::memcpy(open->value + at, &word, 8);
  kill(std::move(owner));
  auto shared = new_producer();
  append(*shared, 20);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  for (std::size_t i = 0; i < numbers_.size(); ++i) ASSERT_EQ(numbers_[i].first, Offset(i));
}

// He has said where the term ends, and not come to its pad; or has come there, and not opened the next.
TEST_P(ExclusiveTest, AnOwnerMayDieAnywhereInARotation) {
  for (int stage = 0; stage < 4; ++stage) {
    SCOPED_TRACE(stage);
    auto owner = new_owner();
    append_while_turning(*owner, 50);
    const Ring at = ring();
    const std::uint64_t term = at.header().active_term.load();
    const std::uint64_t tail = at.line(term).fenced.load();
    const std::uint64_t used = tail_bytes(tail);
    const Offset next(at.line(term).base_offset.load() + tail_records(tail));
    if (stage > 0) at.publish_end(term, tail & ~kFence);
    if (stage > 1)
      publish_filler(at.term_data(term) + used, 0, format::FrameType::pad,
                     static_cast<std::uint32_t>(at.term_bytes() - used), next, 0);
    if (stage > 2) {
      at.line(term).fenced.store(make_tail(at.lap(term), tail_records(tail), at.term_bytes()) | kFence);
      TermLine& to = at.line(term + 1);
      to.number.store(term + 1);
      to.base_offset.store(next.value());
      to.tail.store(make_tail(at.lap(term + 1), 0, 0) | kFence);
    }
    kill(std::move(owner));
    auto shared = new_producer();
    append_while_turning(*shared, 50);
  }
  auto reader = new_reader();
  expect_rest(*reader, is_disk() ? Offset(0) : reader->log_start());
}

TEST_P(ExclusiveTest, GoesOnUnderAnotherKeeper) {
  auto owner = new_owner();
  append(*owner, 30);
  kill_keeper();
  append(*owner, 30);
  open_keeper();
  append(*owner, 30);
  EXPECT_EQ(ring().owner(), owner->slot.owner());
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  // One that dies while it takes the ring back.
  (*owner)->release_exclusive();
  ring().fence();
  kill_keeper();
  open_keeper();
  turn_until([&] { return failed() || !ring().is_owned(); });
  ASSERT_FALSE(failed());
  auto shared = new_producer();
  append(*shared, 30);
  expect_rest(*reader, Offset(90));
}

TEST_P(ExclusiveTest, WhenAllHaveDiedItsRecordsAreThere) {
  auto owner = new_owner();
  append(*owner, 100);
  owner.reset();
  kill_keeper();
  open_keeper();
  turn_until([&] { return failed() || !ring().is_owned(); });
  ASSERT_FALSE(failed());
  auto shared = new_producer();
  append(*shared, 30);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
}

// Line by line the ring is opened to all again.
TEST_P(ExclusiveTest, AKeeperMayDieWhileItGivesTheRingBack) {
  for (const std::uint32_t lifted : {1u, 3u}) {
    SCOPED_TRACE(lifted);
    auto owner = new_owner();
    append_while_turning(*owner, 60);
    const Ring r = ring();
    // One commit is told by its frame alone.
    owner.reset();
    if (is_disk())
      turn_until([&] { return entry().durable_offset.load() >= numbers_.back().first.value() + 1; });
    const Ring::End end = r.claimed_end();
    kill_keeper();
    r.fence();
    r.unfence(end);
    for (std::uint32_t i = 0; i + lifted < r.term_count(); ++i) {
      TermLine& line = r.header().terms[i];
      line.fenced.store(line.tail.load() | kFence);
      line.tail.fetch_or(kFence);
    }
    entry().exclusive.store(0);
    open_keeper();
    turn_until([&] { return failed() || generation() != r.generation(); });
    ASSERT_FALSE(failed());
    auto shared = new_producer();
    append_while_turning(*shared, 60);
  }
  auto reader = new_reader();
  expect_rest(*reader, is_disk() ? Offset(0) : reader->log_start());
}

// --- A ring that is replaced ----------------------------------------------------------------------

// A reader stands in what producers need, and the ring is full.
class DiskExclusiveTest : public ExclusiveTest {
 protected:
  void SetUp() override {
    config_.reader_pin_ms = 0;
    ExclusiveTest::SetUp();
  }
  // Fills the ring behind a reader that does not move, until the keeper replaces it. Returns that reader.
  std::unique_ptr<PartitionReader> pin() {
    auto reader = new_reader();
    std::vector<Record> records(1);
    EXPECT_EQ(reader->poll(records).value(), 1u);
    EXPECT_EQ(records[0].value, value_of(0));
    return reader;
  }
};

INSTANTIATE_TEST_SUITE_P(Topics, DiskExclusiveTest, ::testing::Values(Storage::disk),
                         [](const auto&) { return "Disk"; });

TEST_P(DiskExclusiveTest, TheNextRingIsTheOwnersToo) {
  auto owner = new_owner();
  append(*owner, 1);
  auto reader = pin();
  const std::uint64_t before = generation();
  append_while_turning(*owner, 4'000);
  EXPECT_GT(generation(), before);
  EXPECT_EQ(ring().owner(), owner->slot.owner());
  expect_rest(*reader, Offset(1));
  for (std::size_t i = 0; i < numbers_.size(); ++i) ASSERT_EQ(numbers_[i].first, Offset(i));
  turn_until_durable(Offset(4'001));
  auto second = new_reader();
  expect_rest(*second, Offset(0));
}

TEST_P(DiskExclusiveTest, WhatOthersHaveSentBecomesDurableMeanwhile) {
  auto before = new_producer();
  const auto sent = (*before)->append({.value = "mine"});
  ASSERT_TRUE(sent);
  auto owner = new_owner();
  EXPECT_TRUE(meanwhile([&] { return (*before)->wait_durable(sent->end); }));
  const auto alone = (*owner)->append({.value = "his"});
  ASSERT_TRUE(alone);
  EXPECT_TRUE(meanwhile([&] { return (*before)->wait_durable(alone->end); }));
}

// --- Given up ------------------------------------------------------------------------------------

// A stop in the midst of an append, while this host ceases to lead, or the ring has to go.
class GivenUpTest : public ExclusiveTest {
 protected:
  // Has the keeper replace the ring, for somebody else stands still in it.
  void replace() {
    const std::uint64_t before = generation();
    keeper_->on_slot_stuck(300, shm::op_word(1, shm::Phase::claiming, ref_.index));
    turn_until([&] { return failed() || generation() != before; });
    ASSERT_FALSE(failed());
  }
};

INSTANTIATE_TEST_SUITE_P(Topics, GivenUpTest, ::testing::Values(Storage::memory, Storage::disk),
                         [](const auto& topic) { return topic.param == Storage::disk ? "Disk" : "Memory"; });

TEST_P(GivenUpTest, HisLateCommitIsNoRecordAndHeIsTold) {
  auto owner = new_owner();
  append(*owner, 20);
  auto early = new_reader();
  expect_rest(*early, Offset(0));  // it stands where the late commit will be
  const auto open = (*owner)->claim({}, 100);
  ASSERT_TRUE(open);
  std::memset(open->value, 'z', 100);
  replace();
  const auto late = (*owner)->commit(*open);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error(), SendError::claim_expired);
  append_while_turning(*owner, 50);
  expect_rest(*early, Offset(20));
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  if (is_disk()) turn_until_durable(Offset(70));
  auto third = new_reader();
  expect_rest(*third, Offset(0));
}

// Between the keeper's last look and the seal.
TEST_P(GivenUpTest, ACommitThatTheLastLookHasSeenCounts) {
  auto owner = new_owner();
  append(*owner, 20);
  const auto open = (*owner)->claim({}, 100);
  ASSERT_TRUE(open);
  std::memset(open->value, 'z', 100);
  // As commit does it, and no further: his stop is behind it.
  format::state_word(open->frame).store(format::committed_word(open->length, format::FrameType::data, 0));
  replace();
  EXPECT_TRUE((*owner)->commit(*open));
  auto reader = new_reader();
  std::vector<Record> records(64);
  ASSERT_EQ(reader->poll(records).value(), 21u);
  EXPECT_EQ(records[20].value, std::string(100, 'z'));
  const auto next = (*owner)->append({.value = "next"});
  ASSERT_TRUE(next);
  EXPECT_EQ(next->offset, Offset(21));
  for (int i = 0; i < 100 && reader->poll(records).value() == 0; ++i) turn();
  EXPECT_EQ(records[0].value, "next");
}

// He may have told the tail of a commit that does not count.
TEST_P(GivenUpTest, TheEndIsUnknownUntilItIsDecided) {
  auto owner = new_owner();
  append(*owner, 5);
  const Ring r = ring();
  ASSERT_TRUE(r.exact_end());
  r.header().scribbled.store(static_cast<std::uint32_t>(Scribbled::by_owner));
  ASSERT_TRUE((*owner)->append({.value = "late"}));
  EXPECT_FALSE(r.exact_end());
}

// A reader may have stepped over it, though its owner has told no tail that reaches so far.
TEST_P(GivenUpTest, WhatTheOwnerHasAbortedIsStillWalkedOver) {
  auto owner = new_owner();
  append(*owner, 5);
  const auto open = (*owner)->claim({}, 100);
  ASSERT_TRUE(open);
  store_filler_fields(open->frame, open->metadata.offset, 1);
  format::state_word(open->frame).store(format::aborted_word(open->claimed));
  auto reader = new_reader();
  std::vector<Record> records(8);
  ASSERT_EQ(reader->poll(records).value(), 5u);
  replace();
  (*owner)->abort(*open);
  const auto next = (*owner)->append({.value = "next"});
  ASSERT_TRUE(next);
  EXPECT_EQ(next->offset, Offset(6)) << "the aborted one has used up an offset";
  while (reader->poll(records).value() == 0) turn();
  EXPECT_EQ(records[0].value, "next");
}

// As long as it is not decided, nobody is given what may not count.
TEST_P(GivenUpTest, AReaderTakesNothingThatIsNotDecided) {
  auto owner = new_owner();
  append(*owner, 5);
  auto reader = new_reader();
  expect_rest(*reader, Offset(0));
  const Ring r = ring();
  r.header().scribbled.store(static_cast<std::uint32_t>(Scribbled::by_owner));
  ASSERT_TRUE((*owner)->append({.value = "late"}));
  std::vector<Record> records(4);
  EXPECT_EQ(reader->poll(records).value(), 0u);
  EXPECT_EQ(reader->offset(), Offset(5));
  auto frames = reader->poll(records, true);
  EXPECT_EQ(frames.value(), 0u);
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
