// A process's hold on a log, without roles: its catalog on disk and its place in shared memory, and how to
// find a partition there.
#pragma once

#include <chrono>
#include <filesystem>
#include <mutex>
#include <optional>

#include "log/catalog.h"
#include "log/keeper.h"
#include "log/partition_ref.h"
#include "ringtail/error.h"
#include "shm/byte_lock.h"
#include "shm/control.h"

namespace ringtail::log {

// How long a keeper may take to answer before somebody is told so. Recovery of a large log takes seconds.
inline constexpr std::chrono::seconds kKeeperPatience{60};

// Thread safety: all members may be called from any thread. Process safety: any number of processes.
class Attachment {
 public:
  Attachment(Catalog catalog, LogPlace place, shm::Control control, shm::ByteLockFile locks)
      : catalog_(std::move(catalog)),
        place_(std::move(place)),
        control_(std::move(control)),
        locks_(std::move(locks)) {}

  const Catalog& catalog() const { return catalog_; }
  const LogPlace& place() const { return place_; }
  const shm::Control& control() const { return control_; }
  shm::ByteLockFile& locks() { return locks_; }
  const std::filesystem::path& dir() const { return catalog_.dir(); }

  // The partition's place in shared memory, once a keeper has opened it. Blocks until then; of one that is being
  // opened still after `patience`, it is the place as it is. `keeper_patience`: for how long a keeper that does not
  // know the partition yet may take to begin.
  // Errors: not_found, no_keeper, would_block (it has not begun within a shorter patience), and why the keeper could
  // not open it.
  Result<PartitionRef> find_partition(const TopicEntry& topic, PartitionId partition,
                                      std::chrono::nanoseconds patience = kKeeperPatience,
                                      std::chrono::nanoseconds keeper_patience = kKeeperPatience) const;

  // Tells the keeper that the catalog on disk has changed, and waits until it has acted on it.
  // Errors: no_keeper when none does in time.
  Status apply_catalog(std::chrono::nanoseconds patience = kKeeperPatience) const;

  // The failure that a partition's entry tells of, if any.
  static std::optional<Error> failure_of(const shm::Partition& entry);
  // The same of a partition, as far as it has an entry. Does not block.
  std::optional<Error> find_failure(const TopicEntry& topic, PartitionId partition) const;

  // Why this process's own keeper came to nothing, as long as nobody keeps the log: an answer to those who would wait
  // for it.
  void note_keeper_failure(Error failure);
  std::optional<Error> keeper_failure() const;

 private:
  std::optional<std::uint32_t> find_entry(std::uint64_t topic_id, PartitionId partition) const;

  Catalog catalog_;
  LogPlace place_;
  shm::Control control_;
  shm::ByteLockFile locks_;
  mutable std::mutex mutex_;
  std::optional<Error> keeper_failure_;
};

// The error of whoever needs a keeper and finds none.
Error nobody_keeps(const std::filesystem::path& dir);

}  // namespace ringtail::log
