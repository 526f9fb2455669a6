// The catalog against damaged files, disks that refuse, and processes killed in the middle.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>
#include <regex>
#include <thread>
#include <tuple>

#include "catalog_test_support.h"

namespace ringtail::log {
namespace {

TEST_F(CatalogTest, OpenRefusesTopicsWithoutIdentity) {
  ASSERT_TRUE(open().create_topic({.name = "orders", .configs = {}}));
  fs::remove(dir() / "ringtail.toml");
  const auto catalog = Catalog::open(dir(), true);
  ASSERT_FALSE(catalog);
  expect_error(catalog.error(), Code::corrupt, {dir().native(), "ringtail.toml", "restore"});
  EXPECT_FALSE(fs::exists(dir() / "ringtail.toml"));
}

TEST_F(CatalogTest, OpenFinishesACreationThatWasCutShort) {
  fs::create_directories(dir() / "topics");
  put_file(dir() / "catalog.lock", "");
  put_file(dir() / "ringtail.toml.tmp", "format_ver");
  EXPECT_TRUE(open().create_topic({.name = "orders", .configs = {}}));
}

TEST_F(CatalogTest, OpenRefusesAnotherFormatVersionNamingBoth) {
  open();
  const std::string content = get_file(dir() / "ringtail.toml");
  for (const char* version : {"2", "0", "99"}) {
    put_file(dir() / "ringtail.toml", std::regex_replace(content, std::regex("format_version = 1"),
                                                         std::string("format_version = ") + version));
    const auto catalog = Catalog::open(dir(), true);
    ASSERT_FALSE(catalog);
    expect_error(catalog.error(), Code::incompatible_layout,
                 {"ringtail.toml", std::string("version ") + version, "reads version 1"});
  }
}

TEST_F(CatalogTest, OpenRefusesAMalformedIdentityNamingFileAndLine) {
  const std::string id(32, 'a');
  const std::pair<std::string, std::string_view> cases[] = {
      {"", "'format_version' is missing"},
      {"format_version = \"1\"\n", "line 1: 'format_version'"},
      {"format_version = 1\n", "'log_id' is missing"},
      {"format_version = 1\nlog_id = \"xyz\"\n", "line 2: 'log_id'"},
      {"format_version = 1\nlog_id = \"../../../../etc/passwd/aaaaaaaaaaaa\"\n", "line 2: 'log_id'"},
      {"format_version = 1\nlog_id = \"" + id + "\"\n", "'created' is missing"},
      {"format_version = 1\nlog_id = \"" + id + "\"\ncreated = \"once\"\n", "line 3: 'created'"},
      {"format_version = 1\nlog_id = \"aaaa", "line 2"},
  };
  open();
  for (const auto& [content, part] : cases) {
    put_file(dir() / "ringtail.toml", content);
    const auto catalog = Catalog::open(dir(), true);
    ASSERT_FALSE(catalog) << content;
    expect_error(catalog.error(), Code::corrupt, {(dir() / "ringtail.toml").native(), part});
  }
}

TEST_F(CatalogTest, RetentionOfPositionsIsAWeekUnlessTheFileSaysOtherwise) {
  EXPECT_EQ(open().identity().offsets_retention_ms, 7LL * 24 * 3600 * 1000);
  const std::string content = get_file(dir() / "ringtail.toml");
  const std::pair<std::string_view, std::int64_t> cases[] = {
      {"\"2h\"", 2LL * 3600 * 1000}, {"\"1500\"", 1500}, {"\"1ms\"", 1}, {"\"52w\"", 52LL * 7 * 86'400'000}};
  for (const auto& [text, value] : cases) {
    put_file(dir() / "ringtail.toml",
             content + "[groups]\n\"offsets.retention.ms\" = " + std::string(text) + "\n");
    EXPECT_EQ(open().identity().offsets_retention_ms, value) << text;
  }
}

TEST_F(CatalogTest, OpenRefusesAMalformedSettingOfGroupsNamingFileAndLine) {
  open();
  const std::string content = get_file(dir() / "ringtail.toml");
  const auto line = "line " + std::to_string(std::ranges::count(content, '\n') + 2);
  const std::pair<std::string, std::string_view> cases[] = {
      {"\"offsets.retention.ms\" = \"soon\"\n", "'soon' is no duration"},
      {"\"offsets.retention.ms\" = \"0\"\n", "at least 1ms"},
      {"\"offsets.retention.ms\" = \"-1\"\n", "remove the line"},
      {"\"offsets.retention.ms\" = 5\n", "must be a string"},
      {"\"offsets.retention\" = \"7d\"\n", "no such setting"},
  };
  for (const auto& [setting, part] : cases) {
    put_file(dir() / "ringtail.toml", content + "[groups]\n" + setting);
    const auto catalog = Catalog::open(dir(), true);
    ASSERT_FALSE(catalog) << setting;
    expect_error(catalog.error(), Code::corrupt, {(dir() / "ringtail.toml").native(), line, part});
  }
}

TEST_F(CatalogTest, IdentityCutAnywhereIsRefusedAndNeverReplaced) {
  open();
  const std::string content = get_file(dir() / "ringtail.toml");
  for (std::size_t cut = 0; cut + 1 < content.size(); ++cut) {  // the last newline may be missing
    put_file(dir() / "ringtail.toml", content.substr(0, cut));
    const auto catalog = Catalog::open(dir(), true);
    ASSERT_FALSE(catalog) << cut;
    EXPECT_EQ(catalog.error().code, Code::corrupt) << cut;
    ASSERT_EQ(get_file(dir() / "ringtail.toml").size(), cut);
  }
}

TEST_F(CatalogTest, PurgeFinishesWhatWasCutShort) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {}}));
  ASSERT_TRUE(catalog.create_topic({.name = ".deleted-1", .configs = {}}));  // a name like any other
  const auto before = snapshot(dir());
  for (const char* rest : {"~deleted-0123456789abcdef", "~new-0123456789abcdef"}) {
    fs::create_directories(dir() / "topics" / rest / "0");
    put_file(dir() / "topics" / rest / "0/00000000000000000000.log", "records");
  }
  EXPECT_EQ(catalog.list_topics()->size(), 2u);
  ASSERT_TRUE(catalog.purge_deleted());
  EXPECT_EQ(snapshot(dir()), before);
  ASSERT_TRUE(catalog.purge_deleted());
}

