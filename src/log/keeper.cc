#include "log/keeper.h"

#include <pthread.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/logger.h"
#include "log/attachment.h"
#include "log/ring.h"
#include "shm/futex.h"

namespace ringtail::log {

using shm::PartitionState;
using shm::Phase;
using shm::SlotState;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr unsigned kIoDepth = 64;
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kWatchPeriodNs = 5 * kMillisecond;
constexpr std::int64_t kBusyRestNs = kMillisecond / 4;  // between rounds while records come
constexpr std::uint64_t kMuchBytes = 512 << 10;         // in one round: go on at once
constexpr std::int64_t kIdleAfterNs = 20 * kMillisecond;
constexpr std::int64_t kIdleRestNs = 20 * kMillisecond;
constexpr std::int64_t kCatalogRetryNs = 200 * kMillisecond;
constexpr std::int64_t kOpenRetryNs =
    2'000 * kMillisecond;  // of partitions that could not be opened just then
// So long, partitions are left alone once none of them has anything to do: their bells ring when one has. What comes
// with time alone, retention and compaction, is late by that at most.
constexpr std::int64_t kQuietNs = 4'000 * kMillisecond;

}  // namespace

void Keeper::stop() {
  stop_.store(true, memory_order_release);  // SYNC: pairs with the load in run
  control_.wake_keeper();
}

Status Keeper::run() {
  pin_thread();
  if (auto ready = set_up(); !ready) return ready;
  become_ready();
  for (;;) {
    // SYNC: read before all else: a bump after this ends the rest at once.
    wake_seen_ = control_.header().keeper_wake.load(memory_order_acquire);
    if (stop_.load(memory_order_acquire)) break;  // SYNC: pairs with stop
    const std::int64_t now_ns = monotonic_ns();
    if (options_.figures != nullptr) options_.figures->round_ns.store(now_ns, memory_order_relaxed);
    reap_and_dispatch(*backend_, false);
    workshop_->deliver();
    cleaner_->deliver();
    if (auto synced = sync_catalog(); !synced) tell_of_catalog(synced.error());
    dispatch_roles();
    if (now_ns >= watch_due_ns_) watch_slots(now_ns);
    if (is_quiet(now_ns)) {
      sleep(kIdleRestNs);
      continue;
    }
    std::uint64_t bytes = 0;
    for (auto& [index, entry] : partitions_) bytes += entry.keeper->tick(now_ns);
    rest(bytes, now_ns);
  }
  for (auto& [index, entry] : partitions_) entry.keeper->cancel_compaction();
  for (auto& [index, entry] : partitions_) entry.keeper->flush_blocking();
  workshop_.reset();
  cleaner_.reset();
  partitions_.clear();
  // SYNC: nobody holds the role now; for those who show it.
  control_.header().keeper_pid.store(0, memory_order_release);
  return {};
}

// What fails is told once, by however many keepers in turn.
void Keeper::pin_thread() const {
  pthread_setname_np(pthread_self(), "ringtail-keeper");
  if (options_.cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(options_.cpu), &set);
  const int os_errno = sched_setaffinity(0, sizeof set, &set) == 0 ? 0 : errno;
  const int told = options_.pin_errno == nullptr ? 0 : std::exchange(*options_.pin_errno, os_errno);
  if (os_errno != 0 && os_errno != told)
    logger().warn("cannot pin the keeper to CPU {}: {}", options_.cpu, std::strerror(os_errno));
}

Status Keeper::set_up() {
  auto backend = io::make_backend(options_.io, kIoDepth);
  if (!backend) return std::unexpected(backend.error());
  backend_ = std::move(*backend);
  for (auto* workshop : {&workshop_, &cleaner_}) {
    auto background = io::make_backend(IoBackend::pwrite, 4);
    if (!background) return std::unexpected(background.error());
    auto started = Workshop::start(std::move(*background));
    if (!started) return std::unexpected(started.error());
    *workshop = std::move(*started);
    (*workshop)->set_on_done([this] { control_.wake_keeper(); });
  }
  context_ = {&control_,      &slots_,          backend_.get(), workshop_.get(),
              cleaner_.get(), options_.figures, on_progress_};
  const Status purged = catalog_.purge_deleted();
  // Slots found dead by a keeper that died before it repaired them are dead still.
  for (auto& watch : watched_) watch = {};
  control_.header().catalog_wanted.fetch_add(1, memory_order_relaxed);
  Status synced = sync_catalog();
  if (synced && !purged)
    logger().warn("{}", to_string(purged.error()));  // otherwise it is tried again every second
  return synced;
}

