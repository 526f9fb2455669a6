#include "soak/actors.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

namespace ringtail::soak {
namespace {

using crash::give_up;
using std::chrono::milliseconds;

constexpr std::uint64_t kDurableEvery = 256;
constexpr std::uint64_t kFirstId = 7'000;  // of numbering producers

TopicConfigs configs() {
  return {{"term.bytes", "256KiB"},     {"ring.terms", "4"},          {"segment.bytes", "4MiB"},
          {"retention.bytes", "64MiB"}, {"claim.timeout.ms", "2000"}, {"flush.ms", "5"}};
}

PartitionId partition_of(std::uint32_t producer) { return PartitionId(producer % kPartitions); }

// Nothing was appended, and the same may be tried again.
bool is_passing(SendError error) {
  return error == SendError::would_block || error == SendError::claim_expired ||
         error == SendError::held_exclusively;
}

// Every so often a plain producer writes its record in place, and takes its time: to die within a claim.
SendResult<RecordMetadata> send_one(Producer& producer, const ProducerRecord& record, bool numbers,
                                    std::uint64_t number) {
  constexpr useconds_t kRestUs = 2'000;
  if (numbers || number % 16 != 3) return producer.send(record);
  auto claim = producer.try_claim(record.value.size(), {}, record.partition);
  if (!claim) return std::unexpected(claim.error());
  std::memcpy(claim->value().data(), record.value.data(), record.value.size());
  ::usleep(kRestUs);
  return claim->commit();
}

// Before something is tried again. Who waits for the topic may do so to the end.
void rest_between(const std::atomic<bool>& enough, ProducerPage& page) {
  if (enough.load()) page.done.store(true);
  std::this_thread::sleep_for(milliseconds(1));
}

// Sends on until it is killed. `first`: the number to begin with.
int send_on(Producer& producer, std::uint32_t id, std::uint64_t first, bool numbers, const Pace& pace,
            const std::atomic<bool>& enough, ProducerPage& page) {
  for (std::uint64_t number = first;; ++number) {
    while (enough.load()) {
      page.done.store(true);
      std::this_thread::sleep_for(milliseconds(5));
    }
    const Value value(id, number);
    ProducerRecord record{.value = value, .partition = partition_of(id)};
    if (numbers) record.sequence = number;
    page.attempted.store(number + 1);
    SendResult<RecordMetadata> sent = send_one(producer, record, numbers, number);
    while (!sent && is_passing(sent.error())) {
      rest_between(enough, page);
      sent = send_one(producer, record, numbers, number);
    }
    if (!sent) return give_up(page.error, to_string(producer.error()));
    page.returned.store(number + 1);
    if (number % kDurableEvery == 0) {
      if (auto durable = producer.wait_durable(*sent); !durable)
        return give_up(page.error, to_string(producer.error()));
      page.durable.store(number + 1);
    }
    if (number % pace.burst == 0) std::this_thread::sleep_for(std::chrono::microseconds(pace.rest_us));
  }
}

}  // namespace

// --- What was read -------------------------------------------------------------------------------

void ReaderPage::clear() {
  for (auto& offset : next_offset) offset.store(0);
  for (auto& number : next) number.store(0);
  for (auto& number : first) number.store(0);
  records.store(0);
  gap_count.store(0);
}

namespace {

Lacks lacks_of(const Log& log, const std::string& topic) {
  const bool any = topic == kPlain || topic == kLone;
  return {.any = any, .source = any || topic == kNumbered ? nullptr : &log};
}

// Whether the log begins, for this producer, at `number` or behind: what was before has been taken by retention.
bool begins_behind(const Log& log, std::uint32_t id, std::uint64_t number) {
  const TopicPartition partition{kNumbered, partition_of(id)};
  auto consumer = Consumer::open(log);
  if (!consumer || !consumer->assign(std::span(&partition, 1)) || !consumer->seek_to_beginning(partition))
    return false;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < deadline) {
    auto records = consumer->poll(milliseconds(10));
    if (!records) return false;
    for (const Record& record : *records) {
      if (record.value.size() < Value::kHeadBytes) return false;
      std::uint32_t whose = 0;
      std::uint64_t first = 0;
      std::memcpy(&whose, record.value.data(), 4);
      std::memcpy(&first, record.value.data() + 8, 8);
      if (whose == id) return first >= number;
    }
  }
  return false;
}

}  // namespace