TEST_F(CatalogTest, LoadRefusesAMalformedTopicNamingFileAndLine) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {{"flush.ms", "6"}}}));
  const std::string good = get_file(topic_file("orders"));
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"topic = \"orders\"", "topic = \"other\"", "line 3: 'topic'"},
      {"topic = \"orders\"", "", "'topic' is missing"},
      {"topic_id = \"................\"", "topic_id = \"0000000000000000\"", "line 4: 'topic_id'"},
      {"topic_id = \"................\"", "topic_id = \"12\"", "line 4: 'topic_id'"},
      {"partitions = 1", "partitions = 0", "line 5: 'partitions'"},
      {"partitions = 1", "partitions = 4097", "line 5: 'partitions'"},
      {"partitions = 1", "partitions = -1", "line 5: 'partitions'"},
      {"created = \"2", "created = \"x2", "line 6: 'created'"},
      {"\"flush.ms\" = \"6\"", "\"flush.ms\" = 6", "line 9: 'flush.ms'"},
      {"\"flush.ms\" = \"6\"", "\"flush.ms\" = \"0\"", "flush.ms=0"},
      {"\"flush.ms\"", "\"flush.sm\"", "'flush.sm'"},
      {"\\[configs\\]", "[configs", "line 8"},
  };
  for (const auto& [from, to, part] : cases) {
    const std::string bad = std::regex_replace(good, std::regex(from), to);
    ASSERT_NE(bad, good) << from;
    put_file(topic_file("orders"), bad);
    const auto topic = catalog.load_topic("orders");
    ASSERT_FALSE(topic) << bad;
    expect_error(topic.error(), Code::corrupt, {topic_file("orders").native(), part});
    expect_error(catalog.list_topics().error(), Code::corrupt, {part});
  }
  put_file(topic_file("orders"),
           std::regex_replace(good, std::regex("format_version = 1"), "format_version = 7"));
  expect_error(catalog.load_topic("orders").error(), Code::incompatible_layout, {"version 7", "version 1"});
}

