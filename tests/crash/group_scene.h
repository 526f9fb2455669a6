// Members of consumer groups for tests that kill them, and the account of what groups have processed.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>

#include "crash/scene.h"

namespace ringtail::crash {

inline constexpr std::uint32_t kGroups = 3;
inline constexpr std::uint32_t kPartitions = 8;
inline constexpr std::uint64_t kMostOffsets = 1 << 20;  // of a partition
inline constexpr std::uint32_t kSeats = 6;              // for members of one group

inline std::string group_name(std::uint32_t group) { return "group-" + std::to_string(group); }

// When a member's commits are made: behind the work, or, for at most once, before it.
enum class Commits : std::uint8_t { automatically, async, sync, before };

// What one group has processed. It lies in shared memory, so that it outlives the members.
struct GroupLedger {
  struct Partition {
    std::array<std::atomic<std::uint8_t>, kMostOffsets> processed;
    std::atomic<std::uint64_t> acknowledged{0};  // commits up to here were told to count
  };
  struct Seat {
    std::atomic<bool> leave{false};
    std::atomic<bool> ready{false};
    char error[512] = {};
  };

  std::array<Partition, kPartitions> partitions;
  std::array<Seat, kSeats> seats;
  std::atomic<std::uint64_t> records{0};  // processed, with repeats
  std::atomic<std::uint64_t> repeats{0};
  std::atomic<std::uint64_t> refused{0};  // commits
  std::atomic<std::uint64_t> tenancies{0};
};

// A member's own view: within one tenancy, offsets come one behind the other.
class GroupMemberChecks {
 public:
  // With `may_lose`, records may be missing, but none comes again.
  explicit GroupMemberChecks(GroupLedger& ledger, bool may_lose = false)
      : ledger_(ledger), may_lose_(may_lose) {}

  void begin(std::span<const TopicPartition> partitions) {
    for (const TopicPartition& partition : partitions) tenancies_.erase(partition.partition.value());
  }
  // Empty when the record may come now; otherwise what is wrong. The record counts as processed then.
  std::string take(const Record& record) {
    const std::uint32_t p = record.source->partition.value();
    const std::uint64_t offset = record.offset.value();
    if (p >= kPartitions || offset >= kMostOffsets) return "a record that nobody sent";
    const auto [known, is_first] = tenancies_.try_emplace(p, Tenancy{.begin = offset, .next = offset});
    if (is_first) ledger_.tenancies.fetch_add(1);
    auto& processed = ledger_.partitions[p].processed;
    if (known->second.next != offset)
      return fmt::format("partition {}: offset {} came, not {}", p, offset, known->second.next);
    if (!may_lose_ && offset > 0 && processed[offset - 1].load() == 0)
      return fmt::format("partition {}: offset {} came, and nobody has processed the one before", p, offset);
    ++known->second.next;
    const bool again = processed[offset].exchange(1) != 0;
    if (again && may_lose_) return fmt::format("partition {}: offset {} came again", p, offset);
    ledger_.repeats.fetch_add(again ? 1 : 0);
    ledger_.records.fetch_add(1);
    return {};
  }

  std::uint64_t acknowledged(std::uint32_t p) const { return ledger_.partitions[p].acknowledged.load(); }
  // A commit of `offset` counts; `before` was acknowledged when it was made, and since then no other owner
  // can have been there. Empty, or what is wrong.
  std::string note_commit(std::uint32_t p, std::uint64_t offset, std::uint64_t before) {
    const auto known = tenancies_.find(p);
    if (known != tenancies_.end() && !std::exchange(known->second.committed, true) &&
        known->second.begin < before)
      return fmt::format("partition {}: began at {}, though {} was committed", p, known->second.begin,
                         before);
    auto& acknowledged = ledger_.partitions[p].acknowledged;
    std::uint64_t seen = acknowledged.load();
    while (seen < offset && !acknowledged.compare_exchange_weak(seen, offset)) {
    }
    return {};
  }

