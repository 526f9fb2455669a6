// Cuts a partition's files off where a replica parted from its leader, or empties them.
//
// Thread safety: one thread, that of the Backend. Process safety: for the holder of the keeper role, while no
// SegmentWriter has the partition open. A crash at any point leaves a log that begins as the old one did and ends at
// `end` or behind it, so that the next attempt completes it.
#pragma once

#include <filesystem>

#include "format/segment.h"
#include "io/backend.h"
#include "log/epoch_list.h"

namespace ringtail::log {

// Removes what stands at `end` and behind; nothing if the log ends before. Durable on return. Blocks.
// Errors: corrupt, incompatible_layout, permission_denied, read_only, storage_failed, system.
Status truncate_log(io::Backend& backend, const std::filesystem::path& dir,
                    const format::SegmentIdentity& identity, const LogPoint& end);

// Removes all segments. Durable on return. Blocks. Errors: permission_denied, read_only, system.
Status clear_log(io::Backend& backend, const std::filesystem::path& dir);

}  // namespace ringtail::log
