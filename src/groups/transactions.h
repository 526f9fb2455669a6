// The coordinator's transactions: who may write under a transactional id, and how a transaction ends.
//
// A transaction is decided by one compare-and-set of its word (shm/producer_table.h): by its producer, which
// asks for commit or abort, or by the coordinator, which aborts what its producer cannot end any more. What
// follows can be done twice without harm, so after a death at any instruction the next coordinator does it
// again: a marker in every partition that has records of it, then the positions that were added to it.
//
// After a host crash the control segment is gone. What was decided for a durable producer stands in the
// internal topic, and is completed; whatever else is open in a partition with transactions is aborted by
// one marker there.
//
//   {"producer_id":"<hex>","epoch":e,"transaction":n}  ->  a durable producer's commit, until it is complete
//   {"partition":n,"topic_id":"<hex>"}                 ->  {}: the partition has transactions
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "groups/internal_topic.h"
#include "groups/offsets_topic.h"
#include "log/attachment.h"

namespace ringtail::groups {

inline constexpr std::string_view kTransactionsTopic = "__transaction_state";

// Thread safety: the coordinator's thread. Process safety: only while holding the keeper's role.
class Transactions {
 public:
  // The attachment must outlive it.
  explicit Transactions(log::Attachment& attachment)
      : attachment_(attachment), control_(attachment.control()), topic_(attachment, kTransactionsTopic) {}

  // After a reboot: ends what was open. Returns positions that go with transactions that were decided; the
  // caller has them persisted, and says so by note_persisted. Blocks.
  Result<std::vector<StoredOffset>> restore();

  // Requests of producers. Nothing: not yet; ask again.
  std::optional<Status> take_id(std::uint32_t slot);
  std::optional<Status> enlist(std::uint32_t slot);

  // Ends what is to be ended. Does not block.
  void round(std::int64_t now_ns);
  // Whether there is something to look at soon, without anybody calling.
  bool is_busy() const { return busy_; }
  // Whether some are under way, which may have to be aborted one day.
  bool is_watching() const { return !seen_.empty(); }
  // How many have ended.
  std::uint64_t ended() const { return ended_; }

  // Whether a transaction that has not ended yet will decide about a position, by its pending word.
  bool holds(std::uint64_t pending) const;
  // Aborts that transaction unless it is decided: the position's owner has lost the partition.
  void abort(std::uint64_t pending);
  // Whether the records whose positions these are, are on disk themselves: before that, a position must not be.
  bool may_persist(std::uint32_t entry);
  // All positions of transactions that have ended are on disk.
  void note_persisted();

 private:
  // How far the end of a transaction has come.
  struct Progress {
    std::uint64_t op_seen = 0;  // of its producer's slot
    bool quiet = false;         // no claim of its producer's is under way any more
    bool records_synced = false, decision_written = false;
    std::map<std::uint32_t, Position> records_end;  // by partition entry
    std::map<std::uint32_t, Position> markers_end;
  };
  // A decided commit whose record may go once everything that follows from it is on disk.
  struct Closing {
    std::string key;
    std::map<std::uint32_t, Position> markers_end;
    bool positions_persisted = false;
  };

  std::optional<std::uint32_t> find_or_make_id(const std::string& id);
  bool is_held(const shm::TransactionalId& entry) const;
  void watch(std::uint32_t index, std::int64_t now_ns);
  bool finish(std::uint32_t index);
  bool is_quiet(const shm::TransactionalId& entry, Progress& progress) const;
  bool decide_durably(std::uint32_t index, Progress& progress);
  bool write_markers(std::uint32_t index, Progress& progress);
  std::vector<std::uint32_t> apply_positions(std::uint32_t index, std::uint64_t word);
  std::string encode_decision(std::uint32_t index) const;
  void close_decisions();
  bool are_synced(const std::map<std::uint32_t, Position>& ends) const;
  Result<log::Appender*> appender(std::uint32_t partition);
  void announce(const Error& error);

  log::Attachment& attachment_;
  const shm::Control& control_;
  InternalTopic topic_;
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::map<std::uint32_t, log::Appender> appenders_;  // by partition entry
  std::map<std::uint32_t, Progress> progress_;        // by transactional id
  struct Seen {
    std::uint64_t word;
    std::int64_t since_ns;
  };
  std::map<std::uint32_t, Seen> seen_;                                    // ongoing ones
  std::map<std::uint32_t, std::map<std::uint32_t, Position>> held_back_;  // positions, by entry
  std::set<std::uint32_t> enlisting_;                                     // appended, not synced yet
  std::vector<Closing> closing_;
  bool busy_ = false;
  std::uint64_t ended_ = 0;
  std::string announced_;
};

}  // namespace ringtail::groups
