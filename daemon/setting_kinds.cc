#include "daemon/setting_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <utility>

#include "base/parse.h"

namespace ringtail::daemon {
namespace {

using nlohmann::json;

template <class T>
T value_at(const Place<T>& place, const Config& config) {
  Config copy = config;
  return place(copy);
}

Objection refuse(std::string problem, std::string remedy) { return {std::move(problem), std::move(remedy)}; }

// The value as it stands in a file, for people.
std::string quoted(const SettingValue& value) {
  if (const auto* text = std::get_if<std::string>(&value))
    return json(*text).dump(-1, ' ', false, json::error_handler_t::replace);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean ? "true" : "false";
  return std::holds_alternative<TomlValue::Other>(value) ? "this value" : "a list";
}

std::string duration_text(nanoseconds duration) {
  constexpr std::array<std::pair<std::int64_t, std::string_view>, 4> kUnits = {
      {{1'000'000'000, "s"}, {1'000'000, "ms"}, {1'000, "us"}, {1, "ns"}}};
  for (const auto& [factor, name] : kUnits) {
    if (duration.count() % factor == 0) return fmt::format("{}{}", duration.count() / factor, name);
  }
  return {};
}

constexpr std::string_view kEndpointRemedy = "write HOST:PORT, such as \"127.0.0.1:9464\" or \"[::1]:9464\"";

// The URL as it may be shown: what stands for user and password is left out.
Objection check_url(const std::string& url) {
  const std::string remedy = "write URLs, such as [\"https://10.0.0.1:2379\", \"https://10.0.0.2:2379\"]";
  if (url.find('@') != std::string::npos)
    return refuse("a URL with a user or password in it (not shown)",
                  "leave both out of the URL, and set cluster.user and cluster.password_file");
  std::string_view rest = url;
  if (rest.starts_with("https://"))
    rest.remove_prefix(8);
  else if (rest.starts_with("http://"))
    rest.remove_prefix(7);
  else
    return refuse(fmt::format("\"{}\" is no URL", url), remedy);
  while (rest.ends_with('/')) rest.remove_suffix(1);
  if (auto endpoint = parse_endpoint(rest); !endpoint) return refuse(endpoint.error().message, remedy);
  return {};
}

}  // namespace

Setting text_setting(std::string_view table, std::string_view key, std::string_view description,
                     const Place<std::string>& place, bool reloads) {
  return {table,
          key,
          description,
          reloads,
          [place](Config& config, const SettingValue& value, bool) -> Objection {
            const auto* text = std::get_if<std::string>(&value);
            if (text == nullptr) return refuse(quoted(value) + " is no text", "put it in quotes");
            place(config) = *text;
            return {};
          },
          [place](const Config& config) { return json(value_at(place, config)); }};
}

Setting choice_setting(std::string_view table, std::string_view key, std::string_view description,
                       const std::vector<std::string>& choices,
                       const std::function<void(Config&, std::size_t)>& store,
                       const std::function<std::size_t(const Config&)>& load, bool reloads) {
  return {table,
          key,
          description,
          reloads,
          [choices, store](Config& config, const SettingValue& value, bool) -> Objection {
            const auto* text = std::get_if<std::string>(&value);
            const auto found = text == nullptr ? choices.end() : std::ranges::find(choices, *text);
            if (found == choices.end())
              return refuse(quoted(value) + " is not one of its values",
                            fmt::format("choose one of \"{}\"", fmt::join(choices, "\", \"")));
            store(config, static_cast<std::size_t>(found - choices.begin()));
            return {};
          },
          [choices, load](const Config& config) { return json(choices[load(config)]); }};
}

Setting bool_setting(std::string_view table, std::string_view key, std::string_view description,
                     const Place<bool>& place, bool reloads) {
  return {table,
          key,
          description,
          reloads,
          [place](Config& config, const SettingValue& value, bool from_option) -> Objection {
            if (const auto* boolean = std::get_if<bool>(&value)) {
              place(config) = *boolean;
              return {};
            }
            const auto* text = std::get_if<std::string>(&value);
            if (!from_option || text == nullptr || (*text != "true" && *text != "false"))
              return refuse(quoted(value) + " is neither true nor false",
                            "write true or false, without quotes");
            place(config) = *text == "true";
            return {};
          },
          [place](const Config& config) { return json(value_at(place, config)); }};
}

Setting integer_setting(std::string_view table, std::string_view key, std::string_view description,
                        std::int64_t least, std::int64_t most, const Place<std::int64_t>& place) {
  return {table,
          key,
          description,
          false,
          [=](Config& config, const SettingValue& value, bool from_option) -> Objection {
            const std::string remedy = fmt::format("write a number from {} to {}", least, most);
            std::int64_t number = 0;
            if (const auto* integer = std::get_if<std::int64_t>(&value)) {
              number = *integer;
            } else {
              const auto* text = std::get_if<std::string>(&value);
              const auto parsed =
                  text != nullptr && from_option ? parse_integer(*text) : fail(Code::invalid_argument, "");
              if (!parsed) return refuse(quoted(value) + " is no whole number", remedy);
              number = *parsed;
            }
            if (number < least || number > most)
              return refuse(fmt::format("{} is out of range", number), remedy);
            place(config) = number;
            return {};
          },
          [place](const Config& config) { return json(value_at(place, config)); }};
}

Setting duration_setting(std::string_view table, std::string_view key, std::string_view description,
                         nanoseconds least, nanoseconds most, const Place<nanoseconds>& place) {
  return {table,
          key,
          description,
          false,
          [=](Config& config, const SettingValue& value, bool) -> Objection {
            const std::string remedy = fmt::format("write a time with its unit, from \"{}\" to \"{}\"",
                                                   duration_text(least), duration_text(most));
            const auto* text = std::get_if<std::string>(&value);
            const auto parsed = text == nullptr ? fail(Code::invalid_argument, "") : parse_duration(*text);
            if (!parsed) return refuse(quoted(value) + " is no time with a unit", remedy);
            if (*parsed < least || *parsed > most) return refuse(quoted(value) + " is out of range", remedy);
            place(config) = *parsed;
            return {};
          },
          [place](const Config& config) { return json(duration_text(value_at(place, config))); }};
}

Setting bytes_setting(std::string_view table, std::string_view key, std::string_view description,
                      const Place<std::int64_t>& place, bool reloads) {
  return {table,
          key,
          description,
          reloads,
          [=](Config& config, const SettingValue& value, bool) -> Objection {
            const std::string remedy = "write a number of bytes, such as 1048576 or \"100MiB\"; 0: no limit";
            if (const auto* integer = std::get_if<std::int64_t>(&value);
                integer != nullptr && *integer >= 0) {
              place(config) = *integer;
              return {};
            }
            const auto* text = std::get_if<std::string>(&value);
            const auto parsed = text == nullptr ? fail(Code::invalid_argument, "") : parse_bytes(*text);
            if (!parsed || *parsed < 0) return refuse(quoted(value) + " is no number of bytes", remedy);
            place(config) = *parsed;
            return {};
          },
          [place](const Config& config) { return json(value_at(place, config)); }};
}

Setting endpoint_setting(std::string_view table, std::string_view key, std::string_view description,
                         const std::function<void(Config&, const Endpoint*)>& store,
                         const std::function<std::optional<Endpoint>(const Config&)>& load, bool reloads) {
  return {table,
          key,
          description,
          reloads,
          [=](Config& config, const SettingValue& value, bool) -> Objection {
            const auto* text = std::get_if<std::string>(&value);
            if (text == nullptr)
              return refuse(quoted(value) + " is no address", std::string(kEndpointRemedy));
            if (text->empty() && !load(Config{})) {
              store(config, nullptr);
              return {};
            }
            auto parsed = parse_endpoint(*text);
            if (!parsed) return refuse(parsed.error().message, std::string(kEndpointRemedy));
            store(config, &*parsed);
            return {};
          },
          [load](const Config& config) {
            const auto endpoint = load(config);
            return json(endpoint ? to_string(*endpoint) : std::string());
          }};
}

Setting etcd_setting() {
  return {"cluster",
          "etcd",
          "URLs of etcd's members",
          false,
          [](Config& config, const SettingValue& value, bool from_option) -> Objection {
            std::vector<std::string> urls;
            if (const auto* list = std::get_if<std::vector<std::string>>(&value))
              urls = *list;
            else if (const auto* text = std::get_if<std::string>(&value); text != nullptr && from_option) {
              std::istringstream parts(*text);
              for (std::string part; std::getline(parts, part, ',');) urls.push_back(part);
            } else {
              return refuse(quoted(value) + " is no list of texts", "write [\"http://127.0.0.1:2379\"]");
            }
            for (std::string& url : urls) {
              if (Objection objection = check_url(url); !objection.problem.empty()) return objection;
              while (url.ends_with('/')) url.pop_back();  // whoever connects wants a port at its end
            }
            config.cluster.etcd = std::move(urls);
            return {};
          },
          [](const Config& config) { return json(config.cluster.etcd); }};
}

}  // namespace ringtail::daemon