 private:
  struct Tenancy {
    std::uint64_t begin = 0;
    std::uint64_t next = 0;
    bool committed = false;
  };
  GroupLedger& ledger_;
  bool may_lose_;
  std::map<std::uint32_t, Tenancy> tenancies_;  // by partition; from its first record on
};

// Commits what was processed. Empty, or what is wrong.
inline std::string commit_processed(Consumer& consumer, Commits commits, GroupMemberChecks& checks,
                                    GroupLedger& ledger) {
  for (const TopicPartition& partition : consumer.assignment()) {
    const std::uint32_t p = partition.partition.value();
    auto position = consumer.position(partition);
    if (!position) return to_string(position.error());
    const OffsetCommit one[] = {{partition, *position, {}}};
    const std::uint64_t before = checks.acknowledged(p);
    if (auto committed = consumer.commit_async(one)) {
      if (std::string wrong = checks.note_commit(p, position->value(), before); !wrong.empty()) return wrong;
    } else if (committed.error().code == Code::stale_generation) {
      ledger.refused.fetch_add(1);
    } else {
      return to_string(committed.error());
    }
  }
  if (commits != Commits::sync) return {};
  auto persisted = consumer.commit_sync();
  if (persisted) return {};
  ledger.refused.fetch_add(1);
  return persisted.error().code == Code::stale_generation ? std::string() : to_string(persisted.error());
}

struct GroupMemberOptions {
  KeeperMode mode = KeeperMode::none;
  Commits commits = Commits::async;
  std::chrono::milliseconds max_poll_interval{150};
  std::uint32_t most_us_per_record = 0;  // processing takes up to so long
  bool durable = false;                  // transactions are on disk before they are visible
};

// Polls, processes and commits until told to leave.
inline int be_group_member(const Scene& scene, const GroupMemberOptions& options, std::uint32_t group,
                           std::uint32_t seat_number, GroupLedger& ledger) {
  GroupLedger::Seat& seat = ledger.seats[seat_number];
  auto log = scene.open(options.mode);
  if (!log) return give_up(seat.error, to_string(log.error()));
  auto consumer = Consumer::open(*log, {.max_poll_records = 16,
                                        .group_id = group_name(group),
                                        .client_id = "seat-" + std::to_string(seat_number),
                                        .enable_auto_commit = options.commits == Commits::automatically,
                                        .auto_commit_interval = std::chrono::milliseconds(20),
                                        .max_poll_interval = options.max_poll_interval});
  if (!consumer) return give_up(seat.error, to_string(consumer.error()));
  GroupMemberChecks checks(ledger, options.commits == Commits::before);
  auto joined = consumer->subscribe(
      kTopic, {.assigned = [&](std::span<const TopicPartition> partitions) { checks.begin(partitions); }});
  if (!joined) return give_up(seat.error, to_string(joined.error()));
  seat.ready.store(true);
  std::minstd_rand random(static_cast<unsigned>(::getpid()));
  while (!seat.leave.load()) {
    auto records = consumer->poll(std::chrono::milliseconds(10));
    if (!records) return give_up(seat.error, to_string(records.error()));
    if (options.commits == Commits::before && !records->empty()) {
      const OffsetCommit behind[] = {{*records->front().source, records->back().offset + 1, {}}};
      if (auto committed = consumer->commit_async(behind); !committed) {
        if (committed.error().code != Code::stale_generation)
          return give_up(seat.error, to_string(committed.error()));
        ledger.refused.fetch_add(1);
        checks.begin(std::span(records->front().source, 1));  // they are another member's
        continue;
      }
    }
    for (const Record& record : *records) {
      if (options.most_us_per_record != 0)
        ::usleep(static_cast<useconds_t>(random() % options.most_us_per_record));
      if (const std::string wrong = checks.take(record); !wrong.empty()) return give_up(seat.error, wrong);
    }
    if (records->empty() || options.commits == Commits::automatically || options.commits == Commits::before)
      continue;
    if (const std::string wrong = commit_processed(*consumer, options.commits, checks, ledger);
        !wrong.empty())
      return give_up(seat.error, wrong);
  }
  if (auto left = consumer->unsubscribe(); !left) return give_up(seat.error, to_string(left.error()));
  return 0;
}

// Sends numbered records with keys, `rate` each second, to every partition.
inline int produce_with_keys(const Scene& scene, std::uint32_t id, std::uint64_t records, std::uint64_t rate,
                             ProducerPage& page) {
  auto log = scene.open(KeeperMode::none);
  if (!log) return give_up(page.error, to_string(log.error()));
  auto producer = Producer::open(*log, {.topic = kTopic});
  if (!producer) return give_up(page.error, to_string(producer.error()));
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t number = 0; number < records; ++number) {
    const Value value(id, number);
    const std::string key = std::to_string(mix(number << 8 | id) % 64);
    page.attempted.store(number + 1);
    if (auto sent = producer->send({.key = key, .value = value}); !sent)
      return give_up(page.error, to_string(producer->error()));
    page.returned.store(number + 1);
    if (number % 8 == 7)
      std::this_thread::sleep_until(begin + std::chrono::microseconds(1'000'000 * number / rate));
  }
  page.done.store(true);
  return 0;
}

}  // namespace ringtail::crash
