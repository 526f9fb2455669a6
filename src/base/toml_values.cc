#include "base/toml_values.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <tuple>

namespace ringtail {
namespace {

constexpr std::size_t kMaxBytes = 1 << 20;

// Debian's toml++ is built with exceptions; this is as far as they get.
Result<toml::table> parse(const std::filesystem::path& path, std::string_view content) {
  try {
    return toml::parse(content);
  } catch (const toml::parse_error& error) {
    return fail(Code::corrupt, fmt::format("'{}' line {}: {}", path.native(), error.source().begin.line,
                                           error.description()));
  } catch (const std::exception& error) {
    return fail(Code::system, fmt::format("cannot parse '{}': {}", path.native(), error.what()));
  }
}

using Value = decltype(TomlValue::value);

Value value_of(const toml::node& node) {
  if (const auto* integer = node.as_integer()) return integer->get();
  if (const auto* boolean = node.as_boolean()) return boolean->get();
  if (const auto* text = node.as_string()) return text->get();
  const auto* array = node.as_array();
  if (array == nullptr) return TomlValue::Other{};
  std::vector<std::string> texts;
  for (const toml::node& element : *array) {
    if (const auto* text = element.as_string())
      texts.push_back(text->get());
    else
      return TomlValue::Other{};
  }
  return texts;
}

}  // namespace

Result<std::vector<TomlValue>> read_toml_values(const std::filesystem::path& path, FileOf whose) {
  const auto content = read_small_file(path, kMaxBytes, whose);
  if (!content) return std::unexpected(content.error());
  const auto root = parse(path, *content);
  if (!root) return std::unexpected(root.error());

  std::vector<TomlValue> values;
  for (const auto& [key, node] : *root) {
    const auto* table = node.as_table();
    if (table == nullptr) {
      values.push_back({{}, std::string(key.str()), value_of(node), node.source().begin.line});
      continue;
    }
    const std::string name(key.str());
    if (table->empty()) values.push_back({name, {}, TomlValue::Other{}, node.source().begin.line});
    for (const auto& [inner_key, inner] : *table)
      values.push_back({name, std::string(inner_key.str()), value_of(inner), inner.source().begin.line});
  }
  std::ranges::sort(values, {},
                    [](const TomlValue& value) { return std::tie(value.line, value.table, value.key); });
  return values;
}

}  // namespace ringtail
