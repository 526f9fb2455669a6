#include "io/read_ahead.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"

namespace ringtail::io {
namespace {

constexpr std::uint64_t kBlockBytes = 4096;
constexpr std::size_t kLeastBytes = 64 * 1024;
constexpr std::size_t kFirstReadBytes = 64 * 1024;

constexpr std::uint64_t block_down(std::uint64_t offset) { return offset & ~(kBlockBytes - 1); }
constexpr std::uint64_t block_up(std::uint64_t offset) { return block_down(offset + kBlockBytes - 1); }

// No file reaches farther, whatever limit is said to hold.
constexpr std::uint64_t kMostOffset = block_down(std::numeric_limits<std::int64_t>::max());

}  // namespace

ReadAhead::ReadAhead(std::size_t bytes, IoBackend io)
    : bytes_(std::bit_ceil(std::max(bytes, kLeastBytes))), io_(io) {}

Status ReadAhead::start(const File& file, std::string path, std::uint64_t offset) {
  File own(::fcntl(file.fd(), F_DUPFD_CLOEXEC, 0));
  if (!own.is_open()) return fail_errno(errno, fmt::format("cannot take over the open file '{}'", path));
  drop_reads();
  file_ = std::move(own);
  path_ = std::move(path);
  begin_ = ready_ = asked_ = offset;
  next_read_bytes_ = kFirstReadBytes;
  if (backend_ == nullptr) {
    auto backend = make_backend(io_, kReadsPerBuffer);
    if (!backend) return std::unexpected(backend.error());
    backend_ = std::move(*backend);
  }
  return buffer_.size() > 0 ? Status{} : reserve(bytes_);
}

// Replaces the buffer; what is not consumed is read again.
Status ReadAhead::reserve(std::size_t bytes) {
  drop_reads();
  ready_ = asked_ = begin_;
  auto larger = MirroredBuffer::make(bytes);
  if (!larger) return std::unexpected(larger.error());
  buffer_ = std::move(*larger);
  return {};
}

Result<std::span<const std::byte>> ReadAhead::peek(std::size_t at_least, std::uint64_t limit) {
  limit = std::min(limit, kMostOffset);
  const std::uint64_t left = limit > begin_ ? limit - begin_ : 0;
  const std::uint64_t wanted = std::min<std::uint64_t>(std::max<std::size_t>(at_least, 1), left);
  const std::uint64_t needed = begin_ + wanted;
  if (wanted + kBlockBytes > buffer_.size()) {
    if (const Status status = reserve(std::bit_ceil(wanted + kBlockBytes)); !status) {
      return std::unexpected(status.error());
    }
  }
  stopped_by_.reset();
  reap(false);
  submit_ahead(needed, limit);
  while (ready_ < needed && !stopped_by_) {
    reap(true);
    submit_ahead(needed, limit);
  }
  if (ready_ < needed && *stopped_by_ < 0) {
    const auto error = static_cast<int>(-*stopped_by_);
    return fail(
        Code::storage_failed,
        fmt::format("cannot read '{}' at {}: {}", path_, ready_, std::generic_category().message(error)),
        error);
  }
  const std::uint64_t there = std::min(ready_, begin_ + left) - begin_;
  const std::uint64_t handed_out = std::min(there, std::max<std::uint64_t>(wanted, read_bytes()));
  return std::span<const std::byte>(buffer_.data() + begin_ % buffer_.size(), handed_out);
}

// Fills the buffer with reads: whole ones, but for the last before the limit, and for what is wanted
// before `needed` and finds room for less. The block that an earlier limit lay in is read again, which
// puts the same bytes where some of them stand already; but not while those may be handed out, or are being
// read: an encrypted disk puts others there for a moment.
void ReadAhead::submit_ahead(std::uint64_t needed, std::uint64_t limit) {
  const std::uint64_t room_end = block_down(begin_) + buffer_.size();
  while (asked_ < limit && reads_.size() < kReadsPerBuffer && !stopped_by_) {
    const std::uint64_t from = block_down(asked_);
    if (from < asked_ && (asked_ >= needed || !reads_.empty())) return;
    const std::uint64_t missing = needed > from ? block_up(needed) - from : 0;
    const std::uint64_t bytes =
        std::min<std::uint64_t>(std::max<std::uint64_t>(next_read_bytes_, missing), read_bytes());
    const std::uint64_t whole = std::min(from + bytes, block_up(limit));
    if (whole > room_end && asked_ >= needed) return;
    const std::uint64_t to = std::min(whole, room_end);
    const std::span<std::byte> into(buffer_.data() + from % buffer_.size(), to - from);
    asked_ = std::min(to, limit);
    next_read_bytes_ = std::min(2 * next_read_bytes_, read_bytes());
    backend_->submit_read(file_, into, from, first_token_ + reads_.size());
    reads_.push_back({from, asked_, std::nullopt});
    if (bytes < read_bytes() && asked_ >= needed) return;  // not many at once before it is known to go on
  }
}

void ReadAhead::reap(bool wait) {
  std::array<Completion, kReadsPerBuffer> done;
  const std::size_t count = backend_->reap(done, wait);
  for (const Completion& completion : std::span(done).first(count)) {
    reads_[completion.token - first_token_].result = completion.result;
  }
  take_in_order();
}

void ReadAhead::take_in_order() {
  while (!reads_.empty() && reads_.front().result) {
    const Read read = reads_.front();
    reads_.pop_front();
    ++first_token_;
    const std::int64_t result = *read.result;
    const std::uint64_t end = read.from + static_cast<std::uint64_t>(std::max<std::int64_t>(result, 0));
    ready_ = std::max(ready_, std::min(end, read.wanted));
    if (end >= read.wanted) continue;
    // The end of the file, or a failure: what lies behind is not wanted now, and the next peek tries
    // again from here.
    drop_reads();
    asked_ = ready_;
    stopped_by_ = std::min<std::int64_t>(result, 0);
  }
}

void ReadAhead::drop_reads() {
  std::array<Completion, kReadsPerBuffer> ignored;
  while (!reads_.empty() && backend_->in_flight() > 0) backend_->reap(ignored, true);
  first_token_ += reads_.size();
  reads_.clear();
}

}  // namespace ringtail::io
