// What is around three hosts goes wrong: their clocks, their disks, their certificates, the memory of etcd. Nothing
// that was acknowledged is lost, the others go on, and whoever is asked says what is wrong.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <thread>

#include "cluster/scene.h"
#include "replication/placement.h"

namespace ringtail::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Ne;
using ::testing::Optional;

class TroubleTest : public ClusterTest {
 protected:
  explicit TroubleTest(ClusterOptions options = {.daemon = RINGTAILD_BINARY})
      : ClusterTest(std::move(options)) {}

  bool is_in_sync(int node) const {
    const auto record = cluster_.partition(kTopic);
    return record && std::ranges::find(record->isr, replication::NodeId(static_cast<std::uint32_t>(node)),
                                       &replication::IsrMember::node) != record->isr.end();
  }
  void wait_until_said(int node, const std::string& text) {
    ASSERT_TRUE(Cluster::wait_until([&] { return cluster_.said_by(node).find(text) != std::string::npos; }))
        << "'" << text << "' of node " << node << "\n"
        << cluster_.describe();
  }
};

// --- etcd ----------------------------------------------------------------------------------------

TEST_F(TroubleTest, AnEtcdThatHasLostItsDataDeletesNothingOnTheHosts) {
  const int leader = *cluster_.leader(kTopic);
  cluster_.etcd().kill();
  cluster_.etcd().lose_data();
  ASSERT_TRUE(cluster_.etcd().start()) << cluster_.etcd().trouble();
  for (int node = 1; node <= cluster_.size(); ++node)
    wait_until_said(node, "do not name 1 of its topics that is on this host (orders)");
  ASSERT_TRUE(Cluster::wait_until([&] { return cluster_.state()->live.size() == 3; })) << cluster_.describe();
  cluster_.kill_node(leader);
  cluster_.start_node(leader);
  ASSERT_TRUE(Cluster::wait_until([&] { return cluster_.fetch(leader, "/readyz").starts_with("ready"); }));
  const FinalLog log = read_all(leader);
  for (const Event& event : history()) {
    if (event.kind != Event::Kind::acked) continue;
    ASSERT_THAT(log, Contains(std::pair(event.offset, event.value))) << cluster_.describe();
  }
}

// --- Clocks --------------------------------------------------------------------------------------

// Of three hosts one has the time of an hour ago, and one that of an hour hence; two of them began to run at other
// times than the third.
std::vector<std::string> clocks_of(int node) {
  if (node == 1) return {};
  const std::string offset = node == 2 ? "+3600" : "-3600";
  return {"unshare",
          "--time",
          "--boottime",
          node == 2 ? "7200" : "1800",
          "--monotonic",
          node == 2 ? "7200" : "1800",
          "--fork",
          "--kill-child",
          "env",
          "LD_PRELOAD=" FAKETIME_LIBRARY,
          "FAKETIME=" + offset,
          "FAKETIME_DONT_FAKE_MONOTONIC=1"};
}

class ClockTest : public TroubleTest {
 protected:
  ClockTest() : TroubleTest({.daemon = RINGTAILD_BINARY, .wrapper = clocks_of}) {}

  void SetUp() override {
    std::vector<std::string> probe = clocks_of(2);
    probe.emplace_back("true");
    if (const CommandResult tried = run_command(probe);
        tried.exit_code != 0 || ::access(FAKETIME_LIBRARY, R_OK) != 0)
      GTEST_SKIP() << "clocks cannot be set apart (it takes root, and apt-get install faketime): "
                   << tried.err;
    TroubleTest::SetUp();
  }
};

TEST_F(ClockTest, HostsWhoseClocksAreHoursApartElectAndShipAsOthersDo) {
  for (int round = 0; round < 2; ++round) {
    const int first = *cluster_.leader(kTopic);
    cluster_.kill_node(first);
    EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
    wait_for_acks(100);
    cluster_.start_node(first);
    ASSERT_TRUE(cluster_.wait_until_whole(kTopic)) << cluster_.describe();
  }
  expect_promises_kept();
}

// --- Disks ---------------------------------------------------------------------------------------

// Each node's log is on a small disk of its own.
class DiskTest : public TroubleTest {
 protected:
  void SetUp() override {
    // The disks go with this process, in whatever way it ends.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      GTEST_SKIP() << "file systems cannot be mounted: " << std::strerror(errno);
    for (int node = 1; node <= cluster_.size(); ++node) {
      const auto dir = cluster_.directory() / ("node" + std::to_string(node)) / "log";
      std::filesystem::create_directories(dir);
      ASSERT_EQ(::mount("tmpfs", dir.c_str(), "tmpfs", 0, "size=512m,mode=0700"), 0) << std::strerror(errno);
      disks_.push_back(dir);
    }
    TroubleTest::SetUp();
  }
  void TearDown() override {
    for (const auto& disk : disks_) ::umount2(disk.c_str(), MNT_DETACH);
  }

