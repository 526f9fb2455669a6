// Unix sockets of type SOCK_STREAM: each reader listens, each producer connects to each reader. --wait spin:
// O_NONBLOCK on both sides; block: sleeps in poll(2).
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "harness/peer_main.h"
#include "systems/streams.h"

namespace ringtail::peers {
namespace {

constexpr timespec kLookAgain{0, 2'000'000};

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Code::invalid_argument,
                fmt::format("'{}' is too long for a socket's name; give a --dir nearer "
                            "to the root",
                            path));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<int> make_socket() {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_errno(errno, "cannot make a socket");
  const int bytes = 1 << 20;
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  return fd;
}

void never_block(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

class SocketSender {
 public:
  static Result<SocketSender> open(const Options& options, const RunFile& run, Channel channel) {
    SocketSender sender(options.block, run);
    const unsigned readers = channel == Channel::data ? options.consumers : 1;
    for (unsigned k = 0; k < readers; ++k) {
      const auto fd = connect(options.path(channel, k), run);
      if (!fd) return std::unexpected(fd.error());
      sender.fds_.push_back(*fd);
    }
    return sender;
  }
  Sent send(Payload payload) { return write_payload(fds_, payload, block_, *run_, error_); }
  Sent finish() { return Sent::yes; }
  Error error() const { return Error{Code::system, error_, fmt::format("write: {}", std::strerror(error_))}; }

 private:
  SocketSender(bool block, const RunFile& run) : block_(block), run_(&run) {}

  static Result<int> connect(const std::string& path, const RunFile& run) {
    const auto address = address_of(path);
    if (!address) return std::unexpected(address.error());
    const auto fd = make_socket();
    if (!fd) return fd;
    while (::connect(*fd, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
      if ((errno != ENOENT && errno != ECONNREFUSED) || run.stopped()) {
        return fail_errno(errno, fmt::format("cannot connect to '{}'", path));
      }
      ::nanosleep(&kLookAgain, nullptr);  // the reader is not there yet
    }
    never_block(*fd);
    return fd;
  }

  bool block_;
  const RunFile* run_;
  std::vector<int> fds_;  // closed by the end of the process
  int error_ = 0;
};

class SocketReceiver {
 public:
  static Result<SocketReceiver> open(const Options& options, const RunFile& run, Channel channel) {
    const std::string path = options.path(channel, channel == Channel::data ? options.index : 0);
    const auto address = address_of(path);
    if (!address) return std::unexpected(address.error());
    const auto listener = make_socket();
    if (!listener) return std::unexpected(listener.error());
    if (::bind(*listener, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 ||
        ::listen(*listener, 16) != 0) {
      return fail_errno(errno, fmt::format("cannot listen at '{}'", path));
    }
    never_block(*listener);
    SocketReceiver receiver(options.block);
    const unsigned senders = channel == Channel::data ? options.producers : 1;
    for (unsigned k = 0; k < senders && !run.stopped();) {
      const int fd = ::accept4(*listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) {
        receiver.readers_.add(fd, options.size);
        ++k;
      } else if (errno == EAGAIN || errno == EINTR) {
        ::nanosleep(&kLookAgain, nullptr);
      } else {
        return fail_errno(errno, fmt::format("cannot accept at '{}'", path));
      }
    }
    return receiver;
  }
  template <class Handle>
  int poll(Handle handle) {
    return readers_.poll(block_, handle);
  }
  Error error() const { return Error{Code::system, errno, fmt::format("read: {}", std::strerror(errno))}; }

 private:
  explicit SocketReceiver(bool block) : block_(block) {}

  bool block_;
  StreamReaders readers_;
};

struct SocketSystem {
  static constexpr const char* kName = "socket";
  using Sender = SocketSender;
  using Receiver = SocketReceiver;

  static std::string version() { return "Linux"; }
  static Status check(const Options&) { return {}; }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) {
  return ringtail::peers::peer_main<ringtail::peers::SocketSystem>(argc, argv);
}
