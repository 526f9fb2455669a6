#include "log/segment_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"
#include "format/frame.h"
#include "io/read_ahead.h"
#include "log/segment_scanner.h"
#include "log/segment_walk.h"

namespace ringtail::log {

using format::FileKind;
using format::FrameFault;

namespace {

// How often a search begins anew because retention or compaction changed the files meanwhile.
constexpr int kListingAttempts = 8;
// Behind all that files can hold; its place in one can still be told.
constexpr Position kMostPosition(std::numeric_limits<std::int64_t>::max());

struct Segment {
  std::filesystem::path path;
  OpenedFile opened;

  Position base() const { return Position(opened.header.base_position); }
  Offset base_offset() const { return Offset(opened.header.base_offset); }
  bool compacted() const { return format::is_compacted(opened.header); }
  // Whether it is compacted, and its part of the log reaches beyond `position`.
  bool has_behind(Position position) const {
    return compacted() && format::segment_end(opened.header) > position;
  }
};

Result<bool> is_same_file(const io::File& a, const io::File& b, const std::filesystem::path& path) {
  struct stat first, second;
  if (::fstat(a.fd(), &first) != 0 || ::fstat(b.fd(), &second) != 0) {
    return fail_errno(errno, fmt::format("cannot inspect '{}'", path.string()));
  }
  return first.st_ino == second.st_ino && first.st_dev == second.st_dev;
}

}  // namespace

class SegmentReader::Impl {
 public:
  Impl(const std::filesystem::path& dir, const format::SegmentIdentity& identity,
       const SegmentReaderOptions& options, std::unique_ptr<io::Backend> backend)
      : dir_(dir), identity_(identity), backend_(std::move(backend)), read_ahead_(options.read_ahead_bytes) {}

  Result<Position> locate(Offset offset, Position durable_limit);
  Result<std::optional<Offset>> locate_time(std::int64_t timestamp_ns, Position durable_limit);
  Status seek(Position position, std::optional<Offset> next);
  Result<SegmentFrames> read(Position at, Position durable_limit, std::optional<Offset> next);
  std::optional<UncheckedSegmentFrames> read_unchecked(Position at, Position durable_limit, Offset next,
                                                       std::size_t most_bytes);

 private:
  Result<Segment> open_segment(Offset base_offset);
  Result<std::vector<Offset>> list();
  Result<Segment> find_segment(Position position);
  Status next_segment(FrameFault fault);
  Status enter(Segment segment, Position position, std::optional<Offset> next);
  bool step_over_gap();
  bool stands_at(Position at, std::optional<Offset> next) const;
  Status resume_reading();
  std::optional<format::IndexEntry> last_known(Position limit);
  bool enter_following();
  bool is_frame_at(Position position, std::uint64_t offset) const;
  off_t in_file(Position position) const {
    return static_cast<off_t>(format::file_offset(segment_->base(), position));
  }
  Result<std::optional<Position>> locate_in(const Segment& segment, Offset offset, Position limit);
  Result<std::optional<Offset>> locate_time_in(const Segment& segment, std::int64_t timestamp_ns,
                                               Position limit);
  Error damage(const Segment& segment, Position position, FrameFault fault) const;

  std::filesystem::path dir_;
  format::SegmentIdentity identity_;
  std::unique_ptr<io::Backend> backend_;

