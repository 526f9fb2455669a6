// A partition with its keeper, turned by hand: what happens in a round depends on nothing but what was appended.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "io/backend.h"
#include "log/appender.h"
#include "log/partition_keeper.h"
#include "log/workshop.h"
#include "shm/byte_lock.h"
#include "shm/slots.h"

namespace ringtail::bench {

// Thread safety: none. Failures are exceptions, as everywhere in benchmarks.
class HandKeeper {
 public:
  // Keeps a new partition in `dir`, which is made.
  explicit HandKeeper(const std::filesystem::path& dir);

  // Appends so many records, which must fit into a term, and returns where the last one ends.
  Position append(std::string_view value, std::size_t count);
  // Rounds until all up to `end` is on disk, and until there is a segment file in reserve.
  void warm_up(Position end);
  // One round, as Keeper makes it. By its clock rounds are a millisecond apart.
  void turn();
  Position durable() const { return Position(ref_.entry().durable_position.load(std::memory_order_relaxed)); }

 private:
  shm::Control control_;
  shm::ByteLockFile locks_;
  shm::SlotMonitor monitor_;
  log::PartitionRef ref_;
  std::unique_ptr<io::Backend> backend_;  // of pwrite: what is submitted is done
  log::Workshop workshop_;
  log::Workshop cleaner_;
  std::unique_ptr<log::PartitionKeeper> keeper_;
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::optional<log::Appender> appender_;
  std::int64_t now_ns_ = monotonic_ns();
};

}  // namespace ringtail::bench
