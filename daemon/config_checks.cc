#include "daemon/config_checks.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/topic_config.h"

namespace ringtail::daemon {
namespace {

constexpr std::size_t kMaxRackBytes = 255;  // of a text in a node's record

// Whether it stands for all addresses of a host, of which nobody can connect to one by that name.
bool is_wildcard(const std::string& host) {
  in_addr four;
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) return four.s_addr == INADDR_ANY;
  in6_addr six;
  return ::inet_pton(AF_INET6, host.c_str(), &six) == 1 && IN6_IS_ADDR_UNSPECIFIED(&six) != 0;
}

class Checks {
 public:
  Checks(LoadedConfig& loaded, const SettingOrigins& origins, const std::filesystem::path& file)
      : loaded_(loaded), config_(loaded.config), origins_(origins), file_(file) {}

  void run() {
    check_log();
    check_http();
    check_tls("cluster", config_.cluster.tls, false);
    check_tls("replication", config_.replication.tls, config_.in_cluster && !config_.replication.plain);
    // A file that is to be written needs a folder to be in.
    check_file("logging.file", std::filesystem::path(config_.logging.file).parent_path());
    if (config_.in_cluster) check_cluster();
  }

 private:
  // Says it of the setting, at the place where it was given; or of the file, where it is missing.
  void object(const std::string& setting, std::string problem, std::string remedy) {
    const auto same = [&](const ConfigProblem& p) { return p.setting == setting; };
    if (std::ranges::any_of(loaded_.problems, same)) return;
    const auto given = origins_.find(setting);
    const Origin origin = given != origins_.end() ? given->second : Origin{file_.native(), 0};
    loaded_.problems.push_back({origin.where, setting, std::move(problem), std::move(remedy), origin.line});
  }

  void require(const std::string& setting, bool present, std::string remedy) {
    if (!present) object(setting, "is missing", std::move(remedy));
  }

  void check_log() {
    require("log.dir", !config_.log.dir.empty(), "name the log directory");
    if (!config_.log.dir.empty() && !std::filesystem::path(config_.log.dir).is_absolute())
      object("log.dir", fmt::format("\"{}\" depends on where the daemon is started", config_.log.dir),
             "write it from the root on");
    std::error_code ignored;
    const auto status = std::filesystem::status(config_.log.dir, ignored);
    if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
      object("log.dir", fmt::format("\"{}\" is no directory", config_.log.dir),
             "name one, or move the file away");
    if (const auto cpus = ::sysconf(_SC_NPROCESSORS_CONF); config_.log.keeper_cpu >= cpus)
      object("log.keeper_cpu", fmt::format("this host has no CPU {}", config_.log.keeper_cpu),
             cpus == 1 ? "there is CPU 0 only; -1 is none"
                       : fmt::format("its CPUs are 0 to {}; -1 is none", cpus - 1));
    require("log.shared_memory_dir", !config_.log.shared_memory_dir.empty(), "write \"/dev/shm\"");
  }

  void check_http() {
    if (config_.http.allow_remote || is_loopback(config_.http.listen)) return;
    object("http.listen", fmt::format("{} can be reached from other hosts", to_string(config_.http.listen)),
           "listen on 127.0.0.1, or set http.allow_remote = true if everybody there may look");
  }

  void check_tls(const std::string& table, const TlsFiles& tls, bool required) {
    if (required) {
      for (const auto& [key, value] :
           {std::pair("ca", &tls.ca), std::pair("certificate", &tls.certificate), std::pair("key", &tls.key)})
        require(table + "." + key, !value->empty(),
                fmt::format("name a PEM file, or set {}.plain = true where the network is trusted", table));
    } else if (tls.certificate.empty() != tls.key.empty()) {
      const std::string missing = tls.key.empty() ? ".key" : ".certificate";
      object(table + missing, "is missing", "certificate and key go together");
    }
    check_file(table + ".ca", tls.ca);
    check_file(table + ".certificate", tls.certificate);
    check_file(table + ".key", tls.key);
    check_private(table + ".key", tls.key);
  }

