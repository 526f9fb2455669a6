// The web server: what it answers, and whom.
#include "monitor/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

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
  HttpServerTest() {
    auto started = HttpServer::start({}, answers());
    EXPECT_TRUE(started) << to_string(started.error());
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
  EXPECT_THAT(second.error().message, HasSubstr(std::to_string(server_->port())));
}

TEST_F(HttpServerTest, EndsWhileSomebodyIsConnected) {
  httplib::Client idle("127.0.0.1", server_->port());
  idle.set_keep_alive(true);
  ASSERT_TRUE(idle.Get("/healthz"));
  server_.reset();
  EXPECT_FALSE(idle.Get("/healthz"));
}

}  // namespace
}  // namespace ringtail::monitor
