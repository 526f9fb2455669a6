#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>

#include <cstring>
#include <fstream>
#include <random>

#include "unit/log/replica_test_support.h"

namespace ringtail::log {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class Replicated : public ReplicaPairTest {};
INSTANTIATE_TEST_SUITE_P(, Replicated, ::testing::Values(Storage::disk, Storage::memory), storage_name);

TEST_P(Replicated, AFollowerHasTheSameBytesAtTheSamePositions) {
  a_.lead(1);
  auto producer = a_.new_producer();
  const bool memory = GetParam() == Storage::memory;
  a_.append(*producer, "one ", 900);  // several laps of its ring
  follow_and_expect_same(b_, a_, 1);
  a_.append(*producer, "two ", memory ? 60 : 300);
  b_.fetch_from(a_, 100);  // a frame at a time
  expect_same(a_, b_);
  auto refused = b_.new_producer();
  EXPECT_EQ((*refused)->append({.value = "here"}).error(), SendError::not_leader);
  EXPECT_THAT((*refused)->describe(SendError::not_leader).message, HasSubstr("node 1 leads"));
}

TEST_P(Replicated, ReadersStopAtTheHighWatermark) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto reader = a_.new_reader();
  a_.append(*producer, "r", 5);
  EXPECT_TRUE(a_.records_of(*reader).empty());
  EXPECT_FALSE(reader->has_data());
  const auto fourth = (*producer)->append({.value = "sixth"});
  ASSERT_TRUE(fourth);
  const LogPoint five{fourth->end - 40, Offset(5)};
  a_.set_watermark(five);
  EXPECT_TRUE(reader->has_data());
  EXPECT_EQ(a_.records_of(*reader).size(), 5u);
  EXPECT_EQ(reader->log_end()->offset, Offset(5));
  EXPECT_FALSE(reader->seek(Offset(6)));
  a_.set_watermark(a_.end());
  EXPECT_EQ(a_.records_of(*reader).size(), 1u);
}

TEST_P(Replicated, AFollowerTakesOverWhereItStands) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  a_.append(*producer, "one ", 50);
  b_.fetch_from(a_);
  a_.append(*producer, "lost ", 30);  // nobody else has these
  b_.lead(2);
  auto second = b_.new_producer();
  b_.append(*second, "two ", 100);
  follow_and_expect_same(a_, b_, 2);
  const auto records = a_.records();
  EXPECT_FALSE(std::ranges::any_of(records, [](const auto& r) { return r.second.starts_with("lost"); }));
  EXPECT_EQ((*producer)->append({.value = "late"}).error(), SendError::not_leader);
  a_.lead(3);
  a_.append(*producer, "three ", 20);
  follow_and_expect_same(b_, a_, 3);
}

// Behind a reboot all is in the files, and nothing is known of what the others have.
TEST(ReplicatedOnDisk, ReadersOfFilesStopAtTheHighWatermarkWhereverTheyBegin) {
  ReplicaHost a(Storage::disk);
  a.lead(1);
  auto producer = a.new_producer();
  a.append(*producer, "r", 50);
  a.turn_until_durable();
  producer.reset();
  a.reboot();
  auto reader = a.new_reader();
  EXPECT_TRUE(a.records_of(*reader).empty());
  EXPECT_TRUE(reader->seek(Offset(0)));
  EXPECT_TRUE(a.records_of(*reader).empty());
  EXPECT_TRUE(reader->seek_to_start());
  EXPECT_TRUE(a.records_of(*reader).empty());
  const auto sought = reader->seek_to_time(0);
  EXPECT_TRUE(sought) << to_string(sought.error());
  EXPECT_TRUE(a.records_of(*reader).empty());
  a.set_watermark(a.end());
  EXPECT_EQ(a.records_of(*reader).size(), 50u);
}

