#include "replication/following.h"

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"
#include "format/frame.h"

namespace ringtail::replication {

using log::LogPoint;

namespace {

constexpr std::chrono::milliseconds kShortestWait{50};
constexpr std::chrono::milliseconds kLongestWait{5'000};
constexpr std::int64_t kQuietNs = 60'000'000'000;  // behind a line of what may go on and on

// Frames one behind the other, each with its checksum.
bool are_whole(std::span<const std::byte> bytes, Offset first) {
  std::uint64_t offset = first.value();
  while (!bytes.empty()) {
    if (format::check_frame(bytes, static_cast<std::int64_t>(offset)) != format::FrameFault::none)
      return false;
    const format::FrameHeader header = format::load_header(bytes.data());
    offset += format::frame_records(header);
    const std::uint64_t extent = format::align_frame(static_cast<std::uint32_t>(header.length));
    if (extent > bytes.size()) return false;
    bytes = bytes.subspan(extent);
  }
  return true;
}

}  // namespace

FollowingPartition::FollowingPartition(ShipContext& context, const log::RoleOutcome& outcome, NodeId leader,
                                       LeaderEpoch epoch, TakeRole take_role)
    : context_(context),
      partition_(outcome.partition),
      leader_(leader),
      epoch_(epoch),
      take_role_(std::move(take_role)),
      end_(outcome.end),
      epochs_(outcome.epochs) {}

FollowingPartition::~FollowingPartition() { *alive_ = false; }

MessageHeader FollowingPartition::header(MessageType type) const {
  return {.type = type,
          .topic_id = partition_.topic_id,
          .partition = partition_.partition.value(),
          .leader_epoch = epoch_.value(),
          .position = end_.position.value(),
          .offset = end_.offset.value()};
}

void FollowingPartition::ask() {
  if (state_ != State::idle || monotonic_ns() < ask_at_ns_) return;
  Link* const link = context_.network->link(leader_);
  if (link == nullptr) return;
  state_ = State::asked;
  MessageHeader follow = header(MessageType::follow);
  if (check_all_) follow.flags |= kCheckAll;
  link->send(follow, encode_epochs(epochs_));
}

void FollowingPartition::on_link_down() {
  if (state_ == State::starting) {  // its outcome comes first
    lost_ = true;
    return;
  }
  state_ = State::idle;
  pending_.clear();
}

void FollowingPartition::on_refuse(const Message& message) {
  const std::string_view why(reinterpret_cast<const char*>(message.body.data()), message.body.size());
  logger().debug("replication: {}-{}: node {} refuses: {}", partition_.topic, partition_.partition.value(),
                 leader_.value(), why);
  if (state_ == State::streaming) back_off();
  on_link_down();
  if ((message.header.flags & kAskAgain) != 0) {
    ask_at_ns_ = 0;
    ask();
  }
}

// What ended the stream, here or at the leader's, will do so again: each time that it got no further the follower waits
// twice as long.
void FollowingPartition::back_off() {
  wait_ = end_ == stopped_at_ ? std::clamp(2 * wait_, kShortestWait, kLongestWait) : kShortestWait;
  stopped_at_ = end_;
  ask_at_ns_ = monotonic_ns() + std::chrono::nanoseconds(wait_).count();
}

void FollowingPartition::on_start(const Message& message) {
  if (state_ != State::asked) return;
  auto epochs = decode_epochs(message.body);
  const bool restart = (message.header.flags & kRestart) != 0;
  const bool possible = message.at().position.value() % format::kFrameAlignment == 0;
  if (!epochs || !possible || (!restart && message.at() > end_))
    return restart_stream("a start that cannot be");
  follow_from(message.at(), restart, std::move(*epochs));
}

void FollowingPartition::follow_from(const LogPoint& cut, bool restart, log::EpochList epochs) {
  state_ = State::starting;
  lost_ = false;
  take_role_({.role = shm::ReplicaRole::follower,
              .epoch = epoch_,
              .leader_node = leader_.value(),
              .epochs = std::move(epochs),
              .cut = cut,
              .restart = restart,
              .done = [this, alive = alive_](Result<log::RoleOutcome> outcome) {
                if (!*alive) return;
                state_ = State::idle;
                if (!outcome) return back_off();
                writer_ = outcome->writer;
                end_ = outcome->end;
                epochs_ = outcome->epochs;
                if (lost_ || context_.network->link(leader_) == nullptr) return ask();
                state_ = State::streaming;
                send_ack();
              }});
}

void FollowingPartition::on_frames(const Message& message) {
  if (state_ != State::streaming) return;
  context_.bytes_received += message.body.size();
  const LogPoint expected =
      pending_.empty()
          ? end_
          : LogPoint{pending_.back().at.position + pending_.back().bytes.size(), message.at().offset};
  if (message.at().position != expected.position) return restart_stream("frames for another place");
  watermark_ = std::max(watermark_, message.mark());
  if ((message.header.flags & kUnchecked) != 0 && !are_whole(message.body, message.at().offset)) {
    check_all_ = true;  // the leader finds out whether its file is damaged
    return restart_stream("frames that are damaged");
  }
  if (!message.body.empty()) {
    if (pending_.empty()) {
      if (!append(message.at(), message.body)) return;
    } else {
      pending_.push_back({message.at(), {message.body.begin(), message.body.end()}});
    }
    send_ack();
  }
  raise_watermark();
}

// Appends, and keeps what there is no room for. False: the stream has ended.
bool FollowingPartition::append(const LogPoint& at, std::span<const std::byte> bytes) {
  auto taken = writer_->append(epoch_, at.position, bytes);
  if (!taken) {
    restart_stream(taken.error().message);
    return false;
  }
  end_ = writer_->end();
  if (*taken < bytes.size()) {
    const auto rest = bytes.subspan(*taken);
    pending_.push_front({end_, {rest.begin(), rest.end()}});
  }
  return true;
}

void FollowingPartition::drain_pending() {
  const LogPoint before = end_;
  while (!pending_.empty()) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    const std::size_t waiting = pending_.size();
    if (!append(next.at, next.bytes)) return;
    if (pending_.size() > waiting) break;  // the ring is full again
  }
  if (end_ != before) raise_watermark();
}

void FollowingPartition::on_progress() {
  if (state_ != State::streaming) return;
  drain_pending();
  if (state_ == State::streaming) send_ack();
}

void FollowingPartition::raise_watermark() {
  const LogPoint to = std::min(watermark_, end_);
  shm::Partition& entry = partition_.entry();
  if (to.position.value() > entry.high_watermark.load(std::memory_order_relaxed))
    shm::set_high_watermark(entry, to.position.value(), to.offset.value());
}

void FollowingPartition::send_ack() {
  Link* const link = context_.network->link(leader_);
  if (link == nullptr) return;
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  LogPoint synced;
  if (shm::load_mark(partition_.entry(), position, offset)) synced = {Position(position), Offset(offset)};
  MessageHeader ack = header(MessageType::ack);
  synced = std::min(synced, end_);
  ack.mark_position = synced.position.value();
  ack.mark_offset = synced.offset.value();
  link->send(ack, {});
}

void FollowingPartition::restart_stream(const std::string& why) {
  // Some of what was refused may have been appended. One that was fenced meanwhile tells of no end.
  if (writer_) end_ = std::max(end_, writer_->end());
  tell_restart(why);
  if (Link* link = context_.network->link(leader_)) link->send(header(MessageType::refuse), {});
  state_ = State::idle;
  pending_.clear();
  back_off();
}

void FollowingPartition::tell_restart(const std::string& why) {
  const std::int64_t now_ns = monotonic_ns();
  const bool goes_on = now_ns < quiet_until_ns_;
  if (!goes_on) quiet_until_ns_ = now_ns + kQuietNs;
  logger().log(goes_on ? spdlog::level::debug : spdlog::level::warn,
               "replication: {}-{}: begins anew with node {}: {}", partition_.topic,
               partition_.partition.value(), leader_.value(), why);
}

}  // namespace ringtail::replication
