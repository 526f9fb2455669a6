// A replica of node 1: its keeper and its log are real, the network and the cluster's records are not.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "replication/replica.h"
#include "support/no_descriptors.h"
#include "unit/log/replica_test_support.h"
#include "unit/replication/nodes.h"

namespace ringtail::replication {

inline constexpr std::int64_t kHour = 3'600'000'000'000;

class SilentLink : public Link {
 public:
  explicit SilentLink(NodeId peer) : peer_(peer) {}
  NodeId peer() const override { return peer_; }
  std::uint64_t peer_incarnation() const override { return 1; }
  void send(const MessageHeader&, std::span<const std::byte>) override {}
  void send_in_place(const MessageHeader&, std::span<const std::byte>) override {}
  bool takes_unchecked() const override { return false; }
  void send_unchecked(const MessageHeader&, io::FileBytes) override {}
  std::size_t queued() const override { return 0; }
  void close(const std::string&) override {}

 private:
  NodeId peer_;
};

class SilentNetwork : public Network {
 public:
  void set_peers(const std::map<NodeId, Address>&) override {}
  Status renew_tls(const PeerTls&) override { return {}; }
  Link* link(NodeId peer) override {
    const auto found = links_.find(peer);
    return found == links_.end() ? nullptr : &found->second;
  }
  std::uint16_t port() const override { return 0; }
  std::string trouble(NodeId) const override { return {}; }

 private:
  std::map<NodeId, SilentLink> links_{{kTwo, SilentLink(kTwo)}, {kThree, SilentLink(kThree)}};
};

class ReplicaTest : public ::testing::Test, public ReplicaHost {
 protected:
  explicit ReplicaTest(Storage storage = Storage::memory) : host_(storage) {
    context_.self = kOne;
    context_.window_bytes = 1 << 20;
    context_.network = &network_;
    context_.slot = 402;
    config_.storage = storage;
    record_.topic = "topic";
    record_.topic_id = host_.ref().topic_id;
    record_.replicas = {kOne, kTwo, kThree};
    record_.isr = {{kOne, "boot-1"}, {kTwo, "boot-2"}};
    record_.leader = kOne;
    record_.leader_epoch = LeaderEpoch(1);
    record_.partition_epoch = 1;
  }

  void take_role(const StreamId&, log::RoleRequest request) override {
    if (request.role == shm::ReplicaRole::leader && cannot_lead_) {
      pending_ = std::move(request.done);
      return;
    }
    request.done = [this, done = std::move(request.done)](Result<log::RoleOutcome> outcome) {
      std::optional<testing::NoDescriptors> none;
      if (cannot_open_) none.emplace();
      if (done) done(std::move(outcome));
      ++answers_;
    };
    host_.keeper().request_role(std::move(request));
  }
  void commit(const PartitionRecord& record, std::function<void(std::optional<bool>)> done) override {
    commits_.push_back(record);
    done_ = std::move(done);
  }
  std::int64_t lease_deadline_ns() const override { return boottime_ns() + kHour; }
  std::int64_t lag_time_max_ns() const override { return lag_time_max_ns_; }
  std::optional<std::string> life_of(NodeId node, bool synced) const override {
    if (!boots_.contains(node)) return std::nullopt;
    return synced ? "log-" + std::to_string(node.value()) : boots_.at(node);
  }
  bool is_met(NodeId node) const override { return met_.contains(node); }

  void see(std::int64_t revision) { replica_.set_record({record_, revision}, kOne, config_); }
  void lead(std::int64_t revision = 1) {
    see(revision);
    host_.turn_until([&] { return replica_.leading() != nullptr; });
  }
  void tick() { replica_.tick(monotonic_ns()); }
  // The record, led by node 2.
  PartitionRecord successor() const {
    PartitionRecord next = record_;
    next.leader = kTwo;
    ++next.leader_epoch;
    ++next.partition_epoch;
    return next;
  }
  MessageHeader header(MessageType type, const log::LogPoint& at = {}) const {
    return {.type = type,
            .topic_id = record_.topic_id,
            .leader_epoch = record_.leader_epoch.value(),
            .position = at.position.value(),
            .offset = at.offset.value()};
  }
  // A follower asks, is shipped everything, and says that it has it.
  void catch_up(NodeId node) {
    const auto epochs = encode_epochs(log::EpochList());
    replica_.on_follow(*network_.link(node), {header(MessageType::follow), epochs});
    acknowledge(node, {});
  }
  void acknowledge(NodeId node, const log::LogPoint& at, const log::LogPoint& synced = {}) {
    replica_.pump();
    MessageHeader ack = header(MessageType::ack, at);
    ack.mark_position = synced.position.value();
    ack.mark_offset = synced.offset.value();
    replica_.on_ack(node, {ack, {}});
  }
  log::LogPoint append() {
    auto producer = host_.new_producer();
    host_.append(*producer, "value ", 1);
    return host_.end();
  }
  Position watermark() { return Position(host_.entry().high_watermark.load()); }
  shm::ReplicaRole role() { return static_cast<shm::ReplicaRole>(host_.entry().role.load()); }

  log::ReplicaHost host_;
  SilentNetwork network_;
  ShipContext context_;
  TopicConfig config_;
  PartitionRecord record_;
  std::map<NodeId, std::string> boots_{{kOne, "boot-1"}, {kTwo, "boot-2"}, {kThree, "boot-3"}};
  std::set<NodeId> met_{kTwo, kThree};
  std::vector<PartitionRecord> commits_;
  std::function<void(std::optional<bool>)> done_;
  std::int64_t revision_ = 0;
  int refused_ = 0;
  std::size_t answers_ = 0;  // of the keeper
  std::int64_t lag_time_max_ns_ = kHour;
  bool cannot_open_ = false;  // anything, while the keeper answers
  bool cannot_lead_ = false;
  std::function<void(Result<log::RoleOutcome>)> pending_;  // of the keeper that cannot
  Replica replica_{context_, *this, {"topic", PartitionId(0)}, {host_.ref().topic_id, 0}};
};

}  // namespace ringtail::replication
