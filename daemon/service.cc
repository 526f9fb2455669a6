#include "daemon/service.h"

#include "daemon/cluster_service.h"

namespace ringtail::daemon {
namespace {

// One host: the keeper, which comes with the open log, is all there is to do.
class SingleHost final : public Service {
 public:
  Status start() override { return {}; }
  void reload(const Config&) override {}
  void drain(std::chrono::steady_clock::time_point) override {}
  void stop() override {}
  Readiness readiness() const override { return {true, "one host"}; }
  const monitor::ClusterSource* cluster() const override { return nullptr; }
};

}  // namespace

Result<std::unique_ptr<Service>> make_service(const Config& config, const Log& log) {
  if (config.in_cluster) return make_cluster_service(config, log);
  return std::make_unique<SingleHost>();
}

}  // namespace ringtail::daemon
