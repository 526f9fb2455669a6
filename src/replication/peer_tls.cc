#include "replication/peer_tls.h"

#include <fmt/format.h>
#include <openssl/x509_vfy.h>

#include "base/logger.h"
#include "replication/asio.h"

namespace ringtail::replication {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr int kSoonDays = 14;

// What another node with the same authority would hold against this context's certificate; empty: nothing.
std::string objection_to(SSL_CTX* context, int purpose) {
  const std::unique_ptr<X509_STORE_CTX, decltype(&X509_STORE_CTX_free)> check(X509_STORE_CTX_new(),
                                                                              &X509_STORE_CTX_free);
  STACK_OF(X509)* chain = nullptr;
  SSL_CTX_get0_chain_certs(context, static_cast<void*>(&chain));
  if (check == nullptr || X509_STORE_CTX_init(check.get(), SSL_CTX_get_cert_store(context),
                                              SSL_CTX_get0_certificate(context), chain) != 1)
    return "it cannot be checked";
  X509_STORE_CTX_set_purpose(check.get(), purpose);
  if (X509_verify_cert(check.get()) == 1) return {};
  return X509_verify_cert_error_string(X509_STORE_CTX_get_error(check.get()));
}

std::string time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "an unknown time";
  return fmt::format("{}-{:02}-{:02} {:02}:{:02} UTC", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min);
}

void look_at_certificate(SSL_CTX* context, const PeerTls& files) {
  const ASN1_TIME* const end = X509_get0_notAfter(SSL_CTX_get0_certificate(context));
  // It is shown to those who connect and to those who are connected to.
  std::string objection = objection_to(context, X509_PURPOSE_SSL_SERVER);
  if (objection.empty()) objection = objection_to(context, X509_PURPOSE_SSL_CLIENT);
  if (!objection.empty()) {
    logger().error(
        "replication: other nodes will refuse the certificate '{}': {} (it is valid until {}, the authority "
        "is "
        "'{}'); renew it, and send SIGHUP",
        files.certificate.native(), objection, time_of(end), files.ca.native());
    return;
  }
  int days = 0;
  int seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, end) == 1 && days < kSoonDays)
    logger().warn("replication: the certificate '{}' is valid until {}; renew it before, and send SIGHUP",
                  files.certificate.native(), time_of(end));
}

}  // namespace

Result<std::shared_ptr<asio::ssl::context>> load_peer_tls(const PeerTls& files) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls);
  error_code error;
  const auto refuse = [&](const std::filesystem::path& path, const char* what) {
    return fail(Code::invalid_argument, fmt::format("the {} for replication, '{}', cannot be used: {}", what,
                                                    path.native(), error.message()));
  };
  // Both ends are ours, so nothing older is needed, nor any choice of ciphers.
  if (SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_3_VERSION) != 1)
    return fail(Code::unsupported, "this build's OpenSSL has no TLS 1.3, which replication takes");
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  if (context->load_verify_file(files.ca.string(), error)) return refuse(files.ca, "authority's certificate");
  if (context->use_certificate_chain_file(files.certificate.string(), error))
    return refuse(files.certificate, "certificate");
  if (context->use_private_key_file(files.key.string(), asio::ssl::context::pem, error))
    return refuse(files.key, "key");
  look_at_certificate(context->native_handle(), files);
  return context;
}

std::string describe_tls(const SSL& connection, const error_code& error) {
  if (const long verdict = SSL_get_verify_result(&connection); verdict != X509_V_OK)
    return fmt::format("TLS: this node refuses the other's certificate: {}",
                       X509_verify_cert_error_string(verdict));
  if (error.category() != asio::error::get_ssl_category()) return error.message();
  const bool told = error.message().find("alert") != std::string::npos;
  return fmt::format("TLS: {}{}", told ? "the other node refuses this one's certificate: " : "",
                     error.message());
}

}  // namespace ringtail::replication
