// How a partition comes into the keeper's hands: its files in order, the rings that survived adopted.

#include <fmt/format.h>

#include <algorithm>

#include "base/logger.h"
#include "log/partition_keeper.h"
#include "log/passing.h"

namespace ringtail::log {

using shm::PartitionState;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

std::string PartitionKeeper::name() const {
  return fmt::format("{}-{}", partition_.topic, partition_.partition.value());
}

std::unique_ptr<PartitionKeeper> PartitionKeeper::open(const KeeperContext& context,
                                                       const PartitionRef& partition,
                                                       const TopicConfig& config, bool replicated,
                                                       const std::optional<Error>& before) {
  std::unique_ptr<PartitionKeeper> keeper(new PartitionKeeper(context, partition, config, replicated));
  keeper->publish_config();
  if (auto recovered = keeper->recover(); !recovered) {
    const Error& error = recovered.error();
    if (is_passing(error)) keeper->passing_failure_ = error;
    keeper->fail_with(error, before && before->message == error.message);
    return keeper;
  }
  if (before) logger().info("{}: it could be opened now", keeper->name());
  if (!keeper->written_anew_at_) keeper->entry_.failure_code.store(0, memory_order_relaxed);
  // SYNC: publishes all of the entry; pairs with the acquire loads of state.
  keeper->entry_.state.store(static_cast<std::uint32_t>(PartitionState::active), memory_order_release);
  keeper->bump_version();
  keeper->notify_all();
  return keeper;
}

void PartitionKeeper::publish_config() {
  entry_.max_message_bytes.store(static_cast<std::uint32_t>(config_.max_message_bytes), memory_order_relaxed);
  entry_.min_insync_replicas.store(static_cast<std::uint32_t>(config_.min_insync_replicas),
                                   memory_order_relaxed);
  entry_.claim_timeout_ms.store(static_cast<std::uint32_t>(config_.claim_timeout_ms), memory_order_relaxed);
  entry_.on_full.store(static_cast<std::uint8_t>(config_.on_full), memory_order_relaxed);
  entry_.timestamp_type.store(static_cast<std::uint8_t>(config_.timestamp_type), memory_order_relaxed);
  entry_.storage.store(static_cast<std::uint8_t>(config_.storage), memory_order_relaxed);
  entry_.cleanup_policy.store(static_cast<std::uint8_t>(config_.cleanup_policy), memory_order_relaxed);
}

RingSpec PartitionKeeper::spec() const {
  return {.log_id = partition_.log_id,
          .topic_id = partition_.topic_id,
          .partition = partition_.partition,
          .term_bytes = static_cast<std::uint64_t>(config_.term_bytes),
          .term_count = static_cast<std::uint32_t>(config_.ring_terms),
          .generation = entry_.ring_generation.load(memory_order_relaxed) + 1};
}

Status PartitionKeeper::recover() {
  auto rings = find_rings();
  if (!rings) return std::unexpected(rings.error());
  for (const Ring& ring : *rings)
    if (ring.generation() > entry_.ring_generation.load(memory_order_relaxed))
      entry_.ring_generation.store(ring.generation(), memory_order_relaxed);
  if (replicated_)
    if (auto finished = finish_cut(*rings); !finished) return finished;
  auto recovered = is_disk() ? recover_disk(std::move(*rings)) : recover_memory(std::move(*rings));
  if (!recovered) return recovered;
  if (replicated_) {
    auto epochs = EpochList::load(partition_.disk_dir);
    if (!epochs) return std::unexpected(epochs.error());
    epochs_ = std::move(*epochs);
    begin_replicated();
    return {};
  }
  // A keeper died while it replaced the current ring, or gave it to another, or before, when it had given up a claim
  // whose owner may still write there: go on with it.
  const Ring& ring = current().ring();
  const bool fenced = tail_fenced(ring.line(0).tail.load(memory_order_acquire));  // SYNC: see fence
  if ((fenced && ring.owner() == 0) || ring.scribbled() != Scribbled::no)
    begin_retire("its replacement was begun");
  return {};
}

// The partition's rings in shared memory, by generation; the last one is the current.
Result<std::vector<Ring>> PartitionKeeper::find_rings() const {
  std::vector<Ring> rings;
  auto take = [&](const std::filesystem::path& path) -> Status {
    auto ring = Ring::open(path, false);
    if (!ring && ring.error().code == Code::not_found) return {};
    if (!ring) return std::unexpected(ring.error());
    if (ring->header().topic_id != partition_.topic_id) return shm::unlink_path(path);  // of an earlier topic
    // A ring that was about to be retired has two names.
    const bool known = std::any_of(rings.begin(), rings.end(),
                                   [&](const Ring& r) { return r.generation() == ring->generation(); });
    if (known) return {};
    rings.push_back(std::move(*ring));
    return {};
  };
  if (auto taken = take(ring_path(partition_.shm_dir, partition_.topic, partition_.partition)); !taken)
    return std::unexpected(taken.error());
  auto retired = retired_rings(partition_.shm_dir, partition_.topic, partition_.partition);
  if (!retired) return std::unexpected(retired.error());
  for (const auto& path : *retired)
    if (auto taken = take(path); !taken) return std::unexpected(taken.error());
  std::sort(rings.begin(), rings.end(),
            [](const Ring& a, const Ring& b) { return a.generation() < b.generation(); });
  return rings;
}

// A keeper died while it took back what this host has and its leader does not. Rings that were to be replaced tell
// nothing any more, nor does one in the midst of a cut where there are files to go by. What is too much in those is cut
// off when this host follows again.
Status PartitionKeeper::finish_cut(std::vector<Ring>& rings) const {
  if (!is_disk() && !rings.empty()) {
    const Ring& ring = rings.back();
    if (const auto end = ring.unfinished_cut()) {
      if (end->position.value() < ring.header().head.load(memory_order_relaxed) ||
          end->position > ring.frame_limit())
        return fail(Code::corrupt,
                    fmt::format("the ring in {} was to be cut off at position {}, which it does not hold",
                                partition_.shm_dir.string(), end->position.value()));
      ring.cut(*end);
      ring.end_cut();
    }
  }
  const std::size_t count = rings.size();
  for (std::size_t i = count; i-- > 0;) {
    if (!rings[i].is_closed() && !(is_disk() && rings[i].unfinished_cut())) continue;
    auto removed = shm::unlink_path(
        i + 1 == count ? ring_path(partition_.shm_dir, partition_.topic, partition_.partition)
                       : retired_ring_path(partition_.shm_dir, partition_.topic, partition_.partition,
                                           rings[i].generation()));
    if (!removed && removed.error().code != Code::not_found) return removed;
    rings.erase(rings.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return {};
}

Status PartitionKeeper::recover_disk(std::vector<Ring> rings) {
  RecoveryOptions options;
  // The bytes of a replica are the leader's: none is added.
  options.pad_to_block = rings.empty() && !replicated_;
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  if (!rings.empty() && shm::load_mark(entry_, position, offset)) {
    options.known_durable = Position(position);
    options.only_synced =
        entry_.failure_code.load(memory_order_relaxed) == static_cast<std::uint32_t>(Code::storage_failed) &&
        rings.front().header().head.load(memory_order_relaxed) <= position;
  }
  // Of where claims end a dead producer may not have told; no frame stands behind the last term that is open.
  if (options.only_synced) written_anew_at_ = rings.back().term_start(rings.back().last_open_term() + 1);
  auto begins = find_unwritten_start(rings);
  if (!begins) return std::unexpected(begins.error());
  if (auto opened = open_files(options, *begins); !opened) return opened;
  const Position end = writer_->end_position();
  const Offset next_offset = writer_->end_offset();

  // Rings that were flushed to their end before the last keeper could remove them.
  std::size_t first = 0;
  while (first + 1 < rings.size() && rings[first].sealed() && rings[first + 1].first_position() <= end) {
    auto removed = shm::unlink_path(retired_ring_path(partition_.shm_dir, partition_.topic,
                                                      partition_.partition, rings[first].generation()));
    if (!removed) return removed;
    ++first;
  }
  if (first == rings.size()) {
    if (auto made = make_first_ring(end, next_offset); !made) return made;
  } else {
    Ring& oldest = rings[first];
    const Position head =
        std::max(Position(oldest.header().head.load(memory_order_relaxed)), oldest.first_position());
    if (end < head || end > oldest.frame_limit())
      return fail(
          Code::corrupt,
          fmt::format("the segment files in {} end at position {}, but the ring in {} holds {} to {}: one of "
                      "them is not of this log's last run; put the missing files back, or remove the ring's "
                      "file to go on from the end of the segments, and open producers anew",
                      partition_.disk_dir.string(), end.value(), partition_.shm_dir.string(), head.value(),
                      oldest.frame_limit().value()));
    if (const Position tail = oldest.claimed_end().position; tail > end)
      logger().info("{}: {} bytes behind position {} are still in the ring and will be flushed", name(),
                    tail - end, end.value());
    adopt(std::move(oldest), end, next_offset);
    if (auto adopted = adopt_remaining(rings, first + 1); !adopted) return adopted;
  }
  use_as_source(draining());
  publish_durable();
  enforce_retention();
  return {};
}

// A follower that began anew in the midst of its leader's log has no file before something is flushed, and its ring alone
// tells where it began. Nothing, unless that ring holds all from there on.
Result<std::optional<LogPoint>> PartitionKeeper::find_unwritten_start(const std::vector<Ring>& rings) const {
  if (!replicated_ || rings.empty()) return std::nullopt;
  const Ring& oldest = rings.front();
  const Position first = oldest.first_position();
  // Its entry tells so, too. Otherwise files have vanished: then the log began before this ring.
  if (first == Position(0) || oldest.header().head.load(memory_order_relaxed) > first.value() ||
      entry_.log_start_position.load(memory_order_relaxed) != first.value())
    return std::nullopt;
  auto listing = list_segments(partition_.disk_dir);
  if (!listing) return std::unexpected(listing.error());
  const auto offset = oldest.offset_at(first);
  if (!listing->logs.empty() || !offset) return std::nullopt;
  return LogPoint{first, *offset};
}

// Recovers the files and begins to write behind them; or behind nothing, at `restart`.
Status PartitionKeeper::open_files(const RecoveryOptions& options, std::optional<LogPoint> restart) {
  RecoveryReport report;
  auto recovered = recover_partition(*context_.backend, partition_.disk_dir, identity(), options, report);
  if (!recovered) return std::unexpected(recovered.error());
  for (const RecoveryFinding& finding : report.findings)
    logger().log(finding.durable_lost > 0 ? spdlog::level::err : spdlog::level::info, "{}: {}", name(),
                 finding.message);
  if (restart) {
    recovered->end_position = restart->position;
    recovered->next_offset = restart->offset;
  }
  auto writer = SegmentWriter::open(*context_.backend, identity(), partition_.disk_dir, config_, *recovered);
  if (!writer) return std::unexpected(writer.error());
  writer_ = std::move(*writer);
  writer_->set_figures(context_.figures);
  return {};
}

Status PartitionKeeper::recover_memory(std::vector<Ring> rings) {
  if (rings.empty()) return make_first_ring(Position(0), Offset(0));
  if (auto adopted = adopt_remaining(rings, 0); !adopted) return adopted;
  look_anew_ = true;
  publish_memory_start();
  return {};
}

Status PartitionKeeper::make_first_ring(Position base, Offset offset) {
  auto ring = Ring::create(ring_path(partition_.shm_dir, partition_.topic, partition_.partition), spec());
  if (!ring) return std::unexpected(ring.error());
  AlignedBuffer block(format::kBlockBytes);
  const std::uint64_t in_block = is_disk() ? base - format::block_down(base) : 0;
  if (in_block > 0)
    if (auto read = writer_->read_last_block(block.span()); !read) return read;
  ring->set_base(base, offset, 0, block.span().first(in_block));
  if (replicated_) {
    ring->fence();
    ring->follow({base, offset});
  }
  if (auto published = ring->publish_replacing(); !published) return published;
  // SYNC: pairs with the acquire loads by appenders and readers.
  entry_.ring_generation.store(ring->generation(), memory_order_release);
  adopt(std::move(*ring), base, offset);
  return {};
}

void PartitionKeeper::adopt(Ring ring, Position frontier, Offset offset) {
  if (is_disk()) context_.backend->register_buffer({ring.data(), ring.ring_bytes()});
  rings_.emplace_back(std::move(ring), *context_.control, partition_.index, frontier, offset);
}

Status PartitionKeeper::adopt_remaining(std::vector<Ring>& rings, std::size_t from) {
  for (std::size_t i = from; i < rings.size(); ++i) {
    const Position head(rings[i].header().head.load(memory_order_relaxed));
    const auto offset = rings[i].offset_at(head);
    if (!offset)
      return fail(
          Code::corrupt,
          fmt::format(
              "ring generation {}: its head, {}, is where no term begins: some process wrote where it "
              "must not",
              rings[i].generation(), head.value()));
    adopt(std::move(rings[i]), head, *offset);
  }
  return {};
}

void PartitionKeeper::remove_ring_files() const {
  auto retired = retired_rings(partition_.shm_dir, partition_.topic, partition_.partition);
  if (!retired) logger().warn("{}: its earlier rings stay: {}", name(), to_string(retired.error()));
  std::vector<std::filesystem::path> paths = retired.value_or(std::vector<std::filesystem::path>());
  paths.push_back(ring_path(partition_.shm_dir, partition_.topic, partition_.partition));
  paths.push_back(shm::replacing_path(paths.back()));
  for (const auto& path : paths)
    if (auto removed = shm::unlink_path(path); !removed && removed.error().code != Code::not_found)
      logger().warn("{}", to_string(removed.error()));
}

}  // namespace ringtail::log
