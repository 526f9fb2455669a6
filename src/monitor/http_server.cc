#include "monitor/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <httplib.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "base/random.h"
#include "base/result.h"
#include "base/threads.h"

namespace ringtail::monitor {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kThreads = 8;
constexpr const char* kThreadName = "ringtail-http";
constexpr std::size_t kMaxBody = 4096;  // nobody has anything to send
constexpr std::size_t kMaxRequest = 64 << 10;
constexpr milliseconds kSilence{1'000};  // browsers connect in case they have something to ask

bool is_loopback(const std::string& host) {
  in_addr four;
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  return host == "localhost" || host == "::1";
}

// httplib keeps to itself why a name has no address. Errors: system, with the reason; as system_error.
Status check_resolves(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  const int os_errno = errno;
  if (failure == 0) {
    ::freeaddrinfo(found);
    return {};
  }
  const std::string what = fmt::format("cannot find the address of {} to listen on", host);
  if (failure == EAI_SYSTEM) return fail_errno(os_errno, what);
  return fail(Code::system, fmt::format("{}: {}", what, ::gai_strerror(failure)));
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

// --- What a client may hold ----------------------------------------------------------------------

// When the connection was accepted that this thread has taken up; it may have waited for a thread.
thread_local steady_clock::time_point accepted_at;

// Serves connections in the order in which they came. httplib's own queue makes its threads once the server
// runs, where nobody can be told that there are none to be had.
class ConnectionQueue final : public httplib::TaskQueue {
 public:
  ConnectionQueue() = default;
  ConnectionQueue(const ConnectionQueue&) = delete;
  ConnectionQueue& operator=(const ConnectionQueue&) = delete;
  ~ConnectionQueue() override { end(); }

  // To be called once. Errors: as thread_error; then it is only to be destroyed.
  Status start() {
    threads_.reserve(kThreads);
    while (threads_.size() < kThreads) {
      auto thread = start_thread("the web server", [this] { run(); });
      if (!thread) return std::unexpected(thread.error());
      threads_.push_back(std::move(*thread));
    }
    return {};
  }
  void enqueue(std::function<void()> serve) override {
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back({.serve = std::move(serve), .accepted = steady_clock::now()});
    }
    wake_.notify_one();
  }
  void shutdown() override { end(); }

 private:
  struct Waiting {
    std::function<void()> serve;
    steady_clock::time_point accepted;
  };

  void run() {
    ::pthread_setname_np(::pthread_self(), kThreadName);
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return ended_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      accepted_at = next.accepted;
      next.serve();
      lock.lock();
    }
  }
  // Waits until all that were accepted have been served.
  void end() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> waiting_;
  bool ended_ = false;
  std::vector<std::thread> threads_;
};

// A connection as httplib reads and writes it, which ends it when it cannot. Its request has to have come in
// time, however often a part of it comes, and its answer to have been taken in as long again. What can be
// done without waiting is done in any case, at the server's end, too.
class Connection final : public httplib::Stream {
 public:
  // Takes the socket over. `end` becomes readable when nobody is to be waited for any more.
  Connection(int socket, int end, steady_clock::time_point accepted, milliseconds time)
      : socket_(socket), end_(end), accepted_(accepted), time_(time) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() override { ::shutdown(socket_.get(), SHUT_RDWR); }

  // Waits for the first bytes of a request.
  bool begins() const { return wait(POLLIN, accepted_ + std::min(kSilence, time_)); }

  bool is_readable() const override { return read_ < filled_ || wait(POLLIN, accepted_ + time_); }
  bool is_writable() const override {
    return wait(POLLOUT, answer_until_.value_or(steady_clock::now() + time_));
  }
  ssize_t read(char* to, std::size_t size) override {
    if (read_ == filled_ && !fill()) return -1;
    const std::size_t count = std::min(size, filled_ - read_);
    std::memcpy(to, buffer_.data() + read_, count);
    read_ += count;
    return static_cast<ssize_t>(count);
  }
  // All of it: httplib does not come back with a rest.
  ssize_t write(const char* from, std::size_t size) override {
    if (!answer_until_) answer_until_ = steady_clock::now() + time_;
    for (std::size_t written = 0; written < size;) {
      if (!is_writable()) return -1;
      const ssize_t sent = ::send(socket_.get(), from + written, size - written, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0)
        written += static_cast<std::size_t>(sent);
      else if (errno != EAGAIN && errno != EINTR)
        return -1;
    }
    return static_cast<ssize_t>(size);
  }
  // Nobody asks who it was.
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_.get(); }

