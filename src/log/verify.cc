#include "log/verify.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "log/segment_files.h"
#include "log/segment_scanner.h"
#include "log/segment_walk.h"

namespace ringtail::log {

using format::FileKind;
using format::FrameFault;

namespace {

// The header of a file whose owner is unknown.
Result<format::FileHeader> peek_header(io::Backend& backend, const std::filesystem::path& path) {
  auto file = backend.open(path, io::OpenMode::read);
  if (!file) return std::unexpected(file.error());
  std::array<std::byte, sizeof(format::FileHeader)> head;
  const auto got = read_at(backend, *file, head, 0, path);
  if (!got) return std::unexpected(got.error());
  return format::decode_header(std::span(head).first(*got), FileKind::log, path.string());
}

// How often the directory is looked at anew because its files changed meanwhile.
constexpr int kAttempts = 5;

// Which files the segments are now.
std::vector<std::pair<Offset, ino_t>> identities(const SegmentListing& listing,
                                                 const std::filesystem::path& dir) {
  std::vector<std::pair<Offset, ino_t>> result;
  for (const Offset base_offset : listing.logs) {
    struct stat status = {};
    ::stat(segment_path(dir, FileKind::log, base_offset).c_str(), &status);
    result.emplace_back(base_offset, status.st_ino);
  }
  return result;
}

// Checks index entries as the frames they speak of come by.
class IndexCheck {
 public:
  IndexCheck(io::Backend& backend, const std::filesystem::path& path, const format::FileHeader& header) {
    if (auto index = read_index(backend, path, header); index) {
      entries_ = std::move(index->entries);
      mark_ = Position(index->header.synced_position);
    } else {
      problem_ = index.error().message;
    }
    if (auto times = read_time_index(backend, path, header); times) {
      times_ = std::move(*times);
    } else {
      problem_ = times.error().message;
    }
  }

  const std::optional<std::string>& problem() const { return problem_; }
  std::optional<Position> mark() const { return mark_; }
  std::uint64_t entries() const { return entries_.size() + times_.size(); }

  // A frame boundary at `position`; what stands before it has timestamps up to `max_timestamp_ns`.
  // Returns what is wrong with the entries up to here.
  std::string at_boundary(Position position, Offset next_offset, std::int64_t max_timestamp_ns) {
    std::string wrong;
    for (; entry_ < entries_.size() && entries_[entry_].position <= position.value(); ++entry_) {
      if (entries_[entry_] != format::IndexEntry{next_offset.value(), position.value()}) {
        wrong = fmt::format("index entry {} says offset {} at position {}", entry_, entries_[entry_].offset,
                            entries_[entry_].position);
      }
    }
    for (; time_ < times_.size() && times_[time_].offset <= next_offset.value(); ++time_) {
      if (times_[time_].max_timestamp_ns < max_timestamp_ns) {
        wrong = fmt::format(
            "time index entry {} says that records before offset {} are not later than {} ns, "
            "but one is of {} ns",
            time_, times_[time_].offset, times_[time_].max_timestamp_ns, max_timestamp_ns);
      }
    }
    return wrong;
  }

 private:
  std::optional<std::string> problem_;
  std::optional<Position> mark_;
  std::vector<format::IndexEntry> entries_;
  std::vector<format::TimeIndexEntry> times_;
  std::size_t entry_ = 0;
  std::size_t time_ = 0;
};

class Verification {
 public:
  Verification(io::Backend& backend, const std::filesystem::path& dir, const VerifyOptions& options)
      : backend_(backend), dir_(dir), options_(options), identity_(options.identity) {}

  Result<PartitionVerification> run();

 private:
  Status verify_segments(const SegmentListing& listing);
  Status verify_segment(const std::filesystem::path& path, bool last);
  Status walk(const OpenedFile& opened, IndexCheck& index, SegmentVerification& segment, bool last);
  void count(const FrameScanner::Step& step, SegmentVerification& segment);
  bool ends_compacted(const OpenedFile& opened, IndexCheck& index, SegmentVerification& segment, bool last);
  Result<bool> go_on_behind(FrameScanner& scanner, const FrameScanner::Step& step,
                            SegmentVerification& segment, std::optional<Position> durable, bool last);
  void fault(const std::filesystem::path& path, Position position, std::string message) {
    result_.faults.push_back({path, position, std::move(message)});
  }