// What is taken back may reach further than the ring does.
TEST(ReplicatedOnDisk, CutsOffWhatIsOnlyInFiles) {
  ReplicaHost a(Storage::disk);
  ReplicaHost b(Storage::disk);
  a.lead(1);
  auto producer = a.new_producer();
  b.follow(a, 1);
  a.append(*producer, "one ", 50);
  b.fetch_from(a);
  a.append(*producer, "lost ", 6'000);
  a.turn_until_durable();
  b.lead(2);
  auto second = b.new_producer();
  b.append(*second, "two ", 10);
  a.follow(b, 2);
  a.fetch_from(b);
  a.set_watermark(a.end());
  b.set_watermark(b.end());
  EXPECT_EQ(a.end(), b.end());
  EXPECT_EQ(a.records(), b.records());
  a.turn_until_durable();
  a.reboot();
  a.set_watermark(a.end());
  EXPECT_EQ(a.records(), b.records());
}

// A follower may have none of it.
TEST(ReplicatedOnDisk, RetentionLeavesWhatIsNotConfirmed) {
  ReplicaHost host(Storage::disk);
  host.config().retention_bytes = 1 << 20;
  host.restart_keeper();
  host.lead(1);
  auto producer = host.new_producer();
  host.append(*producer, "one ", 12'000);
  host.turn_until_durable();
  const std::int64_t later_ns = monotonic_ns() + 3'600'000'000'000;
  host.keeper().tick(later_ns);
  EXPECT_EQ(host.entry().log_start_position.load(), 0U);
  host.reboot();
  EXPECT_EQ(host.entry().log_start_position.load(), 0U);
  host.lead(2);
  host.set_watermark(host.end());
  host.keeper().tick(2 * later_ns);
  EXPECT_GT(host.entry().log_start_position.load(), 0U);
  EXPECT_FALSE(host.failed());
}

// What it does not have any more is nothing that a reader could wait for.
TEST(ReplicatedInMemory, ALogThatIsBegunAnewBeginsAtItsWatermark) {
  ReplicaHost a(Storage::memory);
  ReplicaHost b(Storage::memory);
  a.lead(1);
  auto producer = a.new_producer();
  a.append(*producer, "one ", 50);
  b.follow(a, 1);
  b.fetch_from(a);
  a.append(*producer, "more ", 3'000);
  b.follow(a, 1);
  EXPECT_GT(b.entry().log_start_position.load(), 0U);
  EXPECT_EQ(b.entry().high_watermark.load(), b.entry().log_start_position.load());
  EXPECT_EQ(b.entry().high_watermark_offset.load(), b.entry().log_start_offset.load());
  auto reader = b.new_reader();
  EXPECT_TRUE(b.records_of(*reader).empty());
  b.fetch_from(a);
  a.set_watermark(a.end());
  b.set_watermark(b.end());
  EXPECT_EQ(b.records_of(*reader), b.records());
}

// The ring was replaced, for a claim in it was given up, and another producer stands still there, too, when the log
// is to be cut off: the files are cut when they have all that the ring holds.
TEST_P(Replicated, AProducerThatStandsStillInAnEarlierRingDoesNotHoldUpTheCut) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto holder = a_.new_producer();
  auto late = a_.new_producer();
  a_.append(*producer, "one ", 3);
  b_.follow(a_, 1);
  b_.fetch_from(a_);
  ASSERT_TRUE((*holder)->claim({}, 100));
  a_.append(*producer, "lost ", 20);
  b_.lead(2);
  std::optional<Result<RoleOutcome>> fenced;
  a_.keeper().request_role({.role = ReplicaRole::fenced,
                            .done = [&](Result<RoleOutcome> outcome) { fenced = std::move(outcome); }});
  const shm::Slot& slot = a_.ref().control->slot(holder->slot.index());
  a_.turn_until([&] { return slot.given_up.load() == slot.op.load(); });
  late->slot.announce(shm::Phase::claiming, a_.ref().index);
  a_.turn_until([&] { return fenced.has_value(); });
  ASSERT_TRUE(*fenced);
  a_.follow(b_, 2);
  EXPECT_FALSE(a_.failed());
  auto successor = b_.new_producer();
  b_.append(*successor, "two ", 20);
  a_.fetch_from(b_);
  late->slot.finish();
  expect_same(a_, b_);
}

// He may store what he knew of the ring before it was cut: so it is left to him.
TEST_P(Replicated, AProducerThatStandsStillInARotationKeepsTheRing) {
  a_.lead(1);
  auto producer = a_.new_producer();
  auto helper = a_.new_producer();
  a_.append(*producer, "one ", 3);
  b_.follow(a_, 1);
  b_.fetch_from(a_);
  a_.append(*producer, "lost ", 3);
  b_.lead(2);
  const std::uint64_t generation = a_.entry().ring_generation.load();
  helper->slot.announce_fenced(shm::Phase::helping, a_.ref().index);
  a_.follow(b_, 2);
  EXPECT_GT(a_.entry().ring_generation.load(), generation);
  helper->slot.finish();
  auto successor = b_.new_producer();
  b_.append(*successor, "two ", 20);
  a_.fetch_from(b_);
  expect_same(a_, b_);
}

// The next one is not open yet when it follows anew.
TEST_P(Replicated, AFollowerGoesOnBehindATermThatIsFull) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  a_.append(*producer, "r", 300);
  {
    auto from = PartitionReader::open_for_shipping(a_.ref(), 401, 256 << 10, LogPoint{});
    ASSERT_TRUE(from) << to_string(from.error());
    const auto frames = (*from)->poll_frames(kTestTerm, true);
    ASSERT_TRUE(frames) << to_string(frames.error());
    ASSERT_GE(frames->bytes.size(), kTestTerm);
    ASSERT_TRUE(b_.outcome().writer->append(LeaderEpoch(1), Position(0), frames->bytes.first(kTestTerm)));
  }
  ASSERT_EQ(b_.end().position, Position(kTestTerm));
  ASSERT_EQ(b_.ring().header().active_term.load(), 0u);
  follow_and_expect_same(b_, a_, 1);
  EXPECT_EQ(b_.ring().header().active_term.load(), 1u);
}

TEST_P(Replicated, TheNextKeeperFindsWhatTheDeadOneWasShipped) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  for (int i = 0; i < 5; ++i) {
    a_.append(*producer, "r" + std::to_string(i) + ' ', 60);
    b_.fetch_from(a_);
    const LogPoint end = b_.end();
    b_.restart_keeper();
    EXPECT_EQ(b_.end(), end);
    b_.follow(a_, 1);
  }
  expect_same(a_, b_);
}

