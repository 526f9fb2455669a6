// Roles of which only one process at a time may have each, such as the keeper's, handed on the moment
// their holder dies: candidates sleep in the kernel on the lock that its death gives free.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>

#include "ringtail/error.h"
#include "shm/lock_file.h"

namespace ringtail::shm {

// Whether somebody has the role now. Does not take it, so that those who ask do not meet each other. Does not block.
// Errors: not_found (no such directory), permission_denied, read_only, system.
Result<bool> is_role_held(const std::filesystem::path& path);

// A thread of this process that waits for a role, and runs it.
//
// Thread safety: holds_role() from any thread; the rest from one at a time, and never from within the
// role. Process safety: any number of candidates, in any number of processes. In a forked child neither
// thread nor lock exist, and all members return at once.
class RoleCandidate {
 public:
  // What to do once the role is ours. Runs on the candidate's thread, until it is done or the
  // token asks it to stop (whoever sleeps in there wakes itself by a std::stop_callback). The role is
  // given up when it returns. Must not throw. Signals are blocked there, but for those that faults raise.
  using Role = std::function<void(std::stop_token)>;

  // Errors: not_found (no such directory), permission_denied, read_only, system. Does not wait for
  // the role; when it is free, holds_role() is true on return. `on_taken`: called, on any thread, whenever the role
  // is ours and before holds_role() says so; must not throw. `again_after`: how long after a role that ended by
  // itself it is waited for again, while others may take it; 0: it is not.
  static Result<std::unique_ptr<RoleCandidate>> start(const std::filesystem::path& path, Role role,
                                                      std::function<void()> on_taken = {},
                                                      std::chrono::milliseconds again_after = {});

  RoleCandidate(const RoleCandidate&) = delete;
  RoleCandidate& operator=(const RoleCandidate&) = delete;
  ~RoleCandidate() { stop(); }

  // Ends waiting at once, or asks the role to stop and waits until it has. Idempotent.
  void stop();

  // Whether this process has the role now.
  bool holds_role() const {
    // SYNC: pairs with the release stores in start and run.
    return holds_role_.load(std::memory_order_acquire) && fork_generation() == fork_generation_;
  }

 private:
  RoleCandidate(LockFile file, Role role, std::function<void()> on_taken,
                std::chrono::milliseconds again_after)
      : file_(std::move(file)),
        role_(std::move(role)),
        on_taken_(std::move(on_taken)),
        again_after_(again_after) {}

  static void* thread_main(void* argument);
  bool wait_for_role() const;
  void wait_out(int os_errno, bool is_first_failure) const;
  void note_taken();
  void run();
  bool rest() const;

  LockFile file_;
  Role role_;
  std::function<void()> on_taken_;
  std::chrono::milliseconds again_after_;
  std::stop_source stop_;
  std::atomic<bool> holds_role_{false};
  pthread_t thread_{};
  bool is_joinable_ = false;
  std::uint32_t fork_generation_ = 0;
};

}  // namespace ringtail::shm
