#include "ringtail/consumer.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <atomic>

#include "base/clock.h"
#include "client/log_core.h"
#include "log/partition_reader.h"
#include "shm/futex.h"
#include "shm/slots.h"

namespace ringtail {

using log::PartitionReader;
using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::size_t kMaxPartitionsOfConsumer = shm::kMaxFutexWaiters - 1;  // one is for wake()
constexpr std::size_t kMaxPollRecords = 65536;
constexpr int kSpinsPerClock = 64;  // looks between two readings of the clock
// See ConsumerCore::hold_back.
constexpr std::uint32_t kDenseLooks = 8;
constexpr std::size_t kFewRecords = 16;
constexpr std::size_t kManyRecords = 64;
constexpr unsigned kMostPauses = 8;  // at most about half a microsecond

}  // namespace

// What stands behind Consumer. Thread safety: one thread at a time, but for wake.
class ConsumerCore {
 public:
  ConsumerCore(const Log& log, ConsumerOptions options, shm::OwnedSlot slot)
      : log_(log.core()), options_(options), slot_(std::move(slot)) {
    records_.resize(options_.max_poll_records);
  }
  ~ConsumerCore() {
    if (log_->is_mine()) return;
    slot_.abandon();
    for (const auto& reader : readers_) reader->abandon();
  }

  Status assign(std::span<const TopicPartition> partitions);
  Status assign(std::string_view topic);
  const std::vector<TopicPartition>& assignment() const { return assignment_; }

  Result<PartitionReader*> find(const TopicPartition& partition) const;
  Status seek(const TopicPartition& partition, Offset offset);
  Result<std::span<const Record>> poll(std::chrono::nanoseconds timeout);
  void wake() {
    wake_.fetch_add(1, std::memory_order_seq_cst);  // SYNC: pairs with the load before the last look in sleep
    shm::futex_wake_all(wake_);
  }
  std::uint64_t missed() const;
  const ConsumerOptions& options() const { return options_; }

 private:
  Result<std::size_t> look();
  Status reset(PartitionReader& reader);
  void sleep(std::int64_t deadline_ns);
  bool take_wake();
  void hold_back();
  void adapt(std::size_t records);

  std::shared_ptr<LogCore> log_;
  ConsumerOptions options_;
  shm::OwnedSlot slot_;
  std::vector<TopicPartition> assignment_;
  std::vector<std::unique_ptr<PartitionReader>> readers_;  // as assignment_
  std::size_t next_ = 0;                                   // whose turn it is
  std::vector<Record> records_;
  std::atomic<std::uint32_t> wake_{0};
  std::uint32_t wake_seen_ = 0;
  std::uint64_t missed_before_ = 0;  // by partitions no longer assigned
  std::vector<shm::FutexWaiter> waiters_;
  std::uint32_t empty_looks_ = 0;  // since there were records
  unsigned pauses_ = 0;            // before the first look of a poll
};

Status ConsumerCore::assign(std::string_view topic) {
  auto entry = log_->catalog().load_topic(topic);
  if (!entry) return std::unexpected(entry.error());
  std::vector<TopicPartition> partitions;
  for (std::uint32_t p = 0; p < entry->partitions; ++p) partitions.push_back({entry->name, PartitionId(p)});
  return assign(partitions);
}

Status ConsumerCore::assign(std::span<const TopicPartition> partitions) {
  if (auto mine = log_->check_mine(); !mine) return mine;
  if (partitions.size() > kMaxPartitionsOfConsumer)
    return fail(Code::limit_exceeded,
                fmt::format("{} partitions asked for, a consumer reads at most {}; open several",
                            partitions.size(), kMaxPartitionsOfConsumer));
  // A set: whoever names a partition twice reads it once.
  std::vector<TopicPartition> wanted;
  for (const TopicPartition& partition : partitions)
    if (std::find(wanted.begin(), wanted.end(), partition) == wanted.end()) wanted.push_back(partition);
  std::vector<std::unique_ptr<PartitionReader>> readers(wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (auto mine = find(wanted[i]); mine && (*mine)->partition().is_current()) continue;
    auto topic = log_->catalog().load_topic(wanted[i].topic);
    if (!topic) return std::unexpected(topic.error());
    auto ref = log_->find_partition(*topic, wanted[i].partition);
    if (!ref) return std::unexpected(ref.error());
    auto reader = PartitionReader::open(*ref, slot_.index(), options_.read_ahead_bytes);
    if (!reader) return std::unexpected(reader.error());
    readers[i] = std::move(*reader);
  }
  // Nothing can fail any more: those that stay move over, the others go.
  for (std::unique_ptr<PartitionReader>& reader : readers_) {
    const auto at =
        static_cast<std::size_t>(std::find(wanted.begin(), wanted.end(), reader->source()) - wanted.begin());
    if (at < wanted.size() && !readers[at])
      readers[at] = std::move(reader);
    else
      missed_before_ += reader->missed();
  }
  readers_ = std::move(readers);
  assignment_ = std::move(wanted);
  next_ = 0;
  return {};
}