  io::Backend& backend_;
  const std::filesystem::path& dir_;
  const VerifyOptions& options_;
  std::optional<format::SegmentIdentity> identity_;
  PartitionVerification result_;
  bool before_was_compacted_ = false;
};

// What looks wrong while a keeper compacts may be two states of the directory, so it is looked at again.
Result<PartitionVerification> Verification::run() {
  for (int attempt = 1;; ++attempt) {
    const auto listing = list_segments(dir_);
    if (!listing) return std::unexpected(listing.error());
    const auto before = identities(*listing, dir_);
    result_ = {};
    if (auto done = verify_segments(*listing); !done) return std::unexpected(done.error());
    if (result_.faults.empty() || attempt == kAttempts) break;
    const auto after = list_segments(dir_);
    if (!after || identities(*after, dir_) == before) break;
  }
  return std::move(result_);
}

Status Verification::verify_segments(const SegmentListing& listing) {
  for (const Offset base_offset : listing.logs) {
    const auto path = segment_path(dir_, FileKind::log, base_offset);
    const bool last = base_offset == listing.logs.back();
    if (auto done = verify_segment(path, last); !done) {
      // Retention may delete a segment while we look at the directory.
      if (done.error().code != Code::not_found) return done;
    }
  }
  return {};
}

Status Verification::verify_segment(const std::filesystem::path& path, bool last) {
  if (!identity_) {
    const auto header = peek_header(backend_, path);
    if (header) identity_ = format::identity_of(*header);
  }
  const auto opened =
      open_checked(backend_, path, FileKind::log, identity_.value_or(format::SegmentIdentity{}));
  if (!opened) {
    const Code code = opened.error().code;
    if (code != Code::corrupt && code != Code::incompatible_layout) return std::unexpected(opened.error());
    fault(path, Position(0), opened.error().message);
    return {};
  }
  SegmentVerification segment;
  segment.path = path;
  segment.base_offset = segment.next_offset = Offset(opened->header.base_offset);
  segment.base_position = segment.end_position = Position(opened->header.base_position);
  if (!result_.segments.empty()) {
    const SegmentVerification& before = result_.segments.back();
    // Merged with the one before, and about to be removed: by the keeper, or by the recovery of the next.
    if (segment.base_position < before.end_position && before_was_compacted_) return {};
    if (before.end_position != segment.base_position || before.next_offset != segment.base_offset) {
      fault(path, segment.base_position,
            fmt::format("begins at position {}, offset {}, but {} ends at position {}, offset {}",
                        segment.base_position.value(), segment.base_offset.value(),
                        before.path.filename().string(), before.end_position.value(),
                        before.next_offset.value()));
    }
  }
  before_was_compacted_ = format::is_compacted(opened->header);
  IndexCheck index(backend_, path, opened->header);
  if (index.problem()) fault(path, segment.base_position, *index.problem());
  segment.index_entries = index.entries();
  if (auto done = walk(*opened, index, segment, last); !done) return done;
  result_.segments.push_back(std::move(segment));
  return {};
}

Status Verification::walk(const OpenedFile& opened, IndexCheck& index, SegmentVerification& segment,
                          bool last) {
  std::optional<Position> durable = options_.durable_limit ? options_.durable_limit : index.mark();
  Position limit = format::end_in_file(segment.base_position, std::max(opened.bytes, format::kBlockBytes));
  FrameScanner scanner(backend_, opened.file, segment.path,
                       {segment.base_position, segment.base_position,
                        static_cast<std::int64_t>(segment.base_offset.value()), limit});
  while (true) {
    if (auto wrong = index.at_boundary(scanner.position(), segment.next_offset, segment.max_timestamp_ns);
        !wrong.empty()) {
      fault(segment.path, scanner.position(),
            wrong + fmt::format(", but offset {} is there", segment.next_offset.value()));
    }
    const auto step = scanner.next();
    if (!step) return std::unexpected(step.error());
    if (step->fault == FrameFault::none) {
      count(*step, segment);
      segment.next_offset = Offset(static_cast<std::uint64_t>(scanner.expected_offset()));
      segment.end_position = scanner.position();
      continue;
    }
    if (ends_compacted(opened, index, segment, last)) return {};
    const auto more = go_on_behind(scanner, *step, segment, durable, last);
    if (!more) return std::unexpected(more.error());
    if (!*more) return {};
  }
}

// Whether the walk has come to the end of what compaction kept; then the segment's end is where it was.
bool Verification::ends_compacted(const OpenedFile& opened, IndexCheck& index, SegmentVerification& segment,
                                  bool last) {
  const format::FileHeader& header = opened.header;
  const Position frames_end = format::frames_end(header);
  if (!format::is_compacted(header) || segment.end_position != frames_end) return false;
  if (opened.bytes != format::file_offset(segment.base_position, frames_end) ||
      segment.next_offset.value() != header.synced_offset) {
    fault(segment.path, frames_end,
          fmt::format(
              "the header of this compacted segment says that it ends here, at offset {}, but it has {} "
              "bytes and goes up to offset {}",
              header.synced_offset, opened.bytes, segment.next_offset.value()));
  }
  if (last) fault(segment.path, frames_end, "the segment that follows this compacted one is missing");
  segment.end_position = format::segment_end(header);
  if (auto wrong = index.at_boundary(segment.end_position, segment.next_offset, segment.max_timestamp_ns);
      !wrong.empty()) {
    fault(segment.path, segment.end_position, wrong);
  }
  return true;
}

void Verification::count(const FrameScanner::Step& step, SegmentVerification& segment) {
  ++segment.frames;
  segment.bytes += step.frame.size();
  switch (step.header.type) {
    case format::FrameType::pad:
      ++segment.pad_frames;
      segment.pad_bytes += step.frame.size();
      break;
    case format::FrameType::aborted:
      ++segment.aborted_frames;
      segment.aborted_records += format::frame_records(step.header);
      break;
    default:
      ++(step.header.type == format::FrameType::control ? segment.markers : segment.records);
      segment.max_timestamp_ns = std::max(segment.max_timestamp_ns, step.header.timestamp_ns);
  }
}

// Judges what ended the walk; moves the scanner to the next valid frame and returns true if it is to go on.
Result<bool> Verification::go_on_behind(FrameScanner& scanner, const FrameScanner::Step& step,
                                        SegmentVerification& segment, std::optional<Position> durable,
                                        bool last) {
  const auto remains = scanner.look_behind();
  if (!remains) return std::unexpected(remains.error());
  const Position at = step.position;
  const bool beyond_durable = last && durable && at >= *durable;
  if (beyond_durable) {
    result_.unsynced_bytes += remains->garbage_end - at;
    return false;
  }
  if (remains->valid_frame) {
    fault(segment.path, at,
          fmt::format("no valid frame ({}); records go on at position {}, offset {}",
                      format::to_string(step.fault), remains->valid_frame->value(), remains->valid_offset));
    scanner.resume(*remains->valid_frame, remains->valid_offset);
    segment.next_offset = Offset(remains->valid_offset);
    return true;
  }
  if (remains->garbage_end > at) {
    fault(segment.path, at,
          fmt::format("no valid frame ({}) in the {} bytes up to the end", format::to_string(step.fault),
                      remains->garbage_end - at));
  } else if (last && durable && at < *durable) {
    fault(segment.path, at,
          fmt::format("the log ends here, but was synced up to position {}", durable->value()));
  }
  return false;
}

}  // namespace

SegmentVerification PartitionVerification::total() const {
  SegmentVerification sum;
  if (segments.empty()) return sum;
  sum.base_offset = segments.front().base_offset;
  sum.base_position = segments.front().base_position;
  sum.next_offset = segments.back().next_offset;
  sum.end_position = segments.back().end_position;
  for (const SegmentVerification& segment : segments) {
    sum.frames += segment.frames;
    sum.records += segment.records;
    sum.markers += segment.markers;
    sum.aborted_frames += segment.aborted_frames;
    sum.aborted_records += segment.aborted_records;
    sum.pad_frames += segment.pad_frames;
    sum.pad_bytes += segment.pad_bytes;
    sum.bytes += segment.bytes;
    sum.index_entries += segment.index_entries;
    sum.max_timestamp_ns = std::max(sum.max_timestamp_ns, segment.max_timestamp_ns);
  }
  return sum;
}

Result<PartitionVerification> verify_partition(const std::filesystem::path& dir,
                                               const VerifyOptions& options) {
  auto backend = io::make_backend(IoBackend::pwrite, 1);
  if (!backend) return std::unexpected(backend.error());
  return Verification(**backend, dir, options).run();
}

Result<format::FileHeader> dump_segment(const std::filesystem::path& log_path, const DumpOptions& options,
                                        const std::function<bool(const DumpedFrame&)>& sink) {
  auto backend = io::make_backend(IoBackend::pwrite, 1);
  if (!backend) return std::unexpected(backend.error());
  const auto header = peek_header(**backend, log_path);
  if (!header) return header;
  const auto opened = open_checked(**backend, log_path, FileKind::log, format::identity_of(*header));
  if (!opened) return std::unexpected(opened.error());
  const Position base(header->base_position);
  FrameScanner scanner(**backend, opened->file, log_path,
                       {base, base, static_cast<std::int64_t>(header->base_offset),
                        format::end_in_file(base, std::max(opened->bytes, format::kBlockBytes))});
  while (true) {
    const auto step = scanner.next();
    if (!step) return std::unexpected(step.error());
    if (step->fault == FrameFault::none) {
      if (step->position >= options.from && !sink({step->position, step->fault, step->frame})) return header;
      continue;
    }
    const auto remains = scanner.look_behind();
    if (!remains) return std::unexpected(remains.error());
    if (remains->garbage_end == step->position) return header;
    if (step->position >= options.from && !sink({step->position, step->fault, {}})) return header;
    if (!remains->valid_frame) return header;
    scanner.resume(*remains->valid_frame, remains->valid_offset);
  }
}

}  // namespace ringtail::log
