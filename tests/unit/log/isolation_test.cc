// What read_committed readers hand out, and where they stop.
#include <gmock/gmock.h>

#include "unit/log/transaction_test_support.h"

namespace ringtail::log {
namespace {

using format::MarkerKind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Isolation : public TransactionScene {
 protected:
  Isolation() { config_.storage = Storage::memory; }
  void send(Appender& to, std::string_view value) { ASSERT_TRUE(to.append({.value = value})); }
};

TEST_F(Isolation, HoldsBackTheRecordsBehindAnOpenTransactionUntilItIsCommitted) {
  open_keeper();
  auto plain = new_producer();
  auto writer = new_transactor(7);
  auto committed = new_committed_reader();
  auto uncommitted = new_reader();
  send(*plain->appender, "before");
  begin(*writer);
  send(*writer->producer->appender, "t1");
  send(*plain->appender, "between");
  send(*writer->producer->appender, "t2");
  EXPECT_THAT(values_of(*uncommitted), ElementsAre("before", "t1", "between", "t2"));
  EXPECT_THAT(values_of(*committed), ElementsAre("before"));
  EXPECT_EQ(committed->offset(), Offset(1));
  EXPECT_EQ(*committed->last_stable_offset(), Offset(1));
  EXPECT_EQ(*uncommitted->last_stable_offset(), Offset(4));  // from where it stands
  end(*writer, MarkerKind::commit);
  send(*plain->appender, "after");
  EXPECT_THAT(values_of(*uncommitted), ElementsAre("after"));
  EXPECT_THAT(values_of(*committed), ElementsAre("t1", "between", "t2", "after"));
  EXPECT_EQ(committed->offset(), Offset(6));
  EXPECT_EQ(*committed->last_stable_offset(), Offset(6));
}

TEST_F(Isolation, StepsOverAbortedTransactions) {
  open_keeper();
  auto plain = new_producer();
  auto writer = new_transactor(7);
  auto reader = new_committed_reader();
  begin(*writer);
  send(*writer->producer->appender, "lost");
  send(*plain->appender, "kept");
  end(*writer, MarkerKind::abort);
  begin(*writer);
  send(*writer->producer->appender, "second");
  end(*writer, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), ElementsAre("kept", "second"));
  EXPECT_EQ(reader->missed(), 0u);
}

TEST_F(Isolation, AMarkerIsForItsOwnTransactionAlone) {
  open_keeper();
  auto writer = new_transactor(7);
  auto other = new_transactor(8);
  auto reader = new_committed_reader();
  begin(*writer);
  begin(*other);
  send(*writer->producer->appender, "first");
  auto later = new_transactor(7);  // the same id in its next epoch
  later->stamp.producer_epoch = 2;
  begin(*later);
  end(*other, MarkerKind::commit);
  end(*later, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), IsEmpty());
  end(*writer, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), ElementsAre("first"));
}

TEST_F(Isolation, AbortAllEndsWhatIsOpenAndNothingElse) {
  open_keeper();
  auto ended = new_transactor(7);
  auto open = new_transactor(8);
  auto next = new_transactor(9);
  auto reader = new_committed_reader();
  begin(*ended);
  begin(*open);
  send(*ended->producer->appender, "ended");
  send(*open->producer->appender, "open");
  end(*ended, MarkerKind::commit);
  abort_all();
  begin(*next);
  send(*next->producer->appender, "next");
  EXPECT_THAT(values_of(*reader), ElementsAre("ended"));
  end(*next, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), ElementsAre("next"));
}

TEST_F(Isolation, RecordsOfAnIdempotentProducerAreNotHeldBack) {
  open_keeper();
  auto idempotent = new_transactor(7);
  auto reader = new_committed_reader();
  send(*idempotent->producer->appender, "a");
  EXPECT_THAT(values_of(*reader), ElementsAre("a"));
}

