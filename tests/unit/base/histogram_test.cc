#include "base/histogram.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <sstream>

namespace ringtail {
namespace {

constexpr std::uint64_t kHighest = std::numeric_limits<std::uint64_t>::max();

TEST(HistogramTest, EveryBucketBeginsWhereItsPredecessorEnds) {
  EXPECT_EQ(Histogram::lowest_of(0), 0u);
  for (std::size_t index = 0; index < Histogram::kCounts; ++index) {
    ASSERT_EQ(Histogram::index_of(Histogram::lowest_of(index)), index);
    ASSERT_EQ(Histogram::index_of(Histogram::highest_of(index)), index);
    if (index > 0) {
      ASSERT_EQ(Histogram::lowest_of(index), Histogram::highest_of(index - 1) + 1);
    }
  }
  EXPECT_EQ(Histogram::index_of(kHighest), Histogram::kCounts - 1);
}

TEST(HistogramTest, ABucketIsAtMostAThousandthOfItsValueWide) {
  for (std::size_t index = Histogram::kSubBuckets; index < Histogram::kCounts; ++index) {
    const std::uint64_t low = Histogram::lowest_of(index);
    ASSERT_LE(Histogram::highest_of(index) - low, low / 1000);
  }
}

TEST(HistogramTest, IsEmptyAtFirst) {
  const auto histogram = std::make_unique<Histogram>();
  EXPECT_EQ(histogram->count(), 0u);
  EXPECT_EQ(histogram->min(), 0u);
  EXPECT_EQ(histogram->max(), 0u);
  EXPECT_EQ(histogram->percentile(50), 0u);
  EXPECT_EQ(histogram->mean(), 0.0);
  EXPECT_EQ(histogram->stddev(), 0.0);
  EXPECT_TRUE(histogram->percentile_curve().empty());
}

TEST(HistogramTest, SmallValuesAreExact) {
  const auto histogram = std::make_unique<Histogram>();
  for (std::uint64_t value = 1; value <= 1000; ++value) histogram->record(value);
  EXPECT_EQ(histogram->percentile(0), 1u);
  EXPECT_EQ(histogram->percentile(50), 500u);
  EXPECT_EQ(histogram->percentile(99), 990u);
  EXPECT_EQ(histogram->percentile(99.9), 999u);
  EXPECT_EQ(histogram->percentile(99.91), 1000u);
  EXPECT_EQ(histogram->percentile(100), 1000u);
  EXPECT_NEAR(histogram->mean(), 500.5, 1e-9);
  EXPECT_NEAR(histogram->stddev(), std::sqrt((1000.0 * 1000.0 - 1.0) / 12.0), 1e-6);
}

TEST(HistogramTest, ExtremesAreKeptExactly) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(0);
  histogram->record(123'456'789'123);
  histogram->record(kHighest - 5);
  EXPECT_EQ(histogram->min(), 0u);
  EXPECT_EQ(histogram->max(), kHighest - 5);
  EXPECT_EQ(histogram->percentile(100), kHighest - 5);
  EXPECT_EQ(histogram->count(), 3u);
}

TEST(HistogramTest, RecordingNoTimesChangesNothing) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record_n(77, 0);
  EXPECT_EQ(histogram->count(), 0u);
  EXPECT_EQ(histogram->max(), 0u);
}

TEST(HistogramTest, PercentilesAgreeWithSortedValuesToAThousandth) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> distribution(8.0, 2.5);
  const auto histogram = std::make_unique<Histogram>();
  std::vector<std::uint64_t> values(20'000);
  for (std::uint64_t& value : values) {
    value = static_cast<std::uint64_t>(distribution(random));
    histogram->record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.1, 1.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const auto rank = static_cast<std::size_t>(std::ceil(percent * 200.0 - 1e-6));
    const auto exact = static_cast<double>(values[rank - 1]);
    EXPECT_NEAR(static_cast<double>(histogram->percentile(percent)), exact, exact / 1000 + 1e-9) << percent;
  }
}

TEST(HistogramTest, MergingCountsWhatBothCounted) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const auto all = std::make_unique<Histogram>();
  const auto first = std::make_unique<Histogram>();
  const auto second = std::make_unique<Histogram>();
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t value = random() >> (random() % 64);
    all->record(value);
    (i % 3 == 0 ? first : second)->record(value);
  }
  first->merge(*second);
  EXPECT_EQ(first->count(), all->count());
  EXPECT_EQ(first->min(), all->min());
  EXPECT_EQ(first->max(), all->max());
  EXPECT_EQ(first->to_hgrm(), all->to_hgrm());

  const auto empty = std::make_unique<Histogram>();
  empty->merge(*all);
  EXPECT_EQ(empty->to_hgrm(), all->to_hgrm());
  empty->merge(Histogram());
  EXPECT_EQ(empty->min(), all->min());
  all->reset();
  EXPECT_EQ(all->count(), 0u);
}

