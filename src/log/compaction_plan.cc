// When a round of compaction is due, and where it begins.

#include <algorithm>

#include <fmt/format.h>

#include "base/files.h"
#include "base/toml_file.h"
#include "log/compaction.h"

namespace ringtail::log {

namespace {

constexpr std::int64_t kNanosPerMilli = 1'000'000;

constexpr const char* kCleanPointFile = "compaction.toml";
constexpr const char* kCleanPointKey = "first_dirty_offset";

}  // namespace

std::optional<CompactionJob> plan_compaction(std::span<const SegmentInfo> segments, Offset first_dirty,
                                             const TopicConfig& config, std::int64_t now_ns) {
  if (segments.size() < 2) return std::nullopt;
  const auto finished = segments.first(segments.size() - 1);
  const std::int64_t youngest_ns = now_ns - config.min_compaction_lag_ms * kNanosPerMilli;
  const auto too_young = std::ranges::find_if(finished, [&](const SegmentInfo& info) {
    return info.next_offset > first_dirty && info.max_timestamp_ns > youngest_ns &&
           config.min_compaction_lag_ms > 0;
  });
  const auto cleanable = std::span(finished.begin(), too_young);
  std::uint64_t clean_bytes = 0;
  std::uint64_t dirty_bytes = 0;
  bool overdue = false;
  for (const SegmentInfo& info : cleanable) {
    const bool dirty = info.next_offset > first_dirty;
    (dirty ? dirty_bytes : clean_bytes) += info.file_bytes;
    overdue = overdue || (dirty && config.max_compaction_lag_ms >= 0 &&
                          now_ns - info.created_ns >= config.max_compaction_lag_ms * kNanosPerMilli);
  }
  if (dirty_bytes == 0) return std::nullopt;
  const double ratio = static_cast<double>(dirty_bytes) / static_cast<double>(dirty_bytes + clean_bytes);
  const double limit = static_cast<double>(config.min_cleanable_dirty_billionths) / 1e9;
  if (ratio <= limit && !overdue) return std::nullopt;
  CompactionJob job;
  job.segments.assign(cleanable.begin(), cleanable.end());
  job.first_dirty = first_dirty;
  job.now_ns = now_ns;
  job.delete_retention_ms = config.delete_retention_ms;
  job.merged_bytes = static_cast<std::uint64_t>(config.segment_bytes);
  return job;
}

Offset load_first_dirty(const std::filesystem::path& dir) {
  const auto file = TomlFile::read(dir / kCleanPointFile);
  const auto offset = file ? file->integer(kCleanPointKey) : std::unexpected(file.error());
  return Offset(offset && *offset > 0 ? static_cast<std::uint64_t>(*offset) : 0);
}

Status store_first_dirty(const std::filesystem::path& dir, Offset first_dirty) {
  return write_file_atomically(dir / kCleanPointFile,
                               fmt::format("{} = {}\n", kCleanPointKey, first_dirty.value()));
}

}  // namespace ringtail::log
