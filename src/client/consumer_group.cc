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
constexpr std::size_t kMostMoved = 8;

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
  tell(listener_.revoked, revoked);
  drop(revoked);
  auto left = membership_->leave();
  membership_.reset();
  subscribed_ = unopened_ = false;
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
  Status handled = rebalance();
  rethrow(handled);
  return handled;
}

Status ConsumerCore::rebalance() {
  auto looked = membership_->look();
  if (!looked) return std::unexpected(looked.error());
  if (!looked->lost.empty()) {
    drop(looked->lost);
    tell(listener_.lost, looked->lost);
  }
  if (looked->expelled)
    logger().warn("group '{}': this member was expelled, for it had not polled for {} ms; it joins again",
                  options_.group_id, options_.max_poll_interval.count());
  if (!membership_->is_joined()) {
    unopened_ = true;  // until it has joined, each poll tries
    open_again_ns_ = 0;
    if (auto joined = membership_->join(subscription_); !joined) return joined;
  }
  if (looked->commit_due || (options_.enable_auto_commit && !looked->to_give_up.empty()))
    std::ignore = commit();  // what is refused is lost, and that will be told
  if (!looked->to_give_up.empty()) {
    std::vector<TopicPartition> revoked;
    for (const groups::Tenancy* tenancy : looked->to_give_up) revoked.push_back(tenancy->partition);
    tell(listener_.revoked, revoked);
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
Result<std::unique_ptr<PartitionReader>> ConsumerCore::open_reader(const groups::Tenancy& tenancy) const {
  const auto topic = topic_of(tenancy);
  if (!topic) return std::unexpected(topic.error());
  if (!*topic) return nullptr;
  auto ref = log_->find_partition(**topic, tenancy.partition.partition);
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
  for (groups::Tenancy& tenancy : membership_->held()) {
    if (find_assigned(tenancy.partition) != nullptr) continue;
    membership_->beat();  // to open many takes long, and whoever is at it is not stuck
    auto reader = open_reader(tenancy);
    if (!reader) status = std::unexpected(reader.error());
    if (!reader || !*reader) continue;
    Assigned assigned{.reader = std::move(*reader), .tenancy = &tenancy};
    if (auto placed = place(assigned); !placed) {
      status = std::unexpected(placed.error());
      continue;
    }
    opened.push_back(tenancy.partition);
    assigned_.push_back(std::move(assigned));
  }
  assignment_changed();
  tell(listener_.assigned, opened);
  const auto unplaced = std::ranges::find_if(assigned_, &Assigned::unplaced);
  if (status && unplaced != assigned_.end())
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
  if (options_.auto_offset_reset != Reset::none) return go_to_reset(reader);
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
