#include "ringtail/admin.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <tuple>

#include "base/topic_config.h"
#include "client/log_core.h"
#include "client/room.h"
#include "log/ring.h"
#include "shm/process.h"
#include "shm/slots.h"

namespace ringtail {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

// What the file system has given to all files of a partition.
std::uint64_t allocated_bytes(const std::filesystem::path& dir) {
  constexpr std::uint64_t kBlock = 512;  // of st_blocks, whatever the file system's is
  std::uint64_t bytes = 0;
  std::error_code error;
  std::filesystem::directory_iterator file(dir, error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    struct stat status{};
    if (::lstat(file->path().c_str(), &status) == 0)
      bytes += static_cast<std::uint64_t>(status.st_blocks) * kBlock;
  }
  return bytes;
}

PartitionDescription describe(const LogCore& core, const log::TopicEntry& topic, const TopicConfig& config,
                              PartitionId partition) {
  PartitionDescription d;
  d.partition = partition;
  auto ref = core.find_partition(topic, partition, kNoPatience);
  if (!ref) {
    d.failure = ref.error();
    return d;
  }
  const shm::Partition& entry = ref->entry();
  d.failure = log::Attachment::failure_of(entry);
  d.log_start_offset = Offset(entry.log_start_offset.load(memory_order_relaxed));
  d.log_start_position = Position(entry.log_start_position.load(memory_order_relaxed));
  d.durable_offset = config.storage == Storage::disk ? Offset(entry.durable_offset.load(memory_order_relaxed))
                                                     : d.log_start_offset;
  d.durable_position = config.storage == Storage::disk
                           ? Position(entry.durable_position.load(memory_order_relaxed))
                           : d.log_start_position;
  d.disk_bytes = entry.disk_bytes.load(memory_order_relaxed);
  if (config.storage == Storage::disk) d.disk_allocated_bytes = allocated_bytes(ref->disk_dir);
  d.ring_generation = entry.ring_generation.load(memory_order_relaxed);
  d.log_end_offset = d.durable_offset;
  d.log_end_position = Position(entry.durable_position.load(memory_order_relaxed));
  auto ring = log::Ring::open_header(log::ring_path(ref->shm_dir, topic.name, partition));
  if (ring) {
    const log::Ring::End end = ring->claimed_end();
    d.log_end_offset = end.offset;
    d.log_end_position = end.position;
    d.ring_bytes = ring->ring_bytes();
    d.term_bytes = ring->term_bytes();
  } else if (entry.state.load(memory_order_relaxed) ==
             static_cast<std::uint32_t>(shm::PartitionState::opening)) {
    d.failure = Error{
        Code::would_block, 0,
        fmt::format("topic '{}' partition {} is being opened; look again", topic.name, partition.value())};
  } else if (!d.failure) {
    d.failure = ring.error();
  }
  const bool alone = entry.role.load(memory_order_relaxed) == 0;
  d.high_watermark =
      alone ? d.log_end_offset : Offset(entry.high_watermark_offset.load(memory_order_relaxed));
  d.leader_epoch = LeaderEpoch(entry.leader_epoch.load(memory_order_relaxed));
  if (const auto owner = entry.exclusive.load(memory_order_relaxed);
      shm::is_active_owner(core.control(), owner))
    d.exclusive_pid = core.control().slot(shm::owner_slot(owner)).pid.load(memory_order_relaxed);
  return d;
}

}  // namespace

namespace {

// Tells the keeper of partitions that are new on disk, and waits until they are open, or one cannot be.
Status open_partitions(const LogCore& core, const log::TopicEntry& topic) {
  if (auto applied = core.apply_catalog(); !applied) return applied;
  for (std::uint32_t p = 0; p < topic.partitions; ++p) {
    auto ref = core.find_partition(topic, PartitionId(p));
    if (!ref) return std::unexpected(ref.error());
    if (auto failure = log::Attachment::failure_of(ref->entry())) return std::unexpected(*failure);
  }
  return {};
}

std::uint32_t free_partitions(const shm::Control& control) {
  std::uint32_t free = 0;
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i)
    free += control.partition(i).state.load(memory_order_relaxed) ==
            static_cast<std::uint32_t>(shm::PartitionState::free);
  return free;
}

