// ringtail cluster drain
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "replication/administration.h"
#include "tools/cluster_session.h"
#include "tools/commands.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;
using namespace replication;

struct DrainArguments {
  ClusterOptions cluster;
  std::uint32_t node = 0;
  bool undo = false;
  bool wait = false;
};

std::size_t led_by(const ClusterState& state, NodeId node) {
  const auto all = loads(state);
  const auto found = all.find(node);
  return found == all.end() ? 0 : found->second.led;
}

Status wait_until_drained(const GlobalOptions& options, ClusterSession& session, NodeId node) {
  std::optional<std::size_t> said;
  return session.wait([&](const ClusterState& state) {
    const std::size_t left = led_by(state, node);
    if (left != 0 && said != left && !options.json)
      note(options,
           fmt::format("node {} still leads {} partition{}", node.value(), left, left == 1 ? "" : "s"));
    said = left;
    return left == 0;
  });
}

int drain(const GlobalOptions& options, const DrainArguments& arguments) {
  if (arguments.undo && arguments.wait)
    return report_usage(options, "--wait has nothing to wait for with --undo");
  const auto session = ClusterSession::open(arguments.cluster);
  if (!session) return report_cluster(options, session.error());
  const NodeId node(arguments.node);
  const auto made = (*session)->make([&](const ClusterState& state) -> Result<std::vector<Change>> {
    const auto found = state.nodes.find(node);
    if (found == state.nodes.end())
      return fail(Code::not_found, fmt::format("cluster '{}' has no node {}; see `ringtail cluster nodes`",
                                               (*session)->name(), node.value()));
    auto [record, revision] = found->second;
    if (record.draining == !arguments.undo) return std::vector<Change>{};
    record.draining = !arguments.undo;
    return std::vector<Change>{{std::move(record), revision}};
  });
  if (!made) return report_cluster(options, made.error());
  if (arguments.wait)
    if (const Status waited = wait_until_drained(options, **session, node); !waited)
      return report_cluster(options, waited.error());
  const std::size_t left = led_by(*(*session)->state(), node);
  return finish(
      options,
      {{"node", node.value()}, {"draining", !arguments.undo}, {"changed", *made != 0}, {"leads", left}},
      arguments.undo ? fmt::format("node {} may lead again\n", node.value())
                     : fmt::format("node {} is draining; it leads {} partition{}\n", node.value(), left,
                                   left == 1 ? "" : "s"));
}

}  // namespace

void add_cluster_drain(CLI::App& cluster, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<DrainArguments>();
  CLI::App* command = cluster.add_subcommand("drain", "Let a node lead nothing that another could lead");
  command->add_option("NODE", arguments->node, "The node's number")
      ->required()
      ->check(CLI::Range(std::uint32_t{1}, kMaxNodeId))
      ->type_name("");
  command->add_flag("--undo", arguments->undo, "Let it lead again");
  command->add_flag("--wait", arguments->wait, "Return once it leads nothing, however long that takes");
  add_cluster_options(*command, arguments->cluster);
  command->footer(
      "A node that drains keeps its replicas, and gets none of new topics. What only it can lead it goes on\n"
      "leading. A restart of its daemon ends it. To give it leaderships back at once: `cluster elect`.\n\n"
      "Example:\n  ringtail cluster drain 2 --wait && ssh host2 systemctl restart ringtaild");
  command->callback([&options, &exit_code, arguments] { exit_code = drain(options, *arguments); });
}

}  // namespace ringtail::tools
