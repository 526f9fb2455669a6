#include "groups/coordinator.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"
#include "groups/tenure.h"
#include "shm/futex.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kBusyRestNs = kMillisecond / 2;
constexpr std::int64_t kIdleRestNs = 500 * kMillisecond;
constexpr std::int64_t kSyncRestNs = 10 * kMillisecond;
constexpr std::int64_t kLongestEndNs = 5'000 * kMillisecond;
constexpr std::int64_t kRetryNs = 100 * kMillisecond;

}  // namespace

void Coordinator::stop() {
  // SYNC: pairs with the loads in run, wait_for_keeper and InternalTopic::restore
  stop_.store(true, memory_order_release);
  control_.wake_coordinator();
}

void Coordinator::run() {
  pthread_setname_np(pthread_self(), "ringtail-groups");
  if (!wait_for_keeper()) return;
  while (!stop_.load(memory_order_acquire)) {  // SYNC: pairs with stop
    auto taken = take_up();
    if (taken || stop_.load(memory_order_acquire)) break;  // SYNC: as above
    announce_trouble(taken.error());
    shm::futex_wait(table_.wake, table_.wake.load(memory_order_relaxed), monotonic_ns() + kRetryNs);
  }
  for (;;) {
    // SYNC: read before all else: a bump after this ends the rest at once.
    wake_seen_ = table_.wake.load(memory_order_acquire);
    if (stop_.load(memory_order_acquire)) break;  // SYNC: pairs with stop
    const std::int64_t now_ns = monotonic_ns();
    round(now_ns);
    rest(now_ns);
  }
  transactions_.wait_synced(monotonic_ns() + kLongestEndNs);
  persist(monotonic_ns());  // the keeper, which ends after us, syncs it
}

// The role is this process's once its keeper is ready. False: stopped before.
bool Coordinator::wait_for_keeper() {
  const shm::ControlHeader& header = control_.header();
  for (;;) {
    const std::uint32_t term =
        header.keeper_term.load(memory_order_acquire);  // SYNC: pairs with become_ready
    if (header.keeper_pid.load(memory_order_acquire) ==
        static_cast<std::uint32_t>(::getpid()))  // SYNC: as above
      return true;
    if (stop_.load(memory_order_acquire)) return false;  // SYNC: pairs with stop
    shm::futex_wait(header.keeper_term, term, monotonic_ns() + kSyncRestNs);
  }
}

// --- Taking the role up --------------------------------------------------------------------------

Status Coordinator::take_up() {
  refresh_topics();
  if (!topics_known_) return fail(Code::system, "the catalog cannot be read");
  if (table_.ready.load(memory_order_relaxed) == 0) {
    if (auto restored = restore(); !restored) return restored;
  } else if (auto taken = transactions_.take_up(); !taken) {
    return taken;
  }
  index_table();
  table_.ready.store(1, memory_order_release);  // SYNC: pairs with wait_until_ready
  shm::futex_wake_all(table_.ready);
  return {};
}

