// Sleeping until a 32-bit word in shared memory changes, and waking those who sleep.
//
// Thread and process safety: any thread of any process that maps the word, through whatever mapping,
// also a read-only one. Waiting never returns without the caller having to look again: the word is the
// truth, a wake-up only a hint.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace ringtail::shm {

enum class FutexResult {
  woken,        // by a wake call, or for no reason at all
  changed,      // the word did not have the expected value
  timed_out,    // the deadline passed
  interrupted,  // a signal handler ran
};

// Sleeps while `word` is `expected`, until a wake call or `deadline_ns` of the monotonic clock (none:
// for ever). A wake after the word was changed is never missed: the kernel compares and sleeps in one step.
FutexResult futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       std::optional<std::int64_t> deadline_ns = std::nullopt);

struct FutexWaiter {
  const std::atomic<std::uint32_t>* word;
  std::uint32_t expected;
};

// What one system call can wait for.
inline constexpr std::size_t kMaxFutexWaiters = 128;

// The same for several words at once; the first to change or be woken ends it. Requires at least one.
// With more than kMaxFutexWaiters, and where there is no futex_waitv (before Linux 5.16, and in some
// containers), the words are compared once in a millisecond, and only a change ends the wait at once
// if it is of the first.
FutexResult futex_wait_any(std::span<const FutexWaiter> waiters,
                           std::optional<std::int64_t> deadline_ns = std::nullopt);

// Wakes up to `count` (at least 1) of those who sleep on `word`; the caller has changed it before.
// Keeps errno; may be called from a signal handler. One system call, which does not block.
void futex_wake(const std::atomic<std::uint32_t>& word, int count);
void futex_wake_all(const std::atomic<std::uint32_t>& word);

}  // namespace ringtail::shm
