// The web server: what it answers, and whom.
#include "monitor/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <future>
#include <list>
#include <thread>

#include "base/descriptor.h"
#include "support/thread_shortage.h"

namespace ringtail::monitor {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class HttpServerTest : public ::testing::Test {
 protected:
  static HttpAnswers answers() {
    return {.metrics = []() -> Result<std::string> { return "up 1\n"; },
            .state = []() -> Result<std::string> { return fail(Code::no_keeper, "nobody keeps it"); },
            .health = [] { return HealthAnswer{true, "fine"}; },
            .ready = [] { return HealthAnswer{false, "draining"}; }};
  }
  HttpServerTest() { start({}, answers()); }
  void start(const HttpOptions& options, HttpAnswers given) {
    auto started = HttpServer::start(options, std::move(given));
    ASSERT_TRUE(started) << to_string(started.error());
    server_ = std::move(*started);
  }
  httplib::Client client() const { return httplib::Client("127.0.0.1", server_->port()); }
  httplib::Response get(const std::string& path, const httplib::Headers& headers = {}) const {
    auto result = client().Get(path, headers);
    EXPECT_TRUE(result) << path;
    return result ? *result : httplib::Response();
  }

  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersWithWhatItIsGiven) {
  const auto metrics = get("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_EQ(metrics.body, "up 1\n");
  EXPECT_THAT(metrics.get_header_value("Content-Type"), HasSubstr("text/plain; version=0.0.4"));
  EXPECT_EQ(get("/healthz").status, 200);
  EXPECT_EQ(get("/healthz").body, "fine\n");
  EXPECT_EQ(get("/readyz").status, 503);
  EXPECT_EQ(get("/readyz").body, "draining\n");
  EXPECT_EQ(get("/api/state").status, 503);
  EXPECT_EQ(get("/api/state").body, "no_keeper: nobody keeps it\n");
  EXPECT_EQ(get("/nothing").status, 404);
}

TEST_F(HttpServerTest, ThePageAllowsItsOwnScriptsAlone) {
  const auto page = get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.body, AllOf(HasSubstr("<!doctype html>"), Not(HasSubstr(std::string(kPageNonce)))));
  const std::string policy = page.get_header_value("Content-Security-Policy");
  EXPECT_THAT(policy, AllOf(HasSubstr("default-src 'none'"), Not(HasSubstr("unsafe"))));
  const std::size_t at = page.body.find("<script nonce=\"") + 15;
  const std::string nonce = page.body.substr(at, page.body.find('"', at) - at);
  EXPECT_EQ(nonce.size(), 16u);
  EXPECT_THAT(policy, HasSubstr("script-src 'nonce-" + nonce + "'"));
  EXPECT_THAT(get("/").body, Not(HasSubstr(nonce)));
  EXPECT_THAT(page.body, Not(HasSubstr("src=\"http")));
}

TEST_F(HttpServerTest, EveryAnswerHasTheHeadersThatKeepBrowsersCareful) {
  for (const char* path : {"/", "/metrics", "/healthz", "/nothing"}) {
    const auto response = get(path);
    EXPECT_EQ(response.get_header_value("X-Content-Type-Options"), "nosniff") << path;
    EXPECT_EQ(response.get_header_value("X-Frame-Options"), "DENY") << path;
    EXPECT_EQ(response.get_header_value("Cache-Control"), "no-store") << path;
  }
}

TEST_F(HttpServerTest, ServesNothingButGet) {
  EXPECT_EQ(client().Post("/metrics", "x", "text/plain")->status, 405);
  EXPECT_EQ(client().Delete("/metrics")->status, 405);
  EXPECT_EQ(client().Put("/", "x", "text/plain")->get_header_value("Allow"), "GET");
}

TEST_F(HttpServerTest, OnLoopbackOtherNamesAreRefused) {
  EXPECT_EQ(get("/metrics", {{"Host", "rebound.example.org"}}).status, 403);
  EXPECT_EQ(get("/metrics", {{"Host", "10.0.0.1:80"}}).status, 403);
  for (const char* host : {"localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:9464", "[::1]"})
    EXPECT_EQ(get("/metrics", {{"Host", host}}).status, 200) << host;
}

TEST_F(HttpServerTest, ListensElsewhereOnlyWhenAllowed) {
  const auto refused = HttpServer::start({.host = "0.0.0.0"}, answers());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
  const auto allowed = HttpServer::start({.host = "0.0.0.0", .allow_remote = true}, answers());
  ASSERT_TRUE(allowed) << to_string(allowed.error());
  auto asked =
      httplib::Client("127.0.0.1", (*allowed)->port()).Get("/metrics", {{"Host", "node-1.example.org"}});
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->status, 200);
}

