#include "support/tracer.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <string_view>
#include <utility>

namespace ringtail::test {
namespace {

namespace fs = std::filesystem;

constexpr unsigned long kOptions =
    PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP;
constexpr useconds_t kBetweenLooksUs = 20;

long trace(__ptrace_request request, pid_t thread, std::uintptr_t address = 0, std::uintptr_t data = 0) {
  return ::ptrace(request, thread, reinterpret_cast<void*>(address), reinterpret_cast<void*>(data));
}

std::vector<pid_t> threads_of(pid_t process) {
  std::vector<pid_t> threads;
  std::error_code error;
  for (const auto& task : fs::directory_iterator(fs::path("/proc") / std::to_string(process) / "task", error))
    threads.push_back(static_cast<pid_t>(std::stol(task.path().filename())));
  return threads;
}

sock_filter statement(unsigned code, unsigned value) {
  return {static_cast<std::uint16_t>(code), 0, 0, value};
}

}  // namespace

void offer_calls(std::span<const long> calls) {
  // Of another architecture's calls there are none here; the number alone tells the call.
  std::vector<sock_filter> filter{statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const long call : calls) {
    filter.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<unsigned>(call)});
    filter.push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
  }
  filter.push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);  // until somebody leads: without, a call that stops would fail
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    std::abort();
}

Tracer::Tracer(Process& child) : child_(&child) {
  const int status = child.wait_for_stop();
  if (!WIFSTOPPED(status)) {
    child.forget();
    return;
  }
  process_ = child.pid();
  trace(PTRACE_SETOPTIONS, process_, 0, kOptions | PTRACE_O_EXITKILL);
  threads_[process_] = State::stands;
}

Tracer::Tracer(pid_t process, std::span<const long> calls) : calls_(calls.begin(), calls.end()) {
  // Threads that are born meanwhile are of a thread that is not led yet, or come by the clone event.
  for (bool found = true; found;) {
    found = false;
    for (const pid_t thread : threads_of(process)) {
      if (threads_.contains(thread)) continue;
      if (trace(PTRACE_SEIZE, thread, 0, kOptions) != 0) continue;
      trace(PTRACE_INTERRUPT, thread);
      threads_[thread] = State::runs;
      found = true;
    }
  }
  if (threads_.contains(process)) process_ = process;
}

Tracer::~Tracer() {
  if (is_tracing()) kill();
}

std::optional<Call> Tracer::next(const std::function<bool()>& done) {
  for (const auto& [thread, state] : threads_)
    if (state == State::stands) resume(thread);
  while (is_tracing()) {
    bool heard = false;
    std::vector<pid_t> threads;
    for (const auto& [thread, state] : threads_) threads.push_back(thread);
    for (const pid_t thread : threads) {
      std::optional<Call> met;
      heard = poll(thread, met) || heard;
      if (met) return met;
      if (!is_tracing()) return std::nullopt;
    }
    if (done && done()) return std::nullopt;
    if (!heard) ::usleep(kBetweenLooksUs);
  }
  return std::nullopt;
}

std::uint64_t Tracer::lead(std::uint64_t number, const std::function<bool(const Call&)>& counts,
                           const std::function<bool()>& done) {
  std::uint64_t met = 0;
  while (met < number) {
    const auto call = next(done);
    if (!call) break;
    if (!counts || counts(*call)) ++met;
  }
  return met;
}

