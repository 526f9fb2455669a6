// What one producer has appended to a partition under which sequence number: the last of it. Its source is the
// log itself, so a process that begins anew, or on another host, knows what the one before has sent.
//
// Thread safety: one thread at a time. A plain value otherwise.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "log/appender.h"
#include "log/partition_ref.h"
#include "ringtail/error.h"
#include "ringtail/record.h"

namespace ringtail::log {

class SentRecords {
 public:
  static constexpr std::size_t kRemembered = 1024;
  // How far back from its end the log is read, about, and from where it was known up to.
  static constexpr std::uint64_t kRecalledBytes = 64 << 20;

  // The record of that number, if it is one of the last kRemembered. Lock-free.
  const RecordMetadata* find(std::uint64_t sequence) const {
    if (records_.empty()) return nullptr;
    const Sent& slot = records_[sequence % kRemembered];
    return slot.sequence == sequence ? &slot.metadata : nullptr;
  }
  // Of `count` records with consecutive numbers from `first` on, the last, if all of them are remembered; of more than
  // kRemembered, if the last kRemembered are. Requires count > 0. Lock-free.
  const RecordMetadata* find_last(std::uint64_t first, std::uint64_t count) const {
    const std::uint64_t end = first + count;
    for (std::uint64_t back = std::min<std::uint64_t>(count, kRemembered); back > 1; --back)
      if (find(end - back) == nullptr) return nullptr;
    return find(end - 1);
  }
  // Lock-free but for the first.
  void note(std::uint64_t sequence, const RecordMetadata& metadata) {
    if (records_.empty()) records_.resize(kRemembered);
    records_[sequence % kRemembered] = {sequence, metadata};
  }
  // The records of a stamped batch, of which append_batch told the last. Those that gave no time have the last one's;
  // with `append_time` all have. Lock-free but for the first.
  void note_batch(std::uint64_t first, std::span<const ProducerRecord> records, const RecordMetadata& last,
                  bool append_time);

  // Those that have `first` and what comes behind it do not count.
  void forget_from(std::uint64_t first);

  static constexpr Offset kUnknown{~std::uint64_t{0}};

  struct Recalled {
    std::optional<std::uint64_t> next;  // the number behind the last one; nothing where there is none
    Offset known_until{0};              // the end of what was read
  };
  // Forgets all, and reads what the log has of the stamp's producer and epoch near its end and since `known_until`,
  // up to which the caller has read or sent before (kUnknown: nowhere); records that are not replicated yet are among
  // it. Of what stands farther back, the last number that was noted counts. Of other transactions than the stamp's only
  // numbers below `first` do: what those from there on were, an abort has undone. Waits up to `patience` for claims under
  // way. Takes a reader entry for `slot` meanwhile. Blocks: tens of ms from memory; files are read if the ring does
  // not reach as far. Errors: as PartitionReader::poll, and timed_out.
  Result<Recalled> recall(const PartitionRef& partition, std::uint32_t slot, const Stamp& stamp,
                          std::uint64_t first, std::chrono::milliseconds patience,
                          Offset known_until = kUnknown);

 private:
  struct Sent {
    std::uint64_t sequence = ~std::uint64_t{0};
    RecordMetadata metadata;
  };
  void forget_all(Offset begin);

  std::vector<Sent> records_;  // by number, modulo kRemembered
  std::optional<std::uint64_t>
      next_farther_back_;  // behind the last that was noted and has not been read again
};

}  // namespace ringtail::log
