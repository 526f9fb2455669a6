// ringtail cluster status | nodes | describe
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/parse.h"
#include "base/random.h"
#include "replication/administration.h"
#include "tools/cluster_session.h"
#include "tools/commands.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;
using namespace replication;

// --- status --------------------------------------------------------------------------------------

constexpr std::size_t kMostNamed = 8;

json to_json(const std::vector<TopicPartition>& partitions) {
  json all = json::array();
  for (const TopicPartition& one : partitions)
    all.push_back({{"topic", one.topic}, {"partition", one.partition.value()}});
  return all;
}

// "3: orders-0, orders-1, ..."
std::string to_text(const std::vector<TopicPartition>& partitions) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(partitions.size(), kMostNamed); ++i)
    names.push_back(name_of(partitions[i]));
  if (partitions.size() > kMostNamed) names.emplace_back("...");
  return fmt::format("{}{}{}", partitions.size(), names.empty() ? "" : ": ", fmt::join(names, ", "));
}

std::string throttle_text(std::int64_t bytes_per_s) {
  return bytes_per_s == 0 ? "none" : human_bytes(static_cast<std::uint64_t>(bytes_per_s)) + "/s";
}

constexpr std::size_t kSafeMembers = 3;

// What is to be said of etcd's members; nothing: they survive the loss of a host.
std::string remark_on(const Result<EtcdMembers>& members) {
  if (!members) return "its members cannot be listed: " + members.error().message;
  if (members->count >= kSafeMembers && members->hosts.size() >= kSafeMembers) return {};
  return fmt::format(
      "{} member{} on {} host{}: a failover survives the loss of a host only with three members on three "
      "hosts",
      members->count, members->count == 1 ? "" : "s", members->hosts.size(),
      members->hosts.size() == 1 ? "" : "s");
}

json to_json(const ClusterSession& session, const ClusterState& state, const ClusterSummary& summary) {
  const CoordinatorHealth health = session.health();
  const auto members = session.etcd_members();
  const std::string remark = remark_on(members);
  json malformed = json::object();
  for (const auto& [key, record] : state.malformed) malformed[key] = record.why;
  return {{"cluster", session.name()},
          {"cluster_id", state.cluster_id},
          {"etcd",
           {{"endpoints", session.endpoints()},
            {"endpoint", health.endpoint},
            {"reachable", health.reachable},
            {"revision", state.revision},
            {"members", members ? json(members->count) : json()},
            {"warning", remark.empty() ? json() : json(remark)},
            {"last_error", health.last_error}}},
          {"nodes", {{"registered", summary.nodes}, {"live", summary.live}, {"draining", summary.draining}}},
          {"topics", summary.topics},
          {"partitions", summary.partitions},
          {"under_replicated", to_json(summary.under_replicated)},
          {"leaderless", to_json(summary.leaderless)},
          {"under_min_isr", to_json(summary.under_min_isr)},
          {"reassigning", to_json(summary.reassigning)},
          {"unclean", to_json(summary.unclean)},
          {"malformed", malformed},
          {"settings",
           {{"replication_throttle_bytes_per_s", state.settings.record.replication_throttle_bytes_per_s}}}};
}

std::string to_text(const ClusterSession& session, const ClusterState& state, const ClusterSummary& summary) {
  const CoordinatorHealth health = session.health();
  Table table({"cluster", session.name()});
  table.add({"id", state.cluster_id});
  table.add({"etcd", fmt::format("{} {}", health.endpoint,
                                 health.reachable ? "answers" : "does not answer: " + health.last_error)});
  if (const std::string remark = remark_on(session.etcd_members()); !remark.empty())
    table.add({"", "warning: " + remark});
  table.add(
      {"nodes", fmt::format("{} live of {}, {} draining", summary.live, summary.nodes, summary.draining)});
  table.add({"topics", fmt::format("{}, with {} partition{}", summary.topics, summary.partitions,
                                   summary.partitions == 1 ? "" : "s")});
  table.add({"under-replicated", to_text(summary.under_replicated)});
  table.add({"leaderless", to_text(summary.leaderless)});
  table.add({"under min.insync.replicas", to_text(summary.under_min_isr)});
  table.add({"reassignments", to_text(summary.reassigning)});
  table.add({"elected uncleanly", to_text(summary.unclean)});
  table.add({"replication throttle", throttle_text(state.settings.record.replication_throttle_bytes_per_s)});
  std::string text = table.text();
  for (const auto& [key, record] : state.malformed) text += record.why + '\n';
  return text;
}

