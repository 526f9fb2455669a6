// The lab's producer and consumer loops, over systems that are made up: one that keeps what it is given, and one
// that hands out what the test plants.
#include "harness/loops.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>

namespace ringtail::peers {
namespace {

struct Kept {
  std::vector<std::vector<std::byte>> records;
  std::vector<std::size_t> batches;
};

struct KeepingSender {
  Kept& kept;
  Sent send(Payload payload) {
    kept.records.emplace_back(payload.begin(), payload.end());
    return Sent::yes;
  }
  Sent send_batch(std::span<const Payload> payloads) {
    kept.batches.push_back(payloads.size());
    for (const Payload payload : payloads) send(payload);
    return Sent::yes;
  }
  Sent finish() { return Sent::yes; }
};

struct LendingSender {
  Kept& kept;
  template <class Fill>
  Sent send_in_place(std::size_t size, Fill fill) {
    fill(kept.records.emplace_back(size).data());
    return Sent::yes;
  }
  Sent finish() { return Sent::yes; }
};

struct PlantedReceiver {
  std::deque<std::vector<std::byte>> records;
  template <class Handle>
  int poll(Handle handle) {
    if (records.empty()) return 0;
    handle(Payload(records.front()));
    records.pop_front();
    return 1;
  }
};

class LoopsTest : public testing::Test {
 protected:
  LoopsTest() {
    options_.size = 64;
    auto run = RunFile::create(path_, 1, 1);
    if (run) run_ = std::make_unique<RunFile>(std::move(*run));
  }
  ~LoopsTest() override { std::filesystem::remove(path_); }

  // Sends for 20 ms and returns what was sent, checked.
  template <class Sender>
  std::uint64_t produce() {
    const std::uint64_t start = clock_.now();
    run_->words().end_ns.value = start + 20'000'000;
    Sender sender{kept_};
    Production production(sender, options_, *run_, clock_, start);
    EXPECT_EQ(production.run(nullptr), Sent::yes);
    start_ = start;
    Checker checker(options_.size);
    for (const auto& record : kept_.records) checker.check(record);
    EXPECT_TRUE(checker.good());
    EXPECT_EQ(kept_.records.size(), production.sent());
    return production.sent();
  }

  std::string path_ =
      (std::filesystem::temp_directory_path() / ("ringtail-loops-" + std::to_string(::getpid()))).string();
  std::unique_ptr<RunFile> run_;
  Options options_;
  Clock clock_;
  Kept kept_;
  std::uint64_t start_ = 0;
};

TEST_F(LoopsTest, AnOpenLoopKeepsItsScheduleInWordZero) {
  options_.rate = 100'000;
  EXPECT_EQ(produce<KeepingSender>(), 2'001U);  // due at 0 to 20 ms, both included
  for (std::uint64_t n = 0; n < kept_.records.size(); ++n) {
    ASSERT_EQ(word_of(kept_.records[n].data(), 0), start_ + n * 10'000) << n;
  }
}

TEST_F(LoopsTest, BatchesAreWhole) {
  options_.rate = 100'000;
  options_.batch = 64;
  produce<KeepingSender>();
  EXPECT_FALSE(kept_.batches.empty());
  for (const std::size_t batch : kept_.batches) EXPECT_EQ(batch, 64U);
}

TEST_F(LoopsTest, LentMemoryIsFilledAlike) {
  options_.rate = 100'000;
  EXPECT_EQ(produce<LendingSender>(), 2'001U);
}

TEST_F(LoopsTest, AClosedLoopStampsOneRecordIn64) {
  produce<KeepingSender>();
  ASSERT_GT(kept_.records.size(), 200U);
  std::uint64_t last = 0;
  for (std::uint64_t n = 0; n < kept_.records.size(); n += kSampleEvery) {
    const std::uint64_t stamp = word_of(kept_.records[n].data(), 0);
    EXPECT_GT(stamp, last);
    last = stamp;
  }
}

TEST_F(LoopsTest, StopEndsAProducer) {
  options_.rate = 1;
  run_->words().end_ns.value = ~std::uint64_t{0};
  run_->words().stop.value = 1;
  KeepingSender sender{kept_};
  Production production(sender, options_, *run_, clock_, clock_.now());
  production.run(nullptr);
  EXPECT_EQ(production.sent(), 0U);
}

TEST_F(LoopsTest, AReaderFindsWhatTheSystemLostAndRepeated) {
  PlantedReceiver receiver;
  for (const std::uint64_t sequence : {0U, 1U, 3U, 3U, 4U}) {
    fill_payload(receiver.records.emplace_back(64).data(), 64, 5, 0, sequence);
  }
  run_->finish_sending(0, 5);
  Tally tally(options_, *run_, clock_);
  bool gave_up = false;
  EXPECT_TRUE(receive_all(receiver, tally.checks, options_, *run_, clock_, gave_up,
                          [&](Payload payload) { tally.take(payload); }));
  EXPECT_EQ(tally.checks.lost(), 1U);
  EXPECT_EQ(tally.checks.duplicated(), 1U);
}

TEST_F(LoopsTest, WarmUpIsCountedApart) {
  PlantedReceiver receiver;
  for (std::uint64_t n = 0; n < 10; ++n) fill_payload(receiver.records.emplace_back(64).data(), 64, n, 0, n);
  options_.rate = 1'000;
  run_->words().measure_ns.value = 4;
  run_->finish_sending(0, 10);
  Tally tally(options_, *run_, clock_);
  bool gave_up = false;
  receive_all(receiver, tally.checks, options_, *run_, clock_, gave_up,
              [&](Payload payload) { tally.take(payload); });
  EXPECT_EQ(tally.warmup, 4U);
  EXPECT_EQ(tally.measured, 6U);
  EXPECT_EQ(tally.latency->count(), 6U);
}

TEST_F(LoopsTest, TheClockFollowsTheKernels) {
  for (int i = 0; i < 100'000; ++i) {
    const auto before = static_cast<std::uint64_t>(monotonic_ns());
    const std::uint64_t now = clock_.now();
    const auto after = static_cast<std::uint64_t>(monotonic_ns());
    ASSERT_GE(now + 2'000, before);
    ASSERT_LE(now, after + 2'000);
  }
}

TEST_F(LoopsTest, ARunFileOfAnotherKindIsRefused) {
  const std::string other = path_ + "-other";
  std::ofstream(other) << std::string(RunFile::kBytes, 'x');
  const auto opened = RunFile::open(other);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::incompatible_layout);
  std::filesystem::remove(other);
  EXPECT_FALSE(RunFile::open(other));
}

TEST_F(LoopsTest, AllSentWantsEveryProducer) {
  run_->words().producers.value = 2;
  std::uint64_t total = 0;
  run_->finish_sending(0, 5);
  EXPECT_FALSE(run_->all_sent(total));
  run_->finish_sending(1, 0);
  EXPECT_TRUE(run_->all_sent(total));
  EXPECT_EQ(total, 5U);
}

}  // namespace
}  // namespace ringtail::peers
