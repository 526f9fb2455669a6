#include "log/workshop.h"

#include <csignal>
#include <system_error>
#include <utility>

#include "base/threads.h"

namespace ringtail::log {
namespace {

// Blocks all signals for the thread that is made meanwhile: they are the program's, not ours.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

Result<std::unique_ptr<Workshop>> Workshop::start(std::unique_ptr<io::Backend> backend) {
  try {
    return std::make_unique<Workshop>(std::move(backend));
  } catch (const std::system_error& error) {
    return std::unexpected(thread_error(error.code().value(), "the keeper's work in the background"));
  }
}

Workshop::Workshop(std::unique_ptr<io::Backend> backend) : backend_(std::move(backend)) {
  const BlockedSignals blocked;
  thread_ = std::thread([this] { run(); });
}

Workshop::~Workshop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Workshop::submit(Job job) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

std::size_t Workshop::deliver() {
  std::vector<Delivery> done;
  {
    std::lock_guard lock(mutex_);
    done.swap(done_);
  }
  for (Delivery& delivery : done)
    if (delivery) delivery();
  return done.size();
}

void Workshop::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    Delivery delivery = job(*backend_);
    lock.lock();
    done_.push_back(std::move(delivery));
    if (on_done_) on_done_();
  }
}

}  // namespace ringtail::log
