#include "log/transaction_scout.h"

#include <array>

#include "log/partition_reader.h"

namespace ringtail::log {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

// After so many markers it lets the reader's caller look at its clock.
constexpr int kMarkersPerLook = 4096;

}  // namespace

TransactionScout::TransactionScout(std::unique_ptr<PartitionReader> cursor) : cursor_(std::move(cursor)) {
  cursor_->notes_ = &outcomes_;
}
TransactionScout::~TransactionScout() = default;

Result<std::unique_ptr<TransactionScout>> TransactionScout::open(const PartitionRef& partition,
                                                                 std::uint32_t slot,
                                                                 std::size_t read_ahead_bytes) {
  auto cursor = PartitionReader::create(partition, slot, read_ahead_bytes, IsolationLevel::read_uncommitted);
  if (!cursor) return std::unexpected(cursor.error());
  return std::unique_ptr<TransactionScout>(new TransactionScout(std::move(*cursor)));
}

Result<std::optional<Outcome>> TransactionScout::find(const format::Extension& of, const ReadPlace& at) {
  if (auto known = outcomes_.find(of, at.offset)) return known;
  want(of);
  // Offsets tell who is ahead; positions do not, where one of the two is in a file that was compacted since.
  if (!placed_ || cursor_->offset_ < at.offset) {
    // What the cursor should hand out are markers, so no record is wanted.
    if (auto placed = cursor_->place(at, Offset(~std::uint64_t{0})); !placed)
      return std::unexpected(placed.error());
    placed_ = true;
  }
  std::array<Record, 1> marker;
  for (int markers = 0; markers < kMarkersPerLook; ++markers) {
    auto polled = cursor_->poll(marker);
    if (!polled) return std::unexpected(polled.error());
    auto known = outcomes_.find(of, at.offset);
    // It stays where it waits, or has_data could not tell; otherwise it must not hold the ring.
    if (known) cursor_->rest();
    if (known) return known;
    if (*polled == 0) return find_decision();
  }
  return std::nullopt;
}

// Finds once who decides about it, for has_data may be asked many times.
void TransactionScout::want(const format::Extension& of) {
  wanted_ = of;
  if (!cursor_->is_memory()) return;
  if (decider_ != nullptr && decider_->producer_id.load(memory_order_relaxed) == of.producer_id) return;
  decider_ = nullptr;
  for (std::uint32_t i = 0; i < shm::kMaxTransactionalIds && decider_ == nullptr; ++i) {
    const shm::TransactionalId& id = cursor_->partition_.control->transactional_id(i);
    if (id.producer_id.load(memory_order_relaxed) == of.producer_id) decider_ = &id;
  }
}

// What was decided of the transaction, and has no marker in the ring yet.
std::optional<Outcome> TransactionScout::find_decision() const {
  if (decider_ == nullptr) return std::nullopt;
  // SYNC: pairs with the CASes that decide. By then no send of a commit is under way.
  const std::uint64_t word = decider_->word.load(memory_order_acquire);
  if (decider_->producer_id.load(memory_order_relaxed) != wanted_.producer_id ||
      shm::transaction_epoch(word) != wanted_.producer_epoch ||
      shm::transaction_number(word) != wanted_.transaction)
    return std::nullopt;
  if (shm::transaction_state(word) == shm::TransactionState::committing) return Outcome::committed;
  if (shm::transaction_state(word) == shm::TransactionState::aborting) return Outcome::aborted;
  return std::nullopt;
}

bool TransactionScout::has_data() const { return cursor_->has_data() || find_decision(); }
Position TransactionScout::position() const { return cursor_->position(); }

void TransactionScout::restart() {
  outcomes_.clear();
  placed_ = false;
  cursor_->rest();
}

void TransactionScout::abandon() { cursor_->abandon(); }

}  // namespace ringtail::log
