// Reading from topics, alone or as a member of a consumer group.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/assignor.h"
#include "ringtail/error.h"
#include "ringtail/log.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail {

// How poll waits for records.
enum class WaitStrategy {
  busy_spin,  // lowest latency, one CPU
  yield,  // spins and yields the CPU between looks; every 10 ms of it sleeps for a moment (some 50 µs), for there
          // are schedulers that let nobody else have a CPU that is yielded all the time
  futex,  // sleeps; producers pay a wake call only while somebody sleeps. While records come within 20 µs of each
          // other, it looks for so long before it does
};

// Which records of transactions poll hands out. Records outside of transactions, it always does.
enum class IsolationLevel {
  read_uncommitted,  // all, also of transactions that are still open or were aborted
  read_committed,    // those of committed transactions. An open one holds back everything behind its
                     // first record, until it is decided (Kafka's last stable offset)
};

struct ConsumerOptions {
  WaitStrategy wait = WaitStrategy::futex;
  std::size_t max_poll_records = 256;  // 1 to 65536
  // Per partition, when reading segment files: at most 2^40, and taken as a power of two, of 64 KiB at least.
  std::size_t read_ahead_bytes = 4 * 1024 * 1024;
  // Where to begin when a group has committed nothing yet, and what to do when a position lies outside
  // [log start, log end]. `none`: poll fails with offset_out_of_range until the position is set by seek.
  enum class Reset { earliest, latest, none, time } auto_offset_reset = Reset::earliest;
  std::int64_t auto_offset_reset_time_ns = 0;  // of Reset::time: the first record of that time or later
  IsolationLevel isolation_level = IsolationLevel::read_uncommitted;

