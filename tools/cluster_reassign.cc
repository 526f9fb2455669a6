// ringtail cluster reassign
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "replication/administration.h"
#include "replication/placement.h"
#include "tools/cluster_session.h"
#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;
using namespace replication;

struct ReassignArguments {
  ClusterOptions cluster;
  std::string topic;
  std::optional<std::uint32_t> partition;
  std::vector<std::uint32_t> replicas;
  bool spread = false;
  bool cancel = false;
  bool wait = false;
};

// Where each partition is to be, the preferred leader first.
using Targets = std::map<PartitionId, std::vector<NodeId>>;

bool is_under_way(const PartitionRecord& record) {
  return !record.adding.empty() || !record.removing.empty();
}

std::vector<NodeId> without(std::vector<NodeId> nodes, const std::vector<NodeId>& others) {
  std::erase_if(nodes, [&](NodeId node) { return std::ranges::find(others, node) != others.end(); });
  return nodes;
}

// Where it was before what is under way. Where an older release has dropped that: with those that go, but for those that
// came in vain, and without those that come. Who came in vain, and who is dead just now, look alike: so as many stay as
// the topic is to have, and of those that go the first to come stand last.
std::vector<NodeId> origin_of(const PartitionRecord& record, std::size_t replication_factor) {
  if (!record.origin.empty()) return record.origin;
  std::vector<NodeId> nodes = without(record.replicas, record.adding);
  for (auto node = nodes.begin(); node != nodes.end() && nodes.size() > replication_factor;) {
    const bool in_vain = std::ranges::find(record.removing, *node) != record.removing.end() &&
                         std::ranges::find(record.isr, *node, &IsrMember::node) == record.isr.end();
    node = in_vain ? nodes.erase(node) : std::next(node);
  }
  return nodes;
}

// Replicas as a new topic would get them. Errors: not_enough_replicas.
Result<std::vector<std::vector<NodeId>>> spread(const ClusterState& state, const TopicRecord& topic,
                                                std::size_t partitions) {
  ClusterState others = state;
  std::erase_if(others.partitions, [&](const auto& one) { return one.first.topic == topic.name; });
  return place_replicas(others, static_cast<std::uint32_t>(partitions), topic.replication_factor);
}

// Errors: not_found, invalid_argument, not_enough_replicas.
Result<Targets> targets_of(const ClusterState& state, const ReassignArguments& arguments) {
  const auto topic = find_topic(state, arguments.topic);
  if (!topic) return std::unexpected(topic.error());
  Targets targets;
  for (std::uint32_t i = 0; i < topic->record.partitions; ++i) {
    if (arguments.partition && i != *arguments.partition) continue;
    const auto* stored = find_partition(state, topic->record, PartitionId(i));
    if (stored == nullptr)
      return fail(Code::not_found,
                  fmt::format("{}-{} has no record that can be read; see `ringtail cluster status`",
                              arguments.topic, i));
    const PartitionRecord& record = stored->record;
    if (arguments.cancel && !is_under_way(record)) continue;
    std::vector<NodeId>& target = targets[PartitionId(i)];
    if (arguments.cancel) target = origin_of(record, topic->record.replication_factor);
    for (const std::uint32_t node : arguments.replicas) target.emplace_back(node);
  }
  if (arguments.partition && *arguments.partition >= topic->record.partitions)
    return fail(Code::not_found,
                fmt::format("topic '{}' has no partition {}; it has 0 to {}", arguments.topic,
                            *arguments.partition, topic->record.partitions - 1));
  if (!arguments.spread) return targets;
  const auto placed = spread(state, topic->record, targets.size());
  if (!placed) return std::unexpected(placed.error());
  for (auto next = placed->begin(); auto& [partition, target] : targets) target = *next++;
  return targets;
}

// The records of partitions that are neither where they are to be nor on their way. Errors: not_found,
// invalid_argument.
Result<std::vector<Change>> reassignments(const ClusterState& state, const std::string& name,
                                          const Targets& targets) {
  const auto topic = find_topic(state, name);
  if (!topic) return std::unexpected(topic.error());
  std::vector<Change> changes;
  for (const auto& [partition, target] : targets) {
    const auto* stored = find_partition(state, topic->record, partition);
    if (stored == nullptr || without(stored->record.replicas, stored->record.removing) == target) continue;
    auto begun = begin_reassignment(stored->record, state, target);
    if (!begun) return std::unexpected(begun.error());
    changes.push_back({std::move(*begun), stored->revision});
  }
  return changes;
}