int show_status(const GlobalOptions& options, const ClusterOptions& cluster) {
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  const auto state = (*session)->state();
  const ClusterSummary summary = summarize(*state);
  const int printed =
      finish(options, to_json(**session, *state, summary), to_text(**session, *state, summary));
  const bool works = summary.leaderless.empty() && summary.under_min_isr.empty() && state->malformed.empty();
  return printed == kDone && !works ? kFailed : printed;
}

// --- nodes ---------------------------------------------------------------------------------------

std::string to_text(const Address& address) {
  if (address.host.empty()) return "-";
  const bool bracketed = address.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", bracketed ? "[" : "", address.host, bracketed ? "]" : "", address.port);
}

json to_json(const Address& address) {
  return address.host.empty() ? json() : json({{"host", address.host}, {"port", address.port}});
}

int show_nodes(const GlobalOptions& options, const ClusterOptions& cluster) {
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  const auto state = (*session)->state();
  auto load = loads(*state);
  json objects = json::array();
  std::string troubles;
  Table table({"node", "state", "rack", "replication", "http", "release", "started", "partitions", "leads"});
  for (const auto& [id, stored] : state->nodes) {
    const NodeRecord& node = stored.record;
    const bool live = find_live(*state, id) != nullptr;
    json unreached = json::object();
    for (const auto& [other, why] : node.unreached) {
      if (!live || find_live(*state, other) == nullptr) continue;
      unreached[std::to_string(other.value())] = why;
      troubles += fmt::format("node {} cannot connect to node {}: {}\n", id.value(), other.value(), why);
    }
    objects.push_back({{"node", id.value()},
                       {"live", live},
                       {"draining", node.draining},
                       {"rack", node.rack},
                       {"replication", to_json(node.replication)},
                       {"http", to_json(node.http)},
                       {"release", node.release},
                       {"started_ns", node.started_ns},
                       {"incarnation", to_hex(node.incarnation)},
                       {"log_id", node.log_id},
                       {"unreached", unreached},
                       {"replicas", load[id].replicas},
                       {"leads", load[id].led}});
    table.add({std::to_string(id.value()),
               fmt::format("{}{}", live ? "live" : "down", node.draining ? ", draining" : ""),
               node.rack.empty() ? "-" : node.rack, to_text(node.replication), to_text(node.http),
               node.release, format_time(node.started_ns).substr(0, 19) + "Z",
               std::to_string(load[id].replicas), std::to_string(load[id].led)});
  }
  return finish(options, objects, table.text() + troubles);
}

// --- describe ------------------------------------------------------------------------------------

json to_json(const std::optional<NodeId>& node) { return node ? json(node->value()) : json(); }

std::vector<NodeId> isr_nodes(const PartitionRecord& record) {
  std::vector<NodeId> nodes;
  for (const IsrMember& member : record.isr) nodes.push_back(member.node);
  return nodes;
}

json to_json(const PartitionRecord& record, const PartitionHealth& health) {
  return {{"partition", record.partition.value()},
          {"leader", to_json(record.leader)},
          {"led", health.led},
          {"leader_epoch", record.leader_epoch.value()},
          {"partition_epoch", record.partition_epoch},
          {"replicas", numbers_of(record.replicas)},
          {"isr", numbers_of(isr_nodes(record))},
          {"adding", numbers_of(record.adding)},
          {"removing", numbers_of(record.removing)},
          {"wanted_leader", to_json(record.wanted_leader)},
          {"unclean", record.unclean},
          {"under_replicated", health.under_replicated},
          {"under_min_isr", health.under_min_isr}};
}

std::string remarks_on(const PartitionRecord& record, const PartitionHealth& health) {
  std::vector<std::string> remarks;
  if (!health.led) remarks.emplace_back("leaderless");
  if (health.under_min_isr) remarks.emplace_back("under min.insync.replicas");
  if (health.under_replicated) remarks.emplace_back("under-replicated");
  if (record.unclean) remarks.emplace_back("elected uncleanly");
  if (!record.adding.empty()) remarks.push_back("adding " + names_of(record.adding));
  if (!record.removing.empty()) remarks.push_back("removing " + names_of(record.removing));
  if (record.wanted_leader) remarks.push_back(fmt::format("{} is to lead", record.wanted_leader->value()));
  return remarks.empty() ? "ok" : fmt::format("{}", fmt::join(remarks, "; "));
}

