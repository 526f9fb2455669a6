// The coordinator's table of groups and positions, and how positions come to the disk.
#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"
#include "groups/coordinator.h"
#include "groups/tenure.h"
#include "shm/futex.h"

namespace ringtail::groups {

using shm::GroupState;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kExpirePeriodNs = 1'000 * kMillisecond;
constexpr std::int64_t kForgetAgainNs = 100 * kMillisecond;

// Whatever stands in the internal topic, the position is to be written there.
void write_anew(shm::GroupPartition& entry) { entry.persisted.store(shm::kNoOffset, memory_order_relaxed); }

}  // namespace

// --- Groups and entries --------------------------------------------------------------------------

std::optional<std::uint32_t> Coordinator::find_group(const std::string& id) const {
  for (const auto& [index, group] : groups_)
    if (group.id == id) return index;
  return std::nullopt;
}

Result<std::uint32_t> Coordinator::find_or_make_group(const std::string& id) {
  if (const auto found = find_group(id)) return *found;
  for (std::uint32_t i = 0; i < shm::kMaxGroups; ++i) {
    if (groups_.contains(i)) continue;
    shm::Group& group = table_.groups[i];
    group.group_id.store(id);
    group.assignor.store("");
    group.generation.store(0, memory_order_relaxed);
    group.members.store(0, memory_order_relaxed);
    group.trouble_code.store(0, memory_order_relaxed);
    group.empty_since_ns.store(wall_clock_ns(), memory_order_relaxed);
    // SYNC: publishes the id; pairs with those who list groups.
    group.state.store(static_cast<std::uint32_t>(GroupState::empty), memory_order_release);
    groups_[i].id = id;
    return i;
  }
  return fail(Code::limit_exceeded,
              fmt::format("there is room for {} consumer groups; delete one with `ringtail group delete`",
                          shm::kMaxGroups));
}

std::optional<std::uint32_t> Coordinator::find_or_make_entry(std::uint32_t group, PartitionKey key) {
  auto& entries = groups_[group].entries;
  if (const auto found = entries.find(key); found != entries.end()) return found->second;
  std::uint32_t index = 0;
  while (index < shm::kMaxGroupPartitions && table_.assignments[index].load(memory_order_relaxed) != 0)
    ++index;
  if (index == shm::kMaxGroupPartitions) return std::nullopt;
  shm::GroupPartition& entry = table_.partitions[index];
  // The tenure's number goes on from the last group's: a commit that is under way there stays refused.
  Standing seen = load_standing(entry);
  while (!exchange_standing(entry, seen,
                            {shm::kNoOffset, shm::tenure_word(shm::tenure_number(seen.tenure), 0)})) {
  }
  entry.topic_id.store(key.first, memory_order_relaxed);
  entry.partition.store(key.second, memory_order_relaxed);
  entry.pending.store(0, memory_order_relaxed);
  entry.persistent.store(0, memory_order_relaxed);
  entry.transactional.store(0, memory_order_relaxed);
  entry.committed_ns.store(wall_clock_ns(), memory_order_relaxed);
  if (index >= table_.entries_used.load(memory_order_relaxed))
    table_.entries_used.store(index + 1, memory_order_release);  // SYNC: pairs with Membership::look
  // SYNC: publishes what the entry is for; pairs with all who look for a group's entries.
  table_.assignments[index].store(shm::assignment_word(group, 0), memory_order_release);
  entries[key] = index;
  return index;
}

void Coordinator::free_entry(std::uint32_t group, PartitionKey key) {
  auto& entries = groups_[group].entries;
  const auto found = entries.find(key);
  change_owner(table_.partitions[found->second], 0);
  table_.assignments[found->second].store(0, memory_order_release);  // SYNC: as in find_or_make_entry
  entries.erase(found);
}

void Coordinator::free_group(std::uint32_t group) {
  while (!groups_[group].entries.empty()) free_entry(group, groups_[group].entries.begin()->first);
  table_.groups[group].state.store(static_cast<std::uint32_t>(GroupState::free),
                                   memory_order_release);  // SYNC: as above
  groups_.erase(group);
}

// Deletes positions, also on disk. There they go by the topic's name, which may be another one's by now; and when it
// comes to nothing, some may be deleted there. So what is left in the table is written anew.
Status Coordinator::forget(std::uint32_t group, const std::vector<PartitionKey>& keys) {
  std::vector<KeyValue> deleted;
  std::set<std::pair<std::string, std::uint32_t>> places;
  for (const PartitionKey& key : keys) {
    const shm::GroupPartition& entry = table_.partitions[groups_[group].entries.at(key)];
    if (entry.persistent.load(memory_order_relaxed) == 0) continue;
    const std::string topic = name_in_topic(key.first);
    deleted.push_back(encode_offset({.group = groups_[group].id,
                                     .topic = topic,
                                     .partition = PartitionId(key.second),
                                     .offset = {},
                                     .metadata = {}}));
    places.emplace(topic, key.second);
  }
  if (!deleted.empty()) {
    for (const auto& [key, at] : groups_[group].entries)
      if (places.contains({name_in_topic(key.first), key.second})) write_anew(table_.partitions[at]);
    if (auto appended = offsets_.append(deleted); !appended) return appended;
  }
  for (const PartitionKey& key : keys) free_entry(group, key);
  return {};
}

