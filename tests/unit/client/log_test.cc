#include "ringtail/log.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "client/log_core.h"
#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using LogTest = ClientTest;

TEST_F(LogTest, TheFirstToOpenKeepsItAndAllShareIt) {
  EXPECT_TRUE(log_->is_keeper());
  EXPECT_EQ(log_->id().size(), 32u);
  auto second = open_log();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->id(), log_->id());
  EXPECT_FALSE(second->is_keeper());
  ASSERT_TRUE(Admin(*second).create_topic({.name = "t"}));
  EXPECT_THAT(*admin().list_topics(), ElementsAre("t"));
}

TEST_F(LogTest, AnotherTakesTheRoleWhenTheKeeperLeaves) {
  create("t");
  auto second = open_log();
  Producer p = Producer::open(*second, {.topic = "t"}).value();
  ASSERT_TRUE(p.send("before"));
  log_.reset();
  ASSERT_TRUE(p.send("after"));
  EXPECT_TRUE(p.flush()) << "somebody keeps the log";
  while (!second->is_keeper()) std::this_thread::yield();
}

// --- A keeper that fails -------------------------------------------------------------------------

class FailingKeeperTest : public LogTest {
 protected:
  FailingKeeperTest() {
    create("t");
    create("damaged");
  }
  std::filesystem::path file() const { return dir_ / "log" / "topics" / "damaged" / "topic.toml"; }
  void damage() {
    std::filesystem::rename(file(), dir_ / "kept");
    std::ofstream(file()) << "?";
  }
  void mend() { std::filesystem::rename(dir_ / "kept", file()); }
};

TEST_F(FailingKeeperTest, OpeningTheLogTellsWhyThoughItWasKeptBefore) {
  log_.reset();
  damage();
  const auto refused = open_log();
  ASSERT_FALSE(refused) << "nobody keeps it";
  EXPECT_THAT(refused.error().message, HasSubstr(file().string()));
  mend();
  EXPECT_TRUE(open_log());
}

TEST_F(FailingKeeperTest, IsNoReasonNotToOpenALogThatAnotherKeeps) {
  damage();
  EXPECT_TRUE(open_log());
}

TEST_F(FailingKeeperTest, OneThatFollowsIsTriedAgainUntilItKeepsTheLog) {
  auto second = open_log();
  Producer p = Producer::open(*second, {.topic = "t"}).value();
  damage();
  log_.reset();
  while (!second->core()->attachment().keeper_failure()) std::this_thread::yield();
  ASSERT_TRUE(p.send("meanwhile"));
  mend();
  EXPECT_TRUE(p.flush()) << "somebody keeps the log";
  EXPECT_TRUE(second->core()->keeps());
}

TEST_F(FailingKeeperTest, IsForgottenOnceAnotherKeepsTheLog) {
  auto second = open_log();
  damage();
  log_.reset();
  while (!second->core()->attachment().keeper_failure()) std::this_thread::yield();
  EXPECT_FALSE(second->core()->keeps());
  mend();
  const auto third = open_log();
  ASSERT_TRUE(third);
  while (!second->core()->keeps() && !third->core()->keeps())
    std::this_thread::yield();  // the third, as a rule
  EXPECT_FALSE(second->core()->attachment().keeper_failure());
  EXPECT_TRUE(Admin(*second).create_topic({.name = "more"}));
}

// In a container, each first process has pid 1.
TEST_F(LogTest, AKeeperIsNotTakenForReadySinceADeadOneHadItsPid) {
  create("orders", small(), 16);
  LogOptions watching = options();
  watching.keeper = KeeperMode::none;
  const Log watcher = Log::open(watching).value();
  log_.reset();
  shm::ControlHeader& header = watcher.core()->control().header();
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(header.keeper_ready.load(), 1u);
    header.keeper_pid.store(static_cast<std::uint32_t>(::getpid()));  // as it stays when a keeper is killed
    const std::uint32_t terms = header.keeper_term.load();
    const Log opened = open_log().value();
    EXPECT_EQ(header.keeper_term.load(), terms + 1) << "it was opened before its keeper was ready";
  }
}

TEST_F(LogTest, WithoutAKeeperSaysSo) {
  log_.reset();
  auto opened =
      Log::open({.dir = options().dir, .keeper = KeeperMode::none, .shared_memory_dir = shm_.path()});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::no_keeper);
  EXPECT_THAT(opened.error().message, HasSubstr("KeeperMode::embedded"));
}

TEST_F(LogTest, APartitionForWhichDescriptorsAreShortIsOpenedOnceThereAreSome) {
  constexpr std::uint32_t kPartitions = 16;
  create("t", small(), kPartitions);
  log_.reset();
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  bool met = false;
  for (rlim_t files = 4; files < 200 && !met; ++files) {
    const rlimit few{files, before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
    auto opened = open_log();
    ::setrlimit(RLIMIT_NOFILE, &before);
    if (!opened) continue;
    const LogCore& core = *opened->core();
    const auto topic = core.catalog().load_topic("t").value();
    const auto failed = [&](std::uint32_t partition) {
      return core.attachment().find_failure(topic, PartitionId(partition)).has_value();
    };
    for (std::uint32_t partition = 0; partition < kPartitions; ++partition) {
      met = met || failed(partition);
      while (failed(partition)) std::this_thread::yield();
    }
    auto producer = Producer::open(*opened, {.topic = "t"});
    ASSERT_TRUE(producer) << to_string(producer.error());
    for (std::uint32_t partition = 0; partition < kPartitions; ++partition)
      EXPECT_TRUE(producer->send({.value = "v", .partition = PartitionId(partition)}));
    EXPECT_TRUE(producer->flush());
  }
  EXPECT_TRUE(met) << "the log could be opened with all its partitions, or not at all";
}

TEST_F(LogTest, IsNotMadeWhereItMustExist) {
  auto opened =
      Log::open({.dir = dir_ / "nothing", .create_if_missing = false, .shared_memory_dir = shm_.path()});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::not_found);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "nothing"));
}

