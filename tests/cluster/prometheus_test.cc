// A real Prometheus looks at three hosts: what rules and charts name is there, and no rule is malformed.
#include <httplib.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "cluster/scene.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class PrometheusTest : public ClusterTest {
 protected:
  void SetUp() override {
    if (run_command({"sh", "-c", "command -v prometheus"}).exit_code != 0)
      GTEST_SKIP() << "prometheus is missing; install it: apt-get install prometheus";
    ClusterTest::SetUp();
  }

  void start_prometheus() {
    const auto dir = cluster_.directory() / "prometheus";
    std::filesystem::create_directories(dir);
    std::string targets;
    for (int node = 1; node <= cluster_.size(); ++node)
      targets += (node == 1 ? "\"" : ", \"") + cluster_.http_address(node) + "\"";
    std::ofstream(dir / "prometheus.yml")
        << "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        << "rule_files: [\"" RINGTAIL_SOURCE_DIR "/docs/alerts.yml\"]\n"
        << "scrape_configs:\n- job_name: ringtail\n  static_configs:\n  - targets: [" << targets << "]\n";
    port_ = find_free_port();
    prometheus_ = std::make_unique<Command>(std::vector<std::string>{
        "setpriv", "--pdeathsig", "KILL", "sh", "-c", "exec \"$@\" > \"$0\" 2>&1", (dir / "log").string(),
        "prometheus", "--config.file=" + (dir / "prometheus.yml").string(),
        "--storage.tsdb.path=" + (dir / "data").string(),
        "--web.listen-address=127.0.0.1:" + std::to_string(port_)});
  }
  // What its API answers; null while it does not.
  json ask(const std::string& what) const {
    const auto answer = httplib::Client("127.0.0.1", port_).Get("/api/v1/" + what);
    if (!answer) return {};
    const json object = json::parse(answer->body, nullptr, false);
    return object.is_object() && object.contains("data") ? object["data"] : json();
  }

  int port_ = 0;
  std::unique_ptr<Command> prometheus_;
};

std::set<std::string> names_in(const std::string& file) {
  std::ifstream stream(std::filesystem::path(RINGTAIL_SOURCE_DIR) / file);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  const std::regex name("ringtail_[a-z_]*[a-z]");
  std::set<std::string> names;
  for (std::sregex_iterator found(text.begin(), text.end(), name), end; found != end; ++found)
    names.insert(found->str());
  return names;
}

TEST_F(PrometheusTest, FindsWhatRulesAndChartsNameOnEveryHost) {
  const std::string log_dir = cluster_.log_dir(1).string();
  const CommandResult consumed = run_command(
      {RINGTAIL_BINARY, "consume", kTopic, "--group", "billing", "--from-beginning", "--max-messages", "10"},
      {}, {"RINGTAIL_DIR=" + log_dir});
  ASSERT_EQ(consumed.exit_code, 0) << consumed.err;
  start_prometheus();

  std::set<std::string> wanted = names_in("docs/alerts.yml");
  wanted.merge(names_in("docs/grafana.json"));
  ASSERT_GT(wanted.size(), 20u);
  std::vector<std::string> missing;
  EXPECT_TRUE(Cluster::wait_until([&] {
    const json names = ask("label/__name__/values");
    missing.clear();
    for (const std::string& name : wanted)
      if (!names.is_array() || std::ranges::find(names, json(name)) == names.end()) missing.push_back(name);
    return missing.empty();
  }));
  EXPECT_THAT(missing, IsEmpty()) << cluster_.describe();

  // Ten scrapes of each, all of which were answered.
  ASSERT_TRUE(Cluster::wait_until([&] {
    const json scraped = ask("query?query=count_over_time(up%5B1m%5D)%3E%3D10");
    return scraped.is_object() && scraped["result"].size() == 3;
  }));
  const json up = ask("query?query=min_over_time(up%5B10s%5D)")["result"];
  ASSERT_THAT(up, SizeIs(3));
  for (const json& one : up) EXPECT_EQ(one["value"][1].get<std::string>(), "1") << one;
  for (const json& group : ask("rules")["groups"])
    for (const json& rule : group["rules"]) EXPECT_EQ(rule["health"].get<std::string>(), "ok") << rule;
  const json leaders = ask("query?query=ringtail_replica_leader%7Btopic%3D%22orders%22%7D")["result"];
  ASSERT_THAT(leaders, SizeIs(3));  // all name the same
  for (const json& one : leaders)
    EXPECT_EQ(one["value"][1].get<std::string>(), std::to_string(*cluster_.leader(kTopic))) << one;
  prometheus_.reset();
  expect_promises_kept();
}

}  // namespace
}  // namespace ringtail::test
