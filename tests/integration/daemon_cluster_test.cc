// One ringtaild of a cluster and its etcd: what it does where that is away, or does not want it, and who else knocks
// at its door.
#include "integration/daemon.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "integration/notify_socket.h"
#include "support/etcd_process.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

class DaemonClusterTest : public DaemonTest {
 protected:
  // The tables of a node, which talks without TLS unless told otherwise.
  std::string node_tables(int id, const std::string& replication = "plain = true\n") const {
    return "[node]\nid = " + std::to_string(id) +
           "\nreplication_listen = \"127.0.0.1:" + std::to_string(replication_port_) +
           "\"\n[cluster]\nname = \"test\"\netcd = [\"" + etcd_.endpoint() +
           "\"]\nlease_ttl = \"1s\"\nlease_margin = \"200ms\"\n[replication]\n" + replication;
  }
  // Starts the daemon without waiting until it is ready.
  void begin(std::vector<std::string> more = {}) {
    daemon_.emplace(daemon_line(std::move(more)));
    find_port();
  }
  void wait_until_ready() {
    ASSERT_TRUE(wait_until([this] { return get("/readyz").status == 200; })) << read_file(log_file());
  }
  // Waits until it is not, and says why.
  std::string wait_for_reason(const std::string& text) {
    std::string said;
    EXPECT_TRUE(wait_until([&] {
      const httplib::Response answer = get("/readyz");
      said = answer.body;
      return answer.status == 503 && said.find(text) != std::string::npos;
    })) << said
        << read_file(log_file());
    return said;
  }
  std::size_t count_in_log(std::string_view text) const {
    std::size_t count = 0;
    const std::string log = read_file(log_file());
    for (std::size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++count;
    return count;
  }
  // A second daemon on this host, with a log of its own; to its end, which it comes to by itself.
  CommandResult run_other(const std::string& config, const std::string& dir,
                          std::vector<std::string> more = {}) const {
    const std::string file = write_file("other.toml", "[http]\nlisten = \"127.0.0.1:0\"\n" + config).string();
    std::vector<std::string> line = {RINGTAILD_BINARY, "--config", file, "--dir",
                                     (directory() / dir).string()};
    line.insert(line.end(), more.begin(), more.end());
    return run_command(line);
  }

  EtcdProcess etcd_;
  std::uint16_t replication_port_ = find_free_port();
};

// --- etcd away -----------------------------------------------------------------------------------

TEST_F(DaemonClusterTest, WithoutEtcdItSaysWhyItIsNotReadyAndJoinsWhenEtcdComes) {
  configure(node_tables(1));
  begin();
  EXPECT_THAT(
      wait_for_reason("etcd cannot be reached"),
      AllOf(HasSubstr("fenced, for node 1 of cluster test is not registered"), HasSubstr(etcd_.endpoint())));
  EXPECT_EQ(get("/healthz").status, 200);  // the log is kept meanwhile
  wait_for_line("could not be registered within 2000 ms, and goes on trying");
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  wait_until_ready();
  EXPECT_EQ(get("/readyz").body, "ready; node 1 of cluster test, 1 of 1 nodes alive\n");
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonClusterTest, EtcdAwayForLongerThanTheLeaseIsSaidAndItJoinsAgain) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  etcd_.kill();
  wait_for_reason("etcd cannot be reached");
  EXPECT_EQ(metric("ringtail_node_ready"), 0);
  // Those who wait for etcd say so once, however often they try.
  std::this_thread::sleep_for(std::chrono::seconds(3));
  EXPECT_LE(count_in_log("the lease is not kept alive"), 1u);
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  wait_until_ready();
  EXPECT_EQ(metric("ringtail_node_ready"), 1);
  EXPECT_EQ(stop().exit_code, 0);
}

// One that hangs is worse than one that is gone: connections are made, and no answer comes.
TEST_F(DaemonClusterTest, EndsInGoodOrderWhileEtcdHangs) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  run_ok({"topic", "create", "orders", "--replication-factor", "1", "--etcd", etcd_.endpoint(), "--cluster",
          "test"});
  ASSERT_TRUE(wait_until([this] {
    return metric("ringtail_replica_leader{topic=\"orders\",partition=\"0\"}") == 1;
  })) << get("/metrics").body;
  run_ok({"produce", "orders", "--durable"}, "one\n");
  etcd_.signal(SIGSTOP);
  EXPECT_EQ(stop().exit_code, 0);
  EXPECT_THAT(read_file(log_file()), HasSubstr("the lease could not be given back, and runs out in 1 s"));
  etcd_.signal(SIGCONT);
  start();
  ASSERT_TRUE(wait_until([this] { return consume_all("orders") == "one\n"; }));
  EXPECT_EQ(stop().exit_code, 0);
}

