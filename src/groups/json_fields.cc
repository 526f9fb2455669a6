#include "groups/json_fields.h"

#include <span>

#include "base/random.h"
#include "base/utf8.h"

namespace ringtail::groups {

namespace {

// The bytes that pairs of digits stand for.
std::optional<std::string> bytes_of(std::string_view digits) {
  if (digits.size() % 2 != 0 || !is_hex(digits, digits.size())) return std::nullopt;
  const auto value = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2)
    bytes += static_cast<char>(value(digits[i]) << 4 | value(digits[i + 1]));
  return bytes;
}

}  // namespace

Json text_field(std::string_view bytes) {
  if (is_utf8(bytes)) return std::string(bytes);
  return {{"hex", to_hex(std::as_bytes(std::span(bytes)))}};
}

std::optional<std::string> other_version(std::string_view value) {
  constexpr std::string_view name = "version";
  if (!value.contains(name)) return std::nullopt;  // spares most of them the parsing
  const Json object = parse_json(value);
  const auto version = object.find(name);
  if (version == object.end() || *version == kRecordVersion) return std::nullopt;
  return version->dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<std::string> text_in(const Json& object, const char* name, std::size_t most) {
  const auto field = object.find(name);
  if (field == object.end()) return std::nullopt;
  std::optional<std::string> text;
  if (field->is_string()) text = field->get<std::string>();
  if (const auto digits = field->find("hex"); digits != field->end() && digits->is_string())
    text = bytes_of(digits->get_ref<const std::string&>());
  if (!text || text->size() > most || text->find('\0') != std::string::npos) return std::nullopt;
  return text;
}

std::optional<std::uint64_t> number_in(const Json& object, const char* name, std::uint64_t most) {
  const auto field = object.find(name);
  if (field == object.end() || !field->is_number_unsigned()) return std::nullopt;
  const auto number = field->get<std::uint64_t>();
  return number <= most ? std::optional(number) : std::nullopt;
}

std::optional<std::uint64_t> hex_in(const Json& object, const char* name) {
  const auto digits = text_in(object, name, 16);
  const auto number = digits ? parse_hex(*digits) : Result<std::uint64_t>(0);
  return digits && number ? std::optional(*number) : std::nullopt;
}

}  // namespace ringtail::groups
