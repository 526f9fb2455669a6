#include "io/uring_backend.h"
#include "base/logger.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include <fmt/format.h>

namespace ringtail::io {
namespace {

constexpr unsigned kBufferSlots = 4096;
constexpr std::size_t kMaxRegisteredBytes = std::size_t{1} << 30;  // the kernel's limit for one buffer
constexpr std::size_t kMaxTransferBytes = std::size_t{1} << 30;    // below the kernel's 2 GiB - 4 KiB

constexpr std::uint64_t kDataPart = 0;
constexpr std::uint64_t kSyncPart = 1;

std::string errno_text(int error) { return std::generic_category().message(error); }

// ECANCELED: the link broke because the write before it was short, or the thread that submitted the
// operation has ended. Nobody cancels on purpose, so it is done again.
bool is_transient(std::int64_t result) {
  return result == -EINTR || result == -EAGAIN || result == -ECANCELED;
}

std::string_view remedy(int error) {
  switch (error) {
    case EPERM:
    case EACCES:
      return "allow it in the container's seccomp profile, or set sysctl kernel.io_uring_disabled=0";
    case ENOSYS: return "this kernel was built without it, or is older than 5.6";
    case ENOMEM: return "raise the memory-lock limit (ulimit -l)";
    default: return "use the pwrite backend";
  }
}

// Lets the soft limit of locked memory rise to the hard one. Returns whether that gained anything.
bool raise_memlock_limit() {
  rlimit limit;
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_MEMLOCK, &limit) == 0;
}

// How many rings are gone. The kernel may map a new one where another thread's has been, and orders the two.
std::atomic<std::uint64_t> unmapped{0};

}  // namespace

Result<std::unique_ptr<UringBackend>> UringBackend::make(unsigned depth) {
  // No SINGLE_ISSUER, COOP_TASKRUN or DEFER_TASKRUN: they gain nothing with transfers of this size,
  // bind the ring to one thread, and hold a linked sync back until that thread next enters the kernel.
  io_uring ring;
  int result = io_uring_queue_init(depth * 2, &ring, 0);
  if (result == -ENOMEM && raise_memlock_limit()) result = io_uring_queue_init(depth * 2, &ring, 0);
  // Its reads and writes came with Linux 5.6, as did this.
  if (result == 0 && (ring.features & IORING_FEAT_RW_CUR_POS) == 0) {
    io_uring_queue_exit(&ring);
    result = -ENOSYS;
  }
  // SYNC: behind the mapping; pairs with the destructor's increment ahead of giving one back, for this may be the same
  // memory. The kernel has ordered them; ThreadSanitizer cannot see that.
  unmapped.load(std::memory_order_acquire);
  if (result == 0) return std::unique_ptr<UringBackend>(new UringBackend(ring, depth));
  return fail(Code::unsupported,
              fmt::format("io_uring is not available ({}); {}", errno_text(-result), remedy(-result)),
              -result);
}

UringBackend::UringBackend(io_uring ring, unsigned depth)
    : ring_(ring), owner_(::getpid()), operations_(depth), free_(depth) {
  for (std::size_t i = 0; i < free_.size(); ++i) free_[i] = i;
}

UringBackend::~UringBackend() {
  // In a forked child the queues are the parent's, shared: taking completions would steal them.
  if (owner_ == ::getpid()) {
    while (in_kernel() > 0) wait_for_one();
  }
  unmapped.fetch_add(1, std::memory_order_release);  // SYNC: pairs with make's load
  io_uring_queue_exit(&ring_);
}

void UringBackend::submit_write(const File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                                std::uint64_t token) {
  start({.token = token,
         .file_offset = file_offset,
         .data = const_cast<std::byte*>(bytes.data()),
         .bytes = bytes.size(),
         .fd = file.fd(),
         .data_due = true});
}

void UringBackend::submit_write_and_sync(const File& file, std::span<const std::byte> bytes,
                                         std::uint64_t file_offset, std::uint64_t token) {
  start({.token = token,
         .file_offset = file_offset,
         .data = const_cast<std::byte*>(bytes.data()),
         .bytes = bytes.size(),
         .fd = file.fd(),
         .data_due = true,
         .sync_due = true});
}

void UringBackend::submit_sync(const File& file, std::uint64_t token) {
  start({.token = token, .fd = file.fd(), .sync_due = true});
}

