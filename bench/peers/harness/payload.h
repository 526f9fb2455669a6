// What every record of the lab carries, and what a reader checks of it.
//
// Word 0 is the intended send time, word 1 names producer and sequence, each following word follows from word 1
// and its place; so a record that was lost, repeated, reordered, torn or overwritten is found.
// Thread safety: none; one object per reader.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>

#include "harness/run_file.h"

namespace ringtail::peers {

inline constexpr unsigned kProducerShift = 56;
inline constexpr std::uint64_t kSequenceMask = (std::uint64_t{1} << kProducerShift) - 1;
inline constexpr std::uint64_t kPattern = 0x9E3779B97F4A7C15;

inline std::uint64_t word_of(const std::byte* payload, std::size_t index) {
  std::uint64_t word;
  std::memcpy(&word, payload + index * 8, sizeof word);
  return word;
}
inline void set_word(std::byte* payload, std::size_t index, std::uint64_t word) {
  std::memcpy(payload + index * 8, &word, sizeof word);
}

// Writes a whole payload of `size` bytes (a multiple of 8, at least 32).
inline void fill_payload(std::byte* to, std::size_t size, std::uint64_t intended_ns, unsigned producer,
                         std::uint64_t sequence) {
  const std::uint64_t name = std::uint64_t{producer} << kProducerShift | sequence;
  const std::uint64_t pattern = name * kPattern;
  set_word(to, 0, intended_ns);
  set_word(to, 1, name);
  for (std::size_t i = 2; i < size / 8; ++i) set_word(to, i, pattern + i);
}

// The checks of one reader, over all producers.
class Checker {
 public:
  explicit Checker(std::size_t size) : size_(size) {}

  // Checks one record: its place in its producer's order, and one word of every 64 bytes, the last included.
  // Returns its sequence.
  std::uint64_t check(std::span<const std::byte> payload) {
    ++received_;
    if (payload.size() != size_) [[unlikely]]
      return corrupt_record();
    const std::byte* bytes = payload.data();
    const std::uint64_t name = word_of(bytes, 1);
    const std::uint64_t pattern = name * kPattern;
    const std::size_t words = size_ / 8;
    std::uint64_t differs =
        (word_of(bytes, 2) ^ (pattern + 2)) | (word_of(bytes, words - 1) ^ (pattern + words - 1));
    for (std::size_t i = 8; i < words; i += 8) differs |= word_of(bytes, i) ^ (pattern + i);
    const std::uint64_t producer = name >> kProducerShift;
    if (differs != 0 || producer >= kMaxProducers) [[unlikely]]
      return corrupt_record();
    const std::uint64_t sequence = name & kSequenceMask;
    if (sequence != next_[producer]) [[unlikely]]
      out_of_order(producer, sequence);
    else
      ++next_[producer];
    return sequence;
  }

  // At the end, when it is known how many a producer has sent: what is missing behind the last that came.
  void expect_end(unsigned producer, std::uint64_t sent) {
    if (sent > next_[producer]) lost_ += sent - next_[producer];
  }

  std::uint64_t received() const { return received_; }
  std::uint64_t lost() const { return lost_; }
  std::uint64_t duplicated() const { return duplicated_; }
  std::uint64_t reordered() const { return reordered_; }
  std::uint64_t corrupt() const { return corrupt_; }
  bool good() const { return lost_ + duplicated_ + reordered_ + corrupt_ == 0; }

 private:
  std::uint64_t corrupt_record() {
    ++corrupt_;
    return kSequenceMask;
  }

  // A gap counts as lost until its records come after all; then they were reordered.
  void out_of_order(std::uint64_t producer, std::uint64_t sequence) {
    if (sequence > next_[producer]) {
      lost_ += sequence - next_[producer];
      gaps_[producer].emplace(next_[producer], sequence);
      next_[producer] = sequence + 1;
      return;
    }
    auto& gaps = gaps_[producer];
    auto gap = gaps.upper_bound(sequence);
    if (gap == gaps.begin() || (--gap)->second <= sequence) {
      ++duplicated_;
      return;
    }
    const auto [begin, end] = *gap;
    gaps.erase(gap);
    if (begin < sequence) gaps.emplace(begin, sequence);
    if (sequence + 1 < end) gaps.emplace(sequence + 1, end);
    --lost_;
    ++reordered_;
  }

  std::size_t size_;
  std::uint64_t received_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t duplicated_ = 0;
  std::uint64_t reordered_ = 0;
  std::uint64_t corrupt_ = 0;
  std::array<std::uint64_t, kMaxProducers> next_{};
  std::array<std::map<std::uint64_t, std::uint64_t>, kMaxProducers> gaps_;  // [begin, end) of what is missing
};

}  // namespace ringtail::peers
