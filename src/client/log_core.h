// A process's attachment to a log: what Log, Admin, Producer and Consumer share.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "log/attachment.h"
#include "log/keeper_figures.h"
#include "log/role.h"
#include "ringtail/log.h"
#include "shm/role_lock.h"

namespace ringtail {

// Of who only looks: at a partition that is said to be opened, as it is.
inline constexpr std::chrono::nanoseconds kNoPatience{0};

// Thread safety: all members may be called from any thread. Process safety: see Log.
class LogCore {
 public:
  static Result<std::shared_ptr<LogCore>> open(LogOptions options);
  ~LogCore();

  const log::Attachment& attachment() const { return attachment_; }
  const log::Catalog& catalog() const { return attachment_.catalog(); }
  const shm::Control& control() const { return attachment_.control(); }
  shm::ByteLockFile& locks() { return attachment_.locks(); }
  const LogOptions& options() const { return options_; }
  // The file whose lock is the keeper's role.
  std::filesystem::path keeper_lock() const { return options_.dir / "keeper.lock"; }
  bool is_keeper() const { return candidate_ && candidate_->holds_role(); }
  // Whether this process's keeper has recovered the log, besides.
  bool keeps() const;
  // Ends this process's keeper, which flushes before it goes; until the log is opened anew, it is none again. Idempotent.
  // Blocks for that flush. From the thread that opened the log, or is to end it.
  void stop_keeping();
  // Of this process's keeper; nothing is counted while another process is it.
  const log::KeeperFigures& keeper_figures() const { return keeper_figures_; }

  // Notes that the log belongs to a cluster: nobody but its ringtaild keeps it from now on. Durable on return.
  // Errors: as write_file_atomically.
  Status note_cluster(const std::string& cluster) const;
  // For the replicator, in the process that keeps: asks for another role of a partition. Its `done` is told
  // no_keeper where this process does not keep the log.
  void request_role(std::uint64_t topic_id, PartitionId partition, log::RoleRequest request);
  // Called on the keeper's thread; see log::KeeperContext.
  void set_on_progress(std::function<void(std::uint32_t)> on_progress);

  // Whether this process is the one that opened the log, not its forked child.
  bool is_mine() const { return shm::fork_generation() == fork_generation_; }
  Status check_mine() const;

  // See Attachment::find_partition, with one patience for both.
  Result<log::PartitionRef> find_partition(const log::TopicEntry& topic, PartitionId partition,
                                           std::chrono::nanoseconds patience = log::kKeeperPatience) const {
    return attachment_.find_partition(topic, partition, patience, patience);
  }
  Status apply_catalog() const { return attachment_.apply_catalog(); }

 private:
  LogCore(LogOptions options, log::Catalog catalog, log::LogPlace place, shm::Control control,
          shm::ByteLockFile locks)
      : options_(std::move(options)),
        attachment_(std::move(catalog), std::move(place), std::move(control), std::move(locks)),
        fork_generation_(shm::fork_generation()) {}

  bool is_of_cluster() const;
  Status start_candidate();
  Status wait_for_keeper();
  void run_keeper(const std::stop_token& stop);
  void note_keeper_failure(const Error& failure);
  void set_keeper(log::Keeper* keeper);

  LogOptions options_;
  log::Attachment attachment_;
  std::uint32_t fork_generation_;
  log::KeeperFigures keeper_figures_;
  std::mutex keeper_mutex_;
  log::Keeper* keeper_ = nullptr;  // while this process keeps
  std::function<void(std::uint32_t)> on_progress_;
  std::atomic<bool> is_open_{false};
  std::string failure_told_;                       // the candidate's thread alone
  int pin_errno_ = 0;                              // likewise; see log::KeeperOptions
  std::unique_ptr<shm::RoleCandidate> candidate_;  // its thread uses all above
};

}  // namespace ringtail
