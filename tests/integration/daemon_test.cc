// ringtaild: from its start to its end, and what it answers meanwhile.
#include "integration/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <regex>

#include "integration/notify_socket.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Optional;
using ::testing::StartsWith;

TEST_F(DaemonTest, KeepsTheLogAndShowsWhatItHolds) {
  start();
  EXPECT_EQ(get("/healthz").body, "ok; this process keeps the log\n");
  EXPECT_EQ(get("/readyz").body, "ready; one host\n");
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"produce", "orders", "--partition", "1", "--durable"}, "one\ntwo\nthree\n");
  const std::string labels = "{topic=\"orders\",partition=\"1\"}";
  EXPECT_THAT(metric("ringtail_partition_records_total" + labels), Optional(3));
  EXPECT_THAT(metric("ringtail_partition_durable_offset" + labels), Optional(3));
  EXPECT_THAT(metric("ringtail_partition_durable_lag_records" + labels), Optional(0));
  EXPECT_THAT(metric("ringtail_partition_records_total{topic=\"orders\",partition=\"0\"}"), Optional(0));
  EXPECT_THAT(metric("ringtail_keeper_here"), Optional(1));
  EXPECT_THAT(metric("ringtail_keeper_pid"), Optional(daemon_->pid()));
  EXPECT_GE(metric("ringtail_flush_sync_seconds_count"), 1);

  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end"});
  run_ok({"produce", "orders", "--partition", "1"}, "four\n");
  EXPECT_THAT(metric("ringtail_group_lag_records{group=\"billing\",topic=\"orders\",partition=\"1\"}"),
              Optional(1));

  ASSERT_TRUE(wait_until([this] {
    const json state = json::parse(get("/api/state").body);
    return state["history"].size() > 1 && state["topics"].size() > 1;
  }));
  const json state = json::parse(get("/api/state").body);
  EXPECT_EQ(state["log"]["dir"], log_dir().string());
  EXPECT_EQ(state["keeper"]["pid"], daemon_->pid());
  EXPECT_FALSE(state.contains("cluster"));

  EXPECT_EQ(stop().exit_code, 0);
  EXPECT_EQ(consume_all("orders"), "one\ntwo\nthree\nfour\n");
}

// Of replication there are none yet to compare with.
TEST_F(DaemonTest, RulesAndChartsNameMetricsThatThereAre) {
  start();
  run_ok({"topic", "create", "orders"});
  run_ok({"produce", "orders"}, "one\n");
  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end"});
  const std::string metrics = get("/metrics").body;
  const std::regex name("ringtail_(?!replica_|node_)[a-z_]*[a-z]");
  for (const char* file : {"docs/alerts.yml", "docs/grafana.json"}) {
    const std::string text = read_file(std::filesystem::path(RINGTAIL_SOURCE_DIR) / file);
    std::sregex_iterator found(text.begin(), text.end(), name);
    EXPECT_NE(found, std::sregex_iterator());
    for (; found != std::sregex_iterator(); ++found)
      EXPECT_TRUE(metrics.find("\n" + found->str() + "{") != std::string::npos ||
                  metrics.find("\n" + found->str() + " ") != std::string::npos)
          << file << ": " << found->str();
  }
}

TEST_F(DaemonTest, OneDaemonADirectory) {
  start();
  const CommandResult second = run_command(daemon_line({"--set", "logging.file="}));
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr("pid " + std::to_string(daemon_->pid()) + " is a ringtaild of '" +
                                    log_dir().string() + "' already"));
  EXPECT_EQ(get("/readyz").status, 200);
}

TEST_F(DaemonTest, APortInUseIsSaidAndNothingIsOpened) {
  start();
  const std::string other = (directory() / "other").string();
  const CommandResult second = run_command(
      {RINGTAILD_BINARY, "--dir", other, "--set", "http.listen=127.0.0.1:" + std::to_string(port_)});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, AllOf(HasSubstr("cannot listen on 127.0.0.1 port " + std::to_string(port_)),
                                HasSubstr("http.listen")));
  EXPECT_FALSE(std::filesystem::exists(other));
}

