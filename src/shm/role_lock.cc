#include "shm/role_lock.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include "base/logger.h"
#include "base/result.h"
#include "shm/byte_lock.h"

namespace ringtail::shm {
namespace {

constexpr std::uint32_t kRoleByte = 0;

// Sleeps until the lock is ours. Returns 0 or an errno; or not at all, if the thread is cancelled.
//
// The kernel offers no other way to end this sleep than a signal to the thread: closing the file does
// not, and polling would cost either takeover time or wake-ups. A signal of our own choosing would be
// the application's as well, and could come just before the call; pthread_cancel has one that is
// glibc's own, and no such gap. Cancellation is enabled here only, where there is nothing to unwind. If
// it strikes when the lock has just been granted, the lock ends with the file.
//
// A cancelled thread leaves by a jump of glibc's that AddressSanitizer does not see; so the functions
// that are active then have no red zones around their variables, which would stay behind on the stack.
[[gnu::no_sanitize_address]] int lock_cancellable(int fd) {
  struct flock lock{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = kRoleByte, .l_len = 1, .l_pid = 0};
  ::pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
  const int result = ::fcntl(fd, F_OFD_SETLKW, &lock);
  const int os_errno = result == 0 ? 0 : errno;
  ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  return os_errno;
}

// Creates a thread with all signals blocked, but for those that a fault in it would raise.
int create_quiet_thread(pthread_t& thread, void* (*main)(void*), void* argument) {
  sigset_t blocked;
  sigset_t before;
  ::sigfillset(&blocked);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
    ::sigdelset(&blocked, fault);
  ::pthread_sigmask(SIG_SETMASK, &blocked, &before);
  const int os_errno = ::pthread_create(&thread, nullptr, main, argument);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return os_errno;
}

}  // namespace

Result<bool> is_role_held(const std::filesystem::path& path) {
  const auto file = ByteLockFile::open(path);
  if (!file) return std::unexpected(file.error());
  return file->is_locked(kRoleByte);
}

Result<std::unique_ptr<RoleCandidate>> RoleCandidate::start(const std::filesystem::path& path, Role role,
                                                            std::function<void()> on_taken,
                                                            std::chrono::milliseconds again_after) {
  auto file = LockFile::open(path);
  if (!file) return std::unexpected(file.error());
  const auto locked = file->try_lock(kRoleByte);
  if (!locked) return std::unexpected(locked.error());

  std::unique_ptr<RoleCandidate> candidate(
      new RoleCandidate(std::move(*file), std::move(role), std::move(on_taken), again_after));
  candidate->fork_generation_ = fork_generation();
  if (*locked) candidate->note_taken();
  const int os_errno = create_quiet_thread(candidate->thread_, &thread_main, candidate.get());
  if (os_errno != 0)
    return fail_errno(os_errno, fmt::format("cannot start a thread for '{}'", path.native()));
  candidate->is_joinable_ = true;
  return candidate;
}

void RoleCandidate::stop() {
  if (!is_joinable_ || fork_generation() != fork_generation_) return;
  is_joinable_ = false;
  stop_.request_stop();
  ::pthread_cancel(thread_);  // without effect on a role that is running
  ::pthread_join(thread_, nullptr);
  // A thread that was cancelled just as it got the lock did not give it back.
  file_.unlock(kRoleByte);
}

// As lock_cancellable, without red zones.
[[gnu::no_sanitize_address]] void* RoleCandidate::thread_main(void* argument) {
  // A new thread can be cancelled; up to here it has met no place where that would happen.
  ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  ::pthread_setname_np(::pthread_self(), "ringtail-keeper");
  auto* const candidate = static_cast<RoleCandidate*>(argument);
  bool holds = candidate->holds_role();
  do {
    if (!holds && !candidate->wait_for_role()) return nullptr;
    if (!holds) candidate->note_taken();
    candidate->run();
    holds = false;
  } while (candidate->rest());
  return nullptr;
}

void RoleCandidate::note_taken() {
  if (on_taken_) on_taken_();
  holds_role_.store(true, std::memory_order_release);  // SYNC: pairs with holds_role
}

// False when asked to stop. As lock_cancellable, without red zones.
[[gnu::no_sanitize_address]] bool RoleCandidate::wait_for_role() const {
  bool is_first_failure = true;
  while (!stop_.stop_requested()) {
    const int os_errno = lock_cancellable(file_.fd());
    if (os_errno == 0) return true;
    if (os_errno == EINTR) continue;
    wait_out(os_errno, is_first_failure);
    is_first_failure = false;
  }
  return false;
}

// What worked without waiting in start does not fail for good, only while the kernel is short of memory.
void RoleCandidate::wait_out(int os_errno, bool is_first_failure) const {
  constexpr std::chrono::milliseconds kRetryAfter{100};
  if (is_first_failure)
    logger().warn("cannot wait for the lock of '{}' ({}); trying again", file_.path().native(),
                  std::strerror(os_errno));
  std::this_thread::sleep_for(kRetryAfter);
}

void RoleCandidate::run() {
  // Two holders in one process follow each other by the kernel's lock, of which the language knows nothing.
  static std::atomic<unsigned> handovers{0};
  static_cast<void>(handovers.load(std::memory_order_acquire));  // SYNC: pairs with the addition below
  role_(stop_.get_token());
  holds_role_.store(false, std::memory_order_release);  // SYNC: pairs with holds_role
  handovers.fetch_add(1, std::memory_order_release);    // SYNC: pairs with the load of the next holder
  file_.unlock(kRoleByte);
}

// Whether the role is to be waited for again.
bool RoleCandidate::rest() const {
  constexpr std::chrono::milliseconds kLook{20};
  const auto until = std::chrono::steady_clock::now() + again_after_;
  while (!stop_.stop_requested() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(kLook);
  return again_after_.count() > 0 && !stop_.stop_requested();
}

}  // namespace ringtail::shm