// Such an etcd holds the daemon's end for a while.
TEST_F(DaemonClusterTest, ASecondSignalEndsItAtOnce) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  etcd_.signal(SIGSTOP);
  daemon_->signal(SIGTERM);
  daemon_->signal(SIGINT);
  EXPECT_THAT(daemon_->wait().exit_code, AnyOf(128 + SIGTERM, 128 + SIGINT));  // whichever came second
  EXPECT_THAT(read_file(log_file()), HasSubstr("ending at once"));
}

TEST_F(DaemonClusterTest, EndsWhileItHasNeverHeardOfEtcd) {
  configure(node_tables(1));
  begin();
  EXPECT_EQ(stop().exit_code, 0);
  EXPECT_THAT(read_file(log_file()), HasSubstr("ended; what was committed is on disk"));
}

TEST_F(DaemonClusterTest, WarnsOfAnEtcdThatALostHostTakesAlong) {
  const auto check = [this](const std::string& etcd, std::vector<std::string> more = {}) {
    configure("[node]\nid = 1\nreplication_listen = \"10.0.0.1:9465\"\n[cluster]\nname = \"test\"\netcd = [" +
              etcd + "]\n[replication]\nplain = true\n");
    more.insert(more.begin(), "--check");
    return run_command(daemon_line(std::move(more)));
  };
  EXPECT_THAT(check("\"http://127.0.0.1:2379\"").err, HasSubstr("all of etcd is on this host"));
  EXPECT_THAT(check("\"http://10.0.0.1:2379\"").err, HasSubstr("all of etcd is on this host"));
  const CommandResult one = check("\"http://10.0.0.9:2379\"");
  EXPECT_THAT(one.err, HasSubstr("ringtaild: warning: cluster.etcd: one host is named"));
  EXPECT_EQ(one.exit_code, 0);
  EXPECT_THAT(check("\"http://10.0.0.1:2379\", \"http://10.0.0.2:2379\"").err,
              HasSubstr("two hosts are named"));
  const std::string three = "\"http://10.0.0.1:2379\", \"http://10.0.0.2:2379\", \"http://[fd00::3]:2379\"";
  EXPECT_EQ(check(three).err, "");
  EXPECT_EQ(json::parse(check(three, {"--json"}).out)["warnings"], json::array());

  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  EXPECT_THAT(read_file(log_file()), HasSubstr("all of etcd is on this host"));
  EXPECT_THAT(run_ok({"cluster", "status", "--etcd", etcd_.endpoint(), "--cluster", "test"}),
              HasSubstr("warning: 1 member on 1 host"));
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonClusterTest, ItsRecordTellsWhereItsMetricsAreBehindAReloadToo) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));  // any port
  start();
  const auto told = [this] {
    const json nodes = run_json({"cluster", "nodes", "--etcd", etcd_.endpoint(), "--cluster", "test"});
    return nodes[0]["http"]["port"].get<int>();
  };
  EXPECT_EQ(told(), port_);
  const int moved = find_free_port();
  configure(node_tables(1), "127.0.0.1:" + std::to_string(moved));
  daemon_->signal(SIGHUP);
  EXPECT_TRUE(wait_until([&] { return told() == moved; })) << read_file(log_file());
  port_ = moved;
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

// --- What systemd is told ------------------------------------------------------------------------

TEST_F(DaemonClusterTest, TheStatusForSystemdFollowsTheClusters) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  const std::string path = (directory() / "notify").string();
  NotifySocket systemd(path);
  start({}, {"NOTIFY_SOCKET=" + path});
  EXPECT_TRUE(systemd.wait_for("node 1 of cluster test, 1 of 1 nodes alive"));
  etcd_.kill();
  EXPECT_TRUE(systemd.wait_for("fenced, for node 1 of cluster test is not registered"));
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  EXPECT_TRUE(systemd.wait_for("node 1 of cluster test, 1 of 1 nodes alive"));
  EXPECT_EQ(stop().exit_code, 0);
}

