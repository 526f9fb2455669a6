// The coordinator while etcd fails: not there yet, gone and back, back without its data, hung, half of it dead;
// and while its own process stands still.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>

#include "support/crash_process.h"
#include "unit/groups/log_capture.h"
#include "unit/replication/etcd_test_support.h"
#include "unit/replication/nodes.h"

namespace ringtail::replication {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class EtcdFaultsTest : public EtcdTest {};

TEST_F(EtcdFaultsTest, WithoutEtcdJoiningTimesOutAndIsMadeUpForOnceItIsThere) {
  etcd_.kill();
  const auto one = coordinator();
  const Status joined = one->join(node_record(1), {.wait = Milliseconds(150)});
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::timed_out);
  EXPECT_THAT(joined.error().message, HasSubstr(etcd_.endpoint()));
  EXPECT_EQ(one->lease_deadline_ns(), 0);
  EXPECT_EQ(one->state()->revision, 0);
  EXPECT_FALSE(one->health().reachable);
  EXPECT_THAT(one->health().last_error, HasSubstr("no connection"));
  EXPECT_LT(one->health().seconds_since_contact, 0);
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}).error().code, Code::fenced);
  EXPECT_EQ(coordinator()->observe(Milliseconds(50)).error().code, Code::timed_out);

  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  EXPECT_TRUE(eventually([&] { return sees(*one, kOne) && one->lease_deadline_ns() > boottime_ns(); }));
}

TEST_F(EtcdFaultsTest, AfterEtcdsRestartTheLeaseStandsAndChangesAreFollowed) {
  const auto one = coordinator();
  ASSERT_TRUE(one->join(node_record(1)));
  const std::string cluster = one->state()->cluster_id;
  etcd_.kill();
  // Nothing was changed, and that is certain: nobody was there.
  ASSERT_TRUE(eventually([&] {
    const auto committed = one->commit(std::vector<Change>{{topic_record("t")}});
    return !committed && committed.error().code == Code::system;
  }));
  const std::int64_t before_ns = one->lease_deadline_ns();
  ASSERT_TRUE(eventually([&] { return boottime_ns() > before_ns; }));
  EXPECT_EQ(one->lease_deadline_ns(), before_ns);  // what is not acknowledged does not count

  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  ASSERT_TRUE(eventually([&] { return one->lease_deadline_ns() > boottime_ns(); }));
  ASSERT_TRUE(eventually([&] { return one->commit(std::vector<Change>{{topic_record("t")}}) == true; }));
  EXPECT_TRUE(eventually([&] { return one->state()->topics.contains("t") && sees(*one, kOne); }));
  EXPECT_EQ(one->state()->cluster_id, cluster);
  EXPECT_TRUE(one->health().reachable);
}

TEST_F(EtcdFaultsTest, AnEtcdThatComesBackWithoutItsDataIsJoinedAnewAndTheLossIsSaid) {
  groups::LogCapture log;
  std::atomic<bool> told_of_loss{false};
  auto one = coordinator();
  one->set_on_change([&](const auto& state) {
    if (state->revision < 10 && state->topics.empty()) told_of_loss = true;
  });
  ASSERT_TRUE(one->join(node_record(1)));
  for (std::uint32_t i = 0; i < 10; ++i)
    ASSERT_EQ(one->commit(std::vector<Change>{{topic_record("t" + std::to_string(i))}}), true);
  ASSERT_TRUE(eventually([&] { return one->state()->topics.size() == 10; }));
  const std::string cluster = one->state()->cluster_id;
  const std::int64_t lease_before_ns = one->lease_deadline_ns();
  told_of_loss = false;

  etcd_.kill();
  etcd_.lose_data();
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  ASSERT_TRUE(eventually([&] {
    return !one->state()->cluster_id.empty() && one->state()->cluster_id != cluster && sees(*one, kOne) &&
           one->lease_deadline_ns() > boottime_ns();
  }));
  EXPECT_GT(one->lease_deadline_ns(), lease_before_ns);
  EXPECT_THAT(one->state()->topics, SizeIs(0));
  EXPECT_TRUE(told_of_loss);
  EXPECT_EQ(one->state()->nodes.at(kOne).record, node_record(1));
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("new")}}), true);
  one.reset();
  EXPECT_THAT(log.text(), HasSubstr("etcd has lost its data"));
  EXPECT_THAT(log.text(), HasSubstr(cluster));
}

