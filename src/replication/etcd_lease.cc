#include "replication/etcd_lease.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/logger.h"
#include "base/random.h"
#include "replication/records.h"

namespace ringtail::replication {

using std::memory_order_relaxed;
using SteadyClock = std::chrono::steady_clock;

namespace {

constexpr int kKeepAlivesInLife = 3;
constexpr std::int64_t kNsPerSecond = 1'000'000'000;
constexpr std::size_t kIdBytes = 16;

// etcd counts in seconds.
std::chrono::seconds whole_seconds(std::chrono::milliseconds time) {
  return std::max(std::chrono::seconds(1), std::chrono::ceil<std::chrono::seconds>(time));
}

}  // namespace

// What stands under this node's keys.
struct EtcdRegistration::Found {
  struct Key {
    std::string value;
    std::int64_t revision = 0;
  };
  Key node;
  Key live;
  Key identity;
};

EtcdRegistration::EtcdRegistration(EtcdSession& session, ClusterKeys keys,
                                   std::chrono::milliseconds time_to_live)
    : session_(session),
      keys_(std::move(keys)),
      time_to_live_(whole_seconds(time_to_live)),
      connection_(session, std::chrono::milliseconds(time_to_live_) / kKeepAlivesInLife) {}

EtcdRegistration::~EtcdRegistration() { stop_thread(); }

// Readers act on the value alone, and on no memory written before it.
std::int64_t EtcdRegistration::deadline_ns() const { return deadline_ns_.load(memory_order_relaxed); }

bool EtcdRegistration::is_wanted() const {
  const std::lock_guard lock(mutex_);
  return wanted_;
}

std::int64_t EtcdRegistration::lease() const {
  const std::lock_guard lock(mutex_);
  return lease_;
}

std::optional<NodeId> EtcdRegistration::node() const {
  const std::lock_guard lock(mutex_);
  return node_ ? std::optional(node_->id) : std::nullopt;
}

std::string EtcdRegistration::refusal() const {
  const std::lock_guard lock(mutex_);
  return wanted_ && lease_ == 0 && refusal_ ? refusal_->message : std::string();
}

// --- From outside --------------------------------------------------------------------------------

Result<std::int64_t> EtcdRegistration::join(const NodeRecord& node, const JoinOptions& options,
                                            SteadyClock::time_point until) {
  stop_thread();
  std::unique_lock lock(mutex_);
  node_ = node;
  replace_ = options.replace;
  wanted_ = true;
  stop_ = finished_ = was_registered_ = false;
  refusal_.reset();
  const std::uint64_t before = attempts_;
  thread_ = std::thread([this] { run(); });
  const auto decided = [&] {
    return lease_ != 0 || (attempts_ != before && refusal_ && refusal_->code != Code::timed_out);
  };
  if (changed_.wait_until(lock, until, decided)) {
    if (lease_ != 0) return registered_revision_;
    const Error refusal = *refusal_;
    wanted_ = false;
    lock.unlock();
    stop_thread();
    return std::unexpected(refusal);
  }
  const std::string why = refusal_ ? refusal_->message : session_.health().last_error;
  return fail(Code::timed_out,
              fmt::format("node {} could not be registered within {} ms, and goes on trying: {}",
                          node.id.value(), options.wait.count(), why.empty() ? "no answer yet" : why));
}

Status EtcdRegistration::leave() {
  stop_thread();
  std::int64_t lease = 0;
  {
    const std::lock_guard lock(mutex_);
    wanted_ = false;
    lease = std::exchange(lease_, 0);
  }
  deadline_ns_.store(0, memory_order_relaxed);  // before the others can see that the lease is gone
  if (lease == 0) return {};
  auto revoked = revoke_lease(connection_, lease);
  if (revoked) return {};
  return fail(Code::timed_out, fmt::format("the lease could not be given back, and runs out in {} s: {}",
                                           time_to_live_.count(), revoked.error().message));
}

void EtcdRegistration::stop_thread() {
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

void EtcdRegistration::note_live_key(std::int64_t lease, std::int64_t revision) {
  std::string why;
  {
    const std::lock_guard lock(mutex_);
    if (lease_ == 0 || revision < registered_revision_ || lease == lease_) return;
    why = lease == 0 ? "its lease is gone" : "somebody else has taken its id";
  }
  lose(why);
}

void EtcdRegistration::note_store(const std::string& cluster_id) {
  {
    const std::lock_guard lock(mutex_);
    if (registered_cluster_ == cluster_id) registered_revision_ = 0;  // what it counts now is less
    if (lease_ == 0 || registered_cluster_ == cluster_id) return;
  }
  lose("etcd has lost its data");
}

void EtcdRegistration::lose(std::string_view why) {
  const std::lock_guard lock(mutex_);
  if (lease_ == 0) return;
  deadline_ns_.store(0, memory_order_relaxed);
  lease_ = 0;
  logger().warn("node {} is no longer registered: {}; registering it anew", node_->id.value(), why);
  changed_.notify_all();
}

// --- The thread ----------------------------------------------------------------------------------

void EtcdRegistration::run() {
  pthread_setname_np(pthread_self(), "ringtail-lease");
  pause_ = kFirstPause;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_) break;
    }
    if (lease() != 0) {
      keep_alive();
      continue;
    }
    const Status entered = enter();
    {
      const std::lock_guard lock(mutex_);
      ++attempts_;
      refusal_ = entered ? std::nullopt : std::optional(entered.error());
      changed_.notify_all();
    }
    if (entered) {
      pause_ = kFirstPause;
      continue;
    }
    if (entered.error().message != said_) logger().warn("{}", entered.error().message);
    said_ = entered.error().message;
    rest(SteadyClock::now() + pause_);
    pause_ = std::min(2 * pause_, kLongestPause);
  }
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

