// TLS and users, and the options that ask for them; against an etcd that insists on them.
#include "support/etcd_process.h"
#include "unit/base/scratch_dir.h"
#include "unit/replication/etcd_test_support.h"
#include "unit/replication/nodes.h"

namespace ringtail::replication {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::ScratchDir;

class EtcdTlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string trouble;
    ASSERT_TRUE(test::make_certificates(dir_.path(), trouble)) << trouble;
    etcd_ = std::make_unique<test::EtcdProcess>(
        std::vector<std::string>{"--cert-file", dir_ / "server.pem", "--key-file", dir_ / "server.key",
                                 "--client-cert-auth", "--trusted-ca-file", dir_ / "ca.pem"},
        "https");
    ASSERT_TRUE(etcd_->start()) << etcd_->trouble();
  }

  EtcdCoordinatorOptions options() const {
    EtcdCoordinatorOptions options = options_for({etcd_->endpoint()});
    options.etcd.ca_file = dir_ / "ca.pem";
    options.etcd.certificate_file = dir_ / "client.pem";
    options.etcd.key_file = dir_ / "client.key";
    return options;
  }

  ScratchDir dir_;
  std::unique_ptr<test::EtcdProcess> etcd_;
};

TEST_F(EtcdTlsTest, WithACertificateTheClusterWorksAsWithout) {
  const auto one = open_coordinator(options());
  ASSERT_TRUE(one->join(node_record(1)));
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
  EXPECT_TRUE(eventually([&] { return one->state()->topics.contains("t"); }));
  const std::int64_t first_ns = one->lease_deadline_ns();
  EXPECT_TRUE(eventually([&] { return one->lease_deadline_ns() > first_ns; }));
  ASSERT_TRUE(one->leave());
  EXPECT_TRUE(eventually([&] { return !sees(*one, kOne); }));
}

TEST_F(EtcdTlsTest, AServerThatAnotherAuthorityVouchesForIsNotTrusted) {
  auto distrustful = options();
  distrustful.etcd.ca_file = dir_ / "other.pem";
  const auto one = open_coordinator(distrustful);
  const Status joined = one->join(node_record(1), {.wait = Milliseconds(200)});
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::timed_out);
  EXPECT_THAT(joined.error().message, HasSubstr("other.pem"));
}

TEST_F(EtcdTlsTest, WithoutACertificateOrWithoutTlsNothingIsServed) {
  auto bare = options();
  bare.etcd.certificate_file.clear();
  bare.etcd.key_file.clear();
  auto plain = options_for({"http" + etcd_->endpoint().substr(5)});
  for (const auto& wrong : {bare, plain}) {
    const auto one = open_coordinator(wrong);
    EXPECT_EQ(one->observe(Milliseconds(200)).error().code, Code::timed_out);
    EXPECT_EQ(one->state()->revision, 0);
    EXPECT_FALSE(one->health().last_error.empty());
  }
}

class EtcdUserTest : public EtcdTest {
 protected:
  explicit EtcdUserTest() = default;

  // A user "ringtail" who may do nothing but what the cluster needs.
  void SetUp() override {
    EtcdTest::SetUp();
    const auto grant_all = [&](const char* user, const char* role) {
      ASSERT_TRUE(post("/v3/auth/user/add", {{"name", user}, {"password", "secret"}}));
      ASSERT_TRUE(post("/v3/auth/role/add", {{"name", role}}));
      ASSERT_TRUE(post("/v3/auth/user/grant", {{"user", user}, {"role", role}}));
    };
    grant_all("root", "root");
    grant_all("ringtail", "cluster");
    ASSERT_TRUE(post("/v3/auth/role/grant", {{"name", "cluster"},
                                             {"perm",
                                              {{"permType", "READWRITE"},
                                               {"key", to_base64("/ringtail/")},
                                               {"range_end", to_base64("/ringtail0")}}}}));
    ASSERT_TRUE(post("/v3/auth/enable", nlohmann::json::object()));
  }

  EtcdCoordinatorOptions options_as(std::string user, std::string password) const {
    auto made = options();
    made.etcd.user = std::move(user);
    made.etcd.password = std::move(password);
    return made;
  }
};

