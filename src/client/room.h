// Whether there is memory for the rings of partitions that are to come, asked before the first one is begun.
//
// Thread and process safety: looks at the system only. What it finds may be gone a moment later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/topic_config.h"
#include "ringtail/error.h"

namespace ringtail {

// A shared memory whose limit is as large as all memory, as that of containers often is, would be filled until
// the kernel kills somebody: so what the machine has available counts, too. What cannot be found out is no reason
// to refuse. Errors: shared_memory_full (names the sum, what there is of both, and the remedy).
Status check_room_for_rings(const std::filesystem::path& shared_memory_dir, std::string_view topic,
                            std::uint32_t partitions, const TopicConfig& config);

}  // namespace ringtail
