#include "shm/control.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "shm/futex.h"
#include "shm/process.h"

namespace ringtail::shm {

namespace {

constexpr std::uint64_t kMarkSeed = 0x9e3779b97f4a7c15;

std::uint64_t mark_check(std::uint64_t position, std::uint64_t offset) {
  return position ^ std::rotl(offset, 32) ^ kMarkSeed;
}

Status check(const ControlHeader& header, const std::string& path, std::array<std::uint64_t, 2> log_id) {
  if (header.magic == std::byteswap(kControlMagic))
    return fail(
        Code::incompatible_layout,
        fmt::format("{} is a control segment in the other byte order: no program of this machine wrote it; "
                    "remove its folder",
                    path));
  if (header.magic != kControlMagic)
    return fail(Code::corrupt,
                fmt::format("{} is no control segment of Ringtail (bad magic); stop all processes "
                            "that use the log and remove the file",
                            path));
  if (header.version != kControlVersion || header.total_bytes != sizeof(ControlLayout))
    return fail(
        Code::incompatible_layout,
        fmt::format(
            "{} has control layout version {} ({} bytes), this program has {} ({} bytes); stop all "
            "processes that use the log, then start one version only. To change over: open the log once "
            "with the version that wrote this, which flushes its rings, end it, and remove the folder",
            path, header.version, header.total_bytes, kControlVersion, sizeof(ControlLayout)));
  if (auto boot = boot_id(); boot && header.boot_id != *boot)
    return fail(Code::corrupt,
                fmt::format("{} is of an earlier boot: its folder has outlived memory; remove the "
                            "folder",
                            path));
  if (header.log_id != log_id)
    return fail(Code::corrupt, fmt::format("{} belongs to another log; remove it", path));
  return {};
}

}  // namespace

Result<Control> Control::open_or_create(const std::filesystem::path& shm_dir,
                                        std::array<std::uint64_t, 2> log_id,
                                        const std::filesystem::path& log_dir) {
  const auto path = shm_dir / "control";
  for (int attempt = 0;; ++attempt) {
    auto mapping = open_shared_file(path, false, sizeof(ControlHeader));
    if (!mapping && (mapping.error().code != Code::not_found || attempt > 10))
      return std::unexpected(mapping.error());
    if (!mapping) {
      auto created = create_shared_file(path, sizeof(ControlLayout));
      if (!created) return std::unexpected(created.error());
      auto& header = reinterpret_cast<ControlLayout*>(created->data())->header;
      header.magic = kControlMagic;
      header.version = kControlVersion;
      header.slot_count = kMaxSlots;
      header.reader_count = kMaxReaders;
      header.partition_count = kMaxPartitions;
      header.total_bytes = sizeof(ControlLayout);
      header.log_id = log_id;
      header.boot_id = boot_id().value_or(std::array<std::uint64_t, 2>{});
      const std::string dir = std::filesystem::absolute(log_dir).string();
      std::memcpy(header.dir.data(), dir.data(), std::min(dir.size(), header.dir.size() - 1));
      auto published = created->publish_new();
      if (!published && published.error().code == Code::already_exists) continue;  // another was faster
      if (!published) return std::unexpected(published.error());
      mapping = std::move(created);
    }
    auto* layout = reinterpret_cast<ControlLayout*>(mapping->data());
    if (auto valid = check(layout->header, path.string(), log_id); !valid)
      return std::unexpected(valid.error());
    if (mapping->size() != sizeof(ControlLayout))
      return fail(Code::corrupt,
                  fmt::format("{} has {} bytes instead of {}; stop all processes that use the log "
                              "and remove it",
                              path.string(), mapping->size(), sizeof(ControlLayout)));
    Control control;
    control.mapping_ = std::move(*mapping);
    control.layout_ = layout;
    return control;
  }
}

namespace {

void raise(Shared<std::uint32_t>& mark, std::uint32_t to) {
  std::uint32_t seen = mark.load(std::memory_order_relaxed);
  // SYNC: a full barrier ahead of what the caller does in its entry; pairs with used().
  while (seen < to && !mark.compare_exchange_weak(seen, to, std::memory_order_seq_cst)) {
  }
}

std::uint32_t used(const Shared<std::uint32_t>& mark, std::uint32_t limit) {
  return std::min(mark.load(std::memory_order_seq_cst), limit);  // SYNC: pairs with raise
}

}  // namespace

std::span<Slot> Control::slots() const {
  return {layout_->slots.data(), used(header().slots_used, kMaxSlots)};
}
std::span<Reader> Control::readers() const {
  return {layout_->readers.data(), used(header().readers_used, kMaxReaders)};
}
void Control::use_slot(std::uint32_t index) const { raise(header().slots_used, index + 1); }
void Control::use_reader(std::uint32_t index) const { raise(header().readers_used, index + 1); }

namespace {

void ring_bell(Shared<std::uint32_t>& word, const Shared<std::uint32_t>& asleep) {
  // SYNC: the bump before the look at `asleep`; the sleeper sets that before it compares the word.
  word.fetch_add(1, std::memory_order_seq_cst);
  if (asleep.load(std::memory_order_seq_cst) != 0) futex_wake_all(word);
}

}  // namespace

void Control::wake_keeper() const { ring_bell(header().keeper_wake, header().keeper_asleep); }
void Control::wake_coordinator() const { ring_bell(groups().wake, groups().asleep); }

void notify_waiters(Shared<std::uint32_t>& seq, Shared<std::uint32_t>& waiters) {
  // SYNC: pairs with the waiter's exchange of the flag before it looks once more: it sees the event, or
  // we see the flag. The event's own store must not pass this read-modify-write. Bit 0 is the waiters'.
  if ((waiters.fetch_and(~1u, std::memory_order_seq_cst) & 1u) == 0) return;
  seq.fetch_add(1, std::memory_order_release);  // SYNC: pairs with the waiter's load of seq
  futex_wake_all(seq);
}

void set_high_watermark(Partition& entry, std::uint64_t position, std::uint64_t offset) {
  entry.high_watermark_offset.store(offset, std::memory_order_relaxed);
  // SYNC: publishes the offset; pairs with the acquire loads by readers and by those who wait.
  entry.high_watermark.store(position, std::memory_order_release);
  notify_waiters(entry.replicated_seq, entry.replicated_waiters);
  // SYNC: behind the barrier of notify_waiters; pairs with the reader's fetch_or before its look.
  if ((entry.hot.load(std::memory_order_seq_cst) & kDataWaiter) == 0) return;
  entry.hot.fetch_and(~std::uint64_t{kDataWaiter},
                      std::memory_order_acq_rel);  // SYNC: as in Appender::notify
  entry.data_seq.fetch_add(1,
                           std::memory_order_release);  // SYNC: pairs with the waiter's load before its look
  futex_wake_all(entry.data_seq);
}

std::string_view to_string(ReplicaRole role) {
  switch (role) {
    case ReplicaRole::alone: return "alone";
    case ReplicaRole::fenced: return "fenced";
    case ReplicaRole::follower: return "follower";
    case ReplicaRole::leader: return "leader";
  }
  return "unknown";
}

void store_mark(Partition& entry, std::uint64_t position, std::uint64_t offset) {
  const std::uint64_t turn = entry.mark_turn.load(std::memory_order_relaxed) + 1;
  Partition::Mark& mark = entry.mark[turn % 2];
  mark.check.store(0, std::memory_order_relaxed);
  // SYNC: each of the stores in order, so that a keeper's death leaves the other copy whole.
  mark.position.store(position, std::memory_order_release);
  mark.offset.store(offset, std::memory_order_release);
  mark.check.store(mark_check(position, offset), std::memory_order_release);
  entry.mark_turn.store(turn, std::memory_order_release);
}

bool load_mark(const Partition& entry, std::uint64_t& position, std::uint64_t& offset) {
  const std::uint64_t turn = entry.mark_turn.load(std::memory_order_acquire);  // SYNC: pairs with store_mark
  if (turn == 0) return false;
  for (const std::uint64_t t : {turn, turn - 1}) {
    const Partition::Mark& mark = entry.mark[t % 2];
    const std::uint64_t check = mark.check.load(std::memory_order_acquire);  // SYNC: pairs with store_mark
    position = mark.position.load(std::memory_order_relaxed);
    offset = mark.offset.load(std::memory_order_relaxed);
    if (check == mark_check(position, offset)) return true;
  }
  return false;
}

}  // namespace ringtail::shm
