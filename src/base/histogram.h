// A histogram of 64-bit values (nanoseconds, mostly) with three significant digits, in the log-linear
// bucket layout of HdrHistogram: values below 2048 are counted exactly, above that every power of two
// is cut into 1024 equal buckets, so a value is known to within 0.1 % whatever its size.
//
// Thread safety: one writer; readers only after the writer has finished (joined, or waited for).
// Process safety: the same. The object has a fixed size (440 KiB, of which only the buckets in use are
// touched), no pointers and no destructor: construct it in a MAP_SHARED mapping, let a child process
// fill it and read it in the parent. Elsewhere keep it on the heap, not on a stack.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ringtail {

class Histogram {
 public:
  static constexpr unsigned kSubBucketBits = 11;
  static constexpr std::uint64_t kSubBuckets = 1u << kSubBucketBits;  // 2 x 10^3, rounded up
  static constexpr std::uint64_t kBuckets = 64 - kSubBucketBits + 1;  // powers of two above them
  static constexpr std::size_t kCounts = (kBuckets + 1) * (kSubBuckets / 2);

  // One point of the percentile distribution: `count` values are at most `value`, and they are at
  // least `percentile` % of all.
  struct CurvePoint {
    std::uint64_t value;
    double percentile;
    std::uint64_t count;
  };

  // Counts one value. Takes a few nanoseconds, never allocates.
  void record(std::uint64_t value) { record_n(value, 1); }

  // Counts a value `n` times.
  void record_n(std::uint64_t value, std::uint64_t n) {
    if (n == 0) return;
    counts_[index_of(value)] += n;
    count_ += n;
    if (value < min_) min_ = value;
    if (value > max_) max_ = value;
  }

  // Adds all that `other` has counted.
  void merge(const Histogram& other);
  void reset() { *this = Histogram(); }

  // The value that `percent` % (0 to 100) of all values do not exceed, to three digits and never above
  // max(); 0 when nothing was counted.
  std::uint64_t percentile(double percent) const;

  std::uint64_t count() const { return count_; }
  std::uint64_t min() const { return count_ == 0 ? 0 : min_; }  // exact
  std::uint64_t max() const { return max_; }                    // exact
  double mean() const;                                          // to three digits, as is stddev
  double stddev() const;

  // The distribution, with `ticks` points for every halving of the distance to 100 %; the last point
  // is 100 %. Empty when nothing was counted.
  std::vector<CurvePoint> percentile_curve(unsigned ticks = 5) const;

  // The distribution as text in HdrHistogram's .hgrm format, which its plotter reads. Values are
  // divided by `unit` (1000: nanoseconds as microseconds).
  std::string to_hgrm(double unit = 1.0) const;

  // Bucket arithmetic, public for tests and for charts of the counts themselves.
  static constexpr std::size_t index_of(std::uint64_t value) {
    const auto bucket = static_cast<unsigned>(std::bit_width(value | (kSubBuckets - 1))) - kSubBucketBits;
    return (std::size_t{bucket} << (kSubBucketBits - 1)) + static_cast<std::size_t>(value >> bucket);
  }
  static constexpr std::uint64_t lowest_of(std::size_t index) {
    const std::size_t half = index >> (kSubBucketBits - 1);
    if (half < 2) return index;  // the exact buckets
    const std::size_t bucket = half - 1;
    return std::uint64_t{index - (bucket << (kSubBucketBits - 1))} << bucket;
  }
  static constexpr std::uint64_t highest_of(std::size_t index) {
    return index + 1 < kCounts ? lowest_of(index + 1) - 1 : ~std::uint64_t{0};
  }
  std::uint64_t count_at(std::size_t index) const { return counts_[index]; }

 private:
  // Calls visit(index, count) for every bucket in use, in rising order.
  template <class Visit>
  void for_each_bucket(Visit visit) const;

  std::uint64_t count_ = 0;
  std::uint64_t min_ = ~std::uint64_t{0};
  std::uint64_t max_ = 0;
  std::array<std::uint64_t, kCounts> counts_{};
};

}  // namespace ringtail
