// Who opens files: that the catalog is read is seen in a topic's directory.
#pragma once

#include <limits.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <filesystem>

#include <gtest/gtest.h>

namespace ringtail::groups {

// How often the files of a directory are opened.
class Opens {
 public:
  explicit Opens(const std::filesystem::path& dir) : watch_(::inotify_init1(IN_NONBLOCK)) {
    // With the closes: of several equal events in a row, the kernel tells one.
    EXPECT_GE(::inotify_add_watch(watch_, dir.c_str(), IN_OPEN | IN_CLOSE), 0);
  }
  Opens(const Opens&) = delete;
  Opens& operator=(const Opens&) = delete;
  ~Opens() { ::close(watch_); }

  // Since the last call.
  int count() {
    int opens = 0;
    alignas(inotify_event) std::array<char, 64 * (sizeof(inotify_event) + NAME_MAX + 1)> events;
    for (;;) {
      const ssize_t got = ::read(watch_, events.data(), events.size());
      if (got <= 0) return opens;
      for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
        const auto* const event = reinterpret_cast<const inotify_event*>(events.data() + at);
        if ((event->mask & IN_OPEN) != 0 && event->len > 0) ++opens;
        at += sizeof(inotify_event) + event->len;
      }
    }
  }

 private:
  int watch_;
};

}  // namespace ringtail::groups
