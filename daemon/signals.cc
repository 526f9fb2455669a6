#include "daemon/signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/logger.h"
#include "base/result.h"
#include "base/threads.h"

namespace ringtail::daemon {

Result<std::unique_ptr<Signals>> Signals::start() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int signals = ::signalfd(-1, &set, SFD_CLOEXEC);
  if (signals < 0) return fail_errno(errno, "cannot wait for signals");
  const int end = ::eventfd(0, EFD_CLOEXEC);
  if (end < 0) {
    const int os_errno = errno;
    ::close(signals);
    return fail_errno(os_errno, "cannot make an event");
  }
  std::unique_ptr<Signals> made(new Signals(signals, end));
  auto thread = start_thread("signals", [raw = made.get()] { raw->run(); });
  if (!thread) return std::unexpected(thread.error());
  made->thread_ = std::move(*thread);
  return made;
}

Signals::~Signals() {
  const std::uint64_t one = 1;
  if (thread_.joinable() && ::write(end_, &one, sizeof one) == sizeof one) thread_.join();
  ::close(signals_);
  ::close(end_);
}

void Signals::run() {
  ::pthread_setname_np(::pthread_self(), "ringtail-signal");
  for (;;) {
    std::array<pollfd, 2> ready = {{{signals_, POLLIN, 0}, {end_, POLLIN, 0}}};
    if (::poll(ready.data(), ready.size(), -1) < 0) continue;
    if (ready[1].revents != 0) return;
    signalfd_siginfo info;
    if (::read(signals_, &info, sizeof info) == sizeof info) take(static_cast<int>(info.ssi_signo));
  }
}

void Signals::take(int number) {
  const std::lock_guard lock(mutex_);
  if (number == SIGHUP) {
    reload_ = true;
  } else if (!std::exchange(stop_, true)) {
    logger().info("{}: ending in good order; once more to end at once", ::strsignal(number));
  } else {
    // What is committed stays in shared memory, and the next keeper flushes it.
    logger().warn("{} once more: ending at once", ::strsignal(number));
    ::_exit(128 + number);
  }
  changed_.notify_all();
}

Signals::Event Signals::wait(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [this] { return stop_ || reload_; });
  if (stop_) return Event::stop;
  return std::exchange(reload_, false) ? Event::reload : Event::none;
}

}  // namespace ringtail::daemon
