// A process's attachment to a log: what Log, Admin, Producer and Consumer share.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "log/catalog.h"
#include "log/keeper.h"
#include "log/partition_ref.h"
#include "ringtail/log.h"
#include "shm/byte_lock.h"
#include "shm/control.h"
#include "shm/role_lock.h"

namespace ringtail {

// Thread safety: all members may be called from any thread. Process safety: see Log.
class LogCore {
 public:
  static Result<std::shared_ptr<LogCore>> open(LogOptions options);
  ~LogCore();

  const log::Catalog& catalog() const { return catalog_; }
  const shm::Control& control() const { return control_; }
  shm::ByteLockFile& locks() { return locks_; }
  const LogOptions& options() const { return options_; }
  bool is_keeper() const { return candidate_ && candidate_->holds_role(); }

  // Whether this process is the one that opened the log, not its forked child.
  bool is_mine() const { return shm::fork_generation() == fork_generation_; }
  Status check_mine() const;

  // The partition's place in shared memory, once a keeper has opened it. Blocks until then.
  // Errors: not_found, no_keeper, and why the keeper could not open it.
  Result<log::PartitionRef> find_partition(const log::TopicEntry& topic, PartitionId partition) const;

  // Tells the keeper that the catalog on disk has changed, and waits until it has acted on it.
  // Errors: no_keeper when none does in time.
  Status apply_catalog() const;

  // The failure that a partition's entry tells of, if any.
  static std::optional<Error> failure_of(const shm::Partition& entry);

 private:
  LogCore(LogOptions options, log::Catalog catalog, log::LogPlace place, shm::Control control,
          shm::ByteLockFile locks)
      : options_(std::move(options)),
        catalog_(std::move(catalog)),
        place_(std::move(place)),
        control_(std::move(control)),
        locks_(std::move(locks)),
        fork_generation_(shm::fork_generation()) {}

  Status start_candidate();
  Status wait_for_keeper();
  void run_keeper(const std::stop_token& stop);
  std::optional<Error> keeper_failure() const;
  std::optional<std::uint32_t> find_entry(std::uint64_t topic_id, PartitionId partition) const;

  LogOptions options_;
  log::Catalog catalog_;
  log::LogPlace place_;
  shm::Control control_;
  shm::ByteLockFile locks_;
  std::uint32_t fork_generation_;
  mutable std::mutex mutex_;
  std::optional<Error> keeper_failure_;
  std::unique_ptr<shm::RoleCandidate> candidate_;  // its thread uses all above
};

}  // namespace ringtail
