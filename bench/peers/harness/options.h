// The command line that all peers share, and what they print.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/histogram.h"
#include "harness/payload.h"
#include "harness/run_file.h"

namespace ringtail::peers {

// Exit codes of a peer.
inline constexpr int kGood = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUnavailable = 3;  // the system is not here, or cannot do what was asked for

// Where records go: the stream from producers to consumers, and the two of a ping-pong.
enum class Channel : std::uint8_t { data, ping, pong };
const char* to_string(Channel channel);

struct Options {
  std::string role;
  std::string run_path;
  std::filesystem::path dir;
  unsigned index = 0;
  std::size_t size = 64;
  double rate = 0;  // records per second of one producer; 0: as fast as it goes
  bool block = false;
  unsigned batch = 1;
  std::string mode;
  int cpu = -1;
  std::filesystem::path hist;
  unsigned producers = 1;  // as the run file has it
  unsigned consumers = 1;
  std::uint64_t slow_ns = 0;  // a consumer idles so long behind each record
  unsigned topics = 0;        // serve: idle topics besides
  int service_cpu = -1;       // serve: the system's own thread

  // Where a channel's endpoint of producer k lives.
  std::string path(Channel channel, unsigned k) const;
};

// Reads the command line. Returns -1 to go on, else an exit code: --help, or a message on stderr.
int parse(int argc, char** argv, const char* system, Options& options);

// What a role has found out, written as the JSON object of the protocol.
struct Report {
  std::string peer;
  std::string version;
  const Checker* checks = nullptr;
  std::uint64_t warmup = 0;
  std::uint64_t measured = 0;
  std::uint64_t sent = 0;
  std::uint64_t first_ns = 0;
  std::uint64_t last_ns = 0;
  std::uint64_t open_ns = 0;
  const Histogram* latency = nullptr;
  std::string note;
};
Status write_report(const Options& options, const Report& report);

// SIGTERM and SIGINT end `serve`: blocks until one comes. Call block_signals before any thread is made.
void block_signals();
void wait_for_signal();

// "peer: message" on stderr; returns kUnavailable for not_found and unsupported, else kFailed.
int report_failure(const char* peer, const Error& error);

}  // namespace ringtail::peers
