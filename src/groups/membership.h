// A consumer's side of its group: it asks the coordinator, looks at what it was given, gives back, commits.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "groups/tenure.h"
#include "log/attachment.h"
#include "ringtail/assignor.h"
#include "ringtail/error.h"
#include "ringtail/record.h"
#include "shm/slots.h"

namespace ringtail::groups {

// How long the coordinator may take to answer, where nothing else is said.
inline constexpr std::chrono::seconds kCoordinatorPatience{30};

// A topic as subscribed to: names, or one extended regular expression that whole names must match.
struct Subscription {
  std::vector<std::string> topics;
  std::string pattern;

  friend bool operator==(const Subscription&, const Subscription&) = default;
};

struct MemberOptions {
  std::string group_id;
  std::string client_id;
  Assignor assignor;
  std::chrono::milliseconds max_poll_interval{300'000};
  std::chrono::milliseconds auto_commit_interval{5'000};  // 0: never
};

// A partition that this member owns.
struct Tenancy {
  TopicPartition partition;
  std::uint64_t topic_id = 0;
  std::uint32_t entry = 0;
  std::uint64_t tenure = 0;
  std::uint64_t committed = 0;  // last known, for a transaction may have moved it; kNoOffset: none
  bool has_metadata = false;    // of its last commit
};

// What has changed since the last look. The pointers are good until the partition is released or lost.
struct Changes {
  bool expelled = false;             // everything was taken from this member; it may join again
  bool commit_due = false;           // it is time for an automatic commit
  std::vector<TopicPartition> lost;  // taken away: another may have it already
  std::vector<Tenancy*> to_give_up;  // wanted by another: to be released as soon as possible
  std::vector<Tenancy*> granted;     // owned from now on

  bool empty() const {
    return !expelled && !commit_due && lost.empty() && to_give_up.empty() && granted.empty();
  }
};

// Thread safety: one thread at a time. Process safety: any number of members. The attachment and the slot
// must outlive it. In a forked child it must be abandoned.
class Membership {
 public:
  // Errors: invalid_argument (ids, intervals).
  static Result<std::unique_ptr<Membership>> open(const log::Attachment& attachment,
                                                  const shm::OwnedSlot& slot, MemberOptions options);
  // Gives everything back. That this member is gone, the end of its slot tells.
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  // Joins, or changes the subscription; blocks until the coordinator has answered. Partitions come later,
  // as changes. Errors: limit_exceeded (groups, length of the subscription), inconsistent_assignor,
  // invalid_argument (expression), no_keeper, timed_out (after `patience`; the coordinator may take it as a member yet).
  Status join(const Subscription& subscription, std::chrono::nanoseconds patience = kCoordinatorPatience);
  // Gives everything back and leaves. Blocks until the coordinator knows. Errors: no_keeper, timed_out.
  Status leave();

  // Says that this member is alive and polling. Wait-free, a store.
  void beat() { member_->polls.store(++polls_, std::memory_order_relaxed); }
  // Whether there are changes to look at. Wait-free, a load of a line that hardly ever changes.
  bool has_news() const { return member_->attention.load(std::memory_order_relaxed) != attention_seen_; }
  // The futex to sleep on, and its value as of the last look.
  const shm::Shared<std::uint32_t>& attention() const { return member_->attention; }
  std::uint32_t attention_seen() const { return attention_seen_; }

  // Looks; runs this member's assignor when it is asked to. Lock-free but for that, and for the names of topics that
  // it has not known yet. What cannot be looked at stays news: it is told as an error once there is nothing else to
  // tell, and looked at again. Errors: of the catalog.
  Result<Changes> look();
  // Lets another have what look() gave in to_give_up. Lock-free.
  void release(Tenancy* tenancy);

  // Moves the position, for every process to see at once; it reaches the disk a little later. Lock-free.
  // False: the partition is no longer this member's.
  bool commit(Tenancy& tenancy, Offset offset, std::string_view metadata = {});
  // Whether the position is `offset`, as last known here and as it stands. Wait-free, a load at most.
  bool is_at(const Tenancy& tenancy, Offset offset) const {
    const shm::GroupPartition& entry = attachment_.control().groups().partitions[tenancy.entry];
    return tenancy.committed == offset.value() &&
           entry.committed.load(std::memory_order_relaxed) == offset.value();
  }
  // Waits until all commits made before are persistent. Errors: timed_out, no_keeper, storage_failed and
  // whatever else keeps the coordinator from writing.
  Status persist(std::chrono::nanoseconds timeout);

  std::list<Tenancy>& held() { return held_; }
  Tenancy* find(const TopicPartition& partition);
  // Whether the coordinator has taken it as a member, and not expelled it since.
  bool is_joined() const { return joined_; }
  const MemberOptions& options() const { return options_; }
  // As shown by Admin: the client id, if any, then a number that no other attachment has.
  const std::string& member_id() const { return member_id_; }
  std::uint32_t generation() const;

  // Forgets everything without a word, in a forked child.
  void abandon() { member_ = nullptr; }

 private:
  Membership(const log::Attachment& attachment, const shm::OwnedSlot& slot, MemberOptions options);

  Result<std::uint32_t> ask(shm::GroupRequest kind);
  std::uint32_t me() const { return slot_->index() + 1; }
  std::optional<std::uint32_t> group() const;
  Status propose(std::uint32_t due);
  bool is_held(std::uint32_t entry) const;
  void look_for_losses(std::uint32_t group, Changes& changes);
  Status look_for_grants(std::uint32_t group, Changes& changes);
  Result<Tenancy*> take(std::uint32_t entry, const Standing& standing);
  Result<std::optional<std::string>> name_of(std::uint64_t topic_id);

  const log::Attachment& attachment_;
  const shm::OwnedSlot* slot_;
  MemberOptions options_;
  std::string member_id_;
  shm::Member* member_;
  std::uint32_t polls_ = 0;
  std::uint32_t attention_seen_ = 0;
  std::uint32_t commit_due_seen_ = 0;
  bool joined_ = false;
  std::list<Tenancy> held_;
  std::map<std::uint64_t, std::string> topic_names_;
  bool topics_listed_ = false;  // in this look
  bool is_name_held_ = false;   // the last look has left one that is owned, for another of its name is held
};

// Posts a request in the member entry of `slot` and waits for the coordinator's answer: for `patience`, or until this
// process's own keeper has failed, unless it is to wait for `whoever_keeps` the log by then. What is not answered in
// time stays posted; the next request waits for it first.
// Errors: what the coordinator says; no_keeper when there is none, timed_out.
Status ask_coordinator(const log::Attachment& attachment, const shm::OwnedSlot& slot, shm::GroupRequest kind,
                       std::string_view group_id, std::string_view subscription,
                       std::chrono::nanoseconds patience = kCoordinatorPatience, bool whoever_keeps = false);
// Waits until all commits of the group that were made before are persistent. Errors: as Membership::persist.
Status persist_commits(const log::Attachment& attachment, std::uint32_t group,
                       std::chrono::nanoseconds timeout);

// Waits until positions have been restored, after a reboot. Errors: no_keeper, timed_out.
Status wait_until_ready(const log::Attachment& attachment);

// "<client id>-<16 digits>": the digits tell one attachment from every other.
std::string member_id_of(const shm::Control& control, std::uint32_t slot);

}  // namespace ringtail::groups
