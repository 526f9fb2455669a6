// A process that a test leads from one of its system calls to the next, so that it may be killed, or made to
// stand still, right before or right behind any of them.
//
// Two ways to get hold of one. A child of the test offers itself: a filter of the kernel's stops it at the chosen
// calls only, and it runs at full speed between them. Any other process is attached to while it runs; then every
// call stops it, those that were not chosen for a moment.
//
// Thread safety: for the one thread of a test. Lifetime: a process that is still led when its Tracer goes is killed.
#pragma once

#include <sys/syscall.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "support/crash_process.h"

namespace ringtail::test {

// The calls by which a process changes files and their names.
inline constexpr std::array<long, 18> kFileCalls{
    SYS_write,  SYS_pwrite64, SYS_pwritev,  SYS_fsync,     SYS_fdatasync, SYS_ftruncate,
    SYS_openat, SYS_rename,   SYS_renameat, SYS_renameat2, SYS_unlink,    SYS_unlinkat,
    SYS_linkat, SYS_mkdir,    SYS_mkdirat,  SYS_rmdir,     SYS_fallocate, SYS_io_uring_enter};

// One system call of a thread that stands still at its beginning or its end.
struct Call {
  pid_t thread = 0;
  long number = 0;
  std::array<std::uint64_t, 6> arguments{};
  bool ended = false;
  std::int64_t result = 0;  // once it has ended; a negative errno
};

// In the child: from now on it stops at each of `calls`; it waits here for the test to lead it on.
void offer_calls(std::span<const long> calls = kFileCalls);

class Tracer {
 public:
  // Of a child that comes to offer_calls.
  explicit Tracer(Process& child);
  // Of a process that runs. False from is_tracing() when it cannot be had.
  Tracer(pid_t process, std::span<const long> calls);
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;
  ~Tracer();

  bool is_tracing() const { return process_ > 0; }
  pid_t process() const { return process_; }
  // Lets everybody go on until a thread stands at the beginning or the end of one of the calls. Nothing when the
  // process has ended (then is_tracing() is false), or `done` has said so before.
  std::optional<Call> next(const std::function<bool()>& done = {});
  // Leads on to the `number`-th stop that `counts`, from 1. Returns how many there were: fewer when the process
  // ended, or `done` said so, before.
  std::uint64_t lead(std::uint64_t number, const std::function<bool(const Call&)>& counts = {},
                     const std::function<bool()>& done = {});

  // All of its threads stand still until the next call of `next`.
  void freeze();
  // Lets it go for good. Only of one that was attached to.
  void let_go();
  // Ends it where it stands.
  void kill();
  // Of one that has ended by itself, as Process::wait.
  int exit_code() const { return exit_code_; }

  // --- What a call is about ---
  // The file that an argument names, a descriptor or a path; empty when it cannot be told.
  std::string path_of_descriptor(std::uint64_t descriptor) const;
  std::string path_at(const Call& call, std::size_t directory_argument, std::size_t path_argument) const;
  std::string path_at(const Call& call, std::size_t path_argument) const;
  // Whether a call of kFileCalls changes a file or a name: one that opens a file must make it.
  static bool changes_files(const Call& call);
  // The first path or descriptor of a call of kFileCalls, as a path.
  std::string path_of(const Call& call) const;
  std::vector<std::byte> memory(std::uint64_t address, std::size_t bytes) const;

 private:
  enum class State : std::uint8_t { runs, stands };

  bool is_wanted(long number) const { return calls_.empty() || calls_.contains(number); }
  bool poll(pid_t thread, std::optional<Call>& met);
  bool hear(pid_t thread, int& status);
  void note_birth(pid_t parent);
  std::optional<Call> take_call(pid_t thread);
  void resume(pid_t thread, int signal = 0);
  void note_end(pid_t thread, int status);
  std::string text_at(std::uint64_t address) const;

  Process* child_ = nullptr;
  pid_t process_ = -1;
  std::set<long> calls_;  // of one that was attached to
  std::map<pid_t, State> threads_;
  std::map<pid_t, Call> begun_;
  int exit_code_ = -1;
};

// What a call is called, for messages.
std::string name_of_call(long number);

}  // namespace ringtail::test
