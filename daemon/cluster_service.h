// The daemon as a node of a cluster: the coordinator, and the replicator that does as its records say.
#pragma once

#include "daemon/service.h"

namespace ringtail::daemon {

// Errors: invalid_argument and permission_denied of what the configuration names.
Result<std::unique_ptr<Service>> make_cluster_service(const Config& config, const Log& log);

}  // namespace ringtail::daemon