  // Of a member of a consumer group. Everything below means nothing without a group id.
  std::string group_id = {};   // at most 255 bytes
  std::string client_id = {};  // for people who look; at most 127 bytes, none of them zero
  Assignor assignor = {};      // the same in all members; default: sticky_assignor()
  // Commits by itself: within a poll, at this interval and before a partition is given up, what the polls before it
  // brought; in unsubscribe and at the consumer's end also what the last one brought, as Kafka's close does, for all
  // of it is taken for handled then. Not so at an end that an exception brings: then nothing more is committed, and
  // what was not comes again. Without, a position moves when a commit is asked for.
  bool enable_auto_commit = true;
  std::chrono::milliseconds auto_commit_interval{5'000};  // at least 1, if enable_auto_commit
  // A member that does not poll for this long is taken for stuck, and its partitions go to others. At least 1; of
  // both intervals, what is longer than 2^32 - 1 ms (49.7 days), as milliseconds::max() is, is taken for that.
  std::chrono::milliseconds max_poll_interval{300'000};
};

// What a member of a group is told, within its own poll or unsubscribe. A consumer that ends without unsubscribe gives
// its partitions back and tells nothing: what a callback uses may be gone by then. Each may be empty.
//
// Of its consumer, a callback may call all that commits, seeks, pauses, resumes and asks. subscribe, unsubscribe,
// assign and poll are refused there with invalid_argument: call them once the poll or unsubscribe that called back has
// returned. Nor may a callback end the consumer.
//
// What a callback throws comes out of that poll or unsubscribe, once the rebalance is complete: what was revoked is
// given up, what was granted is open, a member that was expelled has joined again, or tries to at the next poll, as if
// nothing had been thrown. Where several throw, it is what the first threw. Records, and errors that last, come with
// the next poll; an error beside what is thrown is logged. So is what a callback throws, where a destructor calls poll
// or unsubscribe while another exception unwinds.
struct RebalanceListener {
  using Callback = std::function<void(std::span<const TopicPartition>)>;
  Callback assigned = {};  // owned from now on; positions are set, seek may change them
  Callback revoked = {};   // to be given up when this returns: the last chance to commit
  Callback lost = {};      // somebody else may own them already: commits are refused
};

// The next offset to be read, as it is or was committed.
struct CommittedOffset {
  Offset offset{0};
  std::string metadata = {};  // at most 127 bytes, none of them zero
};

struct OffsetCommit {
  TopicPartition partition;
  Offset offset{0};           // of the next record to be read
  std::string metadata = {};  // at most 127 bytes, none of them zero
};

// A member and its group at one moment.
struct GroupMetadata {
  std::string group_id;
  std::string member_id;
  std::uint32_t generation = 0;  // of the group; rises with each assignment
};

// How far a consumer is behind the log end of one partition.
struct Lag {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  std::chrono::nanoseconds time{0};  // age of the oldest record not yet read; 0 when there is none
};

class ConsumerCore;  // internal

// Reads partitions of topics: those it was assigned, at positions it keeps itself, or, as a member of a
// group, its share of the topics it subscribes to, at positions the group keeps.
//
// Records come in place: from the ring while the consumer is within it, from the segment files
// while it is behind, with nothing lost or repeated at the change. A slow consumer never blocks a
// producer of a disk topic. Of a memory topic it does under on.full=block and fail; under overwrite
// it is passed, and `missed` counts what it lost.
//
// Thread safety: one thread at a time, but for wake(). Process safety: any number of consumers.
// poll is lock-free while records are in the ring.
class Consumer {
 public:
  // Errors: limit_exceeded (all slots taken), closed, invalid_argument (an option outside its range).
  static Result<Consumer> open(const Log& log, ConsumerOptions options = {});

  Consumer(Consumer&&) noexcept;
  Consumer& operator=(Consumer&&) noexcept;
  // A member commits (with enable_auto_commit) and gives its partitions back; nobody waits for the coordinator, and no
  // listener is told. It commits nothing while an exception unwinds that was not under way when it was opened: what
  // the last poll brought was perhaps not handled.
  ~Consumer();

  // Replaces the set of partitions. New ones start at the log start offset.
  // Errors: not_found, limit_exceeded (reader table, or more than 126 partitions), invalid_argument (a
  // subscription is in force).
  Status assign(std::span<const TopicPartition> partitions);
  // All partitions of one topic.
  Status assign(std::string_view topic);
  const std::vector<TopicPartition>& assignment() const;

  // Sets the offset of the next record. Whoever seeks beyond a claim that is still open is not held up by it, and does
  // not get its record. A seek that fails leaves the position as it was; so do those below.
  // Errors: not_found (not assigned), offset_out_of_range (only with Reset::none), offset_not_available (on a cluster's
  // host: beyond the high watermark as far as it is known there; it may rise, so seek again), closed (the topic was
  // deleted), no_keeper, corrupt, storage_failed.
  Status seek(const TopicPartition& partition, Offset offset);
  // To where the log starts or ends, whatever auto_offset_reset says, and though that moves on meanwhile. Errors: as
  // seek, but offset_not_available only on a follower's host whose high watermark is still before its log's start.
  Status seek_to_beginning(const TopicPartition& partition);
  Status seek_to_end(const TopicPartition& partition);
  // To the first record with a timestamp of at least `timestamp_ns`, or the end when there is none. Errors: as
  // seek_to_beginning.
  Status seek_to_time(const TopicPartition& partition, std::int64_t timestamp_ns);
  // The offset of the next record.
  Result<Offset> position(const TopicPartition& partition) const;

  // Returns the next records, all of one partition, in order; an empty span when `timeout` passed or
  // wake() was called. The records are valid until the next call of any non-const member but commits.
  // A member of a group must call it within every max_poll_interval; rebalancing happens here. What keeps a member
  // waiting but may pass (a partition that is being opened or whose high watermark is not known yet, a keeper that does
  // not answer) is tried again every 100 ms, while the other partitions are read, and told once it has lasted 30 s. One
  // that was expelled may block for a second beyond the timeout.
  // Errors: corrupt, storage_failed, offset_out_of_range (only with Reset::none), closed, invalid_argument (within a
  // callback of its listener), and of a member whose partitions cannot be opened or that cannot join again,
  // limit_exceeded (also at the first record of a transaction, with read_committed: reader table), no_keeper,
  // would_block, offset_not_available, timed_out. Throws what a callback throws.
  Result<std::span<const Record>> poll(std::chrono::nanoseconds timeout);

  // Makes a poll that waits, or the next one, return at once. From any thread or signal handler.
  void wake();

  // How far this consumer is behind the partition's end (see end_offset). Blocks and errors: as end_offset.
  Result<Lag> lag(const TopicPartition& partition) const;
  // Where the partition ends for consumers: the offset the next record will get or, of a replicated one, the high
  // watermark. Lock-free but where a producer is just opening a term, or has died there: then it blocks, for a second at
  // most. Errors: not_found (not assigned), no_keeper (nobody repairs what that producer left), closed.
  Result<Offset> end_offset(const TopicPartition& partition) const;
  // Where poll stops with read_committed as things stand: the first record from here on of a transaction
  // that is still open, or the log end offset. Blocks: reads the partition from here to its end.
  // Errors: not_found (not assigned), limit_exceeded (reader table), and those of poll.
  Result<Offset> last_stable_offset(const TopicPartition& partition) const;
  // --- Membership of a group ---

  // Joins the group, or changes the subscription; partitions come with the polls that follow. A topic that
  // does not exist (yet) gives none. Blocks until the coordinator has answered.
  // Errors: invalid_argument (no group id, partitions assigned by hand, malformed expression, within a callback
  // of a listener), no_keeper, timed_out, inconsistent_assignor, limit_exceeded (128 groups; 2047 bytes of names).
  // With no topics it is unsubscribe, and throws what a callback throws.
  Status subscribe(std::span<const std::string> topics, RebalanceListener listener = {});
  Status subscribe(std::string_view topic, RebalanceListener listener = {});
  // To all topics, present and to come, whose whole name matches a POSIX extended regular expression; not to
  // internal ones, which begin with "__".
  Status subscribe_pattern(std::string_view expression, RebalanceListener listener = {});
  // Commits (with enable_auto_commit), gives all partitions back, and leaves the group.
  // Errors: no_keeper, timed_out, invalid_argument (within a callback of a listener). Throws what a callback throws;
  // while another exception unwinds, that is logged instead, and nothing is committed automatically.
  Status unsubscribe();

  // Moves the group's positions, wherever a transaction may have put them, to where this consumer is, or to the
  // offsets given: behind everything that polls have returned. Visible to every process of this host on return, and so
  // survives all of them; on disk some 100 ms later. Lock-free; about 20 ns for each partition that has moved. Once
  // group_metadata() was called, it also looks, for each one assigned, whether a transaction has moved its position.
  // Errors: stale_generation: partitions are no longer this member's; those commits do not count, the others
  // do. invalid_argument (not a member).
  Status commit_async();
  Status commit_async(std::span<const OffsetCommit> offsets);
  // The same, and waits until it is on disk. Errors: those, timed_out (visible, but perhaps not on disk),
  // no_keeper, and what keeps the disk from being written.
  Status commit_sync(std::chrono::milliseconds timeout = std::chrono::seconds(60));
  Status commit_sync(std::span<const OffsetCommit> offsets,
                     std::chrono::milliseconds timeout = std::chrono::seconds(60));
  // What the group has committed in any partition; nothing when it has not. Blocks where the positions have not been
  // read from disk since the boot, for 30 s at most. Errors: invalid_argument (no group id), not_found, timed_out, and
  // what keeps the log from being opened.
  Result<std::optional<CommittedOffset>> committed(const TopicPartition& partition) const;

  // Leaves partitions out of polls until they are resumed or given up; their positions stay.
  // Errors: not_found (not assigned; then nothing is paused).
  Status pause(std::span<const TopicPartition> partitions);
  Status resume(std::span<const TopicPartition> partitions);
  std::vector<TopicPartition> paused() const;

  GroupMetadata group_metadata() const;

  // Records this consumer lost because an on.full=overwrite producer or retention passed it.
  std::uint64_t missed() const;

 private:
  explicit Consumer(std::unique_ptr<ConsumerCore> core);
  std::unique_ptr<ConsumerCore> core_;
};

}  // namespace ringtail
