// Members of a group that copy a topic to another, record by record, in transactions; and the check that the
// copy has each record of the original once, in its order.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "crash/group_scene.h"

namespace ringtail::crash {

inline std::string copies_of(std::uint32_t group) { return "copies-" + std::to_string(group); }

// What copying came to, of all copiers of a group together.
struct CopyCounts {
  std::atomic<std::uint64_t> committed{0};
  std::atomic<std::uint64_t> aborted{0};  // by themselves
  std::atomic<std::uint64_t> fenced{0};   // for them, or with a partition that they had lost
};

// One member. Its transactional id is its seat's: whoever sits there next fences what it left open.
class Copier {
 public:
  Copier(const GroupMemberOptions& options, std::uint32_t group, GroupLedger& ledger, CopyCounts& counts)
      : options_(options), group_(group), checks_(ledger), counts_(counts), random_(std::random_device{}()) {}

  // Empty, or what is wrong.
  std::string open(const Log& log, std::uint32_t seat) {
    auto consumer = Consumer::open(log, {.max_poll_records = 64,
                                         .group_id = group_name(group_),
                                         .client_id = "seat-" + std::to_string(seat),
                                         .enable_auto_commit = false,
                                         .max_poll_interval = options_.max_poll_interval});
    if (!consumer) return to_string(consumer.error());
    consumer_.emplace(std::move(*consumer));
    auto joined = consumer_->subscribe(
        kTopic,
        {.assigned = [this](std::span<const TopicPartition> partitions) { checks_.begin(partitions); }});
    if (!joined) return to_string(joined.error());
    auto producer = Producer::open(log, {.topic = copies_of(group_),
                                         .durable = options_.durable,
                                         .transactional_id = fmt::format("copier-{}-{}", group_, seat),
                                         .transaction_timeout = std::chrono::milliseconds(300)});
    if (!producer) return to_string(producer.error());
    producer_.emplace(std::move(*producer));
    return {};
  }

  // Copies what one poll brings. Empty, or what is wrong.
  std::string copy_some() {
    auto records = consumer_->poll(std::chrono::milliseconds(10));
    if (!records) return to_string(records.error());
    if (records->empty()) return {};
    const TopicPartition partition = *records->front().source;
    const Offset end = records->back().offset + 1;
    const std::uint64_t before = checks_.acknowledged(partition.partition.value());
    if (auto begun = producer_->begin(); !begun) return to_string(begun.error());
    bool fenced = false;
    for (const Record& record : *records) {
      if (options_.most_us_per_record != 0)
        ::usleep(static_cast<useconds_t>(random_() % options_.most_us_per_record));
      if (std::string wrong = checks_.take(record); !wrong.empty()) return wrong;
      auto sent = producer_->send({.key = record.key, .value = record.value});
      if (sent) continue;
      if (sent.error() != SendError::fenced) return to_string(producer_->error());
      fenced = true;
      break;
    }
    if (!fenced && random_() % 16 == 0) {
      counts_.aborted.fetch_add(1);
      return undo();
    }
    const OffsetCommit position[] = {{partition, end, {}}};
    Status ended;
    if (!fenced) ended = producer_->add_offsets(position, consumer_->group_metadata());
    if (!fenced && ended) ended = producer_->commit();
    if (!fenced && ended) {
      counts_.committed.fetch_add(1);
      return checks_.note_commit(partition.partition.value(), end.value(), before);
    }
    if (!ended && ended.error().code != Code::fenced && ended.error().code != Code::stale_generation)
      return to_string(ended.error());
    counts_.fenced.fetch_add(1);
    return undo();
  }

  std::string leave() {
    auto left = consumer_->unsubscribe();
    return left ? std::string() : to_string(left.error());
  }

 private:
  // Aborts, and goes back to what is committed.
  std::string undo() {
    if (auto aborted = producer_->abort(); !aborted) return to_string(aborted.error());
    const std::vector<TopicPartition> assignment = consumer_->assignment();
    checks_.begin(assignment);
    for (const TopicPartition& partition : assignment) {
      auto committed = consumer_->committed(partition);
      if (!committed) return to_string(committed.error());
      auto sought = *committed ? consumer_->seek(partition, (*committed)->offset)
                               : consumer_->seek_to_beginning(partition);
      if (!sought) return to_string(sought.error());
    }
    return {};
  }

  GroupMemberOptions options_;
  std::uint32_t group_;
  GroupMemberChecks checks_;
  CopyCounts& counts_;
  std::minstd_rand random_;
  std::optional<Consumer> consumer_;
  std::optional<Producer> producer_;
};

// Copies until told to leave.
inline int be_group_copier(const Scene& scene, const GroupMemberOptions& options, std::uint32_t group,
                           std::uint32_t seat_number, GroupLedger& ledger, CopyCounts& counts) {
  GroupLedger::Seat& seat = ledger.seats[seat_number];
  auto log = scene.open(options.mode);
  if (!log) return give_up(seat.error, to_string(log.error()));
  Copier copier(options, group, ledger, counts);
  if (const std::string wrong = copier.open(*log, seat_number); !wrong.empty())
    return give_up(seat.error, wrong);
  seat.ready.store(true);
  while (!seat.leave.load())
    if (const std::string wrong = copier.copy_some(); !wrong.empty()) return give_up(seat.error, wrong);
  if (const std::string wrong = copier.leave(); !wrong.empty()) return give_up(seat.error, wrong);
  return 0;
}

// All values in a topic's partitions, by partition, as committed.
inline Result<std::vector<std::vector<std::string>>> read_committed(const Log& log,
                                                                    const std::string& topic) {
  auto consumer = Consumer::open(log, {.isolation_level = IsolationLevel::read_committed});
  if (!consumer) return std::unexpected(consumer.error());
  if (auto assigned = consumer->assign(topic); !assigned) return std::unexpected(assigned.error());
  std::vector<std::vector<std::string>> values(kPartitions);
  const auto is_at_end = [&] {
    return std::ranges::all_of(consumer->assignment(), [&](const TopicPartition& partition) {
      const auto position = consumer->position(partition);
      const auto end = consumer->end_offset(partition);
      return position && end && *position >= *end;
    });
  };
  while (!is_at_end()) {
    auto records = consumer->poll(std::chrono::milliseconds(10));
    if (!records) return std::unexpected(records.error());
    for (const Record& record : *records)
      values[record.source->partition.value()].emplace_back(record.value.substr(0, Value::kHeadBytes));
  }
  return values;
}

// Empty when the copies of a group are the original, partition by partition; otherwise what is wrong.
inline std::string compare_copies(const Log& log, std::uint32_t group) {
  auto original = read_committed(log, kTopic);
  if (!original) return to_string(original.error());
  auto copies = read_committed(log, copies_of(group));
  if (!copies) return to_string(copies.error());
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    const auto& from = (*original)[p];
    const auto& to = (*copies)[p];
    const auto [left, right] = std::ranges::mismatch(from, to);
    if (left == from.end() && right == to.end()) continue;
    return fmt::format("{} partition {}: {} records, {} copies; they differ at record {}", copies_of(group),
                       p, from.size(), to.size(), left - from.begin());
  }
  return {};
}

}  // namespace ringtail::crash
