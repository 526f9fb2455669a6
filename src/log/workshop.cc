#include "log/workshop.h"

#include <csignal>
#include <utility>

namespace ringtail::log {

Workshop::Workshop(std::unique_ptr<io::Backend> backend) : backend_(std::move(backend)) {
  // Signals are the program's, not ours.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
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
