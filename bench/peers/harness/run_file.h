// The run file: the mapped page in /dev/shm through which the processes of one run, in whatever language, agree
// on when to begin, when to end, and how much was sent. bench/peers/README.md has its layout.
//
// Thread and process safety: every word is an atomic on a cache line of its own. The runner writes the times,
// the counts and `stop`; everybody adds to `ready`; each producer writes its own `sent`.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ringtail/error.h"

namespace ringtail::peers {

inline constexpr std::uint64_t kRunMagic = 0x3153524545504752;  // "RGPEERS1"
inline constexpr std::uint64_t kRunVersion = 1;
inline constexpr unsigned kMaxProducers = 16;

struct RunWords {
  struct alignas(64) Word {
    std::atomic<std::uint64_t> value;
  };
  std::uint64_t magic;
  std::uint64_t version;
  Word ready;       // processes that could begin at once
  Word start_ns;    // CLOCK_MONOTONIC; 0: not yet
  Word measure_ns;  // records due before it are warm-up
  Word end_ns;      // producers end there; may be brought forward
  Word stop;        // 1: everybody ends
  Word producers;
  Word consumers;
  Word sent[kMaxProducers];  // bit 63: done
};
static_assert(offsetof(RunWords, ready) == 64 && offsetof(RunWords, stop) == 320);
static_assert(offsetof(RunWords, producers) == 384 && offsetof(RunWords, sent) == 512);

class RunFile {
 public:
  static constexpr std::size_t kBytes = 4096;

  // Makes the file; what the runner does, and tests. Errors: system, permission_denied.
  static Result<RunFile> create(const std::string& path, std::uint64_t producers, std::uint64_t consumers);
  // Errors: not_found, incompatible_layout.
  static Result<RunFile> open(const std::string& path);
  RunFile(RunFile&& other) noexcept;
  RunFile& operator=(RunFile&&) = delete;
  ~RunFile();

  RunWords& words() const { return *words_; }
  std::uint64_t producers() const { return load(words_->producers); }
  std::uint64_t consumers() const { return load(words_->consumers); }
  bool stopped() const { return load(words_->stop) != 0; }
  std::uint64_t end_ns() const { return load(words_->end_ns); }
  std::uint64_t measure_ns() const { return load(words_->measure_ns); }

  // Says that this process is ready and waits for the start, looking once in 50 µs until 20 ms before it.
  // 0: stopped.
  std::uint64_t wait_for_start() const;
  void finish_sending(unsigned producer, std::uint64_t sent) const;
  // Whether all producers are done, and how many records they have sent in all.
  bool all_sent(std::uint64_t& total) const;

 private:
  explicit RunFile(void* memory) : words_(static_cast<RunWords*>(memory)) {}
  // SYNC: with the runner's plain stores; nothing but the words themselves is published by them.
  static std::uint64_t load(const RunWords::Word& word) { return word.value.load(std::memory_order_acquire); }

  RunWords* words_;
};

}  // namespace ringtail::peers
