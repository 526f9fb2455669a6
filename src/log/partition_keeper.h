// What the keeper does for one partition: flush its rings to segments, keep space clean ahead of the
// producers, repair, replace rings, enforce retention, have segments compacted, and say how far everything
// has come.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/topic_config.h"
#include "log/compaction.h"
#include "log/partition_ref.h"
#include "log/ring_copy.h"
#include "log/ring_keeper.h"
#include "log/role.h"
#include "log/segment_writer.h"
#include "log/workshop.h"

namespace ringtail::log {

// What all partitions of a keeper share. Must outlive them.
struct KeeperContext {
  const shm::Control* control = nullptr;
  shm::SlotMonitor* slots = nullptr;
  io::Backend* backend = nullptr;
  Workshop* workshop = nullptr;
  Workshop* cleaner = nullptr;  // for compaction: it takes long, and segments must not wait for it
  KeeperFigures* figures = nullptr;
  // Told the entry of a replicated partition of which more has become durable, or that has room again.
  std::function<void(std::uint32_t)> on_progress = {};
  // Of the rings that are flushed from a copy: see RingCopy.
  std::shared_ptr<std::uint64_t> copied_bytes = std::make_shared<std::uint64_t>(0);
};

// Thread safety: the keeper's thread. Process safety: by the keeper role.
class PartitionKeeper {
 public:
  // Recovers the partition: its segment files, then whatever rings are left in shared memory; makes a
  // ring if there is none. Blocks. On failure the entry says so (state failed) and nothing is lost. `before`: what an
  // attempt before this one has failed with; it is told once.
  static std::unique_ptr<PartitionKeeper> open(const KeeperContext& context, const PartitionRef& partition,
                                               const TopicConfig& config, bool replicated = false,
                                               const std::optional<Error>& before = {});
  ~PartitionKeeper();

  // One round of work. Does not block on data. Returns about how many bytes it moved; 0: it was idle.
  std::uint64_t tick(std::int64_t now_ns);
  // Ends a compaction under way at its next frame; the next round begins it anew. Lock-free.
  void cancel_compaction();
  // Everything appended so far to disk. Blocks. For a keeper that ends in good order.
  void flush_blocking();

  void update_config(const TopicConfig& config);
  // Fences the rings and tells everybody that the partition is no more.
  void remove();
  // Of a replicated partition: forbids appends at once, and does the rest in the rounds to come.
  void request_role(RoleRequest request);

  // `slot` died or stood still within operation `op` on this partition.
  void on_slot_dead(std::uint32_t slot);
  void on_slot_stuck(std::uint32_t slot, std::uint64_t op);

  // Whether somebody waits for what is being written, to be durable or to make room.
  bool is_awaited() const;
  // Whether there is nothing to do until somebody appends; arms the bell that producers ring then.
  bool arm_bell();
  // Whether somebody waits for room in the ring, or holds what is needed of it: no bell tells when that is over.
  bool is_waited_for() const;
  // Of a leader, CLOCK_BOOTTIME: then it is to be fenced. Otherwise never.
  std::int64_t lease_end_ns() const;

  // Sends readers that sleep to look again.
  void wake_readers();

  const PartitionRef& partition() const { return partition_; }
  // Why it could not be opened, if that passes by itself: then it is to be opened anew.
  const std::optional<Error>& passing_failure() const { return passing_failure_; }

 private:
  // How far the replacement of the current ring is.
  enum class Retire : std::uint8_t { no, preparing, fenced };

  PartitionKeeper(const KeeperContext& context, const PartitionRef& partition, const TopicConfig& config,
                  bool replicated)
      : context_(context),
        partition_(partition),
        entry_(partition.entry()),
        config_(config),
        replicated_(replicated) {}

  // partition_recovery.cc
  Status recover();
  Status recover_disk(std::vector<Ring> rings);
  Status recover_memory(std::vector<Ring> rings);
  Result<std::vector<Ring>> find_rings() const;
  Status finish_cut(std::vector<Ring>& rings) const;
  format::SegmentIdentity identity() const {
    return {partition_.log_id, partition_.topic_id, partition_.partition};
  }
  Result<std::optional<LogPoint>> find_unwritten_start(const std::vector<Ring>& rings) const;
  Status open_files(const RecoveryOptions& options, std::optional<LogPoint> restart = {});
  Status make_first_ring(Position base, Offset offset);
  void adopt(Ring ring, Position frontier, Offset offset);
  Status adopt_remaining(std::vector<Ring>& rings, std::size_t from);
  RingSpec spec() const;
  void publish_config();
  void remove_ring_files() const;

  // partition_keeper.cc
  bool is_disk() const { return config_.storage == Storage::disk; }
  RingKeeper& draining() { return rings_.front(); }
  RingKeeper& current() { return rings_.back(); }
  std::string name() const;
  std::uint64_t flush(std::int64_t now_ns);
  bool prepare_copy();
  bool make_copy(std::uint64_t bytes);
  bool write(const FrameRun& run);
  bool sync_is_due(std::int64_t now_ns) const;
  void publish_durable();
  bool drop_drained_ring();
  void use_as_source(RingKeeper& ring);
  void want_segment(std::int64_t now_ns);
  void take_segment(Result<PreparedSegment> prepared);
  std::uint64_t recycle(std::int64_t now_ns);
  Position slowest_reader() const;
  void publish_memory_start();
  void enforce_retention();
  void repair(std::int64_t now_ns);
  void settle_inquiry();
  bool inquiring() const;
  void step_inquiries();
  std::uint64_t fenced_generation() const;
  bool owes_answer(std::uint64_t generation) const;
  void bump_version();
  void notify_all();
  void fail_with(const Error& error, bool is_told = false);
  void let_go();

