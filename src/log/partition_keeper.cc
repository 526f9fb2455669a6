#include "log/partition_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/clock.h"
#include "base/logger.h"
#include "log/attachment.h"
#include "shm/futex.h"

namespace ringtail::log {

using shm::PartitionState;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::uint64_t kRunBytes = 256 << 10;  // per scan: an index entry's grain at most
constexpr std::uint64_t kTickBytes = 8 << 20;   // per tick: so that no partition starves another
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kRetentionPeriodNs = 1'000 * kMillisecond;
constexpr std::int64_t kSegmentRetryNs = 100 * kMillisecond;
constexpr std::int64_t kCopyRetryNs = 20 * kMillisecond;
// A reader holds what producers wait for: longer than a poll's records take, shorter than a new ring does.
constexpr std::int64_t kStarvingPinNs = 2 * kMillisecond;
// How long the last flush of a keeper that ends waits for a claim in a ring that has been replaced.
constexpr std::int64_t kPatienceNs = 500 * kMillisecond;

}  // namespace

PartitionKeeper::~PartitionKeeper() {
  *alive_ = false;
  cancel_compaction();
  writer_.reset();  // it waits for its writes, which are from the rings' memory
  for (RingKeeper& ring : rings_)
    context_.backend->unregister_buffer({ring.ring().data(), ring.ring().ring_bytes()});
}

std::uint64_t PartitionKeeper::tick(std::int64_t now_ns) {
  if (failed_) {
    // Others may want the memory. Nothing more is written from it, once what is in flight has come to an end.
    if (copy_ && !writer_->busy()) copy_.reset();
    return 0;
  }
  std::uint64_t bytes = 0;
  if (is_disk()) {
    bytes = flush(now_ns);
  } else {
    drop_settled_rings();
    current().skip_to_term_of_head();
    const Position end = current().ring().claimed_end().position;
    bytes = end != last_end_ ? 1 : 0;
    last_end_ = end;
  }
  if (!failed_) bytes += recycle(now_ns);
  if (!failed_) repair(now_ns);
  if (!failed_) step_retire(now_ns);
  if (!failed_) step_role(now_ns);
  if (!failed_) step_exclusive(now_ns);
  if (!failed_ && now_ns >= retention_due_ns_) {
    retention_due_ns_ = now_ns + kRetentionPeriodNs;
    if (is_disk())
      enforce_retention();
    else
      unlink_retired();
  }
  if (!failed_) step_compaction(now_ns);
  return bytes;
}

// --- Flush ---------------------------------------------------------------------------------------

std::uint64_t PartitionKeeper::flush(std::int64_t now_ns) {
  std::uint64_t walked = drop_drained_ring() ? 1 : 0;
  if (prepare_copy()) {
    while (walked < kTickBytes) {
      auto run = draining().scan(kRunBytes);
      if (!run) {
        fail_with(run.error());
        return walked;
      }
      if (run->bytes == 0) break;
      if (unsynced_since_ns_ == 0) unsynced_since_ns_ = now_ns;
      if (!write(*run)) return walked;
      walked += run->bytes;
    }
  }
  if (sync_is_due(now_ns)) {
    writer_->request_sync();
    unsynced_since_ns_ = now_ns;
  }
  writer_->pump();
  publish_durable();
  want_segment(now_ns);
  if (writer_->failure()) fail_with(*writer_->failure());
  return walked;
}

// False: it does not follow what was written before, and the partition has failed.
bool PartitionKeeper::write(const FrameRun& run) {
  if (run.position != writer_->end_position() || run.first_offset != writer_->end_offset()) {
    fail_with({Code::corrupt, 0,
               fmt::format(
                   "ring generation {} goes on at position {}, offset {}, behind {}, {}: some process wrote "
                   "where it must not",
                   draining().ring().generation(), run.position.value(), run.first_offset.value(),
                   writer_->end_position().value(), writer_->end_offset().value())});
    return false;
  }
  writer_->append(run);
  return true;
}

