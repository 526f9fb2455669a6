// Processes that tests start, stop and kill, and the page by which they tell what they have done.
//
// Thread safety: for the one thread of a test that has opened no log yet, since it forks. Lifetime: a
// process is killed when its object goes, and when the test that started it ends in whatever way.
#pragma once

#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <utility>

namespace ringtail::test {

// A forked child.
class Process {
 public:
  Process() = default;
  // Runs `body` in a child, which ends with what it returns as its exit code.
  Process(std::string name, const std::function<int()>& body);
  Process(Process&& other) noexcept { *this = std::move(other); }
  Process& operator=(Process&& other) noexcept;
  ~Process();

  pid_t pid() const { return pid_; }
  const std::string& name() const { return name_; }
  bool is_running() const { return pid_ > 0; }
  void signal(int number) const;
  // Kills it and waits until it is gone.
  void kill();
  // Waits for its end. Its exit code, or -1 - N when signal N ended it.
  int wait();
  // Its exit code as by `wait` if it has ended; 0 while it runs.
  int poll();
  // Takes note that somebody else has waited for its end.
  void forget() { pid_ = -1; }
  // Waits until a child has stopped, with all of its threads; the status is as of waitpid.
  int wait_for_stop() const;

 private:
  pid_t pid_ = -1;
  int exit_code_ = -1;
  std::string name_;
};

// A value in memory that this process shares with the children it forks.
template <class T>
class SharedPage {
 public:
  SharedPage() {
    void* const at = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) std::abort();
    value_ = new (at) T();
  }
  SharedPage(const SharedPage&) = delete;
  SharedPage& operator=(const SharedPage&) = delete;
  ~SharedPage() { ::munmap(value_, sizeof(T)); }

  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  T* value_;
};

// Waits until `done` says so. When `progress` (any number) has not changed for a long while (100 s, or
// RINGTAIL_CRASH_PATIENCE_S), or a child that nobody killed has ended with an error, the test fails with
// what `what` was waited for, what every child is doing, and what `report` adds; then false.
bool wait_until(const std::function<bool()>& done, std::string_view what,
                const std::function<std::uint64_t()>& progress = {},
                const std::function<std::string()>& report = {});

// What the threads of a process are doing, as the kernel tells it.
std::string describe_process(pid_t pid);

// A seed for this test, printed; RINGTAIL_SEED repeats an earlier one.
std::uint64_t print_seed();

// The number in the environment variable `name`, or `otherwise`.
std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise);

}  // namespace ringtail::test
