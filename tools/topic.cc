// ringtail topic create | list | describe | alter | delete
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"
#include "tools/topic_create.h"
#ifdef RINGTAIL_WITH_CLUSTER
#include "tools/topic_cluster.h"
#endif

namespace ringtail::tools {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxPartitions = 4096;  // of a topic

Result<TopicConfigs> parse_configs(const std::vector<std::string>& texts) {
  TopicConfigs configs;
  for (const std::string& text : texts) {
    Result<Pair> pair = split_pair(text, "--config");
    if (!pair) return std::unexpected(pair.error());
    configs.insert_or_assign(std::move(pair->name), std::move(pair->value));
  }
  return configs;
}

std::string config_help() {
  Table table({"name", "default", "values", ""});
  for (const ConfigReference& config : Admin::config_reference()) {
    table.add({std::string(config.name), std::string(config.default_value), std::string(config.values),
               config.alterable ? "" : "fixed at creation"});
  }
  return "Configurations:\n" + table.text(2);
}

int list(const GlobalOptions& options) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  const Result<std::vector<std::string>> names = Admin(*log).list_topics();
  if (!names) return report(options, names.error());
  std::string text;
  for (const std::string& name : *names) text += name + '\n';
  return finish(options, json(*names), text);
}

json to_json(const PartitionDescription& partition) {
  json object = {{"partition", partition.partition.value()},
                 {"log_start_offset", partition.log_start_offset.value()},
                 {"durable_offset", partition.durable_offset.value()},
                 {"high_watermark", partition.high_watermark.value()},
                 {"log_end_offset", partition.log_end_offset.value()},
                 {"log_start_position", partition.log_start_position.value()},
                 {"durable_position", partition.durable_position.value()},
                 {"log_end_position", partition.log_end_position.value()},
                 {"disk_bytes", partition.disk_bytes},
                 {"disk_allocated_bytes", partition.disk_allocated_bytes},
                 {"ring_bytes", partition.ring_bytes},
                 {"ring_generation", partition.ring_generation},
                 {"leader_epoch", partition.leader_epoch.value()},
                 {"exclusive_pid", partition.exclusive_pid}};
  if (partition.failure) object["failure"] = partition.failure->message;
  return object;
}

json to_json(const TopicDescription& topic) {
  json object = {{"topic", topic.name}, {"partitions", json::array()}};
  for (const PartitionDescription& partition : topic.partitions) {
    object["partitions"].push_back(to_json(partition));
  }
  for (const auto& [name, value] : topic.configs) {
    object["configs"][name] = {{"value", value}, {"default", !topic.overrides.contains(name)}};
  }
  return object;
}

std::string to_text(const TopicDescription& topic) {
  Table partitions({"partition", "log start offset", "durable offset", "high watermark", "log end offset",
                    "on disk", "allocated", "ring", "state"});
  for (const PartitionDescription& p : topic.partitions) {
    partitions.add({std::to_string(p.partition.value()), grouped(p.log_start_offset.value()),
                    grouped(p.durable_offset.value()), grouped(p.high_watermark.value()),
                    grouped(p.log_end_offset.value()), human_bytes(p.disk_bytes),
                    human_bytes(p.disk_allocated_bytes), human_bytes(p.ring_bytes),
                    p.failure              ? "failed: " + p.failure->message
                    : p.exclusive_pid != 0 ? fmt::format("exclusive: pid {}", p.exclusive_pid)
                                           : "ok"});
  }
  Table configs({"configuration", "value", ""});
  for (const auto& [name, value] : topic.configs) {
    configs.add({name, value, topic.overrides.contains(name) ? "" : "default"});
  }
  return fmt::format("topic '{}': {} partition{}\n\n{}\n{}", topic.name, topic.partitions.size(),
                     topic.partitions.size() == 1 ? "" : "s", partitions.text(2), configs.text(2));
}