  // partition_role.cc
  void begin_replicated();
  shm::ReplicaRole role() const;
  void publish_role(shm::ReplicaRole role, LeaderEpoch epoch, std::uint32_t leader_node);
  void announce_role();
  void fence_role(std::uint32_t leader_node);
  static void refuse_role(const RoleRequest& request, Error why);
  void step_role(std::int64_t now_ns);
  bool is_settling() const;
  bool settle(std::int64_t now_ns);
  template <class Visit>
  void for_each_at_work(Visit visit) const;
  bool is_being_helped() const;
  void give_up_claims();
  LogPoint end_point() const;
  bool cuts(const RoleRequest& request) const;
  bool may_cut(std::int64_t now_ns);
  Result<bool> store_epochs(EpochList epochs);
  Result<bool> lead(const RoleRequest& request);
  Result<bool> follow(RoleRequest& request);
  Status cut_log(const LogPoint& cut, bool restart);
  void raise_watermark_to_start();
  Status cut_files(const LogPoint& cut, bool restart);
  Status restart_ring(const LogPoint& at);

  // partition_exclusive.cc
  void step_exclusive(std::int64_t now_ns);
  std::uint32_t wants_exclusive();
  bool is_handed_to(std::uint32_t owner) const;
  bool must_hand_over();
  void fence_current();
  bool come_to_rest(std::int64_t now_ns);
  bool owner_rests(std::int64_t now_ns);

  // partition_compaction.cc
  void step_compaction(std::int64_t now_ns);
  void finish_compaction(const CompactionJob& job, const CompactionOutcome& outcome);

  // partition_retire.cc
  void begin_retire(const char* reason);
  void step_retire(std::int64_t now_ns);
  bool walk_to_end();
  Ring::SealPoint end_to_seal();
  void request_next_ring(std::int64_t now_ns);
  Error impossible_end(Position end) const;
  Status replace_ring(const Ring::SealPoint& seal);
  void drop_settled_rings();
  void unlink_retired();

  KeeperContext context_;
  PartitionRef partition_;
  shm::Partition& entry_;
  TopicConfig config_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // deliveries of the workshop check it

  std::unique_ptr<SegmentWriter> writer_;  // none for memory topics
  std::deque<RingKeeper> rings_;           // ascending; the last one takes appends
  std::unique_ptr<RingCopy> copy_;         // of a ring that may be scribbled on
  std::vector<std::uint64_t> retired_;     // generations of memory topics whose files are still there

  Position last_end_{0};    // of a memory topic, at the last tick
  bool look_anew_ = false;  // whose slots were given back by a keeper that could not repair what they left

  bool replicated_;
  bool settled_ = false;  // fenced, and no claim is under way: its end is fixed
  std::int64_t fenced_since_ns_ = 0;
  std::int64_t owner_told_ns_ = 0;  // when he was fenced off, or given up, last
  bool handing_over_ = false;       // the ring is fenced, to be given to a producer alone, or back to all
  std::optional<RoleRequest> role_request_;
  std::int64_t role_retry_ns_ = 0;      // it is not tried before
  std::string announced_role_trouble_;  // why nothing has come of it
  std::shared_ptr<ReplicaWriter> replica_;
  EpochList epochs_;

  bool failed_ = false;
  std::optional<Error> failure_;
  std::optional<Error> passing_failure_;
  // Behind a failed sync: what stands before this is to be on disk before the failure is forgotten.
  std::optional<Position> written_anew_at_;
  bool preparing_segment_ = false;
  std::int64_t segment_retry_ns_ = 0;
  std::int64_t copy_retry_ns_ = 0;
  bool announced_copy_ = false;  // that there is no memory for it
  std::int64_t unsynced_since_ns_ = 0;
  std::int64_t retention_due_ns_ = 0;
  std::int64_t pinned_since_ns_ = 0;

  bool compacting_ = false;  // then the finished segments are the cleaner's
  std::int64_t compaction_due_ns_ = 0;
  std::optional<Offset> first_dirty_;  // unknown until it is needed
  std::shared_ptr<std::atomic<bool>> compaction_cancelled_ = std::make_shared<std::atomic<bool>>(false);

  std::string announced_trouble_;

  struct GivenUp {
    std::uint32_t slot;
    std::uint64_t op;
    std::uint64_t generation;  // of the ring
  };
  std::vector<std::uint32_t> dead_slots_;
  std::vector<GivenUp> given_up_;
  Position stuck_at_{0};
  std::int64_t inquiry_due_ns_ = 0;
  std::size_t settling_dead_ = 0;          // how many of dead_slots_ the inquiry under way settles
  std::uint64_t settling_generation_ = 0;  // and up to which ring the given-up claims: no new ones can come
  std::size_t settling_rings_ = 0;         // how many of rings_ were sealed
  std::uint64_t whole_generation_ = 0;     // rings up to this one have neither holes nor claims under way

  Retire retire_ = Retire::no;
  bool next_requested_ = false;
  std::int64_t next_retry_ns_ = 0;
  std::optional<Ring> next_;
};

}  // namespace ringtail::log
