// What the path between two hosts gives without Ringtail, to compare replication with: a plain TCP stream, and a
// message to and fro. Blocking sockets with TCP_NODELAY and the kernel's own buffer sizes.
//
//     ringtail_cluster_path serve HOST PORT   answers those below, one after another, until it is killed
//     ringtail_cluster_path stream HOST PORT SECONDS [NAME=PID,...]   send and recv of 256 KiB
//     ringtail_cluster_path ping HOST PORT SECONDS BYTES [spin]
//     ringtail_cluster_path probe CPU CPU   the round trip of a cache line, as `ringtail perf` has it
//
// Prints one JSON object. With `spin` both sides look again and again instead of sleeping in recv. With NAME=PID the
// CPU time of the threads of those processes stands beside what was sent.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/histogram.h"
#include "cluster/program.h"
#include "cluster/thread_times.h"
#include "tools/perf_clock.h"
#include "tools/perf_probe.h"

namespace ringtail::bench {
namespace {

constexpr std::size_t kPieceBytes = 256 << 10;
constexpr std::size_t kMaxPingBytes = 64 << 10;

enum class Service : std::uint8_t { stream = 's', ping = 'p', spinning_ping = 'q' };

// The first bytes of a connection: what is wanted.
struct Request {
  Service service = Service::stream;
  std::uint8_t reserved[3] = {};
  std::uint32_t bytes = 0;  // of a message
};

[[noreturn]] void die_of(const char* what) { die(Error{Code::system, errno, what}); }

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    if (fd < 0) die_of("socket");
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }

  int fd() const { return fd_; }

  void send_all(std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ::ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) die_of("send");
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
  }
  // Up to `bytes.size()`; 0: the other side has ended.
  std::size_t receive(std::span<std::byte> bytes, bool spin = false) const {
    for (;;) {
      const ::ssize_t got = ::recv(fd_, bytes.data(), bytes.size(), spin ? MSG_DONTWAIT : 0);
      if (got >= 0) return static_cast<std::size_t>(got);
      if (!spin || (errno != EAGAIN && errno != EINTR)) die_of("recv");
    }
  }
  // False: the other side has ended.
  bool receive_all(std::span<std::byte> bytes, bool spin = false) const {
    while (!bytes.empty()) {
      const std::size_t got = receive(bytes, spin);
      if (got == 0) return false;
      bytes = bytes.subspan(got);
    }
    return true;
  }

 private:
  int fd_;
};

::sockaddr_in address(const char* host, const char* port) {
  ::sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(number<std::uint16_t>(port));
  if (::inet_pton(AF_INET, host, &to.sin_addr) != 1)
    die(Error{Code::invalid_argument, 0, fmt::format("'{}' is no IPv4 address", host)});
  return to;
}

// --- The side that answers -----------------------------------------------------------------------

void take_stream(const Socket& peer) {
  std::vector<std::byte> piece(kPieceBytes);
  std::uint64_t bytes = 0;
  while (const std::size_t got = peer.receive(piece)) bytes += got;
  peer.send_all(std::as_bytes(std::span(&bytes, 1)));
}

void echo(const Socket& peer, std::size_t bytes, bool spin) {
  std::vector<std::byte> message(std::min(bytes, kMaxPingBytes));
  while (peer.receive_all(message, spin)) peer.send_all(message);
}

