#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/random.h"
#include "catalog_test_support.h"

namespace ringtail::log {
namespace {

TEST_F(CatalogTest, OpenGivesADirectoryItsIdentityOnce) {
  const std::int64_t before = wall_clock_ns();
  const Catalog first = open();
  EXPECT_TRUE(is_hex(first.identity().id, 32)) << first.identity().id;
  EXPECT_GE(first.identity().created_ns, before);
  EXPECT_LE(first.identity().created_ns, wall_clock_ns());
  const Catalog second = open();
  EXPECT_EQ(first.identity().id, second.identity().id);
  EXPECT_EQ(first.identity().created_ns, second.identity().created_ns);
  EXPECT_TRUE(first.list_topics()->empty());
  const auto without_creating = Catalog::open(dir(), false);
  ASSERT_TRUE(without_creating);
  EXPECT_EQ(without_creating->identity().id, first.identity().id);
}

TEST_F(CatalogTest, OpenCreatesMissingParents) {
  EXPECT_TRUE(Catalog::open(scratch_ / "a/b/c", true));
  EXPECT_TRUE(Catalog::open(scratch_ / "a/b/c", false));
}

TEST_F(CatalogTest, OpenWithoutCreatingNeedsALog) {
  for (const fs::path& path : {dir(), scratch_.path()}) {
    const auto catalog = Catalog::open(path, false);
    ASSERT_FALSE(catalog);
    expect_error(catalog.error(), Code::not_found, {path.native(), "ringtail.toml"});
  }
  EXPECT_FALSE(fs::exists(dir()));
}

TEST_F(CatalogTest, OpenRefusesAFileInPlaceOfTheDirectory) {
  put_file(dir(), "");
  const auto catalog = Catalog::open(dir(), true);
  ASSERT_FALSE(catalog);
  expect_error(catalog.error(), Code::system, {dir().native(), "Not a directory"});
}

TEST_F(CatalogTest, ManyProcessesOpenOneLog) {
  for (int i = 0; i < 8; ++i) {
    if (::fork() == 0) {
      const auto catalog = Catalog::open(dir(), true);
      if (!catalog) ::_exit(1);
      put_file(scratch_ / std::to_string(i), catalog->identity().id);
      ::_exit(0);
    }
  }
  int status = 0;
  while (::wait(&status) > 0) EXPECT_EQ(status, 0);
  std::set<std::string> ids;
  for (int i = 0; i < 8; ++i) ids.insert(get_file(scratch_ / std::to_string(i)));
  EXPECT_EQ(ids, std::set<std::string>{open().identity().id});
}

TEST_F(CatalogTest, CreateLoadAndList) {
  const Catalog catalog = open();
  const auto orders = catalog.create_topic(
      {.name = "orders", .partitions = 3, .configs = {{"retention.ms", "2h"}, {"storage", "memory"}}});
  ASSERT_TRUE(orders) << to_string(orders.error());
  EXPECT_EQ(orders->name, "orders");
  EXPECT_NE(orders->topic_id, 0u);
  EXPECT_EQ(orders->partitions, 3u);
  EXPECT_EQ(orders->overrides, (TopicConfigs{{"retention.ms", "7200000"}, {"storage", "memory"}}));
  EXPECT_GE(orders->created_ns, catalog.identity().created_ns);
  for (std::uint32_t p = 0; p < 3; ++p) {
    EXPECT_TRUE(fs::is_directory(catalog.partition_dir("orders", PartitionId(p))));
  }
  EXPECT_EQ(catalog.partition_dir("orders", PartitionId(2)), dir() / "topics/orders/2");

  const auto audit = catalog.create_topic({.name = ".Audit_1-x", .configs = {}});
  ASSERT_TRUE(audit);
  EXPECT_EQ(*open().load_topic("orders"), *orders);
  EXPECT_EQ(*open().list_topics(), (std::vector<TopicEntry>{*audit, *orders}));
  EXPECT_NE(audit->topic_id, orders->topic_id);
}

TEST_F(CatalogTest, CreateRefusesBadSpecifications) {
  const Catalog catalog = open();
  const auto before = snapshot(dir());
  for (const std::string& name :
       {std::string("a/b"), std::string("/etc"), std::string(".."), std::string("."), std::string(),
        std::string(300, 'n'), std::string("~new-1"), std::string("a\0b", 3)}) {
    const auto topic = catalog.create_topic({.name = name, .configs = {}});
    ASSERT_FALSE(topic) << name;
    EXPECT_EQ(topic.error().code, Code::invalid_argument);
    EXPECT_EQ(catalog.load_topic(name).error().code, Code::invalid_argument);
    EXPECT_EQ(catalog.delete_topic(name).error().code, Code::invalid_argument);
    EXPECT_EQ(catalog.alter_topic(name, {}).error().code, Code::invalid_argument);
  }
  for (const std::uint32_t partitions : {0u, kMaxTopicPartitions + 1}) {
    expect_error(catalog.create_topic({.name = "t", .partitions = partitions, .configs = {}}).error(),
                 Code::invalid_argument, {std::to_string(partitions), "1 to 4096"});
  }
  expect_error(catalog.create_topic({.name = "t", .configs = {{"retention.ms", "x"}}}).error(),
               Code::invalid_argument, {"retention.ms", "'x'"});
  EXPECT_EQ(snapshot(dir()), before);
}

TEST_F(CatalogTest, CreateRefusesANameInUse) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {}}));
  const auto before = snapshot(dir());
  expect_error(catalog.create_topic({.name = "orders", .partitions = 9, .configs = {}}).error(),
               Code::already_exists, {"'orders'"});
  EXPECT_EQ(snapshot(dir()), before);
}

