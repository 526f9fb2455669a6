// How far the replicas of a partition are, as its leader sees it: what the high watermark is, who falls out of
// the in-sync replicas, who may come back. No sockets, no clock of its own.
//
// Thread safety: one thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "log/epoch_list.h"
#include "replication/coordinator.h"

namespace ringtail::replication {

class LeaderProgress {
 public:
  // `synced`: see count_synced.
  // `start`: where the leader's epoch begins in its log.
  LeaderProgress(NodeId self, std::uint32_t min_insync, bool synced, log::LogPoint start = {})
      : self_(self), min_insync_(min_insync), synced_(synced), start_(start) {}

  // The in-sync replicas that stand in the partition's record.
  void confirm(std::set<NodeId> isr);
  // A change of them is on its way: until a later record is seen, whoever is in either set counts, and so does who
  // was in a change before, for that may have been made after all.
  void propose(const std::set<NodeId>& isr) {
    if (!proposed_) proposed_.emplace();
    proposed_->insert(isr.begin(), isr.end());
  }
  bool is_proposing() const { return proposed_.has_value(); }
  const std::set<NodeId>& isr() const { return isr_; }

  void set_min_insync(std::uint32_t min_insync) { min_insync_ = min_insync; }
  // Whether a replica has a record when it has synced it; otherwise when it is in its ring.
  void count_synced(bool synced) { synced_ = synced; }
  bool counts_synced() const { return synced_; }

  // A follower has all up to `end`, and has synced all up to `synced`. Those of the leader itself likewise.
  void on_ack(NodeId node, const log::LogPoint& end, const log::LogPoint& synced);
  // It asks to be shipped anew: what it had counts no more, for it may have lost it.
  void on_stream_begin(NodeId node);
  // Its stream ended: it is where it was, but not on its way any more.
  void on_stream_end(NodeId node);
  // Notes the leader's end at this time, from which followers' lag is reckoned.
  void mark(const log::LogPoint& leader_end, std::int64_t now_ns);
  // When that was done last; 0: never.
  std::int64_t marked_ns() const { return mark_.at_ns; }

  // Every in-sync replica has all before it. Never moves back; does not move while there are fewer replicas
  // in sync than min.insync.replicas (KIP-966).
  log::LogPoint watermark();
  // Where it is to begin: what was the watermark before this leader's time.
  void raise_watermark(const log::LogPoint& to) { watermark_ = std::max(watermark_, to); }

  // In-sync replicas that have not had all up to the leader's end for longer than `patience_ns`; never the leader.
  std::vector<NodeId> lagging(std::int64_t now_ns, std::int64_t patience_ns) const;
  // Whether the leader itself has not synced all up to its end for that long, whatever counts for replicas.
  bool is_stuck(std::int64_t now_ns, std::int64_t patience_ns) const {
    return stored_ns_ != 0 && now_ns - stored_ns_ > patience_ns;
  }
  // Whether a replica in sync is one of them.
  bool is_lagging(NodeId node, std::int64_t now_ns, std::int64_t patience_ns) const;
  // Replicas out of sync that have come up to the watermark, and to where this leader's epoch begins: its watermark
  // may lag behind what was acknowledged in the epoch before (KIP-101).
  std::vector<NodeId> caught_up() const;
  // Whether a replica, or the leader itself, has what that takes, by what it has said over its present stream.
  bool has_all(NodeId node) const;
  // Where a follower is; null if it has never said.
  struct Follower {
    log::LogPoint end;
    log::LogPoint synced;
    bool streaming = false;
    std::int64_t caught_up_ns = 0;  // when it was last known to have all that there was
  };
  const Follower* find(NodeId node) const;
  const std::map<NodeId, Follower>& followers() const { return followers_; }

 private:
  log::LogPoint has(const Follower& follower) const { return synced_ ? follower.synced : follower.end; }
  log::LogPoint has(NodeId node) const;

  struct Mark {
    log::LogPoint end;
    std::int64_t at_ns = 0;
  };

  NodeId self_;
  std::uint32_t min_insync_;
  bool synced_;
  log::LogPoint start_;
  std::set<NodeId> isr_;
  std::optional<std::set<NodeId>> proposed_;
  std::map<NodeId, Follower> followers_;  // and the leader itself
  log::LogPoint watermark_;
  Mark mark_;
  Mark mark_before_;
  std::int64_t stored_ns_ = 0;  // when the leader was last known to have synced all that there was
};

}  // namespace ringtail::replication
