#include "monitor/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <httplib.h>
#include <pthread.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "base/random.h"

namespace ringtail::monitor {
namespace {

constexpr std::size_t kThreads = 8;
constexpr std::size_t kMaxBody = 4096;  // nobody has anything to send
constexpr int kTimeoutS = 5;

bool is_loopback(const std::string& host) {
  in_addr four;
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  return host == "localhost" || host == "::1";
}

// The host that a request was meant for: "localhost:9464" -> "localhost".
std::string host_of(const httplib::Request& request) {
  std::string host = request.get_header_value("Host");
  if (host.starts_with('[')) {
    host = host.substr(1, std::min(host.find(']'), host.size()) - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  std::ranges::transform(host, host.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return host;
}

void refuse(httplib::Response& response, int status, const char* why) {
  response.status = status;
  response.set_content(std::string(why) + "\n", "text/plain; charset=utf-8");
}

void answer(httplib::Response& response, const Result<std::string>& content, const char* type) {
  if (content) {
    response.set_content(*content, type);
  } else {
    refuse(response, 503, to_string(content.error()).c_str());
  }
}

void answer(httplib::Response& response, const HealthAnswer& health) {
  response.status = health.good ? 200 : 503;
  response.set_content(health.text + "\n", "text/plain; charset=utf-8");
}

void send_page(httplib::Response& response) {
  const auto token = random_token();
  if (!token) return refuse(response, 503, to_string(token.error()).c_str());
  const std::string nonce = to_hex(*token);
  std::string page(dashboard_page());
  for (std::size_t at = page.find(kPageNonce); at != std::string::npos; at = page.find(kPageNonce, at))
    page.replace(at, kPageNonce.size(), nonce);
  response.set_header("Content-Security-Policy",
                      fmt::format("default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; "
                                  "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                                  "frame-ancestors 'none'",
                                  nonce));
  response.set_content(page, "text/html; charset=utf-8");
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, HttpAnswers answers)
      : options_(std::move(options)), answers_(std::move(answers)) {}

  ~Impl() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

  Status start() {
    if (!options_.allow_remote && !is_loopback(options_.host))
      return fail(Code::invalid_argument,
                  fmt::format("{} can be reached from other hosts, and that was not allowed", options_.host));
    set_up();
    port_ = options_.port == 0                                   ? server_.bind_to_any_port(options_.host)
            : server_.bind_to_port(options_.host, options_.port) ? options_.port
                                                                 : -1;
    if (port_ < 0)
      return fail(
          Code::system,
          fmt::format("cannot listen on {} port {}: {}", options_.host, options_.port, std::strerror(errno)),
          errno);
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "ringtail-http");  // its workers inherit the name
      server_.listen_after_bind();
    });
    // A server that is stopped before it runs would run on.
    while (!server_.is_running()) std::this_thread::yield();
    return {};
  }

  std::uint16_t port() const { return static_cast<std::uint16_t>(port_); }

 private:
  void set_up() {
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_.set_payload_max_length(kMaxBody);
    // A connection holds a thread as long as it is open, and keeps stop() waiting: one request each.
    server_.set_keep_alive_max_count(1);
    server_.set_keep_alive_timeout(1);
    server_.set_read_timeout(kTimeoutS);
    server_.set_write_timeout(kTimeoutS);
    // Whoever listens on the port already keeps it.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server_.set_default_headers({{"X-Content-Type-Options", "nosniff"},
                                 {"X-Frame-Options", "DENY"},
                                 {"Referrer-Policy", "no-referrer"},
                                 {"Cross-Origin-Resource-Policy", "same-origin"},
                                 {"Cache-Control", "no-store"}});
    server_.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      return admit(request, response) ? httplib::Server::HandlerResponse::Unhandled
                                      : httplib::Server::HandlerResponse::Handled;
    });
    server_.set_exception_handler([](const auto&, httplib::Response& response, const std::exception_ptr&) {
      refuse(response, 500, "the request could not be answered");
    });
    using Request = httplib::Request;
    using Response = httplib::Response;
    server_.Get("/", [](const Request&, Response& response) { send_page(response); });
    server_.Get("/metrics", [this](const Request&, Response& response) {
      answer(response, answers_.metrics(), "text/plain; version=0.0.4; charset=utf-8");
    });
    server_.Get("/api/state", [this](const Request&, Response& response) {
      answer(response, answers_.state(), "application/json");
    });
    server_.Get("/healthz",
                [this](const Request&, Response& response) { answer(response, answers_.health()); });
    server_.Get("/readyz",
                [this](const Request&, Response& response) { answer(response, answers_.ready()); });
  }

  bool admit(const httplib::Request& request, httplib::Response& response) const {
    if (request.method != "GET") {
      response.set_header("Allow", "GET");
      refuse(response, 405, "only GET is served");
      return false;
    }
    if (!options_.allow_remote && !is_loopback(host_of(request))) {
      refuse(response, 403, "ask for localhost; other names are served with http.allow_remote only");
      return false;
    }
    return true;
  }

  HttpOptions options_;
  HttpAnswers answers_;
  httplib::Server server_;
  int port_ = -1;
  std::thread thread_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;
std::uint16_t HttpServer::port() const { return impl_->port(); }

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpOptions& options, HttpAnswers answers) {
  auto impl = std::make_unique<Impl>(options, std::move(answers));
  if (auto started = impl->start(); !started) return std::unexpected(started.error());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace ringtail::monitor
