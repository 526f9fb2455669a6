// A process that can open nothing more.
#pragma once

#include <sys/resource.h>

namespace ringtail::testing {

// Whatever is to be opened fails with EMFILE while it lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &previous_);
    const rlimit none{0, previous_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &previous_); }

 private:
  rlimit previous_{};
};

}  // namespace ringtail::testing
