// A log's process dies at each of its system calls that changes a file or a name: while segments are flushed, synced,
// rolled, deleted and compacted, while transactions end, group members come and go, topics are created, altered and
// deleted, and while whoever comes next recovers from that. Sometimes the host dies with it. Whatever is left, the log
// opens, holds what was promised and nothing else, and goes on.
//
// In the other tests the keeper stands still at these calls for a while, beside the one who works.
//
// RINGTAIL_CRASH_STEPS: at how many of the calls (as many as kPoints says, unless told); 0: at all of them.
#include <random>

#include "crash/story.h"
#include "support/single_step.h"
#include "support/tracer.h"

namespace ringtail::crash {
namespace {

using test::Call;
using test::Process;
using test::SharedPage;
using test::Tracer;

constexpr std::uint64_t kPoints = 16;

class StoryStepTest : public ::testing::TestWithParam<StoryKind> {
 protected:
  StoryStepTest() : scene_("/dev/shm", IoBackend::pwrite), story_(GetParam().make()) {}
  void SetUp() override { random_.seed(test::print_seed()); }

  bool counts(const Tracer& tracer, const Call& call) const {
    if (!Tracer::changes_files(call)) return false;
    const std::string path = tracer.path_of(call);
    return path.starts_with(scene_.dir().native()) || path.starts_with(scene_.shm().native());
  }
  int tell_story(KeeperMode mode) { return tell(*story_, scene_, mode, *page_); }

  // Lets `body` come to its `number`-th stop, at the beginning or the end of a call, and ends it there. Returns how many
  // it came to: fewer when it was through before.
  std::uint64_t kill_at(std::uint64_t number, const std::function<int()>& body) {
    Process victim("victim", [&body] {
      test::offer_calls();
      return body();
    });
    Tracer tracer(victim);
    std::string last;
    const std::uint64_t met = tracer.lead(number, [&](const Call& call) {
      if (!counts(tracer, call)) return false;
      last = fmt::format("{} of {} '{}'", call.ended ? "the end" : "the beginning",
                         test::name_of_call(call.number), tracer.path_of(call));
      return true;
    });
    if (tracer.is_tracing()) {
      where_ += fmt::format("; killed at stop {}, {}", met, last);
      tracer.kill();
    } else {
      EXPECT_EQ(tracer.exit_code(), 0) << page_->error;
    }
    return met;
  }

  // Whoever opens the log next dies, too, once or twice.
  void kill_recoveries() {
    for (std::uint64_t times = random_() % 3; times > 0; --times)
      kill_at(1 + random_() % 60, [this] {
        auto log = scene_.open(KeeperMode::embedded);
        return log ? 0 : give_up(page_->error, to_string(log.error()));
      });
  }
  void lose_memory_perhaps() {
    if (random_() % 2 == 0 || scene_.shm_folder().empty()) return;
    std::filesystem::remove_all(scene_.shm_folder());
    loss_ = Loss::host;
    where_ += "; shared memory was lost";
  }
  void expect_promises_kept() {
    const std::string wrong = story_->check(scene_, *page_, loss_);
    ASSERT_EQ(wrong, "") << where_;
    loss_ = Loss::process;
    where_.clear();
  }

  Scene scene_;
  SharedPage<StoryPage> page_;
  std::unique_ptr<Story> story_;
  std::mt19937_64 random_;
  Loss loss_ = Loss::process;
  std::string where_;
};

TEST_P(StoryStepTest, NoCallIsABadPlaceToDie) {
  const auto story = [this] { return tell_story(KeeperMode::embedded); };
  const std::uint64_t length = kill_at(~std::uint64_t{0}, story);
  ASSERT_GT(length, 50u);
  ASSERT_NO_FATAL_FAILURE(expect_promises_kept());
  const auto [first, stride] = test::choose_deaths(length, kPoints, random_());
  std::uint64_t deaths = 0;
  for (std::uint64_t k = first + 1; k <= length; k += stride, ++deaths) {
    SCOPED_TRACE(fmt::format("death at stop {} of about {}", k, length));
    kill_at(k, story);
    lose_memory_perhaps();
    kill_recoveries();
    lose_memory_perhaps();
    ASSERT_NO_FATAL_FAILURE(expect_promises_kept());
    ASSERT_FALSE(HasFailure()) << where_;
  }
  std::cout << length << " stops, " << deaths << " deaths\n";
}

// Every recovery begins with what a death somewhere in the story left.
TEST_P(StoryStepTest, NoCallOfARecoveryIsABadPlaceToDie) {
  const auto open = [this] {
    auto log = scene_.open(KeeperMode::embedded);
    return log ? 0 : give_up(page_->error, to_string(log.error()));
  };
  const auto story = [this] { return tell_story(KeeperMode::embedded); };
  const std::uint64_t length = kill_at(~std::uint64_t{0}, story);
  ASSERT_NO_FATAL_FAILURE(expect_promises_kept());
  const std::uint64_t points = test::number_from_environment("RINGTAIL_CRASH_STEPS", kPoints / 2);
  std::uint64_t longest = 0;
  std::uint64_t deaths = 0;
  for (std::uint64_t k = 1; deaths < (points == 0 ? 400 : points); ++deaths) {
    SCOPED_TRACE(fmt::format("recovery killed at stop {}", k));
    kill_at(1 + random_() % length, story);
    lose_memory_perhaps();
    const std::uint64_t met = kill_at(k, open);
    ASSERT_NO_FATAL_FAILURE(expect_promises_kept());
    ASSERT_FALSE(HasFailure()) << where_;
    longest = std::max(longest, met);
    // Through all stops in order, or at random places of the longest recovery there was.
    if (points != 0)
      k = 1 + random_() % (longest + 8);
    else
      k = met < k ? 1 : k + 1;
  }
  std::cout << deaths << " deaths within recoveries of up to " << longest << " stops\n";
}

TEST_P(StoryStepTest, NoCallIsABadPlaceForTheKeeperToStandStill) {
  const std::uint64_t points = test::number_from_environment("RINGTAIL_CRASH_STEPS", kPoints);
  Process keeper("keeper", [this] {
    test::offer_calls();
    return keep(scene_);
  });
  Tracer tracer(keeper);
  Process teller("teller", [this] { return tell_story(KeeperMode::none); });
  std::uint64_t stops = 0;
  std::uint64_t stood = 0;
  int code = 0;
  const auto has_ended = [&] {
    if (teller.is_running()) code = teller.poll();
    return !teller.is_running();
  };
  while (const auto call = tracer.next(has_ended)) {
    if (!counts(tracer, *call)) continue;
    ++stops;
    if (points != 0 && random_() % 8 != 0) continue;
    tracer.freeze();
    ++stood;
    ::usleep(static_cast<useconds_t>(1000 + random_() % 4000));
    if (points != 0 && stood >= points) break;
  }
  tracer.lead(~std::uint64_t{0}, {}, has_ended);
  ASSERT_TRUE(tracer.is_tracing()) << "the keeper has ended with " << tracer.exit_code();
  ASSERT_EQ(code, 0) << page_->error;
  tracer.kill();
  ASSERT_NO_FATAL_FAILURE(expect_promises_kept());
  EXPECT_GT(stood, 0u);
  std::cout << stood << " times it stood still, at " << stops << " stops\n";
}

INSTANTIATE_TEST_SUITE_P(Crash, StoryStepTest, ::testing::ValuesIn(kStories),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace ringtail::crash