// Whether there are news of one thread, which are in `status`. The end of a process that was attached to is left
// for whoever began it.
bool Tracer::hear(pid_t thread, int& status) {
  if (child_ == nullptr && thread == process_) {
    siginfo_t news{};
    if (::waitid(P_PID, static_cast<id_t>(thread), &news, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 &&
        news.si_pid == thread && news.si_code != CLD_STOPPED && news.si_code != CLD_TRAPPED) {
      status = W_EXITCODE(0, SIGKILL);
      return true;
    }
  }
  const pid_t told = ::waitpid(thread, &status, __WALL | WNOHANG);
  if (told < 0 && errno == ECHILD) status = W_EXITCODE(0, SIGKILL);
  return told == thread || (told < 0 && errno == ECHILD);
}

void Tracer::note_birth(pid_t parent) {
  unsigned long born = 0;
  trace(PTRACE_GETEVENTMSG, parent, 0, reinterpret_cast<std::uintptr_t>(&born));
  threads_.try_emplace(static_cast<pid_t>(born), State::runs);
}

// Looks for news of one thread; false when there are none.
bool Tracer::poll(pid_t thread, std::optional<Call>& met) {
  int status = 0;
  if (!hear(thread, status)) return false;
  if (!WIFSTOPPED(status)) {
    note_end(thread, status);
    return true;
  }
  threads_[thread] = State::stands;
  const int signal = WSTOPSIG(status);
  const int event = status >> 16;
  if (event == PTRACE_EVENT_CLONE) note_birth(thread);
  if (event == PTRACE_EVENT_SECCOMP || signal == (SIGTRAP | 0x80)) met = take_call(thread);
  if (met) return true;
  const bool is_ours = event != 0 || signal == SIGTRAP || signal == SIGSTOP || signal == (SIGTRAP | 0x80);
  resume(thread, is_ours ? 0 : signal);
  return true;
}

std::optional<Call> Tracer::take_call(pid_t thread) {
  __ptrace_syscall_info info{};
  if (trace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, reinterpret_cast<std::uintptr_t>(&info)) <= 0)
    return std::nullopt;
  if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
    auto begun = begun_.extract(thread);
    if (begun.empty()) return std::nullopt;
    Call call = begun.mapped();
    call.ended = true;
    call.result = info.exit.rval;
    return call;
  }
  Call call{.thread = thread, .number = static_cast<long>(info.entry.nr)};
  std::ranges::copy(info.entry.args, call.arguments.begin());
  if (!is_wanted(call.number)) return std::nullopt;
  begun_[thread] = call;
  return call;
}

// One that offered itself is stopped at ends of calls only where it was at their beginnings.
void Tracer::resume(pid_t thread, int signal) {
  threads_[thread] = State::runs;
  const bool all_calls = child_ == nullptr || begun_.contains(thread);
  trace(all_calls ? PTRACE_SYSCALL : PTRACE_CONT, thread, 0, static_cast<std::uintptr_t>(signal));
}

void Tracer::note_end(pid_t thread, int status) {
  threads_.erase(thread);
  begun_.erase(thread);
  if (thread != process_) return;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1 - WTERMSIG(status);
  process_ = -1;
  if (child_ != nullptr) child_->forget();
}

void Tracer::freeze() {
  for (const auto& [thread, state] : threads_)
    if (state == State::runs) ::syscall(SYS_tgkill, process_, thread, SIGSTOP);
  for (;;) {
    std::vector<pid_t> running;
    for (const auto& [thread, state] : threads_)
      if (state == State::runs) running.push_back(thread);
    if (running.empty()) return;
    for (const pid_t thread : running) {
      int status = 0;
      if (!hear(thread, status)) continue;
      if (!WIFSTOPPED(status)) {
        note_end(thread, status);
        continue;
      }
      threads_[thread] = State::stands;
      if (status >> 16 == PTRACE_EVENT_CLONE) note_birth(thread);
      if (status >> 16 == PTRACE_EVENT_SECCOMP || WSTOPSIG(status) == (SIGTRAP | 0x80)) take_call(thread);
    }
    ::usleep(kBetweenLooksUs);
  }
}

void Tracer::let_go() {
  if (!is_tracing()) return;
  freeze();
  for (const auto& [thread, state] : threads_) trace(PTRACE_DETACH, thread);
  ::kill(process_, SIGCONT);
  threads_.clear();
  process_ = -1;
}

