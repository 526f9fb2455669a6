// Reads one partition in order: in place from its ring while it can, from the segment files when it is
// behind, and back again, at the same positions and through the same decoding.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "log/epoch_list.h"
#include "log/partition_ref.h"
#include "log/ring.h"
#include "log/segment_reader.h"
#include "log/transaction_scout.h"
#include "ringtail/consumer.h"
#include "ringtail/record.h"

namespace ringtail::log {

// Thread safety: one thread at a time. Process safety: any number of readers. While records come from
// the ring, poll is lock-free; it pins what it hands out in the reader's entry of the control segment,
// so that the keeper leaves that memory alone until the next poll.
class PartitionReader {
 public:
  // Takes a free reader entry for `slot`, and starts at the log start.
  // Errors: limit_exceeded (reader table), not_found, closed, corrupt, incompatible_layout, system.
  static Result<std::unique_ptr<PartitionReader>> open(const PartitionRef& partition, std::uint32_t slot,
                                                       std::size_t read_ahead_bytes,
                                                       IsolationLevel isolation = {});
  // One that stands nowhere yet, without a look at the log's start, which may be in files: seek comes next.
  // Errors: as open.
  static Result<std::unique_ptr<PartitionReader>> create(const PartitionRef& partition, std::uint32_t slot,
                                                         std::size_t read_ahead_bytes,
                                                         IsolationLevel isolation);
  // One that is to ship frames to other hosts: it goes beyond the high watermark. Starts at `from`, which must
  // be where a frame begins or the log ends; if not given, where the log begins. Errors: as open,
  // offset_out_of_range.
  static Result<std::unique_ptr<PartitionReader>> open_for_shipping(const PartitionRef& partition,
                                                                    std::uint32_t slot,
                                                                    std::size_t read_ahead_bytes,
                                                                    std::optional<LogPoint> from = {});
  // Where it stands, and where claims end. Errors: as poll.
  LogPoint place() const { return {position_, offset_}; }
  Result<LogPoint> claimed_end();
  // Of one that ships: goes on at a place where a frame is known to begin. Lock-free.
  void skip_to(const LogPoint& point);
  // Whether it has less to read than half of the ring holds: it may wait before it does.
  bool is_near_end() const;
  ~PartitionReader();
  PartitionReader(const PartitionReader&) = delete;
  PartitionReader& operator=(const PartitionReader&) = delete;

  // Fills `out` with as many records as there are, valid until the next call of poll or seek, and
  // returns their number. Blocks only while reading files. With read_committed it stops in front of the
  // first record of a transaction that is still open, and steps over those of aborted ones.
  // Errors: corrupt, storage_failed, offset_out_of_range (retention has deleted what comes next), closed,
  // limit_exceeded (reader table: with read_committed it takes a second entry).
  // `distant`: as long as there are others, what was claimed last is left for the next poll (see keep_distance).
  Result<std::size_t> poll(std::span<Record> out, bool distant = false);

  // Whole frames of every kind, next to each other, as they stand in the ring or in a file, valid until the
  // next call; their checksums may be missing where they come from the ring, and the keeper of a disk topic completes
  // them there: unless `is_final`, bytes may change meanwhile. Empty when there is nothing yet.
  // `may_block`: files may be read; without, a reader that has fallen out of the ring gives nothing, and is
  // `behind`. For readers that ship. Errors: as poll; unsupported where compaction has moved frames.
  struct Frames {
    std::span<const std::byte> bytes;
    LogPoint at;
    LogPoint end;
    bool behind = false;
    bool is_final = false;
  };
  Result<Frames> poll_frames(std::size_t max_bytes, bool may_block);
  // Frames that stand in a file alone, as they stand there: see SegmentReader::read_unchecked. Nothing where
  // poll_frames is to be asked. Blocks while the disk reads.
  struct UncheckedFrames {
    io::FileBytes bytes;
    LogPoint end;
  };
  std::optional<UncheckedFrames> read_unchecked(std::size_t most_bytes);