void Keeper::become_ready() {
  for (std::uint32_t slot = 0; slot < shm::kMaxSlots; ++slot)
    if (slots_.state(slot) == SlotState::dead) bury(slot);
  watch_slots(monotonic_ns());
  shm::ControlHeader& header = control_.header();
  // SYNC: pairs with Log::open's wait and the coordinator's: recovery is done, and slots are repaired.
  header.keeper_pid.store(static_cast<std::uint32_t>(::getpid()), memory_order_release);
  header.keeper_ready.store(1, memory_order_release);     // SYNC: as above
  header.keeper_term.fetch_add(1, memory_order_release);  // SYNC: as above
  shm::futex_wake_all(header.keeper_term);
}

// --- Catalog -------------------------------------------------------------------------------------

// Once, however often it is read in vain.
void Keeper::tell_of_catalog(const Error& error) {
  if (std::exchange(catalog_trouble_, error.message) == error.message) return;
  logger().error("cannot read the catalog: {}; until it can be read, it is tried again and again",
                 to_string(error));
}

// Makes the partitions in memory those of the catalog on disk, if it has changed, or could not be read.
Status Keeper::sync_catalog() {
  shm::ControlHeader& header = control_.header();
  const std::uint32_t wanted =
      header.catalog_wanted.load(memory_order_acquire);  // SYNC: pairs with Admin's bump
  const bool again = catalog_retry_ns_ != 0 && monotonic_ns() >= catalog_retry_ns_;
  if (wanted == header.catalog_done.load(memory_order_relaxed) && !again) return {};
  auto topics = catalog_.list_topics();
  Status listed;
  if (topics) {
    drop_vanished(*topics);
    if (!std::exchange(strays_removed_, true)) remove_stray_rings(*topics);
    std::set<std::uint32_t> opened_before;
    for (const auto& [index, entry] : partitions_) opened_before.insert(index);
    for (const TopicEntry& topic : *topics) {
      auto config = parse_topic_config(topic.overrides);
      if (!config) {
        logger().error("topic '{}': {}", topic.name, to_string(config.error()));
        continue;
      }
      for (std::uint32_t p = 0; p < topic.partitions; ++p) open_partition(topic, PartitionId(p), *config);
    }
    tell_of_missing_room(opened_before);
    announce_growth(*topics);
    catalog_trouble_.clear();
    const bool must_retry = std::ranges::any_of(
        partitions_, [](const auto& item) { return item.second.keeper->passing_failure().has_value(); });
    catalog_retry_ns_ = must_retry ? monotonic_ns() + kOpenRetryNs : 0;
  } else {
    listed = std::unexpected(topics.error());
    catalog_retry_ns_ = monotonic_ns() + kCatalogRetryNs;
  }
  header.catalog_done.store(wanted, memory_order_release);  // SYNC: pairs with Admin's wait
  shm::futex_wake_all(header.catalog_done);
  return listed;
}

// Each ring that found no room knows only of itself; what helps is the sum.
void Keeper::tell_of_missing_room(const std::set<std::uint32_t>& opened_before) const {
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
  std::uint64_t partitions = 0;
  std::uint64_t bytes = 0;
  for (const auto& [index, entry] : partitions_) {
    if (opened_before.contains(index)) continue;
    const auto failure = Attachment::failure_of(control_.partition(index));
    if (!failure || failure->code != Code::shared_memory_full) continue;
    const auto config = parse_topic_config(entry.overrides);
    ++partitions;
    bytes += kRingHeaderBytes + (config ? config->ring_bytes() : 0);
  }
  struct statvfs shared{};
  if (partitions == 0 || ::statvfs(place_.shm_dir.c_str(), &shared) != 0) return;
  const std::uint64_t free = std::uint64_t{shared.f_bavail} * shared.f_frsize;
  const std::uint64_t total = std::uint64_t{shared.f_blocks} * shared.f_frsize;
  const std::string where = place_.shm_dir.parent_path().native();
  logger().error(
      "no shared memory for the rings of {} partition{}, which need {} MiB in all: '{}' has {} MiB free; "
      "enlarge it "
      "(`mount -o remount,size={}M {}`), or delete topics; until a keeper opens the log anew they refuse "
      "writes",
      partitions, partitions == 1 ? "" : "s", bytes / kMiB + 1, where, free / kMiB,
      (total - std::min(total, free) + bytes) / kMiB + 1, where);
}

