// A cluster of coordinators in one process, with an etcd of its own.
#pragma once

#include <gmock/gmock.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "replication/etcd_coordinator.h"
#include "support/etcd_process.h"
#include "unit/replication/replication_test_support.h"

namespace ringtail::replication {

using Milliseconds = std::chrono::milliseconds;

inline EtcdCoordinatorOptions options_for(std::vector<std::string> endpoints) {
  EtcdCoordinatorOptions options;
  options.etcd.endpoints = std::move(endpoints);
  options.cluster = "test";
  options.lease_ttl = Milliseconds(1'000);
  return options;
}

inline std::unique_ptr<EtcdCoordinator> open_coordinator(const EtcdCoordinatorOptions& options) {
  auto coordinator = EtcdCoordinator::open(options);
  if (!coordinator) {
    ADD_FAILURE() << to_string(coordinator.error());
    std::abort();
  }
  return std::move(*coordinator);
}

// Waits for what happens on other threads and in etcd; false after a long while.
inline bool eventually(const std::function<bool()>& done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::chrono::steady_clock::now() < until) {
    if (done()) return true;
    std::this_thread::sleep_for(Milliseconds(2));
  }
  return done();
}

inline bool sees(const Coordinator& coordinator, NodeId node) {
  return coordinator.state()->live.contains(node);
}

class EtcdTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(etcd_.start()) << etcd_.trouble(); }

  EtcdCoordinatorOptions options() const { return options_for({etcd_.endpoint()}); }
  std::unique_ptr<EtcdCoordinator> coordinator() const { return open_coordinator(options()); }
  std::unique_ptr<EtcdCoordinator> observer() const {
    auto made = coordinator();
    const Status observed = made->observe(Milliseconds(20'000));
    EXPECT_TRUE(observed) << to_string(observed.error());
    return made;
  }
  // As somebody else who writes to the store.
  Result<nlohmann::json> post(const std::string& path, const nlohmann::json& body) const {
    EtcdSession session(options().etcd);
    EtcdConnection connection(session);
    return connection.post(path, body, Effect::repeatable);
  }
  void put(const std::string& key, const std::string& value) const {
    const auto done = post("/v3/kv/put", {{"key", to_base64(key)}, {"value", to_base64(value)}});
    ASSERT_TRUE(done) << to_string(done.error());
  }

  test::EtcdProcess etcd_;
};

}  // namespace ringtail::replication
