// The loops of the roles, over any system. A system gives two classes:
//
//   Sender    static Result<Sender> open(const Options&, const RunFile&, Channel);
//             Sent send(std::span<const std::byte>)            copies, or
//             Sent send_in_place(std::size_t, Fill)            Fill(std::byte*) writes into memory that it lends;
//             Sent send_batch(std::span<const Payload>)        where the system has batches
//             Sent finish(); Error error() const;
//   Receiver  static Result<Receiver> open(...), the same;
//             int poll(Handle)   Handle(std::span<const std::byte>) for each record that is there; how many; -1:
//                                failed. Waits at most 50 ms with --wait block, and may with spin.
//             Error error() const;
//
// They are templates so that nothing stands between the loop and the system. Thread safety: none.
#pragma once

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/histogram.h"
#include "harness/clock.h"
#include "harness/options.h"
#include "harness/payload.h"
#include "harness/run_file.h"

namespace ringtail::peers {

enum class Sent : std::uint8_t { yes, stopped, failed };
using Payload = std::span<const std::byte>;

inline constexpr std::uint64_t kSampleEvery = 64;  // rate 0: records between two that carry a fresh time
inline constexpr std::uint64_t kPatienceNs = 10'000'000'000;  // without a record, after all were sent

template <class Sender>
concept Lends = requires(Sender sender) { sender.send_in_place(std::size_t{}, [](std::byte*) {}); };
template <class Sender>
concept Batches = requires(Sender sender) { sender.send_batch(std::span<const Payload>{}); };

// Payloads that were built some 32 records before they are copied: a copy that reads what was stored just before
// in smaller pieces waits for the stores.
class Prepared {
 public:
  Prepared(std::size_t size, unsigned batch, unsigned producer)
      : size_(size), producer_(producer), count_(std::max(64U, 4 * batch)), bytes_(size * count_) {}

  std::byte* at(std::uint64_t sequence) { return bytes_.data() + sequence % count_ * size_; }
  Payload payload(std::uint64_t sequence) { return {at(sequence), size_}; }
  void fill(std::uint64_t sequence, std::uint64_t intended_ns) {
    fill_payload(at(sequence), size_, intended_ns, producer_, sequence);
  }
  std::uint64_t ahead() const { return count_ / 2; }

 private:
  std::size_t size_;
  unsigned producer_;
  std::uint64_t count_;
  std::vector<std::byte> bytes_;
};

// When the records of one producer are due.
class Schedule {
 public:
  Schedule(std::uint64_t start_ns, double rate) : start_ns_(start_ns), interval_(rate > 0 ? 1e9 / rate : 0) {}
  std::uint64_t due(std::uint64_t sequence) const {
    return start_ns_ + static_cast<std::uint64_t>(static_cast<double>(sequence) * interval_);
  }

