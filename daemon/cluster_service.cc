#include "daemon/cluster_service.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/files.h"
#include "base/logger.h"
#include "base/random.h"
#include "client/log_core.h"
#include "daemon/cluster_figures.h"
#include "replication/etcd_coordinator.h"
#include "replication/replicator.h"

namespace ringtail::daemon {
namespace {

using namespace ringtail::replication;
using std::chrono::milliseconds;

constexpr std::size_t kMaxPasswordBytes = 4096;
// For etcd to say that this node may not join, which ends the daemon. While etcd does not answer, it goes on.
constexpr milliseconds kJoinWait{2'000};

Result<std::string> read_password(const std::string& path) {
  if (path.empty()) return std::string();
  auto text = read_small_file(path, kMaxPasswordBytes);
  if (text && text->ends_with('\n')) text->pop_back();
  return text;
}

Address address_of(const Endpoint& endpoint) { return {endpoint.host, endpoint.port}; }

Compression compression_of(const std::string& name) {
  return name == "lz4" ? Compression::lz4 : name == "zstd" ? Compression::zstd : Compression::none;
}

PeerTls peer_tls(const Config& config) {
  const TlsFiles& files = config.replication.tls;
  return {files.ca, files.certificate, files.key};
}

class ClusterService final : public Service, public monitor::ClusterSource {
 public:
  ClusterService(const Config& config, const Log& log, std::shared_ptr<Coordinator> coordinator)
      : config_(config), log_(log.core()), coordinator_(std::move(coordinator)) {}
  ~ClusterService() override { stop(); }

  Status start() override;
  void reload(const Config& config) override {
    replicator_->set_throttle(config.replication.throttle);
    replicator_->set_http(address_of(config.http.listen));
    replicator_->renew_tls(peer_tls(config));
  }
  void drain(std::chrono::steady_clock::time_point deadline) override;
  void stop() override {
    if (replicator_) replicator_->stop();
  }
  Readiness readiness() const override;
  const monitor::ClusterSource* cluster() const override { return this; }
  monitor::ClusterFigures figures() const override;

 private:
  ReplicatorOptions options() const;

  Config config_;
  std::shared_ptr<LogCore> log_;
  std::shared_ptr<Coordinator> coordinator_;
  std::uint64_t incarnation_ = 0;
  std::unique_ptr<Replicator> replicator_;
};

ReplicatorOptions ClusterService::options() const {
  const Endpoint listen = *config_.node.replication_listen;
  ReplicatorOptions options;
  options.node.id = NodeId(static_cast<std::uint32_t>(config_.node.id));
  options.node.started_ns = wall_clock_ns();
  options.node.replication = address_of(config_.node.replication_advertise.value_or(listen));
  options.node.http = address_of(config_.http.listen);
  options.node.rack = config_.node.rack;
  options.node.release = RINGTAIL_VERSION;
  options.network.cluster = config_.cluster.name;
  options.network.listen = address_of(listen);
  options.network.compression = compression_of(config_.replication.compression);
  if (!config_.replication.plain) options.network.tls = peer_tls(config_);
  options.replace_node = config_.replace_node;
  options.join_wait = kJoinWait;
  options.lease_margin = std::chrono::duration_cast<milliseconds>(config_.cluster.lease_margin);
  options.lag_time_max = std::chrono::duration_cast<milliseconds>(config_.replication.lag_time_max);
  options.throttle_bytes_per_s = config_.replication.throttle;
  options.spin = std::chrono::duration_cast<std::chrono::microseconds>(config_.replication.spin);
  return options;
}

Status ClusterService::start() {
  ReplicatorOptions wanted = options();
  const auto incarnation = random_token();
  if (!incarnation) return std::unexpected(incarnation.error());
  wanted.node.incarnation = incarnation_ = *incarnation;
  auto replicator = Replicator::start(log_, coordinator_, std::move(wanted));
  if (!replicator) return std::unexpected(replicator.error());
  replicator_ = std::move(*replicator);
  return {};
}

void ClusterService::drain(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
  if (!replicator_->drain(std::max(left, milliseconds(0))))
    logger().warn(
        "not every leadership could be handed over in time; the others take them when they see this "
        "node leave");
}

Readiness ClusterService::readiness() const {
  const CoordinatorHealth health = coordinator_->health();
  const auto state = coordinator_->state();
  const auto live = state->live.find(NodeId(static_cast<std::uint32_t>(config_.node.id)));
  const std::string node = fmt::format("node {} of cluster {}", config_.node.id, config_.cluster.name);
  const std::int64_t margin_ns = std::chrono::nanoseconds(config_.cluster.lease_margin).count();
  if (coordinator_->lease_deadline_ns() - margin_ns > boottime_ns()) {
    if (live != state->live.end() && live->second == incarnation_)
      return {true, fmt::format("{}, {} of {} nodes alive", node, state->live.size(), state->nodes.size())};
    return {false, node + ": registered, and the cluster's records do not say so yet"};
  }
  const std::string& why = !health.refusal.empty()     ? health.refusal
                           : health.reachable          ? "its lease has run out"
                           : health.last_error.empty() ? "etcd has not answered yet"
                                                       : health.last_error;
  return {false, fmt::format("fenced, for {} is not registered: {}", node, why)};
}

monitor::ClusterFigures ClusterService::figures() const {
  const NodeId self(static_cast<std::uint32_t>(config_.node.id));
  monitor::ClusterFigures figures = cluster_figures(config_.cluster.name, replicator_->status(), self);
  if (const Readiness is = readiness(); !is.ready) figures.trouble = is.text;
  return figures;
}

}  // namespace

Result<std::unique_ptr<Service>> make_cluster_service(const Config& config, const Log& log) {
  const auto password = read_password(config.cluster.password_file);
  if (!password) return std::unexpected(password.error());
  auto coordinator = EtcdCoordinator::open(
      {.etcd = {.endpoints = config.cluster.etcd,
                .user = config.cluster.user,
                .password = *password,
                .ca_file = config.cluster.tls.ca,
                .certificate_file = config.cluster.tls.certificate,
                .key_file = config.cluster.tls.key},
       .cluster = config.cluster.name,
       .lease_ttl = std::chrono::duration_cast<milliseconds>(config.cluster.lease_ttl)});
  if (!coordinator) return std::unexpected(coordinator.error());
  return std::make_unique<ClusterService>(config, log, std::move(*coordinator));
}

}  // namespace ringtail::daemon
