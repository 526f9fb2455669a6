// One connection to an etcd cluster, through the JSON gateway of its v3 interface: several endpoints of which
// the next serves when one does not, TLS, a user's token that is renewed when etcd no longer takes it.
//
// The gateway says 64-bit numbers as texts and keys and values in base64, and leaves out what is zero.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "replication/coordinator.h"
#include "ringtail/error.h"

namespace httplib {
class Client;
struct Request;
struct Response;
}  // namespace httplib

namespace ringtail::replication {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // "http://host:port" or "https://host:port"
  std::string user;                    // none: without authentication
  std::string password;
  std::string ca_file;           // PEM; for https, the system's authorities when not given
  std::string certificate_file;  // of this client, PEM; with key_file
  std::string key_file;
  std::chrono::milliseconds connect_timeout{1'000};
  std::chrono::milliseconds request_timeout{2'000};  // for an answer, at each endpoint that is tried
};

// Errors: invalid_argument (an endpoint, or the combination), not_found and permission_denied (a file).
Status check_options(const EtcdOptions& options);

// Between two tries of what goes on for as long as the process: doubled from the first to the longest.
inline constexpr std::chrono::milliseconds kFirstPause{50};
inline constexpr std::chrono::milliseconds kLongestPause{1'000};
// Whoever ends such a thread interrupts its request again and again, for it may just be about to begin one.
inline constexpr std::chrono::milliseconds kInterruptPeriod{10};

// What the connections of one process share: the token, and what is known of the store's health.
// Thread safety: any thread.
class EtcdSession {
 public:
  explicit EtcdSession(EtcdOptions options) : options_(std::move(options)) {}

  const EtcdOptions& options() const { return options_; }
  std::string token() const;
  void set_token(std::string token);
  // Forgets the token, unless another one has come meanwhile.
  void drop_token(const std::string& token);

  void note_contact(const std::string& endpoint);
  void note_failure(const std::string& endpoint, const std::string& what);
  CoordinatorHealth health() const;

 private:
  const EtcdOptions options_;
  mutable std::mutex mutex_;
  std::string token_;
  CoordinatorHealth health_;
  std::int64_t contact_ns_ = 0;
};

// What a request does when it is carried out twice.
enum class Effect { repeatable, once };

// Thread safety: one thread at a time, but for interrupt(). Process safety: not to be used on in a forked child.
// The session must outlive it.
class EtcdConnection {
 public:
  using Json = nlohmann::json;
  // Receives a stream as it comes; false ends it.
  using OnData = std::function<bool(std::string_view)>;

  // `patience`: for a connection and for an answer, each; at most what the session's options say.
  EtcdConnection(EtcdSession& session, std::chrono::milliseconds patience);
  explicit EtcdConnection(EtcdSession& session)
      : EtcdConnection(session, session.options().request_timeout) {}
  EtcdConnection(const EtcdConnection&) = delete;
  EtcdConnection& operator=(const EtcdConnection&) = delete;
  ~EtcdConnection();

  // Sends a request ("/v3/kv/range") and returns the answer. Endpoints are tried one after the other, each
  // once; a request whose Effect is `once` no longer after one may have carried it out.
  // Errors: timed_out (outcome unknown; of repeatable requests: no answer), system (no endpoint can be reached:
  // nothing was done), and what etcd answers: invalid_argument, not_found, permission_denied,
  // offset_out_of_range (a revision that was compacted away), limit_exceeded, system. Blocks.
  Result<Json> post(const std::string& path, const Json& body, Effect effect);

  // Sends a request whose answer is a stream. Returns without error when it has ended, for whatever reason:
  // nothing came for `idle`, the connection broke, on_data or interrupt ended it. Errors: those of post.
  Status stream(const std::string& path, const Json& body, std::chrono::milliseconds idle,
                const OnData& on_data);

  // What a stream said when it ended; so that a token which etcd refuses is renewed.
  void note_refusal(std::string_view reason);

  // Ends what is under way, which then returns as if the connection had broken. From any thread.
  void interrupt();

  // Where the next request goes first; for others, the next one.
  const std::string& endpoint() const;
  void avoid_endpoint();

 private:
  // What came of one request at one endpoint.
  struct Outcome;

  Outcome send(const std::string& path, const Json& body, std::chrono::milliseconds answer_timeout,
               const OnData* on_data);
  Result<Json> post_once(const std::string& path, const Json& body, Effect effect, bool& go_on);
  Status authenticate();
  void connect();
  void disconnect();

  EtcdSession& session_;
  const std::chrono::milliseconds connect_timeout_;
  const std::chrono::milliseconds request_timeout_;
  std::size_t at_ = 0;
  std::mutex client_mutex_;  // for interrupt: the client is not replaced under it
  std::unique_ptr<httplib::Client> client_;
};

// Numbers of an answer, which may be texts; 0 when missing.
std::int64_t number_in(const nlohmann::json& object, const char* name);
std::string text_in(const nlohmann::json& object, const char* name);
bool flag_in(const nlohmann::json& object, const char* name);

std::string to_base64(std::string_view bytes);
// What is no base64 gives an empty text.
std::string from_base64(std::string_view text);

}  // namespace ringtail::replication