// Waits, until it is stopped or has something to do at the latest.
void EtcdRegistration::rest(SteadyClock::time_point until) {
  std::unique_lock lock(mutex_);
  const std::int64_t lease = lease_;
  changed_.wait_until(lock, until, [&] { return stop_ || lease_ != lease; });
}

Result<EtcdRegistration::Found> EtcdRegistration::look_up() {
  const std::string node = keys_.of(node_key(node_->id));
  const std::string live = keys_.of(live_key(node_->id));
  const std::string identity = keys_.of(kIdentityKey);
  const auto range = read_keys(connection_, {node, live, identity});
  if (!range) return std::unexpected(range.error());
  Found found;
  for (const EtcdKeyValue& pair : range->pairs) {
    Found::Key& key = pair.key == node ? found.node : pair.key == live ? found.live : found.identity;
    key = {pair.value, pair.mod_revision};
  }
  return found;
}

// Whether the id may be taken.
Status EtcdRegistration::judge(const Found& found) const {
  const auto known = decode_node(node_key(node_->id), found.node.value);
  const auto live = decode_live(live_key(node_->id), found.live.value);
  const auto identity = decode_identity(kIdentityKey, found.identity.value);
  // What another release keeps there is not ours to replace.
  const auto is_foreign = [](const auto& decoded) {
    return !decoded && decoded.error().code == Code::incompatible_layout;
  };
  if (is_foreign(identity)) return std::unexpected(identity.error());
  if (is_foreign(known)) return std::unexpected(known.error());
  if (is_foreign(live)) return std::unexpected(live.error());
  const bool ours = known && known->incarnation == node_->incarnation;
  if (found.live.revision != 0 && !(live && *live == node_->incarnation)) {
    // Two processes hold neither one log directory nor one address: it is the one before us that has ended.
    const bool predecessor = known && !was_registered_ && known->log_id == node_->log_id &&
                             known->replication == node_->replication;
    if (!predecessor) {
      return fail(
          Code::already_exists,
          fmt::format("node {} is in use by a living daemon at {}:{} (log {}); give this one another id, "
                      "or stop that one",
                      node_->id.value(), known ? known->replication.host : "an unknown address",
                      known ? known->replication.port : 0, known ? known->log_id : "unknown"));
    }
  }
  if (known && !ours && known->log_id != node_->log_id && !replace_) {
    return fail(
        Code::invalid_argument,
        fmt::format("node {} was registered with the log {} at {}:{}, and this log is {}; choose another "
                    "id, or, if that log is lost for good, start ringtaild once with --replace-node",
                    node_->id.value(), known->log_id, known->replication.host, known->replication.port,
                    node_->log_id));
  }
  return {};
}

