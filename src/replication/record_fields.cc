#include "replication/record_fields.h"

#include <fmt/format.h>

#include <limits>

#include "base/random.h"
#include "replication/records.h"

namespace ringtail::replication {

RecordFields::RecordFields(std::string_view key, std::string_view value)
    : key_(key), object_(Json::parse(value, nullptr, false)) {
  if (!object_.is_object()) {
    object_ = Json::object();
    refuse("no JSON object");
    return;
  }
  check_version();
}

// Ahead of all other fields: in another version they may mean something else.
void RecordFields::check_version() {
  const std::uint64_t version = number("version", 0, std::numeric_limits<std::uint64_t>::max());
  if (!good() || version == kRecordVersion) return;
  code_ = Code::incompatible_layout;
  error_ = fmt::format(
      "the record '{}' has version {}, this release reads version {}; {}", key_, version, kRecordVersion,
      version > kRecordVersion ? "upgrade this host to the release that wrote it"
                               : "start the release that wrote it, and let it hand over as its notes say");
}

void RecordFields::refuse(std::string_view why) {
  if (error_.empty()) error_ = fmt::format("the record '{}' is malformed: {}", key_, why);
}

void RecordFields::join(const RecordFields& part) {
  if (!error_.empty()) return;
  error_ = part.error_;
  code_ = part.code_;
}

bool RecordFields::has(const char* name) const { return object_.contains(name); }

const Json* RecordFields::find(const char* name) {
  const auto field = object_.find(name);
  if (field != object_.end()) return &*field;
  refuse(fmt::format("there is no '{}{}'", path_, name));
  return nullptr;
}

void RecordFields::refuse_field(const char* name, std::string_view why) {
  refuse(fmt::format("'{}{}' {}", path_, name, why));
}

std::uint64_t RecordFields::number(const char* name, std::uint64_t least, std::uint64_t most) {
  const Json* field = find(name);
  if (field == nullptr) return least;
  if (field->is_number_unsigned()) {
    const auto number = field->get<std::uint64_t>();
    if (number >= least && number <= most) return number;
  }
  refuse_field(name, fmt::format("is not a number from {} to {}", least, most));
  return least;
}

std::int64_t RecordFields::signed_number(const char* name) {
  return static_cast<std::int64_t>(number(name, 0, std::numeric_limits<std::int64_t>::max()));
}

bool RecordFields::flag(const char* name) {
  const Json* field = find(name);
  if (field == nullptr) return false;
  if (field->is_boolean()) return field->get<bool>();
  refuse_field(name, "is neither true nor false");
  return false;
}

std::string RecordFields::text(const char* name, std::size_t most) {
  const Json* field = find(name);
  if (field == nullptr) return {};
  if (field->is_string() && field->get_ref<const std::string&>().size() <= most)
    return field->get<std::string>();
  refuse_field(name, fmt::format("is not a text of at most {} bytes", most));
  return {};
}

std::uint64_t RecordFields::hex(const char* name) {
  const auto number = parse_hex(text(name, 16));
  if (number) return *number;
  refuse_field(name, "is not 16 hexadecimal digits");
  return 0;
}

std::string RecordFields::hex_text(const char* name, std::size_t least, std::size_t most) {
  std::string digits = text(name, most);
  if (digits.size() >= least && digits.size() % 2 == 0 && is_hex(digits, digits.size())) return digits;
  refuse_field(name, fmt::format("is not {} to {} hexadecimal digits", least, most));
  return {};
}

std::vector<std::uint64_t> RecordFields::numbers(const char* name, std::uint64_t least, std::uint64_t most) {
  std::vector<std::uint64_t> all;
  const Json* field = find(name);
  if (field == nullptr) return all;
  if (!field->is_array()) refuse_field(name, "is no array");
  for (const Json& item : *field) {
    const auto number = item.is_number_unsigned() ? item.get<std::uint64_t>() : most + 1;
    if (number < least || number > most) {
      refuse_field(name, fmt::format("holds something else than numbers from {} to {}", least, most));
      return all;
    }
    all.push_back(number);
  }
  return all;
}

std::map<std::string, std::string, std::less<>> RecordFields::texts(const char* name) {
  std::map<std::string, std::string, std::less<>> all;
  const Json* field = find(name);
  if (field == nullptr) return all;
  if (!field->is_object()) refuse_field(name, "is no object");
  for (const auto& [key, value] : field->items()) {
    if (!value.is_string()) {
      refuse_field(name, fmt::format("has no text in '{}'", key));
      return all;
    }
    all.emplace(key, value.get<std::string>());
  }
  return all;
}

RecordFields RecordFields::inner(const char* name) {
  const Json* field = find(name);
  std::string path = fmt::format("{}{}.", path_, name);
  if (field != nullptr && field->is_object()) return {key_, std::move(path), *field};
  refuse_field(name, "is no object");
  return {key_, std::move(path), Json::object()};
}

std::vector<RecordFields> RecordFields::inner_array(const char* name) {
  std::vector<RecordFields> all;
  const Json* field = find(name);
  if (field == nullptr) return all;
  if (!field->is_array()) refuse_field(name, "is no array");
  for (const Json& item : *field) {
    if (!item.is_object()) {
      refuse_field(name, "holds something else than objects");
      return all;
    }
    all.push_back({key_, fmt::format("{}{}.", path_, name), item});
  }
  return all;
}

}  // namespace ringtail::replication
