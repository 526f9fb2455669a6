#include "support/cluster.h"

#include <httplib.h>
#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "base/topic_config.h"
#include "replication/placement.h"
#include "ringtail/ringtail.h"

namespace ringtail::test {
namespace {

using namespace replication;
using std::chrono::milliseconds;

constexpr std::size_t kShownBytes = 4'000;

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::filesystem::path make_directory() {
  std::string name = (std::filesystem::temp_directory_path() / "ringtail-cluster-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    std::perror("mkdtemp");
    std::abort();
  }
  return name;
}

}  // namespace

Result<std::unique_ptr<EtcdCoordinator>> observe_cluster(const std::string& endpoint,
                                                         const std::string& name) {
  EtcdCoordinatorOptions options;
  options.etcd.endpoints = {endpoint};
  options.cluster = name;
  auto coordinator = EtcdCoordinator::open(options);
  if (!coordinator) return coordinator;
  if (auto observed = (*coordinator)->observe(milliseconds(20'000)); !observed)
    return std::unexpected(observed.error());
  return coordinator;
}

Status commit_topic(Coordinator& coordinator, const std::string& topic, const std::vector<NodeId>& replicas,
                    const TopicConfigs& configs) {
  const auto config = parse_topic_config(configs);
  if (!config) return std::unexpected(config.error());
  const auto id = random_token();
  if (!id) return std::unexpected(id.error());
  const auto seen = coordinator.state();
  PartitionRecord partition;
  partition.topic = topic;
  partition.topic_id = *id;
  partition.replicas = replicas;
  for (const NodeId replica : replicas) {
    const NodeRecord* const node = find_live(*seen, replica);
    if (node == nullptr)
      return fail(Code::not_found, "node " + std::to_string(replica.value()) + " is not alive");
    partition.isr.push_back({replica, config->acks_synced() ? node->log_id : node->life});
  }
  partition.leader = replicas.front();
  partition.leader_incarnation = find_live(*seen, replicas.front())->incarnation;
  partition.leader_epoch = LeaderEpoch(1);
  partition.partition_epoch = 1;
  const TopicRecord record{.name = topic,
                           .topic_id = *id,
                           .partitions = 1,
                           .replication_factor = static_cast<std::uint32_t>(replicas.size()),
                           .configs = configs,
                           .created_ns = wall_clock_ns()};
  const std::vector<Change> changes = {{.record = partition}, {.record = record}};
  const auto made = coordinator.commit(changes);
  if (!made) return std::unexpected(made.error());
  return *made ? Status() : fail(Code::already_exists, "topic '" + topic + "' exists, or came meanwhile");
}

Cluster::Cluster(ClusterOptions options)
    : options_(std::move(options)),
      directory_(make_directory()),
      network_(HostNetwork::create(options_.nodes, no_network_)),
      etcd_(std::make_unique<EtcdProcess>(
          std::vector<std::string>{}, "http",
          network_ ? HostNetwork::address(HostNetwork::kMiddle) : std::string("127.0.0.1"))),
      nodes_(static_cast<std::size_t>(options_.nodes)) {}

Cluster::~Cluster() {
  for (Node& node : nodes_) node.process.reset();
  coordinator_.reset();
  for (const Node& node : nodes_) remove_shared_memory(node);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

bool Cluster::start() {
  if (!etcd_->start()) {
    trouble_ = etcd_->trouble();
    return false;
  }
  auto coordinator = observe_cluster(etcd_->endpoint(), "test");
  if (!coordinator) {
    trouble_ = to_string(coordinator.error());
    return false;
  }
  coordinator_ = std::move(*coordinator);
  for (int node = 1; node <= size(); ++node) {
    at(node).dir = directory_ / ("node" + std::to_string(node));
    std::filesystem::create_directories(at(node).dir);
    configure(node);
    start_node(node);
  }
  if (wait_until([this] { return state()->live.size() == nodes_.size(); })) return true;
  trouble_ = "not every node has joined:\n" + describe();
  return false;
}

std::string Cluster::describe() const {
  std::string text;
  if (coordinator_) {
    text += "alive:";
    for (const auto& [id, incarnation] : state()->live) text += ' ' + std::to_string(id.value());
    for (const auto& [name, stored] : state()->partitions) {
      const PartitionRecord& record = stored.record;
      text += "\n" + name.topic + ": leader " +
              (record.leader ? std::to_string(record.leader->value()) : "none") + ", epoch " +
              std::to_string(record.leader_epoch.value()) + ", ISR";
      for (const IsrMember& member : record.isr) text += ' ' + std::to_string(member.node.value());
    }
  }
  for (const Node& node : nodes_) {
    for (const char* const file : {"daemon.log", "errors"}) {
      const std::string log = text_of(node.dir / file);
      text += "\n--- " + (node.dir.filename() / file).string() + "\n" +
              log.substr(log.size() - std::min(log.size(), kShownBytes));
    }
  }
  return text;
}

// --- Nodes ---------------------------------------------------------------------------------------

void Cluster::configure(int node) {
  const std::string host = network_ ? HostNetwork::address(node) : "127.0.0.1";
  const auto port = network_ ? std::uint16_t{9290} : find_free_port();
  at(node).replication_address = host + ':' + std::to_string(port);
  std::ofstream(at(node).dir / "ringtaild.toml")
      << "[log]\ndir = \"" << log_dir(node).string() << "\"\n"
      << "[http]\nlisten = \"" << host << ":0\"\nallow_remote = true\n"
      << "[logging]\nlevel = \"debug\"\nfile = \"" << (at(node).dir / "daemon.log").string() << "\"\n"
      << "[node]\nid = " << node << "\nreplication_listen = \"" << at(node).replication_address << "\"\n"
      << "[cluster]\nname = \"test\"\netcd = [\"" << etcd_->endpoint() << "\"]\n"
      << "lease_ttl = \"" << options_.lease_ttl.count() << "ms\"\n"
      << "lease_margin = \"" << options_.lease_margin.count() << "ms\"\n"
      << "[replication]\nlag_time_max = \"" << options_.lag_time_max.count() << "ms\"\n"
      << (options_.replication ? options_.replication(node, at(node).dir) : "plain = true\n");
}

std::unique_ptr<Command> Cluster::run_on(int node, const std::vector<std::string>& command) const {
  std::vector<std::string> line = {"setpriv", "--pdeathsig", "KILL"};
  if (network_) {
    const std::vector<std::string> inside = network_->enter(node);
    line.insert(line.end(), inside.begin(), inside.end());
  }
  // What it has to say to standard error is kept, and never waits for a reader.
  line.insert(line.end(),
              {"sh", "-c", "exec \"$@\" > /dev/null 2>> \"$0\"", (at(node).dir / "errors").string()});
  if (options_.wrapper) {
    const std::vector<std::string> wrapper = options_.wrapper(node);
    line.insert(line.end(), wrapper.begin(), wrapper.end());
  }
  line.insert(line.end(), command.begin(), command.end());
  return std::make_unique<Command>(line);
}

void Cluster::start_node(int node) {
  at(node).process = run_on(node, {options_.daemon, "--config", (at(node).dir / "ringtaild.toml").string()});
}

void Cluster::kill_node(int node) { at(node).process.reset(); }

int Cluster::stop_node(int node) {
  signal_node(node, SIGTERM);
  const int exit_code = at(node).process->wait().exit_code;
  at(node).process.reset();
  return exit_code;
}

void Cluster::signal_node(int node, int number) const { at(node).process->signal(number); }

std::string Cluster::said_by(int node) const { return text_of(at(node).dir / "daemon.log"); }

std::string Cluster::replication_address(int node) const { return at(node).replication_address; }

std::string Cluster::http_address(int node) const {
  constexpr std::string_view kBefore = "dashboard on http://";
  const std::string said = said_by(node);
  const std::size_t found = said.rfind(kBefore);
  if (found == std::string::npos) return {};
  const std::size_t begin = found + kBefore.size();
  return said.substr(begin, said.find('/', begin) - begin);
}

std::string Cluster::fetch(int node, const std::string& path) const {
  const std::string address = http_address(node);
  if (address.empty()) return {};
  const auto answer = httplib::Client("http://" + address).Get(path);
  return answer ? answer->body : std::string();
}

void Cluster::remove_shared_memory(const Node& node) const {
  const std::string text = text_of(node.dir / "log" / "ringtail.toml");
  const std::size_t name = text.find("\nlog_id");
  const std::size_t quote = name == std::string::npos ? name : text.find('"', name);
  if (quote == std::string::npos) return;
  std::error_code ignored;
  std::filesystem::remove_all(
      "/dev/shm/ringtail-" + text.substr(quote + 1, text.find('"', quote + 1) - quote - 1), ignored);
}

// --- Metadata ------------------------------------------------------------------------------------

bool Cluster::create_topic(const std::string& topic, int leader, const TopicConfigs& configs) {
  std::vector<NodeId> replicas;
  for (int i = 0; i < size(); ++i)
    replicas.emplace_back(static_cast<std::uint32_t>((leader - 1 + i) % size() + 1));
  if (auto made = commit_topic(*coordinator_, topic, replicas, configs); !made) {
    trouble_ = to_string(made.error());
    return false;
  }
  return wait_until([&] {
    for (int node = 1; node <= size(); ++node) {
      auto log = Log::open({.dir = log_dir(node), .create_if_missing = false, .keeper = KeeperMode::none});
      if (!log || !log->watch_role({topic, PartitionId(0)})) return false;
    }
    return true;
  });
}

std::optional<PartitionRecord> Cluster::partition(const std::string& topic) const {
  const auto seen = state();
  const auto found = seen->partitions.find({topic, PartitionId(0)});
  if (found == seen->partitions.end()) return std::nullopt;
  return found->second.record;
}

std::optional<int> Cluster::leader(const std::string& topic) const {
  const auto seen = state();
  const auto found = seen->partitions.find({topic, PartitionId(0)});
  if (found == seen->partitions.end() || !is_led(found->second.record, *seen)) return std::nullopt;
  return static_cast<int>(found->second.record.leader->value());
}

std::optional<int> Cluster::wait_for_leader_but(const std::string& topic, int node) const {
  std::optional<int> found;
  wait_until([&] {
    found = leader(topic);
    return found && *found != node;
  });
  return found && *found != node ? found : std::nullopt;
}

bool Cluster::wait_until_whole(const std::string& topic) const {
  return wait_until([&] {
    const auto record = partition(topic);
    return record && leader(topic) && state()->live.size() == nodes_.size() &&
           record->isr.size() == nodes_.size();
  });
}

bool Cluster::wait_until(const std::function<bool()>& done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(90);
  while (std::chrono::steady_clock::now() < until) {
    if (done()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return done();
}

}  // namespace ringtail::test
