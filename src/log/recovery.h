// Brings the files of a partition back into order after a crash, or refuses to.
//
// Two principles decide every case. A record that can be read is never dropped, unless it was written
// after the last sync known to have finished, behind a gap, and so never promised to anybody. And what
// cannot be explained by a crash at any instruction of the writer is damage: recovery refuses, says
// where, and changes nothing: it looks at everything before it acts.
//
// The table. "Mark" is how far the log is known to have been synced: the larger of the index header's
// synced_position, the last index entry, and what the caller knows (RecoveryOptions::known_durable).
//
//   directory   no segment                                          keep: an empty log at 0
//               .prepared-* files                                   remove
//               .compacted-* files                                  remove
//               index files without their log                       remove
//   header      last file shorter than its header block             remove; refuse if records need it
//               wrong magic, CRC, name, log, topic, partition       refuse (corrupt)
//               another layout version                              refuse (incompatible_layout)
//   sealed      ends where the next begins                          keep
//               longer than that                                    truncate to it
//               shorter, or a file is missing between               refuse
//               compacted, and the next ends within it              remove the next (they were merged)
//               compacted, and no segment follows                   refuse
//               index missing or invalid                            rebuild from the checked frames
//               a fault while rebuilding                            refuse
//               a frame of another release, while rebuilding        refuse (incompatible_layout)
//   last        valid frames, then zeros or the end of the file     keep
//               index missing or invalid                            rebuild from the checked frames
//               index cannot be read (EIO, EMFILE)                  fail with that: it may hold the mark
//               a sync had failed (only_synced), bytes behind it    leave, to be written anew from the ring
//               a frame of another release                          refuse (incompatible_layout)
//               fault, no valid frame behind it                     truncate (torn tail)
//               fault at or behind the mark, valid frames follow    truncate (writes out of order)
//               fault before the mark, valid frames follow          refuse
//               fault, valid frames follow, no mark                 refuse
//   padding     asked for, and the log ends within a block          append a pad frame
//
// Thread safety: one thread, that of the Backend. Process safety: for the holder of the keeper role;
// with writable=false for anybody, while nobody writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/segment.h"
#include "io/backend.h"
#include "log/segment_files.h"

namespace ringtail::log {

struct RecoveryOptions {
  bool writable = true;       // false: change nothing, only report what would be done
  bool pad_to_block = false;  // no ring survived: end the log at a multiple of 4096, for a new one
  // What the ring's memory says was synced; nothing when it is gone.
  std::optional<Position> known_durable = {};
  // What stands behind known_durable is not looked at, for it will be written anew: a sync has failed, so the page cache
  // may have what no disk has, and another sync may say that all is well.
  bool only_synced = false;
};

enum class RecoveryCase : std::uint8_t {
  prepared_file,
  compaction_file,
  orphan_index,
  headless_segment,
  sealed_too_long,
  merged_segment,
  index_rebuilt,
  torn_tail,
  unsynced_gap,
  padded,
};
std::string_view to_string(RecoveryCase what);

// One thing that recovery did, or would do.
struct RecoveryFinding {
  RecoveryCase what;
  std::filesystem::path path;
  Position position{0};
  std::uint64_t bytes = 0;         // that were cut off, or appended
  std::uint64_t durable_lost = 0;  // of these, bytes that had been synced: a disk broke its promise
  std::string message;             // a sentence for the log
};

struct RecoveryReport {
  std::vector<RecoveryFinding> findings;
  std::uint64_t scanned_bytes = 0;
};

// A partition's log in order: what SegmentWriter::open goes on from.
struct RecoveredLog {
  std::vector<SegmentInfo> segments;  // ascending; the last one may be appended to
  Offset next_offset{0};
  Position end_position{0};
  // Of the last segment.
  bool lacks_mark = false;  // its index file is missing or invalid
  std::int64_t created_ns = 0;
  std::vector<format::IndexEntry> index;
  std::vector<format::TimeIndexEntry> time_index;
};

// Recovers the partition in `dir`. Blocks for the time it takes to list the directory, look at each
// segment's header and index, and read the last segment from its last index entry on.
// Durable on return (when writable): everything the result says.
// Errors: corrupt and incompatible_layout (refused, see the table; the message names file, position
// and remedy), not_found, permission_denied, read_only, no_space (padding), storage_failed, system.
Result<RecoveredLog> recover_partition(io::Backend& backend, const std::filesystem::path& dir,
                                       const format::SegmentIdentity& identity,
                                       const RecoveryOptions& options, RecoveryReport& report);

}  // namespace ringtail::log
