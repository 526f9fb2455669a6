// The daemon's unit: how much it leaves open by systemd's own count, and that the daemon can do all of its work
// within it, as a user of its own.
#include <sys/stat.h>
#include <unistd.h>

#include "integration/daemon.h"
#include "io/backend.h"

namespace ringtail::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uid_t kUser = 40010;
constexpr gid_t kTeam = 50010;  // which the user is in beside his own

// The unit, with programs that are there, for systemd looks.
std::string usable_unit(std::string unit) {
  for (const char* key : {"ExecStart=", "ExecReload="}) {
    const std::size_t at = unit.find(key);
    unit.replace(at, unit.find('\n', at) - at, std::string(key) + "/bin/true");
  }
  return unit;
}

class SandboxTest : public DaemonTest {};

TEST_F(SandboxTest, TheUnitLeavesLittleOpen) {
  if (run_command({"sh", "-c", "command -v systemd-analyze"}).exit_code != 0)
    GTEST_SKIP() << "there is no systemd-analyze; install systemd";
  const auto unit = write_file("ringtaild.service", usable_unit(read_file(RINGTAILD_UNIT)));
  // Of 10.0, which is everything; in tenths.
  const CommandResult result = run_command(
      {"systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", unit.string()});
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  EXPECT_THAT(result.out, HasSubstr("Overall exposure level"));
}

#ifdef SANDBOXED_BINARY

// The daemon of a user of its own, in its unit's sandbox.
class SandboxedDaemonTest : public SandboxTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can start it as another user";
    if (run_command({"sh", "-c", "command -v systemd-analyze"}).exit_code != 0)
      GTEST_SKIP() << "there is no systemd-analyze; install systemd";
    ASSERT_EQ(::chown(directory().c_str(), kUser, kUser), 0);
    ASSERT_EQ(::chmod(directory().c_str(), 0755), 0);
    configure();
  }
  static std::string user_and_group() { return std::to_string(kUser) + ":" + std::to_string(kTeam); }
  void start_sandboxed() {
    std::vector<std::string> line = {SANDBOXED_BINARY, RINGTAILD_UNIT, user_and_group()};
    for (const std::string& word : daemon_line()) line.push_back(word);
    daemon_.emplace(line);
    find_port();
    ASSERT_TRUE(wait_until([this] { return get("/readyz").status == 200; })) << read_file(log_file());
  }
  std::filesystem::path shared_memory() const {
    const std::string identity = read_file(log_dir() / "ringtail.toml");
    const std::size_t at = identity.find("log_id = \"") + 10;
    return "/dev/shm/ringtail-" + identity.substr(at, identity.find('"', at) - at);
  }
  static void expect_shared(const std::filesystem::path& path, mode_t mode) {
    struct stat status{};
    ASSERT_EQ(::stat(path.c_str(), &status), 0) << path;
    EXPECT_EQ(status.st_mode & 0777, mode) << path;
    EXPECT_EQ(status.st_gid, kTeam) << path;
  }
  // All that lies there belongs to the daemon's user, and to nobody else.
  static void expect_private(const std::filesystem::path& dir) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
      struct stat status{};
      ASSERT_EQ(::lstat(entry.path().c_str(), &status), 0);
      EXPECT_EQ(status.st_uid, kUser) << entry.path();
      EXPECT_EQ(status.st_mode & 077, 0u) << entry.path();
    }
  }
};

TEST_F(SandboxedDaemonTest, DoesAllItsWork) {
  start_sandboxed();
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"produce", "orders", "--durable"}, "one\ntwo\nthree\n");
  EXPECT_EQ(lines_of(consume_all("orders")).size(), 3u);
  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end"});
  EXPECT_THAT(get("/metrics").body, HasSubstr("ringtail_"));
  // It is as of the latest look, up to a second ago.
  EXPECT_TRUE(wait_until([this] { return get("/api/state").body.find("billing") != std::string::npos; }));
  daemon_->signal(SIGHUP);
  wait_for_line("configuration");
  expect_private(log_dir());
  EXPECT_EQ(stop().exit_code, 0) << read_file(log_file());
  const std::string log = read_file(log_file());
  EXPECT_THAT(log, Not(HasSubstr("not permitted")));
  // Where this machine lets anybody have io_uring, the sandbox does, too.
  if (io::make_backend(IoBackend::io_uring, 4)) {
    EXPECT_THAT(log, Not(HasSubstr("pwrite")));
  }
}

TEST_F(SandboxedDaemonTest, KeepsALogThatIsSharedWithAGroup) {
  ASSERT_EQ(::mkdir(log_dir().c_str(), 0700), 0);
  ASSERT_EQ(::chown(log_dir().c_str(), kUser, kTeam), 0);
  ASSERT_EQ(::chmod(log_dir().c_str(), 02770), 0);
  start_sandboxed();
  run_ok({"topic", "create", "orders"});
  run_ok({"produce", "orders", "--durable"}, "one\n");
  EXPECT_EQ(stop().exit_code, 0) << read_file(log_file());
  expect_shared(log_dir() / "topics/orders/0", 0770);
  expect_shared(log_dir() / "keeper.lock", 0660);
  expect_shared(shared_memory(), 0770);
  expect_shared(shared_memory() / "control", 0660);
  expect_shared(shared_memory() / "orders-0.ring", 0660);
}

#else

TEST_F(SandboxTest, DoesAllItsWork) { GTEST_SKIP() << "built without libseccomp; install libseccomp-dev"; }

#endif

}  // namespace
}  // namespace ringtail::test
