// The coordinator of a host that is alone.
#include "replication/local_coordinator.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "base/clock.h"
#include "unit/base/scratch_dir.h"
#include "unit/replication/nodes.h"
#include "unit/replication/replication_test_support.h"

namespace ringtail::replication {
namespace {

using testing::get_file;
using ::testing::HasSubstr;
using testing::put_file;
using testing::ScratchDir;
using ::testing::SizeIs;

class LocalCoordinatorTest : public ::testing::Test {
 protected:
  std::unique_ptr<LocalCoordinator> open() const {
    auto opened = LocalCoordinator::open(dir_.path());
    EXPECT_TRUE(opened) << to_string(opened.error());
    return std::move(*opened);
  }

  ScratchDir dir_;
};

TEST_F(LocalCoordinatorTest, ItsNodeLivesForEverUntilItLeaves) {
  const auto one = open();
  EXPECT_EQ(one->lease_deadline_ns(), 0);
  ASSERT_TRUE(one->join(node_record(1)));
  EXPECT_GT(one->lease_deadline_ns(), boottime_ns() + 1'000'000'000'000'000);
  EXPECT_NE(find_live(*one->state(), kOne), nullptr);
  EXPECT_THAT(one->state()->cluster_id, SizeIs(32));
  EXPECT_TRUE(one->health().reachable);
  ASSERT_TRUE(one->leave());
  EXPECT_EQ(one->lease_deadline_ns(), 0);
  EXPECT_EQ(find_live(*one->state(), kOne), nullptr);
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}).error().code, Code::closed);
  EXPECT_TRUE(one->join(node_record(1)));
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
}

TEST_F(LocalCoordinatorTest, RecordsSurviveAndTheirRevisionsGoOn) {
  std::int64_t revision = 0;
  std::string cluster;
  {
    const auto one = open();
    ASSERT_TRUE(one->join(node_record(1)));
    ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("t")}, {partition_record("t", 0, {1})}}), true);
    revision = one->state()->revision;
    cluster = one->state()->cluster_id;
  }
  const auto two = open();
  EXPECT_EQ(two->state()->cluster_id, cluster);
  EXPECT_EQ(two->state()->topics.at("t").record, topic_record("t"));
  EXPECT_EQ(two->state()->topics.at("t").revision, revision);
  EXPECT_THAT(two->state()->live, SizeIs(0));
  ASSERT_TRUE(two->join(node_record(1, "", 77)));
  EXPECT_GT(two->state()->revision, revision);
  EXPECT_EQ(two->state()->live.at(kOne), 77u);
}

TEST_F(LocalCoordinatorTest, ACommitMakesAllItsChangesOrNone) {
  const auto one = open();
  ASSERT_TRUE(one->join(node_record(1)));
  ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
  const std::int64_t revision = one->state()->topics.at("t").revision;
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("u")}, {topic_record("t")}}), false);
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("u")}, {topic_record("t"), revision - 1}}), false);
  EXPECT_THAT(one->state()->topics, SizeIs(1));
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t"), revision, true}, {topic_record("u")}}), true);
  EXPECT_TRUE(one->state()->topics.contains("u"));
  EXPECT_THAT(one->state()->topics, SizeIs(1));
  EXPECT_EQ(one->commit(std::vector<Change>(Coordinator::kMaxChanges + 1)).error().code,
            Code::limit_exceeded);
}

TEST_F(LocalCoordinatorTest, WhatCannotBeWrittenIsNotDone) {
  const auto one = open();
  ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
  std::filesystem::create_directory(dir_ / "cluster.json.tmp");  // in the way of the file to be
  EXPECT_FALSE(one->commit(std::vector<Change>{{topic_record("u")}}));
  EXPECT_FALSE(one->state()->topics.contains("u"));
  EXPECT_THAT(one->health().last_error, HasSubstr("cluster.json"));
  std::filesystem::remove(dir_ / "cluster.json.tmp");
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("u")}}), true);
}

TEST_F(LocalCoordinatorTest, AnotherLogIsRefusedUnlessItReplaces) {
  const auto one = open();
  ASSERT_TRUE(one->join(node_record(1)));
  NodeRecord other = node_record(1, "", 77);
  other.log_id = std::string(32, 'f');
  EXPECT_EQ(one->join(other).error().code, Code::invalid_argument);
  EXPECT_TRUE(one->join(other, {.replace = true}));
}

TEST_F(LocalCoordinatorTest, TheCallbackIsToldOnAThreadOfItsOwnAndMayCommit) {
  std::atomic<bool> committed{false};
  std::atomic<bool> on_this_thread{false};
  const auto self = std::this_thread::get_id();
  const auto one = open();
  one->set_on_change([&](const auto& state) {
    if (std::this_thread::get_id() == self) on_this_thread = true;
    if (state->topics.contains("t") && !state->topics.contains("u"))
      committed = one->commit(std::vector<Change>{{topic_record("u")}}) == true;
  });
  ASSERT_TRUE(one->join(node_record(1)));
  ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
  while (!committed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(on_this_thread);
  EXPECT_TRUE(one->state()->topics.contains("u"));
}

TEST_F(LocalCoordinatorTest, AFileThatIsMalformedIsRefusedByName) {
  for (const char* text : {"", "[]", "{}", R"({"records":{}})", R"({"version":"1","records":{}})",
                           R"({"version":1})", R"({"version":1,"records":{"topics/t":{"value":{}}}})",
                           R"({"version":1,"records":{"topics/t":{"revision":"1","value":{}}}})",
                           R"({"version":1,"records":{"topics/t":3}})"}) {
    put_file(dir_ / "cluster.json", text);
    const auto opened = LocalCoordinator::open(dir_.path());
    ASSERT_FALSE(opened) << text;
    EXPECT_EQ(opened.error().code, Code::corrupt);
    EXPECT_THAT(opened.error().message, HasSubstr((dir_ / "cluster.json").string()));
    EXPECT_EQ(get_file(dir_ / "cluster.json"), text);
  }
}

TEST_F(LocalCoordinatorTest, AFileOfAnotherVersionIsRefusedWithBothVersionsAndLeftAlone) {
  for (const char* text : {R"({"version":2,"revision":5,"records":{}})", R"({"version":0,"records":[]})"}) {
    put_file(dir_ / "cluster.json", text);
    const auto opened = LocalCoordinator::open(dir_.path());
    ASSERT_FALSE(opened) << text;
    EXPECT_EQ(opened.error().code, Code::incompatible_layout);
    const std::string version(1, text[11]);
    for (const std::string& part :
         {(dir_ / "cluster.json").string(), "version " + version + ",", std::string("reads version 1"),
          std::string("use the release that wrote it")})
      EXPECT_THAT(opened.error().message, HasSubstr(part));
    EXPECT_EQ(get_file(dir_ / "cluster.json"), text);
  }
}

TEST_F(LocalCoordinatorTest, ASingleMalformedRecordIsLeftOutAndKept) {
  put_file(dir_ / "cluster.json",
           R"({"version":1,"revision":5,"records":{"topics/t":{"revision":3,"value":{"version":1}}}})");
  const auto one = open();
  EXPECT_TRUE(one->state()->malformed.contains("topics/t"));
  EXPECT_EQ(one->state()->revision, 5);
  ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("u")}}), true);
  EXPECT_TRUE(open()->state()->malformed.contains("topics/t"));
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t"), 3}}), true);
  EXPECT_THAT(one->state()->malformed, SizeIs(0));
}

}  // namespace
}  // namespace ringtail::replication
