// NATS JetStream with its C client, over TCP on the loopback (it has no other transport). Producers publish
// asynchronously with at most 4,096 unacknowledged (https://docs.nats.io/using-nats/developer/develop_jetstream/
// publish), written at once (natsOptions_SetSendAsap) unless in a closed loop; readers are ordered consumers, whose
// client has a thread for the socket and wakes the reader: there is no spinning. `serve` runs nats-server on a free
// port. Modes: memory, file (page cache: the server syncs every 2 minutes).
#include <fmt/format.h>
#include <nats/nats.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/daemon.h"
#include "harness/peer_main.h"

namespace ringtail::peers {
namespace {

constexpr std::int64_t kMostUnacknowledged = 4096;
constexpr std::int64_t kWaitMs = 50;

Error nats_failure(const char* what, natsStatus status) {
  const char* last = nats_GetLastError(nullptr);
  return Error{Code::system, 0,
               fmt::format("{}: {} ({})", what, natsStatus_GetText(status), last ? last : "")};
}

// The server tells its port in <dir>/nats-server_<pid>.ports.
std::string url_in(const std::filesystem::path& dir) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    if (entry.path().extension() != ".ports") continue;
    std::ifstream file(entry.path());
    const auto json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_object() && json.contains("nats") && !json["nats"].empty()) return json["nats"][0];
  }
  return {};
}

class Connection {
 public:
  static Result<Connection> open(const std::filesystem::path& dir, bool at_once) {
    natsOptions* options = nullptr;
    natsStatus status = natsOptions_Create(&options);
    if (status == NATS_OK) status = natsOptions_SetURL(options, url_in(dir).c_str());
    if (status == NATS_OK) status = natsOptions_SetSendAsap(options, at_once);
    Connection connection;
    if (status == NATS_OK) status = natsConnection_Connect(&connection.connection_, options);
    natsOptions_Destroy(options);
    jsOptions stream_options;
    jsOptions_Init(&stream_options);
    stream_options.PublishAsync.MaxPending = kMostUnacknowledged;
    stream_options.PublishAsync.StallWait = 60'000;
    if (status == NATS_OK) {
      status = natsConnection_JetStream(&connection.stream_, connection.connection_, &stream_options);
    }
    if (status != NATS_OK) return std::unexpected(nats_failure("cannot connect to nats-server", status));
    return connection;
  }
  Connection(Connection&& other) noexcept
      : connection_(std::exchange(other.connection_, nullptr)),
        stream_(std::exchange(other.stream_, nullptr)) {}
  Connection& operator=(Connection&&) = delete;
  ~Connection() {
    jsCtx_Destroy(stream_);
    natsConnection_Destroy(connection_);
  }
  jsCtx* stream() const { return stream_; }

 private:
  Connection() = default;

  natsConnection* connection_ = nullptr;
  jsCtx* stream_ = nullptr;
};

class NatsSender {
 public:
  static Result<NatsSender> open(const Options& options, const RunFile& run, Channel channel) {
    auto connection = Connection::open(options.dir, options.rate > 0 || channel != Channel::data);
    if (!connection) return std::unexpected(connection.error());
    return NatsSender(std::move(*connection), run, to_string(channel));
  }

  Sent send(Payload payload) {
    const natsStatus status = js_PublishAsync(connection_.stream(), subject_, payload.data(),
                                              static_cast<int>(payload.size()), nullptr);
    if (status == NATS_OK) return Sent::yes;
    return failed("js_PublishAsync", status);
  }
  Sent finish() {
    jsPubOptions options;
    jsPubOptions_Init(&options);
    options.MaxWait = 100;
    for (;;) {
      const natsStatus status = js_PublishAsyncComplete(connection_.stream(), &options);
      if (status == NATS_OK) return Sent::yes;
      if (run_->stopped()) return Sent::stopped;
      if (status != NATS_TIMEOUT) return failed("js_PublishAsyncComplete", status);
    }
  }
  Error error() const { return failure_; }

 private:
  NatsSender(Connection connection, const RunFile& run, const char* subject)
      : connection_(std::move(connection)), run_(&run), subject_(subject) {}

  Sent failed(const char* what, natsStatus status) {
    if (run_->stopped()) return Sent::stopped;
    failure_ = nats_failure(what, status);
    return Sent::failed;
  }

