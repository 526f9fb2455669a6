#include "client/consumer_core.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <tuple>
#include <utility>

#include "base/bounded_time.h"
#include "base/clock.h"
#include "shm/light_fence.h"

namespace ringtail {

using log::PartitionReader;
using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::size_t kMaxPartitionsOfConsumer = shm::kMaxFutexWaiters - 2;  // two are for wakes
constexpr int kSpinsPerClock = 64;  // looks between two readings of the clock
// See ConsumerCore::hold_back.
constexpr std::uint32_t kDenseLooks = 8;  // for each record that they found
constexpr std::size_t kFewRecords = 128;
constexpr std::size_t kManyRecords = 400;
constexpr unsigned kMostPauses = 100;  // at most 2 to 5 microseconds, as long as this CPU's instruction takes
constexpr unsigned kPausesForOne = 2;
constexpr unsigned kPausesForRecord = 8;
constexpr unsigned kDistantPauses = 4;         // from here on it keeps its distance
constexpr std::int64_t kYieldNs = 10'000'000;  // then it sleeps for a moment
constexpr std::int64_t kInVainNs = 1'000'000;  // see ConsumerCore::sleep

}  // namespace

ConsumerCore::ConsumerCore(const Log& log, ConsumerOptions options, shm::OwnedSlot slot)
    : log_(log.core()), options_(std::move(options)), slot_(std::move(slot)) {
  records_.resize(options_.max_poll_records);
}

ConsumerCore::~ConsumerCore() {
  if (log_->is_mine()) {
    if (membership_ && options_.enable_auto_commit && !unwinds()) std::ignore = commit();
    return;
  }
  slot_.abandon();
  if (membership_) membership_->abandon();
  for (const Assigned& assigned : assigned_) assigned.reader->abandon();
}

// --- Assignment ----------------------------------------------------------------------------------

Status ConsumerCore::assign(std::string_view topic) {
  auto entry = log_->catalog().load_topic(topic);
  if (!entry) return std::unexpected(entry.error());
  std::vector<TopicPartition> partitions;
  for (std::uint32_t p = 0; p < entry->partitions; ++p) partitions.push_back({entry->name, PartitionId(p)});
  return assign(partitions);
}

Result<std::unique_ptr<PartitionReader>> ConsumerCore::open_reader(const TopicPartition& partition) const {
  auto topic = log_->catalog().load_topic(partition.topic);
  if (!topic) return std::unexpected(topic.error());
  auto ref = log_->find_partition(*topic, partition.partition);
  if (!ref) return std::unexpected(ref.error());
  return PartitionReader::open(*ref, slot_.index(), options_.read_ahead_bytes, options_.isolation_level);
}

Status ConsumerCore::assign(std::span<const TopicPartition> partitions) {
  if (auto mine = log_->check_mine(); !mine) return mine;
  if (auto outside = check_no_callback("assign"); !outside) return outside;
  if (subscribed_)
    return fail(Code::invalid_argument, "the group assigns this consumer's partitions; unsubscribe first");
  if (partitions.size() > kMaxPartitionsOfConsumer)
    return fail(Code::limit_exceeded,
                fmt::format("{} partitions asked for, a consumer reads at most {}; open several",
                            partitions.size(), kMaxPartitionsOfConsumer));
  // A set: whoever names a partition twice reads it once.
  std::vector<TopicPartition> wanted;
  for (const TopicPartition& partition : partitions)
    if (std::ranges::find(wanted, partition) == wanted.end()) wanted.push_back(partition);
  std::vector<Assigned> assigned(wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (const Assigned* mine = find_assigned(wanted[i]); mine && mine->reader->partition().is_current())
      continue;
    auto reader = open_reader(wanted[i]);
    if (!reader) return std::unexpected(reader.error());
    assigned[i].reader = std::move(*reader);
  }
  // Nothing can fail any more: those that stay move over, the others go.
  for (Assigned& old : assigned_) {
    const auto at =
        static_cast<std::size_t>(std::ranges::find(wanted, old.reader->source()) - wanted.begin());
    if (at < wanted.size() && !assigned[at].reader)
      assigned[at] = std::move(old);
    else
      missed_before_ += old.reader->missed();
  }
  assigned_ = std::move(assigned);
  assignment_changed();
  return {};
}

