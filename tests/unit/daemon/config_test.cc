// The daemon's configuration: what is read, and every mistake with its place and remedy.
#include "daemon/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/base/scratch_dir.h"

namespace ringtail::daemon {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class ConfigTest : public ::testing::Test {
 protected:
  std::filesystem::path file() const { return dir_ / "ringtaild.toml"; }

  LoadedConfig load(std::string_view content, std::vector<Override> overrides = {}) const {
    testing::put_file(file(), content);
    return load_config(file(), overrides);
  }
  // The problems as they are printed, with FILE for the file's path.
  std::vector<std::string> problems(std::string_view content, std::vector<Override> overrides = {}) const {
    std::vector<std::string> lines;
    for (const ConfigProblem& problem : load(content, std::move(overrides)).problems) {
      std::string line = to_string(problem);
      if (line.starts_with(file().native())) line.replace(0, file().native().size(), "FILE");
      lines.push_back(std::move(line));
    }
    return lines;
  }
  std::string pem(const std::string& name,
                  std::filesystem::perms mode = std::filesystem::perms::owner_read) const {
    testing::put_file(dir_ / name, "pem");
    std::filesystem::permissions(dir_ / name, mode);
    return (dir_ / name).native();
  }

  testing::ScratchDir dir_;
};

TEST_F(ConfigTest, WithoutAFileTheDefaultsAreInEffect) {
  const LoadedConfig loaded = load_config({}, {});
  EXPECT_THAT(loaded.problems, IsEmpty());
  EXPECT_EQ(loaded.config.log.dir, "/var/lib/ringtail");
  EXPECT_EQ(to_string(loaded.config.http.listen), "127.0.0.1:9464");
  EXPECT_FALSE(loaded.config.in_cluster);
  EXPECT_EQ(loaded.config.cluster.lease_ttl, std::chrono::seconds(3));
}

TEST_F(ConfigTest, ReadsEverySettingOfACluster) {
  const std::string key = pem("key"), certificate = pem("certificate"), ca = pem("ca"),
                    password = pem("password");
  const LoadedConfig loaded = load(R"(
[log]
dir = "/srv/log"
io = "pwrite"
keeper_cpu = 0
create = false
[node]
id = 7
rack = "b"
replication_listen = "0.0.0.0:9465"
replication_advertise = "[fe80::1]:9465"
[cluster]
name = "main"
etcd = ["https://10.0.0.1:2379", "http://etcd-2:2379/"]
lease_ttl = "5s"
lease_margin = "250ms"
user = "ringtail"
password_file = ")" + password + R"("
[replication]
ca = ")" + ca + "\"\ncertificate = \"" +
                                   certificate + "\"\nkey = \"" + key + R"("
compression = "zstd"
throttle = "100MiB"
lag_time_max = "30s"
spin = "20us"
[http]
listen = "0.0.0.0:80"
allow_remote = true
[logging]
level = "debug"
format = "json"
)");
  std::vector<std::string> lines;
  for (const ConfigProblem& problem : loaded.problems) lines.push_back(to_string(problem));
  EXPECT_THAT(lines, IsEmpty());
  const Config& config = loaded.config;
  EXPECT_EQ(config.log.io, IoBackend::pwrite);
  EXPECT_EQ(config.log.keeper_cpu, 0);
  EXPECT_FALSE(config.log.create);
  EXPECT_EQ(config.node.id, 7);
  EXPECT_EQ(to_string(*config.node.replication_advertise), "[fe80::1]:9465");
  EXPECT_TRUE(config.in_cluster);
  EXPECT_THAT(config.cluster.etcd, ElementsAre("https://10.0.0.1:2379", "http://etcd-2:2379"));
  EXPECT_EQ(config.cluster.lease_margin, std::chrono::milliseconds(250));
  EXPECT_EQ(config.replication.compression, "zstd");
  EXPECT_EQ(config.replication.throttle, 100 << 20);
  EXPECT_EQ(config.replication.spin, std::chrono::microseconds(20));
  EXPECT_EQ(config.logging.format, LogFormat::json);
}

TEST_F(ConfigTest, ReportsAllMistakesInTheOrderOfTheirLines) {
  EXPECT_THAT(problems("[logging]\nlevel = \"loud\"\n[http]\nlisten = \"0.0.0.0:9464\"\n"
                       "[log]\nkeeper_cpu = \"two\"\ncreate = 1\n[replication]\nlag_time_max = 10000\n"
                       "throttle = \"fast\"\n"),
              ElementsAre(AllOf(StartsWith("FILE:2: logging.level: \"loud\""), HasSubstr("\"warn\"")),
                          AllOf(StartsWith("FILE:4: http.listen: 0.0.0.0:9464"), HasSubstr("allow_remote")),
                          AllOf(StartsWith("FILE:6: log.keeper_cpu: \"two\""), HasSubstr("from -1 to 1023")),
                          AllOf(StartsWith("FILE:7: log.create: 1"), HasSubstr("true or false")),
                          AllOf(StartsWith("FILE:9: replication.lag_time_max: 10000"), HasSubstr("unit")),
                          AllOf(StartsWith("FILE:10: replication.throttle: \"fast\""), HasSubstr("bytes"))));
}

TEST_F(ConfigTest, NamesTheNearestSettingForAnUnknownOne) {
  EXPECT_THAT(problems("dir = \"/x\"\nhttp = 1\n[log]\nkeper_cpu = 1\n[htp]\nlisten = \"x\"\nallow_remote = "
                       "true\n[wholly-other]\n"),
              ElementsAre(AllOf(StartsWith("FILE:1: dir: "), HasSubstr("tables")),
                          AllOf(StartsWith("FILE:2: http: is a table"), HasSubstr("[http]")),
                          AllOf(StartsWith("FILE:4: log.keper_cpu: "), HasSubstr("'keeper_cpu'")),
                          AllOf(StartsWith("FILE:6: htp: "), HasSubstr("[http]")),
                          AllOf(StartsWith("FILE:8: wholly-other: "), HasSubstr("there are"))));
}

TEST_F(ConfigTest, AClusterNeedsToBeComplete) {
  EXPECT_THAT(
      problems("[cluster]\n"),
      ElementsAre(HasSubstr("replication.ca: is missing"), HasSubstr("replication.certificate: is missing"),
                  HasSubstr("replication.key: is missing"), HasSubstr("cluster.name: is missing"),
                  HasSubstr("cluster.etcd: is missing"), HasSubstr("node.id: is missing"),
                  HasSubstr("node.replication_listen: is missing")));
  EXPECT_THAT(
      problems("[cluster]\nname=\"a\"\netcd=[\"http://e:1\"]\nlease_margin=\"2s\"\nuser=\"u\"\n"
               "[node]\nid=1\nreplication_listen=\"0.0.0.0:1\"\n[replication]\nplain=true\n"),
      ElementsAre(AllOf(StartsWith("FILE:4: cluster.lease_margin: "), HasSubstr("half of cluster.lease_ttl")),
                  StartsWith("FILE: cluster.password_file: is missing"),
                  StartsWith("FILE: node.replication_advertise: is missing")));
}

TEST_F(ConfigTest, WhereOthersAreToConnectToTheyMustBeAbleTo) {
  const std::string cluster =
      "[cluster]\nname=\"a\"\netcd=[\"http://e:1\"]\n[replication]\nplain=true\n[node]\nid=1\n";
  for (const char* nowhere : {"0.0.0.0:9465", "[::]:9465", "[0:0:0:0:0:0:0:0]:9465"})
    EXPECT_THAT(problems(cluster + "replication_listen=\"0.0.0.0:9465\"\nreplication_advertise=\"" + nowhere +
                         "\"\n"),
                ElementsAre(AllOf(StartsWith("FILE:9: node.replication_advertise: "), HasSubstr(nowhere),
                                  HasSubstr("such as \"10.0.0.1:9465\""))))
        << nowhere;
  EXPECT_THAT(problems(cluster + "replication_listen=\"[::0]:9465\"\n"),
              ElementsAre(StartsWith("FILE: node.replication_advertise: is missing")));
  EXPECT_THAT(problems(cluster + "replication_listen=\"0.0.0.0:0\"\nreplication_advertise=\"10.0.0.1:0\"\n"),
              IsEmpty());
  EXPECT_THAT(
      problems(cluster + "replication_listen=\"[::]:9465\"\nreplication_advertise=\"[fe80::1]:9465\"\n"),
      IsEmpty());
}

// Otherwise the daemon would find out when it has opened its log.
TEST_F(ConfigTest, RefusesWhatAClusterWouldRefuse) {
  const std::string rest = "[replication]\nplain=true\n[node]\nid=1\nreplication_listen=\"10.0.0.1:9465\"\n";
  const auto of_cluster = [&](const std::string& name, const std::string& more = {}) {
    return problems(rest + "[cluster]\nname=\"" + name + "\"\netcd=[\"http://e:1\"]\n" + more);
  };
  EXPECT_THAT(of_cluster(std::string(200, 'a')), IsEmpty());
  for (const std::string& name : {std::string(201, 'a'), std::string("."), std::string("..")})
    EXPECT_THAT(of_cluster(name),
                ElementsAre(AllOf(StartsWith("FILE:7: cluster.name: "), HasSubstr("200 characters"))));
  const std::string certificate = "certificate=\"" + pem("certificate") + "\"\nkey=\"" + pem("key") + "\"\n";
  EXPECT_THAT(of_cluster("a", certificate),
              ElementsAre(AllOf(StartsWith("FILE:8: cluster.etcd: "), HasSubstr("without TLS"),
                                HasSubstr("write https://"))));
  EXPECT_THAT(problems(rest + "rack=\"" + std::string(256, 'r') +
                       "\"\n[cluster]\nname=\"a\"\netcd=[\"https://e:1\"]\n" + certificate),
              ElementsAre(StartsWith("FILE:6: node.rack: has more than 255 bytes")));
}

TEST_F(ConfigTest, LooksAtTheFilesItNames) {
  const std::string open = pem("open-key", std::filesystem::perms(0644));
  EXPECT_THAT(
      problems("[replication]\ncertificate = \"/nowhere/cert.pem\"\nkey = \"" + open +
               "\"\n[logging]\nfile = \"/nowhere/log\"\n"),
      ElementsAre(AllOf(StartsWith("FILE:2: replication.certificate: "), HasSubstr("'/nowhere/cert.pem'")),
                  AllOf(StartsWith("FILE:3: replication.key: "), HasSubstr("chmod o= ")),
                  AllOf(StartsWith("FILE:5: logging.file: "), HasSubstr("'/nowhere'"))));
}

TEST_F(ConfigTest, NeverShowsAPassword) {
  const auto lines = problems("[cluster]\netcd = [\"http://root:hunter2@10.0.0.1:2379\"]\n");
  EXPECT_THAT(lines,
              Contains(AllOf(StartsWith("FILE:2: cluster.etcd: "), HasSubstr("cluster.password_file"))));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("hunter2"))));
}