// Sends producers of a topic with new partitions to look for them. After a takeover, all: whether the
// predecessor got to it, nobody knows.
void Keeper::announce_growth(const std::vector<TopicEntry>& topics) {
  std::map<std::uint64_t, std::uint32_t> partitions;
  for (const TopicEntry& topic : topics) partitions[topic.topic_id] = topic.partitions;
  for (auto& [index, entry] : partitions_) {
    const std::uint32_t now = partitions[entry.keeper->partition().topic_id];
    if (std::exchange(entry.partitions_of_topic, now) == now) continue;
    // SYNC: behind the opening of the new ones; pairs with Appender::reload_entry.
    control_.partition(index).hot.fetch_add(shm::kHotVersion, memory_order_release);
  }
}

void Keeper::drop_vanished(const std::vector<TopicEntry>& topics) {
  std::set<std::uint64_t> ids;
  for (const TopicEntry& topic : topics) ids.insert(topic.topic_id);
  std::erase_if(partitions_, [&](const auto& item) {
    if (ids.contains(item.second.keeper->partition().topic_id)) return false;
    item.second.keeper->remove();
    return true;
  });
  // Entries of topics that were deleted while no keeper was there, or in an earlier round.
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    shm::Partition& entry = control_.partition(i);
    if (entry.state.load(memory_order_relaxed) == static_cast<std::uint32_t>(PartitionState::free)) continue;
    if (ids.contains(entry.topic_id.load(memory_order_relaxed))) continue;
    entry.hot.fetch_add(shm::kHotVersion, memory_order_release);  // SYNC: pairs with Appender::reload_entry
    // SYNC: pairs with the acquire loads of state: who had it open finds another topic id or state.
    entry.state.store(static_cast<std::uint32_t>(PartitionState::free), memory_order_release);
  }
}

// Rings of topics that were deleted while nobody kept the log. Of all others, whoever opens their partition takes care.
void Keeper::remove_stray_rings(const std::vector<TopicEntry>& topics) const {
  std::set<std::uint64_t> ids;
  std::set<std::filesystem::path> known;
  for (const TopicEntry& topic : topics) {
    ids.insert(topic.topic_id);
    for (std::uint32_t p = 0; p < topic.partitions; ++p)
      known.insert(ring_path(place_.shm_dir, topic.name, PartitionId(p)));
  }
  std::error_code error;
  std::filesystem::directory_iterator file(place_.shm_dir, error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    const std::filesystem::path& path = file->path();
    if (path.native().find(".ring") == std::string::npos || known.contains(path)) continue;
    const auto ring = Ring::open_header(path);  // anything else is not ours to judge
    if (!ring || ring->header().log_id != place_.log_id || ids.contains(ring->header().topic_id)) continue;
    logger().info("'{}' is of a topic that was deleted: removed", path.native());
    if (auto removed = shm::unlink_path(path); !removed) logger().warn("{}", to_string(removed.error()));
  }
}

// What a keeper before this one has left. The entries of partitions that are open are theirs, whatever stands in them.
std::optional<std::uint32_t> Keeper::find_entry(std::uint64_t topic_id, PartitionId partition) const {
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    const shm::Partition& entry = control_.partition(i);
    if (!partitions_.contains(i) &&
        entry.state.load(memory_order_relaxed) != static_cast<std::uint32_t>(PartitionState::free) &&
        entry.topic_id.load(memory_order_relaxed) == topic_id &&
        entry.partition.load(memory_order_relaxed) == partition.value())
      return i;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> Keeper::allocate_entry(std::uint64_t topic_id, PartitionId partition) const {
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    shm::Partition& entry = control_.partition(i);
    if (partitions_.contains(i) ||
        entry.state.load(memory_order_relaxed) != static_cast<std::uint32_t>(PartitionState::free))
      continue;
    entry.topic_id.store(topic_id, memory_order_relaxed);
    entry.partition.store(partition.value(), memory_order_relaxed);
    entry.ring_generation.store(0, memory_order_relaxed);
    for (auto* word :
         {&entry.durable_position, &entry.durable_offset, &entry.log_start_offset, &entry.log_start_position,
          &entry.disk_bytes, &entry.repaired_records, &entry.retired_rings, &entry.mark_turn})
      word->store(0, memory_order_relaxed);
    entry.high_watermark.store(shm::kNoWatermark, memory_order_relaxed);
    entry.high_watermark_offset.store(0, memory_order_relaxed);
    for (auto* word : {&entry.role, &entry.leader_epoch, &entry.leader_node, &entry.replicas, &entry.in_sync})
      word->store(0, memory_order_relaxed);
    for (auto* word : {&entry.space_waiters, &entry.durable_waiters, &entry.failure_code,
                       &entry.transactional, &entry.exclusive})
      word->store(0, memory_order_relaxed);
    // SYNC: publishes the identity; pairs with the acquire loads of state.
    entry.state.store(static_cast<std::uint32_t>(PartitionState::opening), std::memory_order_seq_cst);
    // Who reads a deleted topic still holds nothing of the one that has its entry now.
    for (shm::Reader& reader : control_.readers()) {
      std::uint32_t stale = i;  // SYNC: behind the identity; pairs with PartitionReader::attach
      reader.partition.compare_exchange_strong(stale, ~0u, std::memory_order_seq_cst);
    }
    return i;
  }
  return std::nullopt;
}