  Connection connection_;
  const RunFile* run_;
  const char* subject_;
  Error failure_;
};

class NatsReceiver {
 public:
  static Result<NatsReceiver> open(const Options& options, const RunFile&, Channel channel) {
    auto connection = Connection::open(options.dir, true);
    if (!connection) return std::unexpected(connection.error());
    NatsReceiver receiver(std::move(*connection));
    jsSubOptions wanted;
    jsSubOptions_Init(&wanted);
    wanted.Ordered = true;
    natsStatus status = js_SubscribeSync(&receiver.subscription_, receiver.connection_.stream(),
                                         to_string(channel), nullptr, &wanted, nullptr);
    if (status == NATS_OK) status = natsSubscription_SetPendingLimits(receiver.subscription_, -1, -1);
    if (status != NATS_OK) return std::unexpected(nats_failure("cannot subscribe", status));
    return receiver;
  }
  NatsReceiver(NatsReceiver&& other) noexcept
      : connection_(std::move(other.connection_)),
        subscription_(std::exchange(other.subscription_, nullptr)),
        status_(other.status_) {}
  NatsReceiver& operator=(NatsReceiver&&) = delete;
  ~NatsReceiver() { natsSubscription_Destroy(subscription_); }

  template <class Handle>
  int poll(Handle handle) {
    natsMsg* message = nullptr;
    status_ = natsSubscription_NextMsg(&message, subscription_, kWaitMs);
    if (status_ == NATS_TIMEOUT) return 0;
    if (status_ != NATS_OK) return -1;
    handle(Payload{reinterpret_cast<const std::byte*>(natsMsg_GetData(message)),
                   static_cast<std::size_t>(natsMsg_GetDataLength(message))});
    natsMsg_Destroy(message);
    return 1;
  }
  Error error() const { return nats_failure("natsSubscription_NextMsg", status_); }

 private:
  explicit NatsReceiver(Connection connection) : connection_(std::move(connection)) {}

  Connection connection_;
  natsSubscription* subscription_ = nullptr;
  natsStatus status_ = NATS_OK;
};

struct Nats {
  static constexpr const char* kName = "nats";
  using Sender = NatsSender;
  using Receiver = NatsReceiver;

  static std::string version() {
    return fmt::format("{}, libnats {}", first_line_of("nats-server", "--version"), nats_GetVersion());
  }
  static Status check(const Options& options) {
    if (!options.mode.empty() && options.mode != "memory" && options.mode != "file") {
      return fail(Code::unsupported, fmt::format("no mode '{}'; there are memory, file", options.mode));
    }
    return need_program("nats-server", "nats-server");
  }

  static Result<std::unique_ptr<Daemon>> serve(const Options& options) {
    const std::filesystem::path config = options.dir / "nats.conf";
    std::ofstream(config) << fmt::format(
        "listen: \"127.0.0.1:-1\"\njetstream {{\n  store_dir: \"{}\"\n  max_memory_store: 8GB\n"
        "  max_file_store: 64GB\n}}\n",
        (options.dir / "store").string());
    auto daemon =
        Daemon::start({"nats-server", "-c", config.string(), "--ports_file_dir", options.dir.string()},
                      options.dir / "nats.log", "nats-server", [&] { return !url_in(options.dir).empty(); });
    if (!daemon) return daemon;
    auto connection = Connection::open(options.dir, true);
    if (!connection) return std::unexpected(connection.error());
    for (const Channel channel : {Channel::data, Channel::ping, Channel::pong}) {
      const char* subject = to_string(channel);
      jsStreamConfig stream;
      jsStreamConfig_Init(&stream);
      stream.Name = subject;
      stream.Subjects = &subject;
      stream.SubjectsLen = 1;
      stream.Storage = options.mode == "file" ? js_FileStorage : js_MemoryStorage;
      const natsStatus status = js_AddStream(nullptr, connection->stream(), &stream, nullptr, nullptr);
      if (status != NATS_OK) return std::unexpected(nats_failure("cannot make a stream", status));
    }
    return daemon;
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) { return ringtail::peers::peer_main<ringtail::peers::Nats>(argc, argv); }