bool PartitionKeeper::sync_is_due(std::int64_t now_ns) const {
  if (writer_->durable_position() == writer_->end_position()) return false;
  if (entry_.durable_waiters.load(memory_order_relaxed) != 0 || rings_.size() > 1) return true;
  if (now_ns - unsynced_since_ns_ >= config_.flush_interval_ms * kMillisecond) return true;
  // Ring space is recycled behind the sync: keep it coming in good time when there is much.
  return writer_->end_position() - writer_->durable_position() >= config_.ring_bytes() / 8;
}

void PartitionKeeper::publish_durable() {
  const Position durable = writer_->durable_position();
  const bool is_anew = written_anew_at_ && durable >= *written_anew_at_;
  // A mark there is from the first time on: that nothing has been synced is to be known, too.
  const bool is_marked = entry_.mark_turn.load(memory_order_relaxed) != 0;
  if (durable.value() == entry_.durable_position.load(memory_order_relaxed) && is_marked && !is_anew) return;
  if (durable == writer_->end_position()) unsynced_since_ns_ = 0;
  shm::store_mark(entry_, durable.value(), writer_->durable_offset().value());
  if (is_anew) {
    entry_.failure_code.store(0, memory_order_relaxed);
    written_anew_at_.reset();
  }
  entry_.disk_bytes.store(writer_->disk_bytes(), memory_order_relaxed);
  // SYNC: pairs with the acquire loads of those who wait for durability and of segment readers.
  entry_.durable_position.store(durable.value(), memory_order_release);
  // SYNC: behind the position; pairs with PartitionReader::seek_to_time.
  entry_.durable_offset.store(writer_->durable_offset().value(), memory_order_release);
  shm::notify_waiters(entry_.durable_seq, entry_.durable_waiters);
  if (replicated_ && context_.on_progress) context_.on_progress(partition_.index);
}

// A sealed ring that is on disk to its end makes way for its successor. Returns whether it waits for that.
bool PartitionKeeper::drop_drained_ring() {
  if (rings_.size() < 2) return false;
  Ring& ring = draining().ring();
  // As this keeper knows it: what the ring says of it other processes can write over.
  const Position end = rings_[1].ring().first_position();
  const Position durable = writer_->durable_position();
  if (draining().frontier() < end || durable < end || durable != writer_->end_position()) return true;
  if (inquiring() || owes_answer(ring.generation())) return true;
  context_.backend->unregister_buffer({ring.data(), ring.ring_bytes()});
  const std::uint64_t generation = ring.generation();
  rings_.pop_front();
  copy_.reset();
  use_as_source(draining());
  auto removed = shm::unlink_path(
      retired_ring_path(partition_.shm_dir, partition_.topic, partition_.partition, generation));
  if (!removed) logger().warn("{}", to_string(removed.error()));
  return true;
}

// A ring that may be scribbled on is flushed from a copy. False while that cannot begin yet.
bool PartitionKeeper::prepare_copy() {
  Ring& ring = draining().ring();
  if (copy_ || ring.scribbled() == Scribbled::no) return true;
  if (writer_->durable_position() != writer_->end_position()) {
    writer_->request_sync();
    return false;
  }
  if (!make_copy(ring.ring_bytes())) return false;
  // The ring may lack the checksums of what is in the file already: a keeper that died copied it, too.
  const Position block = format::block_down(draining().frontier());
  auto read = writer_->read_last_block({copy_->data() + (ring.at(block) - ring.data()), format::kBlockBytes});
  if (!read) {
    fail_with(read.error());
    return false;
  }
  draining().walk_into(copy_->data());
  writer_->set_source({copy_->data(), ring.base_position(), ring.ring_bytes()});
  // It is being replaced already, unless some process wrote where it must not: the copy is given back with the ring.
  if (rings_.size() == 1) begin_retire("somebody may still write to what is in it");
  return true;
}

