// Appends that carry an extension, markers, and the guard.
#include <gmock/gmock.h>
#include <sched.h>

#include <atomic>
#include <random>
#include <thread>

#include "unit/log/ring_test_support.h"

namespace ringtail::log {
namespace {

using format::MarkerKind;
using ::testing::HasSubstr;

class StampedAppender : public RingScene {
 protected:
  StampedAppender() : ring_(make_ring(64)), producer_(new_producer()) { (*producer_)->set_stamp(&stamp_); }
  // All frames of the first term, checked.
  std::vector<const std::byte*> frames() const {
    std::vector<const std::byte*> all;
    for (const SeenFrame& frame : frames_of(ring_, 0)) {
      const std::byte* const at = ring_.data() + frame.at;
      EXPECT_EQ(format::check_structure({at, frame.extent}), format::FrameFault::none);
      all.push_back(at);
    }
    return all;
  }
  static format::Extension extension(const std::byte* frame) {
    return format::extension_of(frame).value_or(format::Extension{});
  }
  static std::string_view value(const std::byte* frame) {
    return format::decode_record(frame, nullptr).value;
  }

  Ring ring_;
  Stamp stamp_{.producer_id = 7, .producer_epoch = 2};
  std::unique_ptr<Producer> producer_;
};

TEST_F(StampedAppender, NumbersRecordsBatchesAndClaimsInARow) {
  ASSERT_TRUE((*producer_)->append({.value = "a"}));
  stamp_.transaction = 3;
  const std::array<Header, 1> headers{Header{"h", "x"}};
  const std::vector<ProducerRecord> batch{{.value = "b"}, {.key = "k", .value = "c", .headers = headers}, {}};
  const auto sent = (*producer_)->append_batch(batch);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(3));
  auto claim = (*producer_)->claim("key", 5);
  ASSERT_TRUE(claim);
  std::memcpy(claim->value, "value", 5);
  ASSERT_TRUE((*producer_)->commit(*claim));
  ASSERT_TRUE((*producer_)->append({.key = "", .value = "last"}));

  const auto seen = frames();
  ASSERT_EQ(seen.size(), 6u);
  for (std::uint64_t i = 0; i < 6; ++i)
    EXPECT_EQ(extension(seen[i]), (format::Extension{7, 2, i == 0 ? 0u : 3u, i}));
  EXPECT_EQ(value(seen[0]), "a");
  EXPECT_EQ(value(seen[2]), "c");
  EXPECT_EQ(format::decode_record(seen[2], nullptr).headers.begin()->value, "x");
  EXPECT_TRUE(format::decode_record(seen[3], nullptr).is_tombstone());
  EXPECT_EQ(value(seen[4]), "value");
  EXPECT_EQ(format::decode_record(seen[4], nullptr).key, "key");
  EXPECT_EQ(value(seen[5]), "last");
  EXPECT_EQ((*producer_)->next_sequence(), 6u);
}

TEST_F(StampedAppender, WithoutAStampAgainItsRecordsArePlain) {
  ASSERT_TRUE((*producer_)->append({.value = "a"}));
  (*producer_)->set_stamp(nullptr);
  ASSERT_TRUE((*producer_)->append({.value = "b"}));
  (*producer_)->set_stamp(&stamp_);
  ASSERT_TRUE((*producer_)->append({.value = "c"}));
  const auto seen = frames();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(format::load_header(seen[1]).attributes, 0);
  EXPECT_EQ(value(seen[1]), "b");
  EXPECT_EQ(extension(seen[2]).sequence, 1u);
}

TEST_F(StampedAppender, WhatIsNotCommittedTakesNoSequence) {
  (*producer_)->set_next_sequence(100);
  auto claim = (*producer_)->claim({}, 8);
  ASSERT_TRUE(claim);
  (*producer_)->abort(*claim);
  EXPECT_FALSE((*producer_)->append({.value = std::string(kTestTerm, 'x')}));
  ASSERT_TRUE((*producer_)->append({.value = "next"}));
  EXPECT_EQ(extension(frames()[1]).sequence, 100u);
}

TEST_F(StampedAppender, TheExtensionIsNoPartOfTheRecordsSize) {
  const std::string most(kTestTerm / 8, 'm');
  ASSERT_TRUE((*producer_)->append({.value = most}));
  EXPECT_EQ(value(frames()[0]), most);
  EXPECT_EQ((*producer_)->append({.key = "k", .value = most}).error(), SendError::record_too_large);
  ASSERT_TRUE((*producer_)->claim({}, most.size()));
}

TEST_F(StampedAppender, NoticesANewConfigurationLikeAnyOther) {
  ASSERT_TRUE((*producer_)->append({.value = "12345678"}));
  entry().max_message_bytes.store(4);
  entry().hot.fetch_add(shm::kHotVersion);
  EXPECT_EQ((*producer_)->append({.value = "12345678"}).error(), SendError::record_too_large);
  ASSERT_TRUE((*producer_)->append({.value = "1234"}));
  EXPECT_EQ(extension(frames()[1]).sequence, 1u);
}

TEST_F(StampedAppender, AMarkerIsAFrameOfItsOwn) {
  stamp_.transaction = 1;
  ASSERT_TRUE((*producer_)->append({.value = "a"}));
  const auto sent = (*producer_)->append_marker(MarkerKind::commit, {7, 2, 1, 0});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(1));
  ASSERT_TRUE((*producer_)->append_marker(MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0}));
  const auto seen = frames();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(format::load_header(seen[1]).type, format::FrameType::control);
  EXPECT_EQ(format::marker_kind(seen[1]), MarkerKind::commit);
  EXPECT_EQ(extension(seen[1]), (format::Extension{7, 2, 1, 0}));
  EXPECT_EQ(format::marker_kind(seen[2]), MarkerKind::abort_all);
  EXPECT_EQ((*producer_)->next_sequence(), 1u);
}

