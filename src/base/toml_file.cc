#include "base/toml_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/toml_values.h"

namespace ringtail {
namespace {

std::unexpected<Error> fail_at(const std::filesystem::path& path, std::uint32_t line,
                               std::string_view problem) {
  return fail(Code::corrupt, fmt::format("'{}' line {}: {}", path.native(), line, problem));
}

}  // namespace

Result<TomlFile> TomlFile::read(const std::filesystem::path& path) {
  auto values = read_toml_values(path, FileOf::log);
  if (!values) return std::unexpected(values.error());
  TomlFile file;
  file.path_ = path;
  for (TomlValue& value : *values) {
    if (value.key.empty()) continue;  // a table without values
    if (const auto* integer = std::get_if<std::int64_t>(&value.value)) {
      file.entries_.push_back({std::move(value.table), std::move(value.key), *integer, value.line});
    } else if (auto* text = std::get_if<std::string>(&value.value)) {
      file.entries_.push_back({std::move(value.table), std::move(value.key), std::move(*text), value.line});
    } else {
      return fail_at(path, value.line,
                     fmt::format("'{}' is neither an integer{}", value.key,
                                 value.table.empty() ? ", a string nor a table" : " nor a string"));
    }
  }
  return file;
}

const TomlFile::Entry* TomlFile::find(std::string_view key, std::string_view table) const {
  const auto found = std::ranges::find_if(
      entries_, [&](const Entry& entry) { return entry.table == table && entry.key == key; });
  return found == entries_.end() ? nullptr : &*found;
}

Result<std::int64_t> TomlFile::integer(std::string_view key) const {
  const Entry* entry = find(key);
  const auto* value = entry == nullptr ? nullptr : std::get_if<std::int64_t>(&entry->value);
  if (value == nullptr) return refuse(key, "an integer is required");
  return *value;
}

Result<std::string> TomlFile::text(std::string_view key) const {
  const Entry* entry = find(key);
  const auto* value = entry == nullptr ? nullptr : std::get_if<std::string>(&entry->value);
  if (value == nullptr) return refuse(key, "a string is required");
  return *value;
}

Result<std::map<std::string, std::string, std::less<>>> TomlFile::texts(std::string_view table) const {
  std::map<std::string, std::string, std::less<>> values;
  for (const Entry& entry : entries_) {
    if (entry.table != table) continue;
    const auto* value = std::get_if<std::string>(&entry.value);
    if (value == nullptr) {
      return fail_at(path_, entry.line, fmt::format("'{}' must be a string", entry.key));
    }
    values.emplace(entry.key, *value);
  }
  return values;
}

std::unexpected<Error> TomlFile::refuse(std::string_view key, std::string_view problem,
                                        std::string_view table) const {
  if (const Entry* entry = find(key, table))
    return fail_at(path_, entry->line, fmt::format("'{}': {}", key, problem));
  return fail(Code::corrupt, fmt::format("'{}': '{}' is missing: {}", path_.native(), key, problem));
}

}  // namespace ringtail
