// The keeper's back room: a thread for what takes long and need not be waited for - preparing rings
// and segment files, deleting.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "io/backend.h"
#include "ringtail/error.h"

namespace ringtail::log {

// Thread safety: `submit` and `deliver` by the keeper's thread. Jobs run one at a time, in order, on the
// workshop's thread with its own Backend; what they return runs on the keeper's thread at its next
// `deliver`. Lifetime: destruction waits for the job under way and drops the rest.
class Workshop {
 public:
  using Delivery = std::function<void()>;
  using Job = std::function<Delivery(io::Backend&)>;

  // Errors: as thread_error.
  static Result<std::unique_ptr<Workshop>> start(std::unique_ptr<io::Backend> backend);
  // Throws std::system_error where `start` gives an error: for tests and benchmarks.
  explicit Workshop(std::unique_ptr<io::Backend> backend);
  ~Workshop();
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;

  // `on_done` is called on the workshop's thread after each job; it may wake the keeper.
  void set_on_done(std::function<void()> on_done) { on_done_ = std::move(on_done); }
  void submit(Job job);
  // Runs the deliveries of finished jobs. Returns how many.
  std::size_t deliver();

 private:
  void run();

  std::unique_ptr<io::Backend> backend_;
  std::function<void()> on_done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  std::vector<Delivery> done_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ringtail::log