// Of partitions that this keeper has opened it knows by itself where they are: the control segment may be
// written to by others, and the same files must not be opened twice.
std::optional<std::uint32_t> Keeper::find_open(std::uint64_t topic_id, PartitionId partition) const {
  for (const auto& [index, entry] : partitions_) {
    const PartitionRef& ref = entry.keeper->partition();
    if (ref.topic_id == topic_id && ref.partition == partition) return index;
  }
  return std::nullopt;
}

void Keeper::open_partition(const TopicEntry& topic, PartitionId partition, const TopicConfig& config) {
  std::optional<Error> before;
  if (const auto open = find_open(topic.topic_id, partition)) {
    Entry& known = partitions_.at(*open);
    before = known.keeper->passing_failure();
    if (!before) {
      if (std::exchange(known.overrides, topic.overrides) != topic.overrides)
        known.keeper->update_config(config);
      return;
    }
    partitions_.erase(*open);
  }
  auto index = find_entry(topic.topic_id, partition);
  if (!index) index = allocate_entry(topic.topic_id, partition);
  if (!index) {
    logger().error("{}-{}: all {} partitions of the control segment are taken; delete topics to make room",
                   topic.name, partition.value(), shm::kMaxPartitions);
    return;
  }
  const PartitionRef ref{.control = &control_,
                         .index = *index,
                         .topic_id = topic.topic_id,
                         .log_id = place_.log_id,
                         .topic = topic.name,
                         .partition = partition,
                         .shm_dir = place_.shm_dir,
                         .disk_dir = catalog_.partition_dir(topic.name, partition)};
  partitions_[*index] = {topic.overrides,
                         PartitionKeeper::open(context_, ref, config, topic.replication_factor > 0, before)};
}

void Keeper::request_role(std::uint64_t topic_id, PartitionId partition, RoleRequest request) {
  {
    std::lock_guard lock(roles_mutex_);
    asked_roles_.push_back({topic_id, partition, std::move(request)});
  }
  control_.wake_keeper();
}

std::vector<Keeper::AskedRole> Keeper::take_asked_roles() {
  std::lock_guard lock(roles_mutex_);
  return std::exchange(asked_roles_, {});
}

void Keeper::refuse_roles() {
  for (const AskedRole& a : take_asked_roles())
    if (a.request.done) a.request.done(std::unexpected(nobody_keeps(catalog_.dir())));
}

void Keeper::dispatch_roles() {
  for (AskedRole& a : take_asked_roles()) {
    if (const auto index = find_open(a.topic_id, a.partition)) {
      partitions_.at(*index).keeper->request_role(std::move(a.request));
    } else if (a.request.done) {
      a.request.done(fail(Code::not_found, fmt::format("no such partition here: {} of topic {:016x}",
                                                       a.partition.value(), a.topic_id)));
    }
  }
}

// --- Slots ---------------------------------------------------------------------------------------