  // Called by poll for each record that a producer has numbered, ahead of its being handed out. What compaction has
  // moved ends at position 0: whatever is waited for has come to pass for it.
  void set_on_stamped(std::function<void(const format::Extension&, const RecordMetadata&)> on_stamped) {
    on_stamped_ = std::move(on_stamped);
  }

  // Whether poll would find something to look at. Lock-free.
  bool has_data() const;

  // Sets the next offset. One that fails leaves the reader where it was; so do those below.
  // Errors: offset_out_of_range, offset_not_available (beyond the high watermark that is known here, but not beyond what
  // it may become: it is not known before this host has a role, and a follower's comes behind the leader's), and those
  // of poll.
  Status seek(Offset offset);
  // To where the log starts or ends, though that moves on meanwhile. Errors: those of poll, and offset_not_available
  // where a follower's high watermark is still before its log's start.
  Status seek_to_start();
  Status seek_to_end();
  Status seek_to_time(std::int64_t timestamp_ns);

  Offset offset() const { return std::max(offset_, skip_below_); }
  Position position() const { return position_; }
  const TopicPartition& source() const { return source_; }
  const PartitionRef& partition() const { return partition_; }

  // The log's ends as they are now; in a replicated partition it ends at the high watermark, unless this
  // reader ships. Errors: as poll.
  Offset log_start() const {
    return Offset(partition_.entry().log_start_offset.load(std::memory_order_relaxed));
  }
  Result<Ring::End> log_end();
  // Where read_committed would stop now: the first record, from this reader's position on, of a
  // transaction that is still open, or the log end. Reads all up to there, with an entry of its own.
  Result<Offset> last_stable_offset();
  // Timestamp of the next record, if it is committed.
  std::optional<std::int64_t> next_timestamp();

  // Records that were gone before they were read.
  std::uint64_t missed() const { return missed_; }
  void count_missed(std::uint64_t records) { missed_ += records; }

  // Forgets its entry without a word, in a forked child: it is the parent's.
  void abandon() {
    entry_ = nullptr;
    if (scout_) scout_->abandon();
  }

 private:
  friend class TransactionScout;

  enum class Mode : std::uint8_t { detached, ring, segments };

  PartitionReader(const PartitionRef& partition, std::size_t read_ahead_bytes, IsolationLevel isolation);

  Status take_entry(std::uint32_t slot);
  void release_pin();
  bool is_memory() const;
  // Goes on at a frame that is known to stand there. For a scout, and whoever stands in for a reader.
  Status place(const ReadPlace& place, Offset skip_below);
  ReadPlace here() const { return {position_, offset_, compacted_}; }
  // Until the next poll, keeper and producers need not heed this reader. For a scout.
  void rest();
  bool is_compacted_topic() const;

  // Finds out where position_ is to be read from now.
  Status attach();
  Status map_current();
  Result<bool> attach_to(Ring& ring);
  Result<bool> attach_to_retired();
  void enter(Ring& ring);
  Status enter_at_head();
  Status jump_to_head();

