#include "monitor/watch.h"

#include <fmt/format.h>
#include <pthread.h>
#include <time.h>

#include <nlohmann/json.hpp>

#include "monitor/state_json.h"

namespace ringtail::monitor {
namespace {

constexpr std::chrono::seconds kPeriod{1};
constexpr int kPauseOverLook = 200;  // at least: with many partitions, a look takes milliseconds
// A keeper rests for milliseconds. A round may take as long as the disk takes to finish a segment.
constexpr std::chrono::nanoseconds kKeeperPatience = std::chrono::seconds(30);

std::chrono::nanoseconds spent_by_this_thread() {
  ::timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace

Watch::Watch(Log log, std::string version, const ClusterSource* cluster)
    : collector_(std::move(log)),
      version_(std::move(version)),
      cluster_(cluster),
      latest_(fail(Code::would_block, "nothing has been looked at yet")) {
  look();
  thread_ = std::thread([this] { run(); });
}

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watch::run() {
  ::pthread_setname_np(::pthread_self(), "ringtail-watch");
  std::unique_lock lock(mutex_);
  auto due = std::chrono::steady_clock::now() + kPeriod;
  while (!wake_.wait_until(lock, due, [this] { return stop_; })) {
    lock.unlock();
    const auto before = spent_by_this_thread();
    look();
    const auto pause = kPauseOverLook * (spent_by_this_thread() - before);
    lock.lock();
    // A look that took longer than the period is not made up for.
    due = std::max(due + kPeriod, std::chrono::steady_clock::now() + pause);
  }
}

void Watch::look() {
  auto snapshot = collector_.collect();
  if (snapshot) history_.add(*snapshot);
  const std::lock_guard lock(mutex_);
  if (snapshot)
    latest_ = std::make_shared<const Snapshot>(std::move(*snapshot));
  else
    latest_ = std::unexpected(snapshot.error());
}

ProcessFigures Watch::process() const { return {version_, std::chrono::steady_clock::now() - started_}; }

std::optional<ClusterFigures> Watch::cluster() const {
  return cluster_ == nullptr ? std::nullopt : std::optional(cluster_->figures());
}

Result<std::string> Watch::metrics() {
  const auto snapshot = collector_.collect();
  if (!snapshot) return std::unexpected(snapshot.error());
  return metrics_text(*snapshot, process(), cluster());
}

Result<std::string> Watch::state() const {
  std::shared_ptr<const Snapshot> snapshot;
  {
    const std::lock_guard lock(mutex_);
    if (!latest_) return std::unexpected(latest_.error());
    snapshot = *latest_;
  }
  return dump(state_json(*snapshot, history_.points(), process(), cluster()));
}

HealthAnswer Watch::health() const {
  const KeeperSnapshot keeper = collector_.keeper();
  if (keeper.failure) return {false, "the keeper came to nothing: " + to_string(*keeper.failure)};
  if (!keeper.pid) return {false, "nobody keeps the log"};
  if (!keeper.here) return {true, fmt::format("ok; pid {} keeps the log", *keeper.pid)};
  if (keeper.idle_ns && std::chrono::nanoseconds(*keeper.idle_ns) > kKeeperPatience)
    return {false, fmt::format("the keeper has stood still for {} s", *keeper.idle_ns / 1'000'000'000)};
  return {true, "ok; this process keeps the log"};
}

}  // namespace ringtail::monitor
