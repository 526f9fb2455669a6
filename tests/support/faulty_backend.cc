#include "support/faulty_backend.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"

namespace ringtail::testing {
namespace {

std::string link_of(const io::File& file) { return fmt::format("/proc/self/fd/{}", file.fd()); }

std::string path_of(const io::File& file) {
  std::error_code error;
  return std::filesystem::read_symlink(link_of(file), error).string();
}

bool matches(std::string_view path, std::string_view part) {
  return path.find(part) != std::string_view::npos;
}

// Through a descriptor of its own without O_DIRECT, so that a tear may lie anywhere in a block.
void write_torn(const io::File& file, std::span<const std::byte> bytes, std::uint64_t file_offset) {
  const io::File buffered(::open(link_of(file).c_str(), O_WRONLY | O_CLOEXEC));
  const ssize_t written =
      ::pwrite(buffered.fd(), bytes.data(), bytes.size(), static_cast<off_t>(file_offset));
  if (written != static_cast<ssize_t>(bytes.size())) std::abort();  // the test's own setup is broken
}

}  // namespace

std::string_view to_string(Op op) {
  constexpr std::array<std::string_view, 10> kNames{"open",   "preallocate", "truncate",       "sync_file",
                                                    "rename", "unlink",      "sync_directory", "write",
                                                    "sync",   "read"};
  return kNames[static_cast<std::size_t>(op)];
}

// --- The script ----------------------------------------------------------------------------------

void FaultyBackend::fail(Op op, std::string path_part, int error_number, unsigned nth, unsigned times) {
  const std::scoped_lock lock(mutex_);
  faults_.push_back({op, std::move(path_part), error_number, nth - 1, times, std::nullopt});
}

void FaultyBackend::tear_write(std::string path_part, std::size_t bytes, unsigned nth) {
  const std::scoped_lock lock(mutex_);
  faults_.push_back({Op::write, std::move(path_part), EIO, nth - 1, 1, bytes});
}

void FaultyBackend::hold(Op op, std::string path_part) {
  const std::scoped_lock lock(mutex_);
  holds_.push_back({op, std::move(path_part)});
}

void FaultyBackend::release() {
  const std::scoped_lock lock(mutex_);
  holds_.clear();
  for (auto& [id, operation] : pending_) operation.held = false;
  ready_.insert(ready_.end(), held_.begin(), held_.end());
  held_.clear();
  released_.notify_all();
}

void FaultyBackend::set_disk_full(bool full) {
  const std::scoped_lock lock(mutex_);
  disk_full_ = full;
}

void FaultyBackend::clear_faults() {
  const std::scoped_lock lock(mutex_);
  faults_.clear();
  disk_full_ = false;
}

std::vector<Event> FaultyBackend::events() const {
  const std::scoped_lock lock(mutex_);
  return events_;
}

std::size_t FaultyBackend::count(Op op, std::string_view path_part) const {
  const std::scoped_lock lock(mutex_);
  return static_cast<std::size_t>(std::ranges::count_if(
      events_, [&](const Event& event) { return event.op == op && matches(event.path, path_part); }));
}

std::size_t FaultyBackend::held() const {
  const std::scoped_lock lock(mutex_);
  return held_.size();
}

void FaultyBackend::clear_events() {
  const std::scoped_lock lock(mutex_);
  events_.clear();
}

std::optional<FaultyBackend::Fault> FaultyBackend::note(Event event) {
  std::optional<Fault> met;
  if (event.op == Op::preallocate && disk_full_) met = Fault{event.op, "", ENOSPC, 0, 1, std::nullopt};
  for (Fault& fault : faults_) {
    if (fault.op != event.op || fault.times == 0 || !matches(event.path, fault.path_part)) continue;
    if (fault.skip > 0) {
      --fault.skip;
    } else if (!met) {
      if (fault.times != kForever) --fault.times;
      met = fault;
    }
  }
  if (met) event.injected_errno = met->error_number;
  events_.push_back(std::move(event));
  return met;
}

Status FaultyBackend::note_metadata(Event event) {
  const std::scoped_lock lock(mutex_);
  const std::string what = fmt::format("injected failure of {} on '{}'", to_string(event.op), event.path);
  const auto fault = note(std::move(event));
  if (!fault) return {};
  return fail_errno(fault->error_number, what);
}

// --- Metadata ------------------------------------------------------------------------------------

Result<io::File> FaultyBackend::open(const std::filesystem::path& path, io::OpenMode mode) {
  if (auto status = note_metadata({Op::open, path.string()}); !status) {
    return std::unexpected(status.error());
  }
  return inner_->open(path, mode);
}

Status FaultyBackend::preallocate(const io::File& file, std::uint64_t bytes) {
  const Status status = note_metadata({Op::preallocate, path_of(file), 0, bytes});
  return status ? inner_->preallocate(file, bytes) : status;
}

Status FaultyBackend::truncate(const io::File& file, std::uint64_t bytes) {
  const Status status = note_metadata({Op::truncate, path_of(file), 0, bytes});
  return status ? inner_->truncate(file, bytes) : status;
}

Status FaultyBackend::sync_file(const io::File& file) {
  const Status status = note_metadata({Op::sync_file, path_of(file)});
  return status ? inner_->sync_file(file) : status;
}

Status FaultyBackend::rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  const Status status = note_metadata({Op::rename, to.string()});
  return status ? inner_->rename(from, to) : status;
}