TEST_F(EtcdFaultsTest, OfTwoEndpointsOneOfWhichIsDeadTheOtherServes) {
  const std::string dead = "http://127.0.0.1:" + std::to_string(test::find_free_port());
  const auto one = open_coordinator(options_for({dead, etcd_.endpoint()}));
  ASSERT_TRUE(one->join(node_record(1)));
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
  EXPECT_EQ(one->health().endpoint, etcd_.endpoint());
  const std::int64_t first_ns = one->lease_deadline_ns();
  EXPECT_TRUE(eventually([&] { return one->lease_deadline_ns() > first_ns; }));
  EXPECT_TRUE(eventually([&] { return one->state()->topics.contains("t"); }));
}

TEST_F(EtcdFaultsTest, AnEndpointThatTakesConnectionsAndNeverAnswersIsLeftForTheNext) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 100), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string mute = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  auto both = options_for({mute, etcd_.endpoint()});
  both.etcd.request_timeout = Milliseconds(200);
  {
    const auto one = open_coordinator(both);
    ASSERT_TRUE(one->join(node_record(1)));
    const auto first = one->commit(std::vector<Change>{{topic_record("t")}});
    ASSERT_FALSE(first);
    EXPECT_EQ(first.error().code, Code::timed_out);  // it was sent, so nobody knows
    EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
    EXPECT_GT(one->lease_deadline_ns(), boottime_ns());
  }
  ::close(listener);
}

TEST_F(EtcdFaultsTest, AHungEtcdLeavesTheOutcomeOfACommitUnknownAndTheLeaseRunsOut) {
  const auto one = coordinator();
  auto impatient = options();
  impatient.etcd.request_timeout = Milliseconds(200);
  const auto tool = open_coordinator(impatient);
  ASSERT_TRUE(tool->observe(Milliseconds(5'000)));
  ASSERT_TRUE(one->join(node_record(1)));
  etcd_.signal(SIGSTOP);
  const auto committed = tool->commit(std::vector<Change>{{topic_record("t")}});
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code, Code::timed_out);
  EXPECT_THAT(committed.error().message, HasSubstr("outcome unknown"));
  EXPECT_TRUE(eventually([&] { return boottime_ns() > one->lease_deadline_ns(); }));
  EXPECT_TRUE(eventually([&] { return !one->health().reachable; }));
  etcd_.signal(SIGCONT);
  EXPECT_TRUE(eventually([&] { return one->lease_deadline_ns() > boottime_ns() && sees(*one, kOne); }));
  EXPECT_TRUE(eventually([&] { return tool->health().reachable; }));
}

TEST_F(EtcdFaultsTest, AWatchThatIsBehindACompactionReadsAllRecordsAnew) {
  groups::LogCapture log;
  std::atomic<bool> busy{true};
  std::atomic<bool> entered{false};
  auto one = observer();
  auto other = observer();
  // While its thread is busy with one change, its place in the history goes.
  one->set_on_change([&](const auto&) {
    entered = true;
    while (busy) std::this_thread::sleep_for(Milliseconds(1));
  });
  ASSERT_EQ(other->commit(std::vector<Change>{{topic_record("first")}}), true);
  ASSERT_TRUE(eventually([&] { return entered.load(); }));
  etcd_.kill();
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  ASSERT_TRUE(
      eventually([&] { return other->commit(std::vector<Change>{{topic_record("second")}}) == true; }));
  ASSERT_TRUE(eventually([&] { return other->state()->topics.contains("second"); }));
  const Stored<TopicRecord> first = other->state()->topics.at("first");
  ASSERT_EQ(other->commit(std::vector<Change>{{first.record, first.revision, true}}), true);
  ASSERT_TRUE(eventually([&] { return !other->state()->topics.contains("first"); }));
  ASSERT_TRUE(post("/v3/kv/compaction", {{"revision", std::to_string(other->state()->revision)}}));
  ASSERT_TRUE(one->state()->topics.contains("first"));
  busy = false;
  EXPECT_TRUE(eventually(
      [&] { return !one->state()->topics.contains("first") && one->state()->topics.contains("second"); }));
  ASSERT_EQ(other->commit(std::vector<Change>{{topic_record("third")}}), true);
  EXPECT_TRUE(eventually([&] { return one->state()->topics.contains("third"); }));
  EXPECT_EQ(one->state()->gaps, other->state()->gaps + 1) << "it cannot know what was removed meanwhile";
  one.reset();
  other.reset();
  EXPECT_THAT(log.text(), HasSubstr("etcd no longer has the changes"));
}

// Answers one request with this, and ends.
class CannedServer {
 public:
  explicit CannedServer(std::string answer) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(socket_, 1) != 0 ||
        ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      std::abort();
    endpoint_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this, answer = std::move(answer)] { serve(answer); });
  }
  CannedServer(const CannedServer&) = delete;
  CannedServer& operator=(const CannedServer&) = delete;
  ~CannedServer() {
    thread_.join();
    ::close(socket_);
  }
  const std::string& endpoint() const { return endpoint_; }

 private:
  void serve(const std::string& answer) const {
    const int client = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    std::string request;
    std::array<char, 4096> some{};
    while (!request.ends_with("}}")) {
      const ssize_t got = ::recv(client, some.data(), some.size(), 0);
      if (got <= 0) break;
      request.append(some.data(), static_cast<std::size_t>(got));
    }
    const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    const std::string all = head + std::to_string(answer.size()) + "\r\n\r\n" + answer;
    (void)::send(client, all.data(), all.size(), MSG_NOSIGNAL);
    while (::recv(client, some.data(), some.size(), 0) > 0) {
    }
    ::close(client);
  }

  int socket_;
  std::string endpoint_;
  std::thread thread_;
};

