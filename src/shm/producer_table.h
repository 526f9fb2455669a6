// Transactional ids in the control segment: who writes under which, and how far its transaction is.
//
// Who writes what: the producer that holds an id begins transactions, and asks for their end; the
// coordinator (see group_table.h) ends them, its own accord included, and hands ids over. Both do so by
// compare-and-set of one word, so exactly one of a commit and an abort comes to pass.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shm/shared_text.h"

namespace ringtail::shm {

inline constexpr std::uint32_t kMaxTransactionalIds = 128;
inline constexpr std::size_t kMaxTransactionalIdBytes = 255;

enum class TransactionState : std::uint8_t {
  none = 0,        // the entry is free, or being handed over
  ready = 1,       // no transaction is open
  ongoing = 2,     // records may be sent
  committing = 3,  // decided; markers and positions are being written
  aborting = 4,
};

// [63..48 epoch][47..16 transaction][7..0 TransactionState]
constexpr std::uint64_t transaction_word(std::uint16_t epoch, std::uint32_t transaction,
                                         TransactionState state) {
  return std::uint64_t{epoch} << 48 | std::uint64_t{transaction} << 16 | static_cast<std::uint8_t>(state);
}
constexpr std::uint16_t transaction_epoch(std::uint64_t word) {
  return static_cast<std::uint16_t>(word >> 48);
}
constexpr std::uint32_t transaction_number(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> 16);
}
constexpr TransactionState transaction_state(std::uint64_t word) {
  return static_cast<TransactionState>(word & 0xff);
}
constexpr std::uint64_t with_state(std::uint64_t word, TransactionState state) {
  return (word & ~std::uint64_t{0xff}) | static_cast<std::uint8_t>(state);
}

// Which transaction a position waits for, as it stands beside the position: [63..56 entry + 1][47..32 epoch]
// [31..0 transaction]; 0: none.
constexpr std::uint64_t pending_word(std::uint32_t entry, std::uint64_t word) {
  return std::uint64_t{entry + 1} << 56 | std::uint64_t{transaction_epoch(word)} << 32 |
         transaction_number(word);
}
constexpr std::uint32_t pending_entry(std::uint64_t pending) {
  return static_cast<std::uint32_t>(pending >> 56) - 1;
}
constexpr bool is_pending_of(std::uint64_t pending, std::uint64_t word) {
  return (pending >> 32 & 0xffff) == transaction_epoch(word) &&
         static_cast<std::uint32_t>(pending) == transaction_number(word);
}

struct alignas(128) TransactionalId {
  std::atomic<std::uint64_t> word;
  std::atomic<std::uint64_t> producer_id;  // random, never 0
  std::atomic<std::uint64_t> slot_word;    // of the slot of the producer that holds the id
  std::atomic<std::uint32_t> slot;
  std::atomic<std::uint32_t> timeout_ms;     // an older transaction is aborted
  std::atomic<std::uint32_t> durable;        // 1: a commit is on disk as a whole before it is visible
  std::atomic<std::uint32_t> ended;          // futex: bumped with the end of each transaction
  std::atomic<std::uint32_t> ended_number;   // the last transaction of this epoch that ended,
  std::atomic<std::uint32_t> ended_aborted;  // and whether it was aborted
  SharedText<kMaxTransactionalIdBytes + 1> id;
  // Partitions (a bit an entry of the control segment) that the transaction has records in; by the
  // producer, before it appends there.
  alignas(128) std::array<std::atomic<std::uint64_t>, 64> partitions;
};

}  // namespace ringtail::shm
