#include "log/compaction.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"
#include "log/compacted_file.h"
#include "log/key_table.h"
#include "log/segment_scanner.h"
#include "log/transaction_survey.h"

namespace ringtail::log {

using format::FileKind;
using format::FrameFault;
using format::FrameType;

namespace {

constexpr std::int64_t kNanosPerMilli = 1'000'000;
// Into how many parts delete.retention.ms is divided when it is noted since when tombstones and markers are
// alone.
constexpr std::int64_t kSinceSteps = 16;

bool is_cancelled(const CompactionJob& job) { return job.cancelled->load(std::memory_order_relaxed); }

// Whether this record takes part in "the latest of its key stays".
bool is_keyed(const format::FrameHeader& header) {
  return header.type == FrameType::data && (header.attributes & format::kHasKey) != 0;
}

bool is_transactional(const format::FrameHeader& header) {
  return header.type == FrameType::data && (header.attributes & format::kTransactional) != 0;
}

KeyHash key_of(std::span<const std::byte> frame) {
  return hash_key(format::decode_record(frame.data(), nullptr).key);
}

// A segment of the job, open for reading.
struct Source {
  SegmentInfo info;
  OpenedFile opened;
  bool dirty = false;
  std::int64_t since_ns = 0;  // when its tombstones and markers are alone; 0: it has none that are
  bool expired = false;       // and have been for delete.retention.ms

  bool compacted() const { return format::is_compacted(opened.header); }
  Position end_of_frames() const {
    return compacted() ? format::frames_end(opened.header) : info.end_position;
  }
};

class Round {
 public:
  Round(io::Backend& backend, const CompactionJob& job)
      : backend_(backend), job_(job), keys_(job.max_keys), mapped_end_(job.first_dirty) {}

  CompactionOutcome run();

 private:
  using Group = std::vector<Source>;

  Status go();
  Status remove_merged();
  Status map_dirty_part();
  Result<bool> map_segment(const SegmentInfo& info, bool first);
  Status survey_transactions(const SegmentInfo& from);
  Status compact_group(const Group& group);
  Status copy_kept(const Source& source, CompactedFile& file);
  bool is_kept(const Source& source, const FrameScanner::Step& step);
  bool is_record_kept(const Source& source, const FrameScanner::Step& step);
  bool is_marker_kept(const Source& source, const FrameScanner::Step& step);
  Status install(const Group& group, CompactedFile& file);
  Result<Source> open_source(const SegmentInfo& info) const;
  bool can_join(const Group& group, const Source& source) const;
  std::int64_t retention_ns() const { return job_.delete_retention_ms * kNanosPerMilli; }
  std::int64_t rounded_now() const;
  // Calls `each` with all frames of a segment until it returns false.
  template <class Each>
  Status walk(const Source& source, Each&& each) const;

  io::Backend& backend_;
  const CompactionJob& job_;
  KeyTable keys_;
  Offset mapped_end_;                        // the map holds what is dirty below
  std::optional<TransactionSurvey> survey_;  // of the dirty part, once a transaction was met there
  Offset first_open_{0};
  // Transactions whose records have been met, but not their markers: whether any record was kept.
  std::unordered_map<TransactionId, bool, TransactionId::Hash> under_way_;
  CompactionOutcome outcome_;