void UringBackend::submit_read(const File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                               std::uint64_t token) {
  start({.token = token,
         .file_offset = file_offset,
         .data = bytes.data(),
         .bytes = bytes.size(),
         .fd = file.fd(),
         .is_read = true,
         .data_due = true});
}

void UringBackend::start(const Operation& operation) {
  while (free_.empty()) wait_for_one();
  const std::size_t index = free_.back();
  free_.pop_back();
  operations_[index] = operation;
  queue(index);
  enter(false);
}

void UringBackend::queue(std::size_t index) {
  if (operations_[index].data_due) {
    queue_data(index);
  } else {
    queue_sync(index);
  }
}

void UringBackend::queue_data(std::size_t index) {
  Operation& operation = operations_[index];
  std::byte* const from = operation.data + operation.done;
  const std::uint64_t at = operation.file_offset + operation.done;
  const std::size_t rest = operation.bytes - operation.done;
  const auto length = static_cast<unsigned>(std::min(rest, kMaxTransferBytes));
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
  if (const auto slot = find_slot(from, length)) {
    const auto buffer = static_cast<int>(*slot);
    if (operation.is_read) {
      io_uring_prep_read_fixed(sqe, operation.fd, from, length, at, buffer);
    } else {
      io_uring_prep_write_fixed(sqe, operation.fd, from, length, at, buffer);
    }
  } else if (operation.is_read) {
    io_uring_prep_read(sqe, operation.fd, from, length, at);
  } else {
    io_uring_prep_write(sqe, operation.fd, from, length, at);
  }
  io_uring_sqe_set_data64(sqe, index << 1 | kDataPart);
  ++operation.completions_due;
  if (operation.sync_due && length == rest) {
    sqe->flags |= IOSQE_IO_LINK;
    queue_sync(index);
  }
}

void UringBackend::queue_sync(std::size_t index) {
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
  io_uring_prep_fsync(sqe, operations_[index].fd, IORING_FSYNC_DATASYNC);
  io_uring_sqe_set_data64(sqe, index << 1 | kSyncPart);
  ++operations_[index].completions_due;
}

// Notes one result; when the operation's last is in, finishes it or queues what is still due.
void UringBackend::take(const io_uring_cqe& cqe) {
  const std::size_t index = cqe.user_data >> 1;
  Operation& operation = operations_[index];
  const std::int64_t result = cqe.res;
  if ((cqe.user_data & 1) == kSyncPart) {
    // A sync counts only for data that was there before it began.
    if (result >= 0 && !operation.data_due && !operation.is_parted) operation.sync_due = false;
    operation.is_parted = false;
    // EFAULT, of a sync that has no memory: the submitting thread ended before the link got to it.
    const bool again = is_transient(result) || result == -EFAULT;
    if (result < 0 && !again && operation.error == 0) operation.error = result;
  } else if (result > 0 || (result == 0 && operation.bytes == operation.done)) {
    operation.done += static_cast<std::size_t>(result);
    operation.data_due = operation.done < operation.bytes;
  } else if (operation.is_read && (result == 0 || (result == -EINVAL && operation.done > 0))) {
    operation.data_due = false;  // the end; a direct read going on from an unaligned end says EINVAL
  } else if (result == 0) {
    operation.error = -EIO;  // a write without progress and cause: going on would never end
  } else if (result == -EFAULT && !operation.faulted) {
    operation.faulted = true;  // may mean the same here, or bad memory: the second try tells
  } else if (!is_transient(result)) {
    operation.error = result;
  }
  if (--operation.completions_due > 0) return;
  if (operation.error == 0 && (operation.data_due || operation.sync_due)) return queue(index);
  const auto done = static_cast<std::int64_t>(operation.done);
  finished_.push_back({operation.token, operation.error != 0 ? operation.error : done});
  free_.push_back(index);
}

// Hands queued entries to the kernel and, with `wait`, blocks until one is done.
void UringBackend::enter(bool wait) {
  const int result = wait ? io_uring_submit_and_wait(&ring_, 1) : io_uring_submit(&ring_);
  part_last();
  // EAGAIN, EBUSY: the kernel is short of memory or wants completions taken first. The entries stay
  // queued, and the next call hands them over.
  if (result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY) return;
  // The kernel may or may not use our buffers now, so neither success nor failure can be reported.
  logger().critical("io_uring_enter failed ({}); the state of operations in flight is unknown",
                    errno_text(-result));
  std::abort();
}