TEST_F(EtcdUserTest, AUserWithThePasswordWorksAndItsTokenIsRenewed) {
  const auto one = open_coordinator(options_as("ringtail", "secret"));
  const Status joined = one->join(node_record(1));
  ASSERT_TRUE(joined) << to_string(joined.error());
  EXPECT_EQ(one->commit(std::vector<Change>{{topic_record("t")}}), true);
  // An etcd that was started anew does not know the tokens it gave out before.
  etcd_.kill();
  ASSERT_TRUE(etcd_.start()) << etcd_.trouble();
  EXPECT_TRUE(eventually([&] { return one->commit(std::vector<Change>{{topic_record("u")}}) == true; }));
  EXPECT_TRUE(eventually([&] { return one->state()->topics.contains("u") && sees(*one, kOne); }));
  EXPECT_TRUE(eventually([&] { return one->lease_deadline_ns() > boottime_ns(); }));
}

TEST_F(EtcdUserTest, AWrongPasswordIsRefusedAndNeverSaid) {
  const auto one = open_coordinator(options_as("ringtail", "guessed"));
  const Status joined = one->join(node_record(1));
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::permission_denied);
  EXPECT_THAT(joined.error().message, HasSubstr("'ringtail'"));
  EXPECT_THAT(joined.error().message, Not(HasSubstr("guessed")));
}

TEST_F(EtcdUserTest, WithoutAUserOrOutsideItsKeysNothingIsPermitted) {
  const Status joined = open_coordinator(options())->join(node_record(1));
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Code::permission_denied);
  EXPECT_THAT(joined.error().message, HasSubstr("asks for a user"));
  EtcdSession session(options_as("ringtail", "secret").etcd);
  EtcdConnection connection(session);
  const auto read = read_keys(connection, {"/other/key"});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::permission_denied);
}

TEST(EtcdOptionsTest, WhatCannotBeIsRefusedWithTheRemedy) {
  const auto refused = [](auto change) {
    auto options = options_for({"http://127.0.0.1:2379"});
    change(options);
    const auto opened = EtcdCoordinator::open(options);
    return opened ? std::string() : opened.error().message;
  };
  EXPECT_THAT(refused([](auto& o) { o.etcd.endpoints.clear(); }), HasSubstr("no endpoint"));
  EXPECT_THAT(refused([](auto& o) { o.etcd.endpoints = {"127.0.0.1:2379"}; }), HasSubstr("http://host:port"));
  EXPECT_THAT(refused([](auto& o) { o.etcd.endpoints = {"http://127.0.0.1"}; }),
              HasSubstr("http://host:port"));
  EXPECT_THAT(refused([](auto& o) { o.etcd.certificate_file = "/x"; }), HasSubstr("https://"));
  EXPECT_THAT(refused([](auto& o) {
                o.etcd.endpoints = {"https://127.0.0.1:2379"};
                o.etcd.certificate_file = "/x";
              }),
              HasSubstr("needs its key"));
  EXPECT_THAT(refused([](auto& o) { o.etcd.password = "secret"; }), HasSubstr("no user"));
  EXPECT_THAT(refused([](auto& o) { o.etcd.ca_file = "/nowhere/ca.pem"; }), HasSubstr("/nowhere/ca.pem"));
  EXPECT_THAT(refused([](auto& o) { o.cluster = "a/b"; }), HasSubstr("'a/b'"));
  EXPECT_THAT(refused([](auto& o) { o.lease_ttl = Milliseconds(0); }), HasSubstr("lease"));
  EXPECT_EQ(refused([](auto&) {}), "");
}

TEST(Base64Test, GivesBytesOfAnyLengthBack) {
  EXPECT_EQ(to_base64("foo"), "Zm9v");
  EXPECT_EQ(to_base64(""), "");
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(from_base64(to_base64(bytes)), bytes);
    bytes += static_cast<char>(i * 7);
  }
  EXPECT_EQ(from_base64("no base64!"), "");
}

}  // namespace
}  // namespace ringtail::replication
