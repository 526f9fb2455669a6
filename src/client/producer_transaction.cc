// What producers share, above all their transactions: their side of what src/groups/transactions.h describes.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/bounded_time.h"
#include "client/producer_core.h"
#include "client/producer_share.h"
#include "groups/membership.h"
#include "groups/tenure.h"
#include "groups/transactional_id.h"
#include "log/wide_cas.h"
#include "shm/futex.h"

namespace ringtail {

using shm::TransactionState;
using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::int64_t kSliceNs = 50'000'000;

}  // namespace

// --- What is shared ------------------------------------------------------------------------------

ProducerShare::ProducerShare(std::shared_ptr<LogCore> log, const ProducerOptions& options)
    : log_(std::move(log)),
      name_(options.transactional_id),
      timeout_(options.transaction_timeout),
      max_block_(options.max_block) {}

Result<std::shared_ptr<ProducerShare>> ProducerShare::open(std::shared_ptr<LogCore> log,
                                                           const ProducerOptions& options) {
  auto slot = shm::OwnedSlot::acquire(log->control(), log->locks(), shm::SlotRole::producer);
  if (!slot) return std::unexpected(slot.error());
  std::shared_ptr<ProducerShare> share(new ProducerShare(std::move(log), options));
  share->slot_ = std::move(*slot);
  if (!options.transactional_id.empty())
    if (auto taken = share->take_id(options.durable); !taken) return std::unexpected(taken.error());
  return share;
}

ProducerShare::~ProducerShare() {
  if (!is_mine()) {
    slot_.abandon();
    return;
  }
  if (!in_transaction_) return;
  // SYNC: against the coordinator's own end of it.
  std::uint64_t expected = word_;
  id_->word.compare_exchange_strong(expected, shm::with_state(word_, TransactionState::aborting),
                                    std::memory_order_seq_cst);
  log_->control().wake_coordinator();
}

bool ProducerShare::writes_to(std::uint64_t topic_id) const {
  return std::ranges::any_of(producers_,
                             [&](const ProducerCore* one) { return one->topic_id() == topic_id; });
}

void ProducerShare::tell_producers() {
  for (ProducerCore* producer : producers_) producer->choose_path();
}

// --- Transactions --------------------------------------------------------------------------------

// Holds the id from here on; blocks until what the last holder left open is aborted.
Status ProducerShare::take_id(bool durable) {
  if (name_.size() > shm::kMaxTransactionalIdBytes)
    return fail(Code::invalid_argument,
                fmt::format("the transactional id has {} bytes, at most {} are allowed", name_.size(),
                            shm::kMaxTransactionalIdBytes));
  if (timeout_.count() <= 0) return fail(Code::invalid_argument, "transaction_timeout must be at least 1 ms");
  const groups::TransactionTerms terms{
      static_cast<std::uint32_t>(std::min<std::int64_t>(timeout_.count(), ~0u)), durable};
  const auto held = groups::take_id(log_->attachment(), slot_, name_, terms, bounded_time(max_block_));
  if (!held) return std::unexpected(held.error());
  id_index_ = held->index;
  id_ = &log_->control().transactional_id(id_index_);
  word_ = held->word;
  stamp_.producer_id = held->producer_id;
  stamp_.producer_epoch = shm::transaction_epoch(word_);
  return {};
}

Error ProducerShare::fenced_error() const {
  const std::uint64_t word = id_->word.load(memory_order_relaxed);
  const std::string_view id = name_;
  if (shm::transaction_epoch(word) != stamp_.producer_epoch ||
      id_->producer_id.load(memory_order_relaxed) != stamp_.producer_id)
    return {Code::fenced, 0,
            fmt::format("another producer has taken the transactional id '{}'; close this one", id)};
  return {Code::fenced, 0,
          fmt::format(
              "the transaction of '{}' was aborted: it took longer than transaction_timeout ({} ms), or its "
              "consumer lost a partition; abort, and begin again",
              id, timeout_.count())};
}

Status ProducerShare::check_transaction() const {
  if (auto mine = log_->check_mine(); !mine) return mine;
  if (id_ == nullptr)
    return fail(Code::invalid_argument,
                "transactions take a transactional_id: set it when opening the producer");
  if (!in_transaction_) return fail(Code::invalid_argument, "no transaction is open; call begin first");
  return {};
}

