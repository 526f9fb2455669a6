#include "groups/tenure.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

#include "log/wide_cas.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

Standing load_standing(const shm::GroupPartition& entry) {
  for (;;) {
    // SYNC: pairs with the full barrier of every exchange. The number of a tenure never recurs, so what is
    // read between two equal looks was the position within it.
    const std::uint64_t tenure = entry.tenure.load(memory_order_acquire);
    const std::uint64_t committed = entry.committed.load(memory_order_acquire);
    if (entry.tenure.load(memory_order_relaxed) == tenure) return {committed, tenure};
  }
}

bool exchange_standing(shm::GroupPartition& entry, Standing& seen, Standing desired) {
  log::WideWord found{seen.committed, seen.tenure};
  if (log::wide_compare_exchange(&entry.committed, found, {desired.committed, desired.tenure})) return true;
  seen = {found.low, found.high};
  return false;
}

bool move_position(shm::GroupPartition& entry, std::uint64_t tenure, std::uint64_t& last,
                   std::uint64_t offset) {
  Standing seen{last, tenure};
  while (!exchange_standing(entry, seen, {offset, tenure})) {
    if (seen.tenure != tenure) return false;
  }
  last = offset;
  return true;
}

void change_owner(shm::GroupPartition& entry, std::uint32_t owner) {
  Standing seen = load_standing(entry);
  const auto number = [&] { return shm::tenure_number(seen.tenure) + (owner != 0 ? 1 : 0); };
  while (!exchange_standing(entry, seen, {seen.committed, shm::tenure_word(number(), owner)})) {
  }
}

// --- Metadata ------------------------------------------------------------------------------------

namespace {

std::uint64_t check_of(std::uint64_t offset, std::uint64_t tenure, std::string_view text) {
  // Never 0, which stands for "being written".
  return XXH3_64bits_withSeed(text.data(), text.size(), offset * 0x9e3779b97f4a7c15 + tenure) | 1;
}

}  // namespace

void store_metadata(shm::GroupPartition& entry, std::uint64_t tenure, std::uint64_t offset,
                    std::string_view text) {
  const std::uint64_t number = shm::tenure_number(tenure);
  shm::OffsetMetadata& copy = entry.metadata[number % 2];
  copy.check.store(0, memory_order_relaxed);
  // SYNC: whoever sees any of the bytes below sees that they are being written, or a check that differs.
  std::atomic_thread_fence(memory_order_release);
  copy.offset.store(offset, memory_order_relaxed);
  copy.tenure.store(number, memory_order_relaxed);
  copy.text.store(text);
  copy.check.store(check_of(offset, number, text), memory_order_release);  // SYNC: pairs with load_metadata
}

std::string load_metadata(const shm::GroupPartition& entry, const Standing& standing) {
  std::string newest;
  std::uint64_t newest_tenure = 0;
  for (const shm::OffsetMetadata& copy : entry.metadata) {
    const std::uint64_t check = copy.check.load(memory_order_acquire);  // SYNC: pairs with store_metadata
    const std::uint64_t offset = copy.offset.load(memory_order_relaxed);
    const std::uint64_t tenure = copy.tenure.load(memory_order_relaxed);
    std::string text = copy.text.load();
    if (offset != standing.committed || tenure > shm::tenure_number(standing.tenure) ||
        tenure < newest_tenure)
      continue;
    if (check != check_of(offset, tenure, text)) continue;
    newest = std::move(text);
    newest_tenure = tenure;
  }
  return newest;
}

// --- Looking up ----------------------------------------------------------------------------------

std::optional<std::uint32_t> find_group(const shm::Control& control, std::string_view group_id) {
  for (std::uint32_t i = 0; i < shm::kMaxGroups; ++i) {
    const shm::Group& group = control.groups().groups[i];
    // SYNC: pairs with the release store that publishes the group.
    if (group.state.load(memory_order_acquire) != static_cast<std::uint32_t>(shm::GroupState::free) &&
        group.group_id.equals(group_id))
      return i;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> find_entry(const shm::Control& control, std::uint32_t group,
                                        std::uint64_t topic_id, PartitionId partition) {
  const shm::GroupTableLayout& table = control.groups();
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_acquire), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    // SYNC: pairs with the release store that publishes the entry.
    const std::uint32_t word = table.assignments[i].load(memory_order_acquire);
    const shm::GroupPartition& entry = table.partitions[i];
    if (word != 0 && shm::assignment_group(word) == group &&
        entry.topic_id.load(memory_order_relaxed) == topic_id &&
        entry.partition.load(memory_order_relaxed) == partition.value())
      return i;
  }
  return std::nullopt;
}

std::optional<CommittedOffset> find_committed(const shm::Control& control, std::string_view group_id,
                                              std::uint64_t topic_id, PartitionId partition) {
  const auto group = find_group(control, group_id);
  const auto index = group ? find_entry(control, *group, topic_id, partition) : std::nullopt;
  if (!index) return std::nullopt;
  const shm::GroupPartition& entry = control.groups().partitions[*index];
  const Standing standing = load_standing(entry);
  if (standing.committed == shm::kNoOffset) return std::nullopt;
  return CommittedOffset{Offset(standing.committed), load_metadata(entry, standing)};
}

}  // namespace ringtail::groups
