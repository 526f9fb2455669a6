// What two threads that meet in a ring may find of each other: the code's own steps, a moment apart.
#include "unit/log/litmus.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "shm/light_fence.h"
#include "unit/log/ring_keeper_test_support.h"

namespace ringtail::log {
namespace {

class Litmus : public RingKeeperTest, public ::testing::WithParamInterface<Placing> {
 protected:
  // A fresh ring with whoever works on it, once the first term is nearly full.
  void renew_when_used() {
    constexpr std::uint64_t kRoomForARound = 1024;
    if (ring_ && tail_bytes(ring_.line(0).tail.load()) + kRoomForARound < ring_.usable_term_bytes()) return;
    renew(4);
  }
  // Producers that are refused what they would have to wait for, unless told otherwise.
  void renew(std::uint32_t terms, std::chrono::milliseconds max_block = std::chrono::milliseconds(0)) {
    for (auto& producer : producers_) producer.reset();
    keeper_.reset();
    ring_ = make_ring(terms, Position(0), Offset(0), ++generation_);
    keeper_.emplace(keeper_of(open_ring()));
    for (auto& producer : producers_) producer = new_producer(max_block);
  }

  Ring ring_;
  std::optional<RingKeeper> keeper_;
  std::array<std::unique_ptr<Producer>, 2> producers_;
  std::uint64_t generation_ = 0;
};
INSTANTIATE_TEST_SUITE_P(, Litmus, ::testing::Values(Placing::apart, Placing::together, Placing::crowded),
                         [](const auto& one) { return ::testing::PrintToString(one.param); });

// Two appends: who claims first has both the lower offset and the lower place.
TEST_P(Litmus, TwoClaimsStandBehindEachOther) {
  std::array<SendResult<RecordMetadata>, 2> sent;
  Ring::End end{};
  const auto append = [&](std::size_t i) { sent[i] = (*producers_[i])->append({.value = "12345678"}); };
  LitmusRun run(GetParam(), {"the first first", "the second first"});
  run.run(
      {[&] { append(0); }, [&] { append(1); }},
      [&] {
        renew_when_used();
        end = ring_.claimed_end();
      },
      [&]() -> std::string {
        if (!sent[0] || !sent[1]) return "refused";
        const bool swapped = sent[1]->offset < sent[0]->offset;
        const RecordMetadata& lower = *sent[swapped ? 1 : 0];
        const RecordMetadata& upper = *sent[swapped ? 0 : 1];
        if (lower.offset != end.offset || upper.offset != end.offset + 1) return "offsets that do not follow";
        if (lower.end != end.position + 40 || upper.end != end.position + 80) return "places that do not";
        return swapped ? "the second first" : "the first first";
      });
}

// An append, and one look at where it goes: what is committed is whole.
TEST_P(Litmus, WhatIsCommittedIsWhole) {
  const std::byte* frame = nullptr;
  std::uint64_t round = 0;
  std::string seen;
  std::string value(96, ' ');
  LitmusRun run(GetParam(), {"nothing", "claimed", "whole"});
  run.run(
      {[&] { ASSERT_TRUE((*producers_[0])->append({.value = value})); },
       [&] {
         const std::uint64_t word = format::load_state_word(frame, std::memory_order_acquire);
         seen = word == 0 ? "nothing" : "claimed";
         if (!format::word_is_resolved(word)) return;
         const Record record = format::decode_record(frame, nullptr);
         const bool whole = record.value.size() == 96 && record.offset.value() == round &&
                            std::ranges::all_of(record.value, [&](char c) { return c == value[0]; });
         seen = whole ? "whole" : "torn";
       }},
      [&] {
        renew_when_used();
        const std::uint64_t tail = ring_.line(0).tail.load();
        frame = ring_.term_data(0) + tail_bytes(tail);
        round = tail_records(tail);
        value.assign(value.size(), static_cast<char>('a' + round % 26));
      },
      [&] { return seen; });
}

// The owner of an open claim commits while the keeper gives it up: one of the two, and the owner knows which.
TEST_P(Litmus, AClaimIsCommittedOrGivenUp) {
  std::optional<HandClaim> claim;
  bool committed = false;
  LitmusRun run(GetParam(), {"committed", "given up"});
  run.run(
      {[&] { committed = claim->commit(); },
       [&] {
         shm::Slot& slot = control_.slot(claim->slot().index());
         slot.given_up.store(slot.op.load());
         keeper_->begin_inquiry();
         for (bool done = false; !done;) {
           const auto stepped = keeper_->step_inquiry(monitor_);
           ASSERT_TRUE(stepped) << stepped.error().message;
           done = *stepped;
         }
       }},
      [&] {
        renew_when_used();
        claim.emplace(ring_, new_slot(), 64).open();
      },
      [&]() -> std::string {
        const auto type =
            format::word_type(format::load_state_word(claim->frame(), std::memory_order_acquire));
        const std::uint64_t offset = format::load_header(claim->frame()).offset;
        const bool as_claimed = offset == claim->offset();
        claim->finish();
        claim.reset();
        const auto scanned = keeper_->scan(1 << 20);
        if (!scanned || scanned->bytes != 64 || !as_claimed) return "not passed by the keeper";
        if (committed && type == format::FrameType::data) return "committed";
        if (!committed && type == format::FrameType::aborted) return "given up";
        return committed ? "told that it was committed, and aborted" : "told that it was not, and kept";
      });
}

// Two records for which the term has no room: one trips, both stand in the next, which is opened once.
// Who comes second waits for who trips, which the machine may hold up between two instructions for any time.
TEST_P(Litmus, ATermIsOpenedOnce) {
  constexpr std::chrono::milliseconds kLongEnough{60'000};
  constexpr std::uint64_t kRecord = 8'032;
  const std::string value(kRecord - format::kFrameHeaderBytes, 'v');
  std::array<SendResult<RecordMetadata>, 2> sent;
  Offset next{0};
  std::uint64_t term = 0;
  const auto fill = [&] {
    if (!ring_ || ring_.header().active_term.load() + 2 >= ring_.term_count()) renew(64, kLongEnough);
    term = ring_.header().active_term.load();
    for (;;) {
      const std::uint64_t room = ring_.usable_term_bytes() - tail_bytes(ring_.line(term).tail.load());
      if (room < kRecord) break;
      const std::uint64_t bytes = std::min<std::uint64_t>(kRecord, room - 4'000);
      ASSERT_TRUE((*producers_[0])->append({.value = std::string(bytes - format::kFrameHeaderBytes, 'f')}));
    }
    next = ring_.claimed_end().offset;
  };
  const auto append = [&](std::size_t i) { sent[i] = (*producers_[i])->append({.value = value}); };
  LitmusRun run(GetParam(), {"the first first", "the second first"});
  run.run({[&] { append(0); }, [&] { append(1); }}, fill, [&]() -> std::string {
    for (std::size_t i = 0; i < sent.size(); ++i)
      if (!sent[i]) return "refused: " + (*producers_[i])->describe(sent[i].error()).message;
    const bool swapped = sent[1]->offset < sent[0]->offset;
    const RecordMetadata& lower = *sent[swapped ? 1 : 0];
    const RecordMetadata& upper = *sent[swapped ? 0 : 1];
    if (lower.offset != next || upper.offset != next + 1) return "offsets that do not follow";
    const Position start = ring_.term_start(term + 1);
    if (ring_.header().active_term.load() != term + 1) return "opened more than one";
    if (lower.end != start + kRecord || upper.end != start + 2 * kRecord) return "places that do not follow";
    return swapped ? "the second first" : "the first first";
  });
}

// An append while the keeper fences the ring to retire it: it is within what the seal counts, or refused.
TEST_P(Litmus, ARetiredRingCountsWhatItTook) {
  SendResult<RecordMetadata> sent;
  Ring::SealPoint seal{};
  LitmusRun run(GetParam(), {"taken and counted", "refused and not counted"});
  run.run(
      {[&] { sent = (*producers_[0])->append({.value = "12345678"}); },
       [&] {
         ring_.fence();
         do seal = ring_.seal_point();
         while (!seal.known);
       }},
      [&] { renew(4); },
      [&]() -> std::string {
        const std::uint64_t counted = seal.offset.value();
        if (sent && sent->offset == Offset(0) && counted == 1 && sent->end == seal.position)
          return "taken and counted";
        if (!sent && counted == 0) return "refused and not counted";
        return fmt::format("{}, and {} counted", sent ? "taken" : "refused", counted);
      });
}

// A watermark that rises while a reader looks: the offset that belongs to it is there before it.
TEST_P(Litmus, AWatermarkBringsItsOffset) {
  std::uint64_t round = 0;
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  LitmusRun run(GetParam(),
                {"old position, old offset", "old position, new offset", "new position, new offset"});
  run.run(
      {[&] { shm::set_high_watermark(entry(), round * 64, round); },
       [&] {
         position = entry().high_watermark.load(std::memory_order_acquire);
         offset = entry().high_watermark_offset.load(std::memory_order_relaxed);
       }},
      [&] { shm::set_high_watermark(entry(), round * 64, round), ++round; },
      [&] {
        return fmt::format("{} position, {} offset", position == round * 64 ? "new" : "old",
                           offset == round ? "new" : "old");
      });
}

// What exclusive producers rest on: a store and a look that nothing but the compiler keeps in order, beside a store and
// a look with some time between. Without that time neither sees the other now and then.
TEST_P(Litmus, WhoWaitsBehindHisStoreSeesOrIsSeen) {
  struct alignas(128) Word {
    std::atomic<std::uint64_t> value{0};
  };
  Word light;
  Word patient;
  std::uint64_t light_saw = 0;
  std::uint64_t patient_saw = 0;
  LitmusRun run(GetParam(), {"light sees", "patient sees", "both see"});
  run.run(
      {[&] {
         light.value.store(1, std::memory_order_relaxed);
         shm::light_fence();
         light_saw = patient.value.load(std::memory_order_relaxed);
       },
       [&] {
         patient.value.store(1, std::memory_order_relaxed);
         const std::int64_t until = monotonic_ns() + shm::kVisibleNs;
         while (monotonic_ns() < until) {
         }
         patient_saw = light.value.load(std::memory_order_relaxed);
       }},
      [&] {
        light.value.store(0);
        patient.value.store(0);
      },
      [&] {
        if (light_saw != 0 && patient_saw != 0) return "both see";
        return light_saw != 0 ? "light sees" : patient_saw != 0 ? "patient sees" : "neither";
      });
}

// The keeper goes to sleep while a record comes: it sees the record, or its bell is rung.
TEST_P(Litmus, WhoLaysHimselfDownSeesOrIsRung) {
  Position before{0};
  bool seen = false;
  LitmusRun run(GetParam(), {"seen, not rung", "seen, rung", "not seen, rung"});
  run.run(
      {[&] { ASSERT_TRUE((*producers_[0])->append({.value = "12345678"})); },
       [&] {
         entry().hot.fetch_or(shm::kKeeperWaits, std::memory_order_seq_cst);
         seen = ring_.claimed_end().position > before;
       }},
      [&] {
        renew_when_used();
        entry().hot.fetch_and(~std::uint64_t{shm::kKeeperWaits});
        before = ring_.claimed_end().position;
      },
      [&] {
        const bool rung = (entry().hot.load() & shm::kKeeperWaits) == 0;
        return fmt::format("{}, {}", seen ? "seen" : "not seen", rung ? "rung" : "not rung");
      });
}

}  // namespace
}  // namespace ringtail::log
