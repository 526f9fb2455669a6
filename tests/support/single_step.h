// A stretch of a child's work, through which the test that started it leads it instruction by instruction,
// so that it may be killed behind any of them.
#pragma once

#include <sys/ptrace.h>

#include <csignal>
#include <cstdint>
#include <optional>

#include "support/crash_process.h"

namespace ringtail::test {

// In the child: stops, does what is to be stepped through, and stops again. It must not have been traced yet.
template <class Stretch>
auto offer_steps(const Stretch& stretch) {
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);
  auto result = stretch();
  ::raise(SIGSTOP);
  return result;
}

// In the test: lets a child that comes to its stretch take `steps` instructions of it. How many it took:
// fewer when the stretch was over before. Nothing when the child ended before it came to it. With `from`, a
// function of the program, the stretch begins where it is first called.
std::optional<std::uint64_t> take_steps(const Process& child, std::uint64_t steps,
                                        const void* from = nullptr);

// Behind which instructions of a stretch of `length` a child is to die: every n-th, from a random one on, so
// that it is about as many as RINGTAIL_CRASH_STEPS says (`otherwise`, unless told; 0: all).
struct Deaths {
  std::uint64_t first = 0;
  std::uint64_t stride = 1;
};
Deaths choose_deaths(std::uint64_t length, std::uint64_t otherwise, std::uint64_t random);

}  // namespace ringtail::test
