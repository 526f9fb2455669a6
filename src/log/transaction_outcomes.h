// What is known of transactions from their markers.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

#include "format/frame.h"
#include "log/transaction_id.h"
#include "ringtail/types.h"

namespace ringtail::log {

enum class Outcome : std::uint8_t {
  committed,
  aborted,
  lost,  // the marker may have been among frames that were gone before anybody looked at them
};

// The markers of one stretch of a partition, in which they are looked for by the records before them.
// Thread safety: one thread.
class TransactionOutcomes {
 public:
  // A marker at `at`; they come in order.
  void add(format::MarkerKind kind, const format::Extension& of, Offset at) {
    if (kind == format::MarkerKind::abort_all)
      abort_alls_.push_back(at);
    else
      ends_.try_emplace(TransactionId(of), End{at, kind == format::MarkerKind::commit});
  }
  // Frames below `at` were not seen.
  void add_gap(Offset at) { gap_end_ = at; }

  // What became of the transaction of the record at `at`; nothing while no marker says so.
  std::optional<Outcome> find(const format::Extension& of, Offset at) const {
    // Whichever comes first counts: what abort_all has ended is over.
    const auto end = ends_.find(TransactionId(of));
    const bool ended = end != ends_.end() && end->second.at > at;
    for (const Offset all : abort_alls_)
      if (all > at && (!ended || all < end->second.at)) return Outcome::aborted;
    if (ended) return end->second.committed ? Outcome::committed : Outcome::aborted;
    if (at < gap_end_) return Outcome::lost;
    return std::nullopt;
  }

  // No record before the marker at `at` will be asked about any more.
  void forget(format::MarkerKind kind, const format::Extension& of, Offset at) {
    if (kind != format::MarkerKind::abort_all) {
      if (const auto end = ends_.find(TransactionId(of)); end != ends_.end() && end->second.at <= at)
        ends_.erase(end);
      return;
    }
    while (!abort_alls_.empty() && abort_alls_.front() <= at) abort_alls_.pop_front();
  }
  void clear() { *this = {}; }

  std::size_t size() const { return ends_.size() + abort_alls_.size(); }

 private:
  struct End {
    Offset at;
    bool committed;
  };

  std::unordered_map<TransactionId, End, TransactionId::Hash> ends_;
  std::deque<Offset> abort_alls_;
  Offset gap_end_{0};
};

}  // namespace ringtail::log
