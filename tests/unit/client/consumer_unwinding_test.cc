// A member of a group that ends because an exception unwinds.
#include <functional>
#include <optional>
#include <stdexcept>

#include "unit/client/group_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;

class UnwindingTest : public GroupTest {
 protected:
  struct AtEnd {
    std::function<void()> act;
    ~AtEnd() { act(); }
  };

  static void read_one(Consumer& reader) {
    poll_until({&reader}, [](const Got& g) { return count(g) == 1; });
  }
  // One that has read a record, whose time to commit by itself does not come.
  Consumer reader_of_one() {
    Consumer reader = member("billing", "orders", {.auto_commit_interval = std::chrono::hours(1)});
    read_one(reader);
    return reader;
  }
  std::optional<CommittedOffset> committed() {
    auto opened = Consumer::open(*log_, in_group("billing"));
    return opened.value().committed({"orders", PartitionId(0)}).value();
  }
};

TEST_F(UnwindingTest, AConsumerThatAnExceptionEndsCommitsNothingMoreAndItsLastRecordsComeAgain) {
  create("orders", small());
  send("orders", "handled");
  const auto handle = [&] {
    Consumer reader = reader_of_one();
    EXPECT_TRUE(reader.commit_async());
    send("orders", "not handled");
    read_one(reader);
    throw std::runtime_error("the record cannot be handled");
  };
  EXPECT_THROW(handle(), std::runtime_error);
  const auto at = committed();
  ASSERT_TRUE(at);
  ASSERT_EQ(at->offset, Offset(1));
  Consumer next = member("billing", "orders");
  const Got got = poll_until({&next}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("not handled"));
}

TEST_F(UnwindingTest, AConsumerThatEndsBehindACaughtExceptionCommits) {
  create("orders", small());
  send("orders", "a");
  {
    const Consumer reader = reader_of_one();
    try {
      throw std::runtime_error("the record cannot be handled at once");
    } catch (const std::runtime_error&) {
    }
  }
  const auto at = committed();
  ASSERT_TRUE(at);
  EXPECT_EQ(at->offset, Offset(1));
}

TEST_F(UnwindingTest, OneThatLeavesWhileAnExceptionUnwindsCommitsNothingAndItsListenersThrowIsNoSecondOne) {
  create("orders", small());
  send("orders", "not handled");
  const auto handle = [&] {
    Consumer reader =
        member("billing", "orders", {.auto_commit_interval = std::chrono::hours(1)},
               {.revoked = [](std::span<const TopicPartition>) { throw std::logic_error("in revoked"); }});
    const AtEnd leaving{[&] { EXPECT_TRUE(reader.unsubscribe()); }};
    read_one(reader);
    throw std::runtime_error("the record cannot be handled");
  };
  EXPECT_THROW(handle(), std::runtime_error);
  Consumer next = member("billing", "orders");
  const Got got = poll_until({&next}, [](const Got& g) { return count(g) == 1; });
  EXPECT_THAT(got[0], ElementsAre("not handled"));
}

// As whoever tidies up after a failure may read a topic for it.
TEST_F(UnwindingTest, AConsumerThatBeganWhileAnExceptionUnwoundCommits) {
  create("orders", small());
  send("orders", "a");
  const auto fail_and_tidy_up = [&] {
    const AtEnd tidying{[&] { const Consumer reader = reader_of_one(); }};
    throw std::runtime_error("something else went wrong");
  };
  EXPECT_THROW(fail_and_tidy_up(), std::runtime_error);
  const auto at = committed();
  ASSERT_TRUE(at);
  EXPECT_EQ(at->offset, Offset(1));
}

}  // namespace
}  // namespace ringtail
