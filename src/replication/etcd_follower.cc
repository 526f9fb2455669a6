#include "replication/etcd_follower.h"

#include <pthread.h>

#include <algorithm>

#include "base/logger.h"
#include "replication/records.h"

namespace ringtail::replication {

EtcdFollower::EtcdFollower(EtcdSession& session, EtcdRegistration& registration, ClusterKeys keys,
                           std::chrono::milliseconds idle)
    : session_(session), registration_(registration), keys_(std::move(keys)), connection_(session) {
  watch_.prefix = keys_.prefix;
  watch_.idle = idle;
}

EtcdFollower::~EtcdFollower() {
  if (!thread_.joinable()) return;
  std::unique_lock lock(mutex_);
  stop_ = true;
  changed_.notify_all();
  // A request that begins just behind the interruption needs another one.
  while (!changed_.wait_for(lock, kInterruptPeriod, [&] { return finished_; })) {
    lock.unlock();
    connection_.interrupt();
    lock.lock();
  }
  lock.unlock();
  thread_.join();
}

void EtcdFollower::set_on_change(Coordinator::OnChange on_change) {
  const std::lock_guard lock(mutex_);
  on_change_ = std::move(on_change);
}

void EtcdFollower::start() {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

std::shared_ptr<const ClusterState> EtcdFollower::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool EtcdFollower::wait_for(std::int64_t revision, std::chrono::steady_clock::time_point until) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, until, [&] { return state_->revision >= revision; });
}

bool EtcdFollower::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

// --- The thread ----------------------------------------------------------------------------------

void EtcdFollower::run() {
  pthread_setname_np(pthread_self(), "ringtail-meta");
  pause_ = kFirstPause;
  while (!is_stopped()) {
    // Changes of another store must not be added to what is known of this one.
    const Status ready = loaded_ ? check_store() : load();
    if (!ready) {
      pause(ready.error().message);
      continue;
    }
    if (!loaded_) continue;
    const auto ended = watch_prefix(connection_, watch_, [&](const auto& events) { return apply(events); });
    if (is_stopped()) break;
    if (!ended) {
      connection_.avoid_endpoint();
      pause(ended.error().message);
    } else if (*ended == WatchEnd::compacted) {
      logger().info("etcd no longer has the changes since revision {}; reading all records anew",
                    watch_.next_revision);
      loaded_ = false;
    } else if (*ended == WatchEnd::broken) {
      rest(kFirstPause);  // whatever breaks it may do so at once again
    }
  }
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

// What went wrong is said once, and again when it is something else.
void EtcdFollower::pause(std::string_view why) {
  if (said_ != why) logger().warn("the cluster's records cannot be followed: {}", why);
  said_ = why;
  rest(pause_);
  pause_ = std::min(2 * pause_, kLongestPause);
}

void EtcdFollower::rest(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [&] { return stop_; });
}

Status EtcdFollower::load() {
  const auto range = read_prefix(connection_, keys_.prefix);
  if (!range) return std::unexpected(range.error());
  builder_.clear();
  builder_.note_gap();
  live_leases_.clear();
  for (const EtcdKeyValue& pair : range->pairs) take(pair);
  watch_.next_revision = range->revision + 1;
  loaded_ = true;
  note_success();
  publish(range->revision);
  return {};
}

// The store may have lost its data since it was last heard of; then it is read anew.
Status EtcdFollower::check_store() {
  const auto range = read_keys(connection_, {keys_.of(kIdentityKey)});
  if (!range) return std::unexpected(range.error());
  note_success();
  const std::string& known = builder_.current().cluster_id;
  std::string id;
  if (!range->pairs.empty()) {
    const auto decoded = decode_identity(kIdentityKey, range->pairs.front().value);
    // Another release's identity is no loss of the records.
    if (!decoded && decoded.error().code == Code::incompatible_layout)
      return std::unexpected(decoded.error());
    id = decoded.value_or(std::string());
  }
  const bool went_back = range->revision < builder_.current().revision;
  if (!went_back && (known.empty() || id == known)) return {};
  logger().error(
      "etcd has lost its data: the records were those of cluster {} at revision {}, and now are those of {} "
      "at "
      "revision {}; topics that are not among them are no longer registered",
      known.empty() ? "'none'" : known, builder_.current().revision, id.empty() ? "'none'" : id,
      range->revision);
  loaded_ = false;
  registration_.note_store(id);
  return {};
}

void EtcdFollower::note_success() {
  if (!said_.empty()) logger().info("the cluster's records are followed again");
  said_.clear();
  pause_ = kFirstPause;
}

void EtcdFollower::take(const EtcdKeyValue& pair) {
  const std::string_view key = keys_.rest(pair.key);
  builder_.put(key, pair.value, pair.mod_revision);
  if (key.starts_with(kLivePrefix)) live_leases_[std::string(key)] = pair.lease;
}

bool EtcdFollower::apply(const std::vector<EtcdEvent>& events) {
  for (const EtcdEvent& event : events) {
    if (!event.pair.key.starts_with(keys_.prefix)) continue;
    if (!event.removed) {
      take(event.pair);
      continue;
    }
    const std::string_view key = keys_.rest(event.pair.key);
    builder_.remove(key);
    if (const auto live = live_leases_.find(key); live != live_leases_.end()) live_leases_.erase(live);
  }
  publish(events.back().pair.mod_revision);
  return !is_stopped();
}

void EtcdFollower::publish(std::int64_t revision) {
  builder_.set_revision(revision);
  auto state = builder_.snapshot();
  Coordinator::OnChange tell;
  {
    const std::lock_guard lock(mutex_);
    state_ = state;
    tell = on_change_;
  }
  changed_.notify_all();
  report_live_key();
  if (tell) tell(std::move(state));
}

void EtcdFollower::report_live_key() const {
  const auto node = registration_.node();
  if (!node) return;
  const auto live = live_leases_.find(live_key(*node));
  registration_.note_live_key(live == live_leases_.end() ? 0 : live->second, builder_.current().revision);
}

}  // namespace ringtail::replication