// A chain ends where the kernel has taken no more, short of memory for a request: a sync that it takes later does not
// wait for its write any more.
void UringBackend::part_last() {
  if (io_uring_sq_ready(&ring_) == 0) return;
  const unsigned head = io_uring_smp_load_acquire(ring_.sq.khead);
  const io_uring_sqe& next = ring_.sq.sqes[head & *ring_.sq.kring_mask];
  Operation& operation = operations_[next.user_data >> 1];
  operation.is_parted = (next.user_data & 1) == kSyncPart && operation.data_due;
}

// Takes what is done, without waiting.
void UringBackend::collect() {
  std::array<io_uring_cqe*, 32> cqes;
  while (const unsigned count = io_uring_peek_batch_cqe(&ring_, cqes.data(), cqes.size())) {
    for (unsigned i = 0; i < count; ++i) take(*cqes[i]);
    io_uring_cq_advance(&ring_, count);
  }
  if (io_uring_sq_ready(&ring_) > 0) enter(false);
}

void UringBackend::wait_for_one() {
  enter(true);
  collect();
}

std::size_t UringBackend::reap(std::span<Completion> out, bool wait) {
  collect();
  while (wait && finished_.empty() && in_kernel() > 0) wait_for_one();
  const std::size_t count = std::min(out.size(), finished_.size());
  std::copy_n(finished_.begin(), count, out.begin());
  finished_.erase(finished_.begin(), finished_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

// --- Registered buffers --------------------------------------------------------------------------

void UringBackend::register_buffer(std::span<const std::byte> memory) {
  for (std::size_t at = 0; at < memory.size(); at += kMaxRegisteredBytes) {
    const std::size_t bytes = std::min(kMaxRegisteredBytes, memory.size() - at);
    if (!register_chunk(memory.data() + at, bytes)) return;
  }
}

void UringBackend::unregister_buffer(std::span<const std::byte> memory) {
  auto it = registered_.lower_bound(memory.data());
  while (it != registered_.end() && it->first < memory.data() + memory.size()) {
    update_slot(it->second.slot, nullptr, 0);
    free_slots_.push_back(it->second.slot);
    it = registered_.erase(it);
  }
}

bool UringBackend::register_chunk(const std::byte* begin, std::size_t bytes) {
  int result = make_buffer_table();
  if (result == 0 && free_slots_.empty()) result = -ENOSPC;
  if (result == 0) result = update_slot(free_slots_.back(), begin, bytes);
  if (result == -ENOMEM && raise_memlock_limit()) result = update_slot(free_slots_.back(), begin, bytes);
  if (result >= 0) {
    registered_.emplace(begin, Registered{bytes, free_slots_.back()});
    free_slots_.pop_back();
    return true;
  }
  if (!told_unregistered_) {
    told_unregistered_ = true;
    logger().warn(
        "cannot register {} bytes with io_uring ({}); writes are a little slower. "
        "Raise the memory-lock limit (ulimit -l) above the size of all rings",
        bytes, errno_text(-result));
  }
  return false;
}

int UringBackend::make_buffer_table() {
  if (has_buffer_table_) return 0;
  const int result = io_uring_register_buffers_sparse(&ring_, kBufferSlots);
  if (result < 0) return result;
  has_buffer_table_ = true;
  free_slots_.resize(kBufferSlots);
  for (unsigned i = 0; i < kBufferSlots; ++i) free_slots_[i] = kBufferSlots - 1 - i;
  return 0;
}

int UringBackend::update_slot(unsigned slot, const std::byte* begin, std::size_t bytes) {
  const iovec memory{const_cast<std::byte*>(begin), bytes};
  const __u64 tag = 0;
  return io_uring_register_buffers_update_tag(&ring_, slot, &memory, &tag, 1);
}

std::optional<unsigned> UringBackend::find_slot(const std::byte* begin, std::size_t bytes) const {
  const auto after = registered_.upper_bound(begin);
  if (after == registered_.begin()) return std::nullopt;
  const auto& [start_of_buffer, buffer] = *std::prev(after);
  const auto skipped = static_cast<std::size_t>(begin - start_of_buffer);
  if (skipped > buffer.bytes || bytes > buffer.bytes - skipped) return std::nullopt;
  return buffer.slot;
}

}  // namespace ringtail::io
