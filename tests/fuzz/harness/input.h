// Takes the input of a fuzz target apart into choices, and ends the process where something is not as it must be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>

namespace ringtail::fuzz {

// An input that is used up gives zeros, so that every input means something.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : at_(size == 0 ? &kNothing : data), left_(size) {}

  bool empty() const { return left_ == 0; }

  template <class T>
    requires std::is_integral_v<T>
  T take() {
    T value{};
    const std::size_t bytes = left_ < sizeof value ? left_ : sizeof value;
    if (bytes > 0) std::memcpy(&value, at_, bytes);
    skip(bytes);
    return value;
  }
  // A number below `n`. Takes as few bytes as will do.
  std::uint64_t pick(std::uint64_t n) {
    if (n <= 1) return 0;
    if (n <= 1u << 8) return take<std::uint8_t>() % n;
    if (n <= 1u << 16) return take<std::uint16_t>() % n;
    return take<std::uint64_t>() % n;
  }
  bool one_of(std::uint64_t n) { return pick(n) == 0; }
  // At most `most` bytes, as many as the input says.
  std::string_view text(std::size_t most) {
    std::size_t bytes = pick(most + 1);
    if (bytes > left_) bytes = left_;
    return {skip(bytes), bytes};
  }
  std::string_view rest() {
    const std::size_t bytes = left_;
    return {skip(bytes), bytes};
  }

 private:
  const char* skip(std::size_t bytes) {
    const auto* from = reinterpret_cast<const char*>(at_);
    at_ += bytes;
    left_ -= bytes;
    return from;
  }

  static constexpr std::uint8_t kNothing = 0;

  const std::uint8_t* at_;
  std::size_t left_;
};

// What holds whatever the input is.
inline void demand(bool holds, std::string_view what,
                   std::source_location where = std::source_location::current()) {
  if (holds) return;
  std::fprintf(stderr, "%s:%u: not so: %.*s\n", where.file_name(), static_cast<unsigned>(where.line()),
               static_cast<int>(what.size()), what.data());
  std::abort();
}

// Looks at each byte, for the sanitizers, or the absence of a page, to tell if one is not there.
inline void touch(std::string_view bytes) {
  unsigned sum = 0;
  for (const char c : bytes) sum += static_cast<unsigned char>(c);
  // A use that the compiler cannot leave out.
  asm volatile("" : : "r"(sum));
}

}  // namespace ringtail::fuzz

// What libFuzzer, or the driver beside this file, calls. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
