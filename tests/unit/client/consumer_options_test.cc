// What a consumer refuses to be opened with.
#include <string>

#include "unit/client/group_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConsumerOptionsTest : public GroupTest {
 protected:
  void expect_refused(Options options, const std::string& why) {
    const auto opened = Consumer::open(*log_, std::move(options));
    ASSERT_FALSE(opened) << why;
    EXPECT_EQ(opened.error().code, Code::invalid_argument);
    EXPECT_THAT(opened.error().message, HasSubstr(why));
  }
  void expect_taken(Options options) {
    const auto opened = Consumer::open(*log_, std::move(options));
    EXPECT_TRUE(opened) << to_string(opened.error());
  }
};

TEST_F(ConsumerOptionsTest, AnAutoCommitIntervalThatWouldNeverCommitIsRefused) {
  for (const milliseconds bad : {milliseconds(0), milliseconds(-1)}) {
    const std::string value = std::to_string(bad.count());
    expect_refused(in_group("billing", {.auto_commit_interval = bad}),
                   "auto_commit_interval is " + value + " ms, it must be at least 1");
    expect_refused(in_group("billing", {.auto_commit_interval = bad}), "set enable_auto_commit to false");
    expect_taken(in_group("billing", {.enable_auto_commit = false, .auto_commit_interval = bad}));
    expect_taken({.auto_commit_interval = bad});  // in no group it means nothing
  }
  expect_taken(in_group("billing", {.auto_commit_interval = milliseconds(1)}));
}

TEST_F(ConsumerOptionsTest, AMaxPollIntervalThatIsAlwaysOverIsRefused) {
  for (const milliseconds bad : {milliseconds(0), milliseconds(-1)}) {
    expect_refused(in_group("billing", {.max_poll_interval = bad}),
                   "max_poll_interval is " + std::to_string(bad.count()) + " ms, it must be at least 1");
    expect_taken({.max_poll_interval = bad});
  }
  expect_taken(in_group("billing", {.max_poll_interval = milliseconds(1)}));
}

TEST_F(ConsumerOptionsTest, ReadingAheadFartherThanAnyMemoryReachesIsRefusedAndNoneAtAllIsALittle) {
  expect_refused({.read_ahead_bytes = ~std::size_t{0}}, "it must be at most 1099511627776");
  create("t");
  Producer p = producer("t");
  ASSERT_TRUE(p.send("a"));
  Consumer c = consumer("t", {.read_ahead_bytes = 0});
  EXPECT_THAT(take(c, 1), ElementsAre("a"));
}

}  // namespace
}  // namespace ringtail
