// The coordinator's transactions, asked without a producer, and what it writes down of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "groups/transactional_id.h"
#include "groups/transactions.h"
#include "log/partition_reader.h"
#include "unit/groups/groups_test_support.h"

namespace ringtail::groups {

class TransactionsTest : public GroupsTest {
 protected:
  shm::OwnedSlot sit_as_producer() {
    return shm::OwnedSlot::acquire(control(), attachment_->locks(), shm::SlotRole::producer).value();
  }
  Status take_id(const shm::OwnedSlot& slot, const std::string& id) {
    return ask_coordinator(*attachment_, slot, shm::GroupRequest::take_id, id, encode_terms(terms_));
  }
  std::uint32_t index_of(const shm::OwnedSlot& slot) const {
    return control().member(slot.index()).reply.load();
  }
  shm::TransactionalId& id_of(const shm::OwnedSlot& slot) const {
    return control().transactional_id(index_of(slot));
  }
  Status enlist(const shm::OwnedSlot& slot, const std::string& number) {
    return ask_coordinator(*attachment_, slot, shm::GroupRequest::enlist, "", number);
  }
  bool is_transactional(const std::string& topic) const {
    return ref(topic).entry().transactional.load() != 0;
  }
  std::uint64_t log_end(const std::string& topic) {
    auto slot = sit_as_producer();
    auto reader = log::PartitionReader::open(ref(topic), slot.index(), 1 << 20).value();
    return reader->log_end()->offset.value();
  }

  TransactionTerms terms_{.timeout_ms = 60'000, .durable = false};

  // --- Records of the topic ---

  void append(const std::vector<KeyValue>& records) {
    stop_coordinator();
    InternalTopic topic(*attachment_, kTransactionsTopic);
    const Status appended = topic.append(records);
    ASSERT_TRUE(appended) << to_string(appended.error());
  }
  KeyValue partition(const std::string& topic) const {
    return {fmt::format(R"({{"partition":0,"topic_id":"{}"}})", to_hex(topic_id(topic))), "{}"};
  }
  static std::string key(std::uint32_t transaction) {
    return fmt::format(R"({{"producer_id":"00000000000000aa","epoch":1,"transaction":{}}})", transaction);
  }
  std::string position(const std::string& group, const std::string& topic, std::uint64_t offset) const {
    return fmt::format(
        R"({{"group":"{}","topic":"{}","topic_id":"{}","partition":0,"offset":{},"committed_ns":7}})", group,
        topic, to_hex(topic_id(topic)), offset);
  }
  KeyValue decision(std::uint32_t transaction, const std::string& topic, const std::string& positions) const {
    return {key(transaction),
            fmt::format(R"({{"producer_id":"00000000000000aa","epoch":1,"transaction":{},)"
                        R"("partitions":[{{"topic_id":"{}","partition":0}}],"offsets":[{}]}})",
                        transaction, to_hex(topic_id(topic)), positions)};
  }
};

}  // namespace ringtail::groups
