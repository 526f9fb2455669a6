// A host takes back what it has and its leader does not, and its keeper dies in the midst of that.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>

#include "log/truncate.h"
#include "support/single_step.h"
#include "support/tracer.h"
#include "unit/log/replica_test_support.h"

namespace ringtail::log {
namespace {

struct Cut {
  Storage storage;
  std::uint64_t records;  // that are taken back
  const char* name;
};

class InterruptedCut : public ::testing::TestWithParam<Cut> {
 protected:
  // `a` has led, and `b` leads now, from where it has what `a` has.
  void diverge() {
    a_ = std::make_unique<ReplicaHost>(GetParam().storage);
    b_ = std::make_unique<ReplicaHost>(GetParam().storage);
    a_->lead(1);
    auto producer = a_->new_producer();
    b_->follow(*a_, 1);
    a_->append(*producer, "one ", 50);
    b_->fetch_from(*a_);
    a_->append(*producer, "lost ", GetParam().records);
    if (GetParam().storage == Storage::disk) a_->turn_until_durable();
    b_->lead(2);
    auto second = b_->new_producer();
    b_->append(*second, "two ", 10);
    request_ = a_->to_follow(*b_, 2);
    // What it has asked of its other threads: a forked child has none.
    for (int i = 0; i < 20; ++i) a_->turn(), std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  int follow() {
    bool done = false;
    request_.done = [&](const Result<RoleOutcome>&) { done = true; };
    a_->keeper().request_role(std::move(request_));
    while (!done) a_->turn();
    return 0;
  }
  void expect_that_it_goes_on() {
    a_->restart_keeper();
    ASSERT_FALSE(a_->failed());
    a_->follow(*b_, 2);
    ASSERT_FALSE(a_->failed());
    a_->fetch_from(*b_);
    ASSERT_EQ(a_->end(), b_->end());
    a_->set_watermark(a_->end());
    b_->set_watermark(b_->end());
    const auto ours = a_->records();
    const auto theirs = b_->records();
    // What a memory topic has taken back beyond its ring, it begins behind.
    ASSERT_GE(ours.size(), 10u);
    ASSERT_LE(ours.size(), theirs.size());
    EXPECT_TRUE(std::equal(ours.rbegin(), ours.rend(), theirs.rbegin()));
  }

  std::unique_ptr<ReplicaHost> a_;
  std::unique_ptr<ReplicaHost> b_;
  RoleRequest request_;
};

// At each system call that changes a file or its name.
TEST_P(InterruptedCut, IsFinishedByTheNextKeeper) {
  bool is_over = false;
  for (int calls = 0; !is_over; ++calls) {
    diverge();
    {
      test::Process keeper("keeper", [&] {
        test::offer_calls();
        return follow();
      });
      test::Tracer tracer(keeper);
      for (int i = 0; i <= calls && !is_over; ++i) is_over = !tracer.next();
    }
    SCOPED_TRACE(calls);
    expect_that_it_goes_on();
    if (HasFailure()) return;
  }
}

// Word by word the ring is cut.
TEST_P(InterruptedCut, OfTheRingIsFinishedByTheNextKeeper) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::uint64_t length = 1;
  for (test::Deaths deaths; deaths.first < length; deaths.first += deaths.stride) {
    diverge();
    const Ring ring = a_->ring();
    const Ring::End end{request_.cut->position, request_.cut->offset};
    if (end.position.value() < ring.header().head.load()) return;  // it is begun anew
    {
      const test::Process keeper("keeper", [&] {
        test::offer_steps([&] {
          ring.begin_cut(end);
          ring.cut(end);
          ring.end_cut();
          return 0;
        });
        return 0;
      });
      if (length == 1) {  // the first one comes to the end
        length = test::take_steps(keeper, ~std::uint64_t{0}).value();
        deaths = test::choose_deaths(length, 12, seed);
      } else {
        ASSERT_EQ(test::take_steps(keeper, deaths.first), deaths.first);
      }
    }
    SCOPED_TRACE(deaths.first);
    expect_that_it_goes_on();
    if (HasFailure()) return;
  }
}

// At the points that matter, one by one.
TEST_P(InterruptedCut, HasSaidSoBeforeAnythingIsTakenBack) {
  diverge();
  const LogPoint cut = *request_.cut;
  const Ring ring = a_->ring();
  const bool in_ring = !request_.restart && cut.position.value() >= ring.header().head.load();
  if (in_ring)
    ring.begin_cut({cut.position, cut.offset});
  else
    ring.close();
  if (GetParam().storage == Storage::disk) {
    auto backend = io::make_backend(IoBackend::pwrite, 4).value();
    const format::SegmentIdentity identity{kTestLogId, a_->ref().topic_id, PartitionId(0)};
    ASSERT_TRUE(truncate_log(*backend, a_->ref().disk_dir, identity, cut));
  }
  // In the midst of the ring's memory.
  if (in_ring) std::memset(ring.at(cut.position), 0, 1'000);
  expect_that_it_goes_on();
}

INSTANTIATE_TEST_SUITE_P(All, InterruptedCut,
                         ::testing::Values(Cut{Storage::disk, 50, "disk_in_the_ring"},
                                           Cut{Storage::disk, 3'000, "disk_beyond_the_ring"},
                                           Cut{Storage::memory, 50, "memory_in_the_ring"},
                                           Cut{Storage::memory, 3'000, "memory_beyond_the_ring"}),
                         [](const auto& tested) { return std::string(tested.param.name); });

class BeginningAnew : public ::testing::Test {
 protected:
  // `b` begins where `a` ends, as one does that is given a copy when the leader's start has passed its own end.
  void begin_behind(std::uint64_t records) {
    a_.lead(1);
    auto producer = a_.new_producer();
    a_.append(*producer, "v", records);
    b_.fence();
    b_.take({.role = ReplicaRole::follower,
             .epoch = LeaderEpoch(1),
             .leader_node = 1,
             .epochs = a_.outcome().epochs,
             .cut = a_.end(),
             .restart = true});
  }
  ReplicaHost a_;
  ReplicaHost b_;
};

// There is no file yet that would tell.
TEST_F(BeginningAnew, IsKnownFromTheRingAloneWhereNothingIsWrittenYet) {
  begin_behind(100);
  const LogPoint begin = a_.end();
  for (int keepers = 0; keepers < 2; ++keepers) {
    b_.restart_keeper();
    ASSERT_FALSE(b_.failed());
    EXPECT_EQ(b_.end(), begin);
  }
  b_.follow(a_, 1);
  auto producer = a_.new_producer();
  a_.append(*producer, "more", 20);
  b_.fetch_from(a_);
  b_.turn_until_durable();
  b_.restart_keeper();
  ASSERT_FALSE(b_.failed());
  b_.set_watermark(b_.end());
  EXPECT_EQ(b_.records().size(), 20u);
  EXPECT_EQ(b_.records().front().first, begin.offset.value());
}

// Whose files have vanished has not begun anew.
TEST_F(BeginningAnew, IsNotWhatAHostDoesWhoseFilesHaveVanished) {
  a_.lead(1);
  auto producer = a_.new_producer();
  a_.append(*producer, "v", 100);
  a_.turn_until_durable();
  a_.reboot();  // its ring begins where its files end
  for (const auto& file : std::filesystem::directory_iterator(a_.ref().disk_dir))
    if (file.path().extension() == ".log") std::filesystem::remove(file.path());
  a_.restart_keeper();
  const auto failure = Attachment::failure_of(a_.entry());
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, Code::corrupt);
}

// An unclean election may do that: then nothing of it is the leader's.
TEST_F(BeginningAnew, IsWhatAFollowerDoesWhoseWholeLogIsCutOff) {
  begin_behind(100);
  auto producer = a_.new_producer();
  a_.append(*producer, "more", 20);
  b_.fetch_from(a_);
  b_.turn_until_durable();
  ReplicaHost c;
  c.lead(2);
  auto other = c.new_producer();
  c.append(*other, "theirs ", 30);
  const LogPoint cut = c.end();
  ASSERT_LT(cut.position.value(), b_.entry().log_start_position.load());
  b_.fence();
  b_.take({.role = ReplicaRole::follower,
           .epoch = LeaderEpoch(2),
           .leader_node = 1,
           .epochs = c.outcome().epochs,
           .cut = cut});
  ASSERT_FALSE(b_.failed());
  EXPECT_EQ(b_.end(), cut);
  c.append(*other, "more ", 10);
  b_.fetch_from(c);
  b_.turn_until_durable();
  b_.restart_keeper();
  ASSERT_FALSE(b_.failed());
  b_.set_watermark(b_.end());
  const auto records = b_.records();
  ASSERT_EQ(records.size(), 10u);
  EXPECT_EQ(records.front().first, cut.offset.value());
}

}  // namespace
}  // namespace ringtail::log
