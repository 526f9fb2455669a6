// The little web server of the daemon: what it shows, to whoever may look. It changes nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail::monitor {

struct HttpOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;  // 0: any that is free
  // Whether other hosts may look. Otherwise requests must also name this host as one that only it knows
  // (localhost, 127.0.0.1, ::1), so that no page from elsewhere can look through a visitor's browser.
  bool allow_remote = false;
  // From a connection to its request's end, and as much again for the client to take the answer. A connection
  // that takes longer is ended.
  std::chrono::milliseconds request_time{5'000};
};

struct HealthAnswer {
  bool good = false;
  std::string text;  // why, in a line
};

// What is served. Called on the server's threads, several at a time.
struct HttpAnswers {
  std::function<Result<std::string>()> metrics;  // GET /metrics
  std::function<Result<std::string>()> state;    // GET /api/state
  std::function<HealthAnswer()> health;          // GET /healthz: 200 or 503
  std::function<HealthAnswer()> ready;           // GET /readyz: 200 or 503
};

// Serves until destruction, on threads of its own. Destroying it waits for answers that are being found, and
// for no client. Thread safety: port() from any thread.
class HttpServer {
 public:
  // Returns once connections are accepted. Errors: invalid_argument (the address is not loopback, and
  // allow_remote is not set), system (the host has no address), as system_error (somebody else listens there,
  // or no descriptors are left), as thread_error. Blocks while the host's name is looked up.
  static Result<std::unique_ptr<HttpServer>> start(const HttpOptions& options, HttpAnswers answers);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::uint16_t port() const;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The dashboard's page, src/monitor/dashboard.html. What stands for the nonce of its scripts and styles
// is kPageNonce.
std::string_view dashboard_page();
inline constexpr std::string_view kPageNonce = "{{nonce}}";

}  // namespace ringtail::monitor
