// Order between a store and a look that follows it, paid for by the other side, who waits.
//
// With A and B zero at first: the light side stores A, calls light_fence() and loads B; the other one stores B, waits for
// kVisibleNs and loads A. At least one of them sees the other's store, as if both had a full barrier between.
//
// What an x86 processor has stored is in its store buffer first, which it empties all the time, also while the kernel or
// a hypervisor runs something else on it; and a load that was executed ahead of its turn is executed anew when it was
// interrupted. So both are a matter of a microsecond, and a thousand of them are waited for.
// membarrier(2) would promise the same without a wait, and a litmus test shows that it does not keep it:
// docs/performance.md, "An order that nobody pays for".
#pragma once

#include <atomic>
#include <cstdint>

namespace ringtail::shm {

// So long after a store everybody sees it, and knows that nobody has looked ahead of it whose own stores before are not
// to be seen by now.
inline constexpr std::int64_t kVisibleNs = 1'000'000;

// Keeps the compiler from exchanging store and load; no instruction.
inline void light_fence() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace ringtail::shm