// Those of topics that are gone. Where it cannot be done now, it is tried again, and told meanwhile.
void Coordinator::forget_vanished(std::uint32_t index) {
  Group& group = groups_[index];
  std::vector<PartitionKey> vanished;
  for (const auto& [key, at] : group.entries)
    if (topic_of(key.first) == nullptr) vanished.push_back(key);
  const bool again = std::exchange(group.forget_due_ns, 0) != 0;
  if (auto forgotten = forget(index, vanished); !forgotten) {
    group.forget_due_ns = monotonic_ns() + kForgetAgainNs;
    if (!again) announce_trouble(forgotten.error());
    note_trouble(index, forgotten.error());
  } else if (again) {
    clear_trouble(index);
  }
}

// The names of topics that are gone are needed once more.
std::string Coordinator::name_in_topic(std::uint64_t topic_id) const {
  const auto known = persisted_names_.find(topic_id);
  return known == persisted_names_.end() ? std::string() : known->second;
}

Status Coordinator::prepare(std::uint32_t group, const std::string& topic) {
  const auto entry = std::ranges::find(topics_, topic, &log::TopicEntry::name);
  if (entry == topics_.end())
    return fail(Code::not_found, fmt::format("topic '{}' does not exist; see `ringtail topic list`", topic));
  for (std::uint32_t p = 0; p < entry->partitions; ++p) {
    if (find_or_make_entry(group, {entry->topic_id, p})) continue;
    return fail(
        Code::limit_exceeded,
        fmt::format("the table of positions is full ({} for all groups); delete groups that are not used",
                    shm::kMaxGroupPartitions));
  }
  return {};
}

// --- Persistence ---------------------------------------------------------------------------------

std::uint64_t metadata_mark(const shm::GroupPartition& entry) {
  return entry.metadata[0].check.load(memory_order_relaxed) ^
         entry.metadata[1].check.load(memory_order_relaxed);
}

void Coordinator::persist(std::int64_t now_ns) {
  const bool stopping = stop_.load(memory_order_relaxed);
  if (!confirmations_.empty() && !stopping) return;  // one sync at a time
  std::vector<Confirmation> asked;
  for (const auto& [index, group] : groups_) {
    const shm::Group& shared = table_.groups[index];
    // SYNC: before the positions are read: commits made before the ticket was taken are among them.
    const std::uint32_t wanted = shared.commits_wanted.load(std::memory_order_seq_cst);
    if (wanted != shared.commits_done.load(memory_order_relaxed)) asked.push_back({index, wanted});
  }
  if (now_ns < persist_due_ns_ && (asked.empty() || refused_) && !stopping) return;
  persist_due_ns_ = now_ns + options_.persist_interval_ms * kMillisecond;
  const std::int64_t clock_ns = wall_clock_ns();
  struct Dirty {
    shm::GroupPartition* entry;
    std::uint64_t offset;
    std::uint64_t metadata;
  };
  std::vector<KeyValue> changed;
  std::vector<Dirty> dirty;
  std::set<std::uint32_t> left;         // entries
  std::set<std::uint32_t> left_groups;  // with such entries
  const std::uint64_t revision = table_.revision.fetch_add(1, memory_order_relaxed) + 1;
  for (const auto& [index, group] : groups_) {
    const bool is_asked = std::ranges::find(asked, index, &Confirmation::group) != asked.end();
    for (const auto& [key, at] : group.entries) {
      shm::GroupPartition& entry = table_.partitions[at];
      const std::uint64_t metadata = metadata_mark(entry);
      const Standing standing = load_standing(entry);
      if (standing.committed == shm::kNoOffset) continue;
      if (entry.persistent.load(memory_order_relaxed) != 0 &&
          entry.persisted.load(memory_order_relaxed) == standing.committed &&
          entry.persisted_metadata.load(memory_order_relaxed) == metadata)
        continue;
      const log::TopicEntry* topic = topic_of(key.first);
      if (topic == nullptr) continue;
      if (!transactions_.may_persist(at, is_asked)) {
        left.insert(at);
        left_groups.insert(index);
        continue;
      }
      persisted_names_[key.first] = topic->name;
      // What is only written anew keeps its time.
      if (entry.persistent.load(memory_order_relaxed) == 0 ||
          entry.persisted.load(memory_order_relaxed) != shm::kNoOffset)
        entry.committed_ns.store(clock_ns, memory_order_relaxed);
      const std::int64_t committed_ns = entry.committed_ns.load(memory_order_relaxed);
      changed.push_back(encode_offset({.group = group.id,
                                       .topic = topic->name,
                                       .topic_id = key.first,
                                       .partition = PartitionId(key.second),
                                       .offset = standing.committed,
                                       .metadata = load_metadata(entry, standing),
                                       .committed_ns = std::max<std::int64_t>(committed_ns, 0),
                                       .revision = revision}));
      dirty.push_back({&entry, standing.committed, metadata});
    }
  }
  if (!changed.empty()) {
    if (auto appended = offsets_.append(changed); !appended) return refuse_commits(asked, appended.error());
    for (const Dirty& one : dirty) {
      one.entry->persisted.store(one.offset, memory_order_relaxed);
      one.entry->persisted_metadata.store(one.metadata, memory_order_relaxed);
      one.entry->persistent.store(1, memory_order_relaxed);
    }
  }
  if (!asked.empty() && !end_known_) {
    // What was appended just now stands behind all of it.
    if (changed.empty())
      if (auto included = offsets_.include_others(); !included)
        return refuse_commits(asked, included.error());
    end_known_ = true;
  }
  announced_trouble_.clear();
  refused_ = false;
  transactions_.note_written(left);
  std::erase_if(asked, [&](const Confirmation& one) { return left_groups.contains(one.group); });
  confirmations_ = std::move(asked);
  sync_due_ns_ = now_ns + options_.sync_patience_ms * kMillisecond;
  confirm_commits();
}

