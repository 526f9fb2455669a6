#include "groups/transactions.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"
#include "base/parse.h"
#include "base/random.h"
#include "base/topic_config.h"
#include "groups/transactional_id.h"
#include "shm/futex.h"

namespace ringtail::groups {

using shm::TransactionState;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

// To find a partition takes the catalog, of which all files are read: what comes to nothing is not tried in each round.
constexpr std::int64_t kAgainNs = 100'000'000;

// Whether the keeper has given up the slot's claim, and its ring takes no more. In a partition that has failed it only
// says that nobody waits for the claim, and the ring goes on once it is mended.
bool is_settled(const shm::Slot& slot, std::uint64_t op) {
  // SYNC: pairs with the keeper's release store after its repair.
  return shm::is_same_claim(slot.given_up_done.load(memory_order_acquire), op) &&
         shm::is_same_claim(slot.given_up.load(memory_order_relaxed), op);
}

format::Extension extension_of(const shm::TransactionalId& entry, std::uint64_t word) {
  return {entry.producer_id.load(memory_order_relaxed), shm::transaction_epoch(word),
          shm::transaction_number(word), 0};
}

}  // namespace

// One for each transaction: its decision must outlive the next one's beginning.
std::string decision_key(const shm::TransactionalId& entry, std::uint64_t word) {
  return fmt::format(R"({{"producer_id":"{}","epoch":{},"transaction":{}}})",
                     to_hex(entry.producer_id.load(memory_order_relaxed)), shm::transaction_epoch(word),
                     shm::transaction_number(word));
}

bool is_memory(const shm::Partition& entry) {
  return entry.storage.load(memory_order_relaxed) == static_cast<std::uint8_t>(Storage::memory);
}

// Each was enlisted before the producer noted it. One that is not any more has gone to another topic, of which the
// transaction has nothing.
std::vector<std::uint32_t> Transactions::partitions_of(const shm::TransactionalId& entry) const {
  std::vector<std::uint32_t> partitions;
  for (std::uint32_t i = 0; i < entry.partitions.size(); ++i) {
    // SYNC: pairs with the producer's fetch_or ahead of its first append there.
    std::uint64_t bits = entry.partitions[i].load(memory_order_acquire);
    for (; bits != 0; bits &= bits - 1) {
      const std::uint32_t index = i * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
      if (control_.partition(index).transactional.load(memory_order_relaxed) != shm::kNoTransactions)
        partitions.push_back(index);
    }
  }
  return partitions;
}

void Transactions::announce(const Error& error) {
  if (!announced_.insert(error.message).second) return;
  logger().error("transactions: {}", to_string(error));
}

// --- Ids -----------------------------------------------------------------------------------------

bool Transactions::is_held(const shm::TransactionalId& entry) const {
  const std::uint32_t slot = entry.slot.load(memory_order_relaxed);
  // SYNC: pairs with the CASes of the slot's word.
  return slot < shm::kMaxSlots &&
         control_.slot(slot).word.load(memory_order_acquire) == entry.slot_word.load(memory_order_relaxed);
}

// An id that nobody holds makes room for a new one: there is nobody left to be fenced.
std::optional<std::uint32_t> Transactions::find_or_make_id(const std::string& id) {
  std::optional<std::uint32_t> room;
  for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds; ++i) {
    const shm::TransactionalId& entry = control_.transactional_id(i);
    const TransactionState state =
        shm::transaction_state(entry.word.load(memory_order_acquire));  // SYNC: with CASes
    if (state != TransactionState::none && entry.id.equals(id)) return i;
    if (room && state != TransactionState::none) continue;
    if (state == TransactionState::none || (state == TransactionState::ready && !is_held(entry))) room = i;
  }
  if (!room) return std::nullopt;
  shm::TransactionalId& entry = control_.transactional_id(*room);
  const auto producer_id = random_token();
  if (!producer_id) return std::nullopt;
  // The epoch goes on from the last holder's, so that a position that was added to a transaction of his
  // waits for none of the next one's (shm::pending_word).
  const std::uint16_t epoch = shm::transaction_epoch(entry.word.load(memory_order_relaxed));
  entry.word.store(shm::transaction_word(epoch, 0, TransactionState::none), memory_order_relaxed);
  entry.producer_id.store(*producer_id, memory_order_relaxed);
  entry.slot.store(~0u, memory_order_relaxed);
  entry.id.store(id);
  for (auto& bits : entry.partitions) bits.store(0, memory_order_relaxed);
  // SYNC: publishes the fields above.
  entry.word.store(shm::transaction_word(epoch, 0, TransactionState::ready), memory_order_release);
  return room;
}