Status EtcdRegistration::enter() {
  const auto found = look_up();
  const auto unanswered = [](const Error& error) {
    return fail(error.code == Code::permission_denied ? error.code : Code::timed_out, error.message);
  };
  if (!found) return unanswered(found.error());
  if (auto judged = judge(*found); !judged) return judged;

  const std::int64_t sent_ns = boottime_ns();
  const auto lease = grant_lease(connection_, time_to_live_);
  if (!lease) return unanswered(lease.error());
  EtcdTransaction transaction;
  transaction.revisions = {{keys_.of(node_key(node_->id)), found->node.revision},
                           {keys_.of(live_key(node_->id)), found->live.revision},
                           {keys_.of(kIdentityKey), found->identity.revision}};
  transaction.puts.push_back({keys_.of(live_key(node_->id)), encode_live(node_->incarnation), lease->id});
  // A record of this incarnation may have been changed since by others, and stays.
  const auto known = decode_node(node_key(node_->id), found->node.value);
  if (!known || known->incarnation != node_->incarnation)
    transaction.puts.push_back({keys_.of(node_key(node_->id)), encode(*node_), 0});
  auto cluster = decode_identity(kIdentityKey, found->identity.value);
  if (!cluster) {
    std::array<std::byte, kIdBytes> id{};
    if (auto filled = fill_random(id); !filled) return filled;
    cluster = to_hex(id);
    transaction.puts.push_back({keys_.of(kIdentityKey), encode_identity(*cluster, wall_clock_ns()), 0});
  }
  const auto verdict = transact(connection_, transaction);
  if (!verdict || !verdict->succeeded) {
    // Should it have been registered after all, that ends with it.
    if (auto revoked = revoke_lease(connection_, lease->id); !revoked)
      logger().debug("a lease that is not needed runs out by itself: {}", revoked.error().message);
    if (!verdict) return unanswered(verdict.error());
    return fail(Code::timed_out, fmt::format("node {}: somebody else registers it, too", node_->id.value()));
  }
  const std::lock_guard lock(mutex_);
  lease_ = lease->id;
  registered_revision_ = verdict->revision;
  registered_cluster_ = *cluster;
  if (was_registered_ || !said_.empty()) logger().info("node {} is registered", node_->id.value());
  was_registered_ = true;
  replace_ = false;  // what it was for is done
  said_.clear();
  kept_at_ = SteadyClock::now();
  deadline_ns_.store(sent_ns + lease->time_to_live.count() * kNsPerSecond, memory_order_relaxed);
  return {};
}

void EtcdRegistration::keep_alive() {
  const auto interval =
      std::chrono::duration_cast<std::chrono::milliseconds>(time_to_live_) / kKeepAlivesInLife;
  rest(kept_at_ + interval);
  const std::int64_t lease = this->lease();
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || lease_ == 0) return;
  }
  const std::int64_t sent_ns = boottime_ns();
  const auto sent = SteadyClock::now();
  const auto kept = keep_lease_alive(connection_, lease);
  if (!kept) {
    if (said_.empty()) logger().warn("the lease is not kept alive: {}", kept.error().message);
    said_ = kept.error().message;
    kept_at_ = SteadyClock::now() - interval + kFirstPause;  // again after a short while
    return;
  }
  if (kept->time_to_live.count() <= 0) return lose("its lease ran out");
  if (!said_.empty()) logger().info("the lease is kept alive again");
  said_.clear();
  kept_at_ = sent;
  // Somebody may have learnt meanwhile that the lease is gone; then it stays so.
  const std::lock_guard lock(mutex_);
  if (lease_ == lease)
    deadline_ns_.store(sent_ns + kept->time_to_live.count() * kNsPerSecond, memory_order_relaxed);
}

}  // namespace ringtail::replication