// --- Guard ---------------------------------------------------------------------------------------

TEST_F(StampedAppender, IsFencedWhileTheWordIsAnother) {
  shm::Shared<std::uint64_t> word{0xaa05};
  stamp_.guard = {.word = &word, .expected = 5, .mask = 0xff};
  ASSERT_TRUE((*producer_)->append({.value = "a"}));
  word.store(0xbb05);
  ASSERT_TRUE((*producer_)->append({.value = "b"}));
  word.store(0xbb06);
  const std::vector<ProducerRecord> batch{{.value = "c"}};
  EXPECT_EQ((*producer_)->append({.value = "c"}).error(), SendError::fenced);
  EXPECT_EQ((*producer_)->append_batch(batch).error(), SendError::fenced);
  EXPECT_EQ((*producer_)->claim({}, 1).error(), SendError::fenced);
  EXPECT_EQ(producer_->slot.phase(), shm::Phase::idle);
  EXPECT_EQ(frames().size(), 2u);
  EXPECT_EQ((*producer_)->next_sequence(), 2u);
  const Error error = (*producer_)->describe(SendError::fenced);
  EXPECT_EQ(error.code, Code::fenced);
  EXPECT_THAT(error.message, HasSubstr("another producer with the same id has taken over"));
  word.store(5);
  EXPECT_TRUE((*producer_)->append({.value = "c"}));
}

// Moves this thread to the `n`th of the CPUs it may run on, if there are so many.
void move_to_cpu(int n) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || n-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

// Spins for a while first: only threads that run at the same time meet each other.
template <class Reached>
void spin_until(Reached reached) {
  for (int spins = 0; !reached(); ++spins)
    if (spins > 20'000) std::this_thread::yield();
}

// The fencer changes the word, waits for an append that is under way, and then writes the marker: no
// record that the word was to keep out may stand behind it.
TEST_F(StampedAppender, NoRecordOfAFencedProducerStandsBehindTheMarker) {
  constexpr std::uint64_t kRounds = 4'000;
  constexpr int kMostAppends = 8;
  shm::Shared<std::uint64_t> word{0};
  std::atomic<std::uint64_t> started{0};
  std::atomic<std::uint64_t> fenced{0};
  stamp_.transaction = 1;
  stamp_.guard.word = &word;
  std::thread appending([&] {
    move_to_cpu(0);
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      spin_until([&] { return started.load() >= round; });
      stamp_.producer_epoch = static_cast<std::uint32_t>(round);
      stamp_.guard.expected = round;
      SendResult<RecordMetadata> sent;
      for (int i = 0; sent && i < kMostAppends; ++i) sent = (*producer_)->append({.value = "12345678"});
      spin_until([&] { return !sent || word.load() != round; });
      if (sent) sent = (*producer_)->append({.value = "late"});
      ASSERT_FALSE(sent);
      ASSERT_EQ(sent.error(), SendError::fenced);
      fenced.store(round);
    }
  });
  auto fencer = new_producer();
  const std::uint64_t seed = shm::print_seed();
  std::mt19937_64 random(seed);
  const shm::Shared<std::uint64_t>& op = control_.slot(producer_->slot.index()).op;
  std::uint64_t met_under_way = 0;
  std::thread fencing([&] {
    move_to_cpu(1);
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      const std::uint64_t before = op.load();
      word.store(round);
      started.store(round);
      spin_until([&] { return op.load() != before; });
      for (auto spins = random() % 1'000; spins > 0; --spins)
        std::atomic_signal_fence(std::memory_order_seq_cst);
      word.exchange(round + kRounds, std::memory_order_seq_cst);
      const std::uint64_t seen = op.load(std::memory_order_seq_cst);
      if (shm::op_phase(seen) != shm::Phase::idle) {
        ++met_under_way;
        spin_until([&] { return op.load() != seen; });
      }
      ASSERT_TRUE((*fencer)->append_marker(MarkerKind::abort, {7, static_cast<std::uint32_t>(round), 1, 0}));
      spin_until([&] { return fenced.load() >= round; });
    }
  });
  appending.join();
  fencing.join();
  std::printf("%llu of %llu fences met an append under way\n", static_cast<unsigned long long>(met_under_way),
              static_cast<unsigned long long>(kRounds));
  std::uint32_t last_marker = 0;
  std::uint64_t records = 0;
  for (std::uint64_t term = 0; term <= ring_.header().active_term.load(); ++term) {
    for (const SeenFrame& seen : frames_of(ring_, term)) {
      const std::byte* const frame = ring_.term_data(term) + seen.at;
      if (seen.type == format::FrameType::control) last_marker = extension(frame).producer_epoch;
      if (seen.type != format::FrameType::data) continue;
      ++records;
      ASSERT_GT(extension(frame).producer_epoch, last_marker) << "offset " << seen.offset;
    }
  }
  EXPECT_EQ(last_marker, kRounds);
  EXPECT_EQ(records, (*producer_)->next_sequence());
}

}  // namespace
}  // namespace ringtail::log
