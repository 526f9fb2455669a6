// Keepers that get no thread, or not the CPU that they are to have: what is told, what is tried again, and what
// becomes of those who have asked them for something.
#include <sched.h>
#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "client/log_core.h"
#include "shm/role_lock.h"
#include "support/thread_shortage.h"
#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using ringtail::testing::ThreadShortage;
using ::testing::AllOf;
using ::testing::HasSubstr;

class KeeperTroubleTest : public ClientTest {
 protected:
  // Why the log's own keeper came to nothing, once it has.
  static Error wait_for_failure(const Log& log) {
    for (;;) {
      if (auto failure = log.core()->attachment().keeper_failure()) return *failure;
      std::this_thread::yield();
    }
  }
};

TEST_F(KeeperTroubleTest, OpeningTheLogTellsThatNoThreadCanBeMade) {
  log_.reset();
  {
    const ThreadShortage shortage;
    const auto refused = open_log();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::system);
    EXPECT_EQ(refused.error().os_errno, EAGAIN);
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr("keeper.lock"), HasSubstr("pids.max")));
  }
  EXPECT_TRUE(open_log());
}

TEST_F(KeeperTroubleTest, OneThatFollowsAndGetsNoThreadLeavesTheRoleToOthersAndTriesAgain) {
  create("t");
  const Log second = open_log().value();
  Producer p = Producer::open(second, {.topic = "t"}).value();
  std::optional<ThreadShortage> shortage;
  shortage.emplace();
  log_.reset();
  const Error failure = wait_for_failure(second);
  EXPECT_EQ(failure.os_errno, EAGAIN);
  EXPECT_THAT(failure.message, AllOf(HasSubstr("the coordinator of groups"), HasSubstr("pids.max")));
  EXPECT_FALSE(second.core()->keeps());
  while (shm::is_role_held(second.core()->keeper_lock()).value()) std::this_thread::yield();
  ASSERT_TRUE(p.send("meanwhile"));
  shortage.reset();
  EXPECT_TRUE(p.flush()) << "somebody keeps the log";
  EXPECT_TRUE(second.core()->keeps());
}

// --- A control segment that says otherwise --------------------------------------------------------

TEST_F(KeeperTroubleTest, WhatItHasOpenIsNotWhatAnEntrySays) {
  create("files");
  create("memory", {{"storage", "memory"}});
  const shm::Control& control = log_->core()->control();
  shm::Partition* files = nullptr;
  shm::Partition* memory = nullptr;
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    shm::Partition& entry = control.partition(i);
    if (entry.state.load() != static_cast<std::uint32_t>(shm::PartitionState::active)) continue;
    (entry.storage.load() == static_cast<std::uint8_t>(Storage::memory) ? memory : files) = &entry;
  }
  ASSERT_TRUE(files != nullptr && memory != nullptr);
  memory->topic_id.store(files->topic_id.load());
  memory->partition.store(1);
  ASSERT_TRUE(admin().create_partitions("files", 2));
  Producer p = producer("files");
  for (int i = 0; i < 4; ++i) std::ignore = p.send("v");  // to both in turn
  ASSERT_TRUE(p.send({.value = "v", .partition = PartitionId(0)}));
  create("more");
  Producer more = producer("more");
  ASSERT_TRUE(more.send("v"));
  EXPECT_TRUE(more.flush());
}

// --- A CPU that there is not ---------------------------------------------------------------------

// Hands on what the library says, on the thread that says it.
class Listener final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit Listener(std::function<void(std::string_view)> hear) : hear_(std::move(hear)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    hear_(std::string_view(message.payload.data(), message.payload.size()));
  }
  void flush_() override {}

  std::function<void(std::string_view)> hear_;
};

// A second log stands by whose keeper cannot be pinned. The first time that this is told, which is on its thread and
// before it makes its workshops, a test may do something.
class UnpinnedKeeperTest : public KeeperTroubleTest {
 protected:
  // Listening begins and ends while no log is open, so that no thread logs meanwhile.
  UnpinnedKeeperTest() {
    log_.reset();
    logger().sinks().push_back(std::make_shared<Listener>([this](std::string_view said) { hear(said); }));
    level_ = logger().level();
    logger().set_level(spdlog::level::warn);
    log_.emplace(open_log().value());
    second_.emplace(Log::open(unpinned()).value());
  }
  ~UnpinnedKeeperTest() override {
    log_.reset();
    second_.reset();
    logger().set_level(level_);
    logger().sinks().pop_back();
  }

  LogOptions unpinned() {
    LogOptions wanted = options();
    wanted.keeper_cpu = CPU_SETSIZE - 1;
    return wanted;
  }
  void hear(std::string_view said) {
    if (said.find("cannot pin") == std::string_view::npos) return;
    if (told_.fetch_add(1) == 0 && when_told_) when_told_();
  }

  std::function<void()> when_told_;
  std::atomic<int> told_{0};
  std::optional<Log> second_;
  spdlog::level::level_enum level_ = spdlog::level::off;
};

TEST_F(UnpinnedKeeperTest, IsToldOnceHoweverManyTriesAKeeperTakes) {
  std::optional<ThreadShortage> shortage;
  when_told_ = [&shortage] { shortage.emplace(); };
  log_.reset();
  EXPECT_THAT(wait_for_failure(*second_).message, HasSubstr("the keeper's work in the background"));
  EXPECT_EQ(told_.load(), 1);
  shortage.reset();
  while (!second_->core()->keeps()) std::this_thread::yield();
  EXPECT_EQ(told_.load(), 1) << "it was tried again, and is pinned as little as before";
}

TEST_F(UnpinnedKeeperTest, WhoAskedAFailingKeeperForARoleIsToldThatNobodyKeepsTheLog) {
  std::optional<ThreadShortage> shortage;
  std::optional<Code> answer;
  when_told_ = [&] {
    second_->core()->request_role(0, PartitionId(0), {.done = [&answer](const auto& outcome) {
                                    if (!outcome) answer = outcome.error().code;
                                  }});
    shortage.emplace();
  };
  log_.reset();
  EXPECT_EQ(wait_for_failure(*second_).os_errno, EAGAIN);
  ASSERT_TRUE(answer) << "the request is as good as lost";
  EXPECT_EQ(*answer, Code::no_keeper);
}

TEST_F(UnpinnedKeeperTest, OpeningTheLogTellsThatItsKeeperGetsNoThread) {
  second_.reset();
  log_.reset();
  std::optional<ThreadShortage> shortage;
  when_told_ = [&shortage] { shortage.emplace(); };
  const auto refused = Log::open(unpinned());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().os_errno, EAGAIN);
  EXPECT_THAT(refused.error().message, HasSubstr("the keeper's work in the background"));
  shortage.reset();
  EXPECT_TRUE(Log::open(unpinned()));
}

}  // namespace
}  // namespace ringtail
