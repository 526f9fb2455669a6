// Moves the committed bytes of one partition from its ring to segment files.
//
// The keeper appends runs of whole frames that stand in ring memory, and pumps. Whole 4 KiB blocks go
// to the active file straight from that memory, up to kMaxWrites at a time; a sync request adds the
// block that is only partly filled, through a bounce buffer, and an fdatasync. Nothing that becomes
// durable later ever stands in front of something that is durable already. Where a run does not fit,
// the segment is finished (synced, its indexes completed, cut to its exact end) and the next one
// begins in a file that another thread has prepared; while there is none the writer just waits.
//
// Thread safety: one thread, that of the Backend. Process safety: one writer per partition (the holder
// of the keeper role); readers of other processes may read what is durable at any time.
// Lifetime: the Backend and the source's memory must outlive the writer; the destructor blocks until
// nothing is in flight, and makes nothing durable.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/topic_config.h"
#include "format/segment.h"
#include "log/frame_run.h"
#include "log/io_operation.h"
#include "log/keeper_figures.h"
#include "log/recovery.h"
#include "log/segment_files.h"
#include "log/segment_index.h"

namespace ringtail::log {

using format::SegmentIdentity;

class SegmentWriter {
 public:
  static constexpr std::size_t kMaxWrites = 8;
  static constexpr std::uint64_t kMaxWriteBytes = 1 << 20;

  // Goes on where recovery ended. Writes the last segment's indexes anew. Blocks.
  // Durable on return: what `recovered` says.
  // Errors: permission_denied, read_only, storage_failed, system; no_space when not even the indexes
  // of the last segment can be written.
  static Result<std::unique_ptr<SegmentWriter>> open(io::Backend& backend, const SegmentIdentity& identity,
                                                     const std::filesystem::path& dir,
                                                     const TopicConfig& config,
                                                     const RecoveredLog& recovered);
  ~SegmentWriter();
  SegmentWriter(const SegmentWriter&) = delete;
  SegmentWriter& operator=(const SegmentWriter&) = delete;

  // Sets where the bytes from the block of end_position() on come from: unless end_position() is a
  // multiple of 4096, the window must also hold the bytes before it in its block.
  // Requires that everything appended is durable, and a window that reaches end_position().
  void set_source(const SourceWindow& source);

  // Reads the block of end_position() as it stands in the file; leaves `block` alone when there is no file
  // yet. Requires that everything appended is durable, and a block aligned for direct I/O. Blocks.
  // Errors: storage_failed.
  Status read_last_block(std::span<std::byte> block);

  // Notes a run that stands in the source and will not change. It must begin at end_position(). Its
  // memory, and the bytes before it in its block, must stay until durable_position() has passed the
  // block: memory below block_down(durable_position()) is free.
  void append(const FrameRun& run);

  // Submits what can be submitted. Does not block, except where a segment ends: then for the few
  // metadata operations that finish it and name the next (the time of about two syncs).
  void pump();

  // What is appended now is to become durable. Requests during a sync are served by the next one.
  // Does not block; pump() does the work.
  void request_sync();

  // Syncs everything, preparing segments itself where there are none, and writes the indexes' rest.
  // Durable on return: everything appended. Blocks.
  // Errors: storage_failed, no_space (then try again later), permission_denied, read_only, system.
  Status flush_blocking();

  Position end_position() const { return end_; }
  Position written_position() const { return written_; }
  Position durable_position() const { return durable_; }
  Offset durable_offset() const { return durable_offset_; }
  Offset end_offset() const { return end_offset_; }
  // Whether something is in flight, so that a completion will come.
  bool busy() const;
  // Set once a write or sync has failed: nothing is written any more and nothing becomes durable.
  const std::optional<Error>& failure() const { return failure_; }

  // Whether a prepared file would be of use soon: prepare_segment(backend, dir, prepared_bytes()).
  bool wants_prepared() const;
  std::uint64_t prepared_bytes() const;
  void offer(PreparedSegment prepared) { prepared_ = std::move(prepared); }

  // Ascending; the last one is the one being written.
  std::span<const SegmentInfo> segments() const { return segments_; }
  Offset log_start_offset() const {
    return segments_.empty() ? durable_offset_ : segments_.front().base_offset;
  }
  Position log_start_position() const {
    return segments_.empty() ? durable_ : segments_.front().base_position;
  }
  // Bytes of all segments, without preallocated space.
  std::uint64_t disk_bytes() const;