std::optional<Status> Transactions::take_id(std::uint32_t slot) {
  shm::Member& asked = control_.member(slot);
  const auto terms = decode_terms(asked.subscription.load());
  if (!terms) return std::unexpected(terms.error());
  const auto index = find_or_make_id(asked.group_id.load());
  if (!index)
    return fail(Code::limit_exceeded,
                fmt::format("all {} transactional ids are held by producers", shm::kMaxTransactionalIds));
  shm::TransactionalId& entry = control_.transactional_id(*index);
  std::uint64_t word = entry.word.load(memory_order_acquire);  // SYNC: pairs with the producer's CASes
  if (shm::transaction_state(word) == TransactionState::ongoing)
    entry.word.compare_exchange_strong(word, shm::with_state(word, TransactionState::aborting),
                                       std::memory_order_seq_cst);  // SYNC: pairs with Guard::holds
  const auto epoch = static_cast<std::uint16_t>(shm::transaction_epoch(word) + 1);
  // From here on whoever had the id is fenced. If he begins a transaction before that, it has to be ended first.
  // An entry that is left so is free: who asked has no answer, and is given another, with another producer_id.
  // SYNC: pairs with his CASes.
  if (shm::transaction_state(word) != TransactionState::ready ||
      !entry.word.compare_exchange_strong(word, shm::transaction_word(epoch, 0, TransactionState::none),
                                          std::memory_order_seq_cst)) {
    busy_ = true;
    return std::nullopt;
  }
  if (epoch == 0)
    if (auto fresh = random_token()) entry.producer_id.store(*fresh, memory_order_relaxed);
  entry.slot.store(slot, memory_order_relaxed);
  entry.slot_word.store(asked.asker.load(memory_order_relaxed), memory_order_relaxed);
  entry.timeout_ms.store(terms->timeout_ms, memory_order_relaxed);
  entry.durable.store(terms->durable ? 1 : 0, memory_order_relaxed);
  entry.ended_number.store(0, memory_order_relaxed);
  // SYNC: publishes the fields above; pairs with held_id.
  entry.word.store(shm::transaction_word(epoch, 0, TransactionState::ready), memory_order_release);
  asked.reply.store(*index, memory_order_relaxed);
  return Status{};
}

std::optional<Status> Transactions::enlist(std::uint32_t slot) {
  const auto number = parse_integer(control_.member(slot).subscription.load());
  if (!number || *number < 0 || *number >= shm::kMaxPartitions)
    return fail(Code::invalid_argument, "no partition's number");
  const auto index = static_cast<std::uint32_t>(*number);
  shm::Partition& partition = control_.partition(index);
  const std::uint64_t topic_id = partition.topic_id.load(memory_order_relaxed);
  const std::uint32_t known = partition.transactional.load(memory_order_relaxed);
  if (known == shm::kUnendedTransactions) {
    if (auto failure = log::Attachment::failure_of(partition)) return std::unexpected(*failure);
    busy_ = true;
    return end_left_open(index) ? std::optional(Status{}) : std::nullopt;
  }
  if (!is_memory(partition) && known == shm::kNoTransactions) {
    const std::pair key{topic_id, partition.partition.load(memory_order_relaxed)};
    if (!enlisting_.contains(key)) {
      const KeyValue record{
          fmt::format(R"({{"partition":{},"topic_id":"{}"}})", key.second, to_hex(key.first)), "{}"};
      if (auto appended = topic_.append(std::span(&record, 1)); !appended) return appended;
      enlisting_[key] = topic_.end();
    }
    topic_.request_sync();
    if (auto failure = topic_.failure()) return std::unexpected(*failure);
    busy_ = true;
    if (!topic_.is_synced(enlisting_.at(key))) return std::nullopt;
    enlisting_.erase(key);
  }
  // SYNC: pairs with the producer's load; a full barrier, ahead of the look whether the entry has gone to another topic
  // meanwhile (Keeper::allocate_entry), of which nothing is noted. Then that is asked for.
  partition.transactional.exchange(shm::kTransactions, std::memory_order_seq_cst);
  if (partition.topic_id.load(memory_order_relaxed) == topic_id) return Status{};
  partition.transactional.store(shm::kNoTransactions, memory_order_relaxed);
  busy_ = true;
  return std::nullopt;
}