// Whether it is their last transaction, whose end was not waited for until it had come.
bool ProducerShare::is_ending(std::uint64_t word) const {
  const TransactionState state = shm::transaction_state(word);
  return (state == TransactionState::committing || state == TransactionState::aborting) &&
         shm::with_state(word, TransactionState::ready) == word_;
}

Status ProducerShare::begin() {
  if (auto open = check_transaction(); !open && (id_ == nullptr || !log_->is_mine())) return open;
  if (in_transaction_)
    return fail(Code::invalid_argument, "a transaction is open already; commit or abort it");
  const std::uint32_t number = std::max(shm::transaction_number(word_) + 1, 1u);  // 0: none
  const std::uint64_t ongoing = shm::transaction_word(static_cast<std::uint16_t>(stamp_.producer_epoch),
                                                      number, TransactionState::ongoing);
  std::uint64_t seen = word_;
  // SYNC: pairs with the coordinator's loads and with its change of hands.
  bool begun = id_->word.compare_exchange_strong(seen, ongoing, std::memory_order_acq_rel);
  if (!begun && is_ending(seen)) {
    if (auto ended = wait_ended(shm::transaction_number(word_)); !ended) return ended;
    seen = word_;
    begun = id_->word.compare_exchange_strong(seen, ongoing, std::memory_order_acq_rel);  // SYNC: as above
  }
  if (!begun) return std::unexpected(fenced_error());
  word_ = ongoing;
  stamp_.transaction = number;
  stamp_.guard = {.word = &id_->word, .expected = ongoing};
  ++begun_;
  in_transaction_ = true;
  must_abort_ = nullptr;
  return {};
}

// The coordinator must find the partition when it writes the markers.
std::optional<SendError> ProducerShare::enlist(std::uint32_t index) {
  // SYNC: pairs with the coordinator's store once that is on disk, and what was open before a reboot has ended.
  if (log_->control().partition(index).transactional.load(memory_order_acquire) != shm::kTransactions) {
    auto noted = groups::ask_coordinator(log_->attachment(), slot_, shm::GroupRequest::enlist, "",
                                         std::to_string(index), bounded_time(max_block_), true);
    if (!noted) {
      const Code code = noted.error().code;
      return code == Code::timed_out || code == Code::no_keeper ? SendError::timed_out
                                                                : SendError::storage_failed;
    }
  }
  // SYNC: ahead of the append; the coordinator reads it once no append is under way any more.
  id_->partitions[index / 64].fetch_or(std::uint64_t{1} << index % 64, std::memory_order_seq_cst);
  return std::nullopt;
}

// --- Positions -----------------------------------------------------------------------------------

Status ProducerShare::add_offsets(std::span<const OffsetCommit> offsets, const GroupMetadata& member) {
  if (auto open = check_transaction(); !open) return open;
  // Where a position waits for its transaction there is no room for it.
  if (std::ranges::any_of(offsets, [](const OffsetCommit& offset) { return !offset.metadata.empty(); })) {
    forbid_commit("positions could not be added");
    return fail(Code::invalid_argument,
                "a position that moves with a transaction has no metadata; abort, and add it without");
  }
  if (std::ranges::any_of(offsets,
                          [](const OffsetCommit& one) { return one.offset.value() == shm::kNoOffset; })) {
    forbid_commit("positions could not be added");
    return fail(Code::invalid_argument, "2^64 - 1 is no offset of a record to come; abort the transaction");
  }
  const auto group = groups::find_group(log_->control(), member.group_id);
  if (!group) {
    forbid_commit("positions could not be added");
    // A group without members and positions ceases to be: a member that did not poll in time may find none.
    return fail(member.member_id.empty() ? Code::not_found : Code::stale_generation,
                fmt::format("there is no consumer group '{}'; abort the transaction", member.group_id));
  }
  for (const OffsetCommit& offset : offsets) {
    if (auto added = add_offset(offset, *group, member); !added) {
      forbid_commit("positions could not be added");
      return added;
    }
  }
  return {};
}

