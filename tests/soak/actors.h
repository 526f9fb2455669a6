// Who uses a log in the soak, and what they note of it in memory that outlives them.
//
// Producers number their records (crash/ledger.h: Value); so every record says whose it is and which. Three kinds send:
// plain ones, of which a record may be missing where its producer was killed within the send; lone ones, the same with a
// topic that one of them has for itself while the others wait for its end; and numbering ones (idempotence with an id),
// of which none may be missing and none come twice. Copiers copy the latter in transactions.
//
// Thread safety: the functions are for child processes, one each. What they share is atomic.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "crash/scene.h"

namespace ringtail::soak {

using crash::kMaxProducers;
using crash::ProducerPage;
using crash::Scene;
using crash::Value;

inline constexpr std::uint32_t kPartitions = 2;  // a producer sends to the one of its number modulo this
inline constexpr const char* kPlain = "plain";
inline constexpr const char* kLone = "lone";
inline constexpr const char* kNumbered = "numbered";

struct Gap {
  std::uint32_t producer;
  std::uint64_t from, to;
};

// What a reader may find missing between two numbers of a producer: with `any`, anything, and the gap is noted. With
// `source`, what retention has taken from the topic that copies are made of, ahead of the copiers, as that log has it.
struct Lacks {
  bool any = false;
  const Log* source = nullptr;
};

// What somebody has read of a topic.
struct ReaderPage {
  static constexpr std::size_t kMaxGaps = 1 << 14;

  std::array<std::atomic<std::uint64_t>, kPartitions> next_offset{};
  std::array<std::atomic<std::uint64_t>, kMaxProducers> next{};   // numbers; 0: none seen yet
  std::array<std::atomic<std::uint64_t>, kMaxProducers> first{};  // the first number seen
  std::atomic<std::uint64_t> records{0};
  std::atomic<std::uint32_t> gap_count{0};
  std::array<Gap, kMaxGaps> gaps{};
  std::array<std::atomic<bool>, kPartitions> begun{};  // since the reader's process has
  char error[512] = {};

  void begin_life() {
    for (auto& flag : begun) flag.store(false);
  }
  void clear();
  // Empty when the record may come now; otherwise what is wrong.
  std::string take(const Record& record, const Lacks& lacks);
};

// What a group that only reads has done, of all its members together.
struct GroupPage {
  std::array<std::atomic<std::uint64_t>, kPartitions> processed{};  // offsets below
  std::array<std::atomic<std::uint64_t>, kPartitions>
      acknowledged{};  // commits up to here were told to count
  std::atomic<std::uint64_t> records{0};
};

// Which topics and groups are in use; with the loss of memory, those that depend on other logs begin anew.
struct Names {
  std::uint32_t life = 0;
  std::string copies() const { return "copies-" + std::to_string(life); }
  std::string copiers() const { return "copiers-" + std::to_string(life); }
  std::string workers() const { return "workers-" + std::to_string(life); }
};

struct Pace {
  std::uint32_t burst = 16;
  std::uint32_t rest_us = 4'000;
};

// --- Each runs until it is killed; its return value is an exit code, with the cause in `error` ---

int send_plain(const Scene& scene, std::uint32_t id, const Pace& pace, const std::atomic<bool>& enough,
               ProducerPage& page);
int send_alone(const Scene& scene, std::uint32_t id, const Pace& pace, const std::atomic<bool>& enough,
               ProducerPage& page);
int send_numbered(const Scene& scene, std::uint32_t id, const Pace& pace, const std::atomic<bool>& enough,
                  ProducerPage& page);
int read_on(const Scene& scene, const std::string& topic, ReaderPage& page);
int copy(const Scene& scene, const Names& names, std::uint32_t seat, std::atomic<std::uint64_t>& committed,
         char (&error)[512]);
int work(const Scene& scene, const Names& names, GroupPage& page, char (&error)[512]);

// --- For whoever has the log for itself ---

// Makes the topics that are not there yet.
Status make_topics(const Log& log, const Names& names);
// Reads a topic from its beginning to its end. Empty, or what is wrong.
std::string read_whole(const Log& log, const std::string& topic, ReaderPage& page);

}  // namespace ringtail::soak
