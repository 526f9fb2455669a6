// Durations, sizes and points in time as people write them, and timestamps as text.
//
// Thread and process safety: pure functions. Every error is invalid_argument and quotes the text.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail {

// A decimal integer with an optional sign and nothing around it.
Result<std::int64_t> parse_integer(std::string_view text);

// An integer with a unit: ns, us, ms, s, m, h, d or w ("5ms", "2h", "-7d"). Without a unit it counts
// `plain_unit`, and is refused where that is zero.
Result<std::chrono::nanoseconds> parse_duration(std::string_view text,
                                                std::chrono::nanoseconds plain_unit = {});

// A number of bytes: plain, or with a unit in powers of 1024 (K, M, G, T, or KiB, MiB, GiB, TiB) or of
// 1000 (kB, MB, GB, TB). A minus sign is accepted, for "-1" means unlimited in configurations.
Result<std::int64_t> parse_bytes(std::string_view text);

// A decimal number that is not negative, with at most 9 fractional digits ("0.5", "1"), in billionths; and
// such a number as text, which parse_decimal gives back.
inline constexpr std::int64_t kBillionths = 1'000'000'000;
Result<std::int64_t> parse_decimal(std::string_view text);
std::string format_decimal(std::int64_t billionths);

// A point in time as nanoseconds since the Unix epoch:
//   "now"; "-5m": so long before `now_ns`;
//   RFC 3339 with up to 9 fractional digits and a zone: "2025-07-17T08:05:03.360842448Z" (a space or t
//   in place of T, and z for Z, are accepted; leap seconds are not);
//   since the epoch with a unit: "1752739503s", "...ms", "...us", "...ns", or with a fraction of up to 9
//   digits, which makes it seconds: "1752739503.36";
//   since the epoch without a unit, told by the number of digits: up to 11 are seconds, 12 to 14
//   milliseconds, 15 to 17 microseconds, 18 and 19 nanoseconds.
Result<std::int64_t> parse_time(std::string_view text, std::int64_t now_ns);

// RFC 3339 in UTC with 9 fractional digits; parse_time gives the same number back.
std::string format_time(std::int64_t time_ns);

}  // namespace ringtail