TEST_F(DaemonTest, MessagesAndResultsThatCannotBeWrittenChangeNoExitCodeButTheirOwn) {
  const auto run_with = [this](const std::string& redirection, std::vector<std::string> more) {
    std::vector<std::string> line = daemon_line(std::move(more));
    line.insert(line.begin(), {"sh", "-c", "exec \"$@\" " + redirection, "sh"});
    return run_command(line);
  };
  configure();
  EXPECT_EQ(run_with("2>/dev/full", {"--set", "foo=1"}).exit_code, 2);
  EXPECT_EQ(run_with("2>&-", {"--bogus"}).exit_code, 2);
  for (const char* how : {"--check", "--help"}) {
    const CommandResult closed = run_with(">&-", {how});
    EXPECT_EQ(closed.exit_code, 1);
    EXPECT_THAT(closed.err, HasSubstr("cannot write to standard output: Bad file descriptor"));
  }
}

TEST_F(DaemonTest, OfClosedStreamsNoFileOfTheLogTakesTheNumber) {
  configure();
  std::vector<std::string> line = daemon_line({"--set", "logging.file="});
  line.insert(line.begin(), {"sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"});
  Command daemon(line);
  const auto pid_in_lock = [this] { return read_file(log_dir() / "daemon.lock"); };
  ASSERT_TRUE(wait_until([&] { return pid_in_lock() == std::to_string(daemon.pid()) + "\n"; }));
  ASSERT_TRUE(wait_until([this] { return std::filesystem::exists(log_dir() / "ringtail.toml"); }));
  for (const int fd : {0, 1, 2}) {
    const std::string link = "/proc/" + std::to_string(daemon.pid()) + "/fd/" + std::to_string(fd);
    EXPECT_EQ(std::filesystem::read_symlink(link), "/dev/null") << fd;
  }
  daemon.signal(SIGTERM);
  EXPECT_EQ(daemon.wait().exit_code, 0);
  EXPECT_EQ(lines_of(pid_in_lock()).size(), 1u) << pid_in_lock();
}

TEST_F(DaemonTest, ASignalEndsACreationWhileTheKeeperStandsStillAndSaysWhatThereIs) {
  start();
  daemon_->signal(SIGSTOP);
  Command creation(command_line({"topic", "create", "t", "--partitions", "2", "--config", "term.bytes=65536",
                                 "--config", "ring.terms=4"}),
                   environment());
  ASSERT_TRUE(wait_until([this] { return std::filesystem::exists(log_dir() / "topics/t/topic.toml"); }));
  creation.signal(SIGTERM);
  const CommandResult result = creation.wait();
  EXPECT_EQ(result.exit_code, 143);
  EXPECT_THAT(result.err, HasSubstr("interrupted: topic 't' exists, with all of its partitions"));
  daemon_->signal(SIGCONT);
  EXPECT_THAT(run_ok({"topic", "describe", "t"}), StartsWith("topic 't': 2 partitions\n"));
  run_ok({"produce", "t"}, "x\n");
}

