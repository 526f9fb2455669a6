#include "tools/cluster_session.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/files.h"
#include "base/parse.h"
#include "daemon/config.h"
#include "replication/records.h"
#include "tools/session.h"

namespace ringtail::tools {

using namespace replication;

namespace {

constexpr std::string_view kUsualConfig = "/etc/ringtail/ringtaild.toml";
constexpr std::size_t kMaxPassword = 4096;
// How long to wait, after a commit that came too late, for the state that it missed.
constexpr std::chrono::milliseconds kCatchUp{500};

std::unexpected<Error> interrupted() { return fail(Code::closed, "interrupted"); }

// Of a file, what of [cluster] cannot be used; its other tables are the daemon's business.
Status check_config(const daemon::LoadedConfig& loaded, const std::string& file) {
  for (const daemon::ConfigProblem& problem : loaded.problems) {
    if (problem.setting.empty() || problem.setting == "cluster" || problem.setting.starts_with("cluster."))
      return fail(Code::invalid_argument,
                  problem.setting.empty()
                      ? fmt::format("{}: {}; name ringtaild's configuration with --config FILE, or the "
                                    "cluster with --etcd URL --cluster NAME",
                                    problem.where, problem.problem)
                      : to_string(problem));
  }
  if (loaded.config.in_cluster) return {};
  return fail(Code::invalid_argument,
              fmt::format("{} is the configuration of a host that is alone: it has no table [cluster]; name "
                          "another, or the cluster with --etcd URL --cluster NAME",
                          file));
}

Result<std::string> read_password(const std::string& file) {
  if (file.empty()) return std::string();
  auto password = read_small_file(file, kMaxPassword);
  if (!password) return password;
  while (password->ends_with('\n') || password->ends_with('\r')) password->pop_back();
  return password;
}

Result<EtcdCoordinatorOptions> options_of_file(std::string file) {
  if (const char* named = std::getenv("RINGTAILD_CONFIG"); file.empty() && named != nullptr) file = named;
  if (file.empty()) file = kUsualConfig;
  const daemon::LoadedConfig loaded = daemon::load_config(file, {});
  if (const Status usable = check_config(loaded, file); !usable) return std::unexpected(usable.error());
  const auto& cluster = loaded.config.cluster;
  auto password = read_password(cluster.password_file);
  if (!password) return std::unexpected(password.error());
  EtcdCoordinatorOptions options;
  options.cluster = cluster.name;
  options.etcd.endpoints = cluster.etcd;
  options.etcd.user = cluster.user;
  options.etcd.password = std::move(*password);
  options.etcd.ca_file = cluster.tls.ca;
  options.etcd.certificate_file = cluster.tls.certificate;
  options.etcd.key_file = cluster.tls.key;
  return options;
}

// The revision in which the state has the record; 0: it has none.
std::int64_t revision_of(const ClusterState& state, const Change& change) {
  const auto find = [](const auto& records, const auto& name) {
    const auto found = records.find(name);
    return found == records.end() ? 0 : found->second.revision;
  };
  if (const auto* node = std::get_if<NodeRecord>(&change.record)) return find(state.nodes, node->id);
  if (const auto* topic = std::get_if<TopicRecord>(&change.record)) return find(state.topics, topic->name);
  if (const auto* partition = std::get_if<PartitionRecord>(&change.record))
    return find(state.partitions, TopicPartition{partition->topic, partition->partition});
  return state.settings.revision;
}

}  // namespace

void add_cluster_options(CLI::App& command, ClusterOptions& options, std::string config_name) {
  CLI::Option_group* group = command.add_option_group("Cluster", "which one; this file, or the two after it");
  CLI::Option* config =
      group
          ->add_option(
              std::move(config_name), options.config,
              fmt::format("Configuration of ringtaild; otherwise $RINGTAILD_CONFIG, or {}", kUsualConfig))
          ->type_name("FILE");
  CLI::Option* etcd = group->add_option("--etcd", options.etcd, "A member of etcd; may be repeated")
                          ->type_name("URL")
                          ->allow_extra_args(false);
  CLI::Option* cluster =
      group->add_option("--cluster", options.cluster, "The cluster's name in etcd")->type_name("CLUSTER");
  etcd->needs(cluster)->excludes(config);
  cluster->needs(etcd)->excludes(config);
  group->add_option("--timeout", options.timeout, "How long to wait for etcd")
      ->type_name("TIME")
      ->capture_default_str();
}

Result<EtcdCoordinatorOptions> etcd_options_of(const ClusterOptions& options) {
  if (options.etcd.empty()) return options_of_file(options.config);
  EtcdCoordinatorOptions made;
  made.etcd.endpoints = options.etcd;
  made.cluster = options.cluster;
  return made;
}

// --- Session -------------------------------------------------------------------------------------

ClusterSession::~ClusterSession() {
  coordinator_.reset();  // its thread writes to the descriptor
  if (changed_fd_ >= 0) ::close(changed_fd_);
}

Result<std::unique_ptr<ClusterSession>> ClusterSession::open(const ClusterOptions& options) {
  const auto timeout = parse_duration(options.timeout, std::chrono::seconds(1));
  if (!timeout) return std::unexpected(timeout.error());
  if (timeout->count() <= 0) return fail(Code::invalid_argument, "--timeout must be longer than nothing");
  auto etcd = etcd_options_of(options);
  if (!etcd) return std::unexpected(etcd.error());
  std::unique_ptr<ClusterSession> session(new ClusterSession);
  session->name_ = etcd->cluster;
  session->endpoints_ = etcd->etcd.endpoints;
  session->timeout_ = std::chrono::ceil<std::chrono::milliseconds>(*timeout);
  auto coordinator = EtcdCoordinator::open(std::move(*etcd));
  if (!coordinator) return std::unexpected(coordinator.error());
  session->coordinator_ = std::move(*coordinator);
  if (const Status observed = session->observe(); !observed) return std::unexpected(observed.error());
  return session;
}

Status ClusterSession::observe() {
  changed_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (changed_fd_ < 0) return fail(Code::system, "eventfd failed", errno);
  coordinator_->set_on_change([fd = changed_fd_](const State&) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
  });
  const auto until = Clock::now() + timeout_;
  const Status begun = coordinator_->observe(std::chrono::milliseconds(0));
  while (!begun && state()->revision == 0) {
    if (wait_for_change(state(), until)) continue;
    if (interrupt::pending()) return interrupted();
    const std::string why = health().last_error;
    return fail(
        Code::timed_out,
        fmt::format("the records of cluster '{}' cannot be read from etcd at {}: {}; see that etcd runs "
                    "there, or name another",
                    name_, fmt::join(endpoints_, ", "), why.empty() ? "no answer" : why));
  }
  if (!state()->cluster_id.empty()) return {};
  return fail(
      Code::not_found,
      fmt::format("etcd at {} has no cluster '{}': no node has ever joined it; check the name, or start "
                  "ringtaild on its nodes",
                  fmt::join(endpoints_, ", "), name_));
}