  // What a look at ring or files brought: records, or a change of place after which to look again.
  struct Look {
    std::size_t records = 0;
    bool moved = false;
  };
  Result<Look> poll_ring(std::span<Record> out, bool distant);
  std::size_t keep_distance(std::span<Record> out);
  bool is_doubtful() const;
  Result<Look> poll_segments(std::span<Record> out);
  bool left_ring() const;
  bool next_term();
  // How far this reader may go.
  Position limit() const {
    // SYNC: pairs with the release store in set_high_watermark: what lies below is there.
    return ships_ ? Position(shm::kNoWatermark)
                  : Position(partition_.entry().high_watermark.load(std::memory_order_acquire));
  }
  // How far it may read in the files.
  Position limit_in_files() const {
    // SYNC: pairs with the keeper's release store after the sync.
    return std::min(limit(), Position(partition_.entry().durable_position.load(std::memory_order_acquire)));
  }
  Ring::End limited(Ring::End end) const;
  // Where to stop in this term for `limit`: its end, or before.
  const std::byte* stop_before(Position limit) const;
  void tell_place();
  std::unexpected<Error> has_left(Position position) const;
  Result<Frames> frames_in_ring(std::size_t max_bytes);
  Result<Frames> frames_in_doubt(std::size_t max_bytes);
  Result<Frames> frames_in_files();
  // Whether the newest ring is to be read from at this position.
  bool is_in_current() const;
  // Takes records of the common kind, from `frame` on, until one of another kind, `stop` or nothing more; none
  // reaches beyond `stop`. Moves `frame` behind them and returns how many; none where doubt is to be heeded
  // and the ring is found doubtful behind the look at them.
  enum class Doubt : std::uint8_t { heeded, settled };
  template <Doubt kDoubt>
  std::size_t take_plain(const std::byte*& frame, const std::byte* stop, std::span<Record> out);
  template <Doubt kDoubt>
  Result<Look> take_from_ring(std::span<Record> out, Position most, bool distant);
  // Steps over the resolved frame with state word `word`, of whatever kind: whether it is a record that was asked
  // for, now in `record`; what a scout asks for are markers.
  // `undecided`: nothing was done, for the record's transaction is still open. Errors: corrupt.
  enum class Taken : std::uint8_t { stepped, wanted, undecided };
  Result<Taken> take_frame(const std::byte* frame, std::uint64_t word, std::uint64_t room, Record& record);
  Result<Taken> take_record(const format::FrameHeader& header, const std::byte* frame, Record& record);
  Result<Taken> take_transactional(const format::Extension& of);
  bool take_marker(format::MarkerKind kind, const format::Extension& of);
  std::unexpected<Error> corrupt_frame(const char* what) const;
  Status open_segments();
  Status read_segments(Position durable);
  std::unexpected<Error> unreadable(Error error) const;

  // Where in `ring` the frame stands that holds `offset`, or the last frame before it that is known.
  std::optional<ReadPlace> find_in(Ring& ring, Offset offset);
  template <class How>
  Status or_stay(const How& how);
  bool may_come(Offset offset, Offset claimed) const;
  Status go_to(Offset offset);
  Status go_to_start();
  Status go_to_end();
  Status go_to_time(std::int64_t timestamp_ns);
  Status go_to_head();
  Status seek_in_files(Offset offset);
  void start_at(Ring& ring, const ReadPlace& place, Offset wanted);
  Status fix_offset();
  Result<Offset> start_in_files();
  Result<Ring::End> exact_end();
  Status find_time(std::int64_t timestamp_ns);
  Status find_time_in_ring(std::int64_t timestamp_ns, Offset from, Offset end);

  PartitionRef partition_;
  TopicPartition source_;
  std::size_t read_ahead_bytes_;
  IsolationLevel isolation_;
  shm::Reader* entry_ = nullptr;
  std::uint32_t owner_ = 0;

  Mode mode_ = Mode::detached;
  Position position_{0};
  Offset offset_{0};
  Offset skip_below_{0};  // records below were not asked for
  bool ships_ = false;
  bool may_jump_ = false;  // the frame before did not tell for sure how many offsets it uses up
  std::uint64_t missed_ = 0;
  std::function<void(const format::Extension&, const RecordMetadata&)> on_stamped_;
  std::optional<std::int64_t> last_timestamp_ns_;  // of the last record taken from a file

  Ring current_;                      // the newest ring this reader has mapped
  Ring retired_;                      // an older one, while the reader is still in it
  Ring* ring_ = nullptr;              // which of them is read
  const std::byte* frame_ = nullptr;  // at position_, in mode ring
  const std::byte* term_end_ = nullptr;
  std::uint64_t term_ = 0;

  std::unique_ptr<TransactionScout> scout_;  // with read_committed, since the first transactional record
  bool undecided_ = false;                   // the last poll ended in front of an open transaction
  TransactionOutcomes* notes_ = nullptr;     // of a scout: where markers are noted

  std::unique_ptr<SegmentReader> segments_;
  std::vector<std::byte> copied_;      // see frames_in_doubt
  std::span<const std::byte> unread_;  // of what segments_ gave last: from position_ on
  bool compacted_ = false;             // position_ is one in a compacted file, and means nothing to a ring
};

}  // namespace ringtail::log
