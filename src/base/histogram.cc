#include "base/histogram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <type_traits>

namespace ringtail {

static_assert(std::is_trivially_copyable_v<Histogram>, "filled by one process and read by another");

namespace {

// A bucket stands for its middle when values are averaged.
double middle_of(std::size_t index) {
  const std::uint64_t low = Histogram::lowest_of(index);
  const std::uint64_t width = Histogram::highest_of(index) - low + 1;
  const std::uint64_t half = width / 2;
  return static_cast<double>(low) + static_cast<double>(half);
}

// Points per unit of percentile double each time the distance to 100 % halves.
double next_level(double level, unsigned ticks) {
  const double halvings = std::floor(std::log2(100.0 / (100.0 - level)));
  return level + 100.0 / (ticks * std::exp2(halvings + 1));
}

}  // namespace

template <class Visit>
void Histogram::for_each_bucket(Visit visit) const {
  if (count_ == 0) return;
  for (std::size_t index = index_of(min_); index <= index_of(max_); ++index) {
    if (counts_[index] != 0) visit(index, counts_[index]);
  }
}

void Histogram::merge(const Histogram& other) {
  other.for_each_bucket([this](std::size_t index, std::uint64_t n) { counts_[index] += n; });
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

std::uint64_t Histogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  const double share = std::clamp(percent, 0.0, 100.0) / 100.0 * static_cast<double>(count_);
  // 99.9 % of 1000 must be 999, though 99.9 / 100 * 1000 comes out a little above it.
  const double exact = std::ceil(share * (1 - 1e-14));
  const std::uint64_t wanted = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(exact), 1, count_);
  std::uint64_t seen = 0;
  for (std::size_t index = index_of(min_); index < kCounts; ++index) {
    seen += counts_[index];
    if (seen >= wanted) return std::clamp(highest_of(index), min_, max_);
  }
  return max_;
}

double Histogram::mean() const {
  if (count_ == 0) return 0;
  double sum = 0;
  for_each_bucket(
      [&](std::size_t index, std::uint64_t n) { sum += middle_of(index) * static_cast<double>(n); });
  return sum / static_cast<double>(count_);
}

double Histogram::stddev() const {
  if (count_ == 0) return 0;
  const double centre = mean();
  double sum = 0;
  for_each_bucket([&](std::size_t index, std::uint64_t n) {
    const double distance = middle_of(index) - centre;
    sum += distance * distance * static_cast<double>(n);
  });
  return std::sqrt(sum / static_cast<double>(count_));
}

std::vector<Histogram::CurvePoint> Histogram::percentile_curve(unsigned ticks) const {
  std::vector<CurvePoint> curve;
  const auto total = static_cast<double>(count_);
  double level = 0;
  std::uint64_t seen = 0;
  for_each_bucket([&](std::size_t index, std::uint64_t n) {
    seen += n;
    const std::uint64_t value = std::min(highest_of(index), max_);
    const double reached = 100.0 * static_cast<double>(seen) / total;
    while (reached >= level && level < 100.0) {
      curve.push_back({value, level, seen});
      if (seen == count_) break;  // the last bucket: the point at 100 % says the rest
      level = next_level(level, ticks);
    }
  });
  if (count_ != 0) curve.push_back({max_, 100.0, count_});
  return curve;
}

std::string Histogram::to_hgrm(double unit) const {
  std::string text =
      fmt::format("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
  auto out = std::back_inserter(text);
  for (const CurvePoint& point : percentile_curve()) {
    const double share = point.percentile / 100.0;
    const double value = static_cast<double>(point.value) / unit;
    fmt::format_to(out, "{:12.3f} {:2.12f} {:10}", value, share, point.count);
    if (share < 1.0) fmt::format_to(out, " {:14.2f}", 1.0 / (1.0 - share));
    text += '\n';
  }
  const double highest = static_cast<double>(max_) / unit;
  fmt::format_to(out, "#[Mean    = {:12.3f}, StdDeviation   = {:12.3f}]\n", mean() / unit, stddev() / unit);
  fmt::format_to(out, "#[Max     = {:12.3f}, Total count    = {:12}]\n", highest, count_);
  fmt::format_to(out, "#[Buckets = {:12}, SubBuckets     = {:12}]\n", kBuckets, kSubBuckets);
  return text;
}

}  // namespace ringtail
