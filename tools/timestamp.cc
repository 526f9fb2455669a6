#include "tools/timestamp.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <limits>

#include "base/clock.h"
#include "base/parse.h"

namespace ringtail::tools {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads up to `places` digits at the front of `text` as a fraction with that many places. False when
// there is no digit, or more of them.
bool take_fraction(std::string_view& text, int places, std::int64_t& fraction) {
  int digits = 0;
  fraction = 0;
  while (!text.empty() && is_digit(text.front())) {
    if (++digits > places) return false;
    fraction = fraction * 10 + (text.front() - '0');
    text.remove_prefix(1);
  }
  for (int i = digits; i < places; ++i) fraction *= 10;
  return digits > 0;
}

std::unexpected<Error> bad_time(std::string_view text, std::string_view expected) {
  return fail(Code::invalid_argument, fmt::format("'{}' is no timestamp {}", text, expected));
}

bool multiply_add(std::int64_t value, std::int64_t factor, std::int64_t addend, std::int64_t& out) {
  return !__builtin_mul_overflow(value, factor, &out) && !__builtin_add_overflow(out, addend, &out);
}

// Whether the day exists: strptime takes 31 February, and timegm makes another day of it. The time of day is left out,
// for a leap second belongs to the next day there.
bool is_day(const std::tm& parts) {
  std::tm day = {};
  day.tm_year = parts.tm_year;
  day.tm_mon = parts.tm_mon;
  day.tm_mday = parts.tm_mday;
  ::timegm(&day);
  return day.tm_mon == parts.tm_mon && day.tm_mday == parts.tm_mday;
}

}  // namespace

Result<TimestampFormat> TimestampFormat::make(std::string_view format) {
  TimestampFormat made;
  if (format == "auto") return made;
  static constexpr std::pair<std::string_view, int> kUnits[] = {{"ns", 0}, {"us", 3}, {"ms", 6}, {"s", 9}};
  for (const auto& [name, decimals] : kUnits) {
    if (format != name) continue;
    made.kind_ = Kind::number;
    made.decimals_ = decimals;
    return made;
  }
  if (!format.contains('%')) {
    return fail(Code::invalid_argument,
                fmt::format("--timestamp-format '{}' is neither auto, ns, us, ms or s nor a format with % "
                            "fields such as '%Y-%m-%d %H:%M:%S.%f'",
                            format));
  }
  made.kind_ = Kind::broken_down;
  const std::size_t at = format.find("%f");
  made.has_fraction_ = at != std::string_view::npos;
  made.before_ = format.substr(0, at);
  if (made.has_fraction_) made.after_ = format.substr(at + 2);
  return made;
}

Result<std::int64_t> TimestampFormat::parse(std::string_view text) const {
  switch (kind_) {
    case Kind::number: return parse_number(text);
    case Kind::broken_down: return parse_broken_down(text);
    case Kind::automatic: break;
  }
  // Relative times are for people; in data they would hide a mistake.
  if (text.empty() || !is_digit(text.front())) {
    return bad_time(text, "(RFC 3339 or a number since the epoch)");
  }
  return parse_time(text, 0);
}

Result<std::int64_t> TimestampFormat::parse_number(std::string_view text) const {
  const std::size_t point = text.find('.');
  const Result<std::int64_t> whole = parse_integer(text.substr(0, point));
  if (!whole) return bad_time(text, "of digits");
  std::int64_t fraction = 0;
  if (point != std::string_view::npos) {
    std::string_view digits = text.substr(point + 1);
    if (!take_fraction(digits, decimals_, fraction) || !digits.empty()) {
      return bad_time(text, fmt::format("with at most {} decimals", decimals_));
    }
    if (text.front() == '-') fraction = -fraction;
  }
  std::int64_t unit = 1;
  for (int i = 0; i < decimals_; ++i) unit *= 10;
  std::int64_t ns;
  if (!multiply_add(*whole, unit, fraction, ns)) return bad_time(text, "between the years 1678 and 2262");
  return ns;
}

Result<std::int64_t> TimestampFormat::parse_broken_down(std::string_view text) const {
  std::string rest(text);
  std::tm parts = {};
  std::int64_t fraction = 0;
  if (has_fraction_) {
    // Once to find the fraction; it is cut out, for fields behind it (%p) change what those before mean.
    const char* at = ::strptime(rest.c_str(), before_.c_str(), &parts);
    if (at == nullptr) return bad_time(text, "of the given format");
    std::string_view tail(at);
    const std::size_t begin = rest.size() - tail.size();
    if (!take_fraction(tail, 9, fraction)) return bad_time(text, "with a fraction of 1 to 9 digits");
    rest.erase(begin, rest.size() - tail.size() - begin);
  }
  parts = {};
  parts.tm_mday = 1;
  const char* end = ::strptime(rest.c_str(), (before_ + after_).c_str(), &parts);
  if (end == nullptr || end != rest.c_str() + rest.size()) return bad_time(text, "of the given format");
  if (!is_day(parts)) return bad_time(text, "of a day that exists");
  const long zone_seconds = parts.tm_gmtoff;
  const std::int64_t seconds = ::timegm(&parts) - zone_seconds;
  std::int64_t ns;
  if (!multiply_add(seconds, 1'000'000'000, fraction, ns)) {
    return bad_time(text, "between the years 1678 and 2262");
  }
  return ns;
}

}  // namespace ringtail::tools
