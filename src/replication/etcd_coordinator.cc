#include "replication/etcd_coordinator.h"

#include <fmt/format.h>

#include "base/topic_config.h"
#include "replication/records.h"

namespace ringtail::replication {

namespace {

constexpr std::chrono::milliseconds kLeastIdle{1'000};

}  // namespace

Result<std::unique_ptr<EtcdCoordinator>> EtcdCoordinator::open(EtcdCoordinatorOptions options) {
  if (auto valid = check_options(options.etcd); !valid) return std::unexpected(valid.error());
  if (auto valid = check_topic_name(options.cluster); !valid) {
    return fail(
        Code::invalid_argument,
        fmt::format("'{}' cannot be the name of a cluster, which is made as a topic's is", options.cluster));
  }
  if (options.lease_ttl.count() <= 0) return fail(Code::invalid_argument, "a lease must live for some time");
  return std::unique_ptr<EtcdCoordinator>(new EtcdCoordinator(options));
}

EtcdCoordinator::EtcdCoordinator(const EtcdCoordinatorOptions& options)
    : session_(options.etcd),
      keys_(options.cluster),
      commits_(session_),
      registration_(session_, keys_, options.lease_ttl),
      follower_(session_, registration_, keys_, std::max(kLeastIdle, options.lease_ttl)) {}

void EtcdCoordinator::set_on_change(OnChange on_change) { follower_.set_on_change(std::move(on_change)); }

Status EtcdCoordinator::observe(std::chrono::milliseconds wait) {
  follower_.start();
  if (follower_.wait_for(1, std::chrono::steady_clock::now() + wait)) return {};
  return fail(Code::timed_out, fmt::format("the cluster's records could not be read within {} ms: {}",
                                           wait.count(), health().last_error));
}

Status EtcdCoordinator::join(const NodeRecord& node, const JoinOptions& options) {
  if (auto valid = check_record({node}); !valid) return valid;
  const auto until = std::chrono::steady_clock::now() + options.wait;
  follower_.start();
  const auto revision = registration_.join(node, options, until);
  if (!revision) return std::unexpected(revision.error());
  if (follower_.wait_for(*revision, until)) return {};
  return fail(Code::timed_out,
              fmt::format("node {} is registered, and the cluster's records could not be read "
                          "within {} ms: {}",
                          node.id.value(), options.wait.count(), health().last_error));
}

Status EtcdCoordinator::leave() { return registration_.leave(); }

std::int64_t EtcdCoordinator::lease_deadline_ns() const { return registration_.deadline_ns(); }

std::shared_ptr<const ClusterState> EtcdCoordinator::state() const { return follower_.state(); }

CoordinatorHealth EtcdCoordinator::health() const {
  CoordinatorHealth health = session_.health();
  health.refusal = registration_.refusal();
  return health;
}

Result<EtcdMembers> EtcdCoordinator::members() {
  const std::lock_guard lock(commit_mutex_);
  return list_members(commits_);
}

Result<bool> EtcdCoordinator::commit(std::span<const Change> changes) {
  if (auto valid = check_changes(changes); !valid) return std::unexpected(valid.error());
  EtcdTransaction transaction;
  const auto node = registration_.node();
  const std::int64_t lease = registration_.lease();
  const bool as_node = node && registration_.is_wanted();
  const auto fenced = [&] {
    return fail(Code::fenced, fmt::format("node {} has no lease now, so nothing was changed", node->value()));
  };
  if (as_node) {
    if (lease == 0) return fenced();
    transaction.leases.emplace_back(keys_.of(live_key(*node)), lease);
    transaction.otherwise.push_back(keys_.of(live_key(*node)));
  } else if (node) {
    return fail(Code::closed, fmt::format("node {} has left the cluster", node->value()));
  }
  for (const Change& change : changes) {
    std::string key = keys_.of(key_of(change));
    transaction.revisions.emplace_back(key, change.revision);
    if (change.remove)
      transaction.removals.push_back(std::move(key));
    else
      transaction.puts.push_back({std::move(key), value_of(change), 0});
  }
  const std::lock_guard lock(commit_mutex_);
  const auto verdict = transact(commits_, transaction);
  if (!verdict) return std::unexpected(verdict.error());
  if (verdict->succeeded) return true;
  const bool lost = as_node && (verdict->found.empty() || verdict->found.front().lease != lease);
  if (lost) return fenced();
  return false;
}

Result<bool> EtcdCoordinator::expel(NodeId node, std::uint64_t incarnation) {
  const std::string key = keys_.of(live_key(node));
  const std::lock_guard lock(commit_mutex_);
  const auto found = read_keys(commits_, {key});
  if (!found) return std::unexpected(found.error());
  if (found->pairs.empty()) return false;
  const auto live = decode_live(live_key(node), found->pairs.front().value);
  if (!live || *live != incarnation) return false;
  EtcdTransaction transaction;
  transaction.revisions.emplace_back(key, found->pairs.front().mod_revision);
  transaction.removals.push_back(key);
  const auto verdict = transact(commits_, transaction);
  if (!verdict) return std::unexpected(verdict.error());
  return verdict->succeeded;
}

}  // namespace ringtail::replication
