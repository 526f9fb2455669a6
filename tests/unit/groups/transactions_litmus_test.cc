// What a producer and the coordinator find of each other when they meet at the word of a transactional id.
#include <random>

#include "groups/transactional_id.h"
#include "groups/transactions.h"
#include "unit/groups/groups_test_support.h"
#include "unit/log/litmus.h"

namespace ringtail::groups {
namespace {

using log::LitmusRun;
using log::Placing;
using shm::TransactionState;

class TransactionsLitmus : public GroupsTest, public ::testing::WithParamInterface<Placing> {
 protected:
  TransactionsLitmus() {
    stop_coordinator();  // the first thread is it
    transactions_.emplace(*attachment_, offsets_.emplace(*attachment_, kOffsetsTopic));
    for (shm::OwnedSlot& slot : slots_)
      slot = shm::OwnedSlot::acquire(control(), attachment_->locks(), shm::SlotRole::producer).value();
  }
  ~TransactionsLitmus() override { transactions_.reset(); }

  // Until it is given.
  void hand_over(const shm::OwnedSlot& slot) {
    shm::Member& asks = control().member(slot.index());
    asks.asker.store(slot.word());
    asks.group_id.store("t");
    asks.subscription.store(encode_terms({.timeout_ms = 60'000, .durable = false}));
    for (;;) {
      const std::optional<Status> given = transactions_->take_id(slot.index());
      if (given) {
        ASSERT_TRUE(*given) << to_string(given->error());
        return;
      }
      transactions_->round(monotonic_ns());
    }
  }

  std::optional<InternalTopic> offsets_;
  std::optional<Transactions> transactions_;
  std::array<shm::OwnedSlot, 2> slots_;
};
INSTANTIATE_TEST_SUITE_P(, TransactionsLitmus,
                         ::testing::Values(Placing::apart, Placing::together, Placing::crowded),
                         [](const auto& one) { return ::testing::PrintToString(one.param); });

// The id goes from hand to hand, and each holder begins a transaction once, at any moment: that is refused, or what
// was begun is ended before the next epoch.
TEST_P(TransactionsLitmus, WhatAHolderBeginsIsRefusedOrEnded) {
  constexpr std::size_t kHandOvers = 100;
  shm::TransactionalId* id = nullptr;
  std::atomic<bool> over{false};
  std::uint32_t begun = 0, ended = 0;
  const unsigned seed = std::random_device{}();
  std::cout << "of the holders: seed " << seed << '\n';
  std::mt19937 random(seed);
  LitmusRun run(GetParam(), {"all ended"});
  run.run(
      {[&] {
         for (std::size_t i = 0; i < kHandOvers; ++i) hand_over(slots_[i % slots_.size()]);
         over.store(true);
       },
       [&] {
         std::uint32_t last = ~0u;  // no epoch's
         while (!over.load()) {
           std::uint64_t word = id->word.load();
           if (shm::transaction_state(word) != TransactionState::ready ||
               shm::transaction_epoch(word) == last)
             continue;
           for (auto spins = random() % (1u << random() % 10); spins > 0; --spins)
             std::atomic_signal_fence(std::memory_order_seq_cst);
           last = shm::transaction_epoch(word);
           if (id->word.compare_exchange_strong(
                   word, shm::transaction_word(shm::transaction_epoch(word), 1, TransactionState::ongoing)))
             ++begun;
         }
       }},
      [&] {
        hand_over(slots_[1]);
        id = &control().transactional_id(held_id(control(), slots_[1]).value().index);
        over.store(false);
        begun = 0;
        ended = id->ended.load();
      },
      [&]() -> std::string {
        hand_over(slots_[0]);  // ends the last one
        return id->ended.load() - ended == begun ? "all ended" : "some were begun, and never ended";
      });
}

}  // namespace
}  // namespace ringtail::groups
