#include "daemon/config.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "base/parse.h"
#include "base/toml_values.h"
#include "daemon/config_checks.h"
#include "daemon/settings.h"

namespace ringtail::daemon {

// --- Endpoints -----------------------------------------------------------------------------------

std::string to_string(const Endpoint& endpoint) {
  const bool bracketed = endpoint.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", bracketed ? "[" : "", endpoint.host, bracketed ? "]" : "", endpoint.port);
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  const auto bad = [&](std::string_view problem) {
    return fail(Code::invalid_argument, fmt::format("\"{}\" {}", text, problem));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad("has no port");
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty()) return bad("has no host");
  in6_addr ignored;
  if (bracketed && ::inet_pton(AF_INET6, std::string(host).c_str(), &ignored) != 1)
    return bad("has no address of IPv6 in its brackets");
  const auto is_part_of_name = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  };
  if (!bracketed && !std::ranges::all_of(host, is_part_of_name))
    return bad("has no host's name before its port");
  const auto port = parse_integer(text.substr(colon + 1));
  if (!port || *port < 0 || *port > 65535) return bad("has no port from 0 to 65535");
  return Endpoint{std::string(host), static_cast<std::uint16_t>(*port)};
}

bool is_loopback(const Endpoint& endpoint) {
  in_addr four;
  if (::inet_pton(AF_INET, endpoint.host.c_str(), &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  return endpoint.host == "localhost" || endpoint.host == "::1";
}

// --- Loading -------------------------------------------------------------------------------------

std::string to_string(const ConfigProblem& problem) {
  std::string text = problem.where.empty() ? std::string() : problem.where + ": ";
  if (!problem.setting.empty() && !problem.where.ends_with(" " + problem.setting))
    text += problem.setting + ": ";
  text += problem.problem;
  return problem.remedy.empty() ? text : text + "; " + problem.remedy;
}

namespace {

// Of a table or a setting that is not there, what was meant.
ConfigProblem unknown_setting(const Origin& origin, std::string_view table, std::string_view key) {
  std::vector<std::string_view> tables;
  std::vector<std::string_view> keys;  // of that table
  std::vector<std::string> names;
  for (const Setting& setting : settings()) {
    if (tables.empty() || tables.back() != setting.table) tables.push_back(setting.table);
    if (setting.table == table) keys.push_back(setting.key);
    names.push_back(setting.name());
  }
  ConfigProblem problem{origin.where, std::string(table), {}, {}, origin.line};
  if (!keys.empty()) {
    const std::string_view near = nearest(key, keys);
    problem.setting = fmt::format("{}.{}", table, key);
    problem.problem = "there is no such setting";
    problem.remedy = near.empty() ? fmt::format("[{}] has {}", table, fmt::join(keys, ", "))
                                  : fmt::format("did you mean '{}'?", near);
  } else if (!table.empty()) {
    const std::string_view near = nearest(table, tables);
    problem.problem = fmt::format("there is no table [{}]", table);
    problem.remedy = near.empty() ? fmt::format("there are [{}]", fmt::join(tables, "], ["))
                                  : fmt::format("did you mean [{}]?", near);
  } else if (std::ranges::find(tables, key) != tables.end()) {
    problem.setting = key;
    problem.problem = "is a table";
    problem.remedy = fmt::format("write [{}] on a line of its own", key);
  } else {
    problem.setting = key;
    problem.problem = "settings stand in tables, and this one in none";
    const std::vector<std::string_view> all(names.begin(), names.end());
    const std::string_view near = nearest(key, all);
    problem.remedy = near.empty() ? fmt::format("the tables are [{}]", fmt::join(tables, "], ["))
                                  : fmt::format("did you mean '{}'?", near);
  }
  return problem;
}

// Stores one value; where it was said is noted for the checks of the whole.
void apply(LoadedConfig& loaded, SettingOrigins& origins, const Origin& origin, std::string_view table,
           std::string_view key, const SettingValue& value, bool from_option) {
  const auto found = std::ranges::find_if(
      settings(), [&](const Setting& setting) { return setting.table == table && setting.key == key; });
  if (found == settings().end()) {
    ConfigProblem problem = unknown_setting(origin, table, key);
    // Of a table that is not there, once is enough.
    if (std::ranges::find(loaded.problems, problem.setting, &ConfigProblem::setting) == loaded.problems.end())
      loaded.problems.push_back(std::move(problem));
    return;
  }
  if (table == "cluster") loaded.config.in_cluster = true;
  origins[found->name()] = origin;
  Objection objection = found->read(loaded.config, value, from_option);
  if (!objection.problem.empty())
    loaded.problems.push_back({origin.where, found->name(), std::move(objection.problem),
                               std::move(objection.remedy), origin.line});
}

void apply_file(LoadedConfig& loaded, SettingOrigins& origins, const std::filesystem::path& file) {
  const auto values = read_toml_values(file);
  if (!values) {
    const Error& error = values.error();
    std::string remedy;
    if (error.os_errno != 0) remedy = "name another with --config";
    if (error.os_errno != 0 && error.code != Code::not_found)
      remedy = "make it a file that this user can read, or " + remedy;
    loaded.problems.push_back({file.native(), {}, error.message, std::move(remedy)});
    return;
  }
  for (const TomlValue& value : *values) {
    const Origin origin{fmt::format("{}:{}", file.native(), value.line), value.line};
    const auto in_table = [&](const Setting& setting) { return setting.table == value.table; };
    if (value.key.empty() && std::ranges::any_of(settings(), in_table)) {
      if (value.table == "cluster") loaded.config.in_cluster = true;  // what is missing is said below
      continue;
    }
    apply(loaded, origins, origin, value.table, value.key, value.value, false);
  }
}

// Those of no line last, in the order in which they were found.
void sort_by_line(std::vector<ConfigProblem>& problems) {
  std::multimap<std::uint32_t, ConfigProblem> sorted;
  for (ConfigProblem& problem : problems) {
    const std::uint32_t line = problem.line == 0 ? std::numeric_limits<std::uint32_t>::max() : problem.line;
    sorted.emplace(line, std::move(problem));
  }
  problems.clear();
  for (auto& [line, problem] : sorted) problems.push_back(std::move(problem));
}

}  // namespace

LoadedConfig load_config(const std::filesystem::path& file, std::span<const Override> overrides) {
  LoadedConfig loaded;
  SettingOrigins origins;
  if (!file.empty()) apply_file(loaded, origins, file);
  for (const Override& entry : overrides) {
    const Origin origin{entry.option.empty() ? "--set " + entry.setting : entry.option, 0};
    const std::size_t dot = entry.setting.find('.');
    const std::string table = dot == std::string::npos ? "" : entry.setting.substr(0, dot);
    const std::string key = dot == std::string::npos ? entry.setting : entry.setting.substr(dot + 1);
    // What the file has of it does not count, its mistakes neither.
    std::erase_if(loaded.problems, [&](const ConfigProblem& p) { return p.setting == entry.setting; });
    apply(loaded, origins, origin, table, key, entry.value, true);
  }
  check_whole(loaded, origins, file);
  sort_by_line(loaded.problems);
  return loaded;
}

bool is_missing(const std::filesystem::path& file) {
  std::error_code ignored;
  return std::filesystem::status(file, ignored).type() == std::filesystem::file_type::not_found;
}

// --- Showing -------------------------------------------------------------------------------------

std::vector<SettingInfo> config_reference() {
  std::vector<SettingInfo> all;
  for (const Setting& setting : settings())
    all.push_back({std::string(setting.table), std::string(setting.key), std::string(setting.description),
                   setting.reloads});
  return all;
}

std::vector<std::string> changed_settings(const Config& before, const Config& after) {
  std::vector<std::string> names;
  for (const Setting& setting : settings())
    if (setting.show(before) != setting.show(after)) names.push_back(setting.name());
  return names;
}

std::string to_toml(const Config& config) {
  std::string text;
  std::string_view table;
  for (const Setting& setting : settings()) {
    if (setting.table == "cluster" && !config.in_cluster) continue;
    if (setting.table != table) {
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", setting.table);
      table = setting.table;
    }
    // Texts, numbers, truth values and lists of texts are written alike in JSON and TOML.
    const std::string shown =
        setting.show(config).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    text += fmt::format("{} = {}\n", setting.key, shown);
  }
  return text;
}

nlohmann::json to_json(const Config& config) {
  nlohmann::json tables = nlohmann::json::object();
  for (const Setting& setting : settings()) {
    if (setting.table == "cluster" && !config.in_cluster) continue;
    tables[std::string(setting.table)][std::string(setting.key)] = setting.show(config);
  }
  return tables;
}

}  // namespace ringtail::daemon
