// Producers that number their records; appends of which nobody tells what became of them; and changes of the leader.
#pragma once

#include <future>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/log_core.h"
#include "log/role.h"
#include "log/sent_records.h"
#include "unit/client/client_test_support.h"

namespace ringtail {

class IdempotenceTest : public ClientTest {
 protected:
  static ProducerOptions numbered(std::uint64_t id = kId) {
    return {.max_block = seconds(30), .enable_idempotence = true, .producer_id = id};
  }
  static RecordMetadata send(Producer& producer, std::string_view value,
                             std::optional<std::uint64_t> sequence = {}) {
    const auto sent = producer.send({.key = "k", .value = value, .partition = kFirst, .sequence = sequence});
    EXPECT_TRUE(sent) << to_string(producer.error());
    return sent.value_or(RecordMetadata{});
  }
  // Numbered from `sequence` on, if that is given.
  static std::vector<ProducerRecord> batch_of(std::initializer_list<std::string_view> values,
                                              std::optional<std::uint64_t> sequence = {}) {
    std::vector<ProducerRecord> records;
    for (const std::string_view value : values) records.push_back({.key = "k", .value = value});
    records.front().sequence = sequence;
    return records;
  }
  static RecordMetadata send_batch(Producer& producer, std::span<const ProducerRecord> records) {
    const auto sent = producer.send_batch(kFirst, records);
    EXPECT_TRUE(sent) << to_string(producer.error());
    return sent.value_or(RecordMetadata{});
  }
  std::vector<std::string> all(const std::string& topic) {
    Consumer reader = consumer(topic);
    const std::uint64_t end = reader.end_offset({topic, kFirst}).value().value();
    return end == 0 ? std::vector<std::string>() : take(reader, end);
  }
  // Of the first record that a reader gets.
  Offset first_offset(const std::string& topic) {
    Consumer reader = consumer(topic);
    const auto polled = reader.poll(seconds(60));
    EXPECT_TRUE(polled) << to_string(polled.error());
    return polled->front().offset;
  }

  static constexpr PartitionId kFirst{0};
  static constexpr std::uint64_t kId = 4711;
};

class IdempotenceOfUnknownTest : public IdempotenceTest {
 protected:
  static ProducerOptions impatient(std::uint64_t id) {
    ProducerOptions options = numbered(id);
    options.max_block = milliseconds(50);
    return options;
  }
  // The next operation of the only producer that `owner` is open as, once it has a place in its ring: it is given up
  // by a keeper that dies before it tells what became of it.
  void give_up_next(Producer& owner) {
    owner.try_claim(8).value().abort();
    for (shm::Slot& slot : log_->core()->control().slots()) {
      if (slot.role.load() != static_cast<std::uint32_t>(shm::SlotRole::producer) ||
          shm::slot_state(slot.word.load()) != shm::SlotState::active ||
          shm::op_phase(slot.op.load()) != shm::Phase::idle)
        continue;
      slot.given_up.store(shm::op_word(shm::op_sequence(slot.op.load()) + 1, shm::Phase::claiming, 0));
    }
  }
  static SendError failed_send(Producer& producer, std::string_view value, std::uint64_t sequence) {
    const auto sent = producer.send({.key = "k", .value = value, .partition = kFirst, .sequence = sequence});
    EXPECT_FALSE(sent);
    return sent ? SendError::closed : sent.error();
  }
};

class IdempotenceOfEpochsTest : public IdempotenceTest {
 protected:
  void SetUp() override {
    create("t");
    change({.role = shm::ReplicaRole::leader, .epoch = LeaderEpoch(1)});
  }
  log::RoleOutcome change(log::RoleRequest request) {
    const auto& core = log_->core();
    const auto topic = core->catalog().load_topic("t").value();
    std::promise<Result<log::RoleOutcome>> promise;
    if (request.role == shm::ReplicaRole::leader) {
      request.leader_node = 1;
      request.lease_deadline_ns = std::numeric_limits<std::int64_t>::max();
    }
    request.done = [&promise](Result<log::RoleOutcome> outcome) { promise.set_value(std::move(outcome)); };
    core->request_role(topic.topic_id, kFirst, std::move(request));
    auto outcome = promise.get_future().get();
    EXPECT_TRUE(outcome) << to_string(outcome.error());
    return outcome.value_or(log::RoleOutcome{});
  }
  // Another host led meanwhile, and has nothing from `kept` on.
  void lead_anew_without(const log::LogPoint& kept) {
    change({.role = shm::ReplicaRole::fenced, .epoch = LeaderEpoch(2)});
    change({.role = shm::ReplicaRole::follower, .epoch = LeaderEpoch(2), .leader_node = 2, .cut = kept});
    change({.role = shm::ReplicaRole::leader, .epoch = LeaderEpoch(3)});
  }
  shm::Partition& entry() {
    const auto& core = log_->core();
    return core->find_partition(core->catalog().load_topic("t").value(), kFirst).value().entry();
  }
  static log::LogPoint behind(const RecordMetadata& record) { return {record.end, record.offset + 1}; }
  void send_more_than_is_recalled() {
    Producer other = producer("t", numbered(99));
    const std::string value(256 << 10, 'v');
    for (std::size_t bytes = 0; bytes < log::SentRecords::kRecalledBytes * 5 / 4; bytes += value.size())
      send(other, value);
  }
};

}  // namespace ringtail
