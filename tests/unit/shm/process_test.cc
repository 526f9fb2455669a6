#include "shm/process.h"

#include <sys/prctl.h>

#include <fstream>
#include <set>

#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

TEST(ProcessTest, KnowsItself) {
  const auto self = identify_process();
  ASSERT_TRUE(self.has_value()) << self.error().message;
  EXPECT_EQ(self->pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_GT(self->start_ticks, 0u);
  EXPECT_NE(self->pid_namespace, 0u);
  EXPECT_EQ(self->reserved, 0u);
  EXPECT_EQ(self->boot_id, *boot_id());
}

TEST(ProcessTest, TheBootIdIsTheKernels) {
  std::string text;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> text;
  std::erase(text, '-');
  const auto id = boot_id();
  ASSERT_TRUE(id.has_value()) << id.error().message;
  char ours[33];
  std::snprintf(ours, sizeof ours, "%016llx%016llx", static_cast<unsigned long long>((*id)[0]),
                static_cast<unsigned long long>((*id)[1]));
  EXPECT_EQ(text, ours);
}

TEST(ProcessTest, NoTwoTokensAreTheSame) {
  std::set<std::uint64_t> tokens;
  for (int i = 0; i < 1000; ++i) tokens.insert(identify_process()->token);
  EXPECT_EQ(tokens.size(), 1000u);
  EXPECT_FALSE(tokens.contains(0));
}

TEST(ProcessTest, AChildIsAnother) {
  const auto self = identify_process();
  Child child([&](const Line&) {
    const auto ours = identify_process();
    ASSERT_TRUE(ours.has_value());
    EXPECT_NE(ours->pid, self->pid);
    EXPECT_NE(ours->token, self->token);
    EXPECT_GE(ours->start_ticks, self->start_ticks);
    EXPECT_EQ(ours->boot_id, self->boot_id);
    EXPECT_EQ(ours->pid_namespace, self->pid_namespace);
  });
  EXPECT_EQ(child.wait(), 0);
}

// The name stands before the start time in /proc/self/stat, and may look like what follows it.
TEST(ProcessTest, ANastyNameDoesNotConfuse) {
  Child child([&](const Line&) {
    const auto before = identify_process();
    ASSERT_EQ(::prctl(PR_SET_NAME, ") R 1 2 3 (x) 4"), 0);
    EXPECT_EQ(process_name(), ") R 1 2 3 (x) 4");
    EXPECT_EQ(identify_process()->start_ticks, before->start_ticks);
  });
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace ringtail::shm
