#include "support/single_step.h"

#include <sys/user.h>

#include <algorithm>

namespace ringtail::test {

namespace {

bool is_stopped_by(const Process& child, int signal) {
  const int status = child.wait_for_stop();
  return WIFSTOPPED(status) && WSTOPSIG(status) == signal;
}

// By a breakpoint, which is gone afterwards. A forked child has the function where we have it.
bool run_to(const Process& child, const void* function) {
  auto* const at = const_cast<void*>(function);
  const auto address = reinterpret_cast<std::uintptr_t>(function);
  const long text = ::ptrace(PTRACE_PEEKTEXT, child.pid(), at, nullptr);
  constexpr long kByte = 0xff, kBreak = 0xcc;
  ::ptrace(PTRACE_POKETEXT, child.pid(), at, (text & ~kByte) | kBreak);
  ::ptrace(PTRACE_CONT, child.pid(), nullptr, nullptr);
  if (!is_stopped_by(child, SIGTRAP)) return false;
  ::ptrace(PTRACE_POKETEXT, child.pid(), at, text);
  user_regs_struct registers{};
  ::ptrace(PTRACE_GETREGS, child.pid(), nullptr, &registers);
  registers.rip = address;
  ::ptrace(PTRACE_SETREGS, child.pid(), nullptr, &registers);
  return true;
}

}  // namespace

std::optional<std::uint64_t> take_steps(const Process& child, std::uint64_t steps, const void* from) {
  if (!is_stopped_by(child, SIGSTOP)) return std::nullopt;
  if (from != nullptr && !run_to(child, from)) return std::nullopt;
  std::uint64_t taken = 0;
  while (taken < steps) {
    ::ptrace(PTRACE_SINGLESTEP, child.pid(), nullptr, nullptr);
    if (!is_stopped_by(child, SIGTRAP)) break;  // at the second stop
    ++taken;
  }
  return taken;
}

Deaths choose_deaths(std::uint64_t length, std::uint64_t otherwise, std::uint64_t random) {
  const std::uint64_t points = number_from_environment("RINGTAIL_CRASH_STEPS", otherwise);
  const std::uint64_t stride = points == 0 ? 1 : std::max<std::uint64_t>(1, length / points);
  return {random % stride, stride};
}

}  // namespace ringtail::test