TEST_F(Isolation, AReaderThatStartsInATransactionStillLearnsItsOutcome) {
  open_keeper();
  auto kept = new_transactor(7);
  auto dropped = new_transactor(8);
  begin(*kept);
  begin(*dropped);
  for (const char* value : {"0", "1", "2", "3"}) {
    send(*kept->producer->appender, value);
    send(*dropped->producer->appender, value);
  }
  auto reader = new_committed_reader();
  ASSERT_TRUE(reader->seek(Offset(4)));
  EXPECT_THAT(values_of(*reader), IsEmpty());
  end(*dropped, MarkerKind::abort);
  end(*kept, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), ElementsAre("2", "3"));
  ASSERT_TRUE(reader->seek(Offset(1)));
  EXPECT_THAT(values_of(*reader), ElementsAre("1", "2", "3"));
  ASSERT_TRUE(reader->seek(Offset(0)));
  EXPECT_THAT(values_of(*reader), ElementsAre("0", "1", "2", "3"));
}

TEST_F(Isolation, SeekingATimeIsNotStoppedByAnOpenTransaction) {
  open_keeper();
  auto plain = new_producer();
  auto writer = new_transactor(7);
  begin(*writer);
  ASSERT_TRUE((*writer)->append({.value = "open", .timestamp_ns = 10}));
  ASSERT_TRUE((*plain)->append({.value = "later", .timestamp_ns = 20}));
  auto reader = new_committed_reader();
  ASSERT_TRUE(reader->seek_to_time(20));
  EXPECT_THAT(values_of(*reader), ElementsAre("later"));
}

// What a consumer does before it sleeps: in front of an open transaction it must sleep as well, and be
// woken by whatever is appended.
TEST_F(Isolation, WaitsForWhatIsAppendedWhileATransactionIsOpen) {
  open_keeper();
  auto plain = new_producer();
  auto writer = new_transactor(7);
  auto reader = new_committed_reader();
  begin(*writer);
  send(*writer->producer->appender, "t");
  EXPECT_TRUE(reader->has_data());
  EXPECT_THAT(values_of(*reader), IsEmpty());
  EXPECT_FALSE(reader->has_data());
  send(*plain->appender, "p");
  EXPECT_TRUE(reader->has_data());
  EXPECT_THAT(values_of(*reader), IsEmpty());
  EXPECT_FALSE(reader->has_data());
  end(*writer, MarkerKind::commit);
  EXPECT_TRUE(reader->has_data());
  EXPECT_THAT(values_of(*reader), ElementsAre("t", "p"));
  EXPECT_FALSE(reader->has_data());
}

TEST_F(Isolation, TakesItsSecondEntryWithTheFirstTransactionAndGivesItBack) {
  open_keeper();
  auto plain = new_producer();
  auto writer = new_transactor(7);
  auto reader = new_committed_reader();
  send(*plain->appender, "p");
  EXPECT_THAT(values_of(*reader), ElementsAre("p"));
  EXPECT_EQ(control_.readers().size(), 1u);
  begin(*writer);
  send(*writer->producer->appender, "t");
  send(*plain->appender, "q");
  // What comes before is handed out though no entry is left, and nothing is lost by that.
  send(*plain->appender, "r");
  for (std::uint32_t i = 1; i < shm::kMaxReaders; ++i) control_.reader(i).owner.store(9);
  std::array<Record, 4> records;
  auto polled = reader->poll(records);
  ASSERT_FALSE(polled);
  EXPECT_EQ(polled.error().code, Code::limit_exceeded);
  for (std::uint32_t i = 1; i < shm::kMaxReaders; ++i) control_.reader(i).owner.store(0);
  end(*writer, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), ElementsAre("t", "q", "r"));
  EXPECT_NE(control_.reader(1).owner.load(), 0u);
  EXPECT_EQ(control_.reader(1).pin.load(), shm::kNotPinned);
  reader.reset();
  EXPECT_EQ(control_.reader(1).owner.load(), 0u);
}

