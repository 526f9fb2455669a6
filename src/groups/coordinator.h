// The coordinator: the role that decides who is in a group and who has which partition, and that makes
// positions persistent. Held by the process that holds the keeper's role, on a thread of its own, so that
// neither waits for the other's work.
//
// All it knows is in the group table; what it keeps in memory is an index of that. So after a death at any
// instruction the next coordinator goes on.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "groups/assignment_input.h"
#include "groups/offsets_topic.h"
#include "groups/transactions.h"
#include "log/attachment.h"
#include "ringtail/assignor.h"

namespace ringtail::groups {

// How often the coordinator looks whether members and producers live.
inline constexpr std::int64_t kWatchPeriodNs = 4'000'000;

struct CoordinatorOptions {
  std::int64_t offsets_retention_ms = 7LL * 24 * 3600 * 1000;  // of groups without members
  std::int64_t persist_interval_ms = 100;                      // commits that nobody waits for
  std::int64_t sync_patience_ms = 10'000;  // what has not come to the disk by then is written anew
};

// Thread safety: run() on one thread; stop() from any. Process safety: only while holding the keeper's role.
// The attachment must outlive it.
class Coordinator {
 public:
  Coordinator(log::Attachment& attachment, CoordinatorOptions options = {})
      : attachment_(attachment),
        control_(attachment.control()),
        table_(attachment.control().groups()),
        options_(options),
        offsets_(attachment, kOffsetsTopic, &stop_),
        transactions_(attachment, offsets_, &stop_) {}

  // Waits for this process's keeper, restores positions after a reboot, then works until stop(), and then
  // makes all positions persistent. Blocks meanwhile.
  void run();
  // Ends run(). Lock-free.
  void stop();

 private:
  using PartitionKey = std::pair<std::uint64_t, std::uint32_t>;  // topic id, partition

  struct Member {
    std::uint64_t slot_word = 0;
    std::uint32_t group = 0;
    std::uint32_t polls = 0;  // as last seen to change
    std::int64_t polled_ns = 0;
    std::int64_t max_poll_interval_ns = 0;
    std::int64_t auto_commit_interval_ns = 0;
    std::int64_t commit_due_ns = 0;
  };
  // That what was committed up to a ticket has come to the disk.
  struct Confirmation {
    std::uint32_t group;
    std::uint32_t ticket;
  };
  // A proposal that a member's own assignor is to make.
  struct Proposal {
    std::uint32_t slot = 0;
    std::uint32_t due = 0;
  };
  struct Group {
    std::string id;
    std::string assignor;
    std::set<std::uint32_t> members;  // slots
    std::map<PartitionKey, std::uint32_t> entries;
    bool unbalanced = false;     // an assignment is to be computed
    bool unsettled = false;      // some partitions are not where they should be
    std::uint32_t releases = 0;  // of the group, as of the last look
    // Positions of topics that are gone could not be forgotten: when to try again; 0: they were.
    std::int64_t forget_due_ns = 0;
    std::optional<Proposal> proposal;
    std::optional<Error> crowded_out;  // why some partitions have no member since the last assignment
  };

  // coordinator.cc
  bool wait_for_keeper();
  Status take_up();
  Status restore();
  void index_table();
  Member watch_of(std::uint32_t slot, std::uint32_t group, std::int64_t now_ns) const;
  void round(std::int64_t now_ns);
  void rest(std::int64_t now_ns);
  void answer_requests(std::int64_t now_ns);
  std::optional<Status> serve(std::uint32_t slot, std::int64_t now_ns);
  Status serve_group(std::uint32_t slot, shm::GroupRequest kind, std::int64_t now_ns);
  void refresh_topics();
  const log::TopicEntry* topic_of(std::uint64_t topic_id) const;

  // members.cc
  Status join(std::uint32_t slot, std::int64_t now_ns);
  void remove_member(std::uint32_t slot, const char* why);
  void note_remaining(std::uint32_t index);
  void watch_members(std::int64_t now_ns);
  bool is_alive(std::uint32_t slot) const;
  void call(std::uint32_t slot) const;

  // rebalance.cc
  static void unbalance(Group& group);
  void rebalance(std::uint32_t group);
  void install(std::uint32_t group, const AssignmentInput& input, const Assignment& assignment);
  void ask_leader(std::uint32_t group, const AssignmentInput& input);
  std::optional<Assignment> take_proposal(Group& group, const AssignmentInput& input) const;
  void settle(std::uint32_t group);

  // positions.cc
  Result<std::uint32_t> find_or_make_group(const std::string& id);
  std::optional<std::uint32_t> find_group(const std::string& id) const;
  std::optional<std::uint32_t> find_or_make_entry(std::uint32_t group, PartitionKey key);
  void free_entry(std::uint32_t group, PartitionKey key);
  void free_group(std::uint32_t group);
  Status forget(std::uint32_t group, const std::vector<PartitionKey>& keys);
  void forget_vanished(std::uint32_t group);
  Status prepare(std::uint32_t group, const std::string& topic);
  void persist(std::int64_t now_ns);
  void confirm_commits();
  void give_up_commits(const Error& failure);
  void refuse_commits(const std::vector<Confirmation>& asked, const Error& error);
  std::string name_in_topic(std::uint64_t topic_id) const;
  void announce_trouble(const Error& error);
  void note_trouble(std::uint32_t group, const Error& error);
  void clear_trouble(std::uint32_t group);  // but for what the last assignment has met
  void expire(std::int64_t now_ns);

  log::Attachment& attachment_;
  const shm::Control& control_;
  shm::GroupTableLayout& table_;
  CoordinatorOptions options_;
  std::atomic<bool> stop_{false};
  InternalTopic offsets_;
  Transactions transactions_;

  std::map<std::uint32_t, Group> groups_;    // by index
  std::map<std::uint32_t, Member> members_;  // by slot
  std::vector<log::TopicEntry> topics_;
  std::uint32_t catalog_seen_ = 0;
  bool topics_known_ = false;
  std::int64_t topics_due_ns_ = 0;  // a catalog that could not be read is not read again before
  std::string catalog_trouble_;     // as told; empty: it could be read

  std::vector<Confirmation> confirmations_;  // for commits that were appended, once they are synced
  std::int64_t sync_due_ns_ = 0;             // how long they are waited for
  bool end_known_ = false;                   // what a coordinator before us appended is waited for, too
  bool refused_ = false;                     // the last attempt came to nothing, and not for want of space
  std::int64_t persist_due_ns_ = 0;
  std::int64_t watch_due_ns_ = 0;
  std::int64_t expire_due_ns_ = 0;
  std::uint32_t wake_seen_ = 0;
  std::string announced_trouble_;
  std::map<std::uint64_t, std::string> persisted_names_;  // of topics, by id
};

// Changes whenever the metadata of a commit does.
std::uint64_t metadata_mark(const shm::GroupPartition& entry);

}  // namespace ringtail::groups
