// Random tokens from the kernel, and bytes as hexadecimal text.
//
// Thread and process safety: pure functions and system calls; unlike a generator in user space, a
// forked child cannot draw its parent's numbers again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail {

// Fills `bytes` (at most 256). Errors: invalid_argument, system. Blocks only in the first moments of
// a machine's life.
Status fill_random(std::span<std::byte> bytes);

// A random number that is not zero. Errors: system.
Result<std::uint64_t> random_token();

// Lower-case hexadecimal digits, two for each byte in order.
std::string to_hex(std::span<const std::byte> bytes);
// 16 digits, most significant first.
std::string to_hex(std::uint64_t value);

// Whether `text` is exactly `digits` lower-case hexadecimal digits.
bool is_hex(std::string_view text, std::size_t digits);
// The number that 16 lower-case hexadecimal digits stand for. Errors: invalid_argument.
Result<std::uint64_t> parse_hex(std::string_view text);

}  // namespace ringtail