// False: there is no memory for it, or others have theirs first. Until there is, records stay in the ring.
bool PartitionKeeper::make_copy(std::uint64_t bytes) {
  const std::int64_t now_ns = monotonic_ns();
  if (now_ns < copy_retry_ns_) return false;
  copy_retry_ns_ = now_ns + kCopyRetryNs;
  copy_ = RingCopy::make(context_.copied_bytes, bytes);
  const bool lacks = copy_ == nullptr;
  if (lacks && !announced_copy_)
    logger().warn(
        "{}: no memory yet for a copy of its ring ({} bytes); records stay in the ring until there is",
        name(), bytes);
  announced_copy_ = lacks;
  return !lacks;
}

void PartitionKeeper::use_as_source(RingKeeper& ring) {
  writer_->set_source({ring.ring().data(), ring.ring().base_position(), ring.ring().ring_bytes()});
}

void PartitionKeeper::want_segment(std::int64_t now_ns) {
  if (preparing_segment_ || now_ns < segment_retry_ns_ || !writer_->wants_prepared()) return;
  preparing_segment_ = true;
  context_.workshop->submit([this, alive = alive_, dir = partition_.disk_dir,
                             bytes = writer_->prepared_bytes()](io::Backend& backend) -> Workshop::Delivery {
    auto prepared = std::make_shared<Result<PreparedSegment>>(prepare_segment(backend, dir, bytes));
    return [this, alive, prepared] {
      if (*alive) take_segment(std::move(*prepared));
    };
  });
}

void PartitionKeeper::take_segment(Result<PreparedSegment> prepared) {
  preparing_segment_ = false;
  if (prepared) {
    writer_->offer(std::move(*prepared));
    if (!announced_trouble_.empty()) logger().info("{}: there is space for segments again", name());
    announced_trouble_.clear();
    return;
  }
  segment_retry_ns_ = monotonic_ns() + kSegmentRetryNs;
  const std::string trouble = to_string(prepared.error());
  if (trouble != announced_trouble_)
    logger().warn("{}: cannot prepare the next segment; records stay in the ring until it can be had: {}",
                  name(), trouble);
  announced_trouble_ = trouble;
}