TEST_F(LogTest, KeepsWhatWasAppendedFromOneOpeningToTheNext) {
  create("t");
  create("m", {{"storage", "memory"}});
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(producer("t").send(std::to_string(round)));
    ASSERT_TRUE(producer("m").send(std::to_string(round)));
    log_.reset();
    log_.emplace(open_log().value());
  }
  Consumer disk = consumer("t");
  EXPECT_THAT(take(disk, 3), ElementsAre("0", "1", "2"));
  Consumer memory = consumer("m");
  EXPECT_THAT(take(memory, 3), ElementsAre("0", "1", "2"));
}

TEST_F(LogTest, AfterTheLossOfSharedMemoryKeepsWhatWasDurable) {
  create("t");
  {
    Producer p = producer("t", {.durable = true});
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(p.send(std::to_string(i)));
  }
  const std::string id = log_->id();
  log_.reset();
  std::filesystem::remove_all(shm_.path() / ("ringtail-" + id));
  log_.emplace(open_log().value());
  Consumer c = consumer("t");
  EXPECT_THAT(take(c, 3), ElementsAre("0", "1", "2"));
  EXPECT_EQ(producer("t").send("3")->offset, Offset(3));
  EXPECT_THAT(take(c, 1), ElementsAre("3"));
}

// A ring of another layout version belongs to another program: what it holds must not be lost, so the
// partition says so and refuses, and the other ones work.
TEST_F(LogTest, ARingOfAnotherLayoutVersionFailsItsPartitionOnly) {
  create("old");
  create("good");
  const auto ring = shm_.path() / ("ringtail-" + log_->id()) / "old-0.ring";
  log_.reset();
  std::fstream file(ring, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(8);
  file.put(9);
  file.close();
  log_.emplace(open_log().value());
  auto opened = Producer::open(*log_, {.topic = "old"});
  ASSERT_FALSE(opened);
  EXPECT_THAT(to_string(opened.error()), HasSubstr("layout version 9"));
  const auto failure = admin().describe_topic("old")->partitions[0].failure;
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, Code::incompatible_layout);
  EXPECT_TRUE(producer("good").send("v"));
  EXPECT_TRUE(std::filesystem::exists(ring));
}

// In a child with a /dev/shm of its own, as large as a few small rings and the control segment.
TEST_F(LogTest, TooLittleSharedMemoryIsSaidAtTheTopicThatNeedsIt) {
  log_.reset();
  shm::Child child([&](const shm::Line&) {
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
      std::cout << "no mount namespace here: " << std::strerror(errno) << '\n';
      return;
    }
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    const auto small_shm = dir_ / "shm";
    std::filesystem::create_directory(small_shm);
    ASSERT_EQ(::mount("tmpfs", small_shm.c_str(), "tmpfs", 0, "size=11m,mode=0700"), 0);
    auto log = Log::open({.dir = options().dir, .shared_memory_dir = small_shm});
    ASSERT_TRUE(log) << to_string(log.error());
    ASSERT_TRUE(Admin(*log).create_topic({.name = "fits", .configs = small()}));
    auto refused = Admin(*log).create_topic({.name = "large"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::shared_memory_full);
    EXPECT_THAT(refused.error().message, HasSubstr(small_shm.string()));
    EXPECT_THAT(*Admin(*log).list_topics(), ElementsAre("fits")) << "better no topic than half a one";
    EXPECT_TRUE(Producer::open(*log, {.topic = "fits"})->send("v"));
  });
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(LogTest, WhenAllSlotsAreTakenSaysWhatToDo) {
  create("t");
  std::vector<Producer> producers;
  Result<Producer> opened = Producer::open(*log_, {.topic = "t"});
  while (opened) {
    producers.push_back(std::move(*opened));
    opened = Producer::open(*log_, {.topic = "t"});
  }
  EXPECT_EQ(producers.size(), 512u);
  EXPECT_EQ(opened.error().code, Code::limit_exceeded);
  EXPECT_EQ(Consumer::open(*log_).error().code, Code::limit_exceeded);
  producers.pop_back();
  EXPECT_TRUE(Consumer::open(*log_));
}

TEST_F(LogTest, EverythingButTheSharedMemoryOfTheDeadEndsWithTheLastHandle) {
  create("t");
  auto p = std::make_unique<Producer>(producer("t"));
  log_.reset();
  EXPECT_TRUE(p->send("the attachment lives with its producer"));
  EXPECT_TRUE(p->flush());
}

TEST_F(LogTest, ARingWhoseTopicWasDeletedWhileNobodyKeptTheLogIsRemoved) {
  create("kept", small());
  create("gone", small());
  const auto folder = shm_.path() / ("ringtail-" + log_->id());
  log_.reset();
  ASSERT_TRUE(std::filesystem::exists(folder / "gone-0.ring"));
  std::filesystem::remove_all(dir_ / "log" / "topics" / "gone");
  log_.emplace(open_log().value());
  EXPECT_FALSE(std::filesystem::exists(folder / "gone-0.ring"));
  EXPECT_TRUE(std::filesystem::exists(folder / "kept-0.ring"));
}

}  // namespace
}  // namespace ringtail
