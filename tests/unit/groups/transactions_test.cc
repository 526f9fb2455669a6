// The coordinator's transactions, asked without a producer: ids, what is noted about partitions, and what is
// made of the topic of decisions after a reboot.
#include "unit/groups/log_capture.h"
#include "unit/groups/transactions_test_support.h"

namespace ringtail::groups {
namespace {

using shm::TransactionState;
using ::testing::HasSubstr;

// --- Ids -----------------------------------------------------------------------------------------

TEST_F(TransactionsTest, OneIdTooManyIsRefusedUntilAProducerGoes) {
  std::vector<shm::OwnedSlot> slots;
  for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds; ++i) {
    slots.push_back(sit_as_producer());
    ASSERT_TRUE(take_id(slots.back(), "id-" + std::to_string(i)));
  }
  const auto slot = sit_as_producer();
  const Status refused = take_id(slot, "one-too-many");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::limit_exceeded);
  EXPECT_THAT(refused.error().message, HasSubstr("all 128 transactional ids are held by producers"));
  EXPECT_TRUE(take_id(slot, "id-5"));  // one that there is may be taken over
  const std::uint32_t freed = index_of(slots[9]);
  slots.erase(slots.begin() + 9);
  EXPECT_TRUE(take_id(slot, "one-too-many"));
  EXPECT_EQ(index_of(slot), freed);
}

TEST_F(TransactionsTest, AnEntryThatGoesToAnotherIdGoesOnWithItsEpochs) {
  std::vector<std::uint64_t> words(shm::kMaxTransactionalIds);
  {
    const auto slot = sit_as_producer();
    for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds; ++i) {
      ASSERT_TRUE(take_id(slot, "old " + std::to_string(i)));
      words[index_of(slot)] = id_of(slot).word.load();
    }
  }
  const auto slot = sit_as_producer();
  ASSERT_TRUE(take_id(slot, "new"));
  const auto in_first_transaction = [](std::uint64_t word) {
    return shm::transaction_word(shm::transaction_epoch(word), 1, TransactionState::ongoing);
  };
  const std::uint64_t before = in_first_transaction(words[index_of(slot)]);
  const std::uint64_t now = in_first_transaction(id_of(slot).word.load());
  EXPECT_GT(shm::transaction_epoch(now), shm::transaction_epoch(before));
  EXPECT_FALSE(shm::is_pending_of(shm::pending_word(index_of(slot), before), now));
}

TEST_F(TransactionsTest, AnIdWhoseTransactionIsOpenIsNoRoomBeforeItIsAborted) {
  std::uint32_t index = 0;
  {
    const auto gone = sit_as_producer();
    ASSERT_TRUE(take_id(gone, "t"));
    index = index_of(gone);
    stop_coordinator();
    id_of(gone).word.store(shm::transaction_word(1, 1, TransactionState::ongoing));
  }
  start_coordinator();
  const auto slot = sit_as_producer();
  ASSERT_TRUE(take_id(slot, "other"));
  EXPECT_NE(index_of(slot), index);
  wait([&] {
    return shm::transaction_state(control().transactional_id(index).word.load()) == TransactionState::ready;
  });
  EXPECT_EQ(control().transactional_id(index).ended_aborted.load(), 1u);
}

TEST_F(TransactionsTest, EachHolderOfAnIdHasTheNextEpoch) {
  const auto first = sit_as_producer(), second = sit_as_producer();
  ASSERT_TRUE(take_id(first, "t"));
  const std::uint64_t producer_id = id_of(first).producer_id.load();
  const std::uint16_t epoch = shm::transaction_epoch(id_of(first).word.load());
  ASSERT_TRUE(take_id(second, "t"));
  EXPECT_EQ(index_of(second), index_of(first));
  EXPECT_EQ(shm::transaction_epoch(id_of(second).word.load()), epoch + 1);
  EXPECT_EQ(id_of(second).producer_id.load(), producer_id);
  EXPECT_EQ(id_of(second).slot.load(), second.index());
}

TEST_F(TransactionsTest, BehindTheLastEpochTheProducerIdIsAnother) {
  const auto slot = sit_as_producer();
  ASSERT_TRUE(take_id(slot, "t"));
  const std::uint64_t producer_id = id_of(slot).producer_id.load();
  id_of(slot).word.store(shm::transaction_word(0xffff, 3, TransactionState::ready));
  ASSERT_TRUE(take_id(slot, "t"));
  EXPECT_EQ(shm::transaction_epoch(id_of(slot).word.load()), 0u);
  EXPECT_NE(id_of(slot).producer_id.load(), producer_id);
}

