#include "log/attachment.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "shm/futex.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::int64_t kSliceNs = 50'000'000;

}  // namespace

Error nobody_keeps(const std::filesystem::path& dir) {
  return {
      Code::no_keeper, 0,
      fmt::format("nobody keeps the log in {}; start a process that opens it with KeeperMode::embedded, or "
                  "ringtaild where the log belongs to a cluster",
                  dir.string())};
}

void Attachment::note_keeper_failure(Error failure) {
  std::lock_guard lock(mutex_);
  keeper_failure_ = std::move(failure);
}

std::optional<Error> Attachment::keeper_failure() const {
  // SYNC: whoever takes the role forgets his predecessor; pairs with become_ready.
  if (control_.header().keeper_pid.load(memory_order_acquire) != 0) return std::nullopt;
  std::lock_guard lock(mutex_);
  return keeper_failure_;
}

Status Attachment::apply_catalog(std::chrono::nanoseconds patience) const {
  shm::ControlHeader& header = control_.header();
  // SYNC: behind the change on disk; pairs with the keeper's acquire load.
  const std::uint32_t wanted = header.catalog_wanted.fetch_add(1, std::memory_order_acq_rel) + 1;
  const std::int64_t deadline_ns = monotonic_ns() + patience.count();
  for (;;) {
    const std::uint32_t done =
        header.catalog_done.load(memory_order_acquire);  // SYNC: pairs with sync_catalog
    if (static_cast<std::int32_t>(done - wanted) >= 0) return {};
    if (auto failure = keeper_failure()) return std::unexpected(*failure);
    const std::int64_t now = monotonic_ns();
    control_.wake_keeper();
    if (now >= deadline_ns) return std::unexpected(nobody_keeps(dir()));
    shm::futex_wait(header.catalog_done, done, now + kSliceNs);
  }
}

std::optional<std::uint32_t> Attachment::find_entry(std::uint64_t topic_id, PartitionId partition) const {
  for (std::uint32_t i = 0; i < shm::kMaxPartitions; ++i) {
    const shm::Partition& entry = control_.partition(i);
    // SYNC: pairs with allocate_entry's release store.
    if (entry.state.load(memory_order_acquire) != static_cast<std::uint32_t>(shm::PartitionState::free) &&
        entry.topic_id.load(memory_order_relaxed) == topic_id &&
        entry.partition.load(memory_order_relaxed) == partition.value())
      return i;
  }
  return std::nullopt;
}

Result<PartitionRef> Attachment::find_partition(const TopicEntry& topic, PartitionId partition,
                                                std::chrono::nanoseconds patience,
                                                std::chrono::nanoseconds keeper_patience) const {
  if (partition.value() >= topic.partitions)
    return fail(Code::not_found, fmt::format("topic '{}' has no partition {}; it has {}", topic.name,
                                             partition.value(), topic.partitions));
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (auto index = find_entry(topic.topic_id, partition)) {
      const shm::Partition& entry = control_.partition(*index);
      const std::int64_t deadline_ns = monotonic_ns() + patience.count();
      // SYNC: pairs with the keeper's release stores of state.
      while (entry.state.load(memory_order_acquire) ==
                 static_cast<std::uint32_t>(shm::PartitionState::opening) &&
             monotonic_ns() < deadline_ns) {
        const std::uint32_t seq = entry.space_seq.load(memory_order_acquire);  // SYNC: pairs with notify_all
        if (entry.state.load(memory_order_relaxed) ==
            static_cast<std::uint32_t>(shm::PartitionState::opening))
          shm::futex_wait(entry.space_seq, seq, monotonic_ns() + kSliceNs);
      }
      return PartitionRef{.control = &control_,
                          .index = *index,
                          .topic_id = topic.topic_id,
                          .log_id = place_.log_id,
                          .topic = topic.name,
                          .partition = partition,
                          .shm_dir = place_.shm_dir,
                          .disk_dir = catalog_.partition_dir(topic.name, partition)};
    }
    // Created on disk by a process that died before it told the keeper.
    auto applied = apply_catalog(keeper_patience);
    if (!applied && applied.error().code == Code::no_keeper && keeper_patience < kKeeperPatience &&
        control_.header().keeper_pid.load(memory_order_relaxed) != 0)
      return fail(
          Code::would_block,
          fmt::format("topic '{}' partition {} is new, and the log's keeper has not opened it yet; ask again",
                      topic.name, partition.value()));
    if (!applied) return std::unexpected(applied.error());
  }
  return fail(
      Code::limit_exceeded,
      fmt::format("topic '{}' partition {} could not be opened: the log has room for {} partitions; or its "
                  "keeper cannot read the catalog, and then its log names the file",
                  topic.name, partition.value(), shm::kMaxPartitions));
}

std::optional<Error> Attachment::find_failure(const TopicEntry& topic, PartitionId partition) const {
  const auto index = find_entry(topic.topic_id, partition);
  return index ? failure_of(control_.partition(*index)) : std::nullopt;
}

std::optional<Error> Attachment::failure_of(const shm::Partition& entry) {
  // SYNC: pairs with fail_with's release store.
  if (entry.state.load(memory_order_acquire) != static_cast<std::uint32_t>(shm::PartitionState::failed))
    return std::nullopt;
  std::string text;
  for (const auto& letter : entry.failure_text) {
    const char c = letter.load(memory_order_relaxed);
    if (c == 0) break;
    text += c;
  }
  return Error{static_cast<Code>(entry.failure_code.load(memory_order_relaxed)),
               entry.failure_errno.load(memory_order_relaxed), text};
}

}  // namespace ringtail::log