TEST_F(CatalogTest, AlterSetsRestoresAndKeepsTheRest) {
  const Catalog catalog = open();
  const auto created = catalog.create_topic(
      {.name = "orders", .partitions = 2, .configs = {{"retention.ms", "5"}, {"flush.ms", "6"}}});
  ASSERT_TRUE(created);
  put_file(dir() / "topics/orders/topic.toml.tmp", "the rest of an alteration that was cut short");
  const auto altered = catalog.alter_topic("orders", {{"retention.ms", ""}, {"segment.bytes", "2MiB"}});
  ASSERT_TRUE(altered) << to_string(altered.error());
  TopicEntry expected = *created;
  expected.overrides = {{"flush.ms", "6"}, {"segment.bytes", "2097152"}};
  EXPECT_EQ(*altered, expected);
  EXPECT_EQ(*catalog.load_topic("orders"), expected);
  EXPECT_FALSE(fs::exists(dir() / "topics/orders/topic.toml.tmp"));
}

TEST_F(CatalogTest, AlterRefuses) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {}}));
  const auto before = snapshot(dir());
  expect_error(catalog.alter_topic("none", {{"flush.ms", "1"}}).error(), Code::not_found,
               {"'none'", "ringtail topic create none"});
  expect_error(catalog.alter_topic("orders", {{"storage", "memory"}}).error(), Code::invalid_argument,
               {"storage"});
  expect_error(catalog.alter_topic("orders", {{"flush.ms", "0"}}).error(), Code::invalid_argument,
               {"flush.ms=0"});
  expect_error(catalog.alter_topic("orders", {{"on.full", "overwrite"}}).error(), Code::invalid_argument,
               {"storage=memory"});
  EXPECT_EQ(snapshot(dir()), before);
}