Json serve(const ::sockaddr_in& at) {
  const Socket listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(listener.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(listener.fd(), reinterpret_cast<const ::sockaddr*>(&at), sizeof at) != 0) die_of("bind");
  if (::listen(listener.fd(), 16) != 0) die_of("listen");
  for (;;) {
    const Socket peer(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    Request request;
    if (!peer.receive_all(std::as_writable_bytes(std::span(&request, 1)))) continue;
    if (request.service == Service::stream)
      take_stream(peer);
    else
      echo(peer, request.bytes, request.service == Service::spinning_ping);
  }
}

// --- The side that asks --------------------------------------------------------------------------

Json stream(const Socket& peer, double for_seconds, ThreadTimes times) {
  const std::vector<std::byte> piece(kPieceBytes, std::byte{'x'});
  const auto seconds_since = [](std::int64_t ns) { return static_cast<double>(monotonic_ns() - ns) / 1e9; };
  times.begin();
  const std::int64_t begin_ns = monotonic_ns();
  std::uint64_t sent = 0;
  for (; seconds_since(begin_ns) < for_seconds; sent += piece.size()) peer.send_all(piece);
  ::shutdown(peer.fd(), SHUT_WR);
  std::uint64_t taken = 0;
  if (!peer.receive_all(std::as_writable_bytes(std::span(&taken, 1))) || taken != sent)
    die(Error{Code::corrupt, 0, "the other side has not received all"});
  const double seconds = seconds_since(begin_ns);
  return {{"bytes", sent},
          {"seconds", seconds},
          {"bytes_per_second", static_cast<double>(sent) / seconds},
          {"threads", times.since_begin()}};
}

Json ping(const Socket& peer, std::int64_t for_ns, std::size_t bytes, bool spin) {
  std::vector<std::byte> message(bytes, std::byte{'x'});
  const auto times = std::make_unique<Histogram>();
  const std::int64_t begin_ns = monotonic_ns();
  for (std::int64_t now_ns = begin_ns; now_ns - begin_ns < for_ns;) {
    peer.send_all(message);
    if (!peer.receive_all(message, spin)) die(Error{Code::closed, 0, "the other side has ended"});
    const std::int64_t then_ns = std::exchange(now_ns, monotonic_ns());
    times->record(static_cast<std::uint64_t>(now_ns - then_ns));
  }
  return {{"count", times->count()},
          {"p50_ns", times->percentile(50)},
          {"p99_ns", times->percentile(99)},
          {"max_ns", times->max()}};
}

Socket connect(Words words, Request request) {
  const auto to = address(words[0], words[1]);
  Socket peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(peer.fd(), reinterpret_cast<const ::sockaddr*>(&to), sizeof to) != 0) die_of("connect");
  peer.send_all(std::as_bytes(std::span(&request, 1)));
  return peer;
}

Json ask_for_stream(Words words) {
  return stream(connect(words, {.service = Service::stream}), number<double>(words[2]),
                ThreadTimes(words.size() > 3 ? words[3] : ""));
}

Json ask_for_ping(Words words) {
  const bool spin = words.size() > 4;
  if (spin && words[4] != std::string_view("spin"))
    die(Error{Code::invalid_argument, 0, fmt::format("'{}' is not 'spin'", words[4])});
  const auto bytes = number<std::uint32_t>(words[3]);
  if (bytes == 0 || bytes > kMaxPingBytes)
    die(Error{Code::invalid_argument, 0, fmt::format("a message has 1 to {} bytes", kMaxPingBytes)});
  const Socket peer =
      connect(words, {.service = spin ? Service::spinning_ping : Service::ping, .bytes = bytes});
  return ping(peer, static_cast<std::int64_t>(number<double>(words[2]) * 1e9), bytes, spin);
}

Json probe(int first, int second) {
  const auto clock = tools::perf::TickClock::calibrate();
  const auto measured = value_or_die(tools::perf::measure_probe(clock, first, second));
  return {{"two_lines_ns", measured.two_lines}, {"one_line_ns", measured.one_line}};
}

constexpr Mode kModes[] = {
    {"serve", "HOST PORT", [](Words words) { return serve(address(words[0], words[1])); }},
    {"stream", "HOST PORT SECONDS [NAME=PID,...]", ask_for_stream},
    {"ping", "HOST PORT SECONDS BYTES [spin]", ask_for_ping},
    {"probe", "CPU CPU", [](Words words) { return probe(number<int>(words[0]), number<int>(words[1])); }},
};

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) { return ringtail::bench::run_program(argc, argv, ringtail::bench::kModes); }
