// Waiting for a partition's role, on one host.
#include "ringtail/role.h"

#include <thread>

#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using std::chrono::nanoseconds;

class RoleWatchTest : public ClientTest {
 protected:
  RoleWatch watch() {
    create("t");
    return log_->watch_role({"t", PartitionId(0)}).value();
  }
};

TEST_F(RoleWatchTest, WhoWaitsForEverWaitsUntilSomethingHappens) {
  const RoleWatch watched = watch();
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(50));
    EXPECT_TRUE(admin().delete_topic("t"));
  });
  const auto changed = watched.wait_for_change(watched.role(), nanoseconds::max());
  later.join();
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code, Code::closed) << to_string(changed.error());
}

TEST_F(RoleWatchTest, OfATopicThatIsGoneItTellsNothingOfTheNextInItsPlace) {
  const RoleWatch watched = watch();
  EXPECT_EQ(watched.role().kind, PartitionRole::Kind::alone);
  ASSERT_TRUE(admin().delete_topic("t"));
  create("u");
  EXPECT_EQ(watched.role(), PartitionRole{.kind = PartitionRole::Kind::fenced});
  EXPECT_EQ(watched.wait_until_leader(nanoseconds(0)).error().code, Code::closed);
}

TEST_F(RoleWatchTest, WhoMayNotWaitIsToldAtOnce) {
  const RoleWatch watched = watch();
  EXPECT_EQ(watched.wait_for_change(watched.role(), nanoseconds(-1)).error().code, Code::timed_out);
  EXPECT_TRUE(watched.wait_until_leader(nanoseconds(0)));
}

}  // namespace
}  // namespace ringtail
