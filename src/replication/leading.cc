#include "replication/leading.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/logger.h"
#include "shm/doorbell.h"

namespace ringtail::replication {

using log::LogPoint;
using std::memory_order_relaxed;

namespace {

constexpr std::size_t kChunkBytes = 256 << 10;
constexpr std::size_t kReadAheadBytes = 4 << 20;
constexpr std::size_t kRoundBytes = 4 << 20;  // that the head takes before it looks at anything else
constexpr std::size_t kFetchBytes = 1 << 20;  // for a follower that reads files, at a time
constexpr std::size_t kMostAhead = 8;         // of these, so that the disk does not wait for acknowledgements
constexpr std::size_t kMaxQueuedBytes = 512 << 10;  // of one connection, all partitions: what caches hold
// Within which a follower that asks makes itself ready: while it does, the ring of a memory topic is held for it.
constexpr std::int64_t kMostToBeginNs = 2'000'000'000;

}  // namespace

void Throttle::refill(std::int64_t now_ns) {
  constexpr double kBurstSeconds = 0.25;
  const double rate = static_cast<double>(rate_);
  tokens_ = std::min(tokens_ + rate * static_cast<double>(now_ns - refilled_ns_) / 1e9, rate * kBurstSeconds);
  refilled_ns_ = now_ns;
}

LeadingPartition::LeadingPartition(ShipContext& context, const log::RoleOutcome& outcome, LeaderEpoch epoch,
                                   bool synced, std::uint32_t min_insync)
    : context_(context),
      partition_(outcome.partition),
      epoch_(epoch),
      epochs_(outcome.epochs),
      progress_(context.self, min_insync, synced, outcome.end) {
  const shm::Partition& entry = partition_.entry();
  watermark_ = {Position(entry.high_watermark.load(memory_order_relaxed)),
                Offset(entry.high_watermark_offset.load(memory_order_relaxed))};
  progress_.raise_watermark(watermark_);
}

Result<std::unique_ptr<LeadingPartition>> LeadingPartition::open(ShipContext& context,
                                                                 const log::RoleOutcome& outcome,
                                                                 LeaderEpoch epoch, bool synced,
                                                                 std::uint32_t min_insync) {
  std::unique_ptr<LeadingPartition> leading(
      new LeadingPartition(context, outcome, epoch, synced, min_insync));
  auto head =
      log::PartitionReader::open_for_shipping(outcome.partition, context.slot, kReadAheadBytes, outcome.end);
  if (!head) return std::unexpected(head.error());
  leading->head_ = std::move(*head);
  leading->on_synced();
  return leading;
}

LeadingPartition::~LeadingPartition() {
  *alive_ = false;
  if (resting_) end_rest();
}

void LeadingPartition::confirm(std::set<NodeId> isr, std::size_t replicas) {
  shm::Partition& entry = partition_.entry();
  entry.replicas.store(static_cast<std::uint32_t>(replicas), memory_order_relaxed);
  entry.in_sync.store(static_cast<std::uint32_t>(isr.size()), memory_order_relaxed);
  progress_.confirm(std::move(isr));
  update_watermark();
}

void LeadingPartition::require(std::uint32_t min_insync, bool synced) {
  progress_.set_min_insync(min_insync);
  progress_.count_synced(synced);
  update_watermark();
}

LogPoint LeadingPartition::end() {
  const auto end = head_->claimed_end();
  return end ? *end : head_->place();
}

// Where the head has to wait, the log goes on.
void LeadingPartition::mark(std::int64_t now_ns) {
  for (auto& [node, stream] : streams_)
    if (!stream.streaming && !stream.fetching && asks_in_vain(node, now_ns)) stream.reader.reset();
  progress_.mark(held_up_ ? end() : head_->place(), now_ns);
}

void LeadingPartition::fail(Error error) {
  if (!failure_) logger().error("replication: {}", to_string(error));
  failure_ = std::move(error);
}

MessageHeader LeadingPartition::header(MessageType type) const {
  return {.type = type,
          .topic_id = partition_.topic_id,
          .partition = partition_.partition.value(),
          .leader_epoch = epoch_.value()};
}

void LeadingPartition::refuse(Link& link, const std::string& why) {
  link.send(header(MessageType::refuse), std::as_bytes(std::span(why)));
}

// --- A follower comes ----------------------------------------------------------------------------

// One that cannot follow, for its disk is full or its log has failed, asks again and again.
bool LeadingPartition::asks_in_vain(NodeId node, std::int64_t now_ns) const {
  const auto since = asking_since_ns_.find(node);
  return since != asking_since_ns_.end() && now_ns - since->second > kMostToBeginNs;
}

void LeadingPartition::on_follow(Link& link, const Message& message) {
  const NodeId node = link.peer();
  end_stream(node);
  progress_.on_stream_begin(node);  // also of one that is refused: he may have lost what he had
  auto theirs = decode_epochs(message.body);
  if (!theirs) return refuse(link, theirs.error().message);
  LogPoint from = log::common_end(epochs_, end(), *theirs, message.at());
  const bool nothing = from == LogPoint{} && message.at() != LogPoint{};
  // What it lacks may be gone here, too: then it begins where this log does.
  const bool gone = from.position.value() < partition_.entry().log_start_position.load(memory_order_relaxed);
  auto reader = log::PartitionReader::open_for_shipping(partition_, context_.slot, kReadAheadBytes,
                                                        nothing || gone ? std::nullopt : std::optional(from));
  if (!reader && reader.error().code == Code::offset_out_of_range && !nothing && !gone)
    reader = log::PartitionReader::open_for_shipping(partition_, context_.slot, kReadAheadBytes);
  if (!reader) return refuse(link, reader.error().message);
  const bool restart = (*reader)->place() != from || nothing;
  from = (*reader)->place();
  Stream& stream = streams_[node];
  stream = {.sent = from,
            .acked = from,
            .unchecked = (message.header.flags & kCheckAll) == 0,
            .reader = std::move(*reader)};
  const std::int64_t now_ns = monotonic_ns();
  asking_since_ns_.try_emplace(node, now_ns);
  if (asks_in_vain(node, now_ns)) stream.reader.reset();  // when it begins it has another, or begins anew
  MessageHeader start = header(MessageType::start);
  start.position = from.position.value();
  start.offset = from.offset.value();
  if (restart) start.flags |= kRestart;
  link.send(start, encode_epochs(epochs_));
}

void LeadingPartition::on_ack(NodeId node, const Message& message) {
  const auto found = streams_.find(node);
  if (found == streams_.end()) {
    // The stream ended while the follower made itself ready for it: it asks anew.
    if (Link* link = context_.network->link(node)) refuse(*link, "nothing is shipped to this node");
    return;
  }
  Stream& stream = found->second;
  // It cannot have what was not shipped to it.
  if (message.at() > stream.sent || message.mark() > message.at()) {
    if (Link* link = context_.network->link(node)) refuse(*link, "acknowledged what was never shipped");
    return end_stream(node);
  }
  stream.streaming = true;
  asking_since_ns_.erase(node);
  stream.acked = std::max(stream.acked, message.at());
  progress_.on_ack(node, message.at(), message.mark());
  update_watermark();
}

void LeadingPartition::end_stream(NodeId node) {
  streams_.erase(node);
  progress_.on_stream_end(node);
}

// --- Shipping ------------------------------------------------------------------------------------

bool LeadingPartition::may_send(NodeId node, const Stream& stream) const {
  const Link* link = context_.network->link(node);
  return link != nullptr && stream.streaming &&
         stream.sent.position - stream.acked.position < context_.window_bytes &&
         link->queued() < kMaxQueuedBytes;
}

// Who is in sync is not held back: acknowledgements wait for him.
bool LeadingPartition::may_fetch(NodeId node) const {
  return context_.throttle.open() || progress_.isr().contains(node);
}

MessageHeader LeadingPartition::frames_header(const Stream& stream) const {
  MessageHeader frames = header(MessageType::frames);
  frames.position = stream.sent.position.value();
  frames.offset = stream.sent.offset.value();
  frames.mark_position = watermark_.position.value();
  frames.mark_offset = watermark_.offset.value();
  return frames;
}

void LeadingPartition::send_unchecked(NodeId node, Stream& stream, io::FileBytes bytes, const LogPoint& end) {
  context_.bytes_shipped += bytes.size();
  shipped_ = true;
  context_.network->link(node)->send_unchecked(frames_header(stream), std::move(bytes));
  stream.sent = end;
  stream.told = true;
}

void LeadingPartition::send_frames(NodeId node, Stream& stream, std::span<const std::byte> bytes,
                                   const LogPoint& end, bool is_final) {
  Link* const link = context_.network->link(node);
  if (is_final)
    link->send_in_place(frames_header(stream), bytes);
  else
    link->send(frames_header(stream), bytes);
  context_.bytes_shipped += bytes.size();
  shipped_ |= !bytes.empty();
  stream.sent = end;
  stream.told = true;
}

bool LeadingPartition::pump() {
  if (resting_) end_rest();
  if (failure_) return false;
  bool progress = pump_head();
  for (auto& [node, stream] : streams_) {
    if (!stream.is_at(head_->place()))
      progress |= pump_behind(node, stream);
    else if (stream.streaming)
      stream.reader.reset();  // it has come to where the head is, or began there
  }
  tell_watermark();
  return std::exchange(shipped_, false) || progress;
}

// The head waits while all who are where it is have enough on their way, and one of them is in sync: the watermark
// waits for that one, too, and a reader of its own would cost it more. But the head never falls out of the ring by
// waiting, nor does a follower that takes what there is wait for another.
bool LeadingPartition::must_wait() const {
  bool in_sync = false;
  for (const auto& [node, stream] : streams_) {
    if (!stream.streaming || !stream.is_at(head_->place())) continue;
    if (may_send(node, stream)) return false;
    in_sync |= progress_.isr().contains(node);
  }
  return in_sync && head_->is_near_end();
}

// Otherwise it goes on: followers that cannot take it now have their own readers.
bool LeadingPartition::pump_head() {
  bool progress = false;
  held_up_ = false;
  for (std::size_t bytes = 0; bytes < kRoundBytes;) {
    held_up_ = must_wait();
    if (held_up_) break;
    auto frames = head_->poll_frames(kChunkBytes, false);
    // The ring of a topic with on.full=overwrite has gone on without it, and the head stands where the ring begins now.
    // Followers that lack what was overwritten are refused it, ask anew, and begin there, too.
    if (!frames && frames.error().code == Code::offset_out_of_range) {
      progress = true;
      break;
    }
    if (!frames) {
      fail(frames.error());
      return progress;
    }
    if (frames->bytes.empty() && frames->behind) {
      if (!step_over()) break;
      progress = true;
      continue;
    }
    if (frames->bytes.empty()) break;
    progress = true;
    bytes += frames->bytes.size();
    for (auto& [node, stream] : streams_) {
      if (!stream.is_at(frames->at) || !may_send(node, stream)) continue;
      stream.reader.reset();  // it would hold the ring of a memory topic where it stands
      send_frames(node, stream, frames->bytes, frames->end, frames->is_final);
    }
  }
  if (progress) on_synced();
  return progress;
}

// The head fell out of the ring, for this thread was kept away for a lap. What is synced is whole; followers have it
// read for them, on the thread that may wait for the disk.
bool LeadingPartition::step_over() {
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  if (!shm::load_mark(partition_.entry(), position, offset)) return false;
  const LogPoint synced{Position(position), Offset(offset)};
  if (synced <= head_->place()) return false;
  head_->skip_to(synced);
  return true;
}

bool LeadingPartition::pump_behind(NodeId node, Stream& stream) {
  bool progress = send_ahead(node, stream);
  // While something is fetched, the reader is another thread's, and stands at the end of that.
  while (!stream.fetching && stream.ahead.empty() && stream.sent < head_->place() && may_send(node, stream)) {
    if (!take_reader(node, stream)) return progress;
    auto frames = stream.reader->poll_frames(kChunkBytes, false);
    if (!frames) {
      if (Link* link = context_.network->link(node)) refuse(*link, frames.error().message);
      stream.streaming = false;
      return progress;
    }
    if (frames->behind) {
      if (!may_fetch(node)) return progress;
      begin_fetch(node, stream);
      return true;
    }
    if (frames->bytes.empty()) break;
    send_frames(node, stream, frames->bytes, frames->end, frames->is_final);
    progress = true;
  }
  // The head ships to it from here on.
  if (stream.sent == head_->place() && !stream.fetching) {
    stream.reader.reset();
    stream.ahead.clear();
  }
  return progress;
}

// A reader that stands where the follower's next piece begins.
bool LeadingPartition::take_reader(NodeId node, Stream& stream) {
  if (stream.reader && stream.reader->place() == stream.sent) return true;
  auto reader =
      log::PartitionReader::open_for_shipping(partition_, context_.slot, kReadAheadBytes, stream.sent);
  if (!reader) {
    if (Link* link = context_.network->link(node)) refuse(*link, reader.error().message);
    stream.streaming = false;  // it asks again
    return false;
  }
  stream.reader = std::move(*reader);
  return true;
}

// What was fetched, as far as the follower takes it; and has more fetched meanwhile.
bool LeadingPartition::send_ahead(NodeId node, Stream& stream) {
  bool progress = false;
  while (!stream.ahead.empty() && may_send(node, stream)) {
    Fetched piece = std::move(stream.ahead.front());
    stream.ahead.pop_front();
    if (!piece.unchecked.empty()) send_unchecked(node, stream, std::move(piece.unchecked), piece.end);
    if (!piece.bytes.empty()) send_frames(node, stream, piece.bytes, piece.end, true);
    progress = true;
    if (!piece.error) continue;
    tell_trouble(node, *piece.error);
    if (Link* link = context_.network->link(node)) refuse(*link, piece.error->message);
    stream.streaming = false;
    return true;
  }
  const bool more = !stream.ahead.empty() && !stream.ahead.back().error && stream.ahead.size() < kMostAhead;
  if (more && !stream.fetching && stream.streaming && may_fetch(node)) begin_fetch(node, stream);
  return progress;
}

// Once, however often the follower asks.
void LeadingPartition::tell_trouble(NodeId node, const Error& error) {
  if (std::exchange(trouble_, error.message) == error.message) return;
  logger().error("replication: {}-{}: cannot be shipped to node {}: {}", partition_.topic,
                 partition_.partition.value(), node.value(), to_string(error));
}

// On the thread that reads files: what the reader has next, `unchecked` if that can be.
void LeadingPartition::read_files(log::PartitionReader& reader, bool unchecked, Fetched& to) {
  to.end = reader.place();
  if (unchecked) {
    if (auto frames = reader.read_unchecked(kFetchBytes)) {
      to.unchecked = std::move(frames->bytes);
      to.end = frames->end;
      return;
    }
  }
  while (to.bytes.size() < kFetchBytes) {
    auto frames = reader.poll_frames(kChunkBytes, true);
    if (!frames) to.error = frames.error();
    if (!frames || frames->bytes.empty()) return;
    to.bytes.insert(to.bytes.end(), frames->bytes.begin(), frames->bytes.end());
    to.end = frames->end;
    if (unchecked) return;  // in the next segment it may be had again
  }
}

// Reads on another thread, which has the reader meanwhile, and goes on reading while what it has read is sent.
void LeadingPartition::begin_fetch(NodeId node, Stream& stream) {
  stream.fetching = true;
  const Link* const link = context_.network->link(node);
  const bool unchecked = stream.unchecked && link != nullptr && link->takes_unchecked();
  const std::size_t pieces = context_.throttle.is_set() ? 1 : kMostAhead - stream.ahead.size();
  context_.fetch(
      [this, alive = alive_, node, unchecked, pieces, reader = stream.reader, post = context_.post] {
        bool is_last = false;
        for (std::size_t n = 1; !is_last; ++n) {
          auto fetched = std::make_shared<Fetched>();
          read_files(*reader, unchecked, *fetched);
          is_last = n == pieces || fetched->size() == 0 || fetched->error;
          post([this, alive, node, reader, fetched, is_last] {
            if (*alive) on_fetched(node, reader, std::move(*fetched), is_last);
          });
        }
      });
}

void LeadingPartition::on_fetched(NodeId node, const std::shared_ptr<log::PartitionReader>& reader,
                                  Fetched fetched, bool is_last) {
  const auto found = streams_.find(node);
  if (found == streams_.end() || found->second.reader != reader) return;
  Stream& of = found->second;
  of.fetching = !is_last;
  if (context_.network->link(node) == nullptr) return end_stream(node);
  if (!progress_.isr().contains(node)) context_.throttle.take(fetched.size());
  if (fetched.size() == 0 && !fetched.error) return;
  of.ahead.push_back(std::move(fetched));
  send_ahead(node, of);
}

bool LeadingPartition::is_behind() const {
  return std::ranges::any_of(streams_, [](const auto& s) { return s.second.streaming && s.second.reader; });
}

bool LeadingPartition::arm_bell() {
  if (failure_) return false;
  // SYNC: a full barrier between raising the flag and the look; pairs with Appender::notify.
  const std::uint64_t hot = partition_.entry().hot.fetch_or(shm::kShipperWaits, std::memory_order_seq_cst);
  // A commit by a plain store is no barrier: its look at the flag may come before it is seen. So it is looked for again.
  const bool is_early =
      partition_.entry().exclusive.load(std::memory_order_relaxed) != 0 && (hot & shm::kShipperWaits) == 0;
  return pump() || is_early;
}

bool LeadingPartition::rest() {
  if (failure_) return false;
  // SYNC: pairs with Appender::wait_replicated: who waits there has been seen, or sees this.
  resting_ = true;
  const std::uint32_t flags =
      partition_.entry().replicated_waiters.fetch_or(shm::kShipperRests, std::memory_order_seq_cst);
  if ((flags & 1u) == 0) return true;
  end_rest();
  return false;
}

void LeadingPartition::end_rest() {
  resting_ = false;
  // SYNC: none needed: who rings in vain wakes somebody who is awake.
  partition_.entry().replicated_waiters.fetch_and(~shm::kShipperRests, memory_order_relaxed);
}

// --- The watermark -------------------------------------------------------------------------------

void LeadingPartition::on_synced() {
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  LogPoint synced;
  if (shm::load_mark(partition_.entry(), position, offset)) synced = {Position(position), Offset(offset)};
  progress_.on_ack(context_.self, head_->place(), std::min(synced, head_->place()));
  update_watermark();
}

void LeadingPartition::update_watermark() {
  const LogPoint now = progress_.watermark();
  if (now == watermark_) return;
  watermark_ = now;
  shm::set_high_watermark(partition_.entry(), now.position.value(), now.offset.value());
  for (auto& [node, stream] : streams_) stream.told = false;
}

void LeadingPartition::tell_watermark() {
  for (auto& [node, stream] : streams_) {
    if (stream.told || !stream.streaming) continue;
    if (context_.network->link(node) != nullptr) send_frames(node, stream, {}, stream.sent, true);
  }
}

}  // namespace ringtail::replication
