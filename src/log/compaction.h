// Compaction of one partition's finished segments: of each key the latest record stays, at its offset.
//
// A round first walks the dirty part (what was appended since the last round) and notes each key's latest
// offset; then it writes every finished segment up to there anew, without the records that have a later
// one, and puts it in the place of the old. Neighbours that have become small are merged. Segments keep
// their names, base positions and ends, so nothing else of the log changes.
//
// A tombstone (a record with a key and no value) outlives the records it deletes by delete.retention.ms, so
// that a reader who has met one of them meets it, too: the header of a compacted segment says since when
// the tombstones in it are alone, rounded up to a sixteenth of that time, so that neighbours agree.
//
// A round ends in front of the first record whose transaction has no marker in the finished segments yet: as
// far as a reader of committed records could come. Before it, records of aborted transactions go, and those of
// committed ones are like others. A marker outlives its transaction's records as a tombstone does what it
// deletes, in the same header field; but abort_all, which speaks of any number of transactions, stays.
//
// Records without key stay.
//
// Thread safety: one thread, that of the Backend, beside the keeper's, which must leave the job's segments
// alone meanwhile. Process safety: for the holder of the keeper role, beside any number of readers.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/topic_config.h"
#include "format/segment.h"
#include "io/backend.h"
#include "log/segment_files.h"

namespace ringtail::log {

struct CompactionJob {
  std::filesystem::path dir;
  format::SegmentIdentity identity;
  std::vector<SegmentInfo> segments;  // from the log's first on, all of them finished
  Offset first_dirty{0};              // records below it have been compacted
  std::int64_t now_ns = 0;
  std::int64_t delete_retention_ms = 0;
  std::uint64_t merged_bytes = 0;  // up to which neighbours are merged
  std::size_t max_keys = 2 << 20;  // that one round can tell apart
  std::shared_ptr<const std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
};

// What there was of something, and what is left.
struct Shrinkage {
  std::uint64_t before = 0;
  std::uint64_t after = 0;
};

struct CompactionOutcome {
  std::vector<SegmentInfo> segments;  // what stands in the place of the job's segments now
  Offset first_dirty{0};              // for the next round
  Shrinkage records;                  // of the segments that were gone through
  Shrinkage bytes;
  std::optional<Error> failure;  // why the round did not come to its end; `segments` holds nevertheless
};

// What there is to compact at `now_ns` among a partition's segments, of which the last is still written:
// everything up to the first segment with records younger than min.compaction.lag.ms, if more of its bytes
// are dirty than min.cleanable.dirty.ratio allows, or a dirty segment is older than max.compaction.lag.ms.
std::optional<CompactionJob> plan_compaction(std::span<const SegmentInfo> segments, Offset first_dirty,
                                             const TopicConfig& config, std::int64_t now_ns);

// Runs a round; without effect, and with the job's first dirty offset, when that is a record of a transaction
// that is still open. Blocks for the time of reading and writing all of it. Durable on return: what the outcome
// says. A crash at any instruction leaves each record that is to stay in one place, and recovery puts the
// files right (segment.md).
CompactionOutcome compact(io::Backend& backend, const CompactionJob& job);

// The first dirty offset as the last round has left it in the partition's directory; 0 without one, which
// costs a round through the whole log. Blocks.
Offset load_first_dirty(const std::filesystem::path& dir);
// Durable on return. Blocks. Errors: as write_file_atomically.
Status store_first_dirty(const std::filesystem::path& dir, Offset first_dirty);

}  // namespace ringtail::log
