// What the path between two hosts gives without Ringtail, to compare replication with: a plain TCP stream, a
// message to and fro, and a relay. Blocking sockets with TCP_NODELAY and the kernel's own buffer sizes.
//
// A plain stream sends the same 256 KiB again and again, which its CPU's cache has. The relay does what whoever
// replicates a log in shared memory cannot do without, and nothing else: a process copies records into a ring in shared
// memory, another sends what stands there, and the other side receives it into a ring of the same size. No frames,
// no checksums, nothing is cleared, nobody looks at a record.
//
//     ringtail_cluster_path serve HOST PORT   answers those below, one after another, until it is killed
//     ringtail_cluster_path stream HOST PORT SECONDS [NAME=PID,...]   send and recv of 256 KiB
//     ringtail_cluster_path relay HOST PORT SECONDS BYTES CPU [NAME=PID,...]   records of BYTES, copied on CPU
//     ringtail_cluster_path ping HOST PORT SECONDS BYTES [spin]
//     ringtail_cluster_path probe CPU CPU   the round trip of a cache line, as `ringtail perf` has it
//
// Prints one JSON object. With `spin` both sides look again and again instead of sleeping in recv. With NAME=PID the
// CPU time of the threads of those processes stands beside what was sent.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
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
constexpr std::size_t kRingBytes = 32 << 20;  // as a topic's, unless told otherwise

enum class Service : std::uint8_t { stream = 's', relay = 'r', ping = 'p', spinning_ping = 'q' };

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

// Shared with children.
template <class T>
T* map_shared(std::size_t bytes) {
  void* const data =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (data == MAP_FAILED) die_of("mmap");
  return static_cast<T*>(data);
}

// --- The side that answers -----------------------------------------------------------------------

void take_stream(const Socket& peer) {
  std::vector<std::byte> piece(kPieceBytes);
  std::uint64_t bytes = 0;
  while (const std::size_t got = peer.receive(piece)) bytes += got;
  peer.send_all(std::as_bytes(std::span(&bytes, 1)));
}

void take_relay(const Socket& peer) {
  static std::byte* const ring = map_shared<std::byte>(kRingBytes);
  std::uint64_t bytes = 0;
  for (;;) {
    const std::size_t at = bytes % kRingBytes;
    const std::size_t got = peer.receive({ring + at, std::min(kPieceBytes, kRingBytes - at)});
    if (got == 0) break;
    bytes += got;
  }
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
    else if (request.service == Service::relay)
      take_relay(peer);
    else
      echo(peer, request.bytes, request.service == Service::spinning_ping);
  }
}

// --- The side that asks --------------------------------------------------------------------------

double seconds_since(std::int64_t ns) { return static_cast<double>(monotonic_ns() - ns) / 1e9; }

// Once all has been sent: waits until it has arrived.
Json end_stream(const Socket& peer, std::uint64_t sent, std::int64_t begin_ns, const ThreadTimes& times) {
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

Json stream(const Socket& peer, double for_seconds, ThreadTimes times) {
  const std::vector<std::byte> piece(kPieceBytes, std::byte{'x'});
  times.begin();
  const std::int64_t begin_ns = monotonic_ns();
  std::uint64_t sent = 0;
  for (; seconds_since(begin_ns) < for_seconds; sent += piece.size()) peer.send_all(piece);
  return end_stream(peer, sent, begin_ns, times);
}

// What the relay's two processes share beside the ring.
struct RelayState {
  alignas(64) std::atomic<std::uint64_t> written{0};
  alignas(64) std::atomic<std::uint64_t> sent{0};
};

[[noreturn]] void copy_records(RelayState& state, std::byte* ring, std::size_t record_bytes, int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(static_cast<unsigned>(cpu), &cpus);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::sched_setaffinity(0, sizeof cpus, &cpus) != 0) ::_exit(1);
  const std::vector<std::byte> record(record_bytes, std::byte{'x'});
  for (std::uint64_t written = 0;; written += record_bytes) {
    // SYNC: pairs with the sender's release store once it has read what stood there.
    while (written + record_bytes - state.sent.load(std::memory_order_acquire) > kRingBytes) ::sched_yield();
    std::memcpy(ring + written % kRingBytes, record.data(), record_bytes);
    // SYNC: publishes the record; pairs with the sender's acquire load.
    state.written.store(written + record_bytes, std::memory_order_release);
  }
}

Json relay(const Socket& peer, double for_seconds, std::size_t record_bytes, int cpu, std::string processes) {
  auto& state = *new (map_shared<RelayState>(sizeof(RelayState))) RelayState;
  auto* const ring = map_shared<std::byte>(kRingBytes);
  const pid_t producer = ::fork();
  if (producer < 0) die_of("fork");
  if (producer == 0) copy_records(state, ring, record_bytes, cpu);
  processes += fmt::format("{}producer={}", processes.empty() ? "" : ",", producer);
  ThreadTimes times(processes);
  times.begin();
  const std::int64_t begin_ns = monotonic_ns();
  std::uint64_t sent = 0;
  while (seconds_since(begin_ns) < for_seconds) {
    const std::uint64_t there = state.written.load(std::memory_order_acquire) - sent;  // SYNC: as above
    if (there < kPieceBytes / 4) {
      ::sched_yield();
      continue;
    }
    const std::size_t at = sent % kRingBytes;
    const std::size_t piece = std::min<std::size_t>({there, kPieceBytes, kRingBytes - at});
    peer.send_all({ring + at, piece});
    sent += piece;
    state.sent.store(sent, std::memory_order_release);  // SYNC: as above
  }
  Json result = end_stream(peer, sent, begin_ns, times);
  ::kill(producer, SIGKILL);
  ::waitpid(producer, nullptr, 0);
  return result;
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

Json ask_for_relay(Words words) {
  const auto bytes = number<std::size_t>(words[3]);
  if (bytes == 0 || kRingBytes % bytes != 0)
    die(Error{Code::invalid_argument, 0, fmt::format("a record's bytes are a divisor of {}", kRingBytes)});
  return relay(connect(words, {.service = Service::relay}), number<double>(words[2]), bytes,
               number<int>(words[4]), words.size() > 5 ? words[5] : "");
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
    {"relay", "HOST PORT SECONDS BYTES CPU [NAME=PID,...]", ask_for_relay},
    {"ping", "HOST PORT SECONDS BYTES [spin]", ask_for_ping},
    {"probe", "CPU CPU", [](Words words) { return probe(number<int>(words[0]), number<int>(words[1])); }},
};

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) { return ringtail::bench::run_program(argc, argv, ringtail::bench::kModes); }