// How many of them are still on their way.
std::size_t left_of(const ClusterState& state, const std::string& topic, const Targets& targets) {
  return static_cast<std::size_t>(std::ranges::count_if(targets, [&](const auto& target) {
    const auto found = state.partitions.find({topic, target.first});
    return found != state.partitions.end() && is_under_way(found->second.record);
  }));
}

Status wait_until_moved(const GlobalOptions& options, ClusterSession& session, const std::string& topic,
                        const Targets& targets) {
  std::optional<std::size_t> said;
  return session.wait([&](const ClusterState& state) {
    const std::size_t left = left_of(state, topic, targets);
    if (left != 0 && said != left && !options.json)
      note(options, fmt::format("{} of {} partition{} moved", targets.size() - left, targets.size(),
                                targets.size() == 1 ? "" : "s"));
    said = left;
    return left == 0;
  });
}

int show(const GlobalOptions& options, const ReassignArguments& arguments, const ClusterState& before,
         const ClusterState& after, const Targets& targets) {
  json objects = json::array();
  Table table({"partition", "from", "to", ""});
  for (const auto& [partition, target] : targets) {
    const TopicPartition name{arguments.topic, partition};
    const auto then = before.partitions.find(name);
    const auto now = after.partitions.find(name);
    if (then == before.partitions.end()) continue;
    const bool done = now == after.partitions.end() || !is_under_way(now->second.record);
    const auto from = without(then->second.record.replicas, then->second.record.removing);
    objects.push_back({{"partition", partition.value()},
                       {"from", numbers_of(from)},
                       {"to", numbers_of(target)},
                       {"done", done}});
    table.add({name_of(name), names_of(from), names_of(target), done ? "done" : "under way"});
  }
  return finish(options, {{"topic", arguments.topic}, {"partitions", objects}},
                targets.empty() ? "no reassignment is under way\n" : table.text());
}

int reassign(const GlobalOptions& options, const ReassignArguments& arguments) {
  if ((arguments.replicas.empty() ? 0 : 1) + (arguments.spread ? 1 : 0) + (arguments.cancel ? 1 : 0) != 1)
    return report_usage(
        options, "give one of --replicas, --spread and --cancel; see `ringtail cluster reassign --help`");
  const auto session = ClusterSession::open(arguments.cluster);
  if (!session) return report_cluster(options, session.error());
  const auto before = (*session)->state();
  const auto targets = targets_of(*before, arguments);
  if (!targets) return report(options, targets.error());
  const auto made = (*session)->make(
      [&](const ClusterState& state) { return reassignments(state, arguments.topic, *targets); });
  if (!made) return report_cluster(options, made.error());
  if (arguments.wait)
    if (const Status waited = wait_until_moved(options, **session, arguments.topic, *targets); !waited)
      return report_cluster(options, waited.error());
  return show(options, arguments, *before, *(*session)->state(), *targets);
}

}  // namespace

void add_cluster_reassign(CLI::App& cluster, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ReassignArguments>();
  CLI::App* command = cluster.add_subcommand("reassign", "Move a topic's partitions to other nodes");
  command->add_option("TOPIC", arguments->topic, "The topic")->required()->type_name("");
  command->add_option("--partition", arguments->partition, "This partition only")
      ->check(whole_number())
      ->type_name("N");
  command->add_option("--replicas", arguments->replicas, "To these nodes, the preferred leader first")
      ->delimiter(',')
      ->check(CLI::Range(std::uint32_t{1}, kMaxNodeId))
      ->allow_extra_args(false)
      ->type_name("NODE,NODE...");
  command->add_flag("--spread", arguments->spread, "To nodes as a new topic would get them");
  command->add_flag("--cancel", arguments->cancel, "Back to where they were, those that are on their way");
  command->add_flag("--wait", arguments->wait, "Return once all have moved, however long that takes");
  add_cluster_options(*command, arguments->cluster);
  command->footer(
      "New replicas are added and catch up, as fast as `cluster throttle` lets them; then the leadership "
      "moves,\n"
      "if it must, and the old replicas go. The records stay readable and writable throughout.\n\n"
      "Example:\n  ringtail cluster reassign orders --partition 0 --replicas 3,1 --wait\n"
      "  ringtail cluster reassign orders --spread");
  command->callback([&options, &exit_code, arguments] { exit_code = reassign(options, *arguments); });
}

}  // namespace ringtail::tools