std::string ReaderPage::take(const Record& record, const Lacks& lacks) {
  std::uint32_t id = 0;
  std::uint64_t number = 0;
  const std::uint32_t p = record.source->partition.value();
  const std::string at =
      fmt::format("{} partition {} offset {}: ", record.source->topic, p, record.offset.value());
  if (record.value.size() < Value::kHeadBytes) return at + "a value that nobody sent";
  std::memcpy(&id, record.value.data(), 4);
  std::memcpy(&number, record.value.data() + 8, 8);
  if (id >= kMaxProducers || record.value != std::string_view(Value(id, number)))
    return at + "a value that nobody sent";
  if (partition_of(id).value() != p) return at + fmt::format("a record of producer {}", id);
  if (record.offset.value() < next_offset[p].load()) return at + "an offset seen before";
  const std::uint64_t expected = next[id].load();
  // The last reader may have died between the two of its notes.
  const bool is_repeated = !begun[p].exchange(true) && number + 1 == expected;
  if (expected != 0 && number < expected && !is_repeated)
    return at + fmt::format("number {} of producer {} behind {}", number, id, expected - 1);
  if (expected != 0 && number > expected) {
    const bool is_gone = lacks.source != nullptr && begins_behind(*lacks.source, id, number);
    if (!lacks.any && !is_gone)
      return at + fmt::format("number {} of producer {}, where {} is missing", number, id, expected);
    const std::uint32_t count = gap_count.load();
    if (count == kMaxGaps) return at + "too many gaps";
    gaps[count] = {id, expected, number};
    gap_count.store(count + 1);
  }
  if (expected == 0) first[id].store(number);
  next[id].store(std::max(expected, number + 1));
  next_offset[p].store(record.offset.value() + 1);
  records.fetch_add(1);
  return {};
}

// --- Producers -----------------------------------------------------------------------------------

int send_plain(const Scene& scene, std::uint32_t id, const Pace& pace, const std::atomic<bool>& enough,
               ProducerPage& page) {
  page.starts.fetch_add(1);
  auto log = scene.open(KeeperMode::embedded);
  if (!log) return give_up(page.error, to_string(log.error()));
  auto producer = Producer::open(*log, {.topic = kPlain});
  if (!producer) return give_up(page.error, to_string(producer.error()));
  return send_on(*producer, id, page.attempted.load(), false, pace, enough, page);
}

int send_alone(const Scene& scene, std::uint32_t id, const Pace& pace, const std::atomic<bool>& enough,
               ProducerPage& page) {
  page.starts.fetch_add(1);
  auto log = scene.open(KeeperMode::none);
  if (!log) return give_up(page.error, to_string(log.error()));
  for (;;) {
    auto producer = Producer::open(*log, {.topic = kLone, .exclusive = true});
    if (producer) return send_on(*producer, id, page.attempted.load(), false, pace, enough, page);
    if (producer.error().code != Code::held_exclusively)
      return give_up(page.error, to_string(producer.error()));
    rest_between(enough, page);
  }
}

int send_numbered(const Scene& scene, std::uint32_t id, const Pace& pace, const std::atomic<bool>& enough,
                  ProducerPage& page) {
  page.starts.fetch_add(1);
  auto log = scene.open(KeeperMode::none);
  if (!log) return give_up(page.error, to_string(log.error()));
  auto producer =
      Producer::open(*log, {.topic = kNumbered, .enable_idempotence = true, .producer_id = kFirstId + id});
  if (!producer) return give_up(page.error, to_string(producer.error()));
  // What its predecessor was told counts; what it did not live to see may, and is repeated under its number.
  const std::uint64_t there = producer->next_sequence(partition_of(id));
  if (page.attempted.load() > 0 && (there < page.returned.load() || there > page.attempted.load()))
    return give_up(page.error,
                   fmt::format("the log says that number {} comes next, {} returned, {} were attempted",
                               there, page.returned.load(), page.attempted.load()));
  return send_on(*producer, id, page.returned.load(), true, pace, enough, page);
}

