// The fixture of tests that drive `ringtail` in a cluster: an etcd of the test's own, and nodes that it makes up.
#pragma once

#include <gmock/gmock.h>

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "base/random.h"
#include "integration/cli.h"
#include "replication/etcd_coordinator.h"
#include "support/etcd_process.h"

namespace ringtail::test {

using namespace replication;
using nlohmann::json;

class CliClusterTest : public CliTest {
 protected:
  void SetUp() override { ASSERT_TRUE(etcd_.start()) << etcd_.trouble(); }

  std::unique_ptr<EtcdCoordinator> coordinator() const {
    EtcdCoordinatorOptions options;
    options.etcd.endpoints = {etcd_.endpoint()};
    options.cluster = "main";
    auto made = EtcdCoordinator::open(std::move(options));
    if (!made) std::abort();
    return std::move(*made);
  }

  static NodeRecord node(std::uint32_t id) {
    return {.id = NodeId(id),
            .incarnation = 0xabc0'0000 + id,
            .started_ns = 1'700'000'000'000'000'000,
            .replication = {"10.0.0." + std::to_string(id), 9'465},
            .http = {"10.0.0." + std::to_string(id), 9'464},
            .rack = id % 2 == 1 ? "odd" : "even",
            .log_id = to_hex(std::uint64_t{id}) + to_hex(std::uint64_t{id}),
            .life = to_hex(std::uint64_t{id}),
            .draining = false,
            .release = "0.1.0"};
  }

  void start_nodes(std::uint32_t count) {
    for (std::uint32_t id = 1; id <= count; ++id) {
      nodes_.push_back(coordinator());
      const Status joined =
          nodes_.back()->join(node(id), {.replace = false, .wait = std::chrono::seconds(20)});
      ASSERT_TRUE(joined) << to_string(joined.error());
    }
  }
  void stop_node(std::uint32_t id) {
    ASSERT_TRUE(nodes_[id - 1]->leave());
    ASSERT_TRUE(eventually([&](const ClusterState& state) { return !state.live.contains(NodeId(id)); }));
  }

  // As node 1 sees it; as soon as it is so.
  bool eventually(const std::function<bool(const ClusterState&)>& done, std::size_t seen_by = 0) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < until) {
      if (done(*nodes_[seen_by]->state())) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  // Changes a partition as its leader would.
  void change(const std::string& topic, std::uint32_t partition, std::size_t author,
              const std::function<void(PartitionRecord&)>& how) {
    const TopicPartition name{topic, PartitionId(partition)};
    ASSERT_TRUE(
        eventually([&](const ClusterState& state) { return state.partitions.contains(name); }, author));
    for (int attempt = 0; attempt < 100; ++attempt) {
      Stored<PartitionRecord> stored = nodes_[author]->state()->partitions.at(name);
      how(stored.record);
      ++stored.record.partition_epoch;
      const Change wanted{stored.record, stored.revision};
      const auto made = nodes_[author]->commit(std::span(&wanted, 1));
      ASSERT_TRUE(made) << to_string(made.error());
      if (*made) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << "the record of " << topic << "-" << partition << " is changed by somebody all the time";
  }

  std::vector<std::string> with_cluster(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--etcd", etcd_.endpoint(), "--cluster", "main"});
    return arguments;
  }
  CommandResult cluster(std::vector<std::string> arguments) const {
    return run(with_cluster(std::move(arguments)));
  }
  std::string cluster_ok(std::vector<std::string> arguments) const {
    return run_ok(with_cluster(std::move(arguments)));
  }
  json cluster_json(std::vector<std::string> arguments) const {
    return run_json(with_cluster(std::move(arguments)));
  }
  json partition_of(const std::string& topic, std::size_t partition) const {
    return cluster_json({"cluster", "describe", topic})["partitions"][partition];
  }
  void create(const std::string& topic, const std::string& partitions, const std::string& factor) const {
    cluster_ok({"topic", "create", topic, "--partitions", partitions, "--replication-factor", factor});
  }

  EtcdProcess etcd_;
  std::vector<std::unique_ptr<EtcdCoordinator>> nodes_;
};

}  // namespace ringtail::test
