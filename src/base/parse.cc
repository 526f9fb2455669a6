#include "base/parse.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>

namespace ringtail {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

constexpr std::int64_t kSecondNs = 1'000'000'000;

constexpr Unit kDurationUnits[] = {
    {"ns", 1},
    {"us", 1'000},
    {"ms", 1'000'000},
    {"s", kSecondNs},
    {"m", 60 * kSecondNs},
    {"h", 3600 * kSecondNs},
    {"d", 86'400 * kSecondNs},
    {"w", 7 * 86'400 * kSecondNs},
};

constexpr Unit kEpochUnits[] = {{"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", kSecondNs}};

constexpr Unit kByteUnits[] = {
    {"", 1},
    {"K", 1LL << 10},
    {"KiB", 1LL << 10},
    {"kB", 1'000},
    {"M", 1LL << 20},
    {"MiB", 1LL << 20},
    {"MB", 1'000'000},
    {"G", 1LL << 30},
    {"GiB", 1LL << 30},
    {"GB", 1'000'000'000},
    {"T", 1LL << 40},
    {"TiB", 1LL << 40},
    {"TB", 1'000'000'000'000},
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The integer at the start of `text`, which loses it. Nothing when there is none, or it is too large.
std::optional<std::int64_t> take_integer(std::string_view& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// The value of exactly `digits` digits at the start of `text`, which loses them.
std::optional<unsigned> take_digits(std::string_view& text, std::size_t digits) {
  if (text.size() < digits || !std::ranges::all_of(text.substr(0, digits), is_digit)) return std::nullopt;
  unsigned value = 0;
  for (const char c : text.substr(0, digits)) value = value * 10 + static_cast<unsigned>(c - '0');
  text.remove_prefix(digits);
  return value;
}

bool take_char(std::string_view& text, std::string_view any_of) {
  if (text.empty() || !any_of.contains(text.front())) return false;
  text.remove_prefix(1);
  return true;
}

// Up to 9 digits behind a decimal point, as nanoseconds of a second.
std::optional<std::int64_t> take_fraction(std::string_view& text) {
  const std::size_t digits =
      static_cast<std::size_t>(std::ranges::find_if_not(text, is_digit) - text.begin());
  if (digits == 0 || digits > 9) return std::nullopt;
  std::int64_t value = *take_digits(text, digits);
  for (std::size_t i = digits; i < 9; ++i) value *= 10;
  return value;
}

std::optional<std::int64_t> multiply(std::int64_t a, std::int64_t b) {
  std::int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

std::optional<std::int64_t> add(std::int64_t a, std::int64_t b) {
  std::int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

// Nanoseconds of `seconds` and a fraction of a second. Before 1970 the fraction counts back from the
// next second, for the first second of the range does not begin within it.
std::optional<std::int64_t> join_seconds(std::int64_t seconds, std::int64_t fraction_ns) {
  if (seconds < 0) {
    seconds += 1;
    fraction_ns -= kSecondNs;
  }
  const auto whole = multiply(seconds, kSecondNs);
  return whole ? add(*whole, fraction_ns) : std::nullopt;
}

// `text` as an integer followed by exactly one of `units`.
std::optional<std::int64_t> parse_with_unit(std::string_view text, std::span<const Unit> units) {
  const auto number = take_integer(text);
  if (!number) return std::nullopt;
  const auto unit = std::ranges::find(units, text, &Unit::name);
  if (unit == units.end()) return std::nullopt;
  return multiply(*number, unit->factor);
}

// "08:05" or "08:05:03" are told by `with_seconds`; the value is in seconds.
std::optional<std::int64_t> take_clock_time(std::string_view& text, bool with_seconds) {
  const auto hour = take_digits(text, 2);
  if (!hour || *hour > 23 || !take_char(text, ":")) return std::nullopt;
  const auto minute = take_digits(text, 2);
  if (!minute || *minute > 59) return std::nullopt;
  std::optional<unsigned> second = 0;
  if (with_seconds) {
    if (!take_char(text, ":")) return std::nullopt;
    second = take_digits(text, 2);
    if (!second || *second > 59) return std::nullopt;
  }
  return *hour * 3600 + *minute * 60 + *second;
}

// Seconds east of Greenwich.
std::optional<std::int64_t> take_zone(std::string_view& text) {
  if (take_char(text, "Zz")) return 0;
  if (text.empty() || (text.front() != '+' && text.front() != '-')) return std::nullopt;
  const std::int64_t sign = text.front() == '-' ? -1 : 1;
  text.remove_prefix(1);
  const auto distance = take_clock_time(text, false);
  if (!distance) return std::nullopt;
  return sign * *distance;
}

std::optional<std::int64_t> parse_rfc3339(std::string_view text) {
  const auto year = take_digits(text, 4);
  if (!year || !take_char(text, "-")) return std::nullopt;
  const auto month = take_digits(text, 2);
  if (!month || !take_char(text, "-")) return std::nullopt;
  const auto day = take_digits(text, 2);
  if (!day || !take_char(text, "Tt ")) return std::nullopt;
  const std::chrono::year_month_day date(std::chrono::year(static_cast<int>(*year)),
                                         std::chrono::month(*month), std::chrono::day(*day));
  const auto time = take_clock_time(text, true);
  if (!date.ok() || !time) return std::nullopt;
  std::optional<std::int64_t> fraction = 0;
  if (take_char(text, ".")) fraction = take_fraction(text);
  const auto zone = take_zone(text);
  if (!fraction || !zone || !text.empty()) return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return join_seconds(days * 86'400 + *time - *zone, *fraction);
}

std::optional<std::int64_t> parse_epoch(std::string_view text) {
  const std::size_t digits =
      static_cast<std::size_t>(std::ranges::find_if_not(text, is_digit) - text.begin());
  if (digits == 0) return std::nullopt;
  if (digits < text.size() && text[digits] != '.') return parse_with_unit(text, kEpochUnits);
  const bool has_fraction = digits < text.size();
  const auto number = take_integer(text);
  if (!number) return std::nullopt;
  if (has_fraction) {
    text.remove_prefix(1);
    const auto fraction = take_fraction(text);
    return fraction && text.empty() ? join_seconds(*number, *fraction) : std::nullopt;
  }
  const std::int64_t factor = digits <= 11 ? kSecondNs : digits <= 14 ? 1'000'000 : digits <= 17 ? 1'000 : 1;
  return multiply(*number, factor);
}

}  // namespace

Result<std::int64_t> parse_integer(std::string_view text) {
  std::string_view rest = text;
  const auto value = take_integer(rest);
  if (!value || !rest.empty()) {
    return fail(Code::invalid_argument, fmt::format("'{}' is not an integer of 64 bits", text));
  }
  return *value;
}

Result<std::chrono::nanoseconds> parse_duration(std::string_view text, std::chrono::nanoseconds plain_unit) {
  std::string_view rest = text;
  const auto number = take_integer(rest);
  std::optional<std::int64_t> value;
  if (number && rest.empty() && plain_unit.count() != 0) {
    value = multiply(*number, plain_unit.count());
  } else {
    value = parse_with_unit(text, kDurationUnits);
  }
  if (!value) {
    return fail(Code::invalid_argument,
                fmt::format("'{}' is not a duration; write an integer with ns, us, ms, s, m, h, d or w, for "
                            "example 500ms, at most 292 years",
                            text));
  }
  return std::chrono::nanoseconds(*value);
}

Result<std::int64_t> parse_bytes(std::string_view text) {
  const auto value = parse_with_unit(text, kByteUnits);
  if (!value) {
    return fail(
        Code::invalid_argument,
        fmt::format("'{}' is not a number of bytes; write an integer, alone or with K, KiB, kB, M, MiB, "
                    "MB, G, GiB, GB, T, TiB or TB, below 8 EiB",
                    text));
  }
  return *value;
}

Result<std::int64_t> parse_decimal(std::string_view text) {
  std::string_view rest = text;
  const bool signless = !rest.empty() && is_digit(rest.front());
  const auto whole = signless ? take_integer(rest) : std::nullopt;
  std::optional<std::int64_t> fraction = 0;
  if (take_char(rest, ".")) fraction = take_fraction(rest);
  const auto scaled = whole && fraction && rest.empty() ? multiply(*whole, kBillionths) : std::nullopt;
  const auto value = scaled ? add(*scaled, *fraction) : std::nullopt;
  if (value) return *value;
  return fail(Code::invalid_argument,
              fmt::format("'{}' is no decimal number such as 0.5, with at most 9 fractional digits", text));
}

std::string format_decimal(std::int64_t billionths) {
  std::string text = fmt::format("{}.{:09}", billionths / kBillionths, billionths % kBillionths);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

Result<std::int64_t> parse_time(std::string_view text, std::int64_t now_ns) {
  std::optional<std::int64_t> value;
  if (text == "now") {
    value = now_ns;
  } else if (text.starts_with('-')) {
    if (const auto ago = parse_with_unit(text, kDurationUnits)) value = add(now_ns, *ago);
  } else {
    value = parse_epoch(text);
    if (!value) value = parse_rfc3339(text);
  }
  if (!value) {
    return fail(
        Code::invalid_argument,
        fmt::format("'{}' is not a time between 1677 and 2262; write RFC 3339 with a zone "
                    "(2025-07-17T08:05:03.36Z), time since the epoch (1752739503s, or with ms, us, ns), "
                    "a time before now (-5m), or now",
                    text));
  }
  return *value;
}

std::string format_time(std::int64_t time_ns) {
  const std::chrono::sys_time<std::chrono::nanoseconds> time{std::chrono::nanoseconds(time_ns)};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto day = std::chrono::floor<std::chrono::days>(seconds);
  const std::chrono::year_month_day date(day);
  const std::int64_t second = (seconds - day).count();
  // Not time - seconds: that overflows within the first second that can be represented.
  const std::int64_t fraction = ((time_ns % kSecondNs) + kSecondNs) % kSecondNs;
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), second / 3600,
                     second / 60 % 60, second % 60, fraction);
}

}  // namespace ringtail