Status FaultyBackend::unlink(const std::filesystem::path& path) {
  const Status status = note_metadata({Op::unlink, path.string()});
  return status ? inner_->unlink(path) : status;
}

Status FaultyBackend::sync_directory(const std::filesystem::path& dir) {
  const Status status = note_metadata({Op::sync_directory, dir.string()});
  return status ? inner_->sync_directory(dir) : status;
}

// --- Data ----------------------------------------------------------------------------------------

void FaultyBackend::submit_write(const io::File& file, std::span<const std::byte> bytes,
                                 std::uint64_t file_offset, std::uint64_t token) {
  const std::scoped_lock lock(mutex_);
  const std::string path = path_of(file);
  const bool held = is_held(Op::write, path);
  if (const auto fault = note({Op::write, path, file_offset, bytes.size()})) {
    if (fault->torn_bytes) {
      write_torn(file, bytes.first(std::min(*fault->torn_bytes, bytes.size())), file_offset);
    }
    return finish({token, -fault->error_number}, held);
  }
  inner_->submit_write(file, bytes, file_offset, pass_on(token, held));
}

void FaultyBackend::submit_write_and_sync(const io::File& file, std::span<const std::byte> bytes,
                                          std::uint64_t file_offset, std::uint64_t token) {
  const std::scoped_lock lock(mutex_);
  const std::string path = path_of(file);
  const bool held = is_held(Op::write, path) || is_held(Op::sync, path);
  if (const auto fault = note({Op::write, path, file_offset, bytes.size()})) {
    if (fault->torn_bytes) {
      write_torn(file, bytes.first(std::min(*fault->torn_bytes, bytes.size())), file_offset);
    }
    return finish({token, -fault->error_number}, held);
  }
  if (const auto fault = note({Op::sync, path})) {
    return inner_->submit_write(file, bytes, file_offset, pass_on(token, held, fault->error_number));
  }
  inner_->submit_write_and_sync(file, bytes, file_offset, pass_on(token, held));
}

void FaultyBackend::submit_sync(const io::File& file, std::uint64_t token) {
  const std::scoped_lock lock(mutex_);
  const std::string path = path_of(file);
  const bool held = is_held(Op::sync, path);
  if (const auto fault = note({Op::sync, path})) return finish({token, -fault->error_number}, held);
  inner_->submit_sync(file, pass_on(token, held));
}

void FaultyBackend::submit_read(const io::File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                                std::uint64_t token) {
  const std::scoped_lock lock(mutex_);
  const std::string path = path_of(file);
  const bool held = is_held(Op::read, path);
  if (const auto fault = note({Op::read, path, file_offset, bytes.size()})) {
    return finish({token, -fault->error_number}, held);
  }
  inner_->submit_read(file, bytes, file_offset, pass_on(token, held));
}

std::size_t FaultyBackend::reap(std::span<io::Completion> out, bool wait) {
  take_finished(false);
  std::unique_lock lock(mutex_);
  while (wait && ready_.empty() && (!held_.empty() || inner_->in_flight() > 0)) {
    if (inner_->in_flight() > 0) {
      lock.unlock();
      take_finished(true);
      lock.lock();
    } else {
      released_.wait(lock);
    }
  }
  const std::size_t count = std::min(out.size(), ready_.size());
  std::copy_n(ready_.begin(), count, out.begin());
  ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

std::size_t FaultyBackend::in_flight() const {
  const std::scoped_lock lock(mutex_);
  return pending_.size() + ready_.size() + held_.size();
}

bool FaultyBackend::is_held(Op op, std::string_view path) const {
  return std::ranges::any_of(
      holds_, [&](const Hold& hold) { return hold.op == op && matches(path, hold.path_part); });
}

std::uint64_t FaultyBackend::pass_on(std::uint64_t token, bool held, int error_number) {
  pending_.emplace(next_id_, Pending{token, held, error_number});
  return next_id_++;
}

void FaultyBackend::finish(io::Completion completion, bool held) {
  (held ? held_ : ready_).push_back(completion);
}

// Not under the mutex while it waits, so that the script can be changed meanwhile.
void FaultyBackend::take_finished(bool wait) {
  std::array<io::Completion, 64> done;
  const std::size_t count = inner_->reap(done, wait);
  const std::scoped_lock lock(mutex_);
  for (std::size_t i = 0; i < count; ++i) {
    const auto operation = pending_.extract(done[i].token);
    const Pending& pending = operation.mapped();
    const bool failed = pending.error_number != 0 && done[i].result >= 0;
    finish({pending.token, failed ? -pending.error_number : done[i].result}, pending.held);
  }
}

}  // namespace ringtail::testing
