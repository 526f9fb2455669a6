#include "replication/etcd_connection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <httplib.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <utility>

#include "base/clock.h"
#include "base/logger.h"

namespace ringtail::replication {

namespace {

constexpr int kOk = 200;
constexpr int kUnauthorized = 401;
constexpr std::size_t kMaxAnswerBytes = 64 << 20;

// Codes of gRPC, as etcd uses them.
enum GrpcCode : std::int64_t {
  kInvalidArgument = 3,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kOutOfRange = 11,
  kUnauthenticated = 16,
};

// A peer that has gone makes writes raise SIGPIPE, which a library must not leave to its user's handler.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;
  ~NoSigpipe() {
    const timespec at_once{};
    if (!was_pending_) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

// A host that vanished without a word is noticed within seconds.
void set_socket_options(socket_t socket) {
  const auto set = [&](int level, int name, int value) {
    (void)::setsockopt(socket, level, name, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 2);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 5'000);
}

// Whether the request cannot have reached etcd.
bool never_sent(httplib::Error error) {
  switch (error) {
    case httplib::Error::Connection:
    case httplib::Error::ConnectionTimeout:
    case httplib::Error::BindIPAddress:
    case httplib::Error::SSLConnection:
    case httplib::Error::SSLLoadingCerts:
    case httplib::Error::SSLServerVerification: return true;
    default: return false;
  }
}

std::string describe(httplib::Error error, const EtcdOptions& options, std::chrono::milliseconds patience,
                     bool in_time) {
  switch (error) {
    case httplib::Error::Connection: return "no connection";
    case httplib::Error::ConnectionTimeout: return "no connection in time";
    case httplib::Error::Read:
    case httplib::Error::Write:
      return in_time ? "the connection broke" : fmt::format("no answer within {} ms", patience.count());
    case httplib::Error::SSLConnection:
      return "no TLS connection; does etcd ask for a client's certificate, and is its address https?";
    case httplib::Error::SSLLoadingCerts:
      return fmt::format("cannot load the authorities in '{}'", options.ca_file);
    case httplib::Error::SSLServerVerification:
      return fmt::format(
          "its certificate is not vouched for by the authorities in '{}', or is for another host",
          options.ca_file);
    default: return httplib::to_string(error);
  }
}

// etcd does not know the token: it is too old, etcd began anew, or users were changed. Nothing was done.
bool refuses_token(std::int64_t code, std::string_view message) {
  return code == kUnauthenticated || message.find("invalid auth token") != std::string_view::npos ||
         message.find("user name is empty") != std::string_view::npos ||
         message.find("header is old") != std::string_view::npos;
}

Code code_of(std::int64_t grpc) {
  switch (grpc) {
    case kInvalidArgument: return Code::invalid_argument;
    case kNotFound: return Code::not_found;
    case kPermissionDenied:
    case kUnauthenticated: return Code::permission_denied;
    case kResourceExhausted: return Code::limit_exceeded;
    case kOutOfRange: return Code::offset_out_of_range;
    default: return Code::system;
  }
}

// etcd's own refusals; all else that it answers may mean that the request is still on its way.
bool is_refusal(std::int64_t grpc) { return grpc == kFailedPrecondition || code_of(grpc) != Code::system; }

}  // namespace

struct EtcdConnection::Outcome {
  bool answered = false;
  bool sent = true;       // false: it certainly was not
  std::int64_t grpc = 0;  // of an answer that is an error, as `message`
  std::string message;
  Json json;
  std::string token;  // by which it was sent
};

EtcdConnection::EtcdConnection(EtcdSession& session, std::chrono::milliseconds patience)
    : session_(session),
      connect_timeout_(std::min(patience, session.options().connect_timeout)),
      request_timeout_(std::min(patience, session.options().request_timeout)) {}

EtcdConnection::~EtcdConnection() = default;

const std::string& EtcdConnection::endpoint() const { return session_.options().endpoints[at_]; }

void EtcdConnection::avoid_endpoint() {
  disconnect();
  at_ = (at_ + 1) % session_.options().endpoints.size();
}

void EtcdConnection::connect() {
  if (client_ != nullptr) return;
  const EtcdOptions& options = session_.options();
  auto client = std::make_unique<httplib::Client>(endpoint(), options.certificate_file, options.key_file);
  if (!options.ca_file.empty()) client->set_ca_cert_path(options.ca_file);
  client->enable_server_certificate_verification(true);
  // What is older is broken; etcd itself takes 1.2 and 1.3.
  if (SSL_CTX* const context = client->ssl_context()) SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  client->set_connection_timeout(connect_timeout_);
  client->set_write_timeout(request_timeout_);
  client->set_keep_alive(true);
  client->set_tcp_nodelay(true);
  client->set_socket_options(set_socket_options);
  const std::lock_guard lock(client_mutex_);
  client_ = std::move(client);
}

void EtcdConnection::disconnect() {
  const std::lock_guard lock(client_mutex_);
  client_.reset();
}

void EtcdConnection::interrupt() {
  const std::lock_guard lock(client_mutex_);
  if (client_ != nullptr) client_->stop();
}

EtcdConnection::Outcome EtcdConnection::send(const std::string& path, const Json& body,
                                             std::chrono::milliseconds answer_timeout,
                                             const OnData* on_data) {
  const NoSigpipe no_sigpipe;
  connect();
  Outcome outcome;
  outcome.token = session_.token();
  httplib::Request request;
  request.method = "POST";
  request.path = path;
  request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  request.set_header("Content-Type", "application/json");
  if (!outcome.token.empty()) request.set_header("Authorization", outcome.token);
  // A member that is cut off from the others must say so rather than fall silent.
  if (on_data != nullptr) request.set_header("Grpc-Metadata-hasleader", "true");
  int status = 0;
  std::string answer;
  request.response_handler = [&](const httplib::Response& head) {
    status = head.status;
    return true;
  };
  request.content_receiver = [&](const char* data, std::size_t size, std::uint64_t, std::uint64_t) {
    if (status == kOk && on_data != nullptr) return (*on_data)({data, size});
    answer.append(data, size);
    return answer.size() <= kMaxAnswerBytes;
  };
  client_->set_read_timeout(answer_timeout);
  httplib::Response response;
  httplib::Error error = httplib::Error::Success;
  const auto sent_at = std::chrono::steady_clock::now();
  const bool done = client_->send(request, response, error);
  if (status == kOk && on_data != nullptr) {
    outcome.answered = true;
    return outcome;
  }
  // The gateway puts trailers behind its refusals, which httplib takes for a broken connection; an object that
  // is complete is an answer all the same.
  outcome.json = Json::parse(answer, nullptr, false);
  if (!done && !outcome.json.is_object()) {
    outcome.sent = !never_sent(error);
    outcome.message = describe(error, session_.options(), answer_timeout,
                               std::chrono::steady_clock::now() - sent_at < answer_timeout);
    return outcome;
  }
  outcome.answered = true;
  if (status == kOk && outcome.json.is_object()) return outcome;
  // "message" of etcd 3.4 and later, "error" of what went before; neither, if it was no etcd that answered.
  outcome.grpc = number_in(outcome.json, "code");
  outcome.message = text_in(outcome.json, "message");
  if (outcome.message.empty()) outcome.message = text_in(outcome.json, "error");
  if (outcome.message.empty()) outcome.message = fmt::format("it answers with HTTP status {}", status);
  if (status == kUnauthorized) outcome.grpc = kUnauthenticated;
  if (outcome.grpc == 0) outcome.grpc = -1;
  return outcome;
}

Status EtcdConnection::authenticate() {
  const EtcdOptions& options = session_.options();
  if (options.user.empty() || !session_.token().empty()) return {};
  const Outcome outcome =
      send("/v3/auth/authenticate", {{"name", options.user}, {"password", options.password}},
           request_timeout_, nullptr);
  if (!outcome.answered) return fail(Code::timed_out, outcome.message);
  if (outcome.grpc == kFailedPrecondition) return {};  // etcd does without authentication
  if (outcome.grpc == kInvalidArgument) {
    return fail(Code::permission_denied,
                fmt::format("etcd does not know the user '{}' with this password", options.user));
  }
  if (outcome.grpc != 0) return fail(Code::timed_out, outcome.message);
  session_.set_token(text_in(outcome.json, "token"));
  return {};
}

// One endpoint. `go_on`: the next may be asked.
Result<EtcdConnection::Json> EtcdConnection::post_once(const std::string& path, const Json& body,
                                                       Effect effect, bool& go_on) {
  go_on = true;
  for (bool renewed = false;; renewed = true) {
    connect();
    if (auto known = authenticate(); !known) {
      go_on = known.error().code == Code::timed_out;
      return fail(go_on ? Code::system : known.error().code, known.error().message);
    }
    Outcome outcome = send(path, body, request_timeout_, nullptr);
    if (outcome.answered && outcome.grpc == 0) return std::move(outcome.json);
    if (outcome.answered && refuses_token(outcome.grpc, outcome.message)) {
      session_.drop_token(outcome.token);
      if (!renewed && !session_.options().user.empty()) continue;
      go_on = false;
      return fail(
          Code::permission_denied,
          fmt::format("it asks for a user with a password, or does not take the token that it gave ({})",
                      outcome.message));
    }
    if (outcome.answered && is_refusal(outcome.grpc)) {
      go_on = false;
      return fail(code_of(outcome.grpc), outcome.message);
    }
    const bool unknown = outcome.answered || outcome.sent;
    go_on = effect == Effect::repeatable || !unknown;
    return fail(unknown ? Code::timed_out : Code::system, outcome.message);
  }
}

Result<EtcdConnection::Json> EtcdConnection::post(const std::string& path, const Json& body, Effect effect) {
  const std::vector<std::string>& endpoints = session_.options().endpoints;
  std::string troubles;
  std::string failed;
  Code code = Code::system;
  for (std::size_t tried = 0; tried < endpoints.size(); ++tried) {
    bool go_on = false;
    auto answer = post_once(path, body, effect, go_on);
    const bool refused = !answer && !go_on && answer.error().code != Code::timed_out;
    if (answer || refused) session_.note_contact(endpoint());
    if (answer) return answer;
    if (refused)
      return fail(answer.error().code, fmt::format("etcd at {}: {}", endpoint(), answer.error().message));
    troubles += fmt::format("{}{}: {}", troubles.empty() ? "" : "; ", endpoint(), answer.error().message);
    if (answer.error().code == Code::timed_out) code = Code::timed_out;
    failed = endpoint();
    avoid_endpoint();
    if (!go_on) break;
  }
  const std::string message = fmt::format("{}: {}",
                                          code == Code::timed_out && effect == Effect::once
                                              ? "outcome unknown, for etcd did not answer"
                                              : "etcd cannot be reached",
                                          troubles);
  session_.note_failure(failed, message);
  return fail(code, message);
}

void EtcdConnection::note_refusal(std::string_view reason) {
  if (refuses_token(0, reason)) session_.drop_token(session_.token());
}

Status EtcdConnection::stream(const std::string& path, const Json& body, std::chrono::milliseconds idle,
                              const OnData& on_data) {
  connect();
  if (auto known = authenticate(); !known) return known;
  const Outcome outcome = send(path, body, idle, &on_data);
  disconnect();  // whatever else comes on it belongs to this stream
  if (outcome.answered && outcome.grpc == 0) return {};
  if (outcome.answered) note_refusal(outcome.message);
  return fail(outcome.answered ? code_of(outcome.grpc) : Code::timed_out, outcome.message);
}

}  // namespace ringtail::replication