// After a reboot: positions come from the internal topic. A restore that was cut short begins anew.
Status Coordinator::restore() {
  const std::uint32_t used =
      std::min(table_.entries_used.load(memory_order_relaxed), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) table_.assignments[i].store(0, memory_order_relaxed);
  for (shm::Group& group : table_.groups)
    group.state.store(static_cast<std::uint32_t>(shm::GroupState::free), memory_order_relaxed);
  std::map<std::string, std::map<PartitionKey, StoredOffset>> stored;
  auto read = offsets_.restore([&](const Record& raw) {
    const auto decoded = decode_offset(raw);
    if (!decoded) {
      logger().warn("{}: the record at offset {} is no committed offset; passed over", kOffsetsTopic,
                    raw.offset.value());
      return;
    }
    const StoredOffset& record = *decoded;
    if (record.offset) {
      stored[record.group][{record.topic_id, record.partition.value()}] = record;
      return;
    }
    const auto group = stored.find(record.group);
    if (group == stored.end()) return;
    std::erase_if(group->second, [&](const auto& item) {
      return item.second.topic == record.topic && item.second.partition == record.partition;
    });
  });
  if (!read) return read;
  // Of transactions that were decided, and whose positions may not have come to the disk.
  std::set<std::pair<std::string, PartitionKey>> decided;
  std::uint64_t revision = 0;
  for (const auto& [group, offsets] : stored)
    for (const auto& [key, record] : offsets) revision = std::max(revision, record.revision);
  auto completed = transactions_.restore();
  if (!completed) return std::unexpected(completed.error());
  for (const StoredOffset& record : *completed) {
    const PartitionKey key{record.topic_id, record.partition.value()};
    revision = std::max(revision, record.revision);
    StoredOffset& known = stored[record.group][key];
    if (known.revision > record.revision) continue;
    known = record;
    decided.emplace(record.group, key);
  }
  table_.revision.store(revision, memory_order_relaxed);
  index_table();
  std::size_t positions = 0;
  for (const auto& [id, offsets] : stored) {
    for (const auto& [key, record] : offsets) {
      if (topic_of(key.first) == nullptr) continue;
      auto group = find_or_make_group(id);
      const auto index = group ? find_or_make_entry(*group, key) : std::nullopt;
      if (!index) {
        logger().error("group '{}': no room for its position in {}-{}", id, record.topic, key.second);
        continue;
      }
      shm::GroupPartition& entry = table_.partitions[*index];
      Standing seen = load_standing(entry);
      store_metadata(entry, seen.tenure, *record.offset, record.metadata);
      exchange_standing(entry, seen, {*record.offset, seen.tenure});
      // What was decided is to be written. An older position stands there perhaps, which has to go with it.
      entry.persisted.store(decided.contains({id, key}) ? shm::kNoOffset : *record.offset,
                            memory_order_relaxed);
      entry.persisted_metadata.store(metadata_mark(entry), memory_order_relaxed);
      entry.persistent.store(1, memory_order_relaxed);
      entry.committed_ns.store(record.committed_ns, memory_order_relaxed);
      ++positions;
    }
  }
  if (positions > 0)
    logger().info("consumer groups: {} positions of {} groups restored", positions, groups_.size());
  return {};
}

// What the table says, by names. Of a coordinator that died between two stores there is nothing to repair:
// each of them leaves a table that means something.
void Coordinator::index_table() {
  groups_.clear();
  members_.clear();
  for (std::uint32_t i = 0; i < shm::kMaxGroups; ++i) {
    const shm::Group& group = table_.groups[i];
    if (group.state.load(memory_order_relaxed) == static_cast<std::uint32_t>(shm::GroupState::free)) continue;
    Group& known = groups_[i];
    known.id = group.group_id.load();
    known.assignor = group.assignor.load();
    known.unbalanced = known.unsettled = true;
  }
  const std::uint32_t used =
      std::min(table_.entries_used.load(memory_order_relaxed), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    const std::uint32_t word = table_.assignments[i].load(memory_order_relaxed);
    if (word == 0) continue;
    const auto group = groups_.find(shm::assignment_group(word));
    const shm::GroupPartition& entry = table_.partitions[i];
    const PartitionKey key{entry.topic_id.load(memory_order_relaxed),
                           entry.partition.load(memory_order_relaxed)};
    // An entry whose group was being deleted, or one made twice, goes.
    if (group == groups_.end() || !group->second.entries.emplace(key, i).second)
      table_.assignments[i].store(0, memory_order_relaxed);
    if (const log::TopicEntry* topic = topic_of(key.first)) persisted_names_[key.first] = topic->name;
  }
  const std::int64_t now_ns = monotonic_ns();
  for (std::uint32_t slot = 0; slot < shm::kMaxSlots; ++slot) {
    const shm::Member& member = control_.member(slot);
    const std::uint32_t group = member.group.load(memory_order_relaxed);
    if (group == 0 || !groups_.contains(group - 1)) continue;
    groups_[group - 1].members.insert(slot);
    members_[slot] = watch_of(slot, group - 1, now_ns);
  }
  std::vector<std::uint32_t> indexes;
  for (const auto& [index, group] : groups_) indexes.push_back(index);
  for (const std::uint32_t index : indexes) note_remaining(index);
}