TEST_F(ConfigTest, WhatIsNoTomlIsNamedWithItsLine) {
  EXPECT_THAT(problems("[log]\ndir = \n"), ElementsAre(HasSubstr("line 2")));
  const LoadedConfig missing = load_config(dir_ / "none.toml", {});
  ASSERT_EQ(missing.problems.size(), 1u);
  EXPECT_THAT(to_string(missing.problems[0]), AllOf(HasSubstr("none.toml"), HasSubstr("--config")));
}

// Root may read everything, so links in a circle stand for what may not be read.
TEST_F(ConfigTest, AFileThatCannotBeReadIsNotMissing) {
  EXPECT_TRUE(is_missing(file()));
  std::filesystem::create_symlink(file(), file());
  EXPECT_FALSE(is_missing(file()));
  EXPECT_THAT(problems(""),
              ElementsAre(AllOf(StartsWith("FILE: "), HasSubstr("symbolic links; make it a file"),
                                HasSubstr("--config"))));
  std::filesystem::remove(file());
  EXPECT_THAT(problems(""), IsEmpty());
  EXPECT_FALSE(is_missing(file()));
  EXPECT_TRUE(is_missing(file() / "below"));
}

TEST_F(ConfigTest, OverridesWinAndTheirMistakesNameTheOption) {
  const LoadedConfig loaded =
      load("[log]\ndir = \"/a\"\nkeeper_cpu = \"x\"\n", {{"log.dir", "/b"},
                                                         {"log.keeper_cpu", "0"},
                                                         {"http.allow_remote", "true"},
                                                         {"replication.throttle", "1MB"},
                                                         {"log.dir", "/c", "--dir"}});
  EXPECT_THAT(loaded.problems, IsEmpty());
  EXPECT_EQ(loaded.config.log.dir, "/c");
  EXPECT_EQ(loaded.config.log.keeper_cpu, 0);
  EXPECT_TRUE(loaded.config.http.allow_remote);
  EXPECT_EQ(loaded.config.replication.throttle, 1'000'000);
  EXPECT_THAT(
      problems("", {{"http.lisen", "x"}, {"http.listen", "nowhere"}, {"log.dir", "relative", "--dir"}}),
      ElementsAre(AllOf(StartsWith("--set http.lisen: "), HasSubstr("'listen'")),
                  AllOf(StartsWith("--set http.listen: "), HasSubstr("no port")),
                  AllOf(StartsWith("--dir: "), HasSubstr("from the root"))));
}

