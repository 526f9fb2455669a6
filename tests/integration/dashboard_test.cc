// The dashboard as a browser renders it, from a daemon that runs.
#include "integration/daemon.h"

namespace ringtail::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class DashboardTest : public DaemonTest {
 protected:
  // The page as it stands after some seconds.
  std::string render(int port) const {
    const CommandResult result =
        run_command({"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--user-data-dir=" + (directory() / "browser").string(), "--virtual-time-budget=3000",
                     "--dump-dom", "http://127.0.0.1:" + std::to_string(port) + "/"},
                    {}, {"HOME=" + directory().string()});
    EXPECT_EQ(result.exit_code, 0) << (result.exit_code == 127 ? "install the package chromium" : result.err);
    return result.out.substr(0, result.out.find("<script"));  // what it says, not what it might say
  }
};

TEST_F(DashboardTest, ShowsTheFiguresOfTheLog) {
  start();
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"topic", "create", "quotes", "--config", "storage=memory"});
  std::string input;
  for (int i = 0; i < 1234; ++i) input += "record\n";
  run_ok({"produce", "orders", "--durable"}, input);
  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end"});
  run_ok({"produce", "orders", "--partition", "1"}, "a\nb\nc\n");
  // The page shows the latest look, once a second.
  ASSERT_TRUE(wait_until([this] {
    const auto state = nlohmann::json::parse(get("/api/state").body);
    return !state["groups"].empty() && state["groups"][0]["partitions"][1]["lag"] == 3 &&
           state["history"].size() > 2;
  }));
  const std::string page = render(port_);
  EXPECT_THAT(page, HasSubstr("<span id=\"where\" class=\"dim break\">" + log_dir().string() + "</span>"));
  EXPECT_THAT(page, HasSubstr("<td class=\"left \">orders</td><td>2</td>"));
  EXPECT_THAT(page, HasSubstr("<td>1,237</td>"));  // records kept
  EXPECT_THAT(page, HasSubstr("<td class=\"left \">quotes</td><td>1</td>"));
  EXPECT_THAT(page, AllOf(HasSubstr("<td class=\"left \">billing</td>"), HasSubstr("orders-1</td>")));
  EXPECT_THAT(page, HasSubstr("id=\"tile-lag\"><b>3</b>"));
  EXPECT_THAT(page, HasSubstr("This daemon (pid " + std::to_string(daemon_->pid()) + ") is the keeper."));
  EXPECT_THAT(page, HasSubstr("class=\"curve s0\""));
  EXPECT_THAT(page, HasSubstr("sync p99: "));
  EXPECT_THAT(page, HasSubstr("<section id=\"cluster\" hidden"));
  EXPECT_THAT(page, HasSubstr("id=\"alarm\" role=\"alert\" hidden"));
  EXPECT_THAT(page, Not(HasSubstr("No answer from the daemon")));
}

// The daemon's own page, given the state of a node in a cluster.
TEST_F(DashboardTest, ShowsAClusterWhereTheStateHasOne) {
  start();
  nlohmann::json state = nlohmann::json::parse(get("/api/state").body);
  state["cluster"] = nlohmann::json::parse(R"({"name": "main", "trouble": "fenced",
    "nodes": [{"id": 1, "rack": "a", "live": true, "draining": false, "self": true, "trouble": ""},
              {"id": 2, "rack": "b", "live": true, "draining": true, "self": false, "trouble": "TLS: no"},
              {"id": 3, "rack": "c", "live": false, "draining": false, "self": false}],
    "partitions": [{"topic": "full", "partition": 0, "leader": 1, "replicas": [1, 2], "isr": [1, 2], "epoch": 4,
                    "high_watermark": 77, "lag": {}},
                   {"topic": "short", "partition": 1, "leader": 1, "replicas": [1, 2, 3], "isr": [1], "epoch": 9,
                    "high_watermark": 5, "lag": {"2": 120}},
                   {"topic": "lost", "partition": 0, "leader": null, "replicas": [3], "isr": [3], "epoch": 2,
                    "high_watermark": 0, "lag": {}}]})");
  const std::string page = get("/").body;
  httplib::Server server;
  server.Get("/", [&](const auto&, auto& response) { response.set_content(page, "text/html"); });
  server.Get("/api/state",
             [&](const auto&, auto& response) { response.set_content(state.dump(), "application/json"); });
  const int port = server.bind_to_any_port("127.0.0.1");
  std::jthread serving([&server] { server.listen_after_bind(); });
  const std::string rendered = render(port);
  server.stop();
  EXPECT_THAT(rendered, HasSubstr("<section id=\"cluster\">"));
  EXPECT_THAT(rendered,
              HasSubstr("<b>Node 1</b> (this one)<br><span class=\"dim\">live, rack a, leads 2</span>"));
  EXPECT_THAT(rendered, HasSubstr("<b>Node 2</b><br><span class=\"dim\">draining, rack b, leads 0</span><br>"
                                  "<span class=\"bad-text break\">no connection: TLS: no</span>"));
  EXPECT_THAT(rendered, HasSubstr("This node is fenced. What stands here"));
  EXPECT_THAT(rendered, HasSubstr("<b>Node 3</b><br><span class=\"bad-text\">dead, rack c, leads 0</span>"));
  const std::string leader = "<td><span class=\"mark leader\">L</span></td>";
  const std::string in_sync = "<td><span class=\"mark isr\">✓</span></td>";
  EXPECT_THAT(rendered, HasSubstr("<td class=\"left \">full-0</td>" + leader + in_sync +
                                  "<td></td><td>2 of 2</td><td>4</td>"));
  EXPECT_THAT(rendered, HasSubstr("<td class=\"left \">short-1</td>" + leader +
                                  "<td><span class=\"mark behind\">120</span></td>"
                                  "<td><span class=\"mark gone\">–</span></td>"
                                  "<td class=\"warn-text\">1 of 3</td><td>9</td>"));
  EXPECT_THAT(rendered, HasSubstr("<td class=\"bad-text\">no leader</td>"));
  EXPECT_LT(rendered.find("lost-0"), rendered.find("short-1"));  // the worst first
  EXPECT_LT(rendered.find("short-1"), rendered.find("full-0"));
}

}  // namespace
}  // namespace ringtail::test
