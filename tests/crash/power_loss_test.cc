// The power goes. What a log's process does to its files is recorded, with what it was promised before each change;
// then the disk is laid out as it may be after any number of these changes (support/disk_trace.h), and the log there
// must open, hold what had been promised until then and nothing that was not sent, and go on.
//
// RINGTAIL_POWER_CUTS: behind how many of the changes, each in several ways (kCuts unless told); 0: behind all of them.
#include <random>

#include "crash/story.h"
#include "support/disk_trace.h"
#include "support/single_step.h"

namespace ringtail::crash {
namespace {

using test::DiskTrace;
using test::PowerCut;
using test::Process;
using test::SharedPage;
using test::Tracer;

constexpr std::uint64_t kCuts = 20;

// What a process has done, and what it had been promised before each change and in the end.
struct Recording {
  explicit Recording(const Scene& scene) : disk(scene.dir()) {}

  DiskTrace disk;
  std::vector<StoryPage::Marks> promises;
};

class PowerLossTest : public ::testing::TestWithParam<StoryKind> {
 protected:
  void SetUp() override { random_.seed(test::print_seed()); }

  void record(Recording& recording, const std::function<int()>& body) {
    Process teller("teller", [&body] {
      test::offer_calls();
      return body();
    });
    Tracer tracer(teller);
    // Whoever was promised something is behind a change that has ended, and so was noted.
    while (const auto call = tracer.next())
      if (const auto promised = page_->load(); recording.disk.note(tracer, *call))
        recording.promises.push_back(promised);
    recording.promises.push_back(page_->load());
    ASSERT_EQ(tracer.exit_code(), 0) << page_->error;
  }
  int tell_story(const Scene& scene) {
    const auto story = GetParam().make();
    return tell(*story, scene, KeeperMode::embedded, *page_);
  }

  // The power goes behind so many events; `goes_on`: the whole story is told again there.
  void expect_recovery(const Recording& recording, std::size_t events, PowerCut cut, bool goes_on) {
    SCOPED_TRACE(fmt::format("the power goes behind event {} of {}, in front of: {}; {}", events,
                             recording.disk.size(), recording.disk.describe(events), to_string(cut)));
    const Scene scene("/dev/shm", IoBackend::pwrite);
    recording.disk.lay_out(events, cut, random_, scene.dir());
    const auto story = GetParam().make();
    SharedPage<StoryPage> page;
    page->store(recording.promises[events]);
    ASSERT_EQ(story->check(scene, *page, Loss::host), "");
    if (!goes_on) return;
    ASSERT_EQ(story->tell(scene, KeeperMode::embedded, *page), "");
    ASSERT_EQ(story->check(scene, *page, Loss::process), "");
  }

  std::uint64_t expect_recoveries(const Recording& recording, std::uint64_t cuts) {
    const std::uint64_t events = recording.disk.size();
    const std::uint64_t stride = cuts == 0 ? 1 : std::max<std::uint64_t>(1, events / cuts);
    std::uint64_t checked = 0;
    for (std::uint64_t k = random_() % stride; k <= events; k += stride) {
      for (const PowerCut cut :
           {PowerCut::loses_all, PowerCut::keeps_all, PowerCut::tears_512, PowerCut::tears_4096}) {
        // A sample has one cut of each kind at every fourth change, all kinds at all where all is asked for.
        if (cuts != 0 && static_cast<std::uint64_t>(cut) != random_() % 4) continue;
        expect_recovery(recording, k, cut, checked++ % 8 == 0);
        if (HasFailure()) return checked;
      }
    }
    return checked;
  }

  std::mt19937_64 random_;
  SharedPage<StoryPage> page_;
};

TEST_P(PowerLossTest, WhatWasPromisedIsThereAfterAnyChange) {
  const Scene scene("/dev/shm", IoBackend::pwrite);
  Recording recording(scene);
  ASSERT_NO_FATAL_FAILURE(record(recording, [&] { return tell_story(scene); }));
  ASSERT_GT(recording.disk.size(), 50u);
  const std::uint64_t checked =
      expect_recoveries(recording, test::number_from_environment("RINGTAIL_POWER_CUTS", kCuts));
  std::cout << recording.disk.size() << " changes, " << checked << " power cuts\n";
}

// The power comes back, and goes again while the log is being recovered.
TEST_P(PowerLossTest, WhatWasPromisedIsThereAfterAnyChangeOfARecovery) {
  const Scene scene("/dev/shm", IoBackend::pwrite);
  Recording recording(scene);
  ASSERT_NO_FATAL_FAILURE(record(recording, [&] { return tell_story(scene); }));
  const std::uint64_t cuts = test::number_from_environment("RINGTAIL_POWER_CUTS", kCuts);
  std::uint64_t checked = 0;
  for (std::uint64_t round = 0; round < (cuts == 0 ? 40 : std::max<std::uint64_t>(1, cuts / 8)); ++round) {
    const std::size_t events = random_() % (recording.disk.size() + 1);
    const Scene after("/dev/shm", IoBackend::pwrite);
    recording.disk.lay_out(events, PowerCut::tears_512, random_, after.dir());
    SCOPED_TRACE(fmt::format("the power went first behind event {} of {}, in front of: {}", events,
                             recording.disk.size(), recording.disk.describe(events)));
    Recording recovery(after);
    page_->store(recording.promises[events]);
    ASSERT_NO_FATAL_FAILURE(record(recovery, [&] {
      auto log = after.open(KeeperMode::embedded);
      return log ? 0 : give_up(page_->error, to_string(log.error()));
    }));
    checked += expect_recoveries(recovery, cuts == 0 ? 0 : 6);
    ASSERT_FALSE(HasFailure());
  }
  std::cout << checked << " power cuts within recoveries\n";
}

INSTANTIATE_TEST_SUITE_P(Crash, PowerLossTest, ::testing::ValuesIn(kStories),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace ringtail::crash