// Somebody has the keeper's role, and has not recovered the log.
TEST_F(DaemonTest, ASignalEndsACreationThatWaitsForRecoveryAndNothingIsLeft) {
  run_ok({"topic", "create", "a", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  remove_shared_memory();
  const int lock = ::open((log_dir() / "keeper.lock").c_str(), O_RDWR | O_CLOEXEC);
  struct flock request{};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  request.l_len = 1;
  ASSERT_EQ(::fcntl(lock, F_OFD_SETLK, &request), 0);
  Command creation(command_line({"topic", "create", "t", "--json"}), environment());
  const auto maps = [&] { return read_file("/proc/" + std::to_string(creation.pid()) + "/maps"); };
  ASSERT_TRUE(wait_until([&] { return maps().find("/dev/shm/ringtail-") != std::string::npos; }));
  creation.signal(SIGINT);
  const CommandResult result = creation.wait();
  ::close(lock);
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(notes_of(result.err), ElementsAre("interrupted: nothing of topic 't' was created"));
  EXPECT_EQ(run_ok({"topic", "list"}), "a\n");
}

TEST_F(DaemonTest, ALogDirectoryThatWasRemovedIsNotHealthyAndNothingIsSaidToBeOnDisk) {
  start();
  run_ok({"topic", "create", "t", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  std::filesystem::rename(log_dir(), directory() / "elsewhere");  // where the fixture finds its shared memory
  for (const char* path : {"/healthz", "/readyz"}) {
    const httplib::Response answer = get(path);
    EXPECT_EQ(answer.status, 503) << path;
    EXPECT_THAT(answer.body, HasSubstr("the log directory '" + log_dir().string() + "' was removed"));
  }
  EXPECT_EQ(stop().exit_code, 1);
  EXPECT_THAT(read_file(log_file()), AllOf(HasSubstr("was removed or replaced while this daemon kept it"),
                                           Not(HasSubstr("what was committed is on disk"))));
}

TEST_F(DaemonTest, WhatCannotComeToTheDiskIsNotSaidToBeThere) {
  const auto before = ::signal(SIGXFSZ, SIG_IGN);  // the daemon inherits it
  configure("[log]\nio = \"pwrite\"\n");
  start();
  ::signal(SIGXFSZ, before);
  run_ok({"topic", "create", "t"});
  run_ok({"produce", "t", "--durable"}, "on disk\n");
  constexpr ::rlimit kWithinTheFirstBlock{8'000, 8'000};
  ASSERT_EQ(::prlimit(daemon_->pid(), RLIMIT_FSIZE, &kWithinTheFirstBlock, nullptr), 0);
  run_ok({"produce", "t"}, "in memory alone\n");
  wait_for_line("t-0: storage_failed");
  EXPECT_EQ(stop().exit_code, 1);
  EXPECT_THAT(read_file(log_file()), AllOf(HasSubstr("not all that was committed to t-0 is on disk"),
                                           Not(HasSubstr("what was committed is on disk"))));
}

TEST_F(DaemonTest, WritesJsonLinesWhenToldTo) {
  configure("format = \"json\"\n");
  start();
  run_ok({"topic", "create", "orders"});
  EXPECT_EQ(stop().exit_code, 0);
  const auto lines = lines_of(read_file(log_file()));
  ASSERT_GE(lines.size(), 4u);
  for (const std::string& line : lines) {
    const json object = json::parse(line, nullptr, false);
    ASSERT_FALSE(object.is_discarded()) << line;
    EXPECT_TRUE(object["time"].is_string() && object["level"].is_string() && object["message"].is_string());
  }
}

TEST_F(DaemonTest, AProducerGoesOnWhileTheDaemonIsKilledAndStartedAnew) {
  start();
  run_ok({"topic", "create", "orders"});
  Command producer(command_line({"produce", "orders", "--durable"}), environment());
  const auto offset = [this] {
    return metric("ringtail_partition_durable_offset{topic=\"orders\",partition=\"0\"}");
  };
  producer.write("one\n");
  ASSERT_TRUE(wait_until([&] { return offset() == 1; }));

  daemon_->signal(SIGKILL);
  EXPECT_EQ(daemon_->wait().exit_code, 137);
  producer.write("two\n");
  start();
  wait_for_line("standing by until it ends");
  EXPECT_EQ(get("/healthz").body, "ok; pid " + std::to_string(producer.pid()) + " keeps the log\n");
  producer.write("three\n");
  ASSERT_TRUE(wait_until([&] { return offset() == 3; }));
  EXPECT_THAT(metric("ringtail_keeper_here"), Optional(0));

  EXPECT_EQ(producer.wait().exit_code, 0);
  wait_for_line("this process keeps the log");
  EXPECT_EQ(stop().exit_code, 0);
  EXPECT_EQ(consume_all("orders"), "one\ntwo\nthree\n");
}

TEST_F(DaemonTest, AKeeperThatFailsIsTriedAgainAndTheEndDoesNotSayThatAllIsOnDisk) {
  run_ok({"topic", "create", "orders"});
  run_ok({"topic", "create", "damaged"});
  const std::filesystem::path file = log_dir() / "topics" / "damaged" / "topic.toml";
  const std::filesystem::path kept = directory() / "kept.toml";
  const std::string of_the_file = "corrupt: '" + file.string() + "'";
  std::string sent;
  for (const bool is_mended : {true, false}) {
    Command producer(command_line({"produce", "orders", "--durable"}), environment());
    producer.write("one\n");
    sent += "one\n";
    ASSERT_TRUE(wait_until([&] { return consume_all("orders") == sent; }));
    start();
    wait_for_line("standing by until it ends");
    std::filesystem::rename(file, kept);
    std::ofstream(file) << "?";
    producer.signal(SIGKILL);
    wait_for_line("cannot be kept: " + of_the_file);
    EXPECT_EQ(get("/healthz").status, 503);
    EXPECT_THAT(get("/healthz").body, HasSubstr(of_the_file));
    EXPECT_EQ(producer.wait().exit_code, 137);
    if (is_mended) {
      std::filesystem::rename(kept, file);
      wait_for_line("this process keeps the log");
      EXPECT_EQ(get("/healthz").status, 200);
      EXPECT_EQ(stop().exit_code, 0);
    } else {
      EXPECT_EQ(stop().exit_code, 1);
      wait_for_line("ended; nobody keeps the log in " + log_dir().string() + ": " + of_the_file);
      std::filesystem::rename(kept, file);
    }
  }
  EXPECT_EQ(consume_all("orders"), sent);
}

// A client whose request does not come to its end.
class SlowRequestTest : public DaemonTest {
 protected:
  ~SlowRequestTest() override { ::close(connection_); }

  void begin_request() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(connection_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    go_on("GET /");
    ASSERT_EQ(get("/healthz").status, 200);  // the other was accepted before
  }
  void go_on(std::string_view bytes) const { ::send(connection_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // Goes on, a byte at a time, until it is done; within a bound against hanging.
  bool go_on_until(const std::function<bool()>& done) const {
    for (int i = 0; i < 300; ++i) {
      if (done()) return true;
      go_on("x");
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    return false;
  }
  bool has_ended() const {
    siginfo_t ended{};
    return ::waitid(P_PID, static_cast<id_t>(daemon_->pid()), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ended.si_pid != 0;
  }

  const int connection_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

TEST_F(SlowRequestTest, DoesNotHoldTheDaemonThatIsToEnd) {
  start();
  run_ok({"topic", "create", "orders"});
  run_ok({"produce", "orders"}, "one\n");
  begin_request();
  daemon_->signal(SIGTERM);
  ASSERT_TRUE(go_on_until([this] { return has_ended(); }));
  EXPECT_EQ(daemon_->wait().exit_code, 0);
  EXPECT_THAT(read_file(log_file()), HasSubstr("what was committed is on disk"));
  EXPECT_EQ(consume_all("orders"), "one\n");
}

TEST_F(SlowRequestTest, DoesNotHoldAReload) {
  start();
  begin_request();
  configure({}, "localhost:0");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(go_on_until([this] {
    return read_file(log_file()).find("the configuration has been read") != std::string::npos;
  })) << read_file(log_file());
  find_port();
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonTest, TellsSystemdWhatItIsDoing) {
  const std::string path = (directory() / "notify").string();
  NotifySocket systemd(path);
  start({}, {"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=100000"});
  EXPECT_TRUE(systemd.wait_for("READY=1"));
  EXPECT_TRUE(systemd.wait_for("WATCHDOG=1"));
  daemon_->signal(SIGHUP);
  EXPECT_TRUE(systemd.wait_for("RELOADING=1"));
  EXPECT_EQ(stop().exit_code, 0);
  EXPECT_TRUE(systemd.wait_for("STOPPING=1"));
  EXPECT_THAT(systemd.told(), HasSubstr("STATUS=keeping the log in " + log_dir().string()));
}

}  // namespace
}  // namespace ringtail::test