// As when something stands between, and says something of its own.
TEST(EtcdWatch, WhatIsNoMessageEndsItBehindWhatWasTold) {
  const auto change = [](int revision) {
    return R"({"result":{"header":{"revision":")" + std::to_string(revision) +
           R"("},"events":[{"kv":{"key":")" + to_base64("/ringtail/test/settings") + R"(","mod_revision":")" +
           std::to_string(revision) + "\"}}]}}\n";
  };
  for (const char* const broken : {R"({"result":{"events":[{"kv":{"key)", "<html>", "[]"}) {
    SCOPED_TRACE(broken);
    CannedServer server(change(6) + "\n" + broken + "\n" + change(8));
    EtcdSession session(options_for({server.endpoint()}).etcd);
    EtcdConnection connection(session);
    Watch watch{.prefix = "/ringtail/test/", .next_revision = 5};
    std::size_t told = 0;
    const auto ended = watch_prefix(connection, watch, [&](const auto& events) {
      told += events.size();
      return true;
    });
    ASSERT_FALSE(ended);
    EXPECT_THAT(ended.error().message, HasSubstr("no message"));
    EXPECT_EQ(told, 1u);
    EXPECT_EQ(watch.next_revision, 7);
  }
}

// Not in a fixture: the process that is to be stopped is forked before this one has threads.
TEST(EtcdStoppedNodeTest, ANodeThatStoodStillFindsItsDeadlinePassedAndRegistersTheSameIncarnation) {
  struct Page {
    std::array<char, 64> endpoint{};
    std::atomic<bool> started{false};
    std::atomic<bool> joined{false};
    std::atomic<std::int64_t> deadline_ns{0};
    std::atomic<int> told_live{0};
  };
  test::SharedPage<Page> page;
  test::Process node("node", [&] {
    while (!page->started) std::this_thread::sleep_for(Milliseconds(1));
    const auto one = open_coordinator(options_for({page->endpoint.data()}));
    one->set_on_change([&](const auto& state) { page->told_live += state->live.contains(kOne) ? 1 : 0; });
    if (!one->join(node_record(1))) return 1;
    for (;;) {
      page->deadline_ns = one->lease_deadline_ns();
      page->joined = true;
      std::this_thread::sleep_for(Milliseconds(1));
    }
  });
  test::EtcdProcess etcd;
  ASSERT_TRUE(etcd.start()) << etcd.trouble();
  std::ranges::copy(etcd.endpoint(), page->endpoint.begin());
  page->started = true;
  ASSERT_TRUE(eventually([&] { return page->joined.load(); }));
  const auto watcher = open_coordinator(options_for({etcd.endpoint()}));
  ASSERT_TRUE(watcher->observe(Milliseconds(20'000)));
  ASSERT_TRUE(sees(*watcher, kOne));
  const int told = page->told_live;

  node.signal(SIGSTOP);
  ASSERT_TRUE(eventually([&] { return !sees(*watcher, kOne); }));
  EXPECT_LT(page->deadline_ns, boottime_ns());
  node.signal(SIGCONT);
  ASSERT_TRUE(eventually([&] { return sees(*watcher, kOne); }));
  EXPECT_EQ(watcher->state()->live.at(kOne), node_record(1).incarnation);
  EXPECT_TRUE(eventually([&] { return page->deadline_ns > boottime_ns(); }));
  EXPECT_TRUE(eventually([&] { return page->told_live > told; }));
}

}  // namespace
}  // namespace ringtail::replication
