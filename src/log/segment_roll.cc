// The files behind a SegmentWriter: which run goes to which segment, how one is finished and the next
// begun, and how old ones are deleted.
#include <algorithm>
#include <cassert>
#include <cerrno>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/result.h"
#include "log/passing.h"
#include "log/segment_writer.h"

namespace ringtail::log {

using format::FileKind;

namespace {

constexpr std::int64_t kNanosPerMilli = 1'000'000;

std::vector<RawEntry> raw_entries(const auto& entries) {
  std::vector<RawEntry> result;
  result.reserve(entries.size());
  for (const auto& entry : entries) result.push_back(raw(entry));
  return result;
}

// Whether `since_ns` lies more than `limit_ms` before `now_ns`; a negative limit is none.
bool older_than(std::int64_t since_ns, std::int64_t now_ns, std::int64_t limit_ms) {
  std::int64_t age_ns = 0;
  if (limit_ms < 0) return false;
  if (__builtin_sub_overflow(now_ns, since_ns, &age_ns)) return since_ns < 0;
  return age_ns / kNanosPerMilli >= limit_ms && age_ns > 0;
}

}  // namespace

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::open(io::Backend& backend,
                                                           const SegmentIdentity& identity,
                                                           const std::filesystem::path& dir,
                                                           const TopicConfig& config,
                                                           const RecoveredLog& recovered) {
  std::unique_ptr<SegmentWriter> writer(new SegmentWriter(backend, identity, dir, config, recovered));
  if (auto reopened = writer->reopen_last(recovered); !reopened) return std::unexpected(reopened.error());
  return writer;
}

Status SegmentWriter::reopen_last(const RecoveredLog& recovered) {
  if (segments_.empty()) return {};
  Active active;
  active.created_ns = recovered.created_ns;
  auto file = backend_.open(active_info().path, io::OpenMode::write_direct);
  if (!file) return std::unexpected(file.error());
  active.file = std::move(*file);
  auto ready = backend_.preallocate(active.file, prepared_bytes());
  if (ready)
    ready =
        open_indexes(active_info(), active, raw_entries(recovered.index), raw_entries(recovered.time_index));
  if (ready && recovered.lacks_mark) ready = active.index->sync();
  if (ready && recovered.lacks_mark) ready = backend_.sync_directory(dir_);
  if (ready) {
    const auto bytes = file_size(active.file, active_info().path);
    if (!bytes) return std::unexpected(bytes.error());
    active.file_bytes = *bytes & ~(format::kBlockBytes - 1);
    active_ = std::move(active);
    return {};
  }
  // On a full disk the segment counts as finished, and what comes waits for a prepared one; but a
  // segment without records cannot have a successor, which would have its name.
  if (ready.error().code == Code::no_space && can_finish()) return {};
  return ready;
}

std::uint64_t SegmentWriter::prepared_bytes() const {
  // One block more than the header: a segment may begin late in the block it shares with its predecessor.
  return 2 * format::kBlockBytes + format::block_up(static_cast<std::uint64_t>(config_.segment_bytes));
}

bool SegmentWriter::wants_prepared() const {
  if (prepared_ || failure_) return false;
  if (roll_wanted()) return true;
  if (!active_) return !runs_.empty();
  const std::uint64_t used = assigned_end_ - segments_.back().base_position;
  return used >= static_cast<std::uint64_t>(config_.segment_bytes) / 4 * 3;
}

std::uint64_t SegmentWriter::index_capacity() const {
  return static_cast<std::uint64_t>(config_.segment_bytes /
                                    std::max<std::int64_t>(config_.index_interval_bytes, 1)) +
         2;
}

// --- Which segment -------------------------------------------------------------------------------

bool SegmentWriter::fits(const FrameRun& run) const {
  if (!can_finish()) return true;
  const std::uint64_t used = assigned_end_ - segments_.back().base_position;
  return used + run.bytes <= static_cast<std::uint64_t>(config_.segment_bytes) && !is_aged();
}

bool SegmentWriter::is_aged() const {
  // A record must not wait for compaction longer than that, and only a finished segment is compacted.
  const bool lag_counts = config_.compacts() && config_.max_compaction_lag_ms >= 0;
  const std::int64_t limit_ms =
      lag_counts ? std::min(config_.segment_ms, config_.max_compaction_lag_ms) : config_.segment_ms;
  return older_than(active_->created_ns, wall_clock_ns(), limit_ms);
}

// Whether the active segment is to end although nothing comes after it: its records wait for compaction.
bool SegmentWriter::idle_roll_due() const {
  return config_.compacts() && active_ && runs_.empty() && durable_ == end_ && can_finish() && is_aged();
}

bool SegmentWriter::has_room(const FrameRun& run) const {
  const Position end = format::block_up(run.position + run.bytes);
  return format::file_offset(segments_.back().base_position, end) <= active_->file_bytes;
}

void SegmentWriter::assign_runs() {
  while (active_ && assigned_runs_ < runs_.size()) {
    const FrameRun& run = runs_[assigned_runs_];
    if (!fits(run) || !has_room(run)) return;
    assigned_end_ = run.position + run.bytes;
    assigned_offset_ = run.next_offset;
    ++assigned_runs_;
  }
}

// A segment ends only when everything in it is durable, so that what a crash leaves unfinished is
// always in the last file.
void SegmentWriter::roll_if_due() {
  if (durable_ != assigned_end_) {
    sync_wanted_ = std::max(sync_wanted_, assigned_end_);
    return;
  }
  if (writes_in_flight() > 0 || sync_state_ != SyncState::idle) return;
  stalled_.reset();
  if (auto rolled = roll(); rolled) {
    assign_runs();
  } else if (is_passing(rolled.error())) {
    stalled_ = std::move(rolled.error());
  } else {
    failure_ = std::move(rolled.error());
  }
}

Status SegmentWriter::roll() {
  FrameRun run{.position = end_, .first_offset = end_offset_, .next_offset = end_offset_};
  if (assigned_runs_ < runs_.size()) run = runs_[assigned_runs_];
  if (active_ && !can_finish()) {
    const Position end = format::block_up(run.position + run.bytes);
    const std::uint64_t bytes = format::file_offset(active_info().base_position, end);
    if (auto grown = backend_.preallocate(active_->file, bytes); !grown) return grown;
    active_->file_bytes = bytes;
    return {};
  }
  if (!prepared_) return {};
  if (active_) {
    if (auto finished = finish_active(); !finished) return finished;
    active_.reset();
  }
  return begin_segment(run);
}

// --- Finishing and beginning ---------------------------------------------------------------------

// Nothing here needs a sync of its own: the records are durable, and recovery cuts a file that is too
// long and rebuilds an index that is not complete.
Status SegmentWriter::finish_active() {
  const SegmentInfo& info = active_info();
  const format::IndexEntry last{info.next_offset.value(), info.end_position.value()};
  if (auto done = active_->index->finish(raw(last)); !done) return done;
  const format::TimeIndexEntry last_time{info.max_timestamp_ns, info.next_offset.value()};
  if (auto done = active_->time_index->finish(raw(last_time)); !done) return done;
  return backend_.truncate(active_->file, info.file_bytes);
}

Status SegmentWriter::begin_segment(const FrameRun& first) {
  SegmentInfo info;
  info.base_offset = info.next_offset = first.first_offset;
  info.base_position = info.end_position = first.position;
  info.file_bytes = format::file_offset(first.position, first.position);
  info.path = segment_path(dir_, FileKind::log, first.first_offset);

  Active active;
  active.created_ns = info.created_ns = wall_clock_ns();
  // The indexes come first, and the mark to disk: without one, recovery could not tell what the next crash
  // leaves of writes out of order from damage.
  if (auto opened = open_indexes(info, active, {}, {}); !opened) return opened;
  if (auto synced = active.index->sync(); !synced) return synced;

  AlignedBuffer block(format::kBlockBytes);
  format::encode_header(
      format::make_header(FileKind::log, identity_, info.base_offset, info.base_position, active.created_ns),
      block.span());
  const std::int64_t result = run_blocking(backend_, [&](std::uint64_t token) {
    backend_.submit_write_and_sync(prepared_->file, block.span(), 0, token);
  });
  if (result != static_cast<std::int64_t>(block.size())) {
    Error error = system_error(result < 0 ? static_cast<int>(-result) : EIO,
                               fmt::format("cannot write the header of '{}'", info.path.string()));
    error.code = Code::storage_failed;
    return std::unexpected(std::move(error));
  }
  if (auto renamed = backend_.rename(prepared_->path, info.path); !renamed) return renamed;
  prepared_->path = info.path;  // should it be begun again
  if (auto synced = backend_.sync_directory(dir_); !synced) return synced;

  active.file = std::move(prepared_->file);
  active.file_bytes = prepared_->bytes;
  prepared_.reset();
  active_ = std::move(active);
  next_block_ = format::block_down(info.base_position);
  tail_ = info.base_position;
  segments_.push_back(std::move(info));
  return {};
}

Status SegmentWriter::open_indexes(const SegmentInfo& info, Active& active, std::vector<RawEntry> entries,
                                   std::vector<RawEntry> times) {
  auto header = format::make_header(FileKind::index, identity_, info.base_offset, info.base_position,
                                    active.created_ns);
  header.synced_position = info.end_position.value();
  header.synced_offset = info.next_offset.value();
  auto index = IndexFile::create(backend_, sibling(info.path, FileKind::index), header, std::move(entries),
                                 index_capacity());
  if (!index) return std::unexpected(index.error());
  active.index = std::move(*index);

  header = format::make_header(FileKind::time_index, identity_, info.base_offset, info.base_position,
                               active.created_ns);
  auto time_index = IndexFile::create(backend_, sibling(info.path, FileKind::time_index), header,
                                      std::move(times), index_capacity());
  if (!time_index) return std::unexpected(time_index.error());
  active.time_index = std::move(*time_index);
  return {};
}

// --- Retention -----------------------------------------------------------------------------------

std::uint64_t SegmentWriter::disk_bytes() const {
  std::uint64_t bytes = 0;
  for (const SegmentInfo& segment : segments_) bytes += segment.file_bytes;
  return bytes;
}

void SegmentWriter::replace_finished(std::size_t count, std::span<const SegmentInfo> replacements) {
  assert(count < segments_.size());
  segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(count));
  segments_.insert(segments_.begin(), replacements.begin(), replacements.end());
}

Result<unsigned> SegmentWriter::enforce_retention(std::int64_t now_ns, Position confirmed) {
  unsigned deleted = 0;
  if (!config_.removes()) return deleted;
  std::uint64_t bytes = disk_bytes();
  while (segments_.size() > 1) {
    const SegmentInfo& front = segments_.front();
    if (front.end_position > confirmed) break;
    const bool too_old = older_than(front.max_timestamp_ns, now_ns, config_.retention_ms);
    const bool too_much = config_.retention_bytes >= 0 &&
                          bytes - front.file_bytes >= static_cast<std::uint64_t>(config_.retention_bytes);
    if (!too_old && !too_much) break;
    if (auto removed = remove_segment(backend_, front.path); !removed) {
      return std::unexpected(removed.error());
    }
    bytes -= front.file_bytes;
    segments_.erase(segments_.begin());
    ++deleted;
  }
  if (deleted > 0) {
    if (auto synced = backend_.sync_directory(dir_); !synced) return std::unexpected(synced.error());
  }
  return deleted;
}

}  // namespace ringtail::log
