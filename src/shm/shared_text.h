// Short text in shared memory: relaxed atomic bytes, so that a reader beside a writer gets a mixture at
// worst. Whoever needs it whole publishes it by another word.
//
// Thread and process safety: any number of readers, one writer at a time; both are wait-free.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <string>
#include <string_view>

namespace ringtail::shm {

// At most `Size - 1` bytes, none of them zero; zeroed memory is the empty text.
template <std::size_t Size>
struct SharedText {
  static constexpr std::size_t kMaxBytes = Size - 1;

  // What is longer is cut off.
  void store(std::string_view text) {
    const std::size_t bytes = std::min(text.size(), kMaxBytes);
    for (std::size_t i = 0; i < bytes; ++i) letters[i].store(text[i], std::memory_order_relaxed);
    letters[bytes].store(0, std::memory_order_relaxed);
  }
  std::string load() const {
    std::string text;
    for (const auto& letter : letters) {
      const char c = letter.load(std::memory_order_relaxed);
      if (c == 0) break;
      text += c;
    }
    return text;
  }
  bool equals(std::string_view text) const {
    if (text.size() > kMaxBytes) return false;
    for (std::size_t i = 0; i < text.size(); ++i)
      if (letters[i].load(std::memory_order_relaxed) != text[i]) return false;
    return letters[text.size()].load(std::memory_order_relaxed) == 0;
  }

  std::array<std::atomic<char>, Size> letters;
};

}  // namespace ringtail::shm
