// Another process has written over words that tell how far a ring is filled, by one alone or by all, or how far files
// are synced: nobody goes beyond what is his.
#include <algorithm>
#include <limits>

#include <gmock/gmock.h>

#include "unit/log/exclusive_test_support.h"
#include "unit/log/replica_test_support.h"
#include "unit/log/segment_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::HasSubstr;

// --- Ends ----------------------------------------------------------------------------------------

class ScribbledEnd : public RingScene {};

// The term is used up, and is said to have ended behind itself.
TEST_F(ScribbledEnd, OfATermIsNotBeyondIt) {
  const Ring ring = make_ring();
  ring.line(0).tail.store(make_tail(0, 3, kTestTerm));
  ring.line(0).end.store(make_tail(0, 3, 2 * kTestTerm));
  EXPECT_FALSE(ring.exact_end());
  EXPECT_EQ(ring.claimed_end().position, Position(0));
}

// Terms behind it are said not to be open.
TEST_F(ScribbledEnd, ACutTakesBackEveryTermBehindIt) {
  const Ring ring = make_ring();
  auto producer = new_producer();
  while (ring.header().active_term.load() < 2) ASSERT_TRUE((*producer)->append({.value = value_of_eighth()}));
  ring.fence();
  ring.follow(ring.claimed_end());
  ring.header().active_term.store(0);
  ring.cut({Position(kEighth), Offset(1)});
  EXPECT_EQ(ring.claimed_end().position, Position(kEighth));
  EXPECT_TRUE(frames_of(ring, 1).empty());
  EXPECT_TRUE(frames_of(ring, 2).empty());
}

// --- An owner ------------------------------------------------------------------------------------

class ScribbledOwner : public ExclusiveTest {};

INSTANTIATE_TEST_SUITE_P(Topics, ScribbledOwner, ::testing::Values(Storage::memory, Storage::disk),
                         [](const auto& topic) { return topic.param == Storage::disk ? "Disk" : "Memory"; });

// The term that ends the ring is said to be filled but for less than a pad's header, and the next one to be clean.
TEST_P(ScribbledOwner, APlaceWithoutRoomForAPadIsCorrupt) {
  auto owner = new_owner();
  append(*owner, 3);
  const Ring r = ring();
  const std::uint64_t active = r.header().active_term.load();
  const std::uint64_t limit = r.header().term_limit.load();
  const std::uint64_t last = r.term_count() - 1;
  for (const std::uint64_t left : {8u, 16u, 24u}) {
    r.line(last).fenced.store(kFence | make_tail(r.lap(last), 0, r.term_bytes() - left));
    r.header().active_term.store(last);
    r.header().term_limit.store(last + 2);
    entry().hot.fetch_add(shm::kHotVersion);
    const auto sent = (*owner)->append({.value = "v"});
    ASSERT_FALSE(sent) << left;
    EXPECT_EQ(sent.error(), SendError::corrupt) << left;
    EXPECT_EQ(owner->slot.phase(), shm::Phase::idle);
    EXPECT_THAT((*owner)->describe(sent.error()).message, HasSubstr("some process wrote where it must not"));
  }
  EXPECT_TRUE(frames_of(r, last).empty());
  r.header().active_term.store(active);
  r.header().term_limit.store(limit);
  const auto sent = (*owner)->append({.value = "v"});
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->offset, Offset(3));
}

// --- A follower ----------------------------------------------------------------------------------

class ScribbledFollower : public ::testing::Test {
 protected:
  ScribbledFollower() {
    leader_.lead(1);
    producer_ = leader_.new_producer();
    follower_.follow(leader_, 1);
  }
  void append_up_to(Position end) {
    while (leader_.end().position < end) leader_.append(*producer_, "r", 50);
  }
  // All that the leader has from there on, whatever terms it is in.
  std::vector<std::byte> frames_from(const LogPoint& at) {
    std::vector<std::byte> all;
    leader_.turn_until_durable();
    auto reader = PartitionReader::open_for_shipping(leader_.ref(), 401, 256 << 10, at);
    EXPECT_TRUE(reader) << to_string(reader.error());
    while (reader && (*reader)->place().position < leader_.end().position) {
      const auto frames = (*reader)->poll_frames(1 << 20, true);
      EXPECT_TRUE(frames) << to_string(frames.error());
      if (!frames) break;
      all.insert(all.end(), frames->bytes.begin(), frames->bytes.end());
    }
    return all;
  }

  // The follower's keeper does not change its role, for what it finds cannot be.
  static void expect_corrupt(ReplicaHost& follower, RoleRequest request) {
    std::optional<Result<RoleOutcome>> result;
    request.done = [&](Result<RoleOutcome> outcome) { result = std::move(outcome); };
    follower.keeper().request_role(std::move(request));
    follower.turn_until([&] { return result.has_value(); });
    ASSERT_FALSE(*result);
    EXPECT_EQ(result->error().code, Code::corrupt);
    EXPECT_THAT(result->error().message, HasSubstr("some process wrote where it must not"));
  }

  ReplicaHost leader_;
  ReplicaHost follower_;
  std::unique_ptr<ReplicaHost::Producer> producer_;
};

