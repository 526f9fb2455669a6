// Creates a topic of one partition that several nodes hold, once they are all alive:
//
//     cluster_topic ETCD CLUSTER TOPIC NODE[,NODE...] [NAME=VALUE...]
//
// The first node leads. For scripts that show or measure a cluster.
#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>
#include <thread>

#include "replication/etcd_coordinator.h"
#include "support/cluster.h"

namespace {

using namespace ringtail;
using namespace ringtail::replication;

constexpr std::chrono::seconds kPatience{20};

int give_up(const Error& error) {
  std::fprintf(stderr, "%s\n", to_string(error).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: cluster_topic ETCD CLUSTER TOPIC NODE[,NODE...] [NAME=VALUE...]\n");
    return 2;
  }
  std::vector<NodeId> nodes;
  std::istringstream list(argv[4]);
  for (std::string node; std::getline(list, node, ',');)
    nodes.emplace_back(static_cast<std::uint32_t>(std::atoi(node.c_str())));
  TopicConfigs configs;
  for (int i = 5; i < argc; ++i) {
    const std::string pair = argv[i];
    const std::size_t equals = std::min(pair.find('='), pair.size() - 1);
    configs[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  auto coordinator = test::observe_cluster(argv[1], argv[2]);
  if (!coordinator) return give_up(coordinator.error());
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!std::ranges::all_of(nodes, [&](NodeId node) {
    return (*coordinator)->state()->live.contains(node);
  }) && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  if (auto made = test::commit_topic(**coordinator, argv[3], nodes, configs); !made)
    return give_up(made.error());
  return 0;
}
