// What a keeper measures of its own work, for those who show it.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ringtail::log {

// How often something took how long, in buckets that are the same for all.
// Thread safety: one writer; readers at any time, who may find one count ahead of another.
class LatencyCounts {
 public:
  // The longest time that each bucket counts, in ns; the last bucket, without one, counts the rest.
  static constexpr auto kBounds = [] {
    std::array<std::int64_t, 19> bounds{};
    std::int64_t decade = 10'000;
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      constexpr std::array<std::int64_t, 3> kSteps = {1, 2, 5};
      bounds[i] = decade * kSteps[i % 3];
      if (i % 3 == 2) decade *= 10;
    }
    return bounds;
  }();
  static constexpr std::size_t kBuckets = kBounds.size() + 1;

  // Wait-free.
  void record(std::int64_t ns) {
    const auto bucket = std::lower_bound(kBounds.begin(), kBounds.end(), ns) - kBounds.begin();
    add(counts_[static_cast<std::size_t>(bucket)], 1);
    add(total_ns_, static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0)));
  }

  std::uint64_t count(std::size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  std::uint64_t total_ns() const { return total_ns_.load(std::memory_order_relaxed); }

 private:
  // There is one writer, so no other addition can come between.
  static void add(std::atomic<std::uint64_t>& to, std::uint64_t n) {
    to.store(to.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  std::array<std::atomic<std::uint64_t>, kBuckets> counts_{};
  std::atomic<std::uint64_t> total_ns_{0};
};

// All partitions together: they share the disk. Thread safety: as LatencyCounts; the writer is the keeper's
// thread, or its successor's in the same process.
struct KeeperFigures {
  LatencyCounts writes;                   // of blocks to segment files, from submission to completion
  LatencyCounts syncs;                    // with the write that was linked to it, where there was one
  std::atomic<std::int64_t> round_ns{0};  // CLOCK_MONOTONIC of the latest round; 0: none yet
};

}  // namespace ringtail::log