TEST(ReplicatedOnDisk, AfterACrashOfItsHostAFollowerGoesOnFromWhatItHasSynced) {
  ReplicaHost a(Storage::disk);
  ReplicaHost b(Storage::disk);
  a.lead(1);
  auto producer = a.new_producer();
  b.follow(a, 1);
  for (int i = 0; i < 4; ++i) {
    a.append(*producer, "r" + std::to_string(i) + ' ', 100);
    b.fetch_from(a);
    if (i % 2 == 0) b.turn_until_durable();
    const LogPoint end = b.end();
    b.reboot();
    EXPECT_LE(b.end(), end);
    b.follow(a, 1);
    b.fetch_from(a);
    b.turn_until_durable();
  }
  b.set_watermark(b.end());
  a.set_watermark(a.end());
  EXPECT_EQ(a.records(), b.records());
}

// What it keeps of its ring comes to the files first.
TEST(ReplicatedOnDisk, AFollowerWhoseDiskIsFullWaitsForRoomBeforeItCutsOffItsLog) {
  ReplicaHost a(Storage::disk), b(Storage::disk), c(Storage::disk);
  a.lead(1);
  auto producer = a.new_producer();
  b.follow(a, 1);
  c.follow(a, 1);
  a.append(*producer, "one ", 2'600);  // most of a segment
  b.fetch_from(a);
  b.turn_until_durable();
  b.set_disk_full(true);
  a.append(*producer, "two ", 200);
  c.fetch_from(a);
  a.append(*producer, "lost ", 100);
  b.fetch_from(a);
  c.lead(2);
  ASSERT_LT(b.entry().durable_position.load(), c.end().position.value());
  auto second = c.new_producer();
  c.append(*second, "three ", 20);
  std::optional<Result<RoleOutcome>> taken;
  RoleRequest request = b.to_follow(c, 2);
  request.done = [&](Result<RoleOutcome> outcome) { taken = std::move(outcome); };
  b.keeper().request_role(std::move(request));
  for (int i = 0; i < 200 && !taken; ++i) b.turn(), std::this_thread::sleep_for(milliseconds(1));
  ASSERT_FALSE(taken) << to_string(taken->error());
  ASSERT_FALSE(b.failed());
  b.set_disk_full(false);
  b.turn_until([&] { return taken.has_value(); });
  ASSERT_TRUE(*taken) << to_string(taken->error());
  b.outcome() = std::move(**taken);
  b.fetch_from(c);
  b.set_watermark(b.end());
  c.set_watermark(c.end());
  EXPECT_EQ(b.records(), c.records());
  EXPECT_FALSE(b.failed());
}

// A reader that stands still in the follower's ring gets to keep it.
TEST_P(Replicated, AFollowersRingIsReplacedWhereItStands) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  a_.append(*producer, "r", 20);
  b_.fetch_from(a_);
  b_.set_watermark(b_.end());
  auto reader = b_.new_reader();
  std::array<Record, 4> some;
  ASSERT_EQ(*reader->poll(some), 4u);
  const std::string held(some[3].value);
  const std::uint64_t generation = b_.entry().ring_generation.load();
  for (int i = 0; i < 100 && b_.entry().ring_generation.load() == generation; ++i) {
    a_.append(*producer, "more ", 40);
    b_.fetch_from(a_, 1'000);
    std::this_thread::sleep_for(milliseconds(2));
    b_.turn();
  }
  if (GetParam() == Storage::disk) {
    EXPECT_NE(b_.entry().ring_generation.load(), generation);
  }
  EXPECT_EQ(held, some[3].value);
  expect_same(a_, b_);
  // In memory, what it did not come to may be gone: then it is told so.
  EXPECT_TRUE(!b_.records_of(*reader).empty() || reader->missed() > 0);
}

// The replicator keeps what found no room, and tries it again only when it is told.
TEST_P(Replicated, WhoFillsAFollowersRingIsToldWhenItWasReplaced) {
  a_.lead(1);
  auto producer = a_.new_producer();
  b_.follow(a_, 1);
  a_.append(*producer, "r", 20);
  b_.fetch_from(a_);
  b_.set_watermark(b_.end());
  auto reader = b_.new_reader();
  std::array<Record, 4> some;
  ASSERT_EQ(*reader->poll(some), 4u);
  const std::uint64_t generation = b_.entry().ring_generation.load();
  auto from = PartitionReader::open_for_shipping(a_.ref(), 401, 256 << 10, b_.end());
  ASSERT_TRUE(from) << to_string(from.error());
  for (bool full = false; !full;) {
    a_.append(*producer, "more ", 1);
    const auto frames = (*from)->poll_frames(8 << 10, true);
    ASSERT_TRUE(frames) << to_string(frames.error());
    const auto taken = b_.outcome().writer->append(LeaderEpoch(1), frames->at.position, frames->bytes);
    ASSERT_TRUE(taken) << to_string(taken.error());
    full = *taken < frames->bytes.size();
  }
  b_.turn_until([&] { return b_.failed() || b_.entry().ring_generation.load() != generation; });
  EXPECT_EQ(b_.told_generation(), b_.entry().ring_generation.load());
}

// A small file system in the place of a directory, for this thread alone.
class SmallDisk {
 public:
  explicit SmallDisk(std::filesystem::path at) : at_(std::move(at)) {
    mounted_ = ::unshare(CLONE_NEWNS) == 0 &&
               ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               ::mount("tmpfs", at_.c_str(), "tmpfs", 0, "size=64k,mode=0700") == 0;
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  void fill() const {
    std::ofstream filler(filler_of());
    while (filler << std::string(512, 'x') << std::flush) {
    }
  }
  void make_room() const { std::filesystem::remove(filler_of()); }

 private:
  std::filesystem::path filler_of() const { return at_ / "filler"; }

  std::filesystem::path at_;
  bool mounted_ = false;
};

// It costs the role for so long, and not the partition.
TEST(ReplicatedOnAFullDisk, WhoHasNoRoomToNoteAnEpochTakesPartInItOnceThereIsSome) {
  ReplicaHost host(Storage::memory);
  const SmallDisk disk(host.ref().disk_dir);
  if (!disk.mounted()) GTEST_SKIP() << "file systems cannot be mounted: " << std::strerror(errno);
  for (const ReplicaRole role : {ReplicaRole::leader, ReplicaRole::follower}) {
    const LeaderEpoch epoch(role == ReplicaRole::leader ? 2 : 3);
    disk.fill();
    std::optional<Result<RoleOutcome>> taken;
    host.keeper().request_role({.role = role,
                                .epoch = epoch,
                                .leader_node = 1,
                                .lease_deadline_ns = boottime_ns() + 3'600'000'000'000,
                                .epochs = EpochList::of({{epoch, {}}}).value(),
                                .done = [&](Result<RoleOutcome> outcome) { taken = std::move(outcome); }});
    for (int round = 0; round < 100; ++round) host.turn();
    EXPECT_FALSE(taken);
    ASSERT_FALSE(host.failed());
    EXPECT_EQ(host.entry().role.load(), static_cast<std::uint32_t>(ReplicaRole::fenced));
    disk.make_room();
    host.turn_until([&] { return taken.has_value(); });
    ASSERT_TRUE(*taken) << to_string(taken->error());
    EXPECT_EQ((*taken)->epochs.last(), epoch);
    EXPECT_EQ(EpochList::load(host.ref().disk_dir)->last(), epoch);
  }
}

TEST_P(Replicated, RefusesWhatIsNoFrameOrNotForThisPlaceOrEpoch) {
  a_.lead(1);
  auto producer = a_.new_producer();
  a_.append(*producer, "r", 3);
  b_.follow(a_, 1);
  auto from = PartitionReader::open_for_shipping(a_.ref(), 401, 4096, {});
  auto frames = (*from)->poll_frames(1 << 20, true);
  ASSERT_TRUE(frames);
  ReplicaWriter& writer = *b_.outcome().writer;
  EXPECT_EQ(writer.append(LeaderEpoch(2), Position(0), frames->bytes).error().code, Code::fenced);
  EXPECT_EQ(writer.append(LeaderEpoch(1), Position(8), frames->bytes).error().code,
            Code::offset_out_of_range);
  EXPECT_EQ(writer.append(LeaderEpoch(1), Position(0), frames->bytes.subspan(8)).error().code, Code::corrupt);
  std::vector<std::byte> damaged(frames->bytes.begin(), frames->bytes.end());
  damaged[8] ^= std::byte{1};
  EXPECT_EQ(writer.append(LeaderEpoch(1), Position(0), damaged).error().code, Code::corrupt);
  EXPECT_EQ(writer.end(), LogPoint{});
  EXPECT_TRUE(writer.append(LeaderEpoch(1), Position(0), frames->bytes));
  b_.fence();
  EXPECT_EQ(writer.append(LeaderEpoch(1), frames->end.position, frames->bytes).error().code, Code::fenced);
}

// Leaders in turn, cut off at random places, keepers dying, records of all sizes; in the end all have the same.
TEST_P(Replicated, StaysTheSameThroughRandomChangesOfLeaders) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::array<ReplicaHost*, 2> hosts{&a_, &b_};
  for (std::uint32_t epoch = 1; epoch <= 24; ++epoch) {
    ReplicaHost& leader = *hosts[random() % 2];
    ReplicaHost& follower = &leader == &a_ ? b_ : a_;
    if (random() % 4 == 0) leader.restart_keeper();
    if (random() % 4 == 0) follower.restart_keeper();
    leader.lead(epoch);
    auto producer = leader.new_producer();
    leader.append(*producer, std::to_string(epoch) + ' ', random() % 120);
    follower.follow(leader, epoch);
    follower.fetch_from(leader, 64 + random() % 20'000);
    leader.append(*producer, std::to_string(epoch) + "- ", random() % 200);
    ASSERT_FALSE(leader.failed());
    ASSERT_FALSE(follower.failed());
  }
  a_.lead(100);
  follow_and_expect_same(b_, a_, 100);
}

}  // namespace
}  // namespace ringtail::log