TEST_F(CatalogTest, TopicCutAnywhereIsEitherRefusedOrTheSameButForConfigs) {
  const Catalog catalog = open();
  const auto created = catalog.create_topic({.name = "orders", .configs = {{"flush.ms", "6"}}});
  ASSERT_TRUE(created);
  const std::string good = get_file(topic_file("orders"));
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    put_file(topic_file("orders"), good.substr(0, cut));
    auto topic = catalog.load_topic("orders");
    if (!topic) {
      EXPECT_EQ(topic.error().code, Code::corrupt) << cut;
      continue;
    }
    topic->overrides = created->overrides;
    EXPECT_EQ(*topic, *created) << cut;
  }
}

TEST_F(CatalogTest, ACorruptTopicCanBeDeleted) {
  const Catalog catalog = open();
  const auto before = snapshot(dir());
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {}}));
  put_file(topic_file("orders"), "garbage");
  EXPECT_EQ(catalog.load_topic("orders").error().code, Code::corrupt);
  ASSERT_TRUE(catalog.delete_topic("orders"));
  fs::create_directories(dir() / "topics/empty");
  expect_error(catalog.load_topic("empty").error(), Code::corrupt, {"topics/empty", "topic.toml"});
  ASSERT_TRUE(catalog.delete_topic("empty"));
  EXPECT_EQ(snapshot(dir()), before);
}

TEST_F(CatalogTest, AFullDiskLeavesNothingHalfMade) {
  {
    const WithoutFileSpace full;
    const auto catalog = Catalog::open(dir(), true);
    ASSERT_FALSE(catalog);
    EXPECT_EQ(catalog.error().os_errno, EFBIG);
  }
  EXPECT_EQ(snapshot(dir()), (std::map<std::string, std::string>{{"topics", "directory"}}));

  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {{"flush.ms", "6"}}}));
  const auto before = snapshot(dir());
  {
    const WithoutFileSpace full;
    const auto created = catalog.create_topic({.name = "audit", .partitions = 4, .configs = {}});
    ASSERT_FALSE(created);
    expect_error(created.error(), Code::system, {"topic.toml", "File too large"});
    const auto altered = catalog.alter_topic("orders", {{"flush.ms", "7"}});
    ASSERT_FALSE(altered);
    EXPECT_EQ(altered.error().os_errno, EFBIG);
  }
  EXPECT_EQ(snapshot(dir()), before);
  EXPECT_TRUE(catalog.alter_topic("orders", {{"flush.ms", "7"}}));
}

