#include "log/recovery.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"
#include "log/io_operation.h"
#include "log/segment_scanner.h"
#include "log/segment_walk.h"

namespace ringtail::log {

using format::FileKind;
using format::FrameFault;

namespace {

class Recovery {
 public:
  Recovery(io::Backend& backend, const std::filesystem::path& dir, const format::SegmentIdentity& identity,
           const RecoveryOptions& options, RecoveryReport& report)
      : backend_(backend), dir_(dir), identity_(identity), options_(options), report_(report) {}

  // Decides about everything first and acts afterwards, so that a refusal leaves all as it was.
  Result<RecoveredLog> run();

 private:
  Result<RecoveredLog> decide();
  struct Segment {
    std::filesystem::path path;
    OpenedFile opened;
    Position base() const { return Position(opened.header.base_position); }
    Offset base_offset() const { return Offset(opened.header.base_offset); }
    bool compacted() const { return format::is_compacted(opened.header); }
    Position end_of_file() const { return format::end_in_file(base(), opened.bytes); }
    // Where its frames end, when `next` follows it.
    Position end_of_frames(const Segment& next) const {
      return compacted() ? format::frames_end(opened.header) : next.base();
    }
  };

  void remove_leftovers(const SegmentListing& listing);
  Status remove_headless(std::vector<Offset>& logs);
  std::uint64_t synced_of_headless(const std::filesystem::path& path);
  Result<Segment> open_segment(Offset base_offset);
  bool is_merged(const Segment& previous, const Segment& segment);
  static SegmentInfo sealed_info(const Segment& segment, const Segment& next, std::int64_t max_timestamp_ns);
  Result<SegmentInfo> check_sealed(const Segment& segment, const Segment& next);
  Result<SegmentInfo> rebuild_sealed(const Segment& segment, const Segment& next, std::string_view why);
  Status recover_last(const Segment& segment, RecoveredLog& log);
  Result<SegmentWalk> confirmed_start(const Segment& segment, const std::optional<IndexContent>& index);
  Result<SegmentWalk> walk_last(const Segment& segment, const std::optional<IndexContent>& index,
                                std::optional<FrameScanner>& scanner, Position limit);
  Status judge_tail(const Segment& segment, const SegmentWalk& walk, FrameScanner& scanner,
                    std::optional<Position> mark);
  void pad(const Segment& segment, RecoveredLog& log);
  Status write_pad(const std::filesystem::path& path, Position base, Position end, Offset next_offset,
                   std::uint64_t extent);

  Status sync_file(const io::File& file);
  void cut(const Segment& segment, Position end);
  void sync(const Segment& segment);
  void found(RecoveryCase what, const std::filesystem::path& path, Position position, std::uint64_t bytes,
             std::uint64_t durable_lost, std::string message) {
    report_.findings.push_back({what, path, position, bytes, durable_lost, std::move(message)});
  }