// Draws the conclusions from a change of assigned_.
void ConsumerCore::assignment_changed() {
  assignment_.clear();
  readers_.clear();
  assigned_of_.clear();
  for (std::size_t i = 0; i < assigned_.size(); ++i) {
    const Assigned& assigned = assigned_[i];
    assignment_.push_back(assigned.reader->source());
    if (assigned.paused || assigned.unplaced) continue;
    readers_.push_back(assigned.reader.get());
    assigned_of_.push_back(i);
  }
  promised_.assign(readers_.size(), std::nullopt);
  next_ = 0;
  many_moved_ = true;
}

ConsumerCore::Assigned* ConsumerCore::find_assigned(const TopicPartition& partition) {
  const auto found = std::ranges::find_if(
      assigned_, [&](const Assigned& assigned) { return assigned.reader->source() == partition; });
  return found == assigned_.end() ? nullptr : &*found;
}

Result<PartitionReader*> ConsumerCore::find(const TopicPartition& partition) const {
  if (auto mine = log_->check_mine(); !mine) return std::unexpected(mine.error());
  for (const Assigned& assigned : assigned_)
    if (assigned.reader->source() == partition) return assigned.reader.get();
  return fail(Code::not_found, fmt::format("topic '{}' partition {} is not assigned to this consumer",
                                           partition.topic, partition.partition.value()));
}

Status ConsumerCore::set_paused(std::span<const TopicPartition> partitions, bool paused) {
  for (const TopicPartition& partition : partitions)
    if (auto known = find(partition); !known) return std::unexpected(known.error());
  for (const TopicPartition& partition : partitions) find_assigned(partition)->paused = paused;
  assignment_changed();
  return {};
}

std::vector<TopicPartition> ConsumerCore::paused() const {
  std::vector<TopicPartition> partitions;
  for (const Assigned& assigned : assigned_)
    if (assigned.paused) partitions.push_back(assigned.reader->source());
  return partitions;
}

// --- Positions -----------------------------------------------------------------------------------

// `how` moves the partition's reader.
template <class How>
Status ConsumerCore::reposition(const TopicPartition& partition, const How& how) {
  auto reader = find(partition);
  if (!reader) return std::unexpected(reader.error());
  many_moved_ = true;
  Status sought = how(**reader);
  if (sought && std::exchange(find_assigned(partition)->unplaced, false)) assignment_changed();
  return sought;
}

Status ConsumerCore::seek(const TopicPartition& partition, Offset offset) {
  return reposition(partition, [&](PartitionReader& reader) {
    auto sought = reader.seek(offset);
    if (!sought && sought.error().code == Code::offset_out_of_range &&
        options_.auto_offset_reset != ConsumerOptions::Reset::none)
      sought = go_to_reset(reader);
    return sought;
  });
}

Status ConsumerCore::seek_to_beginning(const TopicPartition& partition) {
  return reposition(partition, [](PartitionReader& reader) { return reader.seek_to_start(); });
}

Status ConsumerCore::seek_to_end(const TopicPartition& partition) {
  return reposition(partition, [](PartitionReader& reader) { return reader.seek_to_end(); });
}

Status ConsumerCore::seek_to_time(const TopicPartition& partition, std::int64_t timestamp_ns) {
  return reposition(partition, [&](PartitionReader& reader) { return reader.seek_to_time(timestamp_ns); });
}

// The position is outside the log: go on where auto.offset.reset says.
Status ConsumerCore::reset(PartitionReader& reader) {
  const Offset was = reader.offset();
  many_moved_ = true;
  auto gone = go_to_reset(reader);
  if (gone && reader.offset() > was) reader.count_missed(reader.offset() - was);
  return gone;
}

