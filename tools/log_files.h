// Finds a log's files by what a user may name: a log directory, a topic's or partition's directory, or
// one segment file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ringtail/error.h"

namespace ringtail::tools {

// A partition's directory, and what to call it.
struct PartitionFiles {
  std::filesystem::path dir;
  std::string name;               // "orders/0"
  std::filesystem::path segment;  // the one .log file that was named; empty: all
};

// In the order of topics and partition numbers. Needs no keeper and no shared memory.
// Errors: not_found (nothing of a log stands there), permission_denied.
Result<std::vector<PartitionFiles>> find_partitions(const std::filesystem::path& path);

// The .log files of a partition, by base offset. Errors: not_found, permission_denied.
Result<std::vector<std::filesystem::path>> segment_files(const PartitionFiles& partition);

}  // namespace ringtail::tools