bool ClusterSession::wait_for_change(const State& seen, Clock::time_point until) {
  while (state() == seen) {
    const auto left = until - Clock::now();
    if (left.count() <= 0) return false;
    if (interrupt::wait(changed_fd_, left) == interrupt::Wake::signalled) return false;
    std::uint64_t ignored = 0;
    [[maybe_unused]] const ssize_t count = ::read(changed_fd_, &ignored, sizeof ignored);
  }
  return true;
}

void ClusterSession::wait_until_seen(std::span<const Change> changes, Clock::time_point until) {
  const auto is_seen = [&](const ClusterState& state) {
    return std::ranges::all_of(
        changes, [&](const Change& change) { return revision_of(state, change) != change.revision; });
  };
  for (State seen = state(); !is_seen(*seen); seen = state())
    if (!wait_for_change(seen, until)) return;
}

Result<bool> ClusterSession::commit(std::span<const Change> changes) { return coordinator_->commit(changes); }

Result<std::size_t> ClusterSession::make(const Decide& decide) {
  std::size_t made = 0;
  auto until = Clock::now() + timeout_;
  while (true) {
    const State seen = state();
    auto changes = decide(*seen);
    if (!changes) return std::unexpected(changes.error());
    if (changes->empty()) return made;
    if (interrupt::pending()) return interrupted();
    if (Clock::now() >= until)
      return fail(Code::timed_out, fmt::format("the records of cluster '{}' could not be changed in time; "
                                               "some may have been: do it again",
                                               name_));
    const auto some = std::span(*changes).first(std::min(changes->size(), Coordinator::kMaxChanges));
    const auto committed = coordinator_->commit(some);
    if (committed && *committed) {
      made += some.size();
      until = Clock::now() + timeout_;
      wait_until_seen(some, until);
    } else if (committed || committed.error().code == Code::timed_out) {
      // Somebody came first, or nobody knows: what is there now tells.
      wait_for_change(seen, std::min(until, Clock::now() + kCatchUp));
    } else {
      return std::unexpected(committed.error());
    }
  }
}

Status ClusterSession::wait(const std::function<bool(const ClusterState&)>& done) {
  for (State seen = state(); !done(*seen); seen = state())
    if (!wait_for_change(seen, Clock::now() + std::chrono::hours(1)) && interrupt::pending())
      return interrupted();
  return {};
}

int report_cluster(const GlobalOptions& options, const Error& error) {
  return interrupt::pending() ? interrupt::exit_code() : report(options, error);
}

std::vector<std::uint32_t> numbers_of(std::span<const NodeId> nodes) {
  std::vector<std::uint32_t> numbers;
  for (const NodeId node : nodes) numbers.push_back(node.value());
  return numbers;
}

std::string names_of(std::span<const NodeId> nodes) {
  return nodes.empty() ? "-" : fmt::format("{}", fmt::join(numbers_of(nodes), ", "));
}

std::string name_of(const TopicPartition& partition) {
  return fmt::format("{}-{}", partition.topic, partition.partition.value());
}

}  // namespace ringtail::tools
