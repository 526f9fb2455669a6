#include "tools/topic_cluster.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/random.h"
#include "replication/administration.h"
#include "tools/session.h"

namespace ringtail::tools {

using nlohmann::json;
using namespace replication;

int create_in_cluster(const GlobalOptions& options, const ClusterOptions& cluster, const TopicSpec& spec,
                      std::uint32_t replication_factor) {
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  const Result<std::uint64_t> id = random_token();
  if (!id) return report(options, id.error());
  auto creation = TopicCreation::plan(*(*session)->state(), {.name = spec.name,
                                                             .topic_id = *id,
                                                             .partitions = spec.partitions,
                                                             .replication_factor = replication_factor,
                                                             .configs = spec.configs,
                                                             .created_ns = wall_clock_ns()});
  if (!creation) return report(options, creation.error());
  const auto made = (*session)->make([&](const ClusterState& state) { return creation->next(state); });
  if (!made) return report_cluster(options, made.error());
  return finish(
      options,
      {{"topic", spec.name},
       {"partitions", spec.partitions},
       {"replication_factor", replication_factor},
       {"cluster", (*session)->name()},
       {"created", true}},
      fmt::format("created topic '{}' with {} partition{} and {} replica{} of each in cluster '{}'\n",
                  spec.name, spec.partitions, spec.partitions == 1 ? "" : "s", replication_factor,
                  replication_factor == 1 ? "" : "s", (*session)->name()));
}

int alter_in_cluster(const GlobalOptions& options, const ClusterOptions& cluster, const std::string& name,
                     const TopicConfigs& changes, std::optional<std::uint32_t> partitions) {
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  if (!changes.empty()) {
    const auto made =
        (*session)->make([&](const ClusterState& state) { return alteration_of(state, name, changes); });
    if (!made) return report_cluster(options, made.error());
  }
  if (partitions) {
    const auto made =
        (*session)->make([&](const ClusterState& state) { return addition_of(state, name, *partitions); });
    if (!made) return report_cluster(options, made.error());
  }
  json result{{"topic", name}, {"altered", changes}, {"cluster", (*session)->name()}};
  if (partitions) result["partitions"] = *partitions;
  return finish(options, result,
                fmt::format("altered topic '{}' in cluster '{}'\n", name, (*session)->name()));
}

int delete_in_cluster(const GlobalOptions& options, const ClusterOptions& cluster, const std::string& name) {
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  const auto before = (*session)->state();
  const auto topic = find_topic(*before, name);
  if (!topic && leftovers_of(*before, name).empty()) return report(options, topic.error());
  // A topic of the same name that somebody creates meanwhile stays.
  const auto made = (*session)->make([&](const ClusterState& state) -> Result<std::vector<Change>> {
    return topic ? removal_of(state, name, topic->record.topic_id) : leftovers_of(state, name);
  });
  if (!made) return report_cluster(options, made.error());
  json result{{"topic", name}, {"deleted", true}, {"cluster", (*session)->name()}};
  if (!topic) result["leftovers"] = true;
  return finish(
      options, result,
      topic ? fmt::format("deleted topic '{}' in cluster '{}'\n", name, (*session)->name())
            : fmt::format("deleted what an interrupted command had left of topic '{}' in cluster '{}'\n",
                          name, (*session)->name()));
}

}  // namespace ringtail::tools
