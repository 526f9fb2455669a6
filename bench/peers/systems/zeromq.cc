// ZeroMQ over ipc://. One reader: PUSH and PULL. Several, each of which gets everything: XPUB with
// ZMQ_XPUB_NODROP, which waits instead of dropping at the high-water mark, and SUB. Each producer binds, readers
// connect. One I/O thread a process, as the guide has it for less than a gigabyte a second (The ZeroMQ Guide,
// chapter 2, "I/O Threads"); high-water marks are the default (1,000 messages a side).
#include <fmt/format.h>
#include <zmq.h>

#include "harness/peer_main.h"

namespace ringtail::peers {
namespace {

std::string endpoint(const Options& options, Channel channel, unsigned producer) {
  return "ipc://" + options.path(channel, producer);
}

Error zmq_failure(const char* what) {
  return Error{Code::system, 0, fmt::format("{}: {}", what, zmq_strerror(zmq_errno()))};
}

// A socket and its context, in that order of closing. ZMQ_LINGER is 0: who sends stays until the readers are done.
class Socket {
 public:
  static Result<Socket> make(int type) {
    void* context = zmq_ctx_new();
    void* socket = context == nullptr ? nullptr : zmq_socket(context, type);
    if (socket == nullptr) return std::unexpected(zmq_failure("cannot make a socket"));
    const int none = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    return Socket(context, socket);
  }
  Socket(Socket&& other) noexcept
      : context_(std::exchange(other.context_, nullptr)), socket_(std::exchange(other.socket_, nullptr)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (socket_ == nullptr) return;
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  void* get() const { return socket_; }

 private:
  Socket(void* context, void* socket) : context_(context), socket_(socket) {}

  void* context_;
  void* socket_;
};

class ZeromqSender {
 public:
  static Result<ZeromqSender> open(const Options& options, const RunFile& run, Channel channel) {
    const unsigned readers = channel == Channel::data ? options.consumers : 1;
    auto socket = Socket::make(readers > 1 ? ZMQ_XPUB : ZMQ_PUSH);
    if (!socket) return std::unexpected(socket.error());
    const int wait_when_full = 1;
    const int every_subscription = 1;
    const int look_every_ms = 50;
    if (readers > 1) {
      zmq_setsockopt(socket->get(), ZMQ_XPUB_NODROP, &wait_when_full, sizeof wait_when_full);
      zmq_setsockopt(socket->get(), ZMQ_XPUB_VERBOSE, &every_subscription, sizeof every_subscription);
    }
    zmq_setsockopt(socket->get(), ZMQ_SNDTIMEO, &look_every_ms, sizeof look_every_ms);
    zmq_setsockopt(socket->get(), ZMQ_RCVTIMEO, &look_every_ms, sizeof look_every_ms);
    const unsigned producer = channel == Channel::data ? options.index : 0;
    if (zmq_bind(socket->get(), endpoint(options, channel, producer).c_str()) != 0) {
      return std::unexpected(zmq_failure("cannot bind"));
    }
    // A publisher sends to those only whose subscription has come.
    for (unsigned have = 0; readers > 1 && have < readers && !run.stopped();) {
      char subscription[16];
      if (zmq_recv(socket->get(), subscription, sizeof subscription, 0) > 0) ++have;
    }
    return ZeromqSender(std::move(*socket), options.block, run);
  }

  Sent send(Payload payload) {
    while (zmq_send(socket_.get(), payload.data(), payload.size(), block_ ? 0 : ZMQ_DONTWAIT) < 0) {
      if (run_->stopped()) return Sent::stopped;
      if (zmq_errno() != EAGAIN && zmq_errno() != EINTR) return Sent::failed;
    }
    return Sent::yes;
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return zmq_failure("zmq_send"); }

 private:
  ZeromqSender(Socket socket, bool block, const RunFile& run)
      : socket_(std::move(socket)), block_(block), run_(&run) {}

  Socket socket_;
  bool block_;
  const RunFile* run_;
};

class ZeromqReceiver {
 public:
  static Result<ZeromqReceiver> open(const Options& options, const RunFile&, Channel channel) {
    const bool data = channel == Channel::data;
    const bool shared = data && options.consumers > 1;
    auto socket = Socket::make(shared ? ZMQ_SUB : ZMQ_PULL);
    if (!socket) return std::unexpected(socket.error());
    if (shared) zmq_setsockopt(socket->get(), ZMQ_SUBSCRIBE, "", 0);
    const int look_every_ms = 50;
    zmq_setsockopt(socket->get(), ZMQ_RCVTIMEO, &look_every_ms, sizeof look_every_ms);
    for (unsigned k = 0; k < (data ? options.producers : 1); ++k) {
      if (zmq_connect(socket->get(), endpoint(options, channel, k).c_str()) != 0) {
        return std::unexpected(zmq_failure("cannot connect"));
      }
    }
    return ZeromqReceiver(std::move(*socket), options);
  }

  template <class Handle>
  int poll(Handle handle) {
    const int got = zmq_recv(socket_.get(), buffer_.data(), buffer_.size(), block_ ? 0 : ZMQ_DONTWAIT);
    if (got < 0) return zmq_errno() == EAGAIN || zmq_errno() == EINTR ? 0 : -1;
    handle(Payload{buffer_.data(), std::min(static_cast<std::size_t>(got), buffer_.size())});
    return 1;
  }
  Error error() const { return zmq_failure("zmq_recv"); }

 private:
  ZeromqReceiver(Socket socket, const Options& options)
      : socket_(std::move(socket)), block_(options.block), buffer_(options.size) {}

  Socket socket_;
  bool block_;
  std::vector<std::byte> buffer_;
};

struct Zeromq {
  static constexpr const char* kName = "zeromq";
  static constexpr bool kLinger = true;
  using Sender = ZeromqSender;
  using Receiver = ZeromqReceiver;

  static std::string version() {
    int major = 0;
    int minor = 0;
    int patch = 0;
    zmq_version(&major, &minor, &patch);
    return fmt::format("{}.{}.{}", major, minor, patch);
  }
  static Status check(const Options& options) {
    // An I/O thread connects by this name, and sun_path holds 107 bytes.
    if (options.dir.string().size() > 90) {
      return fail(Code::invalid_argument,
                  fmt::format("'{}' is too long for a socket's name", options.dir.string()));
    }
    return {};
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) { return ringtail::peers::peer_main<ringtail::peers::Zeromq>(argc, argv); }
