#include "log/workshop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <csignal>
#include <thread>

#include "support/thread_shortage.h"

namespace ringtail::log {
namespace {

using ::testing::HasSubstr;

Result<std::unique_ptr<Workshop>> start_workshop() {
  return Workshop::start(io::make_backend(IoBackend::pwrite, 4).value());
}

bool is_blocked(int signal) {
  sigset_t blocked;
  return ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked) == 0 && ::sigismember(&blocked, signal) == 1;
}

TEST(WorkshopTest, WorksOnAThreadOfItsOwnAndDeliversOnTheCallers) {
  auto workshop = start_workshop();
  ASSERT_TRUE(workshop) << to_string(workshop.error());
  std::thread::id worked;
  std::thread::id delivered;
  (*workshop)->submit([&](io::Backend&) -> Workshop::Delivery {
    worked = std::this_thread::get_id();
    return [&delivered] { delivered = std::this_thread::get_id(); };
  });
  while ((*workshop)->deliver() == 0) std::this_thread::yield();
  EXPECT_NE(worked, std::this_thread::get_id());
  EXPECT_EQ(delivered, std::this_thread::get_id());
  EXPECT_FALSE(is_blocked(SIGTERM));
}

TEST(WorkshopTest, WithoutAThreadThereIsNoneAndTheCallersSignalsStayAsTheyWere) {
  {
    const testing::ThreadShortage shortage;
    const auto refused = start_workshop();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::system);
    EXPECT_EQ(refused.error().os_errno, EAGAIN);
    EXPECT_THAT(refused.error().message, HasSubstr("pids.max"));
  }
  EXPECT_FALSE(is_blocked(SIGTERM));
  EXPECT_TRUE(start_workshop());
}

}  // namespace
}  // namespace ringtail::log