TEST_F(HttpServerTest, APortInUseIsAnErrorThatNamesIt) {
  const auto second = HttpServer::start({.port = server_->port()}, answers());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().os_errno, EADDRINUSE);
  EXPECT_THAT(second.error().message,
              HasSubstr("port " + std::to_string(server_->port()) + ": Address already in use"));
}

// A part of a name has 63 characters at most: of a longer one no name server is asked.
TEST_F(HttpServerTest, AHostThatDoesNotResolveIsAnErrorWithTheResolversReason) {
  const std::string host(64, 'x');
  const auto started = HttpServer::start({.host = host, .allow_remote = true}, answers());
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, AllOf(HasSubstr(host), HasSubstr(": Name or service not known")));
}

TEST_F(HttpServerTest, WhereNoThreadCanBeMadeIsAnErrorAndThePortStaysFree) {
  const HttpOptions options{.port = server_->port()};
  server_.reset();
  {
    const ringtail::testing::ThreadShortage shortage;
    const auto refused = HttpServer::start(options, answers());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::system);
    EXPECT_EQ(refused.error().os_errno, EAGAIN);
    EXPECT_THAT(refused.error().message, HasSubstr("cannot start a thread for the web server: "));
  }
  start(options, answers());
  EXPECT_EQ(get("/healthz").status, 200);
}

TEST_F(HttpServerTest, EndsWhileSomebodyIsConnected) {
  httplib::Client idle("127.0.0.1", server_->port());
  idle.set_keep_alive(true);
  ASSERT_TRUE(idle.Get("/healthz"));
  server_.reset();
  EXPECT_FALSE(idle.Get("/healthz"));
}

// More than the buffers of a connection hold.
TEST_F(HttpServerTest, ALongAnswerArrivesWhole) {
  const std::string text(16 << 20, 'x');
  HttpAnswers long_one = answers();
  long_one.metrics = [&]() -> Result<std::string> { return text; };
  start({}, std::move(long_one));
  EXPECT_TRUE(get("/metrics", {{"Accept-Encoding", "identity"}}).body == text);
}

// --- Clients that take their time ----------------------------------------------------------------

// A client whose request does not come to its end.
class SlowClient {
 public:
  explicit SlowClient(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    go_on("GET /healthz HTTP/1.1\r\nX-Slow: ");
  }

  void go_on(std::string_view bytes) const {
    ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  // Whether the server has ended the connection.
  bool is_ended() const {
    std::array<char, 4096> answer;
    ssize_t got = 1;
    while (got > 0) got = ::recv(socket_.get(), answer.data(), answer.size(), MSG_DONTWAIT);
    return got == 0 || errno != EAGAIN;
  }

 private:
  Descriptor socket_;
};

class SlowClientTest : public HttpServerTest {
 protected:
  // cpp-httplib's static sets are made by the process's first request. The library is not instrumented: to
  // ThreadSanitizer, threads that come to them at once race.
  SlowClientTest() { get("/healthz"); }
  void connect(int count) {
    for (int i = 0; i < count; ++i) clients_.emplace_back(server_->port());
  }
  // Has them all go on, a byte at a time, until it is done; within a bound against hanging.
  bool go_on_until(const std::function<bool()>& done) const {
    for (int i = 0; i < 3000; ++i) {
      if (done()) return true;
      for (const SlowClient& client : clients_) client.go_on("x");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

  std::list<SlowClient> clients_;
};

TEST_F(SlowClientTest, ARequestThatDoesNotComeToItsEndIsEnded) {
  start({.request_time = std::chrono::seconds(1)}, answers());
  connect(1);
  EXPECT_TRUE(go_on_until([this] { return clients_.front().is_ended(); }));
  EXPECT_EQ(get("/healthz").status, 200);
}

TEST_F(SlowClientTest, ARequestThatIsTooLongIsEnded) {
  start({.request_time = std::chrono::hours(1)}, answers());
  connect(1);
  EXPECT_TRUE(go_on_until([this] {
    clients_.front().go_on("\r\nX-More: " + std::string(4000, 'x'));
    return clients_.front().is_ended();
  }));
}

TEST_F(SlowClientTest, MoreOfThemThanThereAreThreadsDoNotKeepOthersOut) {
  start({.request_time = std::chrono::seconds(1)}, answers());
  connect(40);
  auto asked = std::async(std::launch::async, [this] {
    httplib::Client patient = client();
    patient.set_read_timeout(60);
    const auto result = patient.Get("/healthz");
    return result ? result->status : 0;
  });
  EXPECT_TRUE(
      go_on_until([&] { return asked.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }));
  EXPECT_EQ(asked.get(), 200);
}

TEST_F(SlowClientTest, TheServersEndWaitsForNoneOfThem) {
  start({.request_time = std::chrono::hours(1)}, answers());
  connect(20);
  auto ended = std::async(std::launch::async, [this] { server_.reset(); });
  EXPECT_TRUE(
      go_on_until([&] { return ended.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }));
}

}  // namespace
}  // namespace ringtail::monitor
