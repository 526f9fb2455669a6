// What a scanner of TLS would ask a node's port: which versions it takes, and whom it lets in.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "base/logger.h"
#include "replication/asio.h"
#include "replication/network.h"
#include "support/etcd_process.h"
#include "support/run_command.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::replication {
namespace {

namespace asio = boost::asio;
using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class PeerTlsScanTest : public ::testing::Test {
 protected:
  PeerTlsScanTest() { logger().set_level(spdlog::level::off); }

  void SetUp() override {
    std::string trouble;
    ASSERT_TRUE(test::make_certificates(dir_.path(), trouble)) << trouble;
    NetworkOptions options;
    options.self = NodeId(1);
    options.incarnation = 1;
    options.cluster = "test";
    options.listen = {"127.0.0.1", 0};
    options.tls = PeerTls{dir_ / "ca.pem", dir_ / "server.pem", dir_ / "server.key"};
    auto network = Network::open(context_, options,
                                 {.up = [](Link&) {},
                                  .message = [](Link&, const Message&) {},
                                  .down = [](Link&) {},
                                  .writable = [](Link&) {},
                                  .refused = [](NodeId) {}});
    ASSERT_TRUE(network) << to_string(network.error());
    network_ = std::move(*network);
    thread_ = std::thread([this] {
      while (!stop_.load()) context_.run_one_for(std::chrono::milliseconds(5));
    });
  }
  ~PeerTlsScanTest() override {
    stop_.store(true);
    if (thread_.joinable()) thread_.join();
    network_.reset();
  }

  // All that openssl says of a connection. Its input has ended, so it goes once the handshake is done; with
  // `wait`, once the node has hung up.
  std::string scan(std::vector<std::string> more, bool wait = false) const {
    std::vector<std::string> line = {"timeout",  "20",
                                     "openssl",  "s_client",
                                     "-connect", "127.0.0.1:" + std::to_string(network_->port()),
                                     "-CAfile",  dir_ / "ca.pem"};
    if (wait) line.push_back("-ign_eof");
    line.insert(line.end(), more.begin(), more.end());
    const test::CommandResult result = test::run_command(line);
    return result.out + result.err;
  }
  std::vector<std::string> with_certificate(std::vector<std::string> more) const {
    more.insert(more.end(), {"-cert", dir_ / "client.pem", "-key", dir_ / "client.key"});
    return more;
  }

  ringtail::testing::ScratchDir dir_;
  asio::io_context context_;
  std::unique_ptr<Network> network_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_F(PeerTlsScanTest, ANodeWithItsCertificateIsServedByTheLatestVersionAlone) {
  const std::string said = scan(with_certificate({"-tls1_3"}));
  EXPECT_THAT(said, HasSubstr("Verification: OK"));
  EXPECT_THAT(said, ContainsRegex("New, TLSv1.3, Cipher is TLS_(AES|CHACHA20)"));
  EXPECT_THAT(said, HasSubstr("Compression: NONE"));
  EXPECT_THAT(said, HasSubstr("Requested Signature Algorithms"));  // it asks for a certificate
  EXPECT_THAT(said, Not(HasSubstr("alert")));
}

TEST_F(PeerTlsScanTest, OlderVersionsAreRefusedByTheNode) {
  for (const char* version : {"-tls1", "-tls1_1", "-tls1_2"}) {
    SCOPED_TRACE(version);
    // The client's own caution is set aside, so that it is the node who refuses: with alert 70.
    const std::string said = scan(with_certificate({version, "-cipher", "ALL:@SECLEVEL=0"}));
    EXPECT_THAT(said, HasSubstr("alert number 70"));
    EXPECT_THAT(said, HasSubstr("Cipher is (NONE)"));
  }
}

TEST_F(PeerTlsScanTest, WithoutACertificateNobodyIsLetIn) {
  // By 1.3 the client has finished when it hears of it: alert 116, a certificate is required.
  EXPECT_THAT(scan({"-tls1_3"}, true), HasSubstr("alert number 116"));
}

TEST_F(PeerTlsScanTest, ACertificateOfAnotherAuthorityIsRefused) {
  EXPECT_THAT(scan({"-tls1_3", "-cert", dir_ / "other.pem", "-key", dir_ / "other.key"}, true),
              AnyOf(HasSubstr("alert number 48"), HasSubstr("alert number 42")));
}

TEST_F(PeerTlsScanTest, WeakCiphersOfTheLatestVersionAreNotTaken) {
  // Suites without encryption, or with a short tag, which 1.3 has names for.
  const std::string said = scan(with_certificate({"-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_8_SHA256"}));
  EXPECT_THAT(said, HasSubstr("alert number 40"));
}

}  // namespace
}  // namespace ringtail::replication
