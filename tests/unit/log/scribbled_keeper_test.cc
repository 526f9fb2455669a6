// Another process has written over words that make a keeper ask for memory, wait, or look once more, or others who look
// at a ring: nobody dies of it, and nobody goes on without end.

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "log/epoch_list.h"
#include "log/ring_copy.h"
#include "unit/log/partition_test_support.h"
#include "unit/log/ring_keeper_test_support.h"

namespace ringtail::log {
namespace {

// A thread that does the same over and over, as long as this is there.
class WithoutRest {
 public:
  template <class Work>
  explicit WithoutRest(Work work)
      : thread_([this, work] {
          while (!done_.load(std::memory_order_relaxed)) work();
        }) {}
  ~WithoutRest() {
    done_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

class ScribbledKeeper : public PartitionScene {
 protected:
  // Some are on disk.
  void open_with_records() {
    open_keeper();
    producer_ = new_producer();
    append(*producer_, 5);
    turn_until_durable(Offset(5));
  }
  // The ring is said to be one to which somebody may still write, and has as many records more.
  void scribble() {
    open_ring().header().scribbled.store(static_cast<std::uint32_t>(Scribbled::by_claimer));
    append(*producer_, 5);
  }
  void turn_for_a_while() {
    for (int i = 0; i < 100; ++i) {
      turn();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  bool is_drained() { return retired_rings(dir_.path(), ref_.topic, ref_.partition).value().empty(); }

  std::unique_ptr<Producer> producer_;
};

// --- Copies of rings -----------------------------------------------------------------------------

TEST_F(ScribbledKeeper, ACopyWaitsForThoseOfOtherPartitionsAndIsGivenBackWithItsRing) {
  open_with_records();
  *context_.copied_bytes = RingCopy::kMostBytes;
  scribble();
  turn_for_a_while();
  ASSERT_FALSE(failed());
  EXPECT_EQ(entry().durable_offset.load(), 5u);
  *context_.copied_bytes = 0;
  turn_until_durable(Offset(10));
  turn_until([&] { return generation() == 2 && is_drained(); });
  EXPECT_EQ(*context_.copied_bytes, 0u);
}

TEST_F(ScribbledKeeper, APartitionThatFailsGivesItsCopyBack) {
  open_with_records();
  auto slow = new_producer();
  const auto claim = (*slow)->claim({}, 100);
  ASSERT_TRUE(claim);
  scribble();
  turn_until([&] { return *context_.copied_bytes > 0; });
  format::state_word(claim->frame).store(format::committed_word(7, format::FrameType::data, 0));
  turn_until([&] { return failed(); });
  turn_until([&] { return *context_.copied_bytes == 0; });
}

// --- Where a ring ends ---------------------------------------------------------------------------

// It was replaced while a claim in it is open, and is said to reach far beyond all that there is, or to end where the
// log began.
TEST_F(ScribbledKeeper, WhereAReplacedRingEndsTheNextOneTells) {
  open_with_records();
  std::uint64_t sent = 5;
  for (const std::uint64_t end : {std::uint64_t{1} << 60, std::uint64_t{0}}) {
    SCOPED_TRACE(end);
    const Ring old = open_ring();
    auto slow = new_producer();
    const auto claim = (*slow)->claim({}, 100);
    ASSERT_TRUE(claim);
    keeper_->on_slot_stuck(producer_->slot.index(), 0);
    turn_until([&] { return generation() > old.generation(); });
    old.header().next_position.store(end);
    append(*producer_, 5);
    turn_for_a_while();
    ASSERT_TRUE((*slow)->commit(*claim));
    sent += 6;
    turn_until_durable(Offset(sent));
    ASSERT_FALSE(failed());
    turn_until([&] { return is_drained(); });
  }
}

TEST_F(ScribbledKeeper, ARingThatIsNotOnDiskIsNotRemovedWhateverItSaysOfItsEnd) {
  open_with_records();
  const Ring old = open_ring();
  auto slow = new_producer();
  const auto claim = (*slow)->claim({}, 100);
  ASSERT_TRUE(claim);
  keeper_->on_slot_stuck(producer_->slot.index(), 0);
  turn_until([&] { return generation() > old.generation(); });
  append(*producer_, 5);
  kill_keeper();
  old.header().next_position.store(0);
  open_keeper();
  ASSERT_FALSE(failed());
  ASSERT_TRUE((*slow)->commit(*claim));
  turn_until_durable(Offset(11));
}

// --- Words that are others at each look ----------------------------------------------------------
//
// Who had no end to his looks would be held up for as long as another process writes, which here is until it is
// scheduled away: these tests cannot hang, only show that there is an end.

class ScribbledWithoutRest : public RingKeeperTest {};

TEST_F(ScribbledWithoutRest, RepairEnds) {
  const Ring ring = make_ring();
  std::byte* const frame = HandClaim(ring, new_slot(), 64).frame();
  commit(ring, 64);
  const std::uint64_t seized = format::seized_word(64);
  const WithoutRest other([&] {
    for (const std::uint64_t word : {seized, seized | std::uint64_t{1} << 40})
      format::state_word(frame).store(word, std::memory_order_relaxed);
  });
  static_cast<void>(monitor_.find_deaths());
  for (int i = 0; i < 20; ++i) {
    RingKeeper keeper = keeper_of(open_ring());
    keeper.begin_inquiry();
    const auto complete = keeper.step_inquiry(monitor_);
    if (!complete) {
      EXPECT_EQ(complete.error().code, Code::corrupt);
    }
  }
}

TEST_F(ScribbledWithoutRest, AnEndIsToldThoughAnotherTermIsTheActiveOne) {
  const Ring ring = make_ring();
  ring.header().active_term.store(std::uint64_t{1} << 40);
  const WithoutRest other([&] { ring.header().active_term.fetch_add(1); });
  for (int i = 0; i < 100; ++i) static_cast<void>(ring.claimed_end());
}

TEST_F(ScribbledKeeper, AReaderEndsItsSearchThoughTheHeadMovesOn) {
  config_.storage = Storage::memory;
  open_keeper();
  producer_ = new_producer();
  append(*producer_, 5);
  auto reader = new_reader();
  const Ring ring = open_ring();
  const WithoutRest other([&] { ring.header().head.fetch_add(kTestTerm); });
  for (int i = 0; i < 20; ++i) {
    static_cast<void>(reader->seek(Offset(2)));
    static_cast<void>(reader->seek_to_start());
  }
}

// --- Epochs --------------------------------------------------------------------------------------

class ScribbledEpochs : public RingScene {};

// At each append another one is said to be the leader's; of all of them the list says that their records have stayed.
TEST_F(ScribbledEpochs, AProducerForgetsTheFirstOfTooManyAndSaysSo) {
  constexpr std::uint32_t kEpochs = 1'200;
  entry().storage.store(static_cast<std::uint8_t>(Storage::disk));
  entry().role.store(static_cast<std::uint32_t>(shm::ReplicaRole::leader));
  make_ring();
  auto producer = new_producer();
  EpochList epochs;
  for (std::uint32_t epoch = 1; epoch <= kEpochs; ++epoch) {
    entry().leader_epoch.store(epoch);
    entry().hot.fetch_add(shm::kHotVersion);
    const auto sent = (*producer)->append({.value = "8 bytes."});
    ASSERT_TRUE(sent);
    epochs.begin(LeaderEpoch(epoch), {sent->end - 40, sent->offset});
  }
  std::filesystem::create_directories(ref_.disk_dir);
  ASSERT_TRUE(epochs.store(ref_.disk_dir));
  entry().durable_position.store(kTestTerm);
  const auto flushed = (*producer)->flush();
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error(), SendError::lost_leadership);
  EXPECT_TRUE((*producer)->flush());
}

}  // namespace
}  // namespace ringtail::log