 private:
  // Whether the socket becomes ready in time.
  bool wait(short event, steady_clock::time_point until) const {
    for (;;) {
      std::array<pollfd, 2> watched = {{{socket_.get(), event, 0}, {end_, POLLIN, 0}}};
      const auto left = std::chrono::ceil<milliseconds>(until - steady_clock::now());
      const int ready =
          ::poll(watched.data(), watched.size(), static_cast<int>(std::max(left, milliseconds(0)).count()));
      if (ready >= 0 || errno != EINTR) return ready > 0 && watched[0].revents != 0;
    }
  }
  bool fill() {
    if (received_ >= kMaxRequest || !is_readable()) return false;
    const ssize_t got = ::recv(socket_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got <= 0) return false;
    read_ = 0;
    filled_ = static_cast<std::size_t>(got);
    received_ += filled_;
    return true;
  }

  Descriptor socket_;
  int end_;
  steady_clock::time_point accepted_;
  milliseconds time_;
  std::optional<steady_clock::time_point> answer_until_;
  std::array<char, 4096> buffer_;
  std::size_t read_ = 0;  // of the buffer
  std::size_t filled_ = 0;
  std::size_t received_ = 0;  // all in all
};

// httplib by itself bounds the time between two bytes, and waits at its end for whoever is connected.
class BoundedServer final : public httplib::Server {
 public:
  explicit BoundedServer(milliseconds request_time) : request_time_(request_time) {
    new_task_queue = [this] { return queue_.release(); };  // httplib deletes it
  }
  BoundedServer(const BoundedServer&) = delete;
  BoundedServer& operator=(const BoundedServer&) = delete;
  // A server that never ran keeps its socket when it stops.
  ~BoundedServer() override {
    if (queue_ && svr_sock_ != INVALID_SOCKET) ::close(svr_sock_);
  }

  // To be called before it listens. Errors: as system_error and thread_error.
  Status prepare() {
    end_ = Descriptor(::eventfd(0, EFD_CLOEXEC));
    if (!end_) return fail_errno(errno, "cannot make an event");
    queue_ = std::make_unique<ConnectionQueue>();
    return queue_->start();
  }
  // Lets no client be waited for any more, and stops.
  void end() {
    if (end_) ::eventfd_write(end_.get(), 1);
    stop();
  }

 private:
  // In the place of httplib's own. One request each: a connection holds a thread as long as it is open.
  bool process_and_close_socket(socket_t socket) override {
    Connection connection(socket, end_.get(), accepted_at, request_time_);
    bool ignored = false;
    return connection.begins() && process_request(connection, true, ignored, nullptr);
  }

  milliseconds request_time_;
  Descriptor end_;
  std::unique_ptr<ConnectionQueue> queue_;  // until the server runs
};

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, HttpAnswers answers)
      : options_(std::move(options)), answers_(std::move(answers)), server_(options_.request_time) {}

  ~Impl() {
    server_.end();
    if (thread_.joinable()) thread_.join();
  }

  Status start() {
    if (!options_.allow_remote && !is_loopback(options_.host))
      return fail(Code::invalid_argument,
                  fmt::format("{} can be reached from other hosts, and that was not allowed", options_.host));
    if (auto resolves = check_resolves(options_.host); !resolves) return resolves;
    if (auto prepared = server_.prepare(); !prepared) return prepared;
    set_up();
    port_ = options_.port == 0                                   ? server_.bind_to_any_port(options_.host)
            : server_.bind_to_port(options_.host, options_.port) ? options_.port
                                                                 : -1;
    // Of the last address tried: closing that socket and freeing memory, as httplib then does, keep it.
    const int os_errno = errno;
    if (port_ < 0)
      return fail_errno(os_errno, fmt::format("cannot listen on {} port {}", options_.host, options_.port));
    auto thread = start_thread("the web server", [this] {
      ::pthread_setname_np(::pthread_self(), kThreadName);
      server_.listen_after_bind();
    });
    if (!thread) return std::unexpected(thread.error());
    thread_ = std::move(*thread);
    // A server that is stopped before it runs would run on.
    while (!server_.is_running()) std::this_thread::yield();
    return {};
  }

  std::uint16_t port() const { return static_cast<std::uint16_t>(port_); }

 private:
  void set_up() {
    server_.set_payload_max_length(kMaxBody);
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
  BoundedServer server_;
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
