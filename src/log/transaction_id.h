// Which transaction a record or a marker belongs to, as a key of maps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/frame.h"

namespace ringtail::log {

struct TransactionId {
  explicit TransactionId(const format::Extension& of)
      : producer_id(of.producer_id), producer_epoch(of.producer_epoch), transaction(of.transaction) {}
  friend bool operator==(const TransactionId&, const TransactionId&) = default;

  struct Hash {
    std::size_t operator()(const TransactionId& id) const {
      constexpr std::uint64_t odd = 0x9e3779b97f4a7c15;
      const std::uint64_t within = std::uint64_t{id.producer_epoch} << 32 | id.transaction;
      return (id.producer_id * odd) ^ (within * odd >> 7);
    }
  };

  std::uint64_t producer_id;
  std::uint32_t producer_epoch;
  std::uint32_t transaction;
};

}  // namespace ringtail::log
