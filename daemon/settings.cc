#include "daemon/settings.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "daemon/setting_kinds.h"

namespace ringtail::daemon {
namespace {

// --- The table -----------------------------------------------------------------------------------

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
  all.push_back(
      text_setting("log", "dir", "the log directory", [](Config& c) -> auto& { return c.log.dir; }));
  all.push_back(choice_setting(
      "log", "io", "how segment files are written", {"automatic", "io_uring", "pwrite"},
      [](Config& config, std::size_t chosen) { config.log.io = static_cast<IoBackend>(chosen); },
      [](const Config& config) { return static_cast<std::size_t>(config.log.io); }));
  all.push_back(integer_setting("log", "keeper_cpu",
                                "the CPU that the keeper's thread is pinned to; -1: none", -1, 1023,
                                [](Config& c) -> auto& { return c.log.keeper_cpu; }));
  all.push_back(text_setting("log", "shared_memory_dir", "where rings live; the same for all processes",
                             [](Config& c) -> auto& { return c.log.shared_memory_dir; }));
  all.push_back(bool_setting("log", "create", "whether the log is made where there is none",
                             [](Config& c) -> auto& { return c.log.create; }));
}

void set(std::optional<Endpoint>& place, const Endpoint* to) {
  place.reset();
  if (to != nullptr) place.emplace(*to);
}

void add_node(std::vector<Setting>& all) {
  all.push_back(integer_setting("node", "id", "this host's number in the cluster; 0: none", 0, 65535,
                                [](Config& c) -> auto& { return c.node.id; }));
  all.push_back(text_setting("node", "rack",
                             "what fails together with this host; replicas are spread over racks",
                             [](Config& c) -> auto& { return c.node.rack; }));
  all.push_back(endpoint_setting(
      "node", "replication_listen", "where the other nodes connect to",
      [](Config& config, const Endpoint* to) { set(config.node.replication_listen, to); },
      [](const Config& config) { return config.node.replication_listen; }));
  all.push_back(endpoint_setting(
      "node", "replication_advertise", "the same as they see it; empty: replication_listen",
      [](Config& config, const Endpoint* to) { set(config.node.replication_advertise, to); },
      [](const Config& config) { return config.node.replication_advertise; }));
}

void add_tls(std::vector<Setting>& all, std::string_view table, std::string_view peer,
             const Place<TlsFiles>& place) {
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
        [place, member = text.member](Config& config) -> std::string& { return place(config).*member; },
        !etcd));
  }
}

void add_cluster(std::vector<Setting>& all) {
  all.push_back(text_setting("cluster", "name", "the cluster's name; several may share one etcd",
                             [](Config& c) -> auto& { return c.cluster.name; }));
  all.push_back(etcd_setting());
  all.push_back(duration_setting("cluster", "lease_ttl", "after how long of silence a node counts as dead",
                                 seconds(1), hours(1),
                                 [](Config& c) -> auto& { return c.cluster.lease_ttl; }));
  all.push_back(duration_setting("cluster", "lease_margin", "how long before that it fences itself",
                                 milliseconds(10), hours(1),
                                 [](Config& c) -> auto& { return c.cluster.lease_margin; }));
  all.push_back(text_setting("cluster", "user", "etcd's name for this node; empty: no authentication",
                             [](Config& c) -> auto& { return c.cluster.user; }));
  all.push_back(text_setting("cluster", "password_file", "a file with the password alone",
                             [](Config& c) -> auto& { return c.cluster.password_file; }));
  add_tls(all, "cluster", "etcd", [](Config& c) -> auto& { return c.cluster.tls; });
}

void add_replication(std::vector<Setting>& all) {
  all.push_back(bool_setting("replication", "plain", "whether nodes talk without TLS",
                             [](Config& c) -> auto& { return c.replication.plain; }));
  add_tls(all, "replication", "node", [](Config& c) -> auto& { return c.replication.tls; });
  all.push_back(named_setting("replication", "compression", "of records on their way to other nodes",
                              kCompressions, [](Config& c) -> auto& { return c.replication.compression; }));
  all.push_back(bytes_setting(
      "replication", "throttle", "bytes a second to replicas that catch up; 0: no limit",
      [](Config& c) -> auto& { return c.replication.throttle; }, true));
  all.push_back(duration_setting("replication", "lag_time_max",
                                 "after how long behind a replica leaves the ISR", milliseconds(100),
                                 hours(24), [](Config& c) -> auto& { return c.replication.lag_time_max; }));
  all.push_back(duration_setting("replication", "spin", "how long the shipping thread spins before it sleeps",
                                 nanoseconds(0), seconds(1),
                                 [](Config& c) -> auto& { return c.replication.spin; }));
}

void add_rest(std::vector<Setting>& all) {
  all.push_back(endpoint_setting(
      "http", "listen", "where metrics, health and dashboard are served; port 0: any that is free",
      [](Config& config, const Endpoint* to) { config.http.listen = *to; },
      [](const Config& config) { return std::optional(config.http.listen); }, true));
  all.push_back(bool_setting(
      "http", "allow_remote", "whether other hosts may look; there is no authentication",
      [](Config& c) -> auto& { return c.http.allow_remote; }, true));
  all.push_back(named_setting(
      "logging", "level", "the least important line that is written", kLevels,
      [](Config& c) -> auto& { return c.logging.level; }, true));
  all.push_back(choice_setting(
      "logging", "format", "lines of text, or one JSON object a line", {"text", "json"},
      [](Config& config, std::size_t chosen) { config.logging.format = static_cast<LogFormat>(chosen); },
      [](const Config& config) { return static_cast<std::size_t>(config.logging.format); }, true));
  all.push_back(text_setting(
      "logging", "file", "where lines go, opened anew at SIGHUP; empty: standard error",
      [](Config& c) -> auto& { return c.logging.file; }, true));
}

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