Status ConsumerCore::go_to_reset(PartitionReader& reader) {
  using Reset = ConsumerOptions::Reset;
  if (options_.auto_offset_reset == Reset::time)
    return reader.seek_to_time(options_.auto_offset_reset_time_ns);
  return options_.auto_offset_reset == Reset::latest ? reader.seek_to_end() : reader.seek_to_start();
}

// --- Poll ----------------------------------------------------------------------------------------

// Looks at each partition once, from the one whose turn it is, until one has records. Returns how many.
Result<std::size_t> ConsumerCore::look() {
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    if (next_ >= readers_.size()) next_ = 0;
    PartitionReader& reader = *readers_[next_++];
    const Offset before = reader.offset();
    auto polled = reader.poll(records_, pauses_ >= kDistantPauses);
    if (!polled) [[unlikely]] {
      if (auto mended = mend(reader, polled.error()); !mended) return std::unexpected(mended.error());
      return 0;
    }
    if (membership_ && reader.offset() != before) note_moved(next_ - 1);  // records, or what it passed over
    if (*polled > 0) return polled;
  }
  return 0;
}

// After a failed poll: what can be done about it.
Status ConsumerCore::mend(PartitionReader& reader, const Error& error) {
  if (error.code == Code::offset_out_of_range && options_.auto_offset_reset != ConsumerOptions::Reset::none)
    return reset(reader);
  if (error.code == Code::closed && membership_) {
    // The topic was deleted: for a group, one of several. The coordinator takes the partition back.
    drop({reader.source()});
    return {};
  }
  return std::unexpected(error);
}

bool ConsumerCore::take_wake() {
  const std::uint32_t wakes = wake_.load(memory_order_relaxed);
  if (wakes == wake_seen_) [[likely]]
    return false;
  wake_seen_ = wakes;
  return true;
}

// A consumer that keeps up with a dense stream looks at each line just when its producer writes there;
// they take the line from each other for every record, and both run at the pace of its travels. So when
// records come few at a time and after few looks, it rests a little before it looks, and finds several
// (in network drivers: interrupt moderation), and it keeps its distance from the line that is written. A record
// that comes after a longer wait, as an answer to a question does, finds it looking.
void ConsumerCore::hold_back() {
  for (unsigned i = 0; i < pauses_; ++i) __builtin_ia32_pause();
}

void ConsumerCore::adapt(std::size_t records) {
  const bool is_full = records == records_.size();  // more are there already
  if (empty_looks_ > kDenseLooks * records)
    pauses_ = 0;
  else if (records > kManyRecords || is_full)
    pauses_ -= pauses_ > 0 ? 1 : 0;
  else if (records < kFewRecords && pauses_ < kMostPauses)
    ++pauses_;
  // A longer rest has to bring more records: one that comes alone may be the answer to a question, which comes while
  // this one rests, and would look as if it had been there at once.
  const std::size_t most = records == 1 ? kPausesForOne : kPausesForRecord * records;
  pauses_ = static_cast<unsigned>(std::min<std::size_t>(pauses_, most));
  empty_looks_ = 0;
}

Result<std::span<const Record>> ConsumerCore::poll(std::chrono::nanoseconds timeout) {
  if (!log_->is_mine()) [[unlikely]]
    return std::unexpected(log_->check_mine().error());
  if (membership_) {
    membership_->beat();
    if (must_handle()) [[unlikely]]
      if (auto handled = handle_news(); !handled) return std::unexpected(handled.error());
  }
  std::int64_t deadline_ns = 0;
  sure_from_ns_ = 0;
  const bool sleeps = options_.wait == WaitStrategy::futex;
  hold_back();
  for (std::uint32_t looks = 0;; ++looks) {
    auto found = look();
    if (!found) [[unlikely]]
      return std::unexpected(found.error());
    if (*found > 0) {
      if (sleeps && looks > 0) linger_.end(monotonic_ns(), true);
      adapt(*found);
      return std::span<const Record>(records_.data(), *found);
    }
    ++empty_looks_;
    if (take_wake() || timeout.count() <= 0) {
      linger_.end(0, false);
      return std::span<const Record>();
    }
    // Without a pause instruction: on current processors it takes as long as a record takes to come.
    if (options_.wait == WaitStrategy::busy_spin && looks % kSpinsPerClock != 0) continue;
    const std::int64_t now = monotonic_ns();
    if (deadline_ns == 0) deadline_ns = now + bounded_time(timeout).count();
    if (now >= deadline_ns) {
      linger_.end(now, false);
      return std::span<const Record>();
    }
    if (options_.wait == WaitStrategy::yield) yield(now);
    if (sleeps && !linger_.goes_on(now)) sleep(deadline_ns);
    if (membership_) {
      membership_->beat();
      if (must_handle())
        if (auto handled = handle_news(); !handled) return std::unexpected(handled.error());
    }
  }
}

