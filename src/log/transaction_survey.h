// What became of the transactions of a stretch of a log that has been walked to its end: what compaction
// has to know before it goes through their records. It keeps the open and the aborted ones, and so stays
// small however many were committed.
//
// Thread and process safety: a value.
#pragma once

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "log/transaction_id.h"
#include "ringtail/types.h"

namespace ringtail::log {

class TransactionSurvey {
 public:
  // Records and markers come in order.
  void add_record(const format::Extension& of, Offset at) { open_.try_emplace(TransactionId(of), at); }
  void add_marker(format::MarkerKind kind, const format::Extension& of, Offset at) {
    if (kind == format::MarkerKind::abort_all) {
      for (const auto& [id, first] : open_) aborted_.insert_or_assign(id, at);
      open_.clear();
      return;
    }
    // A transaction without a record in the stretch, or one that was ended before, is nobody's concern.
    const bool ends = open_.erase(TransactionId(of)) > 0;
    if (ends && kind == format::MarkerKind::abort) aborted_.insert_or_assign(TransactionId(of), at);
  }

  // The first record whose transaction has no end in the stretch; the greatest offset when all have.
  Offset first_open() const {
    Offset first(std::numeric_limits<std::uint64_t>::max());
    for (const auto& [id, at] : open_) first = std::min(first, at);
    return first;
  }
  // Whether the transaction of the record at `at`, in the stretch, was aborted.
  bool is_aborted(const format::Extension& of, Offset at) const {
    const auto end = aborted_.find(TransactionId(of));
    return end != aborted_.end() && at < end->second;
  }

 private:
  using Offsets = std::unordered_map<TransactionId, Offset, TransactionId::Hash>;

  Offsets open_;     // to the first record
  Offsets aborted_;  // to the marker
};

}  // namespace ringtail::log
