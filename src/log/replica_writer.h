// Appends to a followed ring what the partition's leader ships: the same frames at the same positions.
//
// It is the only one who writes there, for all tails are fenced. The keeper flushes and recycles the ring as it
// does any other.
//
// Thread safety: all members may be called from any thread; append excludes the keeper's change of rings.
// Process safety: for the process that holds the keeper's role. A death within append leaves the frames before
// it, and maybe bytes behind them that no reader comes to, for the first frame's state word is stored last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "log/epoch_list.h"
#include "log/partition_ref.h"
#include "log/ring.h"

namespace ringtail::log {

class ReplicaWriter {
 public:
  explicit ReplicaWriter(const PartitionRef& partition) : partition_(partition) {}

  // Appends the first of `frames`, as many as the ring has room for now, and returns their bytes. `frames` are
  // whole and stand at `at`, where the log ends. Nothing is durable on return. Does not block.
  // Errors: fenced (this host does not follow in `epoch`, or not any more), offset_out_of_range (the log does
  // not end at `at`), corrupt (these are no frames that could stand there, or another process has written over what
  // tells where the ring ends; then nothing was appended).
  Result<std::uint64_t> append(LeaderEpoch epoch, Position at, std::span<const std::byte> frames);

  // Where the log ends.
  LogPoint end() const;

 private:
  friend class PartitionKeeper;

  // Frames that can be appended at once.
  struct Chunk {
    std::uint64_t bytes = 0;
    std::uint64_t last_at = 0;  // where the last frame begins
    Offset last_offset{0};
    Offset next_offset{0};
    std::int64_t timestamp_ns = 0;
    bool ends_in_pad = false;
  };

  // For the keeper: `ring` is the one that is filled from now on, `end` where its frames end; null: none.
  void enter(const Ring* ring, LeaderEpoch epoch, const LogPoint& end);
  // The same for who holds it already: meanwhile nothing is appended.
  std::unique_lock<std::mutex> hold() const { return std::unique_lock(mutex_); }
  void take(const Ring* ring, LeaderEpoch epoch, const LogPoint& end);

  bool find_term();
  Result<Chunk> measure(std::span<const std::byte> frames) const;
  void publish(std::span<const std::byte> frames, const Chunk& chunk);
  bool open_next_term();

  PartitionRef partition_;
  mutable std::mutex mutex_;  // both are threads of one process
  const Ring* ring_ = nullptr;
  LeaderEpoch epoch_{0};
  LogPoint end_;
  bool has_place_ = false;  // the ring can end at end_, which lies in term_ or is its end
  std::uint64_t term_ = 0;
};

}  // namespace ringtail::log