void PartitionKeeper::flush_blocking() {
  if (failed_ || !is_disk()) return;
  for (std::int64_t progress_ns = monotonic_ns();;) {
    const Position before = writer_->end_position();
    const std::size_t rings = rings_.size();
    const std::int64_t now_ns = monotonic_ns();
    flush(now_ns);
    // What nobody will finish in an earlier ring stands in the way of all that comes behind it.
    if (!failed_ && rings_.size() > 1) repair(now_ns);
    if (failed_) return;
    if (writer_->failure()) break;
    if (writer_->end_position() != before || rings_.size() != rings) {
      progress_ns = now_ns;
      continue;
    }
    if (rings == 1) break;
    if (auto flushed = writer_->flush_blocking(); !flushed) break;  // and once more below, which tells
    if (now_ns - progress_ns > kPatienceNs) break;                  // somebody alive is at work there
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  if (auto flushed = writer_->flush_blocking(); !flushed)
    logger().warn("{}: not everything could be written; it stays in {}: {}", name(),
                  ring_path(partition_.shm_dir, partition_.topic, partition_.partition).string(),
                  to_string(flushed.error()));
  publish_durable();
  if (writer_->failure()) fail_with(*writer_->failure());
}

// --- Space ---------------------------------------------------------------------------------------

// Returns how much was done in a hurry: then there should be no rest.
std::uint64_t PartitionKeeper::recycle(std::int64_t now_ns) {
  const Ring& ring = current().ring();
  // Who was given up, and has been told that the ring says what became of his claim, is looking there
  // (ring.pml, GIVE_UPS with KEEPER_DEATHS).
  const bool looked_at =
      fenced_generation() == ring.generation() && (!ring.is_followed() || ring.scribbled() != Scribbled::no);
  if ((is_disk() && rings_.size() > 1) || looked_at) return 0;
  const Position reusable = is_disk() ? writer_->durable_position() : slowest_reader();
  const RingKeeper::Recycled result = current().recycle(reusable, *context_.slots);
  // As soon as the head has moved, also where a pin delays the rest: nobody is to begin before it.
  if (!is_disk() && (result.progressed || result.zeroed > 0 || result.blocked_by_pin)) publish_memory_start();
  if (result.progressed) {
    shm::notify_waiters(entry_.space_seq, entry_.space_waiters);
    if (replicated_ && context_.on_progress) context_.on_progress(partition_.index);
  }
  if (!result.blocked_by_pin) {
    pinned_since_ns_ = 0;
    return result.hurry ? 2 * result.zeroed : std::min<std::uint64_t>(result.zeroed, 1);
  }
  if (pinned_since_ns_ == 0) pinned_since_ns_ = now_ns;
  const std::int64_t patience_ns = config_.reader_pin_ms * kMillisecond;
  if (now_ns - pinned_since_ns_ >= (result.starving ? std::min(kStarvingPinNs, patience_ns) : patience_ns))
    begin_retire("a reader holds space that is needed");
  return 0;
}

// How far the ring of a memory topic may be recycled.
Position PartitionKeeper::slowest_reader() const {
  Position slowest(~std::uint64_t{0});
  // Readers beside a follower must not hold up the leader's producers.
  if (config_.on_full == OnFull::overwrite || role() == shm::ReplicaRole::follower) return slowest;
  for (const shm::Reader& reader : context_.control->readers()) {
    if (reader.owner.load(memory_order_acquire) == 0) continue;  // SYNC: pairs with the reader's attach
    if (reader.partition.load(memory_order_relaxed) != partition_.index) continue;
    slowest = std::min(slowest, Position(reader.position.load(memory_order_relaxed)));
  }
  return slowest;
}

void PartitionKeeper::publish_memory_start() {
  const Ring& ring = current().ring();
  const Position head(ring.header().head.load(memory_order_relaxed));
  if (const auto offset = ring.offset_at(head))
    entry_.log_start_offset.store(offset->value(), memory_order_relaxed);
  entry_.log_start_position.store(head.value(), memory_order_relaxed);
}

void PartitionKeeper::enforce_retention() {
  // What a compaction is about to replace must not be deleted: it would come back. And what is above the high watermark
  // may be what another host still has to get. Behind a reboot, the first call comes ahead of begin_replicated.
  const std::uint64_t watermark = entry_.high_watermark.load(memory_order_relaxed);
  const Position confirmed(replicated_ && watermark == shm::kNoWatermark ? 0 : watermark);
  auto deleted = compacting_ ? Result<unsigned>(0u) : writer_->enforce_retention(wall_clock_ns(), confirmed);
  if (!deleted) logger().warn("{}: cannot delete old segments: {}", name(), to_string(deleted.error()));
  entry_.log_start_position.store(writer_->log_start_position().value(), memory_order_relaxed);
  entry_.log_start_offset.store(writer_->log_start_offset().value(), memory_order_relaxed);
  entry_.disk_bytes.store(writer_->disk_bytes(), memory_order_relaxed);
}

// --- State ---------------------------------------------------------------------------------------

bool PartitionKeeper::is_awaited() const {
  if (failed_ || !writer_ || !writer_->busy()) return false;
  return entry_.durable_waiters.load(memory_order_relaxed) != 0 ||
         entry_.space_waiters.load(memory_order_relaxed) != 0;
}

bool PartitionKeeper::arm_bell() {
  if (failed_) return true;
  if (retire_ != Retire::no || rings_.size() > 1 || !dead_slots_.empty() || !given_up_.empty()) return false;
  if (look_anew_ || inquiring()) return false;
  if (is_settling() || role_request_ || handing_over_ || must_hand_over()) return false;
  if (writer_ && (writer_->busy() || writer_->durable_position() != writer_->end_position())) return false;
  // SYNC: a full barrier between raising the flag and the last look; pairs with Appender::notify.
  const std::uint64_t hot = entry_.hot.fetch_or(shm::kKeeperWaits, std::memory_order_seq_cst);
  // A commit by a plain store is no barrier: its look at the flag may come before it is seen. A round later it is not.
  if (current().ring().is_owned() && (hot & shm::kKeeperWaits) == 0) return false;
  return is_disk() ? !draining().has_unresolved() : current().ring().claimed_end().position == last_end_;
}

bool PartitionKeeper::is_waited_for() const {
  return !failed_ && (pinned_since_ns_ != 0 || entry_.space_waiters.load(memory_order_relaxed) != 0);
}

void PartitionKeeper::update_config(const TopicConfig& config) {
  config_ = config;
  if (writer_) writer_->update_config(config);
  publish_config();
  bump_version();
}

void PartitionKeeper::bump_version() {
  // SYNC: publishes configuration and state; pairs with the acquire load in Appender::reload_entry.
  entry_.hot.fetch_add(shm::kHotVersion, memory_order_release);
}

void PartitionKeeper::wake_readers() {
  entry_.data_seq.fetch_add(1, memory_order_release);  // SYNC: pairs with the waiter's load before its look
  shm::futex_wake_all(entry_.data_seq);
}

void PartitionKeeper::notify_all() {
  wake_readers();
  entry_.space_seq.fetch_add(1, memory_order_release);  // SYNC: as above
  shm::futex_wake_all(entry_.space_seq);
  entry_.durable_seq.fetch_add(1, memory_order_release);  // SYNC: as above
  shm::futex_wake_all(entry_.durable_seq);
}

void PartitionKeeper::fail_with(const Error& error, bool is_told) {
  failed_ = true;
  failure_ = error;
  if (role_request_) refuse_role(*std::exchange(role_request_, std::nullopt), error);
  // That rings find no room when a keeper opens the log is said by Keeper, of all of them together.
  const bool is_summed_up =
      error.code == Code::shared_memory_full &&
      entry_.state.load(memory_order_relaxed) != static_cast<std::uint32_t>(PartitionState::active);
  logger().log(is_told        ? spdlog::level::debug
               : is_summed_up ? spdlog::level::info
                              : spdlog::level::err,
               "{}: {}; it refuses writes until {}", name(), to_string(error),
               passing_failure_ ? "it can be opened, which is tried again and again"
                                : "the cause is mended and a keeper opens the log anew");
  const std::string& text = error.message;
  for (std::size_t i = 0; i < entry_.failure_text.size(); ++i)
    entry_.failure_text[i].store(i < text.size() && i + 1 < entry_.failure_text.size() ? text[i] : '\0',
                                 memory_order_relaxed);
  // A failed sync stays one, whatever keeps the partition from being opened since, until what was not synced has been
  // written anew (RecoveryOptions::only_synced).
  const auto sync_failed = static_cast<std::uint32_t>(Code::storage_failed);
  if (entry_.failure_code.load(memory_order_relaxed) != sync_failed)
    entry_.failure_code.store(static_cast<std::uint32_t>(error.code), memory_order_relaxed);
  entry_.failure_errno.store(error.os_errno, memory_order_relaxed);
  // SYNC: publishes the failure; pairs with the acquire loads of state.
  entry_.state.store(static_cast<std::uint32_t>(PartitionState::failed), memory_order_release);
  bump_version();
  notify_all();
  if (replicated_ && context_.on_progress) context_.on_progress(partition_.index);
  let_go();
}

// Nothing is repaired any more: who waits for that, or is dead, is let go.
void PartitionKeeper::let_go() {
  for (const std::uint32_t slot : dead_slots_) context_.slots->release_dead(slot);
  dead_slots_.clear();
  for (const GivenUp& given_up : given_up_)
    // SYNC: as in settle_inquiry
    context_.control->slot(given_up.slot).given_up_done.store(given_up.op, memory_order_release);
  given_up_.clear();
}

void PartitionKeeper::remove() {
  if (role_request_)
    refuse_role(*std::exchange(role_request_, std::nullopt), {Code::not_found, 0, name() + " was deleted"});
  if (replica_) replica_->enter(nullptr, LeaderEpoch(0), {});
  // SYNC: pairs with the acquire loads of state.
  entry_.state.store(static_cast<std::uint32_t>(PartitionState::deleted), memory_order_release);
  bump_version();
  cancel_compaction();
  for (RingKeeper& ring : rings_) {
    ring.ring().fence();
    ring.ring().close();
  }
  let_go();
  remove_ring_files();
  notify_all();
}

}  // namespace ringtail::log