Result<PartitionReader*> ConsumerCore::find(const TopicPartition& partition) const {
  if (auto mine = log_->check_mine(); !mine) return std::unexpected(mine.error());
  for (const auto& reader : readers_)
    if (reader->source() == partition) return reader.get();
  return fail(Code::not_found, fmt::format("topic '{}' partition {} is not assigned to this consumer",
                                           partition.topic, partition.partition.value()));
}

Status ConsumerCore::seek(const TopicPartition& partition, Offset offset) {
  auto reader = find(partition);
  if (!reader) return std::unexpected(reader.error());
  auto sought = (*reader)->seek(offset);
  if (sought || sought.error().code != Code::offset_out_of_range) return sought;
  return options_.auto_offset_reset == ConsumerOptions::Reset::none ? sought : reset(**reader);
}

// The position is outside the log: go on where auto.offset.reset says.
Status ConsumerCore::reset(PartitionReader& reader) {
  const Offset was = reader.offset();
  for (;;) {
    Offset to = reader.log_start();
    if (options_.auto_offset_reset == ConsumerOptions::Reset::latest) {
      auto end = reader.log_end();
      if (!end) return std::unexpected(end.error());
      to = end->offset;
    }
    auto sought = reader.seek(to);
    if (!sought && sought.error().code == Code::offset_out_of_range) continue;  // the start has moved on
    if (sought && to > was) reader.count_missed(to - was);
    return sought;
  }
}

// --- Poll ----------------------------------------------------------------------------------------

// Looks at each partition once, from the one whose turn it is, until one has records. Returns how many.
Result<std::size_t> ConsumerCore::look() {
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    if (next_ >= readers_.size()) next_ = 0;
    PartitionReader& reader = *readers_[next_++];
    auto polled = reader.poll(records_);
    if (!polled) [[unlikely]] {
      if (polled.error().code != Code::offset_out_of_range ||
          options_.auto_offset_reset == ConsumerOptions::Reset::none)
        return polled;
      if (auto restarted = reset(reader); !restarted) return std::unexpected(restarted.error());
      continue;
    }
    if (*polled > 0) return polled;
  }
  return 0;
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
// (in network drivers: interrupt moderation). A record that comes after a longer wait, as an answer to a
// question does, finds it looking.
void ConsumerCore::hold_back() {
  for (unsigned i = 0; i < pauses_; ++i) __builtin_ia32_pause();
}

void ConsumerCore::adapt(std::size_t records) {
  if (empty_looks_ > kDenseLooks)
    pauses_ = 0;
  else if (records < kFewRecords && pauses_ < kMostPauses)
    ++pauses_;
  else if (records > kManyRecords && pauses_ > 0)
    --pauses_;
  empty_looks_ = 0;
}

Result<std::span<const Record>> ConsumerCore::poll(std::chrono::nanoseconds timeout) {
  if (!log_->is_mine()) [[unlikely]]
    return std::unexpected(log_->check_mine().error());
  std::int64_t deadline_ns = 0;
  hold_back();
  for (int looks = 0;; ++looks) {
    auto found = look();
    if (!found) [[unlikely]]
      return std::unexpected(found.error());
    if (*found > 0) {
      adapt(*found);
      return std::span<const Record>(records_.data(), *found);
    }
    ++empty_looks_;
    if (take_wake() || timeout.count() <= 0) return std::span<const Record>();
    // Without a pause instruction: on current processors it takes as long as a record takes to come.
    if (options_.wait == WaitStrategy::busy_spin && looks % kSpinsPerClock != 0) continue;
    const std::int64_t now = monotonic_ns();
    if (deadline_ns == 0)
      deadline_ns =
          timeout > std::chrono::hours(24 * 365) ? now + 31'536'000'000'000'000 : now + timeout.count();
    if (now >= deadline_ns) return std::span<const Record>();
    if (options_.wait == WaitStrategy::yield) ::sched_yield();
    if (options_.wait == WaitStrategy::futex) sleep(deadline_ns);
  }
}

