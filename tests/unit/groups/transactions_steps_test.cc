// The coordinator's transactions step by step, taken by the test itself: what each must wait for, and what it must not.
#include <fstream>

#include "base/files.h"
#include "log/wide_cas.h"
#include "unit/groups/opens.h"
#include "unit/groups/transactions_test_support.h"

namespace ringtail::groups {
namespace {

using shm::TransactionState;
using ::testing::HasSubstr;

class TransactionStepsTest : public TransactionsTest {
 protected:
  // From here on the test is the coordinator, and knows nothing.
  void become_coordinator() {
    stop_coordinator();
    transactions_.reset();
    transactions_.emplace(*attachment_, offsets_.emplace(*attachment_, kOffsetsTopic));
  }
  // What was appended is on disk, what will be is in memory only.
  void stop_keeper() {
    keeper_->stop();
    keeper_thread_.join();
    keeper_.reset();
  }
  // As if all of it had come to the disk.
  void sync(const std::string& topic) { ref(topic).entry().durable_position.store(~std::uint64_t{0} >> 1); }
  void round() { transactions_->round(monotonic_ns()); }

  // Of a producer that has not sent anything.
  shm::OwnedSlot sit_with_id(const std::string& id) {
    auto slot = sit_as_producer();
    const Status taken = take_id(slot, id);
    EXPECT_TRUE(taken) << to_string(taken.error());
    return slot;
  }
  void enlist_in(const std::string& topic) {
    const auto slot = sit_as_producer();
    const Status enlisted = enlist(slot, std::to_string(ref(topic).index));
    ASSERT_TRUE(enlisted) << to_string(enlisted.error());
  }
  void begin(const shm::OwnedSlot& slot, std::uint32_t number, const std::vector<std::string>& topics) {
    shm::TransactionalId& id = id_of(slot);
    for (const std::string& topic : topics) {
      const std::uint32_t index = ref(topic).index;
      id.partitions[index / 64].fetch_or(std::uint64_t{1} << index % 64);
    }
    const std::uint16_t epoch = shm::transaction_epoch(id.word.load());
    id.word.store(shm::transaction_word(epoch, number, TransactionState::ongoing));
  }
  void add_position(const shm::OwnedSlot& slot, std::uint32_t entry, std::uint64_t offset) {
    shm::GroupPartition& position = table().partitions[entry];
    log::WideWord seen = log::wide_load(&position.pending_offset);
    const std::uint64_t mine = shm::pending_word(index_of(slot), id_of(slot).word.load());
    ASSERT_TRUE(log::wide_compare_exchange(&position.pending_offset, seen, {offset, mine}));
  }
  void decide(const shm::OwnedSlot& slot, TransactionState as) {
    id_of(slot).word.store(shm::with_state(id_of(slot).word.load(), as));
  }
  TransactionState state_of(const shm::OwnedSlot& slot) const {
    return shm::transaction_state(id_of(slot).word.load());
  }
  // What another coordinator wrote down of the transaction.
  KeyValue decision_of(const shm::OwnedSlot& slot) const {
    const shm::TransactionalId& id = id_of(slot);
    const std::uint64_t word = id.word.load();
    return {decision_key(id, word),
            fmt::format(R"({{"producer_id":"{}","epoch":{},"transaction":{},"partitions":[],"offsets":[]}})",
                        to_hex(id.producer_id.load()), shm::transaction_epoch(word),
                        shm::transaction_number(word))};
  }
  std::string last_value(const std::string& topic) {
    const auto slot = sit_as_producer();
    auto reader = log::PartitionReader::open(ref(topic), slot.index(), 1 << 20).value();
    std::string value;
    std::vector<Record> records(16);
    while (reader->offset() < reader->log_end()->offset) {
      auto polled = reader->poll(records);
      EXPECT_TRUE(polled) << to_string(polled.error());
      if (!polled) break;
      if (*polled > 0) value = records[*polled - 1].value;
    }
    return value;
  }
  std::uint64_t noted() { return log_end(std::string(kTransactionsTopic)); }