  void check_cluster() {
    const auto& cluster = config_.cluster;
    require("cluster.name", !cluster.name.empty(), "give the cluster a name, such as \"main\"");
    const auto is_plain = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
             c == '_' || c == '.';
    };
    if (!std::ranges::all_of(cluster.name, is_plain))
      object("cluster.name", "has characters that names may not have",
             "use letters, digits, '.', '-' and '_'");
    else if (!cluster.name.empty() && !check_topic_name(cluster.name))
      object("cluster.name", "has more than 200 characters, or is \".\" or \"..\"", "choose another one");
    require("cluster.etcd", !cluster.etcd.empty(),
            "name etcd's members, such as [\"http://127.0.0.1:2379\"]");
    const auto is_plaintext = [](const std::string& url) { return url.starts_with("http://"); };
    if (!cluster.tls.certificate.empty() && std::ranges::any_of(cluster.etcd, is_plaintext))
      object("cluster.etcd", "has a URL that does without TLS, and cluster.certificate is given",
             "write https://, or leave the certificate out");
    if (config_.node.rack.size() > kMaxRackBytes)
      object("node.rack", fmt::format("has more than {} bytes", kMaxRackBytes), "choose a shorter name");
    require("node.id", config_.node.id != 0, "give each node a number of its own, from 1 on");
    require("node.replication_listen", config_.node.replication_listen.has_value(),
            "name where the other nodes connect to, such as \"10.0.0.1:9465\"");
    if (cluster.lease_margin * 2 > cluster.lease_ttl)
      object("cluster.lease_margin", "is more than half of cluster.lease_ttl",
             "make it shorter, or cluster.lease_ttl longer");
    if (cluster.user.empty() != cluster.password_file.empty())
      object(cluster.user.empty() ? "cluster.user" : "cluster.password_file", "is missing",
             "user and password_file go together");
    check_file("cluster.password_file", cluster.password_file);
    check_private("cluster.password_file", cluster.password_file);
    check_advertised();
  }

  // What the other nodes are told to connect to. Port 0 is fine: they are told the one that was found.
  void check_advertised() {
    const auto& listen = config_.node.replication_listen;
    const auto& advertised = config_.node.replication_advertise;
    if (advertised && is_wildcard(advertised->host))
      object("node.replication_advertise",
             fmt::format("other nodes cannot connect to {}", to_string(*advertised)),
             "name the address at which they reach this host, such as \"10.0.0.1:9465\"");
    if (!advertised && listen && is_wildcard(listen->host))
      object("node.replication_advertise", "is missing",
             "other nodes cannot connect to " + to_string(*listen));
  }

  void check_file(const std::string& setting, const std::string& path) {
    if (path.empty() || ::access(path.c_str(), R_OK) == 0) return;
    object(setting, fmt::format("cannot read '{}': {}", path, std::strerror(errno)),
           "name one that exists and that this user may read");
  }

  void check_private(const std::string& setting, const std::string& path) {
    struct stat status{};
    if (path.empty() || ::stat(path.c_str(), &status) != 0 || (status.st_mode & S_IRWXO) == 0) return;
    object(setting, fmt::format("'{}' may be read or written by everybody", path),
           fmt::format("chmod o= '{}'", path));
  }

  LoadedConfig& loaded_;
  const Config& config_;
  const SettingOrigins& origins_;
  const std::filesystem::path& file_;
};

constexpr std::size_t kEtcdMembers = 3;  // of which one may be lost

// "http://10.0.0.1:2379" is of "10.0.0.1".
std::string host_of(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::string rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
  const auto endpoint = parse_endpoint(rest);
  return endpoint ? endpoint->host : rest;
}

bool is_this_host(const Config& config, const std::string& host) {
  const auto is_mine = [&](const std::optional<Endpoint>& mine) { return mine && mine->host == host; };
  return is_loopback({host, 0}) || is_mine(config.node.replication_listen) ||
         is_mine(config.node.replication_advertise);
}

}  // namespace

std::vector<std::string> warnings_of(const Config& config) {
  std::vector<std::string> warnings;
  if (!config.in_cluster) return warnings;
  std::set<std::string> hosts;
  for (const std::string& url : config.cluster.etcd) hosts.insert(host_of(url));
  if (!hosts.empty() && std::ranges::all_of(hosts, [&](const auto& h) { return is_this_host(config, h); }))
    warnings.push_back(
        "cluster.etcd: all of etcd is on this host: when it is lost, no other can take over; run etcd on "
        "three "
        "hosts, and name them all");
  else if (hosts.size() < kEtcdMembers)
    warnings.push_back(fmt::format(
        "cluster.etcd: {} named: a failover survives the loss of a host only with three members of etcd on "
        "three hosts; two data hosts need a third for etcd alone",
        hosts.size() == 1 ? "one host is" : "two hosts are"));
  return warnings;
}

void check_whole(LoadedConfig& loaded, const SettingOrigins& origins, const std::filesystem::path& file) {
  Checks(loaded, origins, file).run();
}

}  // namespace ringtail::daemon
