#include "log/segment_writer.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <tuple>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/result.h"

namespace ringtail::log {
namespace {

// Without a sync to serve, blocks wait until that much stands together: fewer, larger writes.
constexpr std::uint64_t kEagerBytes = 256 << 10;
// What a sync finds unwritten is copied up to this size, for the sake of a single linked write.
constexpr std::uint64_t kBounceBytes = 64 << 10;

}  // namespace

SegmentWriter::SegmentWriter(io::Backend& backend, const SegmentIdentity& identity,
                             const std::filesystem::path& dir, const TopicConfig& config,
                             const RecoveredLog& recovered)
    : backend_(backend),
      identity_(identity),
      dir_(dir),
      config_(config),
      segments_(recovered.segments),
      assigned_end_(recovered.end_position),
      assigned_offset_(recovered.next_offset),
      end_(recovered.end_position),
      end_offset_(recovered.next_offset),
      next_block_(format::block_down(end_)),
      tail_(end_),
      written_(end_),
      durable_(end_),
      durable_offset_(end_offset_),
      bounce_(kBounceBytes),
      sync_end_(end_),
      sync_wanted_(end_) {
  for (WriteOperation& operation : writes_) operation.writer = this;
  sync_.writer = this;
}

SegmentWriter::~SegmentWriter() {
  while (busy() && (reap_and_dispatch(backend_, true) > 0 || backend_.in_flight() > 0)) {
  }
  // Should this fail, recovery removes the file.
  if (prepared_) std::ignore = backend_.unlink(prepared_->path);
}

void SegmentWriter::set_source(const SourceWindow& source) {
  assert(durable_ == end_ && source.base_position <= end_);
  assert(source.base_position == format::block_down(source.base_position));
  source_ = source;
}

Status SegmentWriter::read_last_block(std::span<std::byte> block) {
  assert(durable_ == end_);
  if (!active_) return {};
  const SegmentInfo& last = segments_.back();
  auto read = read_at(backend_, active_->file, block,
                      format::file_offset(last.base_position, format::block_down(end_)), last.path);
  return read ? Status{} : std::unexpected(read.error());
}

void SegmentWriter::append(const FrameRun& run) {
  assert(run.position == end_ && run.first_offset == end_offset_ && run.bytes % 8 == 0);
  runs_.push_back(run);
  end_ += run.bytes;
  end_offset_ = run.next_offset;
}

void SegmentWriter::request_sync() { sync_wanted_ = end_; }

void SegmentWriter::pump() {
  if (!failure_ && active_) {
    for (const auto* index : {active_->index.get(), active_->time_index.get()}) {
      if (index->failure()) failure_ = index->failure();
    }
  }
  if (failure_) return;
  assign_runs();
  if (roll_wanted()) roll_if_due();
  if (failure_ || !active_) return;
  submit_waiting();
  begin_sync();
  submit_blocks();
  submit_tail();
  continue_sync();
  active_->index->pump();
  active_->time_index->pump();
}

// --- Writes --------------------------------------------------------------------------------------

void SegmentWriter::submit_blocks() {
  const Position whole_end = format::block_down(assigned_end_);
  const bool pressing = sync_state_ == SyncState::writing && next_block_ < sync_end_;
  if (!pressing && (whole_end <= next_block_ || whole_end - next_block_ < kEagerBytes)) return;
  while (next_block_ < whole_end) {
    WriteOperation* const operation = free_operation();
    if (operation == nullptr) return;
    operation->begin = next_block_;
    operation->new_bytes = std::max(next_block_, tail_);
    operation->bounced = operation->syncs = false;
    // Two writes of one block have no order: the whole block waits until its tail is written.
    if (tail_in_flight() && tail_ > next_block_) {
      operation->end = next_block_ = next_block_ + format::kBlockBytes;
      operation->state = WriteOperation::State::waiting;
      continue;
    }
    const Position end = std::min(whole_end, next_block_ + kMaxWriteBytes);
    next_block_ += contiguous(next_block_, end).size();
    operation->end = next_block_;
    submit(*operation);
  }
}

void SegmentWriter::submit_waiting() {
  if (tail_in_flight()) return;
  for (WriteOperation& operation : writes_) {
    if (operation.state == WriteOperation::State::waiting) submit(operation);
  }
}

void SegmentWriter::submit(WriteOperation& operation) {
  operation.state = WriteOperation::State::in_flight;
  operation.submitted_ns = monotonic_ns();
  const auto bytes = operation.bounced
                         ? bounce_.span().first(format::block_up(operation.end) - operation.begin)
                         : contiguous(operation.begin, operation.end);
  const std::uint64_t at = format::file_offset(active_info().base_position, operation.begin);
  if (operation.syncs) {
    backend_.submit_write_and_sync(active_->file, bytes, at, operation.token());
  } else {
    backend_.submit_write(active_->file, bytes, at, operation.token());
  }
}

void SegmentWriter::WriteOperation::complete(std::int64_t result) {
  state = State::free;
  const std::uint64_t bytes = (bounced ? format::block_up(end) : end) - begin;
  if (result != static_cast<std::int64_t>(bytes)) {
    writer->fail_with(result < 0 ? static_cast<int>(-result) : EIO,
                      fmt::format("cannot write {} bytes of position {}", bytes, begin.value()));
  }
  if (writer->failure_) {
    if (syncs) writer->sync_state_ = SyncState::idle;  // whatever came of it: nothing is believed any more
    return;
  }
  if (writer->figures_ != nullptr)
    (syncs ? writer->figures_->syncs : writer->figures_->writes).record(monotonic_ns() - submitted_ns);
  writer->update_written();
  if (syncs) writer->became_durable(end);
}

SegmentWriter::WriteOperation* SegmentWriter::free_operation() {
  const auto found = std::ranges::find(writes_, WriteOperation::State::free, &WriteOperation::state);
  return found == writes_.end() ? nullptr : &*found;
}

bool SegmentWriter::tail_in_flight() const {
  return std::ranges::any_of(writes_, [](const WriteOperation& operation) {
    return operation.state == WriteOperation::State::in_flight && operation.bounced;
  });
}

std::size_t SegmentWriter::writes_in_flight() const {
  return kMaxWrites - static_cast<std::size_t>(
                          std::ranges::count(writes_, WriteOperation::State::free, &WriteOperation::state));
}

bool SegmentWriter::busy() const {
  return sync_state_ == SyncState::syncing ||
         std::ranges::count(writes_, WriteOperation::State::in_flight, &WriteOperation::state) > 0 ||
         (active_ && (active_->index->busy() || active_->time_index->busy()));
}

std::span<const std::byte> SegmentWriter::contiguous(Position begin, Position end) const {
  const std::uint64_t at = (begin - source_.base_position) % source_.bytes;
  return {source_.base + at, std::min(end - begin, source_.bytes - at)};
}

void SegmentWriter::fill_bounce(Position begin, Position end) {
  std::byte* to = bounce_.data();
  for (Position p = begin; p < end;) {
    const auto bytes = contiguous(p, end);
    std::memcpy(to, bytes.data(), bytes.size());
    to += bytes.size();
    p += bytes.size();
  }
  std::memset(to, 0, format::block_up(end) - end);
}

void SegmentWriter::update_written() {
  Position written = std::max(next_block_, tail_);
  for (const WriteOperation& operation : writes_) {
    if (operation.state != WriteOperation::State::free) written = std::min(written, operation.new_bytes);
  }
  written_ = written;
}

// --- Syncs ---------------------------------------------------------------------------------------

void SegmentWriter::begin_sync() {
  if (sync_state_ != SyncState::idle || sync_wanted_ <= durable_ || assigned_end_ <= durable_) return;
  sync_end_ = assigned_end_;
  sync_state_ = submit_linked() ? SyncState::syncing : SyncState::writing;
}

// All that is unwritten as one write with its sync, if it is small enough and nothing else is under way.
bool SegmentWriter::submit_linked() {
  const Position begin = next_block_;
  if (writes_in_flight() > 0 || written_ >= sync_end_) return false;
  const bool whole_blocks = sync_end_ == format::block_down(sync_end_);
  const std::uint64_t bytes = format::block_up(sync_end_) - begin;
  const bool direct = whole_blocks && bytes <= kMaxWriteBytes && contiguous(begin, sync_end_).size() == bytes;
  if (!direct && bytes > kBounceBytes) return false;

  WriteOperation& operation = *free_operation();
  operation.begin = begin;
  operation.new_bytes = std::max(begin, tail_);
  operation.end = sync_end_;
  operation.bounced = !direct;
  operation.syncs = true;
  if (!direct) fill_bounce(begin, sync_end_);
  next_block_ = format::block_down(sync_end_);
  tail_ = sync_end_;
  submit(operation);
  return true;
}

// The block that the sync's end lies in, unless it goes out whole with what came after.
void SegmentWriter::submit_tail() {
  if (sync_state_ != SyncState::writing || next_block_ != format::block_down(sync_end_) ||
      tail_ >= sync_end_ || next_block_ == sync_end_) {
    return;
  }
  WriteOperation* const operation = free_operation();
  if (operation == nullptr) return;
  operation->begin = next_block_;
  operation->new_bytes = std::max(next_block_, tail_);
  operation->end = tail_ = sync_end_;
  operation->bounced = true;
  operation->syncs = false;
  fill_bounce(next_block_, sync_end_);
  submit(*operation);
}

void SegmentWriter::continue_sync() {
  if (sync_state_ != SyncState::writing || written_ < sync_end_) return;
  sync_state_ = SyncState::syncing;
  sync_.submitted_ns = monotonic_ns();
  backend_.submit_sync(active_->file, sync_.token());
}

void SegmentWriter::SyncOperation::complete(std::int64_t result) {
  if (result < 0) {
    // What the sync covered may be lost although a second sync would succeed; so there is none.
    writer->sync_state_ = SyncState::idle;
    writer->fail_with(static_cast<int>(-result), "cannot sync");
  } else if (!writer->failure_) {
    if (writer->figures_ != nullptr) writer->figures_->syncs.record(monotonic_ns() - submitted_ns);
    writer->became_durable(writer->sync_end_);
  } else {
    writer->sync_state_ = SyncState::idle;
  }
}

void SegmentWriter::became_durable(Position position) {
  sync_state_ = SyncState::idle;
  durable_ = position;
  while (assigned_runs_ > 0 && runs_.front().position + runs_.front().bytes <= position) {
    index_run(runs_.front());
    durable_offset_ = runs_.front().next_offset;
    runs_.pop_front();
    --assigned_runs_;
  }
  SegmentInfo& info = active_info();
  info.end_position = durable_;
  info.next_offset = durable_offset_;
  info.file_bytes = format::file_offset(info.base_position, durable_);
  active_->index->set_synced(durable_, durable_offset_);
}

// Entries stand at the beginnings of runs, at least index.interval.bytes apart.
void SegmentWriter::index_run(const FrameRun& run) {
  SegmentInfo& info = active_info();
  const auto entries = active_->index->entries();
  const Position last = entries.empty() ? info.base_position : Position(entries.back().second);
  if (run.position - last >= static_cast<std::uint64_t>(config_.index_interval_bytes)) {
    active_->index->add(raw(format::IndexEntry{run.first_offset.value(), run.position.value()}));
    const auto times = active_->time_index->entries();
    const Offset covered = times.empty() ? info.base_offset : Offset(times.back().second);
    if (run.first_offset > covered) {
      active_->time_index->add(raw(format::TimeIndexEntry{info.max_timestamp_ns, run.first_offset.value()}));
    }
  }
  info.max_timestamp_ns = std::max(info.max_timestamp_ns, run.max_timestamp_ns);
}

void SegmentWriter::fail_with(int os_errno, std::string_view what) {
  if (failure_) return;
  Error error = system_error(os_errno, fmt::format("{}: {}", active_info().path.string(), what));
  error.code = Code::storage_failed;
  error.message += "; the partition refuses records until the log is reopened";
  failure_ = std::move(error);
}

Status SegmentWriter::flush_blocking() {
  while (true) {
    request_sync();
    pump();
    if (failure_) return std::unexpected(*failure_);
    if (durable_ == end_) break;
    if (busy()) {
      reap_and_dispatch(backend_, true);
    } else if (stalled_) {
      return std::unexpected(*stalled_);
    } else if (wants_prepared()) {
      auto prepared = prepare_segment(backend_, dir_, prepared_bytes());
      if (!prepared) return std::unexpected(prepared.error());
      offer(std::move(*prepared));
    }
  }
  if (!active_) return {};
  for (const auto* index : {&active_->index, &active_->time_index}) {
    if (auto flushed = (*index)->flush(); !flushed) {
      failure_ = flushed.error();
      return flushed;
    }
  }
  return {};
}

}  // namespace ringtail::log