TEST_F(ConfigTest, AnOverrideMayTakeAnAddressAway) {
  const LoadedConfig loaded =
      load("[node]\nreplication_advertise = \"a:1\"\n", {{"node.replication_advertise", ""}});
  EXPECT_THAT(loaded.problems, IsEmpty());
  EXPECT_FALSE(loaded.config.node.replication_advertise);
}

TEST_F(ConfigTest, WhatIsShownIsReadBack) {
  const LoadedConfig first =
      load("[http]\nlisten = \"[::1]:0\"\n[replication]\nspin = \"1500us\"\nthrottle = 5\n");
  ASSERT_THAT(first.problems, IsEmpty());
  const std::string shown = to_toml(first.config);
  const LoadedConfig again = load(shown);
  EXPECT_THAT(again.problems, IsEmpty());
  EXPECT_THAT(changed_settings(first.config, again.config), IsEmpty());
  EXPECT_EQ(to_toml(again.config), shown);
  EXPECT_EQ(to_json(again.config)["replication"]["spin"], "1500us");
}

TEST_F(ConfigTest, KnowsWhatHasChangedAndWhatReloads) {
  const Config before = load("").config;
  const Config after = load("[logging]\nlevel=\"debug\"\n[log]\nkeeper_cpu=0\n").config;
  EXPECT_THAT(changed_settings(before, after), ElementsAre("log.keeper_cpu", "logging.level"));
  for (const SettingInfo& setting : config_reference()) {
    const bool certificates = setting.table == "replication" &&
                              (setting.key == "ca" || setting.key == "certificate" || setting.key == "key");
    const bool expected =
        setting.table == "logging" || setting.table == "http" || setting.key == "throttle" || certificates;
    EXPECT_EQ(setting.reloads, expected) << setting.table << '.' << setting.key;
  }
}

