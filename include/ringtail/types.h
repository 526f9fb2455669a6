// Strong integer types for the quantities of a log, so that an offset (a record number) and a
// position (a byte number) cannot be passed for one another.
//
// All types here are trivially copyable values without invariants; they may be shared freely.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace ringtail {

// An integer that converts to and from its representation only when asked to.
// Differences are plain integers: `offset + 1` is an Offset, `a - b` is a count.
template <class Tag, class Rep>
class StrongInt {
 public:
  using rep = Rep;

  constexpr StrongInt() = default;
  constexpr explicit StrongInt(Rep value) : value_(value) {}

  constexpr Rep value() const { return value_; }

  friend constexpr auto operator<=>(StrongInt, StrongInt) = default;
  friend constexpr StrongInt operator+(StrongInt a, Rep n) { return StrongInt(a.value_ + n); }
  friend constexpr StrongInt operator-(StrongInt a, Rep n) { return StrongInt(a.value_ - n); }
  friend constexpr Rep operator-(StrongInt a, StrongInt b) { return a.value_ - b.value_; }
  constexpr StrongInt& operator+=(Rep n) {
    value_ += n;
    return *this;
  }
  constexpr StrongInt& operator++() {
    ++value_;
    return *this;
  }

 private:
  Rep value_{};
};

// Number of a record within its partition, from 0, rising. Aborted claims, markers of transactions and compaction leave
// numbers that name no record.
using Offset = StrongInt<struct OffsetTag, std::uint64_t>;

// Byte position within a partition's log, monotonic for the partition's whole life.
using Position = StrongInt<struct PositionTag, std::uint64_t>;

// Number of a partition within its topic, from 0.
using PartitionId = StrongInt<struct PartitionIdTag, std::uint32_t>;

// Number of a partition's leadership; rises by one with every new leader.
using LeaderEpoch = StrongInt<struct LeaderEpochTag, std::uint32_t>;

}  // namespace ringtail

template <class Tag, class Rep>
struct std::hash<ringtail::StrongInt<Tag, Rep>> {
  std::size_t operator()(ringtail::StrongInt<Tag, Rep> v) const noexcept {
    return std::hash<Rep>{}(v.value());
  }
};