TEST_F(CatalogTest, PartitionsAreAddedAndNeverTakenAway) {
  const Catalog catalog = open();
  const auto created =
      catalog.create_topic({.name = "orders", .partitions = 2, .configs = {{"flush.ms", "6"}}});
  ASSERT_TRUE(created);
  // As an addition leaves it that was cut short before the topic's file was replaced.
  fs::create_directory(catalog.partition_dir("orders", PartitionId(2)));
  EXPECT_EQ(catalog.load_topic("orders")->partitions, 2u);
  const auto grown = catalog.add_partitions("orders", 4);
  ASSERT_TRUE(grown) << to_string(grown.error());
  TopicEntry expected = *created;
  expected.partitions = 4;
  EXPECT_EQ(*grown, expected);
  EXPECT_EQ(*catalog.load_topic("orders"), expected);
  for (std::uint32_t p = 0; p < 4; ++p)
    EXPECT_TRUE(fs::is_directory(catalog.partition_dir("orders", PartitionId(p))));
  const auto before = snapshot(dir());
  EXPECT_EQ(*catalog.add_partitions("orders", 4), expected);
  for (const std::uint32_t total : {0u, 3u, kMaxTopicPartitions + 1})
    expect_error(catalog.add_partitions("orders", total).error(), Code::invalid_argument,
                 {"'orders'", std::to_string(total), "cannot be moved"});
  EXPECT_EQ(catalog.add_partitions("none", 4).error().code, Code::not_found);
  EXPECT_EQ(snapshot(dir()), before);
}

TEST_F(CatalogTest, DeleteRemovesTheTopicAndItsFiles) {
  const Catalog catalog = open();
  const auto before = snapshot(dir());
  const auto first = catalog.create_topic({.name = "orders", .configs = {}});
  put_file(catalog.partition_dir("orders", PartitionId(0)) / "00000000000000000000.log", "records");
  ASSERT_TRUE(catalog.delete_topic("orders"));
  EXPECT_EQ(snapshot(dir()), before);
  EXPECT_EQ(catalog.load_topic("orders").error().code, Code::not_found);
  expect_error(catalog.delete_topic("orders").error(), Code::not_found, {"'orders'"});
  const auto second = catalog.create_topic({.name = "orders", .configs = {}});
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->topic_id, second->topic_id);
}

// Whoever has the lock may stand still.
TEST_F(CatalogTest, WhatIsLeftBehindIsNotWaitedForWhileAnotherHasTheLock) {
  const Catalog catalog = open();
  const fs::path left = dir() / "topics/~new-1";
  fs::create_directories(left);
  {
    const Descriptor file(::open((dir() / "catalog.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    struct flock lock{};
    lock.l_type = F_WRLCK;
    ASSERT_EQ(::fcntl(file.get(), F_OFD_SETLK, &lock), 0);
    EXPECT_TRUE(catalog.purge_deleted());
    EXPECT_TRUE(fs::exists(left));
  }
  EXPECT_TRUE(catalog.purge_deleted());
  EXPECT_FALSE(fs::exists(left));
}

TEST_F(CatalogTest, ListStepsOverWhatIsNoTopic) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {}}));
  put_file(dir() / "topics/notes.txt", "a file");
  fs::create_directories(dir() / "topics/lost and found");
  ASSERT_EQ(catalog.list_topics()->size(), 1u);
  EXPECT_EQ(catalog.list_topics()->front().name, "orders");
}

TEST_F(CatalogTest, ChangesOfManyThreadsAndProcessesAreSerial) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "shared", .configs = {}}));
  // Each writer sets a configuration of its own many times: none may lose another's.
  const std::array<const char*, 4> names{"flush.ms", "retention.ms", "segment.ms", "reader.pin.ms"};
  const auto work = [&](const char* name) {
    bool good = true;
    for (int i = 1; i <= 25; ++i)
      good &= catalog.alter_topic("shared", {{name, std::to_string(i)}}).has_value();
    return good;
  };
  for (std::size_t i = 0; i < 2; ++i) {
    if (::fork() == 0) ::_exit(work(names[i]) ? 0 : 1);
  }
  {
    std::jthread third([&] { EXPECT_TRUE(work(names[2])); });
    std::jthread fourth([&] { EXPECT_TRUE(work(names[3])); });
  }
  int status = 0;
  while (::wait(&status) > 0) EXPECT_EQ(status, 0);
  EXPECT_EQ(catalog.load_topic("shared")->overrides,
            (TopicConfigs{
                {"flush.ms", "25"}, {"reader.pin.ms", "25"}, {"retention.ms", "25"}, {"segment.ms", "25"}}));
}

}  // namespace
}  // namespace ringtail::log
