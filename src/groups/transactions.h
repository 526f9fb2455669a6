// The coordinator's transactions: who may write under a transactional id, and how a transaction ends.
//
// A transaction is decided by one compare-and-set of its word (shm/producer_table.h): by its producer, which
// asks for commit or abort, or by the coordinator, which aborts what its producer cannot end any more. What
// follows can be done twice without harm, so after a death at any instruction the next coordinator does it
// again: a marker in every partition that has records of it, then the positions that were added to it.
//
// After a host crash the control segment is gone. What was decided for a durable producer stands in the
// internal topic, and is completed; whatever else is open in a partition with transactions is aborted by
// one marker there. A partition that has failed gets these markers when it is opened again, ahead of any new
// transaction, and until then the decisions that name it stand; it holds up no others.
//
//   {"producer_id":"<hex>","epoch":e,"transaction":n}  ->  a durable producer's commit, until it is complete:
//       {"producer_id":…,"epoch":…,"transaction":…,"revision":r,"partitions":[…],"offsets":[…]}
//   {"partition":n,"topic_id":"<hex>"}                 ->  {}: the partition has transactions
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "groups/internal_topic.h"
#include "groups/offsets_topic.h"
#include "log/attachment.h"

namespace ringtail::groups {

inline constexpr std::string_view kTransactionsTopic = "__transaction_state";

struct Decision;

// Thread safety: the coordinator's thread. Process safety: only while holding the keeper's role.
class Transactions {
 public:
  // All must outlive it. `offsets` is where the caller has positions persisted; once `stop` is set, restore and
  // take_up end early.
  Transactions(log::Attachment& attachment, InternalTopic& offsets, const std::atomic<bool>* stop = nullptr)
      : attachment_(attachment),
        control_(attachment.control()),
        topic_(attachment, kTransactionsTopic, stop),
        offsets_(offsets) {}

  // After a reboot: ends what was open. Returns the positions of transactions that were decided; the caller
  // has those that count persisted. Blocks.
  Result<std::vector<StoredOffset>> restore();
  // After the death of another coordinator, whose memory of what is still to come to the disk is gone. Blocks.
  Status take_up();

  // Requests of producers. Nothing: not yet; ask again.
  std::optional<Status> take_id(std::uint32_t slot);
  std::optional<Status> enlist(std::uint32_t slot);

  // Ends what is to be ended. Does not block.
  void round(std::int64_t now_ns);
  // Whether there is something to look at soon, without anybody calling.
  bool is_busy() const { return busy_; }
  // Whether some are under way, which may have to be aborted one day.
  bool is_watching() const { return !seen_.empty(); }

  // Whether a transaction that has not ended yet will decide about a position, by its pending word.
  bool holds(std::uint64_t pending) const;
  // Aborts that transaction unless it is decided: the position's owner has lost the partition.
  void abort(std::uint64_t pending);
  // Whether a position may come to the disk: the records that it stands for are there themselves, and no
  // decision that was written down is about to move it. `urgent`: somebody waits for it.
  bool may_persist(std::uint32_t entry, bool urgent);
  // All positions were written to the caller's topic, but for those of the entries in `left`.
  void note_written(const std::set<std::uint32_t>& left);
  // Before the end: waits until no position is held back any more, at most until `deadline_ns`. Blocks.
  void wait_synced(std::int64_t deadline_ns);

 private:
  struct End {
    std::uint64_t topic_id;
    Position position;
  };
  using Ends = std::map<std::uint32_t, End>;  // by partition entry

