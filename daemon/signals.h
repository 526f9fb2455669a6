// The signals that the daemon is told by: SIGTERM and SIGINT end it in good order, a second one at once; SIGHUP
// makes it read its configuration. SIGPIPE is ignored.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "ringtail/error.h"

namespace ringtail::daemon {

// Thread safety: wait and stopping from any thread. Lifetime: one, made before any other thread, so that all
// threads leave these signals to its own.
class Signals {
 public:
  enum class Event { none, reload, stop };

  // Errors: system.
  static Result<std::unique_ptr<Signals>> start();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // The next event, or none when the time has passed. Once it says stop, it always does.
  Event wait(std::chrono::milliseconds timeout);

 private:
  Signals(int signals, int end) : signals_(signals), end_(end) {}
  void run();
  void take(int number);

  int signals_;  // signalfd
  int end_;      // eventfd: ends the thread
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reload_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ringtail::daemon
