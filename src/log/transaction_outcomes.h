// What is known of transactions from their markers.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

#include "format/frame.h"
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
      ends_.try_emplace(Id(of), End{at, kind == format::MarkerKind::commit});
  }
  // Frames below `at` were not seen.
  void add_gap(Offset at) { gap_end_ = at; }

  // What became of the transaction of the record at `at`; nothing while no marker says so.
  std::optional<Outcome> find(const format::Extension& of, Offset at) const {
    // Whichever comes first counts: what abort_all has ended is over.
    const auto end = ends_.find(Id(of));
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
      if (const auto end = ends_.find(Id(of)); end != ends_.end() && end->second.at <= at) ends_.erase(end);
      return;
    }
    while (!abort_alls_.empty() && abort_alls_.front() <= at) abort_alls_.pop_front();
  }
  void clear() { *this = {}; }

  std::size_t size() const { return ends_.size() + abort_alls_.size(); }

 private:
  struct Id {
    explicit Id(const format::Extension& of)
        : producer_id(of.producer_id), producer_epoch(of.producer_epoch), transaction(of.transaction) {}
    friend bool operator==(const Id&, const Id&) = default;

    std::uint64_t producer_id;
    std::uint32_t producer_epoch;
    std::uint32_t transaction;
  };
  struct Hash {
    std::size_t operator()(const Id& id) const {
      constexpr std::uint64_t odd = 0x9e3779b97f4a7c15;
      const std::uint64_t within = std::uint64_t{id.producer_epoch} << 32 | id.transaction;
      return (id.producer_id * odd) ^ (within * odd >> 7);
    }
  };
  struct End {
    Offset at;
    bool committed;
  };

  std::unordered_map<Id, End, Hash> ends_;
  std::deque<Offset> abort_alls_;
  Offset gap_end_{0};
};

}  // namespace ringtail::log