// The lines of the file in the installation that are settings behind a '#'.
TEST_F(ConfigTest, TheExampleHasEverySettingWithItsDefault) {
  std::string content =
      testing::get_file(std::filesystem::path(RINGTAIL_SOURCE_DIR) / "daemon/ringtaild.toml");
  EXPECT_THAT(load(content).problems, IsEmpty());
  EXPECT_THAT(changed_settings(Config{}, load(content).config), IsEmpty());
  std::istringstream lines(content);
  std::string table;
  std::vector<std::string> found;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# [")) line = line.substr(2);
    if (line.starts_with("[")) table = line.substr(1, line.find(']') - 1);
    const std::size_t equals = line.find(" = ");
    if (line.starts_with("# ") && equals != std::string::npos && line.find(' ', 2) == equals)
      found.push_back(table + "." + line.substr(2, equals - 2));
  }
  std::vector<std::string> expected;
  for (const SettingInfo& setting : config_reference()) expected.push_back(setting.table + "." + setting.key);
  EXPECT_THAT(found, ::testing::UnorderedElementsAreArray(expected));
}

TEST_F(ConfigTest, TheDocumentationHasEverySetting) {
  const std::string text = testing::get_file(std::filesystem::path(RINGTAIL_SOURCE_DIR) / "docs/daemon.md");
  for (const SettingInfo& setting : config_reference())
    EXPECT_THAT(text, HasSubstr("`" + setting.table + "." + setting.key + "`"));
}

TEST_F(ConfigTest, EndpointsAreHostAndPort) {
  for (const char* good : {"127.0.0.1:1", "localhost:65535", "[::1]:0", "node-1.example.org:9465"}) {
    const auto parsed = parse_endpoint(good);
    ASSERT_TRUE(parsed) << good;
    EXPECT_EQ(to_string(*parsed), good);
  }
  for (const char* bad : {"", "localhost", ":1", "a:65536", "a:-1", "a:x", "[zz]:1", "::1:9464", "a b:1"})
    EXPECT_FALSE(parse_endpoint(bad)) << bad;
  EXPECT_TRUE(is_loopback({"127.3.2.1", 1}));
  EXPECT_TRUE(is_loopback({"::1", 1}));
  EXPECT_FALSE(is_loopback({"10.0.0.1", 1}));
  EXPECT_FALSE(is_loopback({"0.0.0.0", 1}));
  EXPECT_FALSE(is_loopback({"127.example.org", 1}));
}

}  // namespace
}  // namespace ringtail::daemon
