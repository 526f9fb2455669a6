// The soak: a log in use by everybody there is, of whom some die or stand still at any time, for as long as wanted; and
// the account that is kept of it all the while.
//
// Thread safety: for the one thread of the program. Lifetime: its processes die with it; its files go unless there was
// a defect.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "soak/actors.h"
#include "support/crash_process.h"

namespace ringtail::soak {

struct SoakOptions {
  std::chrono::milliseconds time{60'000};
  std::uint64_t seed = 0;
  Pace pace = {};
  std::filesystem::path disk = std::filesystem::temp_directory_path();
  std::filesystem::path daemon = {};  // a ringtaild to be one of the keepers
};

struct SoakCounts {
  std::uint64_t killed = 0;       // processes, those below included
  std::uint64_t stopped = 0;      // processes, for a while
  std::uint64_t all_killed = 0;   // times that everybody died at once
  std::uint64_t memory_lost = 0;  // of these, with the loss of shared memory
  std::uint64_t audits = 0;       // of the whole log
  std::uint64_t doubts = 0;       // sends that a death left undecided
};

class Soak {
 public:
  explicit Soak(const SoakOptions& options);

  // Empty, or the defect that ended it; then the files are kept.
  std::string run();

  const SoakCounts& counts() const { return counts_; }
  std::uint64_t records() const;       // sent so far
  std::uint64_t lone_records() const;  // of those that are left, sent by who had his topic for himself
  const Scene& scene() const { return scene_; }

 private:
  using Clock = std::chrono::steady_clock;
  using Process = test::Process;

  enum class Kind : std::uint8_t { keeper, plain, lone, numbered, reader, copier, worker };
  struct Actor {
    Kind kind;
    std::uint32_t number;  // of its kind; of producers, their id
    std::string name;
    std::function<int()> body;
    std::function<std::string()> error;
    Process process;
    std::optional<Clock::time_point> stopped_until;
  };
  // By topic.
  struct Readings {
    ReaderPage plain, lone, numbered, copies;

    // Of the topic that a producer sends to.
    ReaderPage& of(std::uint32_t producer);
  };
  struct Shared {
    Names names;
    std::atomic<bool> enough{false};
    std::array<ProducerPage, kMaxProducers> producers;
    Readings readers, audits;
    GroupPage workers;
    std::atomic<std::uint64_t> copied{0};
    std::array<char[512], 8> errors{};
  };

  void add(Kind kind, std::uint32_t number, std::string name, std::function<int()> body, const char* error);
  void cast();
  bool make_log();
  int be_daemon() const;
  void start(Actor& actor);
  void start_all();
  void kill(Actor& actor);
  void note_death(const Actor& actor);
  void kill_all();
  void resume(bool all);
  void bring_fate();
  void kill_everybody();
  void look_for_defects();
  void check_gaps(ReaderPage& page, std::uint32_t& checked);
  void check_gaps(Readings& readings, std::array<std::uint32_t, 2>& checked);
  void audit(bool lost_memory);
  void compare(bool lost_memory);
  void go_back_to_audit();
  void settle();
  bool has_all_been_read() const;
  void verify_files();
  std::uint64_t progress() const;
  void tell_progress();
  void fail(const std::string& defect);
  std::uint64_t random(std::uint64_t below) { return random_() % below; }

  SoakOptions options_;
  std::mt19937_64 random_;
  Scene scene_;
  test::SharedPage<Shared> shared_;
  std::deque<Actor> cast_;
  crash::Truth truth_;
  SoakCounts counts_;
  std::string defect_;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point next_fate_ = begin_;
  Clock::time_point next_line_ = begin_;
  Clock::time_point moved_ = begin_;
  std::uint64_t last_progress_ = 0;
  std::array<std::uint32_t, 2> checked_gaps_{};  // of plain and lone
  std::uint64_t records_before_ = 0;             // taken back with lost memory
};

}  // namespace ringtail::soak
