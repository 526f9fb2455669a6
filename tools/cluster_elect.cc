// ringtail cluster elect
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/standard_streams.h"
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

struct ElectArguments {
  ClusterOptions cluster;
  std::string topic;
  std::optional<std::uint32_t> partition;
  bool preferred = false;
  bool unclean = false;
  bool yes = false;
};

// The partitions that are meant. Errors: not_found.
Result<std::vector<Stored<PartitionRecord>>> partitions_of(const ClusterState& state,
                                                           const ElectArguments& arguments) {
  std::vector<Stored<PartitionRecord>> found;
  if (!arguments.topic.empty()) {
    const auto topic = find_topic(state, arguments.topic);
    if (!topic) return std::unexpected(topic.error());
    if (arguments.partition && *arguments.partition >= topic->record.partitions)
      return fail(Code::not_found,
                  fmt::format("topic '{}' has no partition {}; it has 0 to {}", arguments.topic,
                              *arguments.partition, topic->record.partitions - 1));
  }
  for (const auto& [name, topic] : state.topics) {
    if (!arguments.topic.empty() && name != arguments.topic) continue;
    for (std::uint32_t i = 0; i < topic.record.partitions; ++i) {
      if (arguments.partition && i != *arguments.partition) continue;
      if (const auto* stored = find_partition(state, topic.record, PartitionId(i))) found.push_back(*stored);
    }
  }
  return found;
}

// What came of it for each partition.
class Outcomes {
 public:
  void add(const PartitionRecord& record, std::optional<NodeId> leader, bool asked, const std::string& why) {
    objects_.push_back({{"topic", record.topic},
                        {"partition", record.partition.value()},
                        {"leader", leader ? json(leader->value()) : json()},
                        {"elected", asked},
                        {"why", why}});
    table_.add(
        {name_of({record.topic, record.partition}), leader ? std::to_string(leader->value()) : "-", why});
    count_ += asked ? 1 : 0;
    failed_ = failed_ || !leader;
  }
  // 1 when a partition is left without the leader that was asked for.
  int print(const GlobalOptions& options, bool unclean, std::string_view done) {
    const std::string text = count_ == 0 && !failed_ ? "nothing to do: there is no partition that needs it\n"
                                                     : table_.text() + fmt::format("{} {}\n", count_, done);
    const int printed = finish(options, {{"unclean", unclean}, {"partitions", objects_}}, text);
    return printed == kDone && failed_ ? kFailed : printed;
  }

 private:
  json objects_ = json::array();
  Table table_{{"partition", "leader", ""}};
  std::size_t count_ = 0;
  bool failed_ = false;
};

// --- Preferred leaders ---------------------------------------------------------------------------

int elect_preferred(const GlobalOptions& options, const ElectArguments& arguments, ClusterSession& session) {
  const auto wishes = [&](const ClusterState& state) -> Result<std::vector<Change>> {
    auto partitions = partitions_of(state, arguments);
    if (!partitions) return std::unexpected(partitions.error());
    std::vector<Change> changes;
    for (auto& [record, revision] : *partitions) {
      const NodeId preferred = record.replicas.front();
      if (record.wanted_leader == preferred || !why_not_preferred(record, state).empty()) continue;
      record.wanted_leader = preferred;
      ++record.partition_epoch;
      changes.push_back({std::move(record), revision});
    }
    return changes;
  };
  const auto before = partitions_of(*session.state(), arguments);
  if (!before) return report(options, before.error());
  Outcomes outcomes;
  for (const auto& [record, revision] : *before) {
    const NodeId preferred = record.replicas.front();
    const std::string why = why_not_preferred(record, *session.state());
    if (record.leader == preferred && is_led(record, *session.state())) continue;
    if (why.empty())
      outcomes.add(record, preferred, true,
                   fmt::format("node {} is asked to hand over", record.leader->value()));
    else
      outcomes.add(record, std::nullopt, false, why);
  }
  if (const auto made = session.make(wishes); !made) return report_cluster(options, made.error());
  return outcomes.print(options, false, "to be handed over by their leaders");
}

// --- Unclean elections ---------------------------------------------------------------------------

struct Election {
  PartitionRecord before;
  Change change;
};

const PartitionRecord& record_of(const Change& change) { return std::get<PartitionRecord>(change.record); }