  io::Backend& backend_;
  const std::filesystem::path& dir_;
  const format::SegmentIdentity& identity_;
  const RecoveryOptions& options_;
  RecoveryReport& report_;
  std::vector<std::function<Status()>> actions_;
};

Result<RecoveredLog> Recovery::run() {
  auto log = decide();
  if (!log || !options_.writable) return log;
  for (const auto& act : actions_) {
    if (auto done = act(); !done) return std::unexpected(done.error());
  }
  return log;
}

Result<RecoveredLog> Recovery::decide() {
  auto listing = list_segments(dir_);
  if (!listing) return std::unexpected(listing.error());
  remove_leftovers(*listing);
  if (auto removed = remove_headless(listing->logs); !removed) return std::unexpected(removed.error());

  RecoveredLog log;
  std::optional<Segment> previous;
  for (const Offset base_offset : listing->logs) {
    auto segment = open_segment(base_offset);
    if (!segment) return std::unexpected(segment.error());
    if (previous && is_merged(*previous, *segment)) continue;
    if (previous) {
      auto info = check_sealed(*previous, *segment);
      if (!info) return std::unexpected(info.error());
      log.segments.push_back(std::move(*info));
    }
    previous = std::move(*segment);
  }
  if (!previous) return log;
  if (auto done = recover_last(*previous, log); !done) return std::unexpected(done.error());
  if (options_.pad_to_block && log.end_position != format::block_down(log.end_position)) pad(*previous, log);
  return log;
}

void Recovery::remove_leftovers(const SegmentListing& listing) {
  const auto remove = [&](RecoveryCase what, const std::filesystem::path& path, std::string_view why) {
    found(what, path, Position(0), 0, 0, fmt::format("{}: removed, {}", path.string(), why));
    actions_.push_back([this, path] { return backend_.unlink(path); });
  };
  for (const auto& path : listing.prepared)
    remove(RecoveryCase::prepared_file, path, "no segment was begun in it");
  for (const auto& path : listing.compacted)
    remove(RecoveryCase::compaction_file, path, "its compaction did not come to an end");
  for (const auto& path : listing.orphans) remove(RecoveryCase::orphan_index, path, "its log was deleted");
}

// The header is synced before a file gets its name, so only a file system that lost data does this.
Status Recovery::remove_headless(std::vector<Offset>& logs) {
  if (logs.empty()) return {};
  const auto path = segment_path(dir_, FileKind::log, logs.back());
  auto file = backend_.open(path, io::OpenMode::read);
  if (!file) return std::unexpected(file.error());
  const auto bytes = file_size(*file, path);
  if (!bytes) return std::unexpected(bytes.error());
  if (*bytes >= format::kBlockBytes) return {};
  if (logs.size() == 1 && logs.back() != Offset(0)) {
    return fail(
        Code::corrupt,
        fmt::format("{}: {} bytes are less than a header, and no segment before it tells where the log "
                    "goes on; restore the file from a backup or replica, or delete the topic",
                    path.string(), *bytes));
  }
  const std::uint64_t lost = synced_of_headless(path);
  found(
      RecoveryCase::headless_segment, path, Position(0), *bytes, lost,
      fmt::format("{}: removed, its {} bytes are less than a header; {}", path.string(), *bytes,
                  lost > 0 ? fmt::format("{} bytes that had been synced are gone, and with them the records "
                                         "from offset {} on: check the disk, and restore the file from a "
                                         "backup or replica if they are wanted",
                                         lost, logs.back().value())
                           : std::string("nothing that had been synced is lost")));
  logs.pop_back();
  actions_.push_back([this, path]() -> Status {
    if (auto done = backend_.unlink(path); !done) return done;
    for (const FileKind kind : {FileKind::index, FileKind::time_index}) {
      auto done = backend_.unlink(sibling(path, kind));
      if (!done && done.error().code != Code::not_found) return done;
    }
    return backend_.sync_directory(dir_);
  });
  return {};
}

// As far as its index knows, which is a file of its own.
std::uint64_t Recovery::synced_of_headless(const std::filesystem::path& path) {
  const auto index = open_checked(backend_, sibling(path, FileKind::index), FileKind::index, identity_);
  if (!index || index->header.synced_position <= index->header.base_position) return 0;
  return index->header.synced_position - index->header.base_position;
}

Result<Recovery::Segment> Recovery::open_segment(Offset base_offset) {
  Segment segment;
  segment.path = segment_path(dir_, FileKind::log, base_offset);
  auto opened = open_checked(backend_, segment.path, FileKind::log, identity_);
  if (!opened) {
    Error error = std::move(opened.error());
    if (error.code == Code::corrupt) error.message += "; restore the file from a backup or replica";
    return std::unexpected(std::move(error));
  }
  segment.opened = std::move(*opened);
  return segment;
}

// Compaction puts the merged file in the place of its first segment before it deletes the others.
bool Recovery::is_merged(const Segment& previous, const Segment& segment) {
  if (!previous.compacted() || segment.base() >= format::segment_end(previous.opened.header)) return false;
  found(RecoveryCase::merged_segment, segment.path, segment.base(), segment.opened.bytes, 0,
        fmt::format("{}: removed, its records are in {}", segment.path.string(),
                    previous.path.filename().string()));
  actions_.push_back([this, path = segment.path] { return remove_segment(backend_, path); });
  return true;
}

SegmentInfo Recovery::sealed_info(const Segment& segment, const Segment& next,
                                  std::int64_t max_timestamp_ns) {
  return SegmentInfo{segment.base_offset(), next.base_offset(),
                     segment.base(),        next.base(),
                     max_timestamp_ns,      format::file_offset(segment.base(), segment.end_of_frames(next)),
                     segment.path,          segment.opened.header.created_ns};
}

Result<SegmentInfo> Recovery::check_sealed(const Segment& segment, const Segment& next) {
  const Position end_of_frames = segment.end_of_frames(next);
  if (next.base() < segment.base() || segment.opened.bytes < format::kBlockBytes ||
      segment.end_of_file() < end_of_frames ||
      (segment.compacted() && format::segment_end(segment.opened.header) != next.base())) {
    return fail(Code::corrupt,
                fmt::format("{}: ends before position {}, where {} begins: records are missing; restore the "
                            "missing part from a backup or replica",
                            segment.path.string(), next.base().value(), next.path.filename().string()));
  }
  if (const std::uint64_t surplus = segment.end_of_file() - end_of_frames; surplus > 0) {
    found(RecoveryCase::sealed_too_long, segment.path, end_of_frames, surplus, 0,
          fmt::format("{}: {} bytes cut off behind position {}, where its frames end; {} follows",
                      segment.path.string(), surplus, end_of_frames.value(), next.path.filename().string()));
    cut(segment, end_of_frames);
  }
  const auto index = read_index(backend_, segment.path, segment.opened.header);
  if (!index) return rebuild_sealed(segment, next, index.error().message);
  const format::IndexEntry end{next.opened.header.base_offset, next.opened.header.base_position};
  if (index->entries.empty() || index->entries.back() != end) {
    return rebuild_sealed(segment, next, "the index does not reach the segment's end");
  }
  const auto times = read_time_index(backend_, segment.path, segment.opened.header);
  if (!times) return rebuild_sealed(segment, next, times.error().message);
  const std::uint64_t covered = times->empty() ? segment.opened.header.base_offset : times->back().offset;
  if (covered != end.offset) {
    return rebuild_sealed(segment, next, "the time index does not reach the segment's end");
  }
  return sealed_info(segment, next, times->empty() ? format::kNoTimestamp : times->back().max_timestamp_ns);
}

Result<SegmentInfo> Recovery::rebuild_sealed(const Segment& segment, const Segment& next,
                                             std::string_view why) {
  SegmentWalk walked = SegmentWalk::begin(segment.opened.header);
  FrameScanner scanner(
      backend_, segment.opened.file, segment.path,
      {segment.base(), segment.base(), static_cast<std::int64_t>(segment.base_offset().value()),
       segment.end_of_frames(next)});
  if (auto done = walked.go(scanner); !done) return std::unexpected(done.error());
  report_.scanned_bytes += walked.walked_bytes;
  if (walked.end.position != segment.end_of_frames(next) || walked.next_offset != next.base_offset()) {
    return std::unexpected(frame_error(
        segment.path, walked.end.position, walked.end.fault,
        fmt::format(", but the log goes on to position {}, offset {}; restore the file from a backup "
                    "or replica",
                    next.base().value(), next.base_offset().value())));
  }
  found(RecoveryCase::index_rebuilt, segment.path, segment.base(), 0, 0,
        fmt::format("{}: index rebuilt ({})", segment.path.string(), why));
  walked.end.position = next.base();
  actions_.push_back([this, path = segment.path, header = segment.opened.header, walked] {
    return write_indexes(backend_, path, header, walked);
  });
  return sealed_info(segment, next, walked.max_timestamp_ns);
}

// The last index entry at which a frame stands, with what the indexes say of all before it.
Result<SegmentWalk> Recovery::confirmed_start(const Segment& segment,
                                              const std::optional<IndexContent>& index) {
  SegmentWalk start = SegmentWalk::begin(segment.opened.header);
  if (!index) return start;
  const auto times = read_time_index(backend_, segment.path, segment.opened.header);
  if (!times) return start;
  std::vector<format::IndexEntry> entries = index->entries;
  for (; !entries.empty(); entries.pop_back()) {
    const format::IndexEntry& entry = entries.back();
    const auto time = std::ranges::find(*times, entry.offset, &format::TimeIndexEntry::offset);
    if (time == times->end() || Position(entry.position) >= segment.end_of_file()) continue;
    FrameScanner probe(backend_, segment.opened.file, segment.path,
                       {segment.base(), Position(entry.position), static_cast<std::int64_t>(entry.offset),
                        segment.end_of_file()});
    const auto step = probe.next();
    if (!step) return std::unexpected(step.error());
    if (step->fault != FrameFault::none) continue;
    start.next_offset = Offset(entry.offset);
    start.max_timestamp_ns = time->max_timestamp_ns;
    start.time_index.assign(times->begin(), std::next(time));
    start.index = std::move(entries);
    return start;
  }
  return start;
}

Result<SegmentWalk> Recovery::walk_last(const Segment& segment, const std::optional<IndexContent>& index,
                                        std::optional<FrameScanner>& scanner, Position limit) {
  auto walked = confirmed_start(segment, index);
  if (!walked) return walked;
  const Position from = walked->index.empty() ? segment.base() : Position(walked->index.back().position);
  scanner.emplace(
      backend_, segment.opened.file, segment.path,
      ScanRange{segment.base(), from, static_cast<std::int64_t>(walked->next_offset.value()), limit});
  if (auto done = walked->go(*scanner); !done) return std::unexpected(done.error());
  report_.scanned_bytes += walked->walked_bytes;
  return walked;
}

Status Recovery::recover_last(const Segment& segment, RecoveredLog& log) {
  if (segment.compacted()) {
    return fail(
        Code::corrupt,
        fmt::format("{}: compaction leaves the last segment alone, so one is missing behind position {}; "
                    "restore it from a backup or replica",
                    segment.path.string(), format::segment_end(segment.opened.header).value()));
  }
  std::optional<IndexContent> index;
  if (auto content = read_index(backend_, segment.path, segment.opened.header); content) {
    index = std::move(*content);
  } else if (const Code code = content.error().code;
             code != Code::corrupt && code != Code::not_found && code != Code::incompatible_layout) {
    // It may be there, and then tells what had been synced: without that nothing is to be judged.
    content.error().message += "; mend that, or remove the index to have it rebuilt";
    return std::unexpected(content.error());
  } else {
    found(RecoveryCase::index_rebuilt, segment.path, segment.base(), 0, 0,
          fmt::format("{}: index to be rebuilt ({})", segment.path.string(), content.error().message));
    log.lacks_mark = true;
  }
  std::optional<Position> mark = options_.known_durable;
  if (index) {
    mark = std::max(mark.value_or(Position(0)), Position(index->header.synced_position));
    if (!index->entries.empty()) mark = std::max(*mark, Position(index->entries.back().position));
  }
  std::optional<FrameScanner> scanner;
  const bool is_cut_short = options_.only_synced && mark && *mark < segment.end_of_file();
  auto walked = walk_last(segment, index, scanner,
                          is_cut_short ? std::max(*mark, segment.base()) : segment.end_of_file());
  if (!walked) return std::unexpected(walked.error());
  if (walked->end.fault == FrameFault::foreign)
    return std::unexpected(frame_error(segment.path, walked->end.position, walked->end.fault, {}));
  if (auto judged = judge_tail(segment, *walked, *scanner, mark); !judged) return judged;

  log.end_position = walked->end.position;
  log.next_offset = walked->next_offset;
  // The last keeper may have died between a write, or the naming of the file, and its sync.
  if (!mark || *mark < log.end_position || log.end_position == segment.base()) sync(segment);
  log.created_ns = segment.opened.header.created_ns;
  log.index = std::move(walked->index);
  log.time_index = std::move(walked->time_index);
  log.segments.push_back({segment.base_offset(), log.next_offset, segment.base(), log.end_position,
                          walked->max_timestamp_ns, format::file_offset(segment.base(), log.end_position),
                          segment.path, log.created_ns});
  return {};
}

Status Recovery::judge_tail(const Segment& segment, const SegmentWalk& walked, FrameScanner& scanner,
                            std::optional<Position> mark) {
  const Position end = walked.end.position;
  const auto remains = scanner.look_behind();
  if (!remains) return std::unexpected(remains.error());
  const std::uint64_t lost = mark && *mark > end ? *mark - end : 0;
  if (remains->valid_frame && (!mark || lost > 0)) {
    return fail(
        Code::corrupt,
        fmt::format("{}: no valid frame at position {} ({}), but records go on at position {}, offset {}: "
                    "the file is damaged, and cutting it off there would drop them; restore it from a "
                    "backup or replica",
                    segment.path.string(), end.value(), format::to_string(walked.end.fault),
                    remains->valid_frame->value(), remains->valid_offset));
  }
  const std::uint64_t bytes = remains->garbage_end - end;
  if (bytes == 0 && lost == 0) return {};
  const auto what = remains->valid_frame ? RecoveryCase::unsynced_gap : RecoveryCase::torn_tail;
  found(
      what, segment.path, end, bytes, lost,
      fmt::format("{}: {} bytes cut off behind position {}, offset {} ({}); {}", segment.path.string(), bytes,
                  end.value(), walked.next_offset.value(), format::to_string(walked.end.fault),
                  lost > 0 ? fmt::format("{} bytes that had been synced are gone, and with them the records "
                                         "from offset {} on: check the disk, and restore the file from a "
                                         "backup or replica if they are wanted",
                                         lost, walked.next_offset.value())
                           : std::string("nothing that had been synced is lost")));
  if (bytes > 0) cut(segment, end);
  return {};
}

// A sync that failed is not to be believed when it is asked for again (RecoveryOptions::only_synced).
Status Recovery::sync_file(const io::File& file) {
  auto synced = backend_.sync_file(file);
  if (!synced) synced.error().code = Code::storage_failed;
  return synced;
}

// Cuts the file off at `end`; space that is reserved again later reads as zeros.
void Recovery::cut(const Segment& segment, Position end) {
  actions_.push_back(
      [this, path = segment.path, bytes = format::file_offset(segment.base(), end)]() -> Status {
        auto file = backend_.open(path, io::OpenMode::write_direct);
        if (!file) return std::unexpected(file.error());
        if (auto done = backend_.truncate(*file, bytes); !done) return done;
        return sync_file(*file);
      });
}

void Recovery::sync(const Segment& segment) {
  actions_.push_back([this, path = segment.path]() -> Status {
    auto file = backend_.open(path, io::OpenMode::write_direct);
    if (!file) return std::unexpected(file.error());
    if (auto done = sync_file(*file); !done) return done;
    return backend_.sync_directory(dir_);
  });
}

void Recovery::pad(const Segment& segment, RecoveredLog& log) {
  const Position end = log.end_position;
  std::uint64_t extent = format::block_up(end) - end;
  if (extent < format::kFrameHeaderBytes) extent += format::kBlockBytes;
  found(RecoveryCase::padded, segment.path, end, extent, 0,
        fmt::format("{}: {} bytes of padding appended at position {}", segment.path.string(), extent,
                    end.value()));
  actions_.push_back([this, path = segment.path, base = segment.base(), end, next = log.next_offset, extent] {
    return write_pad(path, base, end, next, extent);
  });
  log.end_position += extent;
  log.segments.back().end_position = log.end_position;
  log.segments.back().file_bytes = format::file_offset(segment.base(), log.end_position);
}

Status Recovery::write_pad(const std::filesystem::path& path, Position base, Position end, Offset next_offset,
                           std::uint64_t extent) {
  const Position block = format::block_down(end);
  const std::uint64_t file_at = format::file_offset(base, block);
  AlignedBuffer buffer(end - block + extent);
  auto file = backend_.open(path, io::OpenMode::write_direct);
  if (!file) return std::unexpected(file.error());
  const auto got = read_at(backend_, *file, buffer.span().first(format::kBlockBytes), file_at, path);
  if (!got) return std::unexpected(got.error());

  std::byte* const frame = buffer.data() + (end - block);
  format::write_filler(frame, format::FrameType::pad, static_cast<std::uint32_t>(extent), next_offset, 0);
  const std::uint32_t crc = format::frame_crc({frame, extent});
  std::memcpy(frame + offsetof(format::FrameHeader, crc32c), &crc, sizeof crc);
  const std::int64_t result = run_blocking(backend_, [&](std::uint64_t token) {
    backend_.submit_write_and_sync(*file, buffer.span(), file_at, token);
  });
  if (result == static_cast<std::int64_t>(buffer.size())) return {};
  return fail_errno(result < 0 ? static_cast<int>(-result) : EIO,
                    fmt::format("cannot pad '{}'", path.string()));
}

}  // namespace

Result<RecoveredLog> recover_partition(io::Backend& backend, const std::filesystem::path& dir,
                                       const format::SegmentIdentity& identity,
                                       const RecoveryOptions& options, RecoveryReport& report) {
  return Recovery(backend, dir, identity, options, report).run();
}

}  // namespace ringtail::log