// The term before the one that ends the ring is said to be the active one still, the last to be open, and filled to
// where the log ends.
TEST_F(ScribbledFollower, ATermThatIsFilledBeyondItselfIsCorruptAndNothingIsWritten) {
  append_up_to(Position(3 * kTestTerm + 8'000));
  follower_.fetch_from(leader_);
  follower_.turn_until_durable();
  const LogPoint end = follower_.end();
  const Ring ring = follower_.ring();
  const std::uint64_t active = ring.header().active_term.load();
  ASSERT_EQ(active, ring.term_count() - 1);
  const std::uint64_t before = active - 1;
  const Offset base(ring.line(before).base_offset.load());
  ring.line(before).fenced.store(
      kFence | make_tail(ring.lap(before), end.offset - base, end.position - ring.term_start(before)));
  ring.line(active).fenced.store(kFence | make_tail(ring.lap(active) - 1, 0, ring.term_bytes()));
  ring.header().active_term.store(before);
  EXPECT_FALSE(ring.exact_end());
  const std::vector<std::byte> held(ring.term_data(before), ring.data() + ring.ring_bytes());

  append_up_to(Position(4 * kTestTerm + 8'000));
  follower_.follow(leader_, 1);
  ASSERT_TRUE(follower_.outcome().writer);
  ReplicaWriter& writer = *follower_.outcome().writer;
  const auto refused = writer.append(LeaderEpoch(1), writer.end().position, frames_from(writer.end()));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::corrupt);
  EXPECT_THAT(refused.error().message, HasSubstr("topic-0"));
  EXPECT_THAT(refused.error().message, HasSubstr("some process wrote where it must not"));
  EXPECT_TRUE(std::equal(held.begin(), held.end(), ring.term_data(before)));

  // Without that ring it goes on from its files.
  follower_.reboot();
  follower_.follow(leader_, 1);
  follower_.fetch_from(leader_);
  EXPECT_EQ(follower_.end(), leader_.end());
}

// The term before it, which is full, is said to be the active one still.
TEST_F(ScribbledFollower, TheLogEndsInItsLastTermWhicheverIsSaidToBeActive) {
  append_up_to(Position(3 * kTestTerm + 8'000));
  follower_.fetch_from(leader_);
  follower_.turn_until_durable();
  const LogPoint end = follower_.end();
  const Ring ring = follower_.ring();
  const std::uint64_t active = ring.header().active_term.load();
  ASSERT_EQ(active, ring.term_count() - 1);
  ring.header().active_term.store(active - 1);
  const auto told = ring.exact_end();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->position, end.position);
  follower_.follow(leader_, 1);
  ASSERT_TRUE(follower_.outcome().writer);
  EXPECT_EQ(follower_.outcome().writer->end(), end);

  // Nor does its keeper stop there.
  append_up_to(Position(3 * kTestTerm + 32'000));
  follower_.fetch_from(leader_);
  follower_.turn_until_durable();
  EXPECT_EQ(follower_.lead(2).end, leader_.end());
  EXPECT_EQ(ring.header().active_term.load(), active);
}

// The leader has more than this host, which says that it has all up to a position near 2^60: nothing is to be cut off.
TEST_F(ScribbledFollower, OfAnEndFarBeyondTheRingNothingIsCutOff) {
  ReplicaHost leader(Storage::memory);
  ReplicaHost follower(Storage::memory);
  leader.lead(1);
  auto producer = leader.new_producer();
  follower.follow(leader, 1);
  leader.append(*producer, "one ", 20);
  follower.fetch_from(leader);
  leader.append(*producer, "two ", 20);
  follower.ring().header().active_term.store(std::uint64_t{1} << 44);
  expect_corrupt(follower, {.role = ReplicaRole::follower,
                            .epoch = LeaderEpoch(1),
                            .leader_node = 1,
                            .epochs = leader.outcome().epochs,
                            .cut = leader.end()});
}

TEST_F(ScribbledFollower, ItDoesNotLeadFromBeforeWhatIsOnDisk) {
  append_up_to(Position(8'000));
  follower_.fetch_from(leader_);
  follower_.turn_until_durable();
  follower_.ring().line(0).fenced.store(kFence | make_tail(0, 0, 0));
  expect_corrupt(follower_, {.role = ReplicaRole::leader,
                             .epoch = LeaderEpoch(2),
                             .leader_node = 1,
                             .lease_deadline_ns = std::numeric_limits<std::int64_t>::max()});
}

// --- Files ---------------------------------------------------------------------------------------

class ScribbledDurability : public SegmentTest {};

// All is said to be synced up to a position whose place in a file cannot be told, or is before the file's first frame.
TEST_F(ScribbledDurability, EndsWithTheFilesWhateverIsSaid) {
  constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();
  FakeRing ring(4 << 20);
  write_log(ring, 50, 100);
  for (const std::uint64_t durable : {kLargest - 4'999, kLargest - 99, kLargest}) {
    auto reader = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 64 * 1024});
    ASSERT_TRUE(reader);
    Position at(0);
    while (at < ring.end()) {
      const auto frames = (*reader)->read(at, Position(durable));
      ASSERT_TRUE(frames) << frames.error().message;
      ASSERT_FALSE(frames->bytes.empty());
      at += frames->bytes.size();
    }
    EXPECT_EQ(at, ring.end());
    const auto behind = (*reader)->read(at, Position(durable));
    ASSERT_FALSE(behind);
    EXPECT_EQ(behind.error().code, Code::corrupt);
  }
}

// The files are longer than all memory; what is in them is not.
TEST_F(ScribbledDurability, AnIndexIsReadAsFarAsItHasEntries) {
  FakeRing ring(4 << 20);
  write_log(ring, 50, 1'000);
  for (const auto& file : {index_file(0), time_index_file(0)})
    std::filesystem::resize_file(file, std::uint64_t{1} << 40);
  open_writer(ring);
  EXPECT_FALSE(has_finding(RecoveryCase::index_rebuilt));
  expect_readable(ring, Position(0), ring.end());
}

}  // namespace
}  // namespace ringtail::log