int describe(const GlobalOptions& options, const std::string& name) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  const Admin admin(*log);
  std::vector<std::string> names = {name};
  if (name.empty()) {
    Result<std::vector<std::string>> all = admin.list_topics();
    if (!all) return report(options, all.error());
    names = std::move(*all);
  }
  json objects = json::array();
  std::string text;
  for (const std::string& topic : names) {
    const Result<TopicDescription> description = admin.describe_topic(topic);
    if (!description) return report(options, description.error());
    objects.push_back(to_json(*description));
    if (!text.empty()) text += '\n';
    text += to_text(*description);
  }
  return finish(options, name.empty() ? objects : objects.front(), text);
}

int alter(const GlobalOptions& options, const std::string& name, const TopicConfigs& changes,
          std::optional<std::uint32_t> partitions) {
  if (changes.empty() && !partitions)
    return report_usage(options,
                        "nothing to alter: give --config or --partitions; see `ringtail topic alter --help`");
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  Admin admin(*log);
  if (!changes.empty())
    if (const Status altered = admin.alter_topic(name, changes); !altered)
      return report(options, altered.error());
  if (partitions)
    if (const Status grown = admin.create_partitions(name, *partitions); !grown)
      return report(options, grown.error());
  json object = {{"topic", name}, {"altered", changes}};
  if (partitions) object["partitions"] = *partitions;
  return finish(options, object, fmt::format("altered topic '{}'\n", name));
}

int remove(const GlobalOptions& options, const std::string& name) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  if (const Status deleted = Admin(*log).delete_topic(name); !deleted)
    return report(options, deleted.error());
  return finish(options, {{"topic", name}, {"deleted", true}}, fmt::format("deleted topic '{}'\n", name));
}

struct TopicArguments {
  std::string name;
  bool internal = false;
  std::uint32_t partitions = 1;
  std::optional<std::uint32_t> more_partitions;
  std::vector<std::string> configs;
#ifdef RINGTAIL_WITH_CLUSTER
  std::optional<std::uint32_t> replication_factor;
  ClusterOptions cluster;
#endif
};

// --- Here, or in a cluster -----------------------------------------------------------------------

int create(const GlobalOptions& options, const TopicArguments& arguments) {
  Result<TopicConfigs> configs = parse_configs(arguments.configs);
  if (!configs) return report(options, configs.error());
  const TopicSpec spec{arguments.name, arguments.partitions, std::move(*configs)};
#ifdef RINGTAIL_WITH_CLUSTER
  if (arguments.replication_factor)
    return create_in_cluster(options, arguments.cluster, spec, *arguments.replication_factor);
  if (arguments.cluster.given())
    return report_usage(
        options, "a topic of a cluster needs --replication-factor; see `ringtail topic create --help`");
#endif
  return create_topic(options, spec);
}

int alter(const GlobalOptions& options, const TopicArguments& arguments) {
  const Result<TopicConfigs> configs = parse_configs(arguments.configs);
  if (!configs) return report(options, configs.error());
#ifdef RINGTAIL_WITH_CLUSTER
  if (arguments.cluster.given() && (!configs->empty() || arguments.more_partitions))
    return alter_in_cluster(options, arguments.cluster, arguments.name, *configs, arguments.more_partitions);
#endif
  return alter(options, arguments.name, *configs, arguments.more_partitions);
}

// Kept by the coordinator of groups and transactions.
bool is_internal(std::string_view topic) {
  return topic == "__consumer_offsets" || topic == "__transaction_state";
}

int remove(const GlobalOptions& options, const TopicArguments& arguments) {
  if (is_internal(arguments.name) && !arguments.internal)
    return report_usage(
        options, fmt::format("'{}' is a topic of Ringtail's own: with it go the positions of all groups, or "
                             "what is known of transactions; give --internal if that is what you want",
                             arguments.name));
#ifdef RINGTAIL_WITH_CLUSTER
  if (arguments.cluster.given()) return delete_in_cluster(options, arguments.cluster, arguments.name);
#endif
  return remove(options, arguments.name);
}

}  // namespace