// --- Ends ----------------------------------------------------------------------------------------

void Transactions::round(std::int64_t now_ns) {
  busy_ = false;
  end_all_left_open();
  for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds; ++i) {
    const shm::TransactionalId& entry = control_.transactional_id(i);
    // SYNC: pairs with the producer's CASes.
    const TransactionState state = shm::transaction_state(entry.word.load(memory_order_acquire));
    if (state == TransactionState::ongoing) watch(i, now_ns);
    if (state == TransactionState::committing || state == TransactionState::aborting)
      busy_ = !finish(i) || busy_;
  }
  if (!busy_) announced_.clear();
  close_decisions();
}

// Aborts what its producer will not end: it is gone, or takes too long.
void Transactions::watch(std::uint32_t index, std::int64_t now_ns) {
  shm::TransactionalId& entry = control_.transactional_id(index);
  std::uint64_t word = entry.word.load(memory_order_relaxed);
  auto seen = seen_.find(index);
  if (seen == seen_.end() || seen->second.word != word) {
    seen_[index] = {word, now_ns};
    seen = seen_.find(index);
  }
  const std::int64_t age_ms = (now_ns - seen->second.since_ns) / 1'000'000;
  const bool late = age_ms > entry.timeout_ms.load(memory_order_relaxed);
  if (!late && is_held(entry)) return;
  logger().warn("transactional id '{}': transaction {} is aborted: its producer {}", entry.id.load(),
                shm::transaction_number(word), late ? "took longer than transaction.timeout.ms" : "is gone");
  // SYNC: against the producer's own end of it; pairs with Guard::holds.
  entry.word.compare_exchange_strong(word, shm::with_state(word, TransactionState::aborting),
                                     std::memory_order_seq_cst);
  seen_.erase(index);
}

// A step towards the end of a decided transaction. True when it has ended.
bool Transactions::finish(std::uint32_t index) {
  seen_.erase(index);
  shm::TransactionalId& entry = control_.transactional_id(index);
  const std::uint64_t word = entry.word.load(memory_order_relaxed);
  const bool commits = shm::transaction_state(word) == TransactionState::committing;
  Progress& progress = progress_[index];
  if (!is_quiet(entry, progress)) return false;
  const bool durable = commits && entry.durable.load(memory_order_relaxed) != 0;
  if (durable && !decide_durably(index, progress)) return false;
  if (!write_markers(index, progress)) return false;
  const std::set<std::uint32_t> moved = apply_positions(index, word);
  if (durable) {
    Closing closing{.key = decision_key(entry, word),
                    .of = extension_of(entry, word),
                    .markers_end = progress.markers_end};
    // Of one that was ended in part, the other coordinator's markers may be the only ones.
    if (progress.inherited)
      closing.markers_end.insert(taken_up_.begin(), taken_up_.end());
    else
      closing.moved = moved;
    closing_.push_back(std::move(closing));
  } else {
    for (const std::uint32_t at : moved) hold_back(at, progress.markers_end);
  }
  progress_.erase(index);
  for (auto& bits : entry.partitions) bits.store(0, memory_order_relaxed);
  entry.ended_aborted.store(commits ? 0 : 1, memory_order_relaxed);
  entry.ended_number.store(shm::transaction_number(word), memory_order_relaxed);
  // SYNC: pairs with the producer's load: it finds its partitions cleared and the outcome noted.
  entry.word.store(shm::with_state(word, TransactionState::ready), memory_order_release);
  entry.ended.fetch_add(1, memory_order_release);  // SYNC: as above, with its wait
  shm::futex_wake_all(entry.ended);
  return true;
}

