// Fields of the JSON in internal topics. Whoever may append to a log may append to these, so a field is what
// it ought to be, or counts as missing.
//
// Thread and process safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace ringtail::groups {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxTopicBytes = 255;  // of a name: it is a directory's
inline constexpr std::uint64_t kMaxRevision = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kMaxTime = std::numeric_limits<std::int64_t>::max();

// What is no JSON becomes a value in which no field is found.
inline Json parse_json(std::string_view text) { return Json::parse(text, nullptr, false); }

// JSON is UTF-8, metadata need not be, nor the name of a group that was made before names had to: other bytes
// are told as {"hex":"<two digits for each>"}, so that they come back as they were.
Json text_field(std::string_view bytes);

// The records of this release have no field `version`, and are of version 1. What a record says that has
// another one, as text; nothing for one of ours, or of nobody's.
inline constexpr std::uint64_t kRecordVersion = 1;
std::optional<std::string> other_version(std::string_view value);

// At most `most` bytes, none of them zero.
std::optional<std::string> text_in(const Json& object, const char* name, std::size_t most);
std::optional<std::uint64_t> number_in(const Json& object, const char* name, std::uint64_t most);
// A number of 16 hexadecimal digits.
std::optional<std::uint64_t> hex_in(const Json& object, const char* name);

}  // namespace ringtail::groups
