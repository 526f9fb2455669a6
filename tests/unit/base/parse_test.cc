#include "base/parse.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace ringtail {
namespace {

using std::chrono_literals::operator""ms;

constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kNow = 1'752'739'503'000'000'000;

template <class T>
void expect_refused(const Result<T>& result, std::string_view text) {
  ASSERT_FALSE(result) << text;
  EXPECT_EQ(result.error().code, Code::invalid_argument) << text;
  EXPECT_NE(result.error().message.find("'" + std::string(text) + "'"), std::string::npos)
      << result.error().message;
}

TEST(ParseInteger, TakesTheWholeTextOrNothing) {
  EXPECT_EQ(parse_integer("0"), 0);
  EXPECT_EQ(parse_integer("-17"), -17);
  EXPECT_EQ(parse_integer("9223372036854775807"), kMax);
  EXPECT_EQ(parse_integer("-9223372036854775808"), kMin);
  for (const char* text : {"", "-", "+1", " 1", "1 ", "1x", "0x10", "1.0", "9223372036854775808"}) {
    expect_refused(parse_integer(text), text);
  }
}

TEST(ParseDuration, KnowsItsUnits) {
  const std::pair<const char*, std::int64_t> cases[] = {
      {"7ns", 7},
      {"7us", 7'000},
      {"5ms", 5'000'000},
      {"3s", 3'000'000'000},
      {"2m", 120'000'000'000},
      {"2h", 7'200'000'000'000},
      {"7d", 604'800'000'000'000},
      {"1w", 604'800'000'000'000},
      {"-5m", -300'000'000'000},
      {"0s", 0},
      {"9223372036s", 9'223'372'036'000'000'000},
  };
  for (const auto& [text, ns] : cases) {
    const auto duration = parse_duration(text);
    ASSERT_TRUE(duration) << text;
    EXPECT_EQ(duration->count(), ns) << text;
  }
}

TEST(ParseDuration, APlainNumberNeedsAUnitFromTheCaller) {
  EXPECT_EQ(parse_duration("250", 1ms), 250ms);
  EXPECT_EQ(parse_duration("250us", 1ms), std::chrono::microseconds(250));
  expect_refused(parse_duration("250"), "250");
}

TEST(ParseDuration, RefusesTheRest) {
  for (const char* text :
       {"", "ms", "5 ms", "5min", "5MS", "1.5s", "5ms ", "1h30m", "9223372037s", "99999999999w"}) {
    expect_refused(parse_duration(text), text);
    expect_refused(parse_duration(text, 1ms), text);
  }
  expect_refused(parse_duration("9223372036854775807", 1ms), "9223372036854775807");
}

TEST(ParseBytes, KnowsBinaryAndDecimalUnits) {
  const std::pair<const char*, std::int64_t> cases[] = {
      {"0", 0},
      {"4096", 4096},
      {"-1", -1},
      {"64KiB", 65536},
      {"64K", 65536},
      {"64kB", 64'000},
      {"1MiB", 1 << 20},
      {"256M", 256LL << 20},
      {"1MB", 1'000'000},
      {"2GiB", 2LL << 30},
      {"2G", 2LL << 30},
      {"2GB", 2'000'000'000},
      {"1TiB", 1LL << 40},
      {"1T", 1LL << 40},
      {"1TB", 1'000'000'000'000},
  };
  for (const auto& [text, bytes] : cases) EXPECT_EQ(parse_bytes(text), bytes) << text;
  for (const char* text : {"", "K", "1 K", "1.5M", "1k", "1KB", "1mib", "1B", "9000000T"}) {
    expect_refused(parse_bytes(text), text);
  }
}

TEST(ParseTime, Rfc3339) {
  const std::pair<const char*, std::int64_t> cases[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"2025-07-17T08:05:03.360842448Z", 1'752'739'503'360'842'448},
      {"2025-07-17t08:05:03.36z", 1'752'739'503'360'000'000},
      {"2025-07-17 08:05:03Z", 1'752'739'503'000'000'000},
      {"2025-07-17T10:05:03+02:00", 1'752'739'503'000'000'000},
      {"2025-07-17T03:35:03-04:30", 1'752'739'503'000'000'000},
      {"2024-02-29T00:00:00Z", 1'709'164'800'000'000'000},
      {"1969-12-31T23:59:59.999999999Z", -1},
      {"1677-09-21T00:12:43.145224192Z", kMin},
      {"2262-04-11T23:47:16.854775807Z", kMax},
  };
  for (const auto& [text, ns] : cases) EXPECT_EQ(parse_time(text, kNow), ns) << text;
}

TEST(ParseTime, RefusesMalformedAndImpossibleTimes) {
  for (const char* text : {"",
                           "2025-07-17",
                           "2025-07-17T08:05:03",
                           "2025-07-17T08:05Z",
                           "2025-02-29T00:00:00Z",
                           "2025-13-01T00:00:00Z",
                           "2025-00-01T00:00:00Z",
                           "2025-07-32T00:00:00Z",
                           "2025-07-17T24:00:00Z",
                           "2025-07-17T08:60:00Z",
                           "2025-07-17T08:05:60Z",
                           "2025-07-17T08:05:03.Z",
                           "2025-07-17T08:05:03.1234567890Z",
                           "2025-07-17T08:05:03+2:00",
                           "2025-07-17T08:05:03+24:00",
                           "2025-07-17T08:05:03Zx",
                           "2025-7-17T08:05:03Z",
                           "1677-09-21T00:12:43.145224191Z",
                           "2262-04-11T23:47:16.854775808Z",
                           "9999-12-31T23:59:59Z",
                           "yesterday"}) {
    expect_refused(parse_time(text, kNow), text);
  }
}

TEST(ParseTime, SinceTheEpoch) {
  const std::pair<const char*, std::int64_t> cases[] = {
      {"0", 0},
      {"2025", 2025'000'000'000},
      {"1752739503", 1'752'739'503'000'000'000},
      {"1752739503360", 1'752'739'503'360'000'000},
      {"1752739503360842", 1'752'739'503'360'842'000},
      {"1752739503360842448", 1'752'739'503'360'842'448},
      {"1752739503s", 1'752'739'503'000'000'000},
      {"1752739503360ms", 1'752'739'503'360'000'000},
      {"5us", 5'000},
      {"5ns", 5},
      {"1752739503.360842448", 1'752'739'503'360'842'448},
      {"1752739503.5", 1'752'739'503'500'000'000},
      {"9223372036854775807", kMax},
  };
  for (const auto& [text, ns] : cases) EXPECT_EQ(parse_time(text, kNow), ns) << text;
  for (const char* text :
       {"99999999999", "9223372036854775808", "5m", "1.", "1.5ms", "1.1234567890", ".5", "1752739503 "}) {
    expect_refused(parse_time(text, kNow), text);
  }
}

TEST(ParseDecimal, CountsBillionths) {
  const std::pair<const char*, std::int64_t> cases[] = {
      {"0", 0},
      {"0.5", 500'000'000},
      {"1", 1'000'000'000},
      {"2.000000001", 2'000'000'001},
      {"00.10", 100'000'000},
  };
  for (const auto& [text, billionths] : cases) EXPECT_EQ(parse_decimal(text), billionths) << text;
  for (const char* text : {"", ".", "0.", ".5", "-0", "-1", "+1", "0,5", "0.5x", " 1", "1e3", "0.1234567890",
                           "9223372037", "99999999999999999999"}) {
    expect_refused(parse_decimal(text), text);
  }
}

TEST(ParseDecimal, FormatWritesWhatItParses) {
  EXPECT_EQ(format_decimal(0), "0");
  EXPECT_EQ(format_decimal(500'000'000), "0.5");
  EXPECT_EQ(format_decimal(10'000'000'000), "10");
  for (const std::int64_t number : {1LL, 10LL, 123'456'789LL, 1'000'000'001LL, 9'223'372'036'854'775'807LL}) {
    EXPECT_EQ(parse_decimal(format_decimal(number)), number);
  }
}

TEST(ParseTime, RelativeToNow) {
  EXPECT_EQ(parse_time("now", kNow), kNow);
  EXPECT_EQ(parse_time("-5m", kNow), kNow - 300'000'000'000);
  EXPECT_EQ(parse_time("-0s", kNow), kNow);
  for (const char* text : {"-", "-5", "-5x", "+5m", "NOW"}) expect_refused(parse_time(text, kNow), text);
  expect_refused(parse_time("-292w", kMin), "-292w");
}

TEST(FormatTime, WritesUtcToTheNanosecond) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(format_time(1'752'739'503'360'842'448), "2025-07-17T08:05:03.360842448Z");
  EXPECT_EQ(format_time(-1), "1969-12-31T23:59:59.999999999Z");
  EXPECT_EQ(format_time(kMin), "1677-09-21T00:12:43.145224192Z");
  EXPECT_EQ(format_time(kMax), "2262-04-11T23:47:16.854775807Z");
}

TEST(FormatTime, ParsesBackToTheSameNumber) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 10'000; ++i) {
    const auto time = static_cast<std::int64_t>(random());
    const std::string text = format_time(time);
    ASSERT_EQ(parse_time(text, kNow), time) << text;
  }
}

}  // namespace
}  // namespace ringtail