// Whether no append of the transaction's is under way that began before it was decided; later ones find
// their guard fallen. A claim that is open has its place, ahead of the marker, and one that the keeper has given up
// finds its ring fenced: neither can come behind it.
bool Transactions::is_quiet(const shm::TransactionalId& entry, Progress& progress) const {
  if (progress.quiet) return true;
  const shm::Slot& slot = control_.slot(std::min(entry.slot.load(memory_order_relaxed), shm::kMaxSlots - 1));
  // SYNC: behind the seq_cst change of the entry's word; pairs with announce_fenced and then Guard::holds.
  const std::uint64_t op = slot.op.load(std::memory_order_seq_cst);
  const shm::Phase phase = shm::op_phase(op);
  progress.quiet = !is_held(entry) || phase == shm::Phase::idle || phase == shm::Phase::open ||
                   (progress.op_seen != 0 && progress.op_seen != op) || is_settled(slot, op);
  progress.op_seen = op;
  return progress.quiet;
}

// What was deleted is not waited for.
bool Transactions::are_synced(const Ends& ends) const {
  return std::ranges::all_of(ends, [&](const auto& one) {
    const auto& [index, end] = one;
    const shm::Partition& partition = control_.partition(index);
    const auto state = static_cast<shm::PartitionState>(
        partition.state.load(memory_order_acquire));  // SYNC: pairs with the keeper's store of state
    if (state != shm::PartitionState::active && state != shm::PartitionState::failed) return true;
    if (partition.topic_id.load(memory_order_relaxed) != end.topic_id || is_memory(partition)) return true;
    // SYNC: pairs with the keeper's release store after the sync.
    return partition.durable_position.load(memory_order_acquire) >= end.position.value();
  });
}

void Transactions::request_sync(const Ends& ends) const {
  for (const auto& [partition, end] : ends)
    control_.partition(partition).durable_waiters.exchange(
        1, std::memory_order_seq_cst);  // SYNC: as wait_durable
  control_.wake_keeper();
}

// First the records on disk, then the decision; from then on a host crash does not undo it.
bool Transactions::decide_durably(std::uint32_t index, Progress& progress) {
  const shm::TransactionalId& entry = control_.transactional_id(index);
  const std::string key = decision_key(entry, entry.word.load(memory_order_relaxed));
  // One that stands there already, as written before a coordinator died, must not be replaced: positions that have
  // moved since are in no new one. Its records are on disk, whatever has become of their partitions.
  if (!progress.decision_end && decided_.erase(key) > 0) {
    progress.inherited = progress.records_synced = true;
    progress.decision_end = topic_.end();
  }
  if (monotonic_ns() < progress.again_ns) return false;
  const auto later = [&](const Error& error) {
    announce(error);
    progress.again_ns = monotonic_ns() + kAgainNs;
    return false;
  };
  if (!progress.records_synced) {
    if (progress.records_end.empty()) {
      Ends ends;  // of all, or of none: those that are missing would not be waited for
      for (const std::uint32_t partition : partitions_of(entry)) {
        if (auto failure = log::Attachment::failure_of(control_.partition(partition))) return later(*failure);
        auto end = claimed_end(partition);
        if (!end && end.error().code != Code::closed) return later(end.error());
        if (end) ends[partition] = *end;
      }
      progress.records_end = std::move(ends);
    }
    request_sync(progress.records_end);
    progress.records_synced = are_synced(progress.records_end);
    if (!progress.records_synced) return false;
  }
  if (!progress.decision_end) {
    auto decision = encode_decision(index);
    if (!decision) return later(decision.error());
    const KeyValue record{key, std::move(*decision)};
    if (auto appended = topic_.append(std::span(&record, 1)); !appended) return later(appended.error());
    progress.decision_end = topic_.end();
  }
  topic_.request_sync();
  return topic_.is_synced(*progress.decision_end);
}

