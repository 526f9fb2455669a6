#include "daemon/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <sstream>

#include "base/parse.h"

namespace ringtail::daemon {
namespace {

using nlohmann::json;

// --- What values look like -----------------------------------------------------------------------

template <class T>
using Place = std::function<T&(Config&)>;

template <class T>
T value_at(const Place<T>& place, const Config& config) {
  Config copy = config;
  return place(copy);
}

Objection refuse(std::string problem, std::string remedy) { return {std::move(problem), std::move(remedy)}; }

// The value as it stands in a file, for people.
std::string quoted(const SettingValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return json(*text).dump();
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean ? "true" : "false";
  return std::holds_alternative<TomlValue::Other>(value) ? "this value" : "a list";
}

Setting text_setting(std::string_view table, std::string_view key, std::string_view description,
                     Place<std::string> place, bool reloads = false) {
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
                       std::vector<std::string> choices, std::function<void(Config&, std::size_t)> store,
                       std::function<std::size_t(const Config&)> load, bool reloads = false) {
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
                     Place<bool> place, bool reloads = false) {
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
                        std::int64_t least, std::int64_t most, Place<std::int64_t> place) {
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

std::string duration_text(nanoseconds duration) {
  constexpr std::array<std::pair<std::int64_t, std::string_view>, 4> kUnits = {
      {{1'000'000'000, "s"}, {1'000'000, "ms"}, {1'000, "us"}, {1, "ns"}}};
  for (const auto& [factor, name] : kUnits) {
    if (duration.count() % factor == 0) return fmt::format("{}{}", duration.count() / factor, name);
  }
  return {};
}

Setting duration_setting(std::string_view table, std::string_view key, std::string_view description,
                         nanoseconds least, nanoseconds most, Place<nanoseconds> place) {
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
                      Place<std::int64_t> place, bool reloads) {
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

constexpr std::string_view kEndpointRemedy = "write HOST:PORT, such as \"127.0.0.1:9464\" or \"[::1]:9464\"";

Setting endpoint_setting(std::string_view table, std::string_view key, std::string_view description,
                         std::function<void(Config&, Endpoint)> store,
                         std::function<std::optional<Endpoint>(const Config&)> load, bool reloads = false) {
  return {table,
          key,
          description,
          reloads,
          [=](Config& config, const SettingValue& value, bool) -> Objection {
            const auto* text = std::get_if<std::string>(&value);
            if (text == nullptr)
              return refuse(quoted(value) + " is no address", std::string(kEndpointRemedy));
            if (text->empty() && !load(Config{})) return {};
            auto parsed = parse_endpoint(*text);
            if (!parsed) return refuse(parsed.error().message, std::string(kEndpointRemedy));
            store(config, std::move(*parsed));
            return {};
          },
          [load](const Config& config) {
            const auto endpoint = load(config);
            return json(endpoint ? to_string(*endpoint) : std::string());
          }};
}

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
            for (const std::string& url : urls) {
              if (Objection objection = check_url(url); !objection.problem.empty()) return objection;
            }
            config.cluster.etcd = std::move(urls);
            return {};
          },
          [](const Config& config) { return json(config.cluster.etcd); }};
}

// --- The table -----------------------------------------------------------------------------------

// A member of the configuration.
#define RINGTAIL_AT(member) [](Config& config) -> auto& { return config.member; }

const std::vector<std::string> kLevels = {"trace", "debug", "info", "warn", "error"};
const std::vector<std::string> kCompressions = {"none", "lz4", "zstd"};

template <class Member>
Setting named_setting(std::string_view table, std::string_view key, std::string_view description,
                      const std::vector<std::string>& choices, Member member, bool reloads = false) {
  return choice_setting(
      table, key, description, choices,
      [=](Config& config, std::size_t chosen) { member(config) = choices[chosen]; },
      [=](const Config& config) {
        Config copy = config;
        return static_cast<std::size_t>(std::ranges::find(choices, member(copy)) - choices.begin());
      },
      reloads);
}

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

void add_log(std::vector<Setting>& all) {
  all.push_back(text_setting("log", "dir", "the log directory", RINGTAIL_AT(log.dir)));
  all.push_back(choice_setting(
      "log", "io", "how segment files are written", {"automatic", "io_uring", "pwrite"},
      [](Config& config, std::size_t chosen) { config.log.io = static_cast<IoBackend>(chosen); },
      [](const Config& config) { return static_cast<std::size_t>(config.log.io); }));
  all.push_back(integer_setting("log", "keeper_cpu",
                                "the CPU that the keeper's thread is pinned to; -1: none", -1, 1023,
                                RINGTAIL_AT(log.keeper_cpu)));
  all.push_back(text_setting("log", "shared_memory_dir", "where rings live; the same for all processes",
                             RINGTAIL_AT(log.shared_memory_dir)));
  all.push_back(
      bool_setting("log", "create", "whether the log is made where there is none", RINGTAIL_AT(log.create)));
}

void add_node(std::vector<Setting>& all) {
  all.push_back(integer_setting("node", "id", "this host's number in the cluster; 0: none", 0, 65535,
                                RINGTAIL_AT(node.id)));
  all.push_back(text_setting("node", "rack",
                             "what fails together with this host; replicas are spread over racks",
                             RINGTAIL_AT(node.rack)));
  all.push_back(endpoint_setting(
      "node", "replication_listen", "where the other nodes connect to",
      [](Config& config, Endpoint to) { config.node.replication_listen = std::move(to); },
      [](const Config& config) { return config.node.replication_listen; }));
  all.push_back(endpoint_setting(
      "node", "replication_advertise", "the same as they see it; empty: replication_listen",
      [](Config& config, Endpoint to) { config.node.replication_advertise = std::move(to); },
      [](const Config& config) { return config.node.replication_advertise; }));
}

void add_tls(std::vector<Setting>& all, std::string_view table, std::string_view peer,
             Place<TlsFiles> place) {
  static const std::string kPem = " (PEM file)";
  struct Text {
    std::string_view key;
    std::string_view description;
    std::string TlsFiles::* member;
  };
  const bool etcd = peer == "etcd";
  for (const Text& text :
       {Text{"ca",
             etcd ? "who signs etcd's certificates (PEM file); empty: the system's"
                  : "who signs the nodes' certificates (PEM file)",
             &TlsFiles::ca},
        Text{"certificate", "what this node shows (PEM file)", &TlsFiles::certificate},
        Text{"key", "the certificate's private key (PEM file, for its owner alone)", &TlsFiles::key}}) {
    all.push_back(text_setting(
        table, text.key, text.description,
        [place, member = text.member](Config& config) -> std::string& { return place(config).*member; }));
  }
}

void add_cluster(std::vector<Setting>& all) {
  all.push_back(text_setting("cluster", "name", "the cluster's name; several may share one etcd",
                             RINGTAIL_AT(cluster.name)));
  all.push_back(etcd_setting());
  all.push_back(duration_setting("cluster", "lease_ttl", "after how long of silence a node counts as dead",
                                 seconds(1), hours(1), RINGTAIL_AT(cluster.lease_ttl)));
  all.push_back(duration_setting("cluster", "lease_margin", "how long before that it fences itself",
                                 milliseconds(10), hours(1), RINGTAIL_AT(cluster.lease_margin)));
  all.push_back(text_setting("cluster", "user", "etcd's name for this node; empty: no authentication",
                             RINGTAIL_AT(cluster.user)));
  all.push_back(text_setting("cluster", "password_file", "a file with the password alone",
                             RINGTAIL_AT(cluster.password_file)));
  add_tls(all, "cluster", "etcd", RINGTAIL_AT(cluster.tls));
}

void add_replication(std::vector<Setting>& all) {
  all.push_back(
      bool_setting("replication", "plain", "whether nodes talk without TLS", RINGTAIL_AT(replication.plain)));
  add_tls(all, "replication", "node", RINGTAIL_AT(replication.tls));
  all.push_back(named_setting("replication", "compression", "of records on their way to other nodes",
                              kCompressions, RINGTAIL_AT(replication.compression)));
  all.push_back(bytes_setting("replication", "throttle",
                              "bytes a second to replicas that catch up; 0: no limit",
                              RINGTAIL_AT(replication.throttle), true));
  all.push_back(duration_setting("replication", "lag_time_max",
                                 "after how long behind a replica leaves the ISR", milliseconds(100),
                                 hours(24), RINGTAIL_AT(replication.lag_time_max)));
  all.push_back(duration_setting("replication", "spin", "how long the shipping thread spins before it sleeps",
                                 nanoseconds(0), seconds(1), RINGTAIL_AT(replication.spin)));
}

void add_rest(std::vector<Setting>& all) {
  all.push_back(endpoint_setting(
      "http", "listen", "where metrics, health and dashboard are served; port 0: any that is free",
      [](Config& config, Endpoint to) { config.http.listen = std::move(to); },
      [](const Config& config) { return std::optional(config.http.listen); }, true));
  all.push_back(bool_setting("http", "allow_remote",
                             "whether other hosts may look; there is no authentication",
                             RINGTAIL_AT(http.allow_remote), true));
  all.push_back(named_setting("logging", "level", "the least important line that is written", kLevels,
                              RINGTAIL_AT(logging.level), true));
  all.push_back(choice_setting(
      "logging", "format", "lines of text, or one JSON object a line", {"text", "json"},
      [](Config& config, std::size_t chosen) { config.logging.format = static_cast<LogFormat>(chosen); },
      [](const Config& config) { return static_cast<std::size_t>(config.logging.format); }, true));
  all.push_back(text_setting("logging", "file",
                             "where lines go, opened anew at SIGHUP; empty: standard error",
                             RINGTAIL_AT(logging.file), true));
}

#undef RINGTAIL_AT

// How many letters have to be changed, added or removed to make one of the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::span<const Setting> settings() {
  static const std::vector<Setting> kAll = [] {
    std::vector<Setting> all;
    for (const auto add : {add_log, add_node, add_cluster, add_replication, add_rest}) add(all);
    return all;
  }();
  return kAll;
}

std::string_view nearest(std::string_view name, std::span<const std::string_view> names) {
  std::string_view best;
  std::size_t least = std::max<std::size_t>(name.size() / 2, 1) + 1;
  for (const std::string_view candidate : names) {
    if (const std::size_t d = distance(name, candidate); d < least) least = d, best = candidate;
  }
  return best;
}

}  // namespace ringtail::daemon
