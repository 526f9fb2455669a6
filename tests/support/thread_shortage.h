// A process in which no thread can be made, as where a limit on them is reached.
//
// Thread safety: any thread may make and end it; one at a time in a process. Threads that are there go on.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdlib>

namespace ringtail::testing {

// While it lives, std::thread throws and pthread_create fails, with EAGAIN, for whoever names no size of the stack:
// the default is larger than any address space.
class ThreadShortage {
 public:
  ThreadShortage() : before_(exchange_stack_bytes(std::size_t{1} << 60)) {}
  ThreadShortage(const ThreadShortage&) = delete;
  ThreadShortage& operator=(const ThreadShortage&) = delete;
  ~ThreadShortage() { exchange_stack_bytes(before_); }

 private:
  // Returns what was the default before.
  static std::size_t exchange_stack_bytes(std::size_t bytes) {
    pthread_attr_t attributes;
    std::size_t before = 0;
    if (::pthread_getattr_default_np(&attributes) != 0 ||
        ::pthread_attr_getstacksize(&attributes, &before) != 0 ||
        ::pthread_attr_setstacksize(&attributes, bytes) != 0 ||
        ::pthread_setattr_default_np(&attributes) != 0)
      std::abort();
    ::pthread_attr_destroy(&attributes);
    return before;
  }

  std::size_t before_;
};

}  // namespace ringtail::testing