// What stands in the way of one partition's marker keeps none from the others, whose readers wait for it.
bool Transactions::write_markers(std::uint32_t index, Progress& progress) {
  const shm::TransactionalId& entry = control_.transactional_id(index);
  const std::uint64_t word = entry.word.load(memory_order_relaxed);
  const bool commits = shm::transaction_state(word) == TransactionState::committing;
  const format::MarkerKind kind = commits ? format::MarkerKind::commit : format::MarkerKind::abort;
  const format::Extension of = extension_of(entry, word);
  bool complete = true;
  for (const std::uint32_t partition : partitions_of(entry))
    if (!progress.markers_end.contains(partition))
      complete = write_marker(partition, kind, of, progress.markers_end) && complete;
  return complete;
}

// True: it is there, or the topic was deleted.
bool Transactions::write_marker(std::uint32_t partition, format::MarkerKind kind, const format::Extension& of,
                                Ends& ends) {
  auto to = appender(partition);
  if (!to && to.error().code == Code::closed) return true;
  if (!to) return announce(to.error()), false;
  const auto sent = (*to)->append_marker(kind, of);
  if (sent) {
    ends[partition] = {(*to)->partition().topic_id, sent->end};
    return true;
  }
  if (sent.error() == SendError::closed)
    appenders_.erase(partition);
  else if (sent.error() == SendError::timed_out || sent.error() == SendError::would_block)
    (*to)->wake_readers();  // of a memory topic: they may pass what is decided, which makes space
  else
    announce((*to)->describe(sent.error()));
  return false;
}

// Errors: closed: the topic was deleted.
Result<log::PartitionRef> Transactions::find_ref(std::uint32_t index) const {
  const shm::Partition& partition = control_.partition(index);
  const std::uint64_t topic_id = partition.topic_id.load(memory_order_relaxed);
  auto topics = attachment_.catalog().list_topics();
  if (!topics) return std::unexpected(topics.error());
  const auto topic = std::ranges::find(*topics, topic_id, &log::TopicEntry::topic_id);
  if (topic == topics->end()) return fail(Code::closed, "the topic was deleted");
  return attachment_.find_partition(*topic, PartitionId(partition.partition.load(memory_order_relaxed)),
                                    kNoPatience);
}

Result<log::Appender*> Transactions::appender(std::uint32_t index) {
  if (const auto known = appenders_.find(index); known != appenders_.end()) {
    if (known->second.partition().is_current()) return &known->second;
    appenders_.erase(known);
  }
  if (const auto before = unopened_.find(index); before != unopened_.end()) {
    if (monotonic_ns() < before->second.until_ns) return std::unexpected(before->second.why);
    unopened_.erase(before);
  }
  auto opened = open_appender(index);
  if (opened) return &appenders_.emplace(index, std::move(*opened)).first->second;
  if (opened.error().code != Code::closed) unopened_[index] = {opened.error(), monotonic_ns() + kAgainNs};
  return std::unexpected(opened.error());
}

// Errors: closed: the topic was deleted.
Result<log::Appender> Transactions::open_appender(std::uint32_t index) {
  if (slot_.owner() == 0) {
    auto slot = shm::OwnedSlot::acquire(control_, attachment_.locks(), shm::SlotRole::coordinator);
    if (!slot) return std::unexpected(slot.error());
    slot_ = std::move(*slot);
  }
  auto ref = find_ref(index);
  if (!ref) return std::unexpected(ref.error());
  auto opened = log::Appender::open(*ref, slot_, clock_, std::chrono::milliseconds(0));
  // What its entry says is not to be believed: the catalog has the topic, and its marker is due.
  if (!opened && opened.error().code == Code::closed) opened.error().code = Code::would_block;
  return opened;
}

}  // namespace ringtail::groups
