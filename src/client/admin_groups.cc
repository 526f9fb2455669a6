// Admin's consumer groups.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "client/log_core.h"
#include "groups/membership.h"
#include "groups/tenure.h"
#include "ringtail/admin.h"
#include "ringtail/consumer.h"

namespace ringtail {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::chrono::seconds kPersistPatience{60};

GroupState state_of(const shm::Group& group) {
  switch (static_cast<shm::GroupState>(group.state.load(memory_order_relaxed))) {
    case shm::GroupState::rebalancing: return GroupState::rebalancing;
    case shm::GroupState::stable: return GroupState::stable;
    default: return GroupState::empty;
  }
}

Result<std::uint32_t> find(const LogCore& core, std::string_view id) {
  if (auto ready = groups::wait_until_ready(core.attachment()); !ready) return std::unexpected(ready.error());
  if (const auto found = groups::find_group(core.control(), id)) return *found;
  return fail(Code::not_found, fmt::format("there is no consumer group '{}'; see `ringtail group list`", id));
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

GroupMemberDescription describe_member(const shm::Control& control, std::uint32_t slot) {
  const shm::Member& member = control.member(slot);
  GroupMemberDescription d;
  d.id = groups::member_id_of(control, slot);
  d.client_id = member.client_id.load();
  d.host = member.host.load();
  d.pid = control.slot(slot).pid.load(memory_order_relaxed);
  d.joined_ns = member.joined_ns.load(memory_order_relaxed);
  d.idle = std::chrono::nanoseconds(
      std::max<std::int64_t>(0, monotonic_ns() - member.polled_ns.load(memory_order_relaxed)));
  d.by_pattern = member.by_pattern.load(memory_order_relaxed) != 0;
  const std::string subscription = member.subscription.load();
  d.subscription = d.by_pattern ? std::vector{subscription} : lines_of(subscription);
  return d;
}

// The entries of a group, by topic id and partition.
std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint32_t> entries_of(const shm::Control& control,
                                                                            std::uint32_t group) {
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint32_t> entries;
  const shm::GroupTableLayout& table = control.groups();
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_acquire), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    // SYNC: pairs with the release store that publishes the entry.
    const std::uint32_t word = table.assignments[i].load(memory_order_acquire);
    if (word == 0 || shm::assignment_group(word) != group) continue;
    const shm::GroupPartition& entry = table.partitions[i];
    entries[{entry.topic_id.load(memory_order_relaxed), entry.partition.load(memory_order_relaxed)}] = i;
  }
  return entries;
}

GroupPartitionDescription describe_partition(const shm::GroupPartition& entry, const std::string& topic,
                                             const PartitionDescription& partition) {
  GroupPartitionDescription d;
  d.partition = {topic, partition.partition};
  const groups::Standing standing = groups::load_standing(entry);
  d.log_start_offset = partition.log_start_offset;
  d.log_end_offset = partition.log_end_offset;
  Offset from = partition.log_start_offset;
  if (standing.committed != shm::kNoOffset) {
    d.committed = from = Offset(standing.committed);
    d.metadata = groups::load_metadata(entry, standing);
  }
  d.lag = d.log_end_offset > from ? d.log_end_offset - from : 0;
  return d;
}

// Where members can read up to. What is beyond may be cut off yet, and other records come to stand there.
Offset readable_end(const PartitionDescription& partition) {
  return std::max(partition.log_start_offset, std::min(partition.log_end_offset, partition.high_watermark));
}

Offset clamp(std::int64_t offset, const PartitionDescription& partition) {
  if (offset < 0) return partition.log_start_offset;
  return std::max(partition.log_start_offset,
                  std::min(Offset(static_cast<std::uint64_t>(offset)), readable_end(partition)));
}

}  // namespace

std::string_view to_string(GroupState state) {
  switch (state) {
    case GroupState::empty: return "empty";
    case GroupState::rebalancing: return "rebalancing";
    case GroupState::stable: return "stable";
  }
  return "unknown";
}

