// The truth about what was sent, and the check of what is read against it.
//
// Producers number their records. Before a send a producer notes in shared memory up to which number it
// attempts to send, afterwards up to which number sends have returned. When it is killed, the numbers
// between the two are in doubt: they may be in the log, as a whole or not at all, but nothing else may
// be missing. Its successor goes on behind them, so that every number is attempted once.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "ringtail/record.h"

namespace ringtail::crash {

inline constexpr std::uint32_t kMaxProducers = 8;

// --- Values --------------------------------------------------------------------------------------

inline std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

// A value says whose it is and which, and is filled with what follows from these.
class Value {
 public:
  static constexpr std::size_t kMaxBytes = 1024;
  static constexpr std::size_t kHeadBytes = 16;

  Value(std::uint32_t producer, std::uint64_t number) {
    const std::uint64_t random = mix(number << 8 | producer);
    // Most are small, some are not, and they end at every alignment.
    size_ = kHeadBytes + random % (random % 61 == 0 ? kMaxBytes - kHeadBytes : 80);
    write(bytes_.data(), producer, number);
  }
  void write(void* to, std::uint32_t producer, std::uint64_t number) const {
    char* const bytes = static_cast<char*>(to);
    const auto size = static_cast<std::uint32_t>(size_);
    std::memcpy(bytes, &producer, 4);
    std::memcpy(bytes + 4, &size, 4);
    std::memcpy(bytes + 8, &number, 8);
    std::uint64_t word = mix(number << 8 | producer);
    for (std::size_t at = kHeadBytes; at < size_; at += 8) {
      word = mix(word);
      std::memcpy(bytes + at, &word, std::min<std::size_t>(8, size_ - at));
    }
  }
  std::size_t size() const { return size_; }
  operator std::string_view() const { return {bytes_.data(), size_}; }

 private:
  std::size_t size_ = 0;
  std::array<char, kMaxBytes> bytes_;
};

// --- What was sent -------------------------------------------------------------------------------

struct ProducerPage {
  std::atomic<std::uint64_t> attempted{0};  // numbers below were attempted
  std::atomic<std::uint64_t> returned{0};   // and sends of those below returned
  std::atomic<std::uint64_t> durable{0};    // and waits for their durability
  std::atomic<std::uint32_t> starts{0};
  std::atomic<bool> done{false};
  char error[512] = {};
};

// What the test that kills knows.
class Truth {
 public:
  // To be called when `producer` is dead for certain, before its successor starts.
  void note_death(std::uint32_t producer, ProducerPage& page) {
    const std::uint64_t from = page.returned.load();
    const std::uint64_t to = page.attempted.load();
    if (from < to) in_doubt_.insert({producer, from, to});
    page.returned.store(to);
  }
  // Numbers from `from` on were lost and are sent anew.
  void forget(std::uint32_t producer, std::uint64_t from) {
    std::erase_if(in_doubt_,
                  [&](const auto& d) { return std::get<0>(d) == producer && std::get<1>(d) >= from; });
  }
  bool is_in_doubt(std::uint32_t producer, std::uint64_t from, std::uint64_t to) const {
    // Several neighbours in a row, when it was killed again at once.
    while (from < to) {
      auto found = in_doubt_.lower_bound({producer, from, 0});
      if (found == in_doubt_.end() || std::get<0>(*found) != producer || std::get<1>(*found) != from)
        return false;
      from = std::get<2>(*found);
    }
    return from == to;
  }
  std::size_t doubts() const { return in_doubt_.size(); }

 private:
  std::set<std::tuple<std::uint32_t, std::uint64_t, std::uint64_t>> in_doubt_;
};

// --- What was read -------------------------------------------------------------------------------

// A reader's account. It lies in shared memory, so that it outlives the reader.
class Ledger {
 public:
  struct Gap {
    std::uint32_t producer;
    std::uint64_t from, to;  // numbers that were not seen, [from, to)
  };

  bool append_time = false;  // timestamps must not run backwards
  bool may_lose = false;     // the topic overwrites what was not read: gaps are not noted
  std::atomic<bool> ready{false};
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> records{0};
  std::atomic<std::uint64_t> next_offset{0};
  std::uint64_t skipped_offsets = 0;
  std::uint64_t missed = 0;  // as the consumer counts it
  std::int64_t last_timestamp_ns = 0;
  std::array<std::uint64_t, kMaxProducers> next{};
  std::uint32_t gap_count = 0;
  std::array<Gap, 4096> gaps{};
  char error[512] = {};

  // False, with `error`, when the record cannot follow what was read before.
  bool take(const Record& record) {
    std::uint32_t producer = 0;
    std::uint32_t size = 0;
    std::uint64_t number = 0;
    if (record.value.size() < Value::kHeadBytes) return refuse(record, "a value that nobody sent");
    std::memcpy(&producer, record.value.data(), 4);
    std::memcpy(&size, record.value.data() + 4, 4);
    std::memcpy(&number, record.value.data() + 8, 8);
    if (producer >= kMaxProducers || record.value != std::string_view(Value(producer, number)))
      return refuse(record, "a value that nobody sent");
    const std::uint64_t offset = record.offset.value();
    if (offset < next_offset.load(std::memory_order_relaxed)) return refuse(record, "an offset seen before");
    if (number < next[producer])
      return refuse(record,
                    fmt::format("number {} of producer {} behind {}", number, producer, next[producer] - 1));
    if (append_time && record.timestamp_ns < last_timestamp_ns)
      return refuse(record, fmt::format("timestamp {} behind {}", record.timestamp_ns, last_timestamp_ns));
    if (number > next[producer] && !may_lose) {
      if (gap_count == gaps.size()) return refuse(record, "too many gaps");
      gaps[gap_count++] = {producer, next[producer], number};
    }
    skipped_offsets += offset - next_offset.load(std::memory_order_relaxed);
    last_timestamp_ns = record.timestamp_ns;
    next[producer] = number + 1;
    next_offset.store(offset + 1, std::memory_order_relaxed);
    records.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  bool refuse(const Record& record, std::string_view what) {
    return fail(
        fmt::format("at offset {} (record {} read): {}", record.offset.value(), records.load(), what));
  }
  bool fail(std::string_view what) {
    std::memcpy(error, what.data(), std::min(what.size(), sizeof error - 1));
    return false;
  }

  // Empty when everything read agrees with the truth: every number below `sent` of every producer is
  // there, but for those in doubt; otherwise what is wrong. Not for topics that may lose.
  std::string compare(const Truth& truth, std::span<const std::uint64_t> sent) const {
    if (error[0] != 0) return error;
    for (std::uint32_t i = 0; i < gap_count; ++i)
      if (!truth.is_in_doubt(gaps[i].producer, gaps[i].from, gaps[i].to))
        return fmt::format("producer {}: numbers {} to {} were sent and are not there", gaps[i].producer,
                           gaps[i].from, gaps[i].to - 1);
    for (std::uint32_t p = 0; p < sent.size(); ++p) {
      if (next[p] > sent[p]) return fmt::format("producer {}: number {} was never sent", p, next[p] - 1);
      if (!truth.is_in_doubt(p, next[p], sent[p]))
        return fmt::format("producer {}: numbers {} to {} were sent and are not there", p, next[p],
                           sent[p] - 1);
    }
    return {};
  }
};

}  // namespace ringtail::crash