Coordinator::Member Coordinator::watch_of(std::uint32_t slot, std::uint32_t group,
                                          std::int64_t now_ns) const {
  const shm::Member& member = control_.member(slot);
  const std::int64_t commit_ns = member.auto_commit_interval_ms.load(memory_order_relaxed) * kMillisecond;
  return {.slot_word = member.slot_word.load(memory_order_relaxed),
          .group = group,
          .polls = member.polls.load(memory_order_relaxed),
          .polled_ns = now_ns,
          .max_poll_interval_ns = member.max_poll_interval_ms.load(memory_order_relaxed) * kMillisecond,
          .auto_commit_interval_ns = commit_ns,
          .commit_due_ns = now_ns + commit_ns};
}

void Coordinator::refresh_topics() {
  const std::uint32_t done =
      control_.header().catalog_done.load(memory_order_acquire);  // SYNC: with the keeper
  if (topics_known_ && done == catalog_seen_) return;
  if (monotonic_ns() < topics_due_ns_) return;
  auto topics = attachment_.catalog().list_topics();
  if (!topics) {
    topics_due_ns_ = monotonic_ns() + kRetryNs;
    if (std::exchange(catalog_trouble_, topics.error().message) != topics.error().message)
      logger().error("consumer groups: cannot read the catalog: {}", to_string(topics.error()));
    return;
  }
  catalog_trouble_.clear();
  topics_ = std::move(*topics);
  topics_known_ = true;
  catalog_seen_ = done;
  for (auto& [index, group] : groups_) unbalance(group);
}

const log::TopicEntry* Coordinator::topic_of(std::uint64_t topic_id) const {
  const auto found = std::ranges::find(topics_, topic_id, &log::TopicEntry::topic_id);
  return found == topics_.end() ? nullptr : &*found;
}

// --- Rounds --------------------------------------------------------------------------------------

void Coordinator::round(std::int64_t now_ns) {
  refresh_topics();
  // Ahead of the requests: some wait for an end, and whoever still does keeps it busy.
  transactions_.round(now_ns);
  answer_requests(now_ns);
  watch_members(now_ns);
  std::vector<std::uint32_t> indexes;
  for (const auto& [index, group] : groups_) indexes.push_back(index);
  for (const std::uint32_t index : indexes) {
    const std::uint32_t releases =
        table_.groups[index].releases.load(memory_order_acquire);  // SYNC: pairs with Membership::release
    if (std::exchange(groups_[index].releases, releases) != releases) groups_[index].unsettled = true;
    if (groups_[index].unbalanced) rebalance(index);
    if (groups_.contains(index) && groups_[index].unsettled) settle(index);
    const auto group = groups_.find(index);
    if (group != groups_.end() && group->second.forget_due_ns != 0 && now_ns >= group->second.forget_due_ns)
      forget_vanished(index);
  }
  confirm_commits();
  persist(now_ns);
  expire(now_ns);
}

void Coordinator::rest(std::int64_t now_ns) {
  std::int64_t until_ns = now_ns + kIdleRestNs;
  if (!members_.empty()) until_ns = watch_due_ns_;
  // What waits for a sync is persisted no earlier, however long ago that was due.
  if (!groups_.empty() && confirmations_.empty()) until_ns = std::min(until_ns, persist_due_ns_);
  if (transactions_.is_watching()) until_ns = std::min(until_ns, now_ns + kWatchPeriodNs);
  if (transactions_.is_busy()) until_ns = std::min(until_ns, now_ns + kBusyRestNs);
  table_.asleep.store(1,
                      std::memory_order_seq_cst);  // SYNC: before the comparison; pairs with wake_coordinator
  if (confirmations_.empty()) {
    shm::futex_wait(table_.wake, wake_seen_, until_ns);
  } else {
    const shm::Shared<std::uint32_t>& synced = offsets_.durable_futex();
    const std::uint32_t seen = synced.load(memory_order_acquire);  // SYNC: pairs with the keeper's bump
    offsets_.request_sync();
    if (!offsets_.is_synced()) {
      const shm::FutexWaiter waiters[] = {{&table_.wake, wake_seen_}, {&synced, seen}};
      shm::futex_wait_any(waiters, std::min(until_ns, now_ns + kSyncRestNs));
    }
  }
  table_.asleep.store(0, memory_order_relaxed);
}