TEST(HistogramTest, TheCurveRisesToAHundredPercent) {
  const auto histogram = std::make_unique<Histogram>();
  for (std::uint64_t value = 1; value <= 100'000; ++value) histogram->record(value);
  const auto curve = histogram->percentile_curve(5);
  ASSERT_GT(curve.size(), 50u);
  EXPECT_EQ(curve.front().percentile, 0.0);
  EXPECT_EQ(curve.back().percentile, 100.0);
  EXPECT_EQ(curve.back().value, 100'000u);
  EXPECT_EQ(curve.back().count, 100'000u);
  // Five points to each halving: 0, 10, 20, 30, 40, then 50, 55, 60, ...
  EXPECT_NEAR(curve[1].percentile, 10.0, 1e-9);
  EXPECT_NEAR(curve[5].percentile, 50.0, 1e-9);
  EXPECT_NEAR(curve[6].percentile, 55.0, 1e-9);
  EXPECT_NEAR(curve[10].percentile, 75.0, 1e-9);
  for (std::size_t i = 1; i < curve.size(); ++i) {
    EXPECT_GT(curve[i].percentile, curve[i - 1].percentile);
    EXPECT_GE(curve[i].value, curve[i - 1].value);
    EXPECT_GE(curve[i].count, curve[i - 1].count);
  }
}

// The text for a histogram small enough to be worked out by hand.
TEST(HistogramTest, WritesTheHgrmFormat) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(1);
  histogram->record(2);
  EXPECT_EQ(histogram->to_hgrm(),
            "       Value     Percentile TotalCount 1/(1-Percentile)\n"
            "\n"
            "       1.000 0.000000000000          1           1.00\n"
            "       1.000 0.100000000000          1           1.11\n"
            "       1.000 0.200000000000          1           1.25\n"
            "       1.000 0.300000000000          1           1.43\n"
            "       1.000 0.400000000000          1           1.67\n"
            "       1.000 0.500000000000          1           2.00\n"
            "       2.000 0.550000000000          2           2.22\n"
            "       2.000 1.000000000000          2\n"
            "#[Mean    =        1.500, StdDeviation   =        0.500]\n"
            "#[Max     =        2.000, Total count    =            2]\n"
            "#[Buckets =           54, SubBuckets     =         2048]\n");
}

TEST(HistogramTest, HgrmValuesAreInTheUnitAskedFor) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(1500);
  EXPECT_NE(histogram->to_hgrm(1000.0).find("       1.500 0.000000000000"), std::string::npos);
}

TEST(HistogramTest, AChildProcessFillsItInSharedMemory) {
  void* memory = mmap(nullptr, sizeof(Histogram), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* histogram = new (memory) Histogram;
  const pid_t child = fork();
  if (child == 0) {
    for (std::uint64_t value = 0; value < 5000; ++value) histogram->record(value);
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(histogram->count(), 5000u);
  EXPECT_EQ(histogram->max(), 4999u);
  EXPECT_EQ(munmap(memory, sizeof(Histogram)), 0);
}

}  // namespace
}  // namespace ringtail