  // How far the end of a transaction has come.
  struct Progress {
    std::uint64_t op_seen = 0;  // of its producer's slot
    bool quiet = false;         // no claim of its producer's is under way any more
    bool records_synced = false;
    std::optional<Position> decision_end;  // in the internal topic, once it stands there
    std::int64_t again_ns = 0;             // what has kept it from being decided is not tried again before
    bool inherited = false;                // another coordinator wrote it
    Ends records_end;
    Ends markers_end;
  };
  // A decided commit whose record may go once everything that follows from it is on disk.
  struct Closing {
    std::string key;
    format::Extension of;
    Ends markers_end = {};
    // Where no marker is yet: entries, and the ids of their topics.
    std::map<std::uint32_t, std::uint64_t> unmarked = {};
    std::optional<std::set<std::uint32_t>> moved = {};  // entries; not known of another coordinator's
    std::optional<Position> positions_end = {};         // in the topic of positions, once they stand there
    bool is_rest = false;                               // the record names what is unmarked, and nothing else
  };

  std::vector<std::uint32_t> partitions_of(const shm::TransactionalId& entry) const;
  std::optional<std::uint32_t> find_or_make_id(const std::string& id);
  bool is_held(const shm::TransactionalId& entry) const;
  void watch(std::uint32_t index, std::int64_t now_ns);
  bool finish(std::uint32_t index);
  bool is_quiet(const shm::TransactionalId& entry, Progress& progress) const;
  bool decide_durably(std::uint32_t index, Progress& progress);
  bool write_markers(std::uint32_t index, Progress& progress);
  bool write_marker(std::uint32_t partition, format::MarkerKind kind, const format::Extension& of,
                    Ends& ends);
  std::set<std::uint32_t> apply_positions(std::uint32_t index, std::uint64_t word);
  void hold_back(std::uint32_t entry, const Ends& ends);
  Result<std::string> encode_decision(std::uint32_t index) const;
  void close_decisions();
  bool are_synced(const Ends& ends) const;
  void request_sync(const Ends& ends) const;
  Result<log::PartitionRef> find_ref(std::uint32_t partition) const;
  Result<log::Appender*> appender(std::uint32_t partition);
  Result<log::Appender> open_appender(std::uint32_t partition);
  // transactions_restore.cc
  Status read_topic(std::map<std::string, Decision>& decisions,
                    std::set<std::pair<std::uint64_t, std::uint32_t>>& transactional);
  Result<End> claimed_end(std::uint32_t partition) const;
  Status survey(std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint32_t>& index_of);
  void forget();
  void end_all_left_open();
  bool end_left_open(std::uint32_t partition);
  std::string encode_rest(const Closing& closing) const;
  void announce(const Error& error);

  log::Attachment& attachment_;
  const shm::Control& control_;
  InternalTopic topic_;
  InternalTopic& offsets_;
  bool offsets_end_known_ = false;  // also of what a coordinator before us appended there
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::map<std::uint32_t, log::Appender> appenders_;  // by partition entry
  struct Unopened {
    Error why;
    std::int64_t until_ns = 0;
  };
  std::map<std::uint32_t, Unopened> unopened_;  // likewise: not tried again before
  std::map<std::uint32_t, Progress> progress_;  // by transactional id
  struct Seen {
    std::uint64_t word;
    std::int64_t since_ns;
  };
  std::map<std::uint32_t, Seen> seen_;       // ongoing ones
  std::map<std::uint32_t, Ends> held_back_;  // positions, by entry
  Ends taken_up_;  // what holds back positions that transactions have moved, after another coordinator
  // Appended, not synced yet; by topic id, since an entry may go to another topic meanwhile.
  std::map<std::pair<std::uint64_t, std::uint32_t>, Position> enlisting_;
  std::set<std::string> decided_;  // keys of decisions that another coordinator wrote
  std::vector<Closing> closing_;
  // Where what was open before the reboot has not ended yet: entries, and the ids of their topics.
  std::map<std::uint32_t, std::uint64_t> left_open_;
  bool busy_ = false;
  std::set<std::string> announced_;  // each is said once, until all has ended
};

std::string decision_key(const shm::TransactionalId& entry, std::uint64_t word);
bool is_memory(const shm::Partition& entry);

}  // namespace ringtail::groups
