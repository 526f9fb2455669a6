// ringtaild's configuration: what --check finds, and what SIGHUP reloads.
#include "integration/daemon.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(DaemonTest, CheckNamesEveryMistakeWithItsLine) {
  const std::string file =
      write_file("bad.toml", "[log]\nio = \"fast\"\n[http]\nlisen = \"x\"\nlisten = \"0.0.0.0:1\"\n")
          .string();
  for (const bool checks : {true, false}) {
    std::vector<std::string> line = {RINGTAILD_BINARY, "--config", file, "--set", "node.id=70000"};
    if (checks) line.emplace_back("--check");
    const CommandResult result = run_command(line);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err,
                AllOf(StartsWith("ringtaild: " + file + ":2: log.io: \"fast\""),
                      HasSubstr(file + ":4: http.lisen: there is no such setting; did you mean 'listen'?"),
                      HasSubstr(file + ":5: http.listen: 0.0.0.0:1"),
                      HasSubstr("--set node.id: 70000 is out of range")));
  }
  const CommandResult as_json = run_command({RINGTAILD_BINARY, "--config", file, "--check", "--json"});
  EXPECT_EQ(as_json.exit_code, 2);
  const json answer = json::parse(as_json.out);
  EXPECT_EQ(answer["ok"], false);
  EXPECT_EQ(answer["problems"].size(), 3u);
  EXPECT_EQ(answer["problems"][0]["where"], file + ":2");
}

TEST_F(DaemonTest, AMistakeOfTheCommandLineIsSaidAsAnyOther) {
  const CommandResult text = run_command({RINGTAILD_BINARY, "--bogus"});
  EXPECT_EQ(text.exit_code, 2);
  EXPECT_THAT(text.err,
              AllOf(StartsWith("ringtaild: "), HasSubstr("--bogus"), HasSubstr("see `ringtaild --help`")));
  const CommandResult as_json = run_command({RINGTAILD_BINARY, "--json", "--bogus"});
  EXPECT_EQ(as_json.exit_code, 2);
  EXPECT_EQ(as_json.err, "");
  const json answer = json::parse(as_json.out, nullptr, false);
  ASSERT_FALSE(answer.is_discarded()) << as_json.out;
  EXPECT_EQ(answer["ok"], false);
}

TEST_F(DaemonTest, CheckRefusesWhatThisHostDoesNotHave) {
  const std::string file = write_file("file", "").string();
  const CommandResult result =
      run_command({RINGTAILD_BINARY, "--check", "--set", "log.keeper_cpu=999", "--dir", file});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("--dir: log.dir: \"" + file + "\" is no directory"),
                                HasSubstr("--set log.keeper_cpu: this host has no CPU 999")));
}

TEST_F(DaemonTest, BytesThatAreNotUtf8AreShownAsFarAsTheyCan) {
  const std::string shown = "/tmp/rt\xef\xbf\xbd";
  const CommandResult text = run_command({RINGTAILD_BINARY, "--check", "--dir", "/tmp/rt\xff"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("dir = \"" + shown + "\"\n"));
  const CommandResult as_json = run_command({RINGTAILD_BINARY, "--check", "--json", "--dir", "/tmp/rt\xff"});
  EXPECT_EQ(as_json.exit_code, 0) << as_json.err;
  const json answer = json::parse(as_json.out, nullptr, false);
  ASSERT_FALSE(answer.is_discarded()) << as_json.out;
  EXPECT_EQ(answer["config"]["log"]["dir"], shown);
  for (const char* set : {"logging.level=\xff", "log.keeper_cpu=\xff"}) {
    const CommandResult refused = run_command({RINGTAILD_BINARY, "--check", "--set", set});
    EXPECT_EQ(refused.exit_code, 2) << set;
    EXPECT_THAT(refused.err, HasSubstr(": \"\xef\xbf\xbd\" is n")) << set;
  }
}

TEST_F(DaemonTest, APathThatIsEmptyIsRefused) {
  for (const char* option : {"--dir", "--config"}) {
    for (const bool checks : {true, false}) {
      std::vector<std::string> line = {RINGTAILD_BINARY, option, ""};
      if (checks) line.emplace_back("--check");
      const CommandResult result = run_command(line);
      EXPECT_EQ(result.exit_code, 2) << option;
      EXPECT_THAT(result.err, HasSubstr(std::string(option) + ": a path is required")) << option;
    }
  }
}

TEST_F(DaemonTest, WhereThereIsNoWorkingDirectoryARelativePathIsRefused) {
  const auto check = [this](const std::string& dir) {
    return run_command({"sh", "-c",
                        "mkdir \"$1\" && cd \"$1\" && rmdir \"$1\" && exec \"$2\" --check --dir \"$3\"", "sh",
                        (directory() / "gone").string(), RINGTAILD_BINARY, dir});
  };
  const CommandResult result = check("foo");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err,
              HasSubstr("--dir: log.dir: \"foo\" depends on where the daemon is started; write it"));
  EXPECT_EQ(check(log_dir().string()).exit_code, 0);
}

