// Pipes: one FIFO per reader, enlarged to 1 MiB, to which all producers write (a write of up to 4096 bytes is
// whole; larger payloads need a single producer). --wait spin: O_NONBLOCK on both sides; block: sleeps in poll(2).
#include <fmt/format.h>
#include <sys/stat.h>

#include "harness/peer_main.h"
#include "systems/streams.h"

namespace ringtail::peers {
namespace {

// Opened for reading and writing, so that nobody waits for the other side to come.
Result<int> open_fifo(const std::string& path) {
  if (::mkfifo(path.c_str(), 0600) != 0 && errno != EEXIST) {
    return fail_errno(errno, fmt::format("cannot make the pipe '{}'", path));
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return fail_errno(errno, fmt::format("cannot open the pipe '{}'", path));
  ::fcntl(fd, F_SETPIPE_SZ, 1 << 20);  // refused by a low /proc/sys/fs/pipe-max-size: then it stays as it is
  return fd;
}

class PipeSender {
 public:
  static Result<PipeSender> open(const Options& options, const RunFile& run, Channel channel) {
    PipeSender sender(options.block, run);
    const unsigned readers = channel == Channel::data ? options.consumers : 1;
    for (unsigned k = 0; k < readers; ++k) {
      const auto fd = open_fifo(options.path(channel, k));
      if (!fd) return std::unexpected(fd.error());
      sender.fds_.push_back(*fd);
    }
    return sender;
  }
  Sent send(Payload payload) { return write_payload(fds_, payload, block_, *run_, error_); }
  Sent finish() { return Sent::yes; }
  Error error() const { return Error{Code::system, error_, fmt::format("write: {}", std::strerror(error_))}; }

 private:
  PipeSender(bool block, const RunFile& run) : block_(block), run_(&run) {}

  bool block_;
  const RunFile* run_;
  std::vector<int> fds_;  // closed by the end of the process
  int error_ = 0;
};

class PipeReceiver {
 public:
  static Result<PipeReceiver> open(const Options& options, const RunFile&, Channel channel) {
    const auto fd = open_fifo(options.path(channel, channel == Channel::data ? options.index : 0));
    if (!fd) return std::unexpected(fd.error());
    PipeReceiver receiver(options.block);
    receiver.readers_.add(*fd, options.size);
    return receiver;
  }
  template <class Handle>
  int poll(Handle handle) {
    return readers_.poll(block_, handle);
  }
  Error error() const { return Error{Code::system, errno, fmt::format("read: {}", std::strerror(errno))}; }

 private:
  explicit PipeReceiver(bool block) : block_(block) {}

  bool block_;
  StreamReaders readers_;
};

struct PipeSystem {
  static constexpr const char* kName = "pipe";
  using Sender = PipeSender;
  using Receiver = PipeReceiver;

  static std::string version() { return "Linux"; }
  static Status check(const Options& options) {
    if (options.producers > 1 && options.size > 4096) {
      return fail(Code::unsupported,
                  "several producers share a pipe only with payloads of at most 4096 bytes");
    }
    return {};
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) {
  return ringtail::peers::peer_main<ringtail::peers::PipeSystem>(argc, argv);
}
