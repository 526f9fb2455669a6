#include "base/toml_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "base/files.h"

namespace ringtail {
namespace {

constexpr std::size_t kMaxBytes = 1 << 20;

std::unexpected<Error> fail_at(const std::filesystem::path& path, std::uint32_t line,
                               std::string_view problem) {
  return fail(Code::corrupt, fmt::format("'{}' line {}: {}", path.native(), line, problem));
}

// Debian's toml++ is built with exceptions; this is as far as they get.
Result<toml::table> parse(const std::filesystem::path& path, std::string_view content) {
  try {
    return toml::parse(content);
  } catch (const toml::parse_error& error) {
    return fail_at(path, error.source().begin.line, error.description());
  } catch (const std::exception& error) {
    return fail(Code::system, fmt::format("cannot parse '{}': {}", path.native(), error.what()));
  }
}

}  // namespace

Result<TomlFile> TomlFile::read(const std::filesystem::path& path) {
  const auto content = read_small_file(path, kMaxBytes);
  if (!content) return std::unexpected(content.error());
  const auto root = parse(path, *content);
  if (!root) return std::unexpected(root.error());

  TomlFile file;
  file.path_ = path;
  // Adds one value; false when it is of another type than the files have.
  const auto add = [&file](std::string_view table, const toml::key& key, const toml::node& node) {
    const std::uint32_t line = node.source().begin.line;
    if (const auto* integer = node.as_integer()) {
      file.entries_.push_back({std::string(table), std::string(key.str()), integer->get(), line});
      return true;
    }
    if (const auto* text = node.as_string()) {
      file.entries_.push_back({std::string(table), std::string(key.str()), text->get(), line});
      return true;
    }
    return false;
  };
  for (const auto& [key, node] : *root) {
    if (const auto* table = node.as_table()) {
      for (const auto& [inner_key, inner] : *table) {
        if (!add(key.str(), inner_key, inner)) {
          return fail_at(path, inner.source().begin.line,
                         fmt::format("'{}' is neither an integer nor a string", inner_key.str()));
        }
      }
    } else if (!add("", key, node)) {
      return fail_at(path, node.source().begin.line,
                     fmt::format("'{}' is neither an integer, a string nor a table", key.str()));
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
