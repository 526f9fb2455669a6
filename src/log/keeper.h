// The keeper: the role that, for all partitions of a log directory, flushes, recycles, repairs and
// enforces retention. One process per log holds it; whoever wants it waits on the role lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "io/backend.h"
#include "log/catalog.h"
#include "log/partition_keeper.h"
#include "shm/byte_lock.h"
#include "shm/slots.h"

namespace ringtail::log {

struct KeeperOptions {
  IoBackend io = IoBackend::automatic;
  int cpu = -1;                      // to pin the thread to
  int* pin_errno = nullptr;          // why it is not pinned, as told last; 0: it is. Must outlive the keeper
  KeeperFigures* figures = nullptr;  // filled in meanwhile; must outlive the keeper
};

// Where one log lives.
struct LogPlace {
  std::array<std::uint64_t, 2> log_id{};
  std::filesystem::path shm_dir;
};

// Thread safety: run() on one thread; stop() from any. Process safety: only while holding the role lock.
// Lifetime: the control segment, the lock file and the catalog must outlive it.
class Keeper {
 public:
  Keeper(const shm::Control& control, shm::ByteLockFile& locks, const Catalog& catalog, LogPlace place,
         KeeperOptions options)
      : control_(control),
        catalog_(catalog),
        place_(std::move(place)),
        options_(options),
        slots_(control, locks) {}

  // Recovers the log, then works until stop(), then flushes everything to disk. Blocks meanwhile.
  // Errors: of opening the I/O backend or the catalog, and of Workshop::start; then the role is of no use to this
  // process.
  Status run();
  // Ends run(). Lock-free.
  void stop();

  // Asks for another role in a replicated partition; the request's `done` tells what came of it.
  void request_role(std::uint64_t topic_id, PartitionId partition, RoleRequest request);
  // Answers, behind run(), what came too late for it, with no_keeper.
  void refuse_roles();
  // Called on the keeper's thread; see KeeperContext. Before run().
  void set_on_progress(std::function<void(std::uint32_t)> on_progress) {
    on_progress_ = std::move(on_progress);
  }

 private:
  struct SlotWatch {
    std::uint64_t op = shm::kNoOp;
    std::int64_t since_ns = 0;
  };

  Status set_up();
  void become_ready();
  void pin_thread() const;
  Status sync_catalog();
  void tell_of_catalog(const Error& error);
  void announce_growth(const std::vector<TopicEntry>& topics);
  void tell_of_missing_room(const std::set<std::uint32_t>& opened_before) const;
  void drop_vanished(const std::vector<TopicEntry>& topics);
  void remove_stray_rings(const std::vector<TopicEntry>& topics) const;
  void open_partition(const TopicEntry& topic, PartitionId partition, const TopicConfig& config);
  std::optional<std::uint32_t> find_open(std::uint64_t topic_id, PartitionId partition) const;
  std::optional<std::uint32_t> find_entry(std::uint64_t topic_id, PartitionId partition) const;
  std::optional<std::uint32_t> allocate_entry(std::uint64_t topic_id, PartitionId partition) const;
  void watch_slots(std::int64_t now_ns);
  void bury(std::uint32_t slot);
  void dispatch_roles();
  void rest(std::uint64_t bytes, std::int64_t now_ns);
  bool arm_bells();
  void sleep(std::int64_t for_ns) const;
  void begin_quiet(std::int64_t now_ns);
  bool is_quiet(std::int64_t now_ns);
  std::int64_t first_lease_end_ns() const;

  const shm::Control& control_;
  const Catalog& catalog_;
  LogPlace place_;
  KeeperOptions options_;
  shm::SlotMonitor slots_;
  std::atomic<bool> stop_{false};

  std::unique_ptr<io::Backend> backend_;
  std::unique_ptr<Workshop> workshop_;  // destroyed before the partitions its jobs are for
  std::unique_ptr<Workshop> cleaner_;   // likewise
  KeeperContext context_;
  struct Entry {
    TopicConfigs overrides;
    std::unique_ptr<PartitionKeeper> keeper;
    std::uint32_t partitions_of_topic = 0;  // as producers were told
  };
  std::map<std::uint32_t, Entry> partitions_;  // by index of their entry
  std::array<SlotWatch, shm::kMaxSlots> watched_;
  std::int64_t watch_due_ns_ = 0;
  std::int64_t catalog_retry_ns_ =
      0;  // when the catalog is read again: something could not be opened; 0: all could
  std::string catalog_trouble_;  // as it was told
  bool strays_removed_ = false;  // since this keeper began
  std::int64_t idle_since_ns_ = 0;
  std::uint32_t wake_seen_ = 0;
  std::int64_t quiet_until_ns_ = 0;  // while nobody rings
  std::uint32_t quiet_wake_ = 0;     // wake_seen_ when the bells were armed
  std::int64_t lease_end_ns_ = 0;    // the first of this host's leaderships, CLOCK_BOOTTIME

  struct AskedRole {
    std::uint64_t topic_id;
    PartitionId partition;
    RoleRequest request;
  };
  std::vector<AskedRole> take_asked_roles();
  std::mutex roles_mutex_;
  std::vector<AskedRole> asked_roles_;
  std::function<void(std::uint32_t)> on_progress_;
};

}  // namespace ringtail::log
