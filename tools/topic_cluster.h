// Topics of a cluster, whose records are in etcd; what `ringtail topic` does with them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ringtail/admin.h"
#include "tools/cluster_session.h"
#include "tools/options.h"

namespace ringtail::tools {

// Each returns the exit code, and has told what it did, or why not. They block until etcd has answered.
int create_in_cluster(const GlobalOptions& options, const ClusterOptions& cluster, const TopicSpec& spec,
                      std::uint32_t replication_factor);
int alter_in_cluster(const GlobalOptions& options, const ClusterOptions& cluster, const std::string& name,
                     const TopicConfigs& changes, std::optional<std::uint32_t> partitions);
int delete_in_cluster(const GlobalOptions& options, const ClusterOptions& cluster, const std::string& name);

}  // namespace ringtail::tools