// Lets others have the CPU. There are schedulers under which some of them never get it from one that only yields: with
// Linux 6.18 the kernel's own thread that completes direct writes, for a minute and more, so that nothing came to disk
// (docs/performance.md, "Yielding"). Who sleeps for as short as can be, now and then, leaves it to all.
void ConsumerCore::yield(std::int64_t now_ns) {
  if (now_ns - slept_ns_ < kYieldNs) {
    ::sched_yield();
    return;
  }
  std::this_thread::sleep_for(std::chrono::nanoseconds(1));
  slept_ns_ = monotonic_ns();
}

// Sleeps until a producer commits to one of the partitions, wake(), a change in the group, or the deadline. A reader
// that has data keeps it from that, but if it had some where it stands before the last look: where words of a ring were
// written over, that may be so for ever. Then this looks again after a while; and so it does where a producer stands
// still between taking the flag of those who sleep and waking them (of one that has died the keeper knows).
void ConsumerCore::sleep(std::int64_t deadline_ns) {
  waiters_.clear();
  waiters_.push_back({&wake_, wake_seen_});
  deadline_ns = std::min(deadline_ns, monotonic_ns() + slice_ns());
  if (membership_) {
    if (look_again_ns_ == 0)
      waiters_.push_back({&membership_->attention(), membership_->attention_seen()});
    else
      deadline_ns = std::min(deadline_ns, look_again_ns_);
    if (unopened_) deadline_ns = std::min(deadline_ns, open_again_ns_);
  }
  for (const log::PartitionReader* reader : readers_) {
    shm::Partition& entry = reader->partition().entry();
    waiters_.push_back(
        {&entry.data_seq, entry.data_seq.load(memory_order_acquire)});  // SYNC: pairs with the bump
    // SYNC: a full barrier between raising the flag and the last look; pairs with Appender::notify.
    const std::uint64_t hot = entry.hot.fetch_or(shm::kDataWaiter, std::memory_order_seq_cst);
    // A commit by a plain store is no barrier: its look at the flag may come before it is seen. So this one looks again
    // when both are.
    if (entry.exclusive.load(memory_order_relaxed) == 0) continue;
    const std::int64_t now = monotonic_ns();
    if (sure_from_ns_ == 0 || (hot & shm::kDataWaiter) == 0) sure_from_ns_ = now + shm::kVisibleNs;
    if (now < sure_from_ns_) deadline_ns = std::min(deadline_ns, sure_from_ns_);
  }
  bool in_vain = false;
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    if (!readers_[i]->has_data()) continue;
    const log::LogPoint place = readers_[i]->place();
    if (std::exchange(promised_[i], place) != place) return;
    in_vain = true;
  }
  if (in_vain) deadline_ns = std::min(deadline_ns, monotonic_ns() + kInVainNs);
  shm::futex_wait_any(waiters_, deadline_ns);
}

std::uint64_t ConsumerCore::missed() const {
  std::uint64_t sum = missed_before_;
  for (const Assigned& assigned : assigned_) sum += assigned.reader->missed();
  return sum;
}

}  // namespace ringtail
