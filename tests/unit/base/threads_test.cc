#include "base/threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "support/thread_shortage.h"

namespace ringtail {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(Threads, RunWhatTheyAreGiven) {
  bool ran = false;
  auto thread = start_thread("a test", [&ran] { ran = true; });
  ASSERT_TRUE(thread) << to_string(thread.error());
  thread->join();
  EXPECT_TRUE(ran);
}

TEST(Threads, OneThatCannotBeMadeIsAnErrorThatNamesItAndTheRemedy) {
  const ringtail::testing::ThreadShortage shortage;
  const auto refused = start_thread("a test", [] {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::system);
  EXPECT_EQ(refused.error().os_errno, EAGAIN);
  EXPECT_THAT(refused.error().message, AllOf(StartsWith("cannot start a thread for a test: "),
                                             HasSubstr("RLIMIT_NPROC"), HasSubstr("pids.max")));
}

TEST(Threads, CanBeMadeAgainWhenThereIsRoom) {
  {
    const ringtail::testing::ThreadShortage shortage;
  }
  auto thread = start_thread("a test", [] {});
  ASSERT_TRUE(thread) << to_string(thread.error());
  thread->join();
}

TEST(Threads, NoRemedyIsNamedForWhatNoLimitCauses) { EXPECT_EQ(thread_remedy(EPERM), ""); }

}  // namespace
}  // namespace ringtail
