// A 16-byte compare-and-set on two neighbouring shared 64-bit words: the term's tail and, behind it,
// the time of its last append. x86-64 `cmpxchg16b`; lock-free on every CPU of the last fifteen years.
#pragma once

#include <atomic>
#include <cstdint>

#include "shm/control.h"

namespace ringtail::log {

struct WideWord {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};

// Two relaxed loads: a torn pair only makes the compare-and-set that follows fail.
inline WideWord wide_load(const shm::Shared<std::uint64_t>* low) {
  const auto* high = reinterpret_cast<const shm::Shared<std::uint64_t>*>(low + 1);
  return {low->load(std::memory_order_relaxed), high->load(std::memory_order_relaxed)};
}

// True when the pair was `seen` and is now `desired`; otherwise `seen` is what was found.
// Requires `low` aligned to 16. A full barrier.
inline bool wide_compare_exchange(shm::Shared<std::uint64_t>* low, WideWord& seen, WideWord desired) {
  __extension__ using Wide [[gnu::may_alias]] = unsigned __int128;
  auto* at = reinterpret_cast<Wide*>(low);
  const auto pack = [](WideWord w) { return static_cast<Wide>(w.high) << 64 | w.low; };
  const Wide expected = pack(seen);
  // SYNC: a full barrier, as every locked instruction; partners are named at the callers.
  const Wide found = __sync_val_compare_and_swap(at, expected, pack(desired));
  if (found == expected) return true;
  seen = {static_cast<std::uint64_t>(found), static_cast<std::uint64_t>(found >> 64)};
  return false;
}

}  // namespace ringtail::log
