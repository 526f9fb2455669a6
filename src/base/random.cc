#include "base/random.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/result.h"

namespace ringtail {

Status fill_random(std::span<std::byte> bytes) {
  constexpr std::size_t kWholeUpTo = 256;  // getrandom never splits requests up to this size
  if (bytes.size() > kWholeUpTo) {
    return fail(Code::invalid_argument,
                fmt::format("{} random bytes were asked for, at most {} can be had at once", bytes.size(),
                            kWholeUpTo));
  }
  while (::getrandom(bytes.data(), bytes.size(), 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, "cannot get random bytes from the kernel");
  }
  return {};
}

Result<std::uint64_t> random_token() {
  std::uint64_t token = 0;
  while (token == 0) {
    if (auto filled = fill_random(std::as_writable_bytes(std::span(&token, 1))); !filled) {
      return std::unexpected(filled.error());
    }
  }
  return token;
}

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<std::size_t>(byte >> 4)];
    text += kDigits[std::to_integer<std::size_t>(byte & std::byte{0xf})];
  }
  return text;
}

std::string to_hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<std::uint64_t> parse_hex(std::string_view text) {
  constexpr std::size_t kDigits = 16;
  if (!is_hex(text, kDigits)) {
    return fail(Code::invalid_argument,
                fmt::format("'{}' is not {} lower-case hexadecimal digits", text, kDigits));
  }
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

}  // namespace ringtail