void Tracer::kill() {
  if (!is_tracing()) return;
  ::kill(process_, SIGKILL);
  // All its threads tell of their ends, its first one last.
  while (is_tracing()) {
    std::vector<pid_t> threads;
    for (const auto& [thread, state] : threads_) threads.push_back(thread);
    for (const pid_t thread : threads) {
      int status = 0;
      if (hear(thread, status) && !WIFSTOPPED(status)) note_end(thread, status);
    }
    ::usleep(kBetweenLooksUs);
  }
}

// --- What a call is about ------------------------------------------------------------------------

std::string Tracer::path_of_descriptor(std::uint64_t descriptor) const {
  const int number = static_cast<int>(descriptor);
  const fs::path of_process = fs::path("/proc") / std::to_string(process_);
  std::error_code error;
  return fs::read_symlink(
             number == AT_FDCWD ? of_process / "cwd" : of_process / "fd" / std::to_string(number), error)
      .string();
}

std::string Tracer::path_at(const Call& call, std::size_t path_argument) const {
  return text_at(call.arguments[path_argument]);
}

std::string Tracer::path_at(const Call& call, std::size_t directory_argument,
                            std::size_t path_argument) const {
  const fs::path path = text_at(call.arguments[path_argument]);
  return path.is_absolute() ? path.string()
                            : (path_of_descriptor(call.arguments[directory_argument]) / path).string();
}

std::string Tracer::path_of(const Call& call) const {
  switch (call.number) {
    case SYS_rename:
    case SYS_unlink:
    case SYS_mkdir:
    case SYS_rmdir: return path_at(call, 0);
    case SYS_openat:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_unlinkat:
    case SYS_mkdirat: return path_at(call, 0, 1);
    case SYS_linkat: return path_at(call, 2, 3);  // the new name: the old one may be a file's that has none
    default: return path_of_descriptor(call.arguments[0]);
  }
}

bool Tracer::changes_files(const Call& call) {
  if (call.number == SYS_openat) return (call.arguments[2] & O_CREAT) != 0;
  return call.number != SYS_io_uring_enter;
}

std::vector<std::byte> Tracer::memory(std::uint64_t address, std::size_t bytes) const {
  std::vector<std::byte> copy(bytes);
  const iovec to{copy.data(), bytes};
  const iovec from{reinterpret_cast<void*>(address), bytes};
  const ssize_t got = ::process_vm_readv(process_, &to, 1, &from, 1, 0);
  copy.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return copy;
}

// Not beyond the page in which it ends: the next one may not be there.
std::string Tracer::text_at(std::uint64_t address) const {
  constexpr std::uint64_t kPage = 4096;
  std::string text;
  for (;;) {
    const auto part = memory(address, kPage - address % kPage);
    if (part.empty()) return text;
    for (const std::byte byte : part) {
      if (byte == std::byte{0}) return text;
      text.push_back(static_cast<char>(byte));
    }
    address += part.size();
  }
}

std::string name_of_call(long number) {
  constexpr std::array<std::pair<long, std::string_view>, 20> kNames{
      {{SYS_write, "write"},         {SYS_pwrite64, "pwrite"},
       {SYS_pwritev, "pwritev"},     {SYS_fsync, "fsync"},
       {SYS_fdatasync, "fdatasync"}, {SYS_ftruncate, "ftruncate"},
       {SYS_fallocate, "fallocate"}, {SYS_openat, "openat"},
       {SYS_rename, "rename"},       {SYS_renameat, "renameat"},
       {SYS_renameat2, "renameat2"}, {SYS_unlink, "unlink"},
       {SYS_unlinkat, "unlinkat"},   {SYS_linkat, "linkat"},
       {SYS_mkdir, "mkdir"},         {SYS_mkdirat, "mkdirat"},
       {SYS_rmdir, "rmdir"},         {SYS_sendmsg, "sendmsg"},
       {SYS_sendto, "sendto"},       {SYS_io_uring_enter, "io_uring_enter"}}};
  const auto* const found = std::ranges::find(kNames, number, &std::pair<long, std::string_view>::first);
  return found == kNames.end() ? "call " + std::to_string(number) : std::string(found->second);
}

}  // namespace ringtail::test
