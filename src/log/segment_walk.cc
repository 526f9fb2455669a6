#include "log/segment_walk.h"

#include <algorithm>

#include "log/segment_index.h"

namespace ringtail::log {

using format::FileKind;

namespace {

// How densely rebuilt indexes are filled.
constexpr std::uint64_t kRebuiltIntervalBytes = 64 << 10;

std::vector<RawEntry> raw_entries(const auto& entries) {
  std::vector<RawEntry> result;
  result.reserve(entries.size());
  for (const auto& entry : entries) result.push_back(raw(entry));
  return result;
}

}  // namespace

SegmentWalk SegmentWalk::begin(const format::FileHeader& header) {
  SegmentWalk walk;
  walk.base_position = Position(header.base_position);
  walk.base_offset = walk.next_offset = Offset(header.base_offset);
  return walk;
}

void SegmentWalk::note(Position position, const format::FrameHeader& header) {
  const Position last_entry = index.empty() ? base_position : Position(index.back().position);
  if (position - last_entry >= kRebuiltIntervalBytes) {
    index.push_back({next_offset.value(), position.value()});
    const std::uint64_t covered = time_index.empty() ? base_offset.value() : time_index.back().offset;
    if (next_offset.value() > covered) time_index.push_back({max_timestamp_ns, next_offset.value()});
  }
  next_offset = Offset(header.offset + format::frame_records(header));
  if (has_timestamp(header.type)) max_timestamp_ns = std::max(max_timestamp_ns, header.timestamp_ns);
  walked_bytes += format::align_frame(static_cast<std::uint32_t>(header.length));
}

Status SegmentWalk::go(FrameScanner& scanner) {
  while (true) {
    const auto step = scanner.next();
    if (!step) return std::unexpected(step.error());
    end = *step;
    if (step->fault != format::FrameFault::none) return {};
    note(step->position, step->header);
  }
}

Status write_indexes(io::Backend& backend, const std::filesystem::path& log_path,
                     const format::FileHeader& log_header, const SegmentWalk& walk) {
  const auto create = [&](FileKind kind, const auto& entries, const auto& prepare) {
    auto header = format::make_header(kind, format::identity_of(log_header), walk.base_offset,
                                      walk.base_position, log_header.created_ns);
    header.compactions = log_header.compactions;
    prepare(header);
    return IndexFile::create(backend, sibling(log_path, kind), header, raw_entries(entries),
                             entries.size() + 1);
  };
  auto index = create(FileKind::index, walk.index, [&](format::FileHeader& header) {
    header.synced_position = walk.end.position.value();
    header.synced_offset = walk.next_offset.value();
  });
  if (!index) return std::unexpected(index.error());
  const format::IndexEntry last{walk.next_offset.value(), walk.end.position.value()};
  if (auto finished = (*index)->finish(raw(last)); !finished) return finished;

  auto times = create(FileKind::time_index, walk.time_index, [](format::FileHeader&) {});
  if (!times) return std::unexpected(times.error());
  if (walk.next_offset == walk.base_offset) return (*times)->finish(std::nullopt);
  const format::TimeIndexEntry last_time{walk.max_timestamp_ns, walk.next_offset.value()};
  return (*times)->finish(raw(last_time));
}

}  // namespace ringtail::log