// --- One id, two daemons -------------------------------------------------------------------------

TEST_F(DaemonClusterTest, AnotherLogWithTheIdOfALivingNodeIsRefusedAndTheNodeGoesOn) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  const std::string first_port = std::to_string(std::exchange(replication_port_, find_free_port()));
  for (const auto& more : {std::vector<std::string>{}, std::vector<std::string>{"--replace-node"}}) {
    const CommandResult other = run_other(node_tables(1), "other", more);
    EXPECT_EQ(other.exit_code, 1);
    EXPECT_THAT(other.err, AllOf(HasSubstr("node 1 is in use by a living daemon at 127.0.0.1:" + first_port),
                                 HasSubstr("give this one another id, or stop that one")));
  }
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonClusterTest, TheIdOfALostLogIsTakenOverOnlyWhenToldTo) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  EXPECT_EQ(stop().exit_code, 0);
  const CommandResult other = run_other(node_tables(1), "other");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, AllOf(HasSubstr("node 1 was registered with the log"), HasSubstr("--replace-node")));
  std::filesystem::rename(log_dir(), directory() / "lost");
  start({"--replace-node"});
  EXPECT_EQ(stop().exit_code, 0);
  start();  // it is its own now
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonClusterTest, AnOlderDaemonThatComesBackToAnIdTakenOverIsFenced) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  daemon_->signal(SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(2));  // its lease has run out
  replication_port_ = find_free_port();
  const std::string file =
      write_file("other.toml", "[http]\nlisten = \"127.0.0.1:0\"\n" + node_tables(1)).string();
  Command other(
      {RINGTAILD_BINARY, "--config", file, "--dir", (directory() / "other").string(), "--replace-node"});
  ASSERT_TRUE(other.wait_for_error("this process keeps the log"));
  daemon_->signal(SIGCONT);
  EXPECT_THAT(wait_for_reason("node 1 is in use by a living daemon"),
              HasSubstr("fenced, for node 1 of cluster test is not registered"));
  other.signal(SIGTERM);
  EXPECT_EQ(other.wait().exit_code, 0);
  // The id is the other log's now, whether its daemon lives or not.
  wait_for_reason("node 1 was registered with the log");
  EXPECT_EQ(stop().exit_code, 0);
}

// --- Strangers -----------------------------------------------------------------------------------