Result<std::vector<GroupSummary>> Admin::list_groups() const {
  const LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  if (auto ready = groups::wait_until_ready(core.attachment()); !ready) return std::unexpected(ready.error());
  std::vector<GroupSummary> groups;
  for (const shm::Group& group : core.control().groups().groups) {
    // SYNC: pairs with the release store that publishes the group.
    if (group.state.load(memory_order_acquire) == static_cast<std::uint32_t>(shm::GroupState::free)) continue;
    groups.push_back({group.group_id.load(), state_of(group), group.members.load(memory_order_relaxed),
                      group.generation.load(memory_order_relaxed)});
  }
  std::ranges::sort(groups, {}, &GroupSummary::id);
  return groups;
}

Result<GroupDescription> Admin::describe_group(std::string_view id) const {
  const LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  auto index = find(core, id);
  if (!index) return std::unexpected(index.error());
  const shm::Control& control = core.control();
  const shm::Group& group = control.groups().groups[*index];
  GroupDescription d;
  d.id = id;
  d.state = state_of(group);
  d.generation = group.generation.load(memory_order_relaxed);
  d.assignor = group.assignor.load();
  if (const std::uint32_t trouble = group.trouble_code.load(memory_order_relaxed))
    d.trouble = Error{static_cast<Code>(trouble - 1), 0, group.trouble.load()};
  std::map<std::uint32_t, std::size_t> member_of_owner;
  for (std::uint32_t slot = 0; slot < control.slots().size(); ++slot) {
    if (control.member(slot).group.load(memory_order_acquire) != *index + 1)
      continue;  // SYNC: pairs with join
    member_of_owner[slot + 1] = d.members.size();
    d.members.push_back(describe_member(control, slot));
  }
  const auto names = core.catalog().list_names();
  if (!names) return std::unexpected(names.error());
  const auto entries = entries_of(control, *index);
  for (const std::string& name : *names) {
    const auto loaded = core.catalog().load_topic(name);
    if (!loaded) continue;  // deleted meanwhile, or not to be read: of the others it shows what there is
    const log::TopicEntry& topic = *loaded;
    if (std::ranges::none_of(entries, [&](const auto& e) { return e.first.first == topic.topic_id; }))
      continue;
    auto description = describe_topic(topic.name);
    if (!description && description.error().code == Code::not_found) continue;  // deleted meanwhile
    if (!description) return std::unexpected(description.error());
    for (const PartitionDescription& partition : description->partitions) {
      const auto at = entries.find({topic.topic_id, partition.partition.value()});
      if (at == entries.end()) continue;
      const shm::GroupPartition& entry = control.groups().partitions[at->second];
      d.partitions.push_back(describe_partition(entry, topic.name, partition));
      const auto owner = member_of_owner.find(groups::load_standing(entry).owner());
      if (owner == member_of_owner.end()) continue;
      d.partitions.back().member_id = d.members[owner->second].id;
      d.members[owner->second].partitions.push_back(d.partitions.back().partition);
    }
  }
  return d;
}

// --- Changes -------------------------------------------------------------------------------------

namespace {

// The offset that a reset means. Errors: those of reading.
Result<Offset> target_of(Consumer& consumer, const TopicPartition& partition,
                         const PartitionDescription& ends, std::optional<Offset> committed,
                         const OffsetReset& reset) {
  switch (reset.to) {
    case OffsetReset::To::earliest: return ends.log_start_offset;
    case OffsetReset::To::latest: return readable_end(ends);
    case OffsetReset::To::offset: return clamp(reset.value, ends);
    case OffsetReset::To::shift_by: {
      const auto from = static_cast<std::int64_t>(committed.value_or(ends.log_start_offset).value());
      std::int64_t to = 0;
      if (__builtin_add_overflow(from, reset.value, &to)) to = reset.value < 0 ? 0 : INT64_MAX;
      return clamp(to, ends);
    }
    case OffsetReset::To::time: break;
  }
  if (auto assigned = consumer.assign(std::span(&partition, 1)); !assigned)
    return std::unexpected(assigned.error());
  if (auto sought = consumer.seek_to_time(partition, reset.value); !sought)
    return std::unexpected(sought.error());
  return consumer.position(partition);
}

std::unexpected<Error> refuse_live(std::string_view id, std::uint32_t members) {
  return fail(
      Code::group_not_empty,
      fmt::format("group '{}' has {} member{}, and members go on from where they are; stop them first", id,
                  members, members == 1 ? "" : "s"));
}

}  // namespace