// Tells those who wait, once what they wait for is on disk. Where it is said to end by a word of the ring that was
// written over, that does not come.
void Coordinator::confirm_commits() {
  if (confirmations_.empty()) return;
  if (!offsets_.is_synced()) {
    auto failure = offsets_.failure();
    if (!failure && monotonic_ns() >= sync_due_ns_)
      failure = Error{Code::timed_out, 0,
                      fmt::format("positions have not come to the disk within {} s; they are written anew",
                                  options_.sync_patience_ms / 1'000)};
    if (failure) give_up_commits(*failure);
    return;
  }
  for (const Confirmation& one : std::exchange(confirmations_, {})) {
    if (!groups_.contains(one.group)) continue;
    clear_trouble(one.group);  // before those who wait may look at it again
    shm::Group& shared = table_.groups[one.group];
    shared.commits_done.store(one.ticket, memory_order_release);  // SYNC: pairs with persist_commits
    shm::futex_wake_all(shared.commits_done);
  }
}

// What was appended may not have come to the disk, nor ever come: it is written anew once that can be.
void Coordinator::give_up_commits(const Error& failure) {
  for (const auto& [index, group] : groups_)
    for (const auto& [key, at] : group.entries) write_anew(table_.partitions[at]);
  refuse_commits(std::exchange(confirmations_, {}), failure);
}

// Tells those who wait why. What they wait for is tried again: it may be mended in their time.
void Coordinator::refuse_commits(const std::vector<Confirmation>& asked, const Error& error) {
  refused_ = error.code != Code::timed_out;
  announce_trouble(error);
  for (const Confirmation& one : asked) {
    if (!groups_.contains(one.group)) continue;
    note_trouble(one.group, error);
    shm::futex_wake_all(table_.groups[one.group].commits_done);  // to have a look
  }
}

void Coordinator::announce_trouble(const Error& error) {
  if (error.message == announced_trouble_) return;
  announced_trouble_ = error.message;
  logger().error("consumer groups: {}", to_string(error));
}

void Coordinator::note_trouble(std::uint32_t group, const Error& error) {
  table_.groups[group].trouble.store(error.message);
  table_.groups[group].trouble_code.store(static_cast<std::uint32_t>(error.code) + 1, memory_order_relaxed);
}

void Coordinator::clear_trouble(std::uint32_t group) {
  if (const auto& error = groups_[group].crowded_out) return note_trouble(group, *error);
  table_.groups[group].trouble_code.store(0, memory_order_relaxed);
}

// --- Expiry --------------------------------------------------------------------------------------

void Coordinator::expire(std::int64_t now_ns) {
  if (now_ns < expire_due_ns_) return;
  expire_due_ns_ = now_ns + kExpirePeriodNs;
  const std::int64_t oldest_ns = wall_clock_ns() - options_.offsets_retention_ms * kMillisecond;
  std::vector<std::uint32_t> finished;
  for (auto& [index, group] : groups_) {
    if (group.unbalanced) continue;  // a member has yet to say whose its partitions are to be
    // As long as the group has members, or had some a short while ago, what it reads does not expire.
    if (group.members.empty() && table_.groups[index].empty_since_ns.load(memory_order_relaxed) > oldest_ns)
      continue;
    std::vector<PartitionKey> keys;
    for (const auto& [key, at] : group.entries) {
      const bool in_use = load_standing(table_.partitions[at]).owner() != 0 ||
                          shm::assignment_owner(table_.assignments[at].load(memory_order_relaxed)) != 0;
      if (!in_use && table_.partitions[at].committed_ns.load(memory_order_relaxed) <= oldest_ns)
        keys.push_back(key);
    }
    if (!keys.empty())
      if (auto forgotten = forget(index, keys); !forgotten) announce_trouble(forgotten.error());
    if (group.members.empty() && group.entries.empty()) finished.push_back(index);
  }
  for (const std::uint32_t index : finished) free_group(index);
}

}  // namespace ringtail::groups
