// The consumer as a member of a group.
#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <tuple>
#include <utility>

#include "base/bounded_time.h"
#include "base/logger.h"
#include "client/consumer_core.h"
#include "groups/tenure.h"

namespace ringtail {

using log::PartitionReader;
using Reset = ConsumerOptions::Reset;

namespace {

constexpr std::int64_t kLongestSliceNs = 1'000'000'000;
constexpr std::int64_t kOpenAgainNs = 100'000'000;
// A poll sees to its timeout and to wake() in between.
constexpr std::chrono::milliseconds kJoinPatience{1'000};
// Of all that a poll opens; for what takes longer the records of other partitions do not wait.
constexpr std::int64_t kOpenPatienceNs = 50'000'000;
// For how long what comes by itself is waited for without a word.
constexpr std::int64_t kBearNs = std::chrono::nanoseconds(groups::kCoordinatorPatience).count();
constexpr std::size_t kMostMoved = 8;

// Whether it may be over by itself before long.
bool is_awaited(const Error& error) {
  return error.code == Code::timed_out || error.code == Code::no_keeper || error.code == Code::would_block ||
         error.code == Code::offset_not_available;
}

std::string what_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "something that is no std::exception";
  }
}

}  // namespace

// How long to sleep at most; a member, so that the coordinator sees it polling.
std::int64_t ConsumerCore::slice_ns() const {
  if (!membership_) return kLongestSliceNs;
  return std::min(kLongestSliceNs, bounded_time(options_.max_poll_interval).count() / 3);
}

Status ConsumerCore::check_member() const {
  if (auto mine = log_->check_mine(); !mine) return mine;
  if (membership_) return {};
  return fail(Code::invalid_argument, "this consumer is in no group: set group_id, and subscribe");
}

// What would change the membership, or begin another rebalance, waits until this one is complete.
Status ConsumerCore::check_no_callback(std::string_view call) const {
  if (!in_callback_) return {};
  return fail(Code::invalid_argument,
              fmt::format("{} within a callback of its rebalance listener; call it once the poll or "
                          "unsubscribe that called back has returned",
                          call));
}

// --- Joining and leaving -------------------------------------------------------------------------

Status ConsumerCore::subscribe(groups::Subscription subscription, RebalanceListener listener) {
  if (auto mine = log_->check_mine(); !mine) return mine;
  if (auto outside = check_no_callback("subscribe"); !outside) return outside;
  if (options_.group_id.empty())
    return fail(Code::invalid_argument, "to subscribe takes a group: set group_id when opening the consumer");
  if (subscription.topics.empty() && subscription.pattern.empty()) return unsubscribe();
  if (!subscribed_ && !assigned_.empty())
    return fail(Code::invalid_argument, "partitions are assigned by hand; assign none before subscribing");
  if (!membership_) {
    auto membership = groups::Membership::open(
        log_->attachment(), slot_,
        {.group_id = options_.group_id,
         .client_id = options_.client_id,
         .assignor = options_.assignor,
         .max_poll_interval = options_.max_poll_interval,
         .auto_commit_interval =
             options_.enable_auto_commit ? options_.auto_commit_interval : std::chrono::milliseconds(0)});
    if (!membership) return std::unexpected(membership.error());
    membership_ = std::move(*membership);
  }
  auto joined = membership_->join(subscription);
  if (!joined) {
    if (!subscribed_) membership_.reset();
    return joined;
  }
  subscription_ = std::move(subscription);
  listener_ = std::move(listener);
  subscribed_ = true;
  return {};
}

Status ConsumerCore::unsubscribe() {
  if (auto mine = log_->check_mine(); !mine) return mine;
  if (auto outside = check_no_callback("unsubscribe"); !outside) return outside;
  if (!membership_) return {};
  if (options_.enable_auto_commit && !unwinds()) std::ignore = commit();
  const std::vector<TopicPartition> revoked = assignment_;
  tell(listener_.revoked, std::exchange(told_, {}));
  drop(revoked);
  auto left = membership_->leave();
  membership_.reset();
  subscribed_ = unopened_ = false;
  look_again_ns_ = borne_since_ns_ = 0;
  rethrow(left);
  return left;
}

// --- Changes -------------------------------------------------------------------------------------

// Forgets partitions that are another's now, or nobody's.
void ConsumerCore::drop(const std::vector<TopicPartition>& partitions) {
  std::erase_if(assigned_, [&](const Assigned& assigned) {
    if (std::ranges::find(partitions, assigned.reader->source()) == partitions.end()) return false;
    missed_before_ += assigned.reader->missed();
    return true;
  });
  assignment_changed();
}