// The answer is there, but by the time it is looked at the id is another's.
TEST_F(TransactionsTest, WhoseIdWasTakenBeforeItSawTheAnswerDoesNotHoldIt) {
  const auto first = sit_as_producer(), second = sit_as_producer();
  ASSERT_TRUE(take_id(first, "t"));
  ASSERT_TRUE(take_id(second, "t"));
  const auto lost = held_id(control(), first);
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Code::fenced);
  EXPECT_THAT(lost.error().message, HasSubstr("another producer has taken the transactional id 't'"));
  const auto held = held_id(control(), second);
  ASSERT_TRUE(held) << to_string(held.error());
  EXPECT_EQ(held->index, index_of(second));
  EXPECT_EQ(held->word, id_of(second).word.load());
  EXPECT_EQ(held->producer_id, id_of(second).producer_id.load());
}

TEST_F(TransactionsTest, AnIdThatIsBeingHandedOverIsNobodys) {
  const auto slot = sit_as_producer();
  ASSERT_TRUE(take_id(slot, "t"));
  const std::uint64_t word = id_of(slot).word.load();
  id_of(slot).word.store(shm::with_state(word, TransactionState::none));
  const auto held = held_id(control(), slot);
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, Code::fenced);
}

// Of a coordinator that died within it.
TEST_F(TransactionsTest, AnInterruptedHandOverIsDoneAnewAndFencesTheOldHolder) {
  const auto old = sit_as_producer(), young = sit_as_producer();
  ASSERT_TRUE(take_id(old, "t"));
  const HeldId before = held_id(control(), old).value();
  stop_coordinator();
  id_of(old).word.store(shm::transaction_word(
      static_cast<std::uint16_t>(shm::transaction_epoch(before.word) + 1), 0, TransactionState::none));
  id_of(old).slot.store(young.index());  // and no further
  start_coordinator();
  ASSERT_TRUE(take_id(young, "t"));
  const auto held = held_id(control(), young);
  ASSERT_TRUE(held) << to_string(held.error());
  EXPECT_NE(held->producer_id, before.producer_id);
  EXPECT_NE(control().transactional_id(before.index).word.load(), before.word);
}

TEST_F(TransactionsTest, TermsAreThoseOfTheHolder) {
  const auto first = sit_as_producer(), second = sit_as_producer();
  terms_ = {.timeout_ms = 7, .durable = true};
  ASSERT_TRUE(take_id(first, "t"));
  EXPECT_EQ(id_of(first).timeout_ms.load(), 7u);
  EXPECT_EQ(id_of(first).durable.load(), 1u);
  terms_ = {.timeout_ms = ~0u, .durable = false};
  ASSERT_TRUE(take_id(second, "t"));
  EXPECT_EQ(id_of(second).timeout_ms.load(), ~0u);
  EXPECT_EQ(id_of(second).durable.load(), 0u);
}

TEST_F(TransactionsTest, TermsThatCannotBeAreRefused) {
  const auto slot = sit_as_producer();
  for (const char* terms : {"", " ", "60000", "60000 ", "60000 2", "60000  1", "60000 1 ", "x 1", "0 1",
                            "-1 1", "4294967296 1", "1.5 0", " 1 1"}) {
    const Status refused = ask_coordinator(*attachment_, slot, shm::GroupRequest::take_id, "t", terms);
    ASSERT_FALSE(refused) << terms;
    EXPECT_EQ(refused.error().code, Code::invalid_argument);
  }
}

// --- Partitions ----------------------------------------------------------------------------------

TEST_F(TransactionsTest, WhatIsNoPartitionsNumberIsRefused) {
  const auto slot = sit_as_producer();
  for (const char* number : {"", "x", "-1", "4096", "1.5", "0x1", " 1", "99999999999999999999"}) {
    const Status refused = enlist(slot, number);
    ASSERT_FALSE(refused) << number;
    EXPECT_EQ(refused.error().code, Code::invalid_argument);
  }
  EXPECT_FALSE(attachment_->catalog().load_topic(std::string(kTransactionsTopic)));
}

TEST_F(TransactionsTest, APartitionIsNotedOnDiskOnce) {
  create("out");
  const std::string number = std::to_string(ref("out").index);
  {
    const auto slot = sit_as_producer();
    ASSERT_TRUE(enlist(slot, number));
    ASSERT_TRUE(enlist(slot, number));
  }
  EXPECT_TRUE(is_transactional("out"));
  EXPECT_EQ(log_end(std::string(kTransactionsTopic)), 1u);
  reboot();
  EXPECT_TRUE(is_transactional("out"));
}