// What else is wrong with a topic that is to be made is the catalog's to say.
Status check_room_for(const LogCore& core, const TopicSpec& spec) {
  const auto config = parse_topic_config(spec.configs);
  const auto known = core.catalog().load_topic(spec.name);
  if (!config || known || known.error().code != Code::not_found) return {};
  if (spec.partitions > log::kMaxTopicPartitions) return {};
  return check_room_for_rings(core.options().shared_memory_dir, spec.name, spec.partitions, *config);
}

}  // namespace

Status Admin::create_topic(const TopicSpec& spec) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  if (auto room = check_room_for(core, spec); !room) return room;
  auto topic = core.catalog().create_topic(spec);
  if (!topic) return std::unexpected(topic.error());
  Status opened = open_partitions(core, *topic);
  if (opened || opened.error().code == Code::no_keeper) return opened;
  // It cannot be used: better no topic than half a one. Unless somebody has deleted it, and made another since.
  if (const auto now = core.catalog().load_topic(spec.name); !now || now->topic_id != topic->topic_id)
    return opened;
  if (auto deleted = core.catalog().delete_topic(spec.name); deleted) {
    if (auto applied = core.apply_catalog(); !applied)
      opened.error().message += "; " + applied.error().message;
  }
  return opened;
}

Result<std::vector<std::string>> Admin::list_topics() const {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  return core.catalog().list_names();
}

Result<TopicDescription> Admin::describe_topic(std::string_view name) const {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  auto topic = core.catalog().load_topic(name);
  if (!topic) return std::unexpected(topic.error());
  auto config = parse_topic_config(topic->overrides);
  if (!config) return std::unexpected(config.error());
  TopicDescription description{topic->name, format_topic_config(*config), topic->overrides, {}};
  for (std::uint32_t p = 0; p < topic->partitions; ++p)
    description.partitions.push_back(describe(core, *topic, *config, PartitionId(p)));
  return description;
}

// --- Processes -----------------------------------------------------------------------------------

namespace {

// The names of topics by their ids.
using TopicNames = std::map<std::uint64_t, std::string>;

std::vector<ReadPosition> reads_of(const shm::Control& control, std::uint32_t slot, const TopicNames& names) {
  std::vector<ReadPosition> reads;
  for (const shm::Reader& reader : control.readers()) {
    // SYNC: pairs with the compare-and-set by which a reader is taken.
    if (reader.owner.load(memory_order_acquire) != slot + 1) continue;
    const std::uint32_t index = reader.partition.load(memory_order_relaxed);
    if (index >= shm::kMaxPartitions) continue;
    const shm::Partition& entry = control.partition(index);
    const auto name = names.find(entry.topic_id.load(memory_order_relaxed));
    if (name == names.end()) continue;  // deleted
    reads.push_back({.partition = {name->second, PartitionId(entry.partition.load(memory_order_relaxed))},
                     .position = Position(reader.position.load(memory_order_relaxed)),
                     .offset = Offset(reader.offset.load(memory_order_relaxed))});
  }
  std::ranges::sort(reads, {}, &ReadPosition::partition);
  return reads;
}

ProcessRole role_of(const shm::Slot& slot) {
  switch (static_cast<shm::SlotRole>(slot.role.load(memory_order_relaxed))) {
    case shm::SlotRole::producer: return ProcessRole::producer;
    case shm::SlotRole::coordinator: return ProcessRole::coordinator;
    case shm::SlotRole::admin: return ProcessRole::admin;
    case shm::SlotRole::consumer: break;
  }
  return ProcessRole::consumer;
}

// Nothing when the slot has no owner, or got another while we looked.
std::optional<ProcessDescription> describe_slot(const shm::Control& control, const shm::ByteLockFile& locks,
                                                std::uint32_t index, const TopicNames& names) {
  const shm::Slot& slot = control.slot(index);
  const std::uint64_t word = slot.word.load(memory_order_acquire);  // SYNC: pairs with acquire's last step
  const shm::SlotState state = shm::slot_state(word);
  if (state != shm::SlotState::active && state != shm::SlotState::dead) return std::nullopt;
  ProcessDescription d;
  d.pid = slot.pid.load(memory_order_relaxed);
  d.role = role_of(slot);
  d.started_ns = static_cast<std::int64_t>(slot.start_ns.load(memory_order_relaxed));
  for (const auto& letter : slot.name) {
    const char c = letter.load(memory_order_relaxed);
    if (c == 0) break;
    d.name += c;
  }
  d.alive = state == shm::SlotState::active && locks.is_locked(index).value_or(true);
  if (d.role == ProcessRole::consumer) d.reads = reads_of(control, index, names);
  // SYNC: the fields were read before; an owner that came meanwhile has another generation.
  std::atomic_thread_fence(memory_order_acquire);
  if (shm::slot_generation(slot.word.load(memory_order_relaxed)) != shm::slot_generation(word))
    return std::nullopt;
  return d;
}

// The role's lock says whether there is a keeper, the control segment who it is.
std::optional<ProcessDescription> describe_keeper(const LogCore& core) {
  const auto lock = shm::ByteLockFile::open(core.keeper_lock());
  if (!lock || !lock->is_locked(0).value_or(false)) return std::nullopt;
  ProcessDescription d;
  d.role = ProcessRole::keeper;
  d.pid = core.control().header().keeper_pid.load(memory_order_relaxed);
  d.name = shm::process_name(d.pid);
  return d;
}

}  // namespace