 private:
  std::uint64_t start_ns_;
  double interval_;
};

// Waits until `due`; false: stopped. With --wait block nobody spins, for there are more processes than CPUs.
inline bool wait_until(std::uint64_t due, Clock& clock, const Options& options, const RunFile& run) {
  for (;;) {
    const std::uint64_t now = clock.now();
    if (now >= due) return true;
    if (run.stopped()) return false;
    if (options.block && due - now > 60'000) {
      const std::uint64_t wake = std::min(due - 50'000, now + 50'000'000);
      const timespec at{static_cast<time_t>(wake / 1'000'000'000), static_cast<long>(wake % 1'000'000'000)};
      ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
    } else if (options.block) {
      ::sched_yield();
    } else {
      spin_pause();
    }
  }
}

// Sends by the schedule, or as fast as it goes, until end_ns. Returns how many were sent; what failed is in the
// sender. `lateness`, where it is not null, gets how long after its intended time each send returned.
template <class Sender>
class Production {
 public:
  Production(Sender& sender, const Options& options, const RunFile& run, Clock& clock, std::uint64_t start_ns)
      : sender_(sender),
        options_(options),
        run_(run),
        clock_(clock),
        schedule_(start_ns, options.rate),
        prepared_(options.size, options.batch, options.index),
        batch_(options.batch) {}

  Sent run(Histogram* lateness) {
    stamp_ = clock_.now();
    for (std::uint64_t n = 0; n < prepared_.ahead(); ++n) prepare(n);
    while (!run_.stopped()) {
      const std::uint64_t last = sent_ + batch_ - 1;
      if (options_.rate > 0) {
        if (schedule_.due(last) > run_.end_ns()) break;
        if (!wait_until(schedule_.due(last), clock_, options_, run_)) return Sent::stopped;
      } else if (sent_ % kSampleEvery == 0 || last / kSampleEvery != sent_ / kSampleEvery) {
        stamp_ = clock_.now();
        if (stamp_ > run_.end_ns()) break;
        const std::uint64_t sampled = (sent_ + kSampleEvery - 1) / kSampleEvery * kSampleEvery;
        if constexpr (!Lends<Sender>) set_word(prepared_.at(sampled), 0, stamp_);
      }
      if (const Sent sent = send(); sent != Sent::yes) return sent;
      if (lateness != nullptr && options_.rate > 0) note(*lateness, last);
      for (unsigned i = 0; i < batch_; ++i) prepare(sent_ + prepared_.ahead() + i);
      sent_ += batch_;
    }
    return sender_.finish();
  }

  std::uint64_t sent() const { return sent_; }

 private:
  std::uint64_t intended(std::uint64_t sequence) const {
    return options_.rate > 0 ? schedule_.due(sequence) : stamp_;
  }

  void prepare(std::uint64_t sequence) {
    if constexpr (!Lends<Sender>) prepared_.fill(sequence, intended(sequence));
  }

  Sent send() {
    if constexpr (Lends<Sender>) {
      return sender_.send_in_place(options_.size, [this](std::byte* to) {
        fill_payload(to, options_.size, intended(sent_), options_.index, sent_);
      });
    } else {
      if (batch_ == 1) return sender_.send(prepared_.payload(sent_));
      if constexpr (Batches<Sender>) {
        payloads_.resize(batch_);
        for (unsigned i = 0; i < batch_; ++i) payloads_[i] = prepared_.payload(sent_ + i);
        return sender_.send_batch(payloads_);
      } else {
        return Sent::failed;
      }
    }
  }

  void note(Histogram& lateness, std::uint64_t last) {
    const std::uint64_t due = schedule_.due(last);
    if (due < run_.measure_ns()) return;
    const std::uint64_t now = clock_.now();
    lateness.record(now > due ? now - due : 0);
  }

  Sender& sender_;
  const Options& options_;
  const RunFile& run_;
  Clock& clock_;
  Schedule schedule_;
  Prepared prepared_;
  std::vector<Payload> payloads_;
  unsigned batch_;
  std::uint64_t stamp_ = 0;
  std::uint64_t sent_ = 0;
};

// What a reader counts: the checks, the latencies, the first and the last time.
class Tally {
 public:
  Tally(const Options& options, const RunFile& run, Clock& clock)
      : checks(options.size), clock_(clock), measure_ns_(run.measure_ns()), saturated_(options.rate <= 0) {}

  void take(Payload payload) {
    const std::uint64_t sequence = checks.check(payload);
    const std::uint64_t intended = payload.size() >= 8 ? word_of(payload.data(), 0) : 0;
    if (intended < measure_ns_) {
      ++warmup;
      return;
    }
    if (saturated_ && sequence % kSampleEvery != 0 && measured != 0) {
      ++measured;
      return;
    }
    const std::uint64_t now = clock_.now();
    if (measured++ == 0) first_ns = now;
    last_ns = now;
    latency->record(now > intended ? now - intended : 0);
  }

  Checker checks;
  std::uint64_t warmup = 0;
  std::uint64_t measured = 0;
  std::uint64_t first_ns = 0;
  std::uint64_t last_ns = 0;
  std::unique_ptr<Histogram> latency = std::make_unique<Histogram>();

 private:
  Clock& clock_;
  std::uint64_t measure_ns_;
  bool saturated_;
};

// Reads until everything sent has come, `stop` is set, or nothing comes any more; then it counts what is missing.
// False: the receiver failed. `handle` is called for each record.
template <class Receiver, class Handle>
bool receive_all(Receiver& receiver, const Checker& checks, const Options& options, const RunFile& run,
                 Clock& clock, bool& gave_up, Handle handle) {
  std::uint64_t quiet_since = 0;
  while (!run.stopped()) {
    const int got = receiver.poll(handle);
    if (got < 0) return false;
    if (got > 0) {
      quiet_since = 0;
      continue;
    }
    std::uint64_t total = 0;
    if (!run.all_sent(total)) {
      if (!options.block) spin_pause();
      continue;
    }
    if (checks.received() + checks.lost() >= total) return true;
    const std::uint64_t now = clock.now();
    if (quiet_since == 0) quiet_since = now;
    if (now - quiet_since > kPatienceNs) {
      gave_up = true;
      return true;
    }
  }
  return true;
}

// Round trips until end_ns. Returns how many; false: sender or receiver failed (see `receiver_failed`).
template <class Sender, class Receiver>
class PingPong {
 public:
  PingPong(Sender& sender, Receiver& receiver, const Options& options, const RunFile& run, Clock& clock)
      : sender_(sender),
        receiver_(receiver),
        options_(options),
        run_(run),
        clock_(clock),
        tally_(options, run, clock),
        prepared_(options.size, 1, 0) {}

  Sent run() {
    for (std::uint64_t n = 0; n < prepared_.ahead(); ++n) prepared_.fill(n, clock_.now());
    for (;;) {
      const std::uint64_t begin = clock_.now();
      if (begin > run_.end_ns() || run_.stopped()) break;
      if (const Sent sent = send(begin); sent != Sent::yes) return sent;
      ++trips_;
      if (!answer()) return receiver_failed_ ? Sent::failed : Sent::stopped;
      const std::uint64_t end = clock_.now();
      count(begin, end);
      prepared_.fill(trips_ - 1 + prepared_.ahead(), begin);
    }
    return sender_.finish();
  }

  bool receiver_failed() const { return receiver_failed_; }
  std::uint64_t trips() const { return trips_; }
  Tally& tally() { return tally_; }

 private:
  Sent send(std::uint64_t begin) {
    if constexpr (Lends<Sender>) {
      return sender_.send_in_place(options_.size,
                                   [&](std::byte* to) { fill_payload(to, options_.size, begin, 0, trips_); });
    } else {
      return sender_.send(prepared_.payload(trips_));
    }
  }

  bool answer() {
    while (tally_.checks.received() < trips_) {
      const int got = receiver_.poll([this](Payload payload) { tally_.checks.check(payload); });
      if (got > 0) continue;
      receiver_failed_ = got < 0;
      if (receiver_failed_ || run_.stopped()) return false;
      if (!options_.block) spin_pause();
    }
    return true;
  }

  void count(std::uint64_t begin, std::uint64_t end) {
    if (begin < run_.measure_ns()) {
      ++tally_.warmup;
      return;
    }
    if (tally_.measured++ == 0) tally_.first_ns = end;
    tally_.last_ns = end;
    tally_.latency->record(end > begin ? end - begin : 0);
  }

  Sender& sender_;
  Receiver& receiver_;
  const Options& options_;
  const RunFile& run_;
  Clock& clock_;
  Tally tally_;
  Prepared prepared_;
  std::uint64_t trips_ = 0;
  bool receiver_failed_ = false;
};

}  // namespace ringtail::peers
