// What ringtaild is told by its configuration file and by --set.
//
// Thread and process safety: values, and functions that read files.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/log.h"

namespace ringtail::daemon {

using std::chrono::nanoseconds;

// Where to listen or to be found. "[::1]:9464" is an address of IPv6.
struct Endpoint {
  std::string host;  // without brackets
  std::uint16_t port = 0;

  bool operator==(const Endpoint&) const = default;
};
std::string to_string(const Endpoint& endpoint);
// Errors: invalid_argument, with what is wrong.
Result<Endpoint> parse_endpoint(std::string_view text);
// Whether only this host can reach it.
bool is_loopback(const Endpoint& endpoint);

enum class LogFormat { text, json };

// Certificates for TLS; all of them paths of PEM files.
struct TlsFiles {
  std::string ca;
  std::string certificate;
  std::string key;
};

struct Config {
  struct {
    std::string dir = "/var/lib/ringtail";
    IoBackend io = IoBackend::automatic;
    std::int64_t keeper_cpu = -1;  // -1: wherever the kernel likes
    std::string shared_memory_dir = "/dev/shm";
    bool create = true;
  } log;
  struct {
    std::int64_t id = 0;  // 0: none given; required in a cluster
    std::string rack;
    std::optional<Endpoint> replication_listen;
    std::optional<Endpoint> replication_advertise;  // none: replication_listen
  } node;
  struct {
    std::string name;
    std::vector<std::string> etcd;  // URLs
    nanoseconds lease_ttl = std::chrono::seconds(3);
    nanoseconds lease_margin = std::chrono::milliseconds(500);
    std::string user;
    std::string password_file;
    TlsFiles tls;
  } cluster;
  struct {
    bool plain = false;  // without TLS
    TlsFiles tls;
    std::string compression = "none";
    std::int64_t throttle = 0;  // bytes a second; 0: none
    nanoseconds lag_time_max = std::chrono::seconds(10);
    nanoseconds spin = {};
  } replication;
  struct {
    Endpoint listen = {"127.0.0.1", 9464};
    bool allow_remote = false;
  } http;
  struct {
    std::string level = "info";
    LogFormat format = LogFormat::text;
    std::string file;  // empty: standard error
  } logging;
  bool in_cluster = false;    // a setting of [cluster] was given
  bool replace_node = false;  // no setting, since it is for one start: take node.id over from a lost log
};

// A mistake in the configuration, and how to mend it.
struct ConfigProblem {
  std::string where;    // "FILE:LINE", "FILE" or "--set TABLE.KEY"
  std::string setting;  // "http.listen"; empty: the file as a whole
  std::string problem;
  std::string remedy;
  std::uint32_t line = 0;  // of the file; 0: not there
};
std::string to_string(const ConfigProblem& problem);

// "table.key=value", as --set has it.
struct Override {
  std::string setting;
  std::string value;
  std::string option = {};  // that gave it; empty: --set
};

struct LoadedConfig {
  Config config;                        // to be used when there are no problems
  std::vector<ConfigProblem> problems;  // all there are, by their lines; those of no line last
};

// Reads the file, if one is named, and applies the overrides in order, then checks all of it, together with
// the files it names. Blocks on the disk.
LoadedConfig load_config(const std::filesystem::path& file, std::span<const Override> overrides);

// Whether there is no such file. One of which that cannot be told is there: reading it says why.
bool is_missing(const std::filesystem::path& file);

// A setting of the configuration, for those who list them.
struct SettingInfo {
  std::string table;
  std::string key;
  std::string description;
  bool reloads;  // a change takes effect at SIGHUP
};
std::vector<SettingInfo> config_reference();

// What is no mistake, and yet unwise: a line each, with what to do.
std::vector<std::string> warnings_of(const Config& config);

// The names of the settings that differ.
std::vector<std::string> changed_settings(const Config& before, const Config& after);

// The configuration in effect: a file that load_config takes, and an object with one object a table. Neither
// has secrets: the configuration only names the files that hold them.
std::string to_toml(const Config& config);
nlohmann::json to_json(const Config& config);

}  // namespace ringtail::daemon
