// What is secret stays so: the password for etcd, and private keys. Whatever a daemon says or shows is looked
// through for them.
#include "integration/daemon.h"

#include "support/etcd_process.h"

namespace ringtail::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// No character of it has to be quoted anywhere, and nobody says it by chance.
constexpr std::string_view kPassword = "sesame-7f3a9c41d2";
constexpr std::string_view kWrong = "mellon-0b5e8812fa";

class SecretsTest : public DaemonTest {
 protected:
  void SetUp() override {
    std::string trouble;
    ASSERT_TRUE(make_certificates(directory(), trouble)) << trouble;
    ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
    const auto post = [this](const std::string& path, const std::string& body) {
      const auto answer = httplib::Client(etcd_.endpoint()).Post(path, body, "application/json");
      ASSERT_TRUE(answer && answer->status == 200) << path << ": " << (answer ? answer->body : "no answer");
    };
    for (const std::string user : {"root", "ringtail"}) {
      post("/v3/auth/user/add",
           R"({"name":")" + user + R"(","password":")" + std::string(kPassword) + R"("})");
      post("/v3/auth/user/grant", R"({"user":")" + user + R"(","role":"root"})");
    }
    post("/v3/auth/enable", "{}");
    write_private("password", kPassword);
    std::filesystem::permissions(directory() / "server.key", std::filesystem::perms::owner_read);
  }

  void write_private(const std::string& name, std::string_view content) const {
    const auto path = write_file(name, std::string(content) + "\n");
    std::filesystem::permissions(path,
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }
  void configure_node() const {
    write_file(
        "ringtaild.toml",
        "[http]\nlisten = \"127.0.0.1:0\"\n[logging]\nlevel = \"trace\"\nfile = \"" + log_file().string() +
            "\"\n[node]\nid = 1\nreplication_listen = \"127.0.0.1:" + std::to_string(find_free_port()) +
            "\"\n[cluster]\nname = \"test\"\netcd = [\"" + etcd_.endpoint() +
            "\"]\nuser = \"ringtail\"\npassword_file = \"" + (directory() / "password").string() +
            "\"\n[replication]\nca = \"" + (directory() / "ca.pem").string() + "\"\ncertificate = \"" +
            (directory() / "server.pem").string() + "\"\nkey = \"" + (directory() / "server.key").string() +
            "\"\n");
  }

  // Neither as it stands nor as etcd and HTTP write it, nor a line of the key.
  void expect_no_secret(const std::string& text, const std::string& where) const {
    SCOPED_TRACE(where);
    EXPECT_FALSE(text.empty());
    for (const std::string_view secret : {kPassword, kWrong}) {
      EXPECT_THAT(text, Not(HasSubstr(std::string(secret))));
      EXPECT_THAT(text, Not(HasSubstr(std::string(secret.substr(0, 8)))));
    }
    for (const std::string& line : lines_of(read_file(directory() / "server.key")))
      if (!line.starts_with("-----")) {
        EXPECT_THAT(text, Not(HasSubstr(line.substr(0, 32))));
      }
    EXPECT_THAT(text, Not(HasSubstr("PRIVATE KEY")));
  }
  void expect_no_secret_in_anything() const {
    expect_no_secret(read_file(log_file()), "log");
    for (const char* page : {"/api/state", "/metrics", "/healthz", "/readyz", "/"})
      expect_no_secret(get(page).body, page);
    const std::string process = "/proc/" + std::to_string(daemon_->pid());
    expect_no_secret(read_file(process + "/cmdline"), "arguments");
    expect_no_secret(read_file(process + "/environ"), "environment");
  }

  EtcdProcess etcd_;
};

TEST_F(SecretsTest, ANodeThatWorksSaysNone) {
  configure_node();
  start();
  const auto checked = run_command(daemon_line({"--check"}));
  EXPECT_EQ(checked.exit_code, 0) << checked.err;
  expect_no_secret(checked.out + checked.err, "--check");
  const auto as_json = run_command(daemon_line({"--check", "--json"}));
  expect_no_secret(as_json.out + as_json.err, "--check --json");
  const auto status = run_command(command_line({"cluster", "status", "--json"}), {},
                                  {"RINGTAILD_CONFIG=" + config_file().string()});
  EXPECT_EQ(status.exit_code, 0) << status.err;
  expect_no_secret(status.out + status.err, "ringtail cluster status");
  expect_no_secret_in_anything();
  const CommandResult ended = stop();
  EXPECT_EQ(ended.exit_code, 0);
  expect_no_secret("output: " + ended.out + ended.err, "output");
  expect_no_secret(read_file(log_file()), "log to its end");
}

TEST_F(SecretsTest, ANodeThatIsRefusedDoesNotSayByWhat) {
  configure_node();
  write_private("password", kWrong);
  const CommandResult ended = run_command(daemon_line());
  EXPECT_NE(ended.exit_code, 0);
  expect_no_secret("output: " + ended.out + ended.err, "output");
  const std::string log = read_file(log_file());
  expect_no_secret(log, "log");
  EXPECT_THAT(log, HasSubstr("ringtail"));  // who was refused
}

}  // namespace
}  // namespace ringtail::test