Status ProducerShare::add_offset(const OffsetCommit& offset, std::uint32_t group,
                                 const GroupMetadata& member) {
  const auto stale = [&] {
    return fail(
        Code::stale_generation,
        fmt::format("group '{}': topic '{}' partition {} is no longer that member's; abort the transaction",
                    member.group_id, offset.partition.topic, offset.partition.partition.value()));
  };
  auto topic = log_->catalog().load_topic(offset.partition.topic);
  if (!topic) return std::unexpected(topic.error());
  const auto index = groups::find_entry(log_->control(), group, topic->topic_id, offset.partition.partition);
  if (!index) return stale();
  shm::GroupPartition& entry = log_->control().groups().partitions[*index];
  log::WideWord pending = log::wide_load(&entry.pending_offset);
  const groups::Standing standing = groups::load_standing(entry);
  if (standing.owner() == 0 || standing.owner() > shm::kMaxSlots ||
      groups::member_id_of(log_->control(), standing.owner() - 1) != member.member_id)
    return stale();
  const std::uint64_t mine = shm::pending_word(id_index_, word_);
  // What was read before the owner was looked at: if a later owner has added his, this fails.
  if (!log::wide_compare_exchange(&entry.pending_offset, pending, {offset.offset.value(), mine}))
    return stale();
  // SYNC: behind the full barrier above; pairs with remove_member, which looks at what is pending once it has
  // changed the owner. One sees the other.
  if (entry.tenure.load(std::memory_order_seq_cst) != standing.tenure) return stale();
  return {};
}

// --- Ends ----------------------------------------------------------------------------------------

Status ProducerShare::commit() {
  if (auto open = check_transaction(); !open) return open;
  if (claimer_ != nullptr) return fail(Code::invalid_argument, "a claim is open; commit or abort it first");
  if (must_abort_ != nullptr && id_->word.load(memory_order_relaxed) == word_)  // otherwise it is fenced
    return fail(Code::invalid_argument, fmt::format("{}; abort the transaction", must_abort_));
  const std::uint32_t number = shm::transaction_number(word_);
  std::uint64_t expected = word_;
  // SYNC: decides, against the coordinator's abort.
  if (!id_->word.compare_exchange_strong(expected, shm::with_state(word_, TransactionState::committing),
                                         std::memory_order_seq_cst))
    return std::unexpected(fenced_error());  // abort is still to be called
  in_transaction_ = false;
  word_ = shm::with_state(word_, TransactionState::ready);
  return wait_ended(number);
}

Status ProducerShare::abort() {
  if (auto open = check_transaction(); !open) return open;
  if (claimer_ != nullptr) claimer_->abort_claim();
  for (ProducerCore* producer : producers_) producer->on_abort();
  for (auto& [of, numbering] : numberings_)
    if (numbering.transaction == stamp_.transaction)
      numbering = {.next = numbering.first, .first = numbering.first};
  const std::uint32_t number = shm::transaction_number(word_);
  std::uint64_t expected = word_;
  // SYNC: against the coordinator's abort, which does as well.
  const bool decided = id_->word.compare_exchange_strong(
      expected, shm::with_state(word_, TransactionState::aborting), std::memory_order_seq_cst);
  in_transaction_ = false;
  word_ = shm::with_state(word_, TransactionState::ready);
  if (!decided && shm::transaction_epoch(expected) != stamp_.producer_epoch)
    return std::unexpected(fenced_error());
  return wait_ended(number);
}

// Until the coordinator has ended the transaction.
Status ProducerShare::wait_ended(std::uint32_t number) {
  log_->control().wake_coordinator();
  const std::int64_t deadline_ns = monotonic_ns() + bounded_time(max_block_).count();
  for (;;) {
    const std::uint32_t ended = id_->ended.load(memory_order_acquire);  // SYNC: pairs with finish
    const std::uint64_t word = id_->word.load(memory_order_acquire);    // SYNC: as above
    // Any later state says that this one has ended: nobody takes the id, or begins, before.
    if (word == word_ || shm::transaction_epoch(word) != stamp_.producer_epoch ||
        shm::transaction_number(word) != number)
      return {};
    const std::int64_t now_ns = monotonic_ns();
    if (now_ns >= deadline_ns) {
      if (log_->control().header().keeper_pid.load(memory_order_relaxed) == 0)
        return std::unexpected(log::nobody_keeps(log_->catalog().dir()));
      return fail(Code::timed_out,
                  fmt::format("the transaction is decided, but was not completed within max_block "
                              "({} ms); it will be",
                              max_block_.count()));
    }
    shm::futex_wait(id_->ended, ended, std::min(deadline_ns, now_ns + kSliceNs));
  }
}

}  // namespace ringtail