void add_topic(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<TopicArguments>();
  CLI::App* topic = root.add_subcommand("topic", "Create, list, describe, alter and delete topics");
  topic->require_subcommand(1);
  topic->footer("Example:\n  ringtail topic create orders --partitions 4 && ringtail topic describe orders");

  const auto add_name = [&](CLI::App* command) {
    return command->add_option("NAME", arguments->name, "The topic")->type_name("");
  };
  const auto add_config = [&](CLI::App* command, std::string_view help) {
    return command->add_option("--config", arguments->configs, std::string(help))
        ->type_name("NAME=VALUE")
        ->allow_extra_args(false);
  };

  CLI::App* create_command = topic->add_subcommand("create", "Create a topic (and the log directory)");
  add_name(create_command)->required();
  create_command->add_option("--partitions", arguments->partitions, "Number of partitions")
      ->check(whole_number(1, kMaxPartitions))
      ->type_name("N")
      ->capture_default_str();
  add_config(create_command, "A configuration; may be repeated");
  create_command->footer(config_help() +
                         "\nExample:\n  ringtail topic create ticks --partitions 2 --config retention.ms=1h "
                         "--config on.full=fail");
  create_command->callback([&options, &exit_code, arguments] { exit_code = create(options, *arguments); });

  CLI::App* list_command = topic->add_subcommand("list", "Print the topics' names, one a line");
  list_command->footer("Example:\n  ringtail topic list --json");
  list_command->callback([&options, &exit_code] { exit_code = list(options); });

  CLI::App* describe_command =
      topic->add_subcommand("describe", "Show a topic's partitions, ends and configurations");
  add_name(describe_command)->description("The topic; all when not given");
  describe_command->footer(
      "The log end offset is committed to the ring, the durable offset is synced on this host, the high\n"
      "watermark is on every in-sync replica; all three name the next record to come. On disk are bytes of\n"
      "records; allocated is what the files take: a segment is made in its full size (segment.bytes), ahead\n"
      "of its records.\n\n"
      "Example:\n  ringtail topic describe orders");
  describe_command->callback(
      [&options, &exit_code, arguments] { exit_code = describe(options, arguments->name); });

  CLI::App* alter_command =
      topic->add_subcommand("alter", "Change configurations of a topic, or give it more partitions");
  add_name(alter_command)->required();
  add_config(alter_command, "A configuration; empty VALUE: the default; may be repeated");
  alter_command
      ->add_option("--partitions", arguments->more_partitions,
                   "Number of partitions from now on; it only grows")
      ->check(whole_number(1, kMaxPartitions))
      ->type_name("N");
  alter_command->footer(
      "Producers that run begin to use new partitions, and groups share them; a key may then go to another\n"
      "partition than before.\n\n"
      "Example:\n  ringtail topic alter orders --config retention.ms=7d --config retention.bytes=\n"
      "  ringtail topic alter orders --partitions 8");
  alter_command->callback([&options, &exit_code, arguments] { exit_code = alter(options, *arguments); });

  CLI::App* delete_command = topic->add_subcommand("delete", "Delete a topic with its records");
  add_name(delete_command)->required();
  delete_command->add_flag("--internal", arguments->internal,
                           "Also one of Ringtail's own, with the positions of all groups");
  delete_command->footer("Example:\n  ringtail topic delete orders");
  delete_command->callback([&options, &exit_code, arguments] { exit_code = remove(options, *arguments); });

#ifdef RINGTAIL_WITH_CLUSTER
  create_command
      ->add_option("--replication-factor", arguments->replication_factor,
                   "Create it in the cluster, with so many replicas of each partition")
      ->check(whole_number(1, 64))
      ->type_name("N");
  for (CLI::App* command : {create_command, alter_command, delete_command})
    add_cluster_options(*command, arguments->cluster, "--cluster-config");
#endif
}

}  // namespace ringtail::tools
