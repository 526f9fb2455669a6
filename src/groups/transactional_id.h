// A producer's side of its transactional id: what it asks the coordinator for, and what it was given.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "log/attachment.h"
#include "shm/slots.h"

namespace ringtail::groups {

// What is to hold for the transactions under an id. It goes with the request, so that the coordinator notes
// it together with the holder: a producer that wrote it itself might write into its successor's.
struct TransactionTerms {
  std::uint32_t timeout_ms = 0;
  bool durable = false;

  friend bool operator==(const TransactionTerms&, const TransactionTerms&) = default;
};
// "<timeout_ms> <0 or 1>"
std::string encode_terms(const TransactionTerms& terms);
// Errors: invalid_argument.
Result<TransactionTerms> decode_terms(std::string_view text);

struct HeldId {
  std::uint32_t index;  // of its entry
  std::uint64_t word;   // of the entry, as long as the id is the slot's
  std::uint64_t producer_id;
};
// Makes `slot` the holder of `id`; blocks until what the last holder left open is aborted, at most `patience`.
// Errors: as ask_coordinator; fenced, corrupt.
Result<HeldId> take_id(const log::Attachment& attachment, const shm::OwnedSlot& slot, std::string_view id,
                       const TransactionTerms& terms, std::chrono::nanoseconds patience);
// What the coordinator's last answer to take_id gave to `slot`. Wait-free.
// Errors: fenced (another has taken it since), corrupt.
Result<HeldId> held_id(const shm::Control& control, const shm::OwnedSlot& slot);

}  // namespace ringtail::groups