// Sleeps until a producer commits to one of the partitions, wake(), or the deadline.
void ConsumerCore::sleep(std::int64_t deadline_ns) {
  waiters_.clear();
  waiters_.push_back({&wake_, wake_seen_});
  for (const auto& reader : readers_) {
    shm::Partition& entry = reader->partition().entry();
    waiters_.push_back(
        {&entry.data_seq, entry.data_seq.load(memory_order_acquire)});  // SYNC: pairs with the bump
    // SYNC: a full barrier between raising the flag and the last look; pairs with Appender::notify.
    entry.hot.fetch_or(shm::kDataWaiter, std::memory_order_seq_cst);
  }
  for (const auto& reader : readers_)
    if (reader->has_data()) return;
  shm::futex_wait_any(waiters_, deadline_ns);
}

std::uint64_t ConsumerCore::missed() const {
  std::uint64_t sum = missed_before_;
  for (const auto& reader : readers_) sum += reader->missed();
  return sum;
}

// --- Consumer ------------------------------------------------------------------------------------

Consumer::Consumer(std::unique_ptr<ConsumerCore> core) : core_(std::move(core)) {}
Consumer::Consumer(Consumer&&) noexcept = default;
Consumer& Consumer::operator=(Consumer&&) noexcept = default;
Consumer::~Consumer() = default;

Result<Consumer> Consumer::open(const Log& log, ConsumerOptions options) {
  if (auto mine = log.core()->check_mine(); !mine) return std::unexpected(mine.error());
  if (options.max_poll_records == 0 || options.max_poll_records > kMaxPollRecords)
    return fail(Code::invalid_argument, fmt::format("max_poll_records is {}, it must be 1 to {}",
                                                    options.max_poll_records, kMaxPollRecords));
  auto slot = shm::OwnedSlot::acquire(log.core()->control(), log.core()->locks(), shm::SlotRole::consumer);
  if (!slot) return std::unexpected(slot.error());
  return Consumer(std::make_unique<ConsumerCore>(log, options, std::move(*slot)));
}

Status Consumer::assign(std::span<const TopicPartition> partitions) { return core_->assign(partitions); }
Status Consumer::assign(std::string_view topic) { return core_->assign(topic); }
const std::vector<TopicPartition>& Consumer::assignment() const { return core_->assignment(); }

Status Consumer::seek(const TopicPartition& partition, Offset offset) {
  return core_->seek(partition, offset);
}

Status Consumer::seek_to_beginning(const TopicPartition& partition) {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  return core_->seek(partition, (*reader)->log_start());
}

Status Consumer::seek_to_end(const TopicPartition& partition) {
  auto end = end_offset(partition);
  if (!end) return std::unexpected(end.error());
  return core_->seek(partition, *end);
}

Status Consumer::seek_to_time(const TopicPartition& partition, std::int64_t timestamp_ns) {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  return (*reader)->seek_to_time(timestamp_ns);
}

Result<Offset> Consumer::position(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  return (*reader)->offset();
}

Result<std::span<const Record>> Consumer::poll(std::chrono::nanoseconds timeout) {
  return core_->poll(timeout);
}
void Consumer::wake() { core_->wake(); }

Result<Lag> Consumer::lag(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  Lag lag;
  if (end->offset > (*reader)->offset()) {
    lag.records = end->offset - (*reader)->offset();
    lag.bytes = end->position - (*reader)->position();
    if (auto oldest = (*reader)->next_timestamp())
      lag.time = std::chrono::nanoseconds(std::max<std::int64_t>(0, wall_clock_ns() - *oldest));
  }
  return lag;
}

Result<Offset> Consumer::end_offset(const TopicPartition& partition) const {
  auto reader = core_->find(partition);
  if (!reader) return std::unexpected(reader.error());
  auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  return end->offset;
}

std::uint64_t Consumer::missed() const { return core_->missed(); }

}  // namespace ringtail