std::string sacrifice_of(const PartitionRecord& before, const PartitionRecord& after) {
  if (!after.unclean) return "it is in sync, and nothing is lost";
  std::vector<NodeId> lost;
  for (const IsrMember& member : before.isr)
    if (member.node != after.leader) lost.push_back(member.node);
  return lost.empty()
             ? std::string("acknowledged records that it lacks are given up")
             : fmt::format("acknowledged records that it lacks and node {} had are given up", names_of(lost));
}

bool confirmed(const GlobalOptions& options, const ElectArguments& arguments,
               const std::vector<Election>& elections) {
  if (arguments.yes) return true;
  for (const auto& [before, change] : elections) {
    const PartitionRecord& after = record_of(change);
    const std::string sacrifice =
        fmt::format("{}: node {} is to lead; {}", name_of({after.topic, after.partition}),
                    after.leader->value(), sacrifice_of(before, after));
    if (options.json)
      note(options, sacrifice);
    else
      write_to_stderr(sacrifice + "\n");
  }
  if (::isatty(STDIN_FILENO) == 0) return false;
  write_to_stderr("This cannot be undone. Type yes to go on: ");
  std::string answer;
  return std::getline(std::cin, answer) && answer == "yes";
}

int elect_unclean(const GlobalOptions& options, const ElectArguments& arguments, ClusterSession& session) {
  const auto state = session.state();
  const auto partitions = partitions_of(*state, arguments);
  if (!partitions) return report(options, partitions.error());
  std::vector<Election> elections;
  Outcomes outcomes;
  for (const auto& [record, revision] : *partitions) {
    if (is_led(record, *state)) continue;
    auto next = elect(record, *state, true);
    if (!next) {
      outcomes.add(record, std::nullopt, false,
                   fmt::format("none of its replicas is alive: node {}", names_of(record.replicas)));
      continue;
    }
    const TopicConfig config = config_of(state->topics.find(record.topic)->second.record);
    if (next->unclean && config.acks_synced())
      next->isr.front().life = find_live(*state, *next->leader)->log_id;
    elections.push_back({record, {std::move(*next), revision}});
  }
  if (!elections.empty() && !confirmed(options, arguments, elections))
    return report_usage(options,
                        "nothing was changed: records may be lost, so say yes on a terminal, or give --yes");
  for (const auto& [before, change] : elections) {
    // What was agreed to, or nothing.
    const auto made = session.commit(std::span(&change, 1));
    if (!made) return report_cluster(options, made.error());
    const PartitionRecord& after = record_of(change);
    outcomes.add(
        after, *made ? after.leader : std::nullopt, *made,
        *made ? sacrifice_of(before, after) : "it changed meanwhile, and was left alone; look again");
  }
  return outcomes.print(options, true, "elected");
}

int run(const GlobalOptions& options, const ElectArguments& arguments) {
  if (arguments.partition && arguments.topic.empty())
    return report_usage(options, "--partition needs --topic; see `ringtail cluster elect --help`");
  const auto session = ClusterSession::open(arguments.cluster);
  if (!session) return report_cluster(options, session.error());
  return arguments.unclean ? elect_unclean(options, arguments, **session)
                           : elect_preferred(options, arguments, **session);
}

}  // namespace

void add_cluster_elect(CLI::App& cluster, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ElectArguments>();
  CLI::App* command =
      cluster.add_subcommand("elect", "Give partitions their preferred leader, or any at all");
  command->add_option("--topic", arguments->topic, "This topic's partitions; otherwise all")
      ->type_name("TOPIC");
  command->add_option("--partition", arguments->partition, "This partition of the topic only")
      ->check(whole_number())
      ->type_name("N");
  CLI::Option* preferred = command->add_flag("--preferred", arguments->preferred,
                                             "The replica named first is asked to lead (the default)");
  command
      ->add_flag("--unclean", arguments->unclean,
                 "Where nobody leads: the first replica that is alive, in sync or not")
      ->excludes(preferred);
  command->add_flag("--yes", arguments->yes, "Do not ask before records are given up");
  add_cluster_options(*command, arguments->cluster);
  command->footer(
      "A preferred leader takes over from the present one, which hands it all records first; the leader's\n"
      "daemon does that within moments. An unclean election gives up the acknowledged records that the new\n"
      "leader lacks: bring a replica back that was in sync, if there is one.\n"
      "Exit codes: 0 done, 1 a partition cannot be led as asked, 2 wrong usage, or not confirmed.\n\n"
      "Example:\n  ringtail cluster elect --topic orders\n"
      "  ringtail cluster elect --topic orders --partition 3 --unclean");
  command->callback([&options, &exit_code, arguments] { exit_code = run(options, *arguments); });
}

}  // namespace ringtail::tools
