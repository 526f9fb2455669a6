// A cluster's keys in etcd, which it may share with other clusters and with others altogether.
#pragma once

#include <string>
#include <string_view>

#include "replication/records.h"

namespace ringtail::replication {

struct ClusterKeys {
  explicit ClusterKeys(std::string_view cluster) : prefix("/ringtail/" + std::string(cluster) + "/") {}

  std::string of(std::string_view key) const { return prefix + std::string(key); }
  // Without the prefix.
  std::string_view rest(std::string_view key) const { return key.substr(prefix.size()); }

  const std::string prefix;
};

}  // namespace ringtail::replication