void Coordinator::answer_requests(std::int64_t now_ns) {
  const auto used = static_cast<std::uint32_t>(control_.slots().size());
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    shm::Member& member = control_.member(slot);
    const std::uint32_t request = member.request.load(memory_order_acquire);  // SYNC: pairs with post
    if (request == member.answered.load(memory_order_relaxed)) continue;
    const std::optional<Status> outcome = serve(slot, now_ns);
    if (!outcome) continue;  // it takes its time
    const Status& served = *outcome;
    if (!served) member.refusal.store(served.error().message);
    member.refusal_code.store(served ? 0 : static_cast<std::uint32_t>(served.error().code) + 1,
                              memory_order_relaxed);
    member.answered.store(request, memory_order_release);  // SYNC: pairs with the load in post
    shm::futex_wake_all(member.answered);
  }
}

// Nothing: to be asked again in the next round.
std::optional<Status> Coordinator::serve(std::uint32_t slot, std::int64_t now_ns) {
  const shm::Member& asked = control_.member(slot);
  const std::uint64_t asker = asked.asker.load(memory_order_relaxed);
  // SYNC: pairs with the CASes of the slot's word.
  if (control_.slot(slot).word.load(memory_order_acquire) != asker) return Status{};  // died since
  // Whoever had this slot before is gone, whether that was noticed or not.
  if (const auto known = members_.find(slot); known != members_.end() && known->second.slot_word != asker)
    remove_member(slot, "is gone");
  const auto kind = static_cast<shm::GroupRequest>(asked.kind.load(memory_order_relaxed));
  if (kind == shm::GroupRequest::take_id) return transactions_.take_id(slot);
  if (kind == shm::GroupRequest::enlist) return transactions_.enlist(slot);
  return serve_group(slot, kind, now_ns);
}

Status Coordinator::serve_group(std::uint32_t slot, shm::GroupRequest kind, std::int64_t now_ns) {
  const shm::Member& asked = control_.member(slot);
  const std::string id = asked.group_id.load();
  if (kind == shm::GroupRequest::join) return join(slot, now_ns);
  if (kind == shm::GroupRequest::leave) {
    remove_member(slot, "left");
    return {};
  }
  const auto group = find_group(id);
  if (!group)
    return fail(Code::not_found,
                fmt::format("there is no consumer group '{}'; see `ringtail group list`", id));
  const std::string topic = asked.subscription.load();
  const bool prepares = kind == shm::GroupRequest::prepare;
  if (const std::size_t members = groups_[*group].members.size(); members > 0 && !prepares)
    return fail(Code::group_not_empty, fmt::format("group '{}' has {} member{}; stop them first", id, members,
                                                   members == 1 ? "" : "s"));
  std::vector<PartitionKey> keys;
  for (const auto& [key, index] : groups_[*group].entries) {
    const log::TopicEntry* of = topic_of(key.first);
    if (kind == shm::GroupRequest::remove || (of != nullptr && of->name == topic)) keys.push_back(key);
  }
  for (const PartitionKey& key : keys) {
    const shm::GroupPartition& entry = table_.partitions[groups_[*group].entries.at(key)];
    if (transactions_.holds(entry.pending.load(memory_order_acquire)))  // SYNC: with add_offsets
      return fail(Code::group_not_empty,
                  fmt::format("a transaction is about to move positions of group '{}'; try again", id));
  }
  if (prepares) return prepare(*group, topic);
  if (auto forgotten = forget(*group, keys); !forgotten) return forgotten;
  if (kind == shm::GroupRequest::remove || groups_[*group].entries.empty()) free_group(*group);
  return {};
}

}  // namespace ringtail::groups