// A decided scout is no reader that the ring of a memory topic has to wait for.
TEST_F(Isolation, AScoutThatRestsHoldsNoRing) {
  open_keeper();
  auto writer = new_transactor(7);
  auto reader = new_committed_reader();
  begin(*writer);
  send(*writer->producer->appender, "t");
  end(*writer, MarkerKind::commit);
  EXPECT_THAT(values_of(*reader), ElementsAre("t"));
  auto plain = new_producer();
  for (int round = 0; round < 20; ++round) {
    append_while_turning(*plain, 100);  // several times what the ring holds: on.full=block
    values_of(*reader);
  }
  EXPECT_EQ(reader->missed(), 0u);
  EXPECT_EQ(reader->offset(), Offset(2'002));
}

// A passed reader may find records whose marker is gone: they count as missed, and hold nothing up.
TEST_F(Isolation, WhatWasOverwrittenIsMissedAndNothingWaitsForIt) {
  config_.on_full = OnFull::overwrite;
  open_keeper();
  auto plain = new_producer();
  auto writer = new_transactor(7);
  auto reader = new_committed_reader();
  begin(*writer);
  send(*writer->producer->appender, "t");
  EXPECT_THAT(values_of(*reader), IsEmpty());
  append_while_turning(*plain, 3'000);
  values_of(*reader);
  EXPECT_GT(reader->missed(), 0u);
  EXPECT_EQ(reader->offset(), Offset(3'001));
}

// Of one look, a scout passes so many markers and no more.
TEST_F(Isolation, TheLastStableOffsetIsFoundBehindManyMarkers) {
  config_.term_bytes = 1 << 20;
  open_keeper();
  auto writer = new_transactor(7);
  auto other = new_transactor(8);
  auto reader = new_committed_reader();
  begin(*writer);
  send(*writer->producer->appender, "t");
  for (int i = 0; i < 10'000; ++i) {
    begin(*other);
    end(*other, MarkerKind::abort);
  }
  EXPECT_EQ(*reader->last_stable_offset(), Offset(0));
  end(*writer, MarkerKind::commit);
  EXPECT_EQ(*reader->last_stable_offset(), Offset(10'002));
}

// Another process has written that the ring is sealed, and that there is more in it.
TEST_F(Isolation, TheLastStableOffsetOfARingThatSaysItIsSealedIsWhereItsRecordsEnd) {
  open_keeper();
  auto plain = new_producer();
  auto reader = new_reader();
  send(*plain->appender, "p");
  EXPECT_THAT(values_of(*reader), ElementsAre("p"));
  const Ring ring = open_ring();
  ring.header().sealed_offset.store(std::uint64_t{1} << 63);
  ring.header().next_position.store(0);
  ring.header().state.store(static_cast<std::uint32_t>(RingState::sealed));
  EXPECT_EQ(*reader->last_stable_offset(), Offset(1));
}

// Or that nothing of it is there any more, and the term has more offsets.
TEST_F(Isolation, TheLastStableOffsetOfARingThatSaysItIsRecycledIsWhereItsFilesEnd) {
  config_.storage = Storage::disk;
  open_keeper();
  auto plain = new_producer();
  auto reader = new_reader();
  send(*plain->appender, "p");
  turn_until_durable(Offset(1));
  EXPECT_THAT(values_of(*reader), ElementsAre("p"));
  const Ring ring = open_ring();
  ring.header().head.store(std::uint64_t{1} << 63);
  ring.line(0).base_offset.store(1'000);
  EXPECT_EQ(*reader->last_stable_offset(), Offset(1));
}

TEST_F(Isolation, AControlFrameThatIsNoMarkerIsCorrupt) {
  open_keeper();
  auto writer = new_transactor(7);
  begin(*writer);
  end(*writer, MarkerKind::commit);
  auto reader = new_reader();
  const Ring ring = open_ring();
  ring.data()[format::kFrameHeaderBytes + format::kExtensionBytes] = std::byte{9};  // its version
  std::array<Record, 4> records;
  auto polled = reader->poll(records);
  ASSERT_FALSE(polled);
  EXPECT_EQ(polled.error().code, Code::corrupt);
}

}  // namespace
}  // namespace ringtail::log