// An enlisting that nobody waits for any more says nothing about the topic that has its place afterwards.
TEST_F(TransactionsTest, ATopicInThePlaceOfADeletedOneIsNotedItself) {
  create("before");
  create("out");
  const std::uint32_t index = ref("out").index;
  {
    const auto warm = sit_as_producer();  // makes the topic
    ASSERT_TRUE(enlist(warm, std::to_string(ref("before").index)));
  }
  keeper_->stop();  // nothing comes to the disk
  keeper_thread_.join();
  {
    const auto gone = sit_as_producer();
    shm::Member& member = control().member(gone.index());
    member.kind.store(static_cast<std::uint32_t>(shm::GroupRequest::enlist));
    member.asker.store(gone.word());
    member.subscription.store(std::to_string(index));
    member.request.fetch_add(1);
    control().wake_coordinator();
    wait([&] { return log_end(std::string(kTransactionsTopic)) == 2; });
  }
  keeper_.emplace(control(), attachment_->locks(), attachment_->catalog(), attachment_->place(),
                  log::KeeperOptions{.io = IoBackend::pwrite});
  keeper_thread_ = std::thread([this] { EXPECT_TRUE(keeper_->run()); });
  ASSERT_TRUE(attachment_->catalog().delete_topic("out"));
  ASSERT_TRUE(attachment_->apply_catalog());
  create("in-its-place");
  ASSERT_EQ(ref("in-its-place").index, index);
  {
    const auto slot = sit_as_producer();
    ASSERT_TRUE(enlist(slot, std::to_string(index)));
  }
  reboot();
  EXPECT_TRUE(is_transactional("in-its-place"));
}

// Of two partitions with its records the second has failed: they will not come to the disk.
TEST_F(TransactionsTest, ADurableCommitIsNotDecidedWhileRecordsOfItCannotComeToTheDisk) {
  create("good");
  create("bad");
  terms_.durable = true;
  const auto slot = sit_as_producer();
  ASSERT_TRUE(take_id(slot, "t"));
  for (const char* topic : {"good", "bad"}) {
    const std::uint32_t index = ref(topic).index;
    ASSERT_TRUE(enlist(slot, std::to_string(index)));
    id_of(slot).partitions[index / 64].fetch_or(std::uint64_t{1} << index % 64);
  }
  ref("bad").entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::failed));
  const std::uint16_t epoch = shm::transaction_epoch(id_of(slot).word.load());
  const std::uint64_t committing = shm::transaction_word(epoch, 1, TransactionState::committing);
  id_of(slot).word.store(committing);
  const auto other = sit_as_producer();
  for (int round = 0; round < 20; ++round) ASSERT_TRUE(take_id(other, "other"));
  EXPECT_EQ(log_end(std::string(kTransactionsTopic)), 2u);
  EXPECT_EQ(id_of(slot).word.load(), committing);
}

// --- After a reboot ------------------------------------------------------------------------------

TEST_F(TransactionsTest, ADecisionIsCompletedOnce) {
  create("out");
  create("in");
  append({partition("out"), decision(1, "out", position("billing", "in", 5))});
  reboot();
  EXPECT_EQ(committed("billing", "in"), "5");
  EXPECT_EQ(log_end("out"), 2u);  // its marker, and the one that ends whatever else was open
  // Once all is on disk, a tombstone says that it is complete.
  wait([&] { return log_end(std::string(kTransactionsTopic)) == 3; });
  reboot();
  EXPECT_EQ(committed("billing", "in"), "5");
  EXPECT_EQ(log_end("out"), 3u);
}