  std::optional<InternalTopic> offsets_;
  std::optional<Transactions> transactions_;
};

// --- What may not be passed over -----------------------------------------------------------------

TEST_F(TransactionStepsTest, APositionWaitsForTheRecordsOfEveryTransactionThatHasMovedIt) {
  for (const char* topic : {"in", "slow", "quick"}) create(topic);
  for (const char* topic : {"slow", "quick"}) ASSERT_NO_FATAL_FAILURE(enlist_in(topic));
  auto seat = join("copiers", "in");
  ASSERT_NO_FATAL_FAILURE(settle({seat.get()}, {1}));
  const std::uint32_t entry = *entry_of("copiers", topic_id("in"));
  const auto slot = sit_with_id("t");
  become_coordinator();
  stop_keeper();
  std::uint32_t number = 0;
  for (const char* topic : {"slow", "quick"}) {
    begin(slot, ++number, {topic});
    ASSERT_NO_FATAL_FAILURE(add_position(slot, entry, number * 100));
    decide(slot, TransactionState::committing);
    round();
    ASSERT_EQ(state_of(slot), TransactionState::ready);
  }
  ASSERT_EQ(committed("copiers", "in"), "200");
  sync("quick");
  EXPECT_FALSE(transactions_->may_persist(entry, false));
  sync("slow");
  EXPECT_TRUE(transactions_->may_persist(entry, false));
}

TEST_F(TransactionStepsTest, ADurableCommitIsNotDecidedWithoutThePositionsThatBelongToIt) {
  for (const char* topic : {"in", "out"}) create(topic);
  ASSERT_NO_FATAL_FAILURE(enlist_in("out"));  // makes the topic of decisions
  auto seat = join("copiers", "in");
  ASSERT_NO_FATAL_FAILURE(settle({seat.get()}, {1}));
  terms_.durable = true;
  const auto slot = sit_with_id("t");
  become_coordinator();
  begin(slot, 1, {});
  ASSERT_NO_FATAL_FAILURE(add_position(slot, *entry_of("copiers", topic_id("in")), 5));
  decide(slot, TransactionState::committing);
  const auto path = attachment_->catalog().dir() / "topics" / "out" / "topic.toml";
  std::string healthy;
  std::getline(std::ifstream(path), healthy, '\0');
  ASSERT_TRUE(write_file_atomically(path, "nonsense"));  // no topic has a name
  for (int i = 0; i < 3; ++i) round();
  EXPECT_EQ(noted(), 1u);
  EXPECT_EQ(state_of(slot), TransactionState::committing);
  ASSERT_TRUE(write_file_atomically(path, healthy));
  ASSERT_NO_FATAL_FAILURE(wait([&] {
    round();
    return state_of(slot) == TransactionState::ready;
  }));
  EXPECT_EQ(noted(), 2u);
  EXPECT_THAT(last_value(std::string(kTransactionsTopic)), HasSubstr("\"offset\":5"));
  EXPECT_EQ(committed("copiers", "in"), "5");
}

// As another process says of it.
TEST_F(TransactionStepsTest, TheMarkerOfAPartitionThatIsSaidToBeOpenedIsNotPassedOver) {
  create("out");
  ASSERT_NO_FATAL_FAILURE(enlist_in("out"));
  const auto slot = sit_with_id("t");
  become_coordinator();
  begin(slot, 1, {"out"});
  auto& state = ref("out").entry().state;
  state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  decide(slot, TransactionState::aborting);
  round();
  EXPECT_EQ(state_of(slot), TransactionState::aborting);
  state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  ASSERT_NO_FATAL_FAILURE(wait([&] {
    round();
    return state_of(slot) == TransactionState::ready;
  }));
  EXPECT_EQ(log_end("out"), 1u);
}

// It was written down, but in memory only, when the coordinator died.
TEST_F(TransactionStepsTest, ADecisionStandsUntilThePositionThatAnotherCoordinatorWroteIsOnDisk) {
  for (const char* topic : {"in", "out"}) create(topic);
  ASSERT_NO_FATAL_FAILURE(enlist_in("out"));
  append({decision(1, "out", position("billing", "in", 5))});
  InternalTopic others(*attachment_, kOffsetsTopic);
  const KeyValue record{"a group's", "position"};
  ASSERT_TRUE(others.append(std::span(&record, 1)));  // makes the topic
  stop_keeper();
  ASSERT_TRUE(others.append(std::span(&record, 1)));
  become_coordinator();
  ASSERT_TRUE(transactions_->take_up());
  transactions_->note_written({});
  round();
  EXPECT_EQ(noted(), 2u);
  sync(std::string(kOffsetsTopic));
  round();
  EXPECT_EQ(noted(), 3u);  // its tombstone
}

// The other coordinator had written the markers and was about to say that the transaction has ended.
TEST_F(TransactionStepsTest, ADecisionStandsUntilTheMarkersThatAnotherCoordinatorWroteAreOnDisk) {
  create("out");
  ASSERT_NO_FATAL_FAILURE(enlist_in("out"));
  terms_.durable = true;
  const auto slot = sit_with_id("t");
  stop_coordinator();
  begin(slot, 1, {});
  decide(slot, TransactionState::committing);
  append({decision_of(slot)});
  stop_keeper();
  auto others = sit_as_producer();
  WallClock clock;
  auto appender = log::Appender::open(ref("out"), others, clock, milliseconds(0));
  ASSERT_TRUE(appender) << to_string(appender.error());
  ASSERT_TRUE(appender->append({.value = "as a marker"}));
  become_coordinator();
  ASSERT_TRUE(transactions_->take_up());
  round();
  ASSERT_EQ(state_of(slot), TransactionState::ready);
  transactions_->note_written({});
  round();
  EXPECT_EQ(noted(), 2u);
  sync("out");
  round();
  EXPECT_EQ(noted(), 3u);
}

// --- What is not waited for ----------------------------------------------------------------------

TEST_F(TransactionStepsTest, AClaimIsWaitedForUntilTheKeeperHasGivenItUp) {
  create("out");
  ASSERT_NO_FATAL_FAILURE(enlist_in("out"));
  auto slot = sit_with_id("t");
  become_coordinator();
  stop_keeper();
  begin(slot, 1, {"out"});
  slot.announce(shm::Phase::claiming, ref("out").index);
  decide(slot, TransactionState::aborting);
  for (int i = 0; i < 3; ++i) round();
  EXPECT_EQ(state_of(slot), TransactionState::aborting);
  shm::Slot& shared = control().slot(slot.index());
  // Alone, as in a partition that has failed: its ring is not fenced.
  shared.given_up_done.store(shared.op.load());
  round();
  EXPECT_EQ(state_of(slot), TransactionState::aborting);
  shared.given_up.store(shared.op.load());
  round();
  EXPECT_EQ(state_of(slot), TransactionState::ready);
  EXPECT_EQ(log_end("out"), 1u);
  slot.finish();
}

TEST_F(TransactionStepsTest, ADecisionThatStandsIsFollowedWhereAPartitionHasNotFailed) {
  for (const char* topic : {"good", "bad"}) create(topic);
  for (const char* topic : {"good", "bad"}) ASSERT_NO_FATAL_FAILURE(enlist_in(topic));
  terms_.durable = true;
  const auto slot = sit_with_id("t");
  stop_coordinator();
  begin(slot, 1, {"good", "bad"});
  decide(slot, TransactionState::committing);
  append({decision_of(slot)});
  stop_keeper();
  ref("bad").entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  become_coordinator();
  ASSERT_TRUE(transactions_->take_up());
  for (int i = 0; i < 3; ++i) round();
  EXPECT_EQ(log_end("good"), 1u);
  EXPECT_EQ(noted(), 3u);  // the decision is not written anew
  EXPECT_EQ(state_of(slot), TransactionState::committing);
}

// --- What is not tried in every round ------------------------------------------------------------

TEST_F(TransactionStepsTest, WhatCannotBeOpenedDoesNotTakeTheCatalogInEveryRound) {
  for (const char* topic : {"good", "bad"}) create(topic);
  for (const char* topic : {"good", "bad"}) ASSERT_NO_FATAL_FAILURE(enlist_in(topic));
  const auto plain = sit_with_id("plain");
  terms_.durable = true;
  const auto durable = sit_with_id("durable");
  become_coordinator();
  begin(plain, 1, {"good", "bad"});
  begin(durable, 1, {"good", "bad"});
  auto& state = ref("bad").entry().state;
  state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  decide(plain, TransactionState::aborting);
  decide(durable, TransactionState::committing);
  Opens opens(dir_ / "log" / "topics" / "good");
  for (int i = 0; i < 100; ++i) round();
  const int opened = opens.count();
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, 50);
  EXPECT_EQ(state_of(plain), TransactionState::aborting);
  EXPECT_EQ(state_of(durable), TransactionState::committing);
  EXPECT_EQ(log_end("good"), 1u);
  state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  ASSERT_NO_FATAL_FAILURE(wait([&] {
    round();
    return state_of(plain) == TransactionState::ready && state_of(durable) == TransactionState::ready;
  }));
  EXPECT_EQ(log_end("bad"), 2u);
}

// --- What is of another topic --------------------------------------------------------------------

TEST_F(TransactionStepsTest, ADeletedTopicsTransactionIsNotEndedInTheTopicInItsPlace) {
  create("gone");
  const std::uint32_t index = ref("gone").index;
  ASSERT_NO_FATAL_FAILURE(enlist_in("gone"));
  const auto slot = sit_with_id("t");
  become_coordinator();
  begin(slot, 1, {"gone"});
  ASSERT_TRUE(attachment_->catalog().delete_topic("gone"));
  ASSERT_TRUE(attachment_->apply_catalog());
  create("in-its-place");
  ASSERT_EQ(ref("in-its-place").index, index);
  auto& state = ref("in-its-place").entry().state;
  state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));  // it takes no marker
  decide(slot, TransactionState::aborting);
  round();
  EXPECT_EQ(state_of(slot), TransactionState::ready);
  state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  EXPECT_EQ(log_end("in-its-place"), 0u);
}

}  // namespace
}  // namespace ringtail::groups