  // Of the group under way.
  std::int64_t since_ns_ = 0;
  bool dropped_ = false;
};

CompactionOutcome Round::run() {
  outcome_.first_dirty = job_.first_dirty;
  if (auto done = go(); !done) {
    outcome_.failure = std::move(done.error());
  } else {
    outcome_.first_dirty = mapped_end_;
  }
  // What the round did not come to stands as it stood.
  const Position reached = outcome_.segments.empty() ? Position(0) : outcome_.segments.back().end_position;
  for (const SegmentInfo& info : job_.segments)
    if (info.base_position >= reached) outcome_.segments.push_back(info);
  return std::move(outcome_);
}

// What an earlier round merged into another segment, and could not delete: nobody else knows of it any more.
Status Round::remove_merged() {
  const auto listing = list_segments(job_.dir);
  if (!listing) return std::unexpected(listing.error());
  for (const Offset base : listing->logs) {
    const bool is_merged = std::ranges::any_of(job_.segments, [&](const SegmentInfo& info) {
      return info.base_offset < base && base < info.next_offset;
    });
    if (!is_merged) continue;
    // That the other stands in its place was perhaps not synced then.
    if (auto done = backend_.sync_directory(job_.dir); !done) return done;
    if (auto done = remove_segment(backend_, segment_path(job_.dir, FileKind::log, base)); !done) return done;
  }
  return {};
}

Status Round::go() {
  if (auto done = remove_merged(); !done) return done;
  if (auto done = map_dirty_part(); !done) return done;
  if (mapped_end_ == job_.first_dirty) return {};
  Group group;
  for (const SegmentInfo& info : job_.segments) {
    if (info.base_offset >= mapped_end_) break;
    auto source = open_source(info);
    if (!source) return std::unexpected(source.error());
    if (!group.empty() && !can_join(group, *source)) {
      if (auto done = compact_group(group); !done) return done;
      group.clear();
    }
    group.push_back(std::move(*source));
  }
  return group.empty() ? Status{} : compact_group(group);
}

// --- The map -------------------------------------------------------------------------------------

Status Round::map_dirty_part() {
  bool first = true;
  for (const SegmentInfo& info : job_.segments) {
    if (info.next_offset <= job_.first_dirty) continue;
    const auto whole = map_segment(info, first);
    if (!whole) return std::unexpected(whole.error());
    if (!*whole) break;
    first = false;
  }
  return {};
}

// Whether all of it is in the map. It ends at the first record of a transaction that is still open, for
// nobody knows yet what that one supersedes. Where keys found no room it ends before the segment; but a first
// segment that is too much by itself is mapped in part.
Result<bool> Round::map_segment(const SegmentInfo& info, bool first) {
  const auto source = open_source(info);
  if (!source) return std::unexpected(source.error());
  std::optional<Offset> full_at;
  std::optional<Offset> open_at;
  Status surveyed;
  auto walked = walk(*source, [&](const FrameScanner::Step& step) {
    const Offset at(step.header.offset);
    if (at < job_.first_dirty) return true;
    if (is_transactional(step.header)) {
      if (!survey_) surveyed = survey_transactions(info);
      if (!surveyed) return false;
      if (at == first_open_) open_at = at;
      if (open_at) return false;
      if (survey_->is_aborted(*format::extension_of(step.frame.data()), at)) return true;
    }
    if (!is_keyed(step.header)) return true;
    if (!keys_.put(key_of(step.frame), at)) full_at = at;
    return !full_at;
  });
  if (!surveyed) return std::unexpected(std::move(surveyed.error()));
  if (!walked) return std::unexpected(std::move(walked.error()));
  if (!full_at) {
    mapped_end_ = open_at.value_or(info.next_offset);
  } else if (first) {
    mapped_end_ = *full_at;
  }
  return !full_at && !open_at;
}

// Looks at the dirty part from the segment `from` on, which has the first transaction there.
Status Round::survey_transactions(const SegmentInfo& from) {
  survey_.emplace();
  for (const SegmentInfo& info : job_.segments) {
    if (info.base_offset < from.base_offset) continue;
    const auto source = open_source(info);
    if (!source) return std::unexpected(source.error());
    auto walked = walk(*source, [&](const FrameScanner::Step& step) {
      const Offset at(step.header.offset);
      if (at < job_.first_dirty) return true;
      const std::byte* const frame = step.frame.data();
      if (is_transactional(step.header)) survey_->add_record(*format::extension_of(frame), at);
      if (step.header.type == FrameType::control)
        survey_->add_marker(format::marker_kind(frame), *format::extension_of(frame), at);
      return true;
    });
    if (!walked) return walked;
  }
  first_open_ = survey_->first_open();
  return {};
}

// --- Segments ------------------------------------------------------------------------------------

Result<Source> Round::open_source(const SegmentInfo& info) const {
  Source source{.info = info, .opened = {}};
  auto opened = open_checked(backend_, info.path, FileKind::log, job_.identity);
  if (!opened) return std::unexpected(opened.error());
  source.opened = std::move(*opened);
  source.dirty = info.next_offset > job_.first_dirty;
  if (source.dirty) {
    source.since_ns = rounded_now();
  } else if (source.compacted()) {
    source.since_ns = source.opened.header.created_ns;
    source.expired = source.since_ns != 0 && job_.now_ns - source.since_ns >= retention_ns();
  }
  return source;
}

std::int64_t Round::rounded_now() const {
  const std::int64_t step = std::max<std::int64_t>(retention_ns() / kSinceSteps, 1);
  return (job_.now_ns + step - 1) / step * step;
}

// Small neighbours become one, but not where tombstones of one would have to stay for those of the other.
bool Round::can_join(const Group& group, const Source& source) const {
  std::uint64_t bytes = source.info.file_bytes;
  for (const Source& member : group) bytes += member.info.file_bytes;
  if (bytes > job_.merged_bytes) return false;
  const auto has_young = [](const Source& s) { return s.since_ns != 0 && !s.expired; };
  return !has_young(source) || std::ranges::all_of(group, [&](const Source& member) {
    return !has_young(member) || member.since_ns == source.since_ns;
  });
}

template <class Each>
Status Round::walk(const Source& source, Each&& each) const {
  const SegmentInfo& info = source.info;
  const Position end = source.end_of_frames();
  FrameScanner scanner(
      backend_, source.opened.file, info.path,
      {info.base_position, info.base_position, static_cast<std::int64_t>(info.base_offset.value()), end});
  while (scanner.position() < end) {
    if (is_cancelled(job_)) return fail(Code::closed, "the keeper ends");
    const auto step = scanner.next();
    if (!step) return std::unexpected(step.error());
    if (step->fault != FrameFault::none) {
      return std::unexpected(frame_error(info.path, step->position, step->fault,
                                         fmt::format("; run `ringtail log verify {}`", job_.dir.string())));
    }
    if (!each(*step)) return {};
  }
  return {};
}

// --- Writing -------------------------------------------------------------------------------------

Status Round::compact_group(const Group& group) {
  auto file = CompactedFile::create(backend_, job_.dir, group.front().opened.header);
  if (!file) return std::unexpected(file.error());
  since_ns_ = 0;
  dropped_ = false;
  for (const Source& source : group) {
    if (auto done = copy_kept(source, **file); !done) return done;
  }
  // A tombstone's time begins with the first round through its segment, a marker's when its records go.
  const Source& front = group.front();
  const bool noted = front.compacted() && !front.dirty && since_ns_ <= front.since_ns;
  if (group.size() == 1 && !dropped_ && (noted || since_ns_ == 0)) {
    outcome_.segments.push_back(group.front().info);
    outcome_.bytes.before += group.front().info.file_bytes;
    outcome_.bytes.after += group.front().info.file_bytes;
    return {};
  }
  std::uint32_t compactions = 0;
  for (const Source& source : group) compactions = std::max(compactions, source.opened.header.compactions);
  const SegmentInfo& last = group.back().info;
  const CompactedFile::Ending ending{last.end_position, last.next_offset, compactions + 1, since_ns_};
  if (auto done = (*file)->finish(ending); !done) return done;
  return install(group, **file);
}

Status Round::copy_kept(const Source& source, CompactedFile& file) {
  Status kept;
  auto walked = walk(source, [&](const FrameScanner::Step& step) {
    const bool is_record = has_timestamp(step.header.type);
    outcome_.records.before += is_record ? 1 : 0;
    if (!is_kept(source, step)) {
      // A pad of the last round drops out, too, and comes back.
      dropped_ = dropped_ || is_record || !source.compacted();
      return true;
    }
    outcome_.records.after += is_record ? 1 : 0;
    kept = file.keep(step.frame);
    return kept.has_value();
  });
  return walked ? kept : walked;
}

bool Round::is_kept(const Source& source, const FrameScanner::Step& step) {
  if (!has_timestamp(step.header.type)) return false;
  if (step.header.type == FrameType::control) return is_marker_kept(source, step);
  const bool kept = is_record_kept(source, step);
  if (is_transactional(step.header)) {
    bool& any_kept = under_way_[TransactionId(*format::extension_of(step.frame.data()))];
    any_kept = any_kept || kept;
  }
  return kept;
}

bool Round::is_record_kept(const Source& source, const FrameScanner::Step& step) {
  const format::FrameHeader& header = step.header;
  const Offset at(header.offset);
  const bool settled = at < mapped_end_;
  // The rounds before have left none of aborted transactions in what they called clean.
  if (settled && survey_ && is_transactional(header) &&
      survey_->is_aborted(*format::extension_of(step.frame.data()), at))
    return false;
  if (!is_keyed(header)) return true;
  const bool tombstone = (header.attributes & format::kNullValue) != 0;
  if (settled) {
    const auto latest = keys_.latest(key_of(step.frame));
    if (latest && *latest > at) return false;
    if (tombstone && source.expired) return false;
  }
  if (tombstone) since_ns_ = std::max(since_ns_, source.since_ns);
  return true;
}

// A marker says what its transaction's records are as long as one of them is there; and for
// delete.retention.ms longer, to those who have read such a record before it went.
bool Round::is_marker_kept(const Source& source, const FrameScanner::Step& step) {
  const std::byte* const frame = step.frame.data();
  if (format::marker_kind(frame) == format::MarkerKind::abort_all) {
    under_way_.clear();
    return true;
  }
  const auto met = under_way_.extract(TransactionId(*format::extension_of(frame)));
  if (step.header.offset >= mapped_end_.value() || (met && met.mapped())) return true;
  const bool alone = !met && source.since_ns != 0;
  if (alone && source.expired) return false;
  since_ns_ = std::max(since_ns_, alone ? source.since_ns : rounded_now());
  return true;
}

Status Round::install(const Group& group, CompactedFile& file) {
  const SegmentInfo& first = group.front().info;
  // A topic of the same name may have taken the place of this one while its segments were written.
  if (auto still = open_checked(backend_, first.path, FileKind::log, job_.identity); !still) {
    return std::unexpected(still.error());
  }
  Status installed = is_cancelled(job_) ? fail(Code::closed, "the keeper ends") : file.install(first.path);
  if (!file.installed()) return installed;
  SegmentInfo info = first;
  info.next_offset = group.back().info.next_offset;
  info.end_position = group.back().info.end_position;
  info.max_timestamp_ns = file.max_timestamp_ns();
  info.file_bytes = file.file_bytes();
  info.created_ns = since_ns_;
  for (const Source& source : group) outcome_.bytes.before += source.info.file_bytes;
  outcome_.bytes.after += info.file_bytes;
  outcome_.segments.push_back(std::move(info));
  if (!installed || group.size() == 1) return installed;
  for (const Source& source : std::span(group).subspan(1)) {
    if (auto removed = remove_segment(backend_, source.info.path); !removed) return removed;
  }
  return backend_.sync_directory(job_.dir);
}

}  // namespace

CompactionOutcome compact(io::Backend& backend, const CompactionJob& job) {
  return Round(backend, job).run();
}

}  // namespace ringtail::log