// What a callback throws is kept, for the rebalance is completed first: whoever waits for a partition is not to wait
// for ever.
void ConsumerCore::tell(const RebalanceListener::Callback& callback,
                        const std::vector<TopicPartition>& partitions) {
  if (!callback || partitions.empty()) return;
  in_callback_ = true;
  const bool unopened = std::exchange(unopened_, true);  // a poll within comes to handle_news, and is refused
  try {
    callback(partitions);
  } catch (const abi::__forced_unwind&) {  // the thread is being cancelled, or ends itself
    in_callback_ = false;
    throw;  // unopened_ stays: should another thread poll, it goes on with the rebalance
  } catch (...) {
    if (thrown_)
      logger().error("group '{}': another callback of the rebalance listener threw, too: {}",
                     options_.group_id, what_of(std::current_exception()));
    else
      thrown_ = std::current_exception();
  }
  unopened_ = unopened;
  in_callback_ = false;
}

// `beside`: what would have been returned.
void ConsumerCore::rethrow(const Status& beside) {
  if (!thrown_) return;
  if (!beside) logger().error("group '{}': {}", options_.group_id, beside.error().message);
  const std::exception_ptr thrown = std::exchange(thrown_, nullptr);
  if (!unwinds()) std::rethrow_exception(thrown);
  logger().error("group '{}': a callback of the rebalance listener threw while another exception unwinds: {}",
                 options_.group_id, what_of(thrown));
}

Status ConsumerCore::handle_news() {
  if (auto outside = check_no_callback("poll"); !outside) return outside;
  Status handled = bear(rebalance());
  rethrow(handled);
  return handled;
}

// A keeper that is busy, a partition that is being opened or has no role yet: that passes, and polls go on meanwhile.
// What has not passed for long is told, at each attempt.
Status ConsumerCore::bear(Status handled) {
  if (handled || !is_awaited(handled.error())) {
    borne_since_ns_ = 0;
    return handled;
  }
  const std::int64_t now_ns = monotonic_ns();
  if (borne_since_ns_ == 0) {
    borne_since_ns_ = now_ns;
    logger().info("group '{}': {}; this member tries again", options_.group_id, handled.error().message);
  }
  return now_ns - borne_since_ns_ < kBearNs ? Status{} : handled;
}

// Of these, those that the listener knows of; from now on it does not.
std::vector<TopicPartition> ConsumerCore::untell(const std::vector<TopicPartition>& partitions) {
  std::vector<TopicPartition> known;
  for (const TopicPartition& partition : partitions)
    if (std::erase(told_, partition) > 0) known.push_back(partition);
  return known;
}

Status ConsumerCore::rebalance() {
  auto looked = membership_->look();
  look_again_ns_ = looked ? 0 : monotonic_ns() + kOpenAgainNs;
  if (!looked) {
    // What it has been granted before does not wait for that.
    if (unopened_ && membership_->is_joined() && is_due(open_again_ns_)) std::ignore = open_granted();
    if (unopened_ && open_again_ns_ != 0) open_again_ns_ = std::max(open_again_ns_, look_again_ns_);
    return std::unexpected(looked.error());
  }
  if (!looked->lost.empty()) {
    drop(looked->lost);
    tell(listener_.lost, untell(looked->lost));
  }
  if (looked->expelled)
    logger().warn("group '{}': this member was expelled, for it had not polled for {} ms; it joins again",
                  options_.group_id, options_.max_poll_interval.count());
  if (!membership_->is_joined()) {
    unopened_ = true;  // until it has joined, each poll tries
    if (auto joined = membership_->join(subscription_, kJoinPatience); !joined) {
      open_again_ns_ = monotonic_ns() + kOpenAgainNs;
      return joined;
    }
  }
  if (looked->commit_due || (options_.enable_auto_commit && !looked->to_give_up.empty()))
    std::ignore = commit();  // what is refused is lost, and that will be told
  if (!looked->to_give_up.empty()) {
    std::vector<TopicPartition> revoked;
    for (const groups::Tenancy* tenancy : looked->to_give_up) revoked.push_back(tenancy->partition);
    tell(listener_.revoked, untell(revoked));
    drop(revoked);
    for (groups::Tenancy* tenancy : looked->to_give_up) membership_->release(tenancy);
  }
  if (!looked->granted.empty()) unopened_ = true;
  return unopened_ ? open_granted() : Status{};
}