Result<std::vector<OffsetChange>> Admin::reset_group_offsets(std::string_view id, std::string_view topic,
                                                             std::optional<PartitionId> partition,
                                                             OffsetReset reset, bool dry_run) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return std::unexpected(mine.error());
  auto index = find(core, id);
  if (!index) return std::unexpected(index.error());
  const shm::Group& group = core.control().groups().groups[*index];
  if (const std::uint32_t members = group.members.load(memory_order_relaxed)) return refuse_live(id, members);
  auto entry = core.catalog().load_topic(topic);
  if (!entry) return std::unexpected(entry.error());
  auto description = describe_topic(topic);
  if (!description) return std::unexpected(description.error());
  if (partition && partition->value() >= entry->partitions)
    return fail(Code::not_found, fmt::format("topic '{}' has no partition {}; it has {}", topic,
                                             partition->value(), entry->partitions));
  // Of one without a ring nobody knows where it ends.
  for (const PartitionDescription& ends : description->partitions)
    if (ends.failure && ends.ring_bytes == 0 && (!partition || ends.partition == *partition))
      return std::unexpected(*ends.failure);
  auto slot = shm::OwnedSlot::acquire(core.control(), core.locks(), shm::SlotRole::admin);
  if (!slot) return std::unexpected(slot.error());
  auto prepared = groups::ask_coordinator(core.attachment(), *slot, shm::GroupRequest::prepare, id, topic);
  if (!prepared) return std::unexpected(prepared.error());
  auto consumer = Consumer::open(log_);
  if (!consumer) return std::unexpected(consumer.error());

  const auto entries = entries_of(core.control(), *index);
  // All targets first: where one cannot be found, no position moves.
  struct Seen {
    shm::GroupPartition* shared;
    groups::Standing standing{};
  };
  std::vector<Seen> seen;
  std::vector<OffsetChange> changes;
  for (const PartitionDescription& ends : description->partitions) {
    if (partition && ends.partition != *partition) continue;
    const auto at = entries.find({entry->topic_id, ends.partition.value()});
    if (at == entries.end())
      return fail(Code::closed, fmt::format("group '{}' or topic '{}' was deleted", id, topic));
    shm::GroupPartition& shared = core.control().groups().partitions[at->second];
    const groups::Standing standing = groups::load_standing(shared);
    OffsetChange change{{entry->name, ends.partition}, {}, Offset(0)};
    if (standing.committed != shm::kNoOffset) change.from = Offset(standing.committed);
    auto to = target_of(*consumer, change.partition, ends, change.from, reset);
    if (!to) return std::unexpected(to.error());
    change.to = *to;
    seen.push_back({&shared, standing});
    changes.push_back(std::move(change));
  }
  if (dry_run) return changes;
  // A member that came meanwhile has taken a partition with a new tenure: then it is too late.
  for (std::size_t i = 0; i < changes.size(); ++i)
    if (seen[i].standing.owner() != 0 ||
        !groups::exchange_standing(*seen[i].shared, seen[i].standing,
                                   {changes[i].to.value(), seen[i].standing.tenure}))
      return refuse_live(id, group.members.load(memory_order_relaxed));
  if (auto durable = groups::persist_commits(core.attachment(), *index, kPersistPatience); !durable)
    return std::unexpected(durable.error());
  return changes;
}

Status Admin::delete_group(std::string_view id) {
  LogCore& core = *log_.core();
  if (auto mine = core.check_mine(); !mine) return mine;
  if (auto index = find(core, id); !index) return std::unexpected(index.error());
  auto slot = shm::OwnedSlot::acquire(core.control(), core.locks(), shm::SlotRole::admin);
  if (!slot) return std::unexpected(slot.error());
  return groups::ask_coordinator(core.attachment(), *slot, shm::GroupRequest::remove, id, "");
}

}  // namespace ringtail
