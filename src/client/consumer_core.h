// What stands behind Consumer: partitions and their readers, waiting, and membership of a group.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "client/linger.h"
#include "client/log_core.h"
#include "groups/membership.h"
#include "log/partition_reader.h"
#include "ringtail/consumer.h"
#include "shm/futex.h"
#include "shm/slots.h"

namespace ringtail {

// Thread safety: one thread at a time, but for wake.
class ConsumerCore {
 public:
  ConsumerCore(const Log& log, ConsumerOptions options, shm::OwnedSlot slot);
  ~ConsumerCore();

  // consumer_core.cc
  Status assign(std::span<const TopicPartition> partitions);
  Status assign(std::string_view topic);
  const std::vector<TopicPartition>& assignment() const { return assignment_; }
  Result<log::PartitionReader*> find(const TopicPartition& partition) const;
  Status seek(const TopicPartition& partition, Offset offset);
  Status seek_to_beginning(const TopicPartition& partition);
  Status seek_to_end(const TopicPartition& partition);
  Status seek_to_time(const TopicPartition& partition, std::int64_t timestamp_ns);
  Status set_paused(std::span<const TopicPartition> partitions, bool paused);
  std::vector<TopicPartition> paused() const;
  Result<std::span<const Record>> poll(std::chrono::nanoseconds timeout);
  void wake() {
    wake_.fetch_add(1, std::memory_order_seq_cst);  // SYNC: pairs with the load before the last look in sleep
    shm::futex_wake_all(wake_);
  }
  std::uint64_t missed() const;

  // consumer_group.cc
  Status subscribe(groups::Subscription subscription, RebalanceListener listener);
  Status unsubscribe();
  Status commit();
  Status commit(std::span<const OffsetCommit> offsets);
  Status persist(std::chrono::milliseconds timeout);
  Result<std::optional<CommittedOffset>> committed(const TopicPartition& partition) const;
  GroupMetadata group_metadata();

 private:
  // A partition that this consumer reads.
  struct Assigned {
    std::unique_ptr<log::PartitionReader> reader;
    groups::Tenancy* tenancy = nullptr;  // of a member of a group
    bool paused = false;
    bool unplaced = false;  // there is no position to begin at: poll fails until seek gives one
  };

  Result<std::unique_ptr<log::PartitionReader>> open_reader(const TopicPartition& partition) const;
  Assigned* find_assigned(const TopicPartition& partition);
  void assignment_changed();
  template <class How>
  Status reposition(const TopicPartition& partition, const How& how);
  Result<std::size_t> look();
  Status mend(log::PartitionReader& reader, const Error& error);
  Status reset(log::PartitionReader& reader);
  Status go_to_reset(log::PartitionReader& reader);
  void yield(std::int64_t now_ns);
  void sleep(std::int64_t deadline_ns);
  bool take_wake();
  void hold_back();
  void adapt(std::size_t records);

  // While an exception unwinds, what the last poll brought cannot be taken for handled.
  bool unwinds() const { return std::uncaught_exceptions() > exceptions_at_open_; }

  // consumer_group.cc
  Status check_member() const;
  Status check_no_callback(std::string_view call) const;
  Status handle_news();
  Status rebalance();
  Status open_granted();
  void tell(const RebalanceListener::Callback& callback, const std::vector<TopicPartition>& partitions);
  std::vector<TopicPartition> untell(const std::vector<TopicPartition>& partitions);
  void rethrow(const Status& beside);
  // Whether a member's poll is to look at its group, to see to what is granted and not open, or to joining again; or is
  // to be refused.
  bool must_handle() const {
    return (membership_->has_news() && is_due(look_again_ns_)) ||
           (unopened_ && (in_callback_ || is_due(open_again_ns_)));
  }
  static bool is_due(std::int64_t when_ns) { return when_ns == 0 || monotonic_ns() >= when_ns; }
  Status bear(Status handled);
  Result<std::optional<log::TopicEntry>> topic_of(const groups::Tenancy& tenancy) const;
  Result<std::unique_ptr<log::PartitionReader>> open_reader(const groups::Tenancy& tenancy,
                                                            std::chrono::nanoseconds patience) const;
  Status place(Assigned& assigned);
  void drop(const std::vector<TopicPartition>& partitions);
  void note_moved(std::size_t reader);
  bool commit_position(Assigned& assigned);
  std::int64_t slice_ns() const;

  std::shared_ptr<LogCore> log_;
  ConsumerOptions options_;
  const int exceptions_at_open_ = std::uncaught_exceptions();
  shm::OwnedSlot slot_;
  std::vector<Assigned> assigned_;
  std::vector<TopicPartition> assignment_;      // as assigned_
  std::vector<log::PartitionReader*> readers_;  // of those that are not paused
  std::size_t next_ = 0;                        // whose turn it is
  std::vector<std::size_t> assigned_of_;        // as readers_: the index in assigned_
  std::vector<std::size_t> moved_;              // indices in assigned_ that polls have moved since a commit
  bool many_moved_ = true;                      // any may have moved: more than moved_ holds, or by seek
  bool others_move_ = false;                    // transactions may move the group's positions
  std::vector<Record> records_;
  std::atomic<std::uint32_t> wake_{0};
  std::uint32_t wake_seen_ = 0;
  std::uint64_t missed_before_ = 0;  // by partitions no longer assigned
  std::vector<shm::FutexWaiter> waiters_;
  // As readers_: where each stood when it last kept this one from sleeping.
  std::vector<std::optional<log::LogPoint>> promised_;
  std::uint32_t empty_looks_ = 0;  // since there were records
  // From when on a look finds what an exclusive producer had committed when it was told to wake this one; 0: not told.
  std::int64_t sure_from_ns_ = 0;
  unsigned pauses_ = 0;  // before the first look of a poll
  Linger linger_;
  std::int64_t slept_ns_ = 0;  // when one that yields last slept

  std::unique_ptr<groups::Membership> membership_;  // none: partitions are assigned by hand
  groups::Subscription subscription_;
  RebalanceListener listener_;
  bool subscribed_ = false;
  bool unopened_ = false;  // something is granted whose reader could not be opened or has no position, or
                           // this member is yet to join again; and while a callback runs
  bool in_callback_ = false;
  std::int64_t open_again_ns_ = 0;    // not before; 0: at every poll
  std::int64_t look_again_ns_ = 0;    // what is news could not be looked at: as above
  std::int64_t borne_since_ns_ = 0;   // since when what was to come by itself has not: see bear
  std::vector<TopicPartition> told_;  // as assigned, and not as revoked or lost since
  std::exception_ptr thrown_;         // by a callback, to be thrown again once the rebalance is complete
};

}  // namespace ringtail