double PartitionDescription::ring_fill() const {
  if (ring_bytes == 0 || term_bytes == 0 || log_end_position <= durable_position) return 0;
  const Position begin(durable_position.value() / term_bytes * term_bytes);  // terms begin at multiples of it
  return std::min(static_cast<double>(log_end_position - begin) / static_cast<double>(ring_bytes), 1.0);
}

std::string_view to_string(ProcessRole role) {
  switch (role) {
    case ProcessRole::producer: return "producer";
    case ProcessRole::consumer: return "consumer";
    case ProcessRole::keeper: return "keeper";
    case ProcessRole::coordinator: return "coordinator";
    case ProcessRole::admin: return "admin";
  }
  return "unknown";
}

Result<std::vector<ProcessDescription>> Admin::list_processes() const {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  const auto topics = core.catalog().list_names();
  if (!topics) return std::unexpected(topics.error());
  TopicNames names;
  for (const std::string& name : *topics)
    if (const auto topic = core.catalog().load_topic(name)) names.emplace(topic->topic_id, name);
  std::vector<ProcessDescription> processes;
  const auto used = static_cast<std::uint32_t>(core.control().slots().size());
  for (std::uint32_t index = 0; index < used; ++index) {
    if (auto described = describe_slot(core.control(), core.locks(), index, names))
      processes.push_back(std::move(*described));
  }
  std::ranges::sort(processes, {},
                    [](const ProcessDescription& d) { return std::tuple(d.pid, d.role, d.started_ns); });
  if (auto keeper = describe_keeper(core)) processes.insert(processes.begin(), std::move(*keeper));
  return processes;
}

// --- Changes -------------------------------------------------------------------------------------

Status Admin::alter_topic(std::string_view name, const TopicConfigs& changes) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  auto topic = core.catalog().alter_topic(name, changes);
  if (!topic) return std::unexpected(topic.error());
  return core.apply_catalog();
}

Status Admin::create_partitions(std::string_view name, std::uint32_t total) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  auto topic = core.catalog().load_topic(name);
  if (!topic) return std::unexpected(topic.error());
  // Ahead of the change, for there is no way back from it.
  if (total > topic->partitions && total <= log::kMaxTopicPartitions &&
      total - topic->partitions > free_partitions(core.control()))
    return fail(Code::limit_exceeded, fmt::format("there is no room for {} more partitions; a log has {}",
                                                  total - topic->partitions, shm::kMaxPartitions));
  if (auto config = parse_topic_config(topic->overrides);
      config && total > topic->partitions && total <= log::kMaxTopicPartitions)
    if (auto room =
            check_room_for_rings(core.options().shared_memory_dir, name, total - topic->partitions, *config);
        !room)
      return room;
  auto grown = core.catalog().add_partitions(name, total);
  if (!grown) return std::unexpected(grown.error());
  return open_partitions(core, *grown);
}

Status Admin::delete_topic(std::string_view name) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  if (auto deleted = core.catalog().delete_topic(name); !deleted) return deleted;
  return core.apply_catalog();
}

std::vector<ConfigReference> Admin::config_reference() { return topic_config_reference(); }

}  // namespace ringtail