// Nothing when it was deleted a moment ago, though there may be another of its name.
Result<std::optional<log::TopicEntry>> ConsumerCore::topic_of(const groups::Tenancy& tenancy) const {
  auto topic = log_->catalog().load_topic(tenancy.partition.topic);
  if (!topic && topic.error().code != Code::not_found) return std::unexpected(topic.error());
  if (!topic || topic->topic_id != tenancy.topic_id) return std::nullopt;
  return std::move(*topic);
}

// One to be placed. Null when its topic was deleted a moment ago: the coordinator will take it back.
// Errors: would_block: it is not open after `patience`; and as PartitionReader::create.
Result<std::unique_ptr<PartitionReader>> ConsumerCore::open_reader(const groups::Tenancy& tenancy,
                                                                   std::chrono::nanoseconds patience) const {
  const auto topic = topic_of(tenancy);
  if (!topic) return std::unexpected(topic.error());
  if (!*topic) return nullptr;
  auto ref = log_->find_partition(**topic, tenancy.partition.partition, patience);
  // SYNC: pairs with the keeper's release store once it is open.
  if (ref && ref->entry().state.load(std::memory_order_acquire) ==
                 static_cast<std::uint32_t>(shm::PartitionState::opening))
    return fail(Code::would_block,
                fmt::format("topic '{}' partition {} is being opened", ref->topic, ref->partition.value()));
  auto reader =
      ref ? PartitionReader::create(*ref, slot_.index(), options_.read_ahead_bytes, options_.isolation_level)
          : std::unexpected(ref.error());
  if (reader) return reader;
  if (const auto still = topic_of(tenancy); still && !*still) return nullptr;
  // One that has failed may have no ring: why, it says itself.
  if (ref)
    if (auto failure = log::Attachment::failure_of(ref->entry())) return std::unexpected(*failure);
  return reader;
}

// Opens readers for what this member owns and does not read yet. What fails is told, and tried again a little later;
// in between polls go on, for what it reads else is not to wait for that.
Status ConsumerCore::open_granted() {
  std::vector<TopicPartition> opened;
  Status status;
  const auto note = [&status](const Error& error) {
    if (status || is_awaited(status.error()))
      status = std::unexpected(error);  // what is not to pass is told first
  };
  const std::int64_t deadline_ns = monotonic_ns() + kOpenPatienceNs;
  for (groups::Tenancy& tenancy : membership_->held()) {
    if (find_assigned(tenancy.partition) != nullptr) continue;
    membership_->beat();  // to open many takes long, and whoever is at it is not stuck
    auto reader = open_reader(
        tenancy, std::chrono::nanoseconds(std::max<std::int64_t>(0, deadline_ns - monotonic_ns())));
    if (!reader) note(reader.error());
    if (!reader || !*reader) continue;
    Assigned assigned{.reader = std::move(*reader), .tenancy = &tenancy};
    if (auto placed = place(assigned); !placed) {
      note(placed.error());
      continue;
    }
    opened.push_back(tenancy.partition);
    assigned_.push_back(std::move(assigned));
  }
  assignment_changed();
  told_.insert(told_.end(), opened.begin(), opened.end());
  tell(listener_.assigned, opened);
  const auto unplaced = std::ranges::find_if(assigned_, &Assigned::unplaced);
  if ((status || is_awaited(status.error())) && unplaced != assigned_.end())
    status = fail(Code::offset_out_of_range,
                  fmt::format("group '{}' has no valid position in topic '{}' partition {}, and "
                              "auto_offset_reset is none; set one with seek",
                              options_.group_id, unplaced->reader->source().topic,
                              unplaced->reader->source().partition.value()));
  unopened_ = !status;
  // Without a position every poll fails, until seek gives one.
  open_again_ns_ = unplaced == assigned_.end() ? monotonic_ns() + kOpenAgainNs : 0;
  return status;
}

// Sets a partition to where its group is, or to where a group begins.
Status ConsumerCore::place(Assigned& assigned) {
  PartitionReader& reader = *assigned.reader;
  if (assigned.tenancy->committed != shm::kNoOffset) {
    auto sought = reader.seek(Offset(assigned.tenancy->committed));
    if (sought || sought.error().code != Code::offset_out_of_range) return sought;
    logger().warn("group '{}': {}", options_.group_id, sought.error().message);
  }
  if (options_.auto_offset_reset != Reset::none) {
    auto gone = go_to_reset(reader);
    const Offset was(assigned.tenancy->committed);
    if (gone && was.value() != shm::kNoOffset && reader.offset() > was)
      reader.count_missed(reader.offset() - was);
    return gone;
  }
  assigned.unplaced = true;  // it is not polled: that where the log starts cannot be read, is in nobody's way
  auto started = reader.seek_to_start();
  return started || started.error().code != Code::closed ? Status() : started;
}