  std::optional<Segment> segment_;
  Position position_{0};                   // of the next frame
  std::int64_t expected_offset_ = -1;      // of the next frame; negative after a seek
  io::ReadAhead read_ahead_;               // stands at position_, but behind a read_unchecked()
  bool took_unchecked_ = false;            // last
  std::optional<io::File> file_;           // for read_unchecked(): of segment_
  std::vector<format::IndexEntry> index_;  // likewise
};

// --- Finding segments ----------------------------------------------------------------------------

Result<Segment> SegmentReader::Impl::open_segment(Offset base_offset) {
  Segment segment;
  segment.path = segment_path(dir_, FileKind::log, base_offset);
  auto opened = open_checked(*backend_, segment.path, FileKind::log, identity_);
  if (!opened) return std::unexpected(opened.error());
  segment.opened = std::move(*opened);
  return segment;
}

Result<std::vector<Offset>> SegmentReader::Impl::list() {
  auto listing = list_segments(dir_);
  if (!listing) return std::unexpected(listing.error());
  return std::move(listing->logs);
}

// The last segment that begins at or before `position`.
Result<Segment> SegmentReader::Impl::find_segment(Position position) {
  for (int attempt = 1;; ++attempt) {
    const auto logs = list();
    if (!logs) return std::unexpected(logs.error());
    std::optional<Segment> found;
    std::optional<Error> error;
    std::size_t low = 0;
    std::size_t high = logs->size();
    while (low < high && !error) {
      const std::size_t middle = low + (high - low) / 2;
      auto segment = open_segment((*logs)[middle]);
      if (!segment) {
        error = std::move(segment.error());
      } else if (segment->base() <= position) {
        found = std::move(*segment);
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (error && error->code == Code::not_found && attempt < kListingAttempts) continue;
    if (error) return std::unexpected(std::move(*error));
    if (found) return std::move(*found);
    return fail(Code::offset_out_of_range,
                fmt::format("{}: no segment holds position {}; retention has deleted it", dir_.string(),
                            position.value()));
  }
}

Error SegmentReader::Impl::damage(const Segment& segment, Position position, FrameFault fault) const {
  return frame_error(segment.path, position, fault,
                     fmt::format("; run `ringtail log verify {}`", dir_.string()));
}

// --- Reading -------------------------------------------------------------------------------------

Status SegmentReader::Impl::seek(Position position, std::optional<Offset> next) {
  segment_.reset();
  for (int attempt = 1;; ++attempt) {
    auto segment = find_segment(position);
    if (!segment) return std::unexpected(segment.error());
    const std::filesystem::path path = segment->path;
    auto entered = enter(std::move(*segment), position, next);
    if (entered || entered.error().code != Code::not_found) return entered;
    if (attempt == kListingAttempts) {
      return fail(Code::offset_out_of_range,
                  fmt::format("{}: deleted by retention before it was read", path.string()));
    }
  }
}

// Errors: not_found, when the file is gone or has been replaced since it was opened.
Status SegmentReader::Impl::enter(Segment segment, Position position, std::optional<Offset> next) {
  const auto file = backend_->open(segment.path, io::OpenMode::read_direct);
  if (!file) return std::unexpected(file.error());
  const auto same = is_same_file(*file, segment.opened.file, segment.path);
  if (!same) return std::unexpected(same.error());
  if (!*same) return fail(Code::not_found, fmt::format("{}: replaced by compaction", segment.path.string()));
  expected_offset_ = -1;
  if (position == segment.base()) {
    expected_offset_ = static_cast<std::int64_t>(segment.base_offset().value());
  } else if (segment.compacted() && next) {
    const auto located = locate_in(segment, *next, format::segment_end(segment.opened.header));
    if (!located) return std::unexpected(located.error());
    if (!*located) return std::unexpected(damage(segment, position, FrameFault::offset_gap));
    position = **located;
    if (position == format::segment_end(segment.opened.header)) {
      expected_offset_ = static_cast<std::int64_t>(next->value());
    }
  }
  const std::uint64_t at = format::file_offset(segment.base(), position);
  if (auto started = read_ahead_.start(*file, segment.path.string(), at); !started) return started;
  position_ = position;
  segment_ = std::move(segment);
  took_unchecked_ = false;
  file_.reset();
  index_.clear();
  return {};
}

bool SegmentReader::Impl::stands_at(Position at, std::optional<Offset> next) const {
  const bool elsewhere =
      next && expected_offset_ >= 0 && next->value() != static_cast<std::uint64_t>(expected_offset_);
  return segment_ && at == position_ && !elsewhere;
}

Result<SegmentFrames> SegmentReader::Impl::read(Position at, Position durable_limit,
                                                std::optional<Offset> next) {
  if (at >= durable_limit) return SegmentFrames{{}, at};
  if (!stands_at(at, next)) {
    if (auto sought = seek(at, next); !sought) return std::unexpected(sought.error());
  } else if (took_unchecked_) {
    if (auto resumed = resume_reading(); !resumed) return std::unexpected(resumed.error());
  }
  std::uint64_t wanted = format::kFrameHeaderBytes;
  while (position_ < durable_limit) {
    // What is durable is said in memory that other processes can write to.
    const Position limit = std::min(durable_limit, kMostPosition);
    const auto bytes = read_ahead_.peek(wanted, format::file_offset(segment_->base(), limit));
    if (!bytes) return std::unexpected(bytes.error());
    std::size_t whole = 0;
    FrameFault fault = FrameFault::none;
    while (whole < bytes->size() && fault == FrameFault::none) {
      fault = format::check_frame(bytes->subspan(whole), expected_offset_);
      if (fault != FrameFault::none) break;
      const format::FrameHeader header = format::load_header(bytes->data() + whole);
      whole += format::align_frame(static_cast<std::uint32_t>(header.length));
      expected_offset_ = static_cast<std::int64_t>(header.offset + format::frame_records(header));
    }
    if (whole > 0) {
      const Position begin = position_;
      position_ += whole;
      read_ahead_.consume(whole);
      return SegmentFrames{bytes->first(whole), begin, segment_->compacted()};
    }
    std::uint64_t extent = 0;
    if (fault == FrameFault::truncated && bytes->size() >= format::kFrameHeaderBytes) {
      extent = format::align_frame(static_cast<std::uint32_t>(format::load_header(bytes->data()).length));
    }
    if (extent > wanted && extent <= durable_limit - position_) {
      wanted = extent;
    } else if (step_over_gap()) {
      continue;
    } else if (auto entered = next_segment(fault); !entered) {
      return std::unexpected(entered.error());
    }
  }
  return SegmentFrames{{}, position_};
}

// --- Reading unchecked ---------------------------------------------------------------------------

Status SegmentReader::Impl::resume_reading() {
  const std::uint64_t from = format::file_offset(segment_->base(), position_);
  if (auto started = read_ahead_.start(*file_, segment_->path.string(), from); !started) return started;
  took_unchecked_ = false;
  return {};
}

std::optional<UncheckedSegmentFrames> SegmentReader::Impl::read_unchecked(Position at, Position durable_limit,
                                                                          Offset next,
                                                                          std::size_t most_bytes) {
  if (!stands_at(at, next) && !seek(at, next)) return std::nullopt;
  const std::size_t most = std::min(most_bytes, io::FileBytes::kMostBytes);
  auto end = last_known(std::min(durable_limit, at + most));
  if (!end && enter_following()) end = last_known(std::min(durable_limit, at + most));
  if (!end || position_ != at || !is_frame_at(Position(end->position), end->offset)) return std::nullopt;
  // The next call looks at the frame at its end: until then the disk has had time.
  if (const auto following = last_known(std::min(durable_limit, Position(end->position) + most)))
    ::posix_fadvise(segment_->opened.file.fd(), in_file(Position(following->position)),
                    sizeof(format::FrameHeader), POSIX_FADV_WILLNEED);
  auto bytes =
      io::FileBytes::read(*file_, format::file_offset(segment_->base(), at), end->position - at.value());
  if (!bytes) return std::nullopt;
  position_ = Position(end->position);
  expected_offset_ = static_cast<std::int64_t>(end->offset);
  took_unchecked_ = true;
  return UncheckedSegmentFrames{std::move(*bytes), position_, Offset(end->offset)};
}

// The last place up to `limit`, and behind where this stands, at which the segment's index knows a frame to begin.
std::optional<format::IndexEntry> SegmentReader::Impl::last_known(Position limit) {
  if (segment_->compacted()) return std::nullopt;
  if (!file_) {
    auto file = backend_->open(segment_->path, io::OpenMode::read_direct);
    const auto same = file ? is_same_file(*file, segment_->opened.file, segment_->path) : Result<bool>(false);
    auto index = read_index(*backend_, segment_->path, segment_->opened.header);
    if (!same || !*same || !index) return std::nullopt;
    file_ = std::move(*file);
    index_ = std::move(index->entries);
  }
  const auto behind = std::ranges::upper_bound(index_, limit.value(), {}, &format::IndexEntry::position);
  if (behind == index_.begin()) return std::nullopt;
  const format::IndexEntry& last = *std::prev(behind);
  return Position(last.position) > position_ ? std::optional(last) : std::nullopt;
}

// At the end of a segment, into the one that begins there, if there is one. False: it could not be entered.
bool SegmentReader::Impl::enter_following() {
  if (expected_offset_ < 0) return true;
  const Offset expected(static_cast<std::uint64_t>(expected_offset_));
  auto following = open_segment(expected);
  if (!following || following->base() != position_ || following->path == segment_->path) return true;
  return enter(std::move(*following), position_, expected).has_value();
}

// An index entry is a hint.
bool SegmentReader::Impl::is_frame_at(Position position, std::uint64_t offset) const {
  format::FrameHeader header;
  return ::pread(segment_->opened.file.fd(), &header, sizeof header, in_file(position)) == sizeof header &&
         header.offset == offset && header.length >= static_cast<std::int32_t>(format::kFrameHeaderBytes);
}

// Behind the frames that compaction has kept, the log goes on where the segment used to end.
bool SegmentReader::Impl::step_over_gap() {
  const format::FileHeader& header = segment_->opened.header;
  if (!segment_->compacted() || position_ != format::frames_end(header)) return false;
  if (position_ == format::segment_end(header)) return false;
  position_ = format::segment_end(header);
  return true;
}

// At the end of a finished segment: the log goes on in the one that is named after the next offset.
Status SegmentReader::Impl::next_segment(FrameFault fault) {
  const auto expected = expected_offset_ >= 0
                            ? std::optional(Offset(static_cast<std::uint64_t>(expected_offset_)))
                            : std::nullopt;
  auto next = expected ? open_segment(*expected) : find_segment(position_);
  if (next && next->base() == position_ && next->path != segment_->path) {
    auto entered = enter(std::move(*next), position_, expected);
    if (entered || entered.error().code != Code::not_found) return entered;
    return seek(position_, expected);
  }
  if (!next && next.error().code != Code::not_found) return std::unexpected(next.error());
  const auto logs = list();
  if (!logs) return std::unexpected(logs.error());
  if (!next && !logs->empty() && logs->front().value() > static_cast<std::uint64_t>(expected_offset_)) {
    return fail(Code::offset_out_of_range,
                fmt::format("{}: offset {} was deleted by retention; the log begins at offset {}",
                            dir_.string(), expected_offset_, logs->front().value()));
  }
  // The segment may have been merged with the one before it.
  if (const auto holder = find_segment(position_); !next && holder && holder->has_behind(position_)) {
    return seek(position_, expected);
  }
  return std::unexpected(damage(*segment_, position_, fault));
}

// --- Locating ------------------------------------------------------------------------------------

Result<Position> SegmentReader::Impl::locate(Offset offset, Position durable_limit) {
  for (int attempt = 1;; ++attempt) {
    const auto logs = list();
    if (!logs) return std::unexpected(logs.error());
    const auto after = std::ranges::upper_bound(*logs, offset);
    if (after == logs->begin()) {
      if (logs->empty() && offset == Offset(0) && durable_limit == Position(0)) return durable_limit;
      return fail(Code::offset_out_of_range,
                  fmt::format("{}: offset {} lies before the first segment", dir_.string(), offset.value()));
    }
    const auto segment = open_segment(*std::prev(after));
    if (!segment && segment.error().code == Code::not_found && attempt < kListingAttempts) continue;
    if (!segment) return std::unexpected(segment.error());
    const auto position = locate_in(*segment, offset, durable_limit);
    if (!position) return std::unexpected(position.error());
    if (*position) return **position;
    // The segment may have been finished, and others begun, since the directory was listed.
    if (attempt < 2) continue;
    return fail(Code::offset_out_of_range,
                fmt::format("{}: offset {} lies behind what is durable", dir_.string(), offset.value()));
  }
}

// Nothing when the segment ends before `offset`.
Result<std::optional<Position>> SegmentReader::Impl::locate_in(const Segment& segment, Offset offset,
                                                               Position limit) {
  const format::FileHeader& header = segment.opened.header;
  const Position end = std::min(limit, format::end_in_file(segment.base(), segment.opened.bytes));
  ScanRange range{segment.base(), segment.base(), static_cast<std::int64_t>(segment.base_offset().value()),
                  end};
  // An index entry is a hint: a frame with that offset has to stand there.
  if (const auto index = read_index(*backend_, segment.path, header); index) {
    auto entry = std::ranges::upper_bound(index->entries, offset.value(), {}, &format::IndexEntry::offset);
    while (entry != index->entries.begin()) {
      --entry;
      ScanRange hinted = range;
      hinted.from = Position(entry->position);
      hinted.expected_offset = static_cast<std::int64_t>(entry->offset);
      if (hinted.from >= end) continue;
      const auto step = FrameScanner(*backend_, segment.opened.file, segment.path, hinted).next();
      if (!step || step->fault != FrameFault::none) continue;
      range = hinted;
      break;
    }
  }
  FrameScanner scanner(*backend_, segment.opened.file, segment.path, range);
  while (scanner.position() < end) {
    const auto step = scanner.next();
    if (!step) return std::unexpected(step.error());
    if (step->fault == FrameFault::empty) break;
    if (step->fault != FrameFault::none) return std::unexpected(damage(segment, step->position, step->fault));
    if (static_cast<std::uint64_t>(scanner.expected_offset()) > offset.value()) return step->position;
  }
  if (static_cast<std::uint64_t>(scanner.expected_offset()) == offset.value()) {
    const bool at_gap = segment.compacted() && scanner.position() == format::frames_end(header);
    return at_gap ? format::segment_end(header) : scanner.position();
  }
  return std::nullopt;
}

Result<std::optional<Offset>> SegmentReader::Impl::locate_time(std::int64_t timestamp_ns,
                                                               Position durable_limit) {
  for (int attempt = 1;; ++attempt) {
    const auto logs = list();
    if (!logs) return std::unexpected(logs.error());
    bool changed = false;
    for (const Offset base_offset : *logs) {
      const auto segment = open_segment(base_offset);
      // Merged into one that has been looked at, before it had these records, or deleted.
      changed = !segment && segment.error().code == Code::not_found;
      if (changed) break;
      if (!segment) return std::unexpected(segment.error());
      if (segment->base() >= durable_limit) break;
      auto found = locate_time_in(*segment, timestamp_ns, durable_limit);
      if (!found || *found) return found;
    }
    if (!changed || attempt == kListingAttempts) return std::nullopt;
  }
}

Result<std::optional<Offset>> SegmentReader::Impl::locate_time_in(const Segment& segment,
                                                                  std::int64_t timestamp_ns, Position limit) {
  const Position end = std::min(limit, format::end_in_file(segment.base(), segment.opened.bytes));
  Position from = segment.base();
  if (const auto times = read_time_index(*backend_, segment.path, segment.opened.header); times) {
    // Entries ascend in time: everything before the last one that is too early is too early as well.
    const auto later =
        std::ranges::lower_bound(*times, timestamp_ns, {}, &format::TimeIndexEntry::max_timestamp_ns);
    if (later != times->begin()) {
      const auto start = locate_in(segment, Offset(std::prev(later)->offset), end);
      if (!start) return std::unexpected(start.error());
      from = start->value_or(from);
    }
  }
  FrameScanner scanner(*backend_, segment.opened.file, segment.path, {segment.base(), from, -1, end});
  while (scanner.position() < end) {
    const auto step = scanner.next();
    if (!step) return std::unexpected(step.error());
    if (step->fault == FrameFault::empty) break;
    if (step->fault != FrameFault::none) return std::unexpected(damage(segment, step->position, step->fault));
    if (has_timestamp(step->header.type) && step->header.timestamp_ns >= timestamp_ns) {
      return Offset(step->header.offset);
    }
  }
  return std::nullopt;
}

// --- The public face -----------------------------------------------------------------------------

Result<std::unique_ptr<SegmentReader>> SegmentReader::open(const std::filesystem::path& dir,
                                                           const format::SegmentIdentity& identity,
                                                           const SegmentReaderOptions& options) {
  auto backend = io::make_backend(IoBackend::pwrite, 1);
  if (!backend) return std::unexpected(backend.error());
  if (auto listing = list_segments(dir); !listing) return std::unexpected(listing.error());
  auto impl = std::make_unique<Impl>(dir, identity, options, std::move(*backend));
  return std::unique_ptr<SegmentReader>(new SegmentReader(std::move(impl)));
}

SegmentReader::SegmentReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SegmentReader::~SegmentReader() = default;

Result<Position> SegmentReader::locate(Offset offset, Position durable_limit) {
  return impl_->locate(offset, durable_limit);
}
Result<std::optional<Offset>> SegmentReader::locate_time(std::int64_t timestamp_ns, Position durable_limit) {
  return impl_->locate_time(timestamp_ns, durable_limit);
}
Status SegmentReader::seek(Position position, std::optional<Offset> next) {
  return impl_->seek(position, next);
}
Result<SegmentFrames> SegmentReader::read(Position at, Position durable_limit, std::optional<Offset> next) {
  return impl_->read(at, durable_limit, next);
}
std::optional<UncheckedSegmentFrames> SegmentReader::read_unchecked(Position at, Position durable_limit,
                                                                    Offset next, std::size_t most_bytes) {
  return impl_->read_unchecked(at, durable_limit, next, most_bytes);
}

}  // namespace ringtail::log
