// Event times as other systems write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail::tools {

// A compiled timestamp format. Immutable.
class TimestampFormat {
 public:
  // "auto" (RFC 3339, or a number since the epoch whose unit its digits tell), "ns", "us", "ms", "s"
  // (such a number, also with a fraction), or a format of strptime, in UTC if it has no %z, with %f for
  // a fraction of 1 to 9 digits. Errors: invalid_argument.
  static Result<TimestampFormat> make(std::string_view format);

  // Nanoseconds since the Unix epoch. Errors: invalid_argument, quoting the text.
  Result<std::int64_t> parse(std::string_view text) const;

 private:
  Result<std::int64_t> parse_number(std::string_view text) const;
  Result<std::int64_t> parse_broken_down(std::string_view text) const;

  enum class Kind { automatic, number, broken_down } kind_ = Kind::automatic;
  int decimals_ = 0;    // number: digits of the unit's nanoseconds, 9 for seconds, 0 for nanoseconds
  std::string before_;  // broken down: the format before and behind %f
  std::string after_;
  bool has_fraction_ = false;
};

}  // namespace ringtail::tools
