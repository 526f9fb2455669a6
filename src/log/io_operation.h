// The link between io::Backend's tokens and whoever waits for a completion. A keeper owns one Backend
// for all its partitions: every token given to it is the address of an IoOperation, so that anybody
// who reaps may hand on the completions of others.
//
// Thread safety: as the Backend: one thread. Lifetime: an operation must not move or die between its
// submission and its completion.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>
#include <utility>

#include "io/backend.h"

namespace ringtail::log {

class IoOperation {
 public:
  // Takes note of the result: bytes, or a negative errno. Must not submit: it may run within another
  // partition's submission.
  virtual void complete(std::int64_t result) = 0;

  std::uint64_t token() { return reinterpret_cast<std::uintptr_t>(this); }

 protected:
  ~IoOperation() = default;
};

inline void dispatch(const io::Completion& completion) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel carries 64 bits, not pointers.
  reinterpret_cast<IoOperation*>(static_cast<std::uintptr_t>(completion.token))->complete(completion.result);
}

// Reaps what is finished and hands it on; with `wait`, blocks for at least one if any is in flight.
// Returns how many there were.
inline std::size_t reap_and_dispatch(io::Backend& backend, bool wait) {
  std::array<io::Completion, 64> completions;
  const std::size_t count = backend.reap(completions, wait);
  for (const io::Completion& completion : std::span(completions).first(count)) dispatch(completion);
  return count;
}

// Submits one operation with `submit(token)` and blocks until it is done, handing on the completions
// of others meanwhile. Returns its result.
template <class Submit>
std::int64_t run_blocking(io::Backend& backend, Submit&& submit) {
  struct Waiter final : IoOperation {
    void complete(std::int64_t value) override { result = value, done = true; }
    std::int64_t result = -EIO;
    bool done = false;
  };
  Waiter waiter;
  std::forward<Submit>(submit)(waiter.token());
  while (!waiter.done) {
    // A Backend without anything in flight that has not completed us is broken; do not spin on it.
    if (reap_and_dispatch(backend, true) == 0 && backend.in_flight() == 0) break;
  }
  return waiter.result;
}

}  // namespace ringtail::log