TEST_F(CatalogTest, AReadOnlyDirectoryCanBeReadAndRefusesChanges) {
  const Catalog catalog = open();
  const auto orders = catalog.create_topic({.name = "orders", .configs = {}});
  ASSERT_TRUE(orders);
  fs::permissions(scratch_.path(), fs::perms(0755));
  for (const fs::path& path : {dir(), dir() / "topics", dir() / "topics/orders"})
    fs::permissions(path, fs::perms(0555));
  for (const char* file : {"catalog.lock", "ringtail.toml", "topics/orders/topic.toml"})
    fs::permissions(dir() / file, fs::perms(0444));
  {
    const WithoutPrivileges unprivileged;
    const auto reopened = Catalog::open(dir(), true);
    ASSERT_TRUE(reopened) << to_string(reopened.error());
    EXPECT_EQ(*reopened->load_topic("orders"), *orders);
    EXPECT_EQ(reopened->list_topics()->size(), 1u);
    EXPECT_TRUE(reopened->purge_deleted());
    const auto refused = {reopened->create_topic({.name = "audit", .configs = {}}).error(),
                          reopened->alter_topic("orders", {{"flush.ms", "7"}}).error(),
                          reopened->delete_topic("orders").error()};
    for (const Error& error : refused) {
      expect_error(error, Code::permission_denied, {dir().native(), "catalog.lock", "Permission denied"});
    }
    const auto elsewhere = Catalog::open(dir() / "below", true);
    ASSERT_FALSE(elsewhere);
    expect_error(elsewhere.error(), Code::permission_denied, {(dir() / "below").native()});
  }
  fs::permissions(dir() / "catalog.lock", fs::perms(0660));  // the group is ours still
  {
    const WithoutPrivileges unprivileged;  // the lock may be had, the rest not
    expect_error(catalog.create_topic({.name = "audit", .configs = {}}).error(), Code::permission_denied,
                 {"~new-"});
    expect_error(catalog.alter_topic("orders", {{"flush.ms", "7"}}).error(), Code::permission_denied,
                 {"topic.toml"});
    expect_error(catalog.delete_topic("orders").error(), Code::permission_denied, {"topics/orders"});
  }
  for (const fs::path& path : {dir(), dir() / "topics", dir() / "topics/orders"})
    fs::permissions(path, fs::perms(0755));
  EXPECT_EQ(*catalog.list_topics(), std::vector<TopicEntry>{*orders});
}

TEST_F(CatalogTest, UnreadableLogIsPermissionDenied) {
  open();
  fs::permissions(scratch_.path(), fs::perms(0755));
  fs::permissions(dir() / "ringtail.toml", fs::perms(0));
  const WithoutPrivileges unprivileged;
  const auto catalog = Catalog::open(dir(), true);
  ASSERT_FALSE(catalog);
  expect_error(catalog.error(), Code::permission_denied, {"ringtail.toml"});
}

// Else its keeper would take its ring for that of a topic that was deleted.
TEST_F(CatalogTest, ATopicThatCannotBeLookedAtIsNotMissing) {
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "orders", .configs = {}}));
  const fs::path topic = dir() / "topics/orders";
  fs::rename(topic, dir() / "topics/~aside");
  fs::create_symlink("orders", topic);
  const auto listed = catalog.list_topics();
  ASSERT_FALSE(listed);
  EXPECT_NE(listed.error().message.find(topic.native()), std::string::npos) << listed.error().message;
  const auto loaded = catalog.load_topic("orders");
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().code, Code::not_found);
  fs::remove(topic);
  EXPECT_TRUE(catalog.list_topics()->empty());
  EXPECT_EQ(catalog.load_topic("orders").error().code, Code::not_found);
}

TEST_F(CatalogTest, KilledAtRandomItIsAlwaysWhole) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const Catalog catalog = open();
  ASSERT_TRUE(catalog.create_topic({.name = "kept", .configs = {{"flush.ms", "1"}}}));
  for (int round = 0; round < 60; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 1;; ++i) {
        // Which of these fail depends on where the one before was killed.
        (void)catalog.create_topic({.name = "passing", .partitions = 3, .configs = {}}).has_value();
        (void)catalog.alter_topic("kept", {{"flush.ms", std::to_string(i % 1000 + 1)}}).has_value();
        (void)catalog.delete_topic("passing").has_value();
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ASSERT_TRUE(catalog.purge_deleted());
    const auto topics = catalog.list_topics();
    ASSERT_TRUE(topics) << to_string(topics.error());
    ASSERT_EQ(topics->front().name, "kept");
    ASSERT_TRUE(topics->front().overrides.contains("flush.ms"));
    if (topics->size() > 1) {
      ASSERT_EQ(topics->size(), 2u);
      ASSERT_EQ((*topics)[1].partitions, 3u);
      ASSERT_TRUE(fs::is_directory(catalog.partition_dir("passing", PartitionId(2))));
    }
    for (const auto& entry : fs::directory_iterator(dir() / "topics")) {
      ASSERT_FALSE(entry.path().filename().native().starts_with("~")) << entry.path();
    }
  }
}

}  // namespace
}  // namespace ringtail::log
