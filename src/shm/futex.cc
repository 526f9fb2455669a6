#include "shm/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <ctime>

#include "base/clock.h"

namespace ringtail::shm {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);

// The absolute time as the kernel takes it; null for none.
class Deadline {
 public:
  explicit Deadline(std::optional<std::int64_t> ns) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    const std::int64_t at = std::max<std::int64_t>(ns.value_or(0), 0);  // negative times are refused
    time_ = {.tv_sec = at / kSecond, .tv_nsec = at % kSecond};
    is_set_ = ns.has_value();
  }
  const timespec* get() const { return is_set_ ? &time_ : nullptr; }

 private:
  timespec time_;
  bool is_set_;
};

// Any other error, such as a word that is not mapped any more, is for the caller to find by looking.
FutexResult result_of(long returned) {
  if (returned >= 0) return FutexResult::woken;
  switch (errno) {
    case EAGAIN: return FutexResult::changed;
    case ETIMEDOUT: return FutexResult::timed_out;
    default: return FutexResult::interrupted;
  }
}

// Without futex_waitv: sleep on the first word for a millisecond, then look at all.
FutexResult wait_in_slices(std::span<const FutexWaiter> waiters, std::optional<std::int64_t> deadline_ns) {
  constexpr std::int64_t kSliceNs = 1'000'000;
  for (;;) {
    for (const FutexWaiter& waiter : waiters) {
      // SYNC: pairs with the release of whoever changed the word, as the kernel's comparison does.
      if (waiter.word->load(std::memory_order_acquire) != waiter.expected) return FutexResult::changed;
    }
    const std::int64_t slice_end_ns = monotonic_ns() + kSliceNs;
    const bool is_last = deadline_ns && *deadline_ns <= slice_end_ns;
    const std::int64_t until_ns = is_last ? *deadline_ns : slice_end_ns;
    const FutexResult result = futex_wait(*waiters[0].word, waiters[0].expected, until_ns);
    if (result != FutexResult::timed_out || is_last) return result;
  }
}

}  // namespace

FutexResult futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       std::optional<std::int64_t> deadline_ns) {
  // FUTEX_WAIT_BITSET, unlike FUTEX_WAIT, takes an absolute deadline. Not FUTEX_PRIVATE_FLAG: the word
  // is known by its file, not by its address.
  return result_of(::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected, Deadline(deadline_ns).get(),
                             nullptr, FUTEX_BITSET_MATCH_ANY));
}

FutexResult futex_wait_any(std::span<const FutexWaiter> waiters, std::optional<std::int64_t> deadline_ns) {
  static std::atomic<bool> has_waitv{true};
  if (waiters.size() > kMaxFutexWaiters || !has_waitv.load(std::memory_order_relaxed))
    return wait_in_slices(waiters, deadline_ns);

  std::array<futex_waitv, kMaxFutexWaiters> vector;
  for (std::size_t i = 0; i < waiters.size(); ++i) {
    vector[i] = {.val = waiters[i].expected,
                 .uaddr = reinterpret_cast<std::uintptr_t>(waiters[i].word),
                 .flags = FUTEX_32,
                 .__reserved = 0};
  }
  const long returned = ::syscall(SYS_futex_waitv, vector.data(), waiters.size(), 0,
                                  Deadline(deadline_ns).get(), CLOCK_MONOTONIC);
  // Seccomp filters that do not know the call refuse it with either.
  if (returned < 0 && (errno == ENOSYS || errno == EPERM)) {
    has_waitv.store(false, std::memory_order_relaxed);
    return wait_in_slices(waiters, deadline_ns);
  }
  return result_of(returned);
}

void futex_wake(const std::atomic<std::uint32_t>& word, int count) {
  const int saved_errno = errno;
  ::syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0);
  errno = saved_errno;
}

void futex_wake_all(const std::atomic<std::uint32_t>& word) { futex_wake(word, INT_MAX); }

}  // namespace ringtail::shm