void Keeper::watch_slots(std::int64_t now_ns) {
  watch_due_ns_ = now_ns + kWatchPeriodNs;
  bool sent = false;
  for (const std::uint32_t slot : slots_.find_deaths()) {
    sent = sent || control_.slot(slot).role.load(memory_order_relaxed) !=
                       static_cast<std::uint32_t>(shm::SlotRole::consumer);
    bury(slot);
  }
  // He may have died behind a commit, or with the flag of those who sleep in his hands: nobody else wakes those.
  if (sent)
    for (auto& [index, entry] : partitions_) entry.keeper->wake_readers();
  const auto used = static_cast<std::uint32_t>(control_.slots().size());
  for (std::uint32_t i = 0; i < used; ++i) {
    SlotWatch& watch = watched_[i];
    const std::uint64_t op = control_.slot(i).op.load(memory_order_acquire);  // SYNC: pairs with OwnedSlot
    if (op != watch.op) {
      watch = {op, now_ns};
      continue;
    }
    if (shm::op_phase(op) == Phase::idle || slots_.state(i) != SlotState::active) continue;
    const auto partition = partitions_.find(shm::op_partition(op));
    if (partition == partitions_.end()) continue;
    const std::uint32_t timeout_ms =
        control_.partition(partition->first).claim_timeout_ms.load(memory_order_relaxed);
    if (now_ns - watch.since_ns < std::int64_t{timeout_ms} * kMillisecond) continue;
    // Given up already, perhaps by a keeper that died before it was settled: then again.
    if (shm::is_same_claim(control_.slot(i).given_up_done.load(memory_order_relaxed), op)) continue;
    watch.since_ns = now_ns;
    quiet_until_ns_ = 0;
    partition->second.keeper->on_slot_stuck(i, op);
  }
}

// Takes from a dead process what it held.
void Keeper::bury(std::uint32_t slot) {
  const shm::Slot& entry = control_.slot(slot);
  for (shm::Reader& reader : control_.readers()) {
    if (reader.owner.load(memory_order_relaxed) != slot + 1) continue;
    reader.pin.store(shm::kNotPinned, memory_order_relaxed);
    reader.owner.store(0, memory_order_release);  // SYNC: pairs with the next reader's CAS
  }
  const std::uint64_t op = entry.op.load(memory_order_acquire);  // SYNC: pairs with OwnedSlot
  logger().info("pid {} ({}) died{}", entry.pid.load(memory_order_relaxed),
                entry.role.load(memory_order_relaxed) == 1 ? "a producer" : "a consumer",
                shm::op_phase(op) == Phase::idle ? "" : " within an append; repairing");
  quiet_until_ns_ = 0;
  const auto partition = partitions_.find(shm::op_partition(op));
  if (shm::op_phase(op) == Phase::idle || partition == partitions_.end())
    slots_.release_dead(slot);
  else
    partition->second.keeper->on_slot_dead(slot);
}

// --- Pace ----------------------------------------------------------------------------------------

// Between two rounds: not at all while there is much to do, a quarter of a millisecond while records
// come, and until the bell rings when there are none.
void Keeper::rest(std::uint64_t bytes, std::int64_t now_ns) {
  for (auto& [index, entry] : partitions_) {
    if (!entry.keeper->is_awaited()) continue;
    reap_and_dispatch(*backend_, true);
    return;
  }
  if (bytes > 0 || idle_since_ns_ == 0) idle_since_ns_ = now_ns;
  if (bytes >= kMuchBytes) return;
  const bool idle = now_ns - idle_since_ns_ > kIdleAfterNs && arm_bells();
  if (idle) begin_quiet(now_ns);
  sleep(idle ? kIdleRestNs : kBusyRestNs);
}

void Keeper::sleep(std::int64_t for_ns) const {
  shm::ControlHeader& header = control_.header();
  // SYNC: before the comparison within futex_wait; pairs with Control::wake_keeper.
  header.keeper_asleep.store(1, std::memory_order_seq_cst);
  shm::futex_wait(header.keeper_wake, wake_seen_, monotonic_ns() + for_ns);
  header.keeper_asleep.store(0, memory_order_relaxed);
}

// All bells are armed. A thousand partitions cost as much to look at as one that is at work.
void Keeper::begin_quiet(std::int64_t now_ns) {
  quiet_until_ns_ = now_ns + kQuietNs;
  quiet_wake_ = wake_seen_;
  lease_end_ns_ = first_lease_end_ns();
  for (auto& [index, entry] : partitions_)
    if (entry.keeper->is_waited_for()) quiet_until_ns_ = 0;
}

bool Keeper::is_quiet(std::int64_t now_ns) {
  if (now_ns >= quiet_until_ns_ || wake_seen_ != quiet_wake_) return false;
  // Renewed meanwhile, as a rule: nobody rings for that.
  if (boottime_ns() >= lease_end_ns_) lease_end_ns_ = first_lease_end_ns();
  return boottime_ns() < lease_end_ns_;
}

std::int64_t Keeper::first_lease_end_ns() const {
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  for (const auto& [index, entry] : partitions_) first = std::min(first, entry.keeper->lease_end_ns());
  return first;
}

bool Keeper::arm_bells() {
  bool all = true;
  for (auto& [index, entry] : partitions_) all = entry.keeper->arm_bell() && all;
  return all;
}

}  // namespace ringtail::log