// A client that knows nothing of the protocol.
class Stranger {
 public:
  explicit Stranger(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;
  ~Stranger() { ::close(socket_); }

  bool connected() const { return connected_; }
  bool say(std::string_view text) const {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  // Reads until the other side ends it.
  void wait_for_end() const {
    char buffer[4096];
    while (::recv(socket_, buffer, sizeof buffer, 0) > 0) {
    }
  }

 private:
  int socket_;
  bool connected_ = false;
};

// A header of the protocol with these sizes of its body.
std::string header_of(std::uint32_t body_bytes, std::uint32_t raw_bytes) {
  std::string header(72, '\0');
  header.replace(0, 8, std::string("RRP1\x02\x00\x01\x00", 8));
  for (std::size_t i = 0; i < 4; ++i) {
    header[8 + i] = static_cast<char>(body_bytes >> (8 * i) & 0xff);
    header[12 + i] = static_cast<char>(raw_bytes >> (8 * i) & 0xff);
  }
  return header;
}

std::size_t resident_kib(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::stoul(line.substr(6));
  return 0;
}

TEST_F(DaemonClusterTest, StrangersAreSentAwayAndSaidOnce) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  const std::size_t before = resident_kib(daemon_->pid());
  for (int i = 0; i < 50; ++i) {
    for (const std::string& text :
         {std::string(
              "GET / HTTP/1.1\r\nHost: ringtail\r\nAccept: everything there is, and more of it\r\n\r\n"),
          header_of(0xffffffff, 0xffffffff), header_of(16 << 20, 16 << 20), header_of(5, 5) + "hello"}) {
      const Stranger stranger(replication_port_);
      ASSERT_TRUE(stranger.connected());
      ASSERT_TRUE(stranger.say(text));
      stranger.wait_for_end();
    }
  }
  EXPECT_EQ(count_in_log("a connection from 127.0.0.1 was refused"), 4u) << read_file(log_file());
  EXPECT_EQ(count_in_log("these are no messages of Ringtail's replication"), 1u);
  EXPECT_LT(resident_kib(daemon_->pid()), before + (32 << 10));
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonClusterTest, APeerOfAnotherVersionIsToldApart) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  const Stranger older(replication_port_);
  ASSERT_TRUE(older.say(header_of(5, 5).replace(4, 1, "\x01") + "hello"));
  EXPECT_TRUE(wait_until([this] {
    return count_in_log("version 1 of the replication protocol, this program version 2; run the same") == 1;
  })) << read_file(log_file());
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonClusterTest, WhoSaysNothingOrHalfAHelloIsSentAwayInTheEnd) {
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  configure(node_tables(1));
  start();
  const Stranger silent(replication_port_);
  const Stranger halting(replication_port_);
  const Stranger dripping(replication_port_);
  ASSERT_TRUE(halting.say(header_of(100, 100) + "half"));
  // A byte now and then does not count as a hello.
  const std::string slow = header_of(4000, 4000) + std::string(1000, 'x');
  std::size_t said = 0;
  while (said < slow.size() && dripping.say(slow.substr(said++, 1)))
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LT(said, slow.size());
  silent.wait_for_end();
  halting.wait_for_end();
  EXPECT_EQ(count_in_log("no hello was heard for 2000 ms"), 1u) << read_file(log_file());
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

// --- Certificates --------------------------------------------------------------------------------

class DaemonTlsTest : public DaemonClusterTest {
 protected:
  // An authority, and certificates: good, expired, of another authority's making, and a key of none of them.
  void SetUp() override {
    ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
    const std::string script = R"(
set -e
cd "$1"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
for authority in ca other; do
  key $authority
  openssl req -x509 -new -key $authority.key -subj "/CN=$authority" -days 100 -out $authority.pem
done
signed() { # NAME AUTHORITY DAYS
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days "$3" -out "$1.pem"
}
signed good ca 90
signed soon ca 3
signed expired ca -1
signed strange other 90
chmod o= *.key
)";
    const CommandResult made = run_command({"sh", "-c", script, "sh", directory().string()});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  std::string tls(const std::string& certificate, const std::string& key) const {
    const std::string at = directory().string() + "/";
    return "ca = \"" + at + "ca.pem\"\ncertificate = \"" + at + certificate + ".pem\"\nkey = \"" + at + key +
           ".key\"\n";
  }
  void use(const std::string& certificate) { configure(node_tables(1, tls(certificate, certificate))); }
};

TEST_F(DaemonTlsTest, AKeyThatDoesNotFitIsRefused) {
  const CommandResult result = run_other(node_tables(1, tls("good", "expired")), "other");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("the key for replication, '"), HasSubstr("expired.key"),
                                HasSubstr("key values mismatch")));
}

TEST_F(DaemonTlsTest, ACertificateThatOthersWillRefuseIsSaidAndTheRenewedOneTakenAtHangUp) {
  use("expired");
  start();
  wait_for_line("expired.pem': certificate has expired");
  use("strange");
  daemon_->signal(SIGHUP);
  wait_for_line("strange.pem': unable to get local issuer certificate");
  use("soon");
  daemon_->signal(SIGHUP);
  wait_for_line("soon.pem' is valid until");
  configure(node_tables(1, tls("good", "soon")));
  daemon_->signal(SIGHUP);
  wait_for_line("the certificate stays as it was");
  use("good");
  daemon_->signal(SIGHUP);
  wait_for_line("good.pem' has been read, for connections from now on");
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

TEST_F(DaemonTlsTest, WhoKnowsNoTlsIsSentAwayAndSaidOnce) {
  use("good");
  start();
  for (int i = 0; i < 20; ++i) {
    const Stranger stranger(replication_port_);
    ASSERT_TRUE(stranger.say(header_of(0xffffffff, 0xffffffff)));
    stranger.wait_for_end();
  }
  EXPECT_EQ(count_in_log("a connection from 127.0.0.1 was refused: TLS: "), 1u) << read_file(log_file());
  const CommandResult refused = run_command(
      {"openssl", "s_client", "-connect", "127.0.0.1:" + std::to_string(replication_port_), "-cert",
       (directory() / "strange.pem").string(), "-key", (directory() / "strange.key").string()});
  wait_for_line("this node refuses the other's certificate: unable to get local issuer certificate");
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(stop().exit_code, 0);
}

}  // namespace
}  // namespace ringtail::test