  // Leaves no room for a segment, as a neighbour's files would.
  void fill(int node) const {
    struct statvfs disk{};
    ASSERT_EQ(::statvfs(cluster_.log_dir(node).c_str(), &disk), 0);
    constexpr std::uint64_t kLeft = 256 << 10;
    const int filler = ::open(filler_of(node).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(::posix_fallocate(filler, 0, static_cast<off_t>(disk.f_bavail * disk.f_frsize - kLeft)), 0);
    ::close(filler);
  }
  void make_room(int node) const { std::filesystem::remove(filler_of(node)); }

 private:
  std::filesystem::path filler_of(int node) const { return cluster_.log_dir(node) / "filler"; }

  std::vector<std::filesystem::path> disks_;
};

TEST_F(DiskTest, AFollowerWhoseDiskIsFullLeavesTheIsrAndComesBackWhenThereIsRoom) {
  const int leader = *cluster_.leader(kTopic);
  const int follower = leader % cluster_.size() + 1;
  fill(follower);
  ASSERT_TRUE(Cluster::wait_until([&] { return !is_in_sync(follower); })) << cluster_.describe();
  wait_until_said(follower, "records stay in the ring until it can be had: no_space");
  wait_until_said(leader, "node " + std::to_string(follower) + " leaves the in-sync replicas: for ");
  wait_for_acks(100);
  make_room(follower);
  ASSERT_TRUE(cluster_.wait_until_whole(kTopic)) << cluster_.describe();
  wait_until_said(leader, "node " + std::to_string(follower) + " is in sync again");
  expect_promises_kept();
}

TEST_F(DiskTest, ALeaderWhoseDiskIsFullGivesTheLeadershipAway) {
  const int first = *cluster_.leader(kTopic);
  fill(first);
  EXPECT_THAT(cluster_.wait_for_leader_but(kTopic, first), Optional(Ne(first))) << cluster_.describe();
  wait_until_said(first, "its disk does not take what is appended");
  wait_for_acks(100);
  make_room(first);
  expect_promises_kept();
}

// --- A topic that a host cannot have -------------------------------------------------------------

TEST_F(TroubleTest, WhatAHostCannotHaveIsLedByAnother) {
  constexpr const char* kOther = "other";
  const std::filesystem::path in_the_way = cluster_.log_dir(1) / "topics" / kOther;
  std::ofstream(in_the_way) << "no topic";
  const CommandResult created =
      run_command({RINGTAIL_BINARY, "topic", "create", kOther, "--partitions", "3", "--replication-factor",
                   "3", "--etcd", cluster_.etcd().endpoint(), "--cluster", "test"});
  ASSERT_EQ(created.exit_code, 0) << created.err;
  const auto count_led = [&](bool in_sync) {
    const auto state = cluster_.state();
    return std::ranges::count_if(state->partitions, [&](const auto& one) {
      const replication::PartitionRecord& record = one.second.record;
      return record.topic == kOther && is_led(record, *state) &&
             (in_sync ? record.isr.size() == 3 : record.leader != replication::NodeId(1));
    });
  };
  EXPECT_TRUE(Cluster::wait_until([&] { return count_led(false) == 3; })) << cluster_.describe();
  wait_until_said(1, "this host is to lead, and cannot have the topic");
  std::filesystem::remove(in_the_way);
  EXPECT_TRUE(Cluster::wait_until([&] { return count_led(true) == 3; })) << cluster_.describe();
  expect_promises_kept();
}

// --- Files ---------------------------------------------------------------------------------------

constexpr const char* kBig = "big";

class DamageTest : public TroubleTest {
 protected:
  // Returns when the host has them on disk.
  void append(int leader, int count) {
    auto log =
        Log::open({.dir = cluster_.log_dir(leader), .create_if_missing = false, .keeper = KeeperMode::none});
    ASSERT_TRUE(log) << to_string(log.error());
    auto producer = Producer::open(*log, {.topic = kBig, .max_block = std::chrono::seconds(30)});
    ASSERT_TRUE(producer) << to_string(producer.error());
    for (const int end = appended_ + count; appended_ < end;) {
      const auto sent = producer->send({.value = value(appended_)});
      // The record of who leads is there some moments before the host does.
      const bool early = !sent && sent.error() == SendError::not_leader && appended_ == 0;
      ASSERT_TRUE(sent || early) << to_string(producer->error());
      if (sent)
        ++appended_;
      else
        std::this_thread::sleep_for(milliseconds(1));
    }
    ASSERT_TRUE(producer->flush()) << to_string(producer->error());
  }
  static std::string value(int number) { return std::to_string(number) + std::string(8'000, 'v'); }
  std::vector<std::string> values_at(int node) const {
    auto log =
        Log::open({.dir = cluster_.log_dir(node), .create_if_missing = false, .keeper = KeeperMode::none});
    std::vector<std::string> values;
    auto consumer = Consumer::open(*log);
    const TopicPartition partition{kBig, PartitionId(0)};
    if (!consumer || !consumer->assign(std::span(&partition, 1))) return values;
    while (*consumer->position(partition) < *consumer->end_offset(partition)) {
      const auto polled = consumer->poll(milliseconds(100));
      if (!polled) return values;
      for (const Record& record : *polled) values.emplace_back(record.value);
    }
    return values;
  }
  // A byte in the middle of the segment that has the middle of the log.
  void flip_a_byte(int node) const {
    std::vector<std::filesystem::path> segments;
    for (const auto& file :
         std::filesystem::directory_iterator(cluster_.log_dir(node) / "topics" / kBig / "0"))
      if (file.path().extension() == ".log") segments.push_back(file.path());
    std::ranges::sort(segments);
    ASSERT_GT(segments.size(), 8U);
    std::fstream file(segments[segments.size() / 2], std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(500'000);
    const int byte = file.get();
    file.seekp(500'000);
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.good());
  }

 private:
  int appended_ = 0;
};

TEST_F(DamageTest, WhatIsDamagedInTheLeadersFileIsShippedToNobodyAndNamed) {
  ASSERT_TRUE(cluster_.create_topic(kBig, 1, configs())) << cluster_.trouble();
  ASSERT_TRUE(cluster_.wait_until_whole(kBig)) << cluster_.describe();
  const int leader = *cluster_.leader(kBig);
  const int follower = leader % cluster_.size() + 1;
  append(leader, 100);
  cluster_.kill_node(follower);
  append(leader, 2'000);
  flip_a_byte(leader);
  cluster_.start_node(follower);
  wait_until_said(follower, "begins anew with node " + std::to_string(leader) + ": frames that are damaged");
  wait_until_said(leader, "cannot be shipped to node " + std::to_string(follower));
  EXPECT_THAT(cluster_.said_by(leader), HasSubstr("ringtail log verify"));

  flip_a_byte(leader);  // back
  ASSERT_TRUE(cluster_.wait_until_whole(kBig)) << cluster_.describe();
  ASSERT_TRUE(Cluster::wait_until([&] { return values_at(follower).size() == 2'100; }))
      << cluster_.describe();
  EXPECT_EQ(values_at(follower), values_at(leader));
  expect_promises_kept();
}

// --- Certificates --------------------------------------------------------------------------------

// Makes the node a certificate that is valid for so many days, by the authority that all have.
void sign(const std::filesystem::path& dir, int days) {
  const std::string script = R"(
set -e
cd "$1"
[ -e ../ca.pem ] || {
  openssl ecparam -name prime256v1 -genkey -noout -out ../ca.key
  openssl req -x509 -new -key ../ca.key -subj "/CN=authority" -days 9 -out ../ca.pem
}
[ -e node.key ] || openssl ecparam -name prime256v1 -genkey -noout -out node.key
chmod o= node.key
openssl req -new -key node.key -subj "/CN=node" -out node.csr
openssl x509 -req -in node.csr -CA ../ca.pem -CAkey ../ca.key -CAcreateserial -days "$2" -out node.pem
)";
  const CommandResult made = run_command({"sh", "-c", script, "sh", dir.string(), std::to_string(days)});
  ASSERT_EQ(made.exit_code, 0) << made.err;
}

constexpr int kExpired = 3;

std::string certified(int node, const std::filesystem::path& dir) {
  sign(dir, node == kExpired ? -1 : 5);
  return "ca = \"" + (dir.parent_path() / "ca.pem").string() + "\"\ncertificate = \"" +
         (dir / "node.pem").string() + "\"\nkey = \"" + (dir / "node.key").string() + "\"\n";
}

class CertificateTest : public TroubleTest {
 protected:
  CertificateTest() : TroubleTest({.daemon = RINGTAILD_BINARY, .replication = certified}) {}

  std::string cluster_nodes() {
    return run_command({RINGTAIL_BINARY, "cluster", "nodes", "--etcd", cluster_.etcd().endpoint(),
                        "--cluster", "test"})
        .out;
  }
};

TEST_F(CertificateTest, ANodeWhoseCertificateHasExpiredIsNamedAndComesBackWithARenewedOne) {
  const std::string why = "this node refuses the other's certificate: certificate has expired";
  ASSERT_TRUE(Cluster::wait_until([&] { return !is_in_sync(kExpired); })) << cluster_.describe();
  wait_until_said(kExpired, "node.pem': certificate has expired");
  wait_until_said(kExpired, "the other node refuses this one's certificate");
  for (const int other : {1, 2}) wait_until_said(other, "node 3: TLS: " + why);
  std::string nodes;
  ASSERT_TRUE(Cluster::wait_until([&] {
    nodes = cluster_nodes();
    return nodes.find("node 1 cannot connect to node 3: TLS: " + why) != std::string::npos &&
           nodes.find("node 2 cannot connect to node 3: TLS: " + why) != std::string::npos;
  })) << nodes;
  wait_for_acks(100);

  sign(cluster_.node_dir(kExpired), 5);
  cluster_.signal_node(kExpired, SIGHUP);
  ASSERT_TRUE(cluster_.wait_until_whole(kTopic)) << cluster_.describe();
  EXPECT_TRUE(Cluster::wait_until([&] {
    return cluster_nodes().find("cannot connect") == std::string::npos;
  })) << cluster_nodes();
  expect_promises_kept();
}

}  // namespace
}  // namespace ringtail::test