TEST_F(DaemonTest, CheckPrintsWhatIsInEffect) {
  configure("[log]\nkeeper_cpu = 0\n");
  const CommandResult result = run_command(daemon_line({"--check", "--set", "logging.level=debug"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("dir = \"" + log_dir().string() + "\"\n"), HasSubstr("keeper_cpu = 0\n"),
                    HasSubstr("level = \"debug\"\n"), Not(HasSubstr("[cluster]"))));
  EXPECT_FALSE(std::filesystem::exists(log_dir()));
  const json answer = json::parse(run_command(daemon_line({"--check", "--json"})).out);
  EXPECT_EQ(answer["ok"], true);
  EXPECT_EQ(answer["config"]["log"]["keeper_cpu"], 0);
  EXPECT_THAT(run_command({RINGTAILD_BINARY, "--version"}).out, StartsWith("ringtaild "));
  EXPECT_EQ(run_command({RINGTAILD_BINARY, "--set", "nothing"}).exit_code, 2);
}

TEST_F(DaemonTest, HangUpReloadsWhatItCanAndNamesWhatItCannot) {
  start();
  configure("level = \"debug\"\n[log]\nkeeper_cpu = 0\n", "localhost:0");
  daemon_->signal(SIGHUP);
  wait_for_line("log.keeper_cpu has changed; that takes effect when the daemon is started anew");
  wait_for_line("http.listen has changed");
  wait_for_line("logging.level has changed");
  find_port();
  wait_for_line("the configuration has been read");
  EXPECT_EQ(get("/readyz").status, 200);

  write_file("ringtaild.toml", "[http]\nlisten = 5\n");
  daemon_->signal(SIGHUP);
  wait_for_line(config_file().string() + ":2: http.listen: 5 is no address");
  wait_for_line("the configuration stays as it was");
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonTest, HangUpOpensTheLogFileAnew) {
  start();
  std::filesystem::rename(log_file(), directory() / "daemon.log.1");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(wait_until([this] { return std::filesystem::exists(log_file()); }));
  EXPECT_EQ(stop().exit_code, 0);
  EXPECT_THAT(read_file(log_file()), HasSubstr("ended"));
}

TEST_F(DaemonTest, HangUpOpensTheLogFileAnewThoughTheConfigurationIsWrong) {
  start();
  std::filesystem::rename(log_file(), directory() / "daemon.log.1");
  configure("[nonsense]\n");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(wait_until([this] {
    return read_file(log_file()).find("the configuration stays as it was") != std::string::npos;
  }));
  EXPECT_THAT(read_file(log_file()), HasSubstr("nonsense"));
  EXPECT_EQ(stop().exit_code, 0);
}

// The daemon without --config, on an /etc of its own, where the test's directory is /etc/ringtail.
class UsualFileTest : public DaemonTest {
 protected:
  void SetUp() override {
    if (run_command({"unshare", "-m", "true"}).exit_code != 0) GTEST_SKIP() << "no mount namespace here";
  }
  std::vector<std::string> line(const std::vector<std::string>& more) const {
    std::vector<std::string> line = {"unshare",
                                     "-m",
                                     "sh",
                                     "-c",
                                     "mount -t tmpfs tmpfs /etc && mkdir /etc/ringtail && "
                                     "mount --bind \"$1\" /etc/ringtail && shift && exec \"$@\"",
                                     "sh",
                                     directory().string(),
                                     RINGTAILD_BINARY};
    line.insert(line.end(), more.begin(), more.end());
    return line;
  }
  // Root may read everything, so links in a circle stand for what may not be read.
  void make_unreadable() const { std::filesystem::create_symlink(config_file().filename(), config_file()); }
  static constexpr const char* kRefused =
      "/etc/ringtail/ringtaild.toml: cannot open '/etc/ringtail/ringtaild.toml': Too many levels of symbolic "
      "links; make it a file that this user can read, or name another with --config";
};

TEST_F(UsualFileTest, IsPassedOverWhereThereIsNoneAndNotWhereItCannotBeRead) {
  EXPECT_EQ(run_command(line({"--check"})).exit_code, 0);
  make_unreadable();
  for (const bool checks : {true, false}) {
    std::vector<std::string> more = {"--dir", log_dir().string()};
    if (checks) more.emplace_back("--check");
    const CommandResult result = run_command(line(more));
    ASSERT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(result.err, std::string("ringtaild: ") + kRefused + "\n");
  }
}

TEST_F(UsualFileTest, IsReadAtHangUpThoughItWasNotThereBefore) {
  daemon_.emplace(line({"--dir", log_dir().string(), "--set", "http.listen=127.0.0.1:0", "--set",
                        "logging.file=" + log_file().string()}));
  find_port();
  ASSERT_TRUE(wait_until([this] { return get("/readyz").status == 200; })) << read_file(log_file());
  make_unreadable();
  daemon_->signal(SIGHUP);
  wait_for_line(kRefused);
  wait_for_line("the configuration stays as it was");

  std::filesystem::remove(config_file());
  write_file("ringtaild.toml", "[logging]\nlevel = \"debug\"\n");
  daemon_->signal(SIGHUP);
  wait_for_line("logging.level has changed");
  EXPECT_EQ(stop().exit_code, 0);
}

}  // namespace
}  // namespace ringtail::test
