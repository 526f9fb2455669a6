// A Backend over a disk that is not to be relied upon: faults come by chance, from a seed.
//
// Where a test wants one fault at one place it takes FaultyBackend. Here any operation may fail, be cut short, be slow,
// or return rot; and when the power goes, what was written since a file's last sync is there or not, sector by sector.
//
// Thread safety: as every Backend's; set_rates and counts from that thread, too. Lifetime: owns the wrapped Backend.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "support/forwarding_backend.h"

namespace ringtail::testing {

// Of so many operations in a thousand.
struct FaultRates {
  unsigned write_error = 0;  // EIO; any sectors of it were written
  unsigned short_write = 0;  // completes with fewer bytes than were asked for
  unsigned sync_error = 0;   // EIO; what it was to cover may be lost later on
  unsigned no_space = 0;     // of preallocations
  unsigned read_error = 0;   // EIO
  unsigned rotten_read = 0;  // one bit is another
  unsigned slow = 0;         // completes up to max_delay later
  std::chrono::microseconds max_delay{2'000};
  std::uint64_t sector = 512;  // what is written as a whole or not at all
};

class UnreliableBackend final : public ForwardingBackend {
 public:
  struct Counts {
    unsigned write_errors = 0, short_writes = 0, sync_errors = 0, no_space = 0, read_errors = 0,
             rotten_reads = 0, slow = 0, sectors_lost = 0;
  };

  UnreliableBackend(std::unique_ptr<io::Backend> inner, std::uint64_t seed)
      : ForwardingBackend(std::move(inner)), random_(seed) {}

  void set_rates(const FaultRates& rates) { rates_ = rates; }
  const Counts& counts() const { return counts_; }
  // The power goes. Requires that nothing is in flight.
  void lose_unsynced();

  // --- Backend ---
  Status preallocate(const io::File& file, std::uint64_t bytes) override;
  Status sync_file(const io::File& file) override;
  void submit_write(const io::File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                    std::uint64_t token) override;
  void submit_write_and_sync(const io::File& file, std::span<const std::byte> bytes,
                             std::uint64_t file_offset, std::uint64_t token) override;
  void submit_sync(const io::File& file, std::uint64_t token) override;
  void submit_read(const io::File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                   std::uint64_t token) override;
  std::size_t reap(std::span<io::Completion> out, bool wait) override;
  std::size_t in_flight() const override { return finished_.size(); }

 private:
  using Clock = std::chrono::steady_clock;

  struct Sector {
    std::uint64_t offset;
    std::vector<std::byte> before;
  };
  struct Unsynced {
    io::File file;  // of our own: the one that wrote may be closed, or renamed
    std::vector<Sector> sectors;
  };
  struct Finished {
    io::Completion completion;
    Clock::time_point due;
  };

  bool happens(unsigned rate) { return random_() % 1000 < rate; }
  Unsynced& unsynced_of(const io::File& file);
  std::int64_t write(const io::File& file, std::span<const std::byte> bytes, std::uint64_t file_offset);
  std::int64_t sync(const io::File& file);
  void finish(std::uint64_t token, std::int64_t result);
  template <class Submit>
  std::int64_t run(Submit submit);

  std::mt19937_64 random_;
  FaultRates rates_;
  Counts counts_;
  std::map<std::uint64_t, Unsynced> unsynced_;  // by the kernel's number of the file
  std::deque<Finished> finished_;
};

}  // namespace ringtail::testing
