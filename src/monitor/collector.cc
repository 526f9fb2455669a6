#include "monitor/collector.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "base/parse.h"
#include "client/log_core.h"

namespace ringtail::monitor {

using std::memory_order_relaxed;

namespace {

// Marks move while they are read one after the other.
template <class Mark>
std::uint64_t distance(Mark from, Mark to) {
  return to > from ? to - from : 0;
}

Latencies read(const log::LatencyCounts& counts) {
  Latencies latencies;
  for (std::size_t i = 0; i < latencies.counts.size(); ++i) latencies.counts[i] = counts.count(i);
  latencies.total_ns = counts.total_ns();
  return latencies;
}

// What Admin does not tell of a topic's partitions: by their entries in the control segment.
// Errors: not_found (deleted meanwhile), and those of the catalog.
Status read_entries(const LogCore& core, TopicSnapshot& topic) {
  const auto entry = core.catalog().load_topic(topic.name);
  if (!entry) return std::unexpected(entry.error());
  topic.topic_id = entry->topic_id;
  for (PartitionSnapshot& p : topic.partitions) {
    const auto ref = core.find_partition(*entry, p.is.partition, kNoPatience);
    if (!ref) continue;
    p.repaired_records = ref->entry().repaired_records.load(memory_order_relaxed);
    p.retired_rings = ref->entry().retired_rings.load(memory_order_relaxed);
  }
  return {};
}

Result<TopicSnapshot> snapshot_of(const LogCore& core, TopicDescription description) {
  TopicSnapshot topic;
  topic.name = description.name;
  if (const auto storage = description.configs.find("storage"); storage != description.configs.end())
    topic.on_disk = storage->second != "memory";
  if (const auto least = description.configs.find("min.insync.replicas"); least != description.configs.end())
    topic.min_insync_replicas = static_cast<std::uint32_t>(parse_integer(least->second).value_or(1));
  for (PartitionDescription& p : description.partitions) topic.partitions.push_back({.is = std::move(p)});
  if (auto read = read_entries(core, topic); !read) return std::unexpected(read.error());
  return topic;
}

std::vector<GroupDescription> groups_of(const LogCore& core, const Admin& admin) {
  std::vector<GroupDescription> groups;
  // While their positions cannot be restored, Admin waits for that.
  // SYNC: pairs with the coordinator's store.
  if (core.control().groups().ready.load(std::memory_order_acquire) == 0) return groups;
  const auto listed = admin.list_groups();
  if (!listed) return groups;
  for (const GroupSummary& group : *listed)
    if (auto described = admin.describe_group(group.id)) groups.push_back(std::move(*described));
  return groups;
}

void measure_space(const std::filesystem::path& dir, std::uint64_t& free, std::uint64_t& total) {
  struct statvfs space{};
  if (::statvfs(dir.c_str(), &space) != 0) return;
  free = std::uint64_t{space.f_bavail} * space.f_frsize;
  total = std::uint64_t{space.f_blocks} * space.f_frsize;
}

}  // namespace

std::uint64_t PartitionSnapshot::durable_lag_records() const {
  return distance(is.durable_offset, is.log_end_offset);
}

std::uint64_t PartitionSnapshot::durable_lag_bytes() const {
  return distance(is.durable_position, is.log_end_position);
}

std::uint64_t Latencies::count() const {
  std::uint64_t sum = 0;
  for (const std::uint64_t one : counts) sum += one;
  return sum;
}

Latencies Latencies::operator-(const Latencies& earlier) const {
  Latencies difference;
  for (std::size_t i = 0; i < counts.size(); ++i)
    difference.counts[i] = distance(earlier.counts[i], counts[i]);
  difference.total_ns = distance(earlier.total_ns, total_ns);
  return difference;
}

std::optional<double> Latencies::percentile(double percent) const {
  const std::uint64_t all = count();
  if (all == 0) return std::nullopt;
  const double wanted = percent / 100 * static_cast<double>(all);
  constexpr const auto& kBounds = log::LatencyCounts::kBounds;
  double below = 0;
  for (std::size_t i = 0; i < kBounds.size(); ++i) {
    const auto here = static_cast<double>(counts[i]);
    const double low = i == 0 ? 0 : static_cast<double>(kBounds[i - 1]);
    if (here > 0 && below + here >= wanted)
      return low + (static_cast<double>(kBounds[i]) - low) * (wanted - below) / here;
    below += here;
  }
  return static_cast<double>(kBounds.back());  // at least
}

KeeperSnapshot Collector::keeper() const {
  const LogCore& core = *log_.core();
  KeeperSnapshot keeper;
  keeper.here = core.is_keeper();
  if (keeper.here) {
    keeper.pid = static_cast<std::uint32_t>(::getpid());
    const std::int64_t round_ns = core.keeper_figures().round_ns.load(memory_order_relaxed);
    if (round_ns != 0) keeper.idle_ns = std::max<std::int64_t>(monotonic_ns() - round_ns, 0);
  } else if (const auto lock = shm::ByteLockFile::open(core.keeper_lock());
             lock && lock->is_locked(0).value_or(false)) {
    keeper.pid = core.control().header().keeper_pid.load(memory_order_relaxed);
  }
  keeper.failure = core.attachment().keeper_failure();
  return keeper;
}

Result<Snapshot> Collector::collect() {
  const std::lock_guard lock(mutex_);
  const LogCore& core = *log_.core();
  const Admin admin(log_);
  Snapshot snapshot;
  const auto names = admin.list_topics();
  if (!names) return std::unexpected(names.error());
  for (const std::string& name : *names) {
    auto described = admin.describe_topic(name);
    auto topic = described ? snapshot_of(core, std::move(*described)) : std::unexpected(described.error());
    if (topic)
      snapshot.topics.push_back(std::move(*topic));
    else if (topic.error().code != Code::not_found)
      ++snapshot.unreadable_topics;
  }
  totals_.add(snapshot);
  auto processes = admin.list_processes();
  if (!processes) return std::unexpected(processes.error());
  snapshot.processes = std::move(*processes);
  snapshot.groups = groups_of(core, admin);
  const auto is_slot = [](const ProcessDescription& p) { return p.role != ProcessRole::keeper; };
  snapshot.slots_in_use = static_cast<std::size_t>(std::ranges::count_if(snapshot.processes, is_slot));
  snapshot.slots = shm::kMaxSlots;
  snapshot.keeper = keeper();
  snapshot.writes = read(core.keeper_figures().writes);
  snapshot.syncs = read(core.keeper_figures().syncs);
  snapshot.log_id = log_.id();
  snapshot.dir = log_.dir();
  measure_space(log_.dir(), snapshot.disk_free_bytes, snapshot.disk_total_bytes);
  measure_space(core.attachment().place().shm_dir, snapshot.shared_memory_free_bytes,
                snapshot.shared_memory_total_bytes);
  snapshot.taken_ns = monotonic_ns();
  snapshot.wall_ns = wall_clock_ns();
  return snapshot;
}

}  // namespace ringtail::monitor