  // Deletes finished segments from the front: those whose records are all older than retention.ms at
  // `now_ns`, and those without which at least retention.bytes remain; none where cleanup.policy lacks
  // delete, and none with a record above `confirmed`. Returns how many. Blocks.
  // Errors: permission_denied, read_only, system.
  Result<unsigned> enforce_retention(std::int64_t now_ns, Position confirmed = Position(~std::uint64_t{0}));

  // Takes note that the first `count` segments, all of them finished, have been replaced on disk.
  void replace_finished(std::size_t count, std::span<const SegmentInfo> replacements);

  // Where to count how long writes and syncs take; must outlive the writer. Until then nowhere.
  void set_figures(KeeperFigures* figures) { figures_ = figures; }

  // Takes effect at the next decision it concerns.
  void update_config(const TopicConfig& config) { config_ = config; }

 private:
  struct WriteOperation final : IoOperation {
    void complete(std::int64_t result) override;

    SegmentWriter* writer = nullptr;
    enum class State : std::uint8_t { free, waiting, in_flight } state = State::free;
    Position begin{0};      // of the bytes written: a block
    Position new_bytes{0};  // from here on they have not been written before
    Position end{0};
    bool bounced = false;  // from the bounce buffer; ends with the block that holds `end`
    bool syncs = false;
    std::int64_t submitted_ns = 0;
  };
  struct SyncOperation final : IoOperation {
    void complete(std::int64_t result) override;

    SegmentWriter* writer = nullptr;
    std::int64_t submitted_ns = 0;
  };
  // A sync's way: its bytes are written, then synced.
  enum class SyncState : std::uint8_t { idle, writing, syncing };

  struct Active {
    io::File file;
    std::uint64_t file_bytes = 0;  // reserved
    std::int64_t created_ns = 0;
    std::unique_ptr<IndexFile> index;
    std::unique_ptr<IndexFile> time_index;
  };

  SegmentWriter(io::Backend& backend, const SegmentIdentity& identity, const std::filesystem::path& dir,
                const TopicConfig& config, const RecoveredLog& recovered);

  // segment_writer.cc: the flow of bytes.
  void submit_blocks();
  void submit_waiting();
  void begin_sync();
  bool submit_linked();
  void submit_tail();
  void continue_sync();
  void submit(WriteOperation& operation);
  WriteOperation* free_operation();
  bool tail_in_flight() const;
  std::size_t writes_in_flight() const;
  void fill_bounce(Position begin, Position end);
  std::span<const std::byte> contiguous(Position begin, Position end) const;
  void update_written();
  void became_durable(Position position);
  void index_run(const FrameRun& run);
  void fail_with(int os_errno, std::string_view what);
  SegmentInfo& active_info() { return segments_.back(); }

  // segment_roll.cc: the files.
  Status reopen_last(const RecoveredLog& recovered);
  bool fits(const FrameRun& run) const;
  bool has_room(const FrameRun& run) const;
  bool can_finish() const { return assigned_offset_ > segments_.back().base_offset; }
  void assign_runs();
  bool is_aged() const;
  bool idle_roll_due() const;
  bool roll_wanted() const { return assigned_runs_ < runs_.size() || idle_roll_due(); }
  Status roll();
  void roll_if_due();
  Status finish_active();
  Status begin_segment(const FrameRun& first);
  Status open_indexes(const SegmentInfo& info, Active& active, std::vector<RawEntry> entries,
                      std::vector<RawEntry> times);
  std::uint64_t index_capacity() const;

  io::Backend& backend_;
  SegmentIdentity identity_;
  std::filesystem::path dir_;
  TopicConfig config_;
  KeeperFigures* figures_ = nullptr;
  SourceWindow source_;

  std::vector<SegmentInfo> segments_;
  std::optional<Active> active_;  // nothing until the first run, or when the last file cannot grow
  std::optional<PreparedSegment> prepared_;

  // Appended, not yet durable. The first assigned_runs_ of them belong to the active segment.
  std::deque<FrameRun> runs_;
  std::size_t assigned_runs_ = 0;
  Position assigned_end_{0};
  Offset assigned_offset_{0};
  Position end_{0};
  Offset end_offset_{0};

  // Blocks below next_block_ were submitted whole; of that one, bytes below tail_ were.
  Position next_block_{0};
  Position tail_{0};
  Position written_{0};
  Position durable_{0};
  Offset durable_offset_{0};

  std::array<WriteOperation, kMaxWrites> writes_;
  AlignedBuffer bounce_;
  SyncOperation sync_;
  SyncState sync_state_ = SyncState::idle;
  Position sync_end_{0};     // what the sync under way covers
  Position sync_wanted_{0};  // what was asked for
  std::optional<Error> failure_;
  std::optional<Error> stalled_;  // why the next segment could not begin yet
};

}  // namespace ringtail::log