// --- Readers -------------------------------------------------------------------------------------

int read_on(const Scene& scene, const std::string& topic, ReaderPage& page) {
  page.begin_life();
  auto log = scene.open(KeeperMode::none);
  if (!log) return give_up(page.error, to_string(log.error()));
  auto consumer = Consumer::open(*log, {.isolation_level = IsolationLevel::read_committed});
  if (!consumer) return give_up(page.error, to_string(consumer.error()));
  if (auto assigned = consumer->assign(topic); !assigned)
    return give_up(page.error, to_string(assigned.error()));
  for (std::uint32_t p = 0; p < kPartitions; ++p)
    if (const Offset next(page.next_offset[p].load()); next != Offset(0))
      if (auto sought = consumer->seek({topic, PartitionId(p)}, next); !sought)
        return give_up(page.error, to_string(sought.error()));
  for (;;) {
    auto records = consumer->poll(milliseconds(20));
    if (!records) return give_up(page.error, to_string(records.error()));
    for (const Record& record : *records)
      if (const std::string wrong = page.take(record, lacks_of(*log, topic)); !wrong.empty())
        return give_up(page.error, wrong);
  }
}

std::string read_whole(const Log& log, const std::string& topic, ReaderPage& page) {
  page.begin_life();
  auto consumer = Consumer::open(log, {.isolation_level = IsolationLevel::read_committed});
  if (!consumer) return to_string(consumer.error());
  if (auto assigned = consumer->assign(topic); !assigned) return to_string(assigned.error());
  const auto is_at_end = [&] {
    return std::ranges::all_of(consumer->assignment(), [&](const TopicPartition& partition) {
      const auto position = consumer->position(partition);
      const auto end = consumer->end_offset(partition);
      return position && end && *position >= *end;
    });
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(100);
  while (!is_at_end()) {
    auto records = consumer->poll(milliseconds(10));
    if (!records) return to_string(records.error());
    for (const Record& record : *records)
      if (std::string wrong = page.take(record, lacks_of(log, topic)); !wrong.empty()) return wrong;
    if (std::chrono::steady_clock::now() > deadline) return topic + ": its reader stands still";
  }
  // What came last in the log may have been no record.
  for (std::uint32_t p = 0; p < kPartitions; ++p)
    page.next_offset[p].store(consumer->position({topic, PartitionId(p)})->value());
  return {};
}

// --- Groups --------------------------------------------------------------------------------------

namespace {

// A member that copies what it reads; its transactional id is its seat's.
class Copier {
 public:
  std::string open(const Log& log, const Names& names, std::uint32_t seat) {
    auto consumer = Consumer::open(log, {.max_poll_records = 128,
                                         .group_id = names.copiers(),
                                         .enable_auto_commit = false,
                                         .max_poll_interval = milliseconds(500)});
    if (!consumer) return to_string(consumer.error());
    consumer_.emplace(std::move(*consumer));
    if (auto joined = consumer_->subscribe(kNumbered); !joined) return to_string(joined.error());
    auto producer = Producer::open(log, {.topic = names.copies(),
                                         .transactional_id = fmt::format("{}-{}", names.copiers(), seat),
                                         .transaction_timeout = milliseconds(800)});
    if (!producer) return to_string(producer.error());
    producer_.emplace(std::move(*producer));
    return {};
  }

  // Copies what one poll brings. Empty, or what is wrong.
  std::string copy_some(std::atomic<std::uint64_t>& committed) {
    auto records = consumer_->poll(milliseconds(10));
    if (!records) return to_string(records.error());
    if (records->empty()) return {};
    const TopicPartition partition = *records->front().source;
    const OffsetCommit position[] = {{partition, records->back().offset + 1, {}}};
    if (auto begun = producer_->begin(); !begun) return to_string(begun.error());
    for (const Record& record : *records) {
      auto sent = producer_->send({.value = record.value, .partition = partition.partition});
      if (sent) continue;
      if (sent.error() != SendError::fenced && !is_passing(sent.error()))
        return to_string(producer_->error());
      return undo();
    }
    Status ended = producer_->add_offsets(position, consumer_->group_metadata());
    if (ended) ended = producer_->commit();
    if (ended) {
      committed.fetch_add(records->size());
      return {};
    }
    const Code code = ended.error().code;
    if (code != Code::fenced && code != Code::stale_generation) return to_string(ended.error());
    return undo();
  }

 private:
  // Aborts, and goes back to what is committed.
  std::string undo() {
    if (auto aborted = producer_->abort(); !aborted && aborted.error().code != Code::fenced)
      return to_string(aborted.error());
    const std::vector<TopicPartition> assignment = consumer_->assignment();
    for (const TopicPartition& partition : assignment) {
      auto committed = consumer_->committed(partition);
      if (!committed) return to_string(committed.error());
      auto sought = *committed ? consumer_->seek(partition, (*committed)->offset)
                               : consumer_->seek_to_beginning(partition);
      if (!sought) return to_string(sought.error());
    }
    return {};
  }

  std::optional<Consumer> consumer_;
  std::optional<Producer> producer_;
};

}  // namespace

int copy(const Scene& scene, const Names& names, std::uint32_t seat, std::atomic<std::uint64_t>& committed,
         char (&error)[512]) {
  auto log = scene.open(KeeperMode::none);
  if (!log) return give_up(error, to_string(log.error()));
  Copier copier;
  std::string wrong = copier.open(*log, names, seat);
  while (wrong.empty()) wrong = copier.copy_some(committed);
  return give_up(error, wrong);
}

int work(const Scene& scene, const Names& names, GroupPage& page, char (&error)[512]) {
  auto log = scene.open(KeeperMode::embedded);
  if (!log) return give_up(error, to_string(log.error()));
  auto consumer = Consumer::open(*log, {.max_poll_records = 64,
                                        .group_id = names.workers(),
                                        .enable_auto_commit = false,
                                        .max_poll_interval = milliseconds(500)});
  if (!consumer) return give_up(error, to_string(consumer.error()));
  std::map<std::uint32_t, std::uint64_t> next;  // by partition, since it was assigned
  auto joined = consumer->subscribe(kPlain, {.assigned = [&](std::span<const TopicPartition> partitions) {
                                      for (const auto& partition : partitions)
                                        next.erase(partition.partition.value());
                                    }});
  if (!joined) return give_up(error, to_string(joined.error()));
  for (;;) {
    auto records = consumer->poll(milliseconds(20));
    if (!records) return give_up(error, to_string(records.error()));
    if (records->empty()) continue;
    const std::uint32_t p = records->front().source->partition.value();
    const std::uint64_t before = page.acknowledged[p].load();
    const std::uint64_t begin = records->front().offset.value();
    const bool is_first = !next.contains(p);
    for (const Record& record : *records) {
      if (const auto known = next.find(p); known != next.end() && record.offset.value() < known->second)
        return give_up(error,
                       fmt::format("a worker was given offset {} of {} again", record.offset.value(), p));
      next[p] = record.offset.value() + 1;
    }
    const std::uint64_t end = next[p];
    std::uint64_t processed = page.processed[p].load();
    while (processed < end && !page.processed[p].compare_exchange_weak(processed, end)) {
    }
    const OffsetCommit position[] = {{*records->front().source, Offset(end), {}}};
    if (auto committed = consumer->commit_async(position); !committed) {
      if (committed.error().code != Code::stale_generation)
        return give_up(error, to_string(committed.error()));
      continue;
    }
    // It counts, so nobody else was the owner since `before` was read.
    if (is_first && begin < before)
      return give_up(
          error, fmt::format("a worker began partition {} at {}, though {} was committed", p, begin, before));
    std::uint64_t seen = page.acknowledged[p].load();
    while (seen < end && !page.acknowledged[p].compare_exchange_weak(seen, end)) {
    }
    page.records.fetch_add(records->size());
  }
}

Status make_topics(const Log& log, const Names& names) {
  for (const std::string& topic :
       {std::string(kPlain), std::string(kLone), std::string(kNumbered), names.copies()}) {
    const Status made =
        Admin(log).create_topic({.name = topic, .partitions = kPartitions, .configs = configs()});
    if (!made && made.error().code != Code::already_exists) return made;
  }
  return {};
}

}  // namespace ringtail::soak