// One topic, in both forms.
void describe_topic(const ClusterState& state, const TopicRecord& topic, json& objects, std::string& text) {
  const TopicConfig config = config_of(topic);
  json object = {{"topic", topic.name},
                 {"topic_id", to_hex(topic.topic_id)},
                 {"replication_factor", topic.replication_factor},
                 {"created_ns", topic.created_ns},
                 {"partitions", json::array()}};
  Table partitions({"partition", "leader", "epoch", "replicas", "in sync", "state"});
  for (std::uint32_t i = 0; i < topic.partitions; ++i) {
    const auto* stored = find_partition(state, topic, PartitionId(i));
    if (stored == nullptr) {
      object["partitions"].push_back(
          {{"partition", i}, {"leader", json()}, {"led", false}, {"missing", true}});
      partitions.add({std::to_string(i), "-", "-", "-", "-", "its record is missing or malformed"});
      continue;
    }
    const PartitionRecord& record = stored->record;
    const PartitionHealth health = health_of(record, state, config);
    object["partitions"].push_back(to_json(record, health));
    partitions.add({std::to_string(i), record.leader ? std::to_string(record.leader->value()) : "-",
                    std::to_string(record.leader_epoch.value()), names_of(record.replicas),
                    names_of(isr_nodes(record)), remarks_on(record, health)});
  }
  Table configs({"configuration", "value", ""});
  for (const auto& [name, value] : format_topic_config(config)) {
    const bool given = topic.configs.contains(name);
    object["configs"][name] = {{"value", value}, {"default", !given}};
    configs.add({name, value, given ? "" : "default"});
  }
  objects.push_back(std::move(object));
  text +=
      fmt::format("{}topic '{}': {} partition{}, replication factor {}\n\n{}\n{}", text.empty() ? "" : "\n",
                  topic.name, topic.partitions, topic.partitions == 1 ? "" : "s", topic.replication_factor,
                  partitions.text(2), configs.text(2));
}

int describe(const GlobalOptions& options, const ClusterOptions& cluster, const std::string& name) {
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  const auto state = (*session)->state();
  json objects = json::array();
  std::string text;
  if (!name.empty()) {
    const auto topic = find_topic(*state, name);
    if (!topic) return report(options, topic.error());
    describe_topic(*state, topic->record, objects, text);
    return finish(options, objects.front(), text);
  }
  for (const auto& [ignored, topic] : state->topics) describe_topic(*state, topic.record, objects, text);
  return finish(options, objects, text.empty() ? "no topics\n" : text);
}

}  // namespace

void add_cluster_show(CLI::App& cluster, GlobalOptions& options, int& exit_code) {
  auto which = std::make_shared<ClusterOptions>();
  auto topic = std::make_shared<std::string>();

  CLI::App* status_command = cluster.add_subcommand("status", "Show whether all is well");
  add_cluster_options(*status_command, *which);
  status_command->footer(
      "Exit codes: 0 all partitions are led and have min.insync.replicas in sync, 1 not so, or the cluster "
      "cannot\nbe read, 2 wrong usage, or no configuration that names a cluster.\n\n"
      "Example:\n  ringtail cluster status --etcd http://10.0.0.1:2379 --cluster main");
  status_command->callback([&options, &exit_code, which] { exit_code = show_status(options, *which); });

  CLI::App* nodes_command = cluster.add_subcommand("nodes", "Show the nodes, and what each holds and leads");
  add_cluster_options(*nodes_command, *which);
  nodes_command->footer("Example:\n  ringtail cluster nodes --json");
  nodes_command->callback([&options, &exit_code, which] { exit_code = show_nodes(options, *which); });

  CLI::App* describe_command = cluster.add_subcommand(
      "describe", "Show who leads and holds a topic's partitions, and its configurations");
  describe_command->add_option("TOPIC", *topic, "The topic; all when not given")->type_name("");
  add_cluster_options(*describe_command, *which);
  describe_command->footer(
      "The replica named first is the preferred leader. What the partitions hold on this host is shown by\n"
      "`ringtail topic describe`.\n\nExample:\n  ringtail cluster describe orders");
  describe_command->callback(
      [&options, &exit_code, which, topic] { exit_code = describe(options, *which, *topic); });
}

}  // namespace ringtail::tools