// --- Positions -----------------------------------------------------------------------------------

namespace {

std::unexpected<Error> refuse_commit(std::string_view group, const TopicPartition& partition) {
  return fail(
      Code::stale_generation,
      fmt::format("group '{}': topic '{}' partition {} is no longer this member's; its commit does not "
                  "count, and its records may come to another member again",
                  group, partition.topic, partition.partition.value()));
}

}  // namespace

// A commit behind each record, of many partitions, looks at the one that has moved.
void ConsumerCore::note_moved(std::size_t reader) {
  const std::size_t index = assigned_of_[reader];
  if (!moved_.empty() && moved_.back() == index) return;
  if (moved_.size() < kMostMoved)
    moved_.push_back(index);
  else
    many_moved_ = true;
}

// False when the partition is no longer this member's.
bool ConsumerCore::commit_position(Assigned& assigned) {
  const Offset offset = assigned.reader->offset();
  if (assigned.unplaced || membership_->is_at(*assigned.tenancy, offset)) return true;
  return membership_->commit(*assigned.tenancy, offset);
}

Status ConsumerCore::commit() {
  if (!membership_ || !log_->is_mine()) [[unlikely]]
    return check_member();
  const Assigned* stale = nullptr;
  if (many_moved_) {
    for (Assigned& assigned : assigned_)
      if (!commit_position(assigned)) stale = &assigned;
  } else {
    for (const std::size_t index : moved_)
      if (!commit_position(assigned_[index])) [[unlikely]]
        stale = &assigned_[index];
  }
  moved_.clear();
  // What is refused is refused again, until it is known to be lost.
  many_moved_ = stale != nullptr || others_move_;
  if (stale != nullptr) [[unlikely]]
    return refuse_commit(options_.group_id, stale->reader->source());
  return {};
}

Status ConsumerCore::commit(std::span<const OffsetCommit> offsets) {
  if (auto member = check_member(); !member) return member;
  for (const OffsetCommit& one : offsets) {
    if (one.metadata.size() > shm::kMaxOffsetMetadataBytes)
      return fail(Code::invalid_argument, fmt::format("metadata of {} bytes; at most {} are kept",
                                                      one.metadata.size(), shm::kMaxOffsetMetadataBytes));
    if (one.metadata.find('\0') != std::string::npos)
      return fail(Code::invalid_argument, "metadata with a zero byte, which cannot be kept");
    if (one.offset.value() == shm::kNoOffset)
      return fail(Code::invalid_argument, "2^64 - 1 is no offset of a record to come");
  }
  Status status;
  many_moved_ = true;  // the next commit of positions compares them all
  for (const OffsetCommit& one : offsets) {
    groups::Tenancy* const tenancy = membership_->find(one.partition);
    if (tenancy == nullptr || !membership_->commit(*tenancy, one.offset, one.metadata))
      status = refuse_commit(options_.group_id, one.partition);
  }
  return status;
}

Status ConsumerCore::persist(std::chrono::milliseconds timeout) {
  if (auto member = check_member(); !member) return member;
  return membership_->persist(bounded_time(timeout));
}

Result<std::optional<CommittedOffset>> ConsumerCore::committed(const TopicPartition& partition) const {
  if (auto mine = log_->check_mine(); !mine) return std::unexpected(mine.error());
  if (options_.group_id.empty())
    return fail(Code::invalid_argument, "this consumer is in no group: set group_id when opening it");
  if (auto ready = groups::wait_until_ready(log_->attachment()); !ready)
    return std::unexpected(ready.error());
  auto topic = log_->catalog().load_topic(partition.topic);
  if (!topic) return std::unexpected(topic.error());
  return groups::find_committed(log_->control(), options_.group_id, topic->topic_id, partition.partition);
}

// Whoever asks may add positions to a transaction: from now on, commits of positions compare them all.
GroupMetadata ConsumerCore::group_metadata() {
  others_move_ = many_moved_ = true;
  if (!membership_) return {options_.group_id, {}, 0};
  return {options_.group_id, membership_->member_id(), membership_->generation()};
}

}  // namespace ringtail