TEST_F(TransactionsTest, WhatCannotBeReadIsPassedOverWithAWarning) {
  create("out");
  create("in");
  const std::string good = *decision(1, "out", position("billing", "in", 5)).value;
  const auto with = [&good](const std::string& field, const std::string& other) {
    std::string changed = good;
    const std::size_t at = changed.find(field);
    EXPECT_NE(at, std::string::npos) << field;
    return changed.replace(at, field.size(), other);
  };
  std::vector<KeyValue> records{partition("out")};
  std::uint32_t number = 100;
  for (const std::string& value :
       {std::string("no json"), std::string("[]"), std::string("null"), std::string("{}"),
        good.substr(0, good.size() - 1), with("00000000000000aa", "aa"), with("\"00000000000000aa\"", "170"),
        with("00000000000000aa", "ffffffffffffffff"), with("\"epoch\":1", "\"epoch\":-1"),
        with("\"epoch\":1", "\"epoch\":65536"), with("\"transaction\":1", "\"transaction\":4294967296"),
        with("\"transaction\":1", "\"transaction\":1.5"), with("\"partition\":0", "\"partition\":\"0\""),
        with("\"partition\":0", "\"partition\":1e300"), with("[{\"topic_id\"", "[7,{\"topic_id\""),
        with("\"group\":\"billing\"", "\"group\":{}"), with("\"offset\":5", "\"offset\":-5"),
        with("\"committed_ns\":7", "\"committed_ns\":null")})
    records.push_back({key(number++), value});
  const std::size_t bad = records.size() - 1;
  // Keys that are almost those of partitions.
  for (const char* odd :
       {R"({"partition":"0","topic_id":"00000000000000bb"})", R"({"partition":0,"topic_id":7})",
        R"({"partition":-1,"topic_id":"00000000000000bb"})", R"({"partition":{},"topic_id":[]})"})
    records.push_back({odd, "{}"});
  records.push_back({"no json", std::nullopt});
  records.push_back({key(1), good});
  append(records);
  stop();
  const LogCapture said;
  reboot();
  EXPECT_EQ(committed("billing", "in"), "5");
  EXPECT_EQ(log_end("out"), 2u);
  stop();
  for (std::size_t offset = 1; offset <= bad + 4; ++offset)
    EXPECT_THAT(said.text(),
                HasSubstr(fmt::format("__transaction_state: the record at offset {} is not", offset)));
  EXPECT_THAT(said.text(), HasSubstr("1 decided before the reboot were completed"));
}

TEST_F(TransactionsTest, ADecisionAboutATopicThatIsGoneIsDoneWithTheRest) {
  create("out");
  create("gone");
  create("in");
  const KeyValue of_out = partition("out"), of_gone = partition("gone");
  const KeyValue both =
      decision(1, "gone", position("billing", "in", 5) + "," + position("billing", "gone", 6));
  append({of_out, of_gone, both, decision(2, "out", position("shipping", "in", 7))});
  start_coordinator();
  ASSERT_TRUE(attachment_->catalog().delete_topic("gone"));
  ASSERT_TRUE(attachment_->apply_catalog());
  reboot();
  EXPECT_EQ(committed("billing", "in"), "5");
  EXPECT_EQ(committed("shipping", "in"), "7");
  EXPECT_EQ(log_end("out"), 2u);
  wait([&] { return log_end(std::string(kTransactionsTopic)) == 6; });  // both are complete
}

TEST_F(TransactionsTest, ADeletedDecisionIsNotRepeated) {
  create("out");
  create("in");
  append({partition("out"), decision(1, "out", position("billing", "in", 5)), {key(1), std::nullopt}});
  reboot();
  EXPECT_EQ(committed("billing", "in"), "none");
  EXPECT_EQ(log_end("out"), 1u);
}

// It has not written the position yet when the group is deleted; what stands in its topic is an older one.
TEST_F(TransactionsTest, OfAGroupThatIsDeletedAtOnceNothingComesBack) {
  create("out");
  create("in");
  stop_coordinator();
  const KeyValue older = encode_offset({.group = "billing",
                                        .topic = "in",
                                        .topic_id = topic_id("in"),
                                        .partition = PartitionId(0),
                                        .offset = 3,
                                        .metadata = {},
                                        .committed_ns = 7});
  ASSERT_TRUE(InternalTopic(*attachment_, kOffsetsTopic).append(std::span(&older, 1)));
  append({partition("out"), decision(1, "out", position("billing", "in", 5))});
  stop();
  attachment_.reset();
  std::filesystem::remove_all(shm_dir_);
  attach();
  Status removed;
  std::atomic<bool> answered{false};
  std::thread asker([&] {
    removed = ask(shm::GroupRequest::remove, "billing");
    answered.store(true);
  });
  // The first slot there is. It is served ahead of all that the coordinator writes by itself.
  wait([&] { return control().member(0).request.load() != control().member(0).answered.load(); });
  EXPECT_FALSE(answered.load());
  start();
  asker.join();
  ASSERT_TRUE(removed) << to_string(removed.error());
  wait([&] { return log_end(std::string(kTransactionsTopic)) == 3; });  // the decision is complete
  reboot();
  EXPECT_EQ(committed("billing", "in"), "none");
}

}  // namespace
}  // namespace ringtail::groups
