// ringtail group list | describe | reset-offsets | delete
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/parse.h"
#include "tools/commands.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;

int list(const GlobalOptions& options) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  const Result<std::vector<GroupSummary>> groups = Admin(*log).list_groups();
  if (!groups) return report(options, groups.error());
  json objects = json::array();
  Table table({"group", "state", "members", "generation"});
  for (const GroupSummary& group : *groups) {
    objects.push_back({{"group", group.id},
                       {"state", to_string(group.state)},
                       {"members", group.members},
                       {"generation", group.generation}});
    table.add({group.id, std::string(to_string(group.state)), std::to_string(group.members),
               std::to_string(group.generation)});
  }
  return finish(options, objects, groups->empty() ? "no consumer groups\n" : table.text());
}

// --- describe ------------------------------------------------------------------------------------

json to_json(const GroupDescription& group) {
  json object = {
      {"group", group.id},          {"state", to_string(group.state)}, {"generation", group.generation},
      {"assignor", group.assignor}, {"members", json::array()},        {"partitions", json::array()}};
  for (const GroupMemberDescription& member : group.members) {
    json partitions = json::array();
    for (const TopicPartition& one : member.partitions)
      partitions.push_back({{"topic", one.topic}, {"partition", one.partition.value()}});
    object["members"].push_back({{"member", member.id},
                                 {"client_id", member.client_id},
                                 {"host", member.host},
                                 {"pid", member.pid},
                                 {"joined_ns", member.joined_ns},
                                 {"idle_ns", member.idle.count()},
                                 {"subscription", member.subscription},
                                 {"by_pattern", member.by_pattern},
                                 {"partitions", partitions}});
  }
  for (const GroupPartitionDescription& p : group.partitions) {
    object["partitions"].push_back({{"topic", p.partition.topic},
                                    {"partition", p.partition.partition.value()},
                                    {"committed_offset", p.committed ? json(p.committed->value()) : json()},
                                    {"metadata", p.metadata},
                                    {"log_start_offset", p.log_start_offset.value()},
                                    {"log_end_offset", p.log_end_offset.value()},
                                    {"lag", p.lag},
                                    {"member", p.member_id.empty() ? json() : json(p.member_id)}});
  }
  if (group.trouble) object["trouble"] = group.trouble->message;
  return object;
}

std::string to_text(const GroupDescription& group) {
  std::string text =
      fmt::format("group '{}': {}, generation {}, assignor {}, {} member{}\n", group.id,
                  to_string(group.state), group.generation, group.assignor.empty() ? "none" : group.assignor,
                  group.members.size(), group.members.size() == 1 ? "" : "s");
  if (group.trouble) text += fmt::format("trouble: {}\n", group.trouble->message);
  Table partitions({"topic", "partition", "committed", "log end", "lag", "member", "host", "pid", "idle"});
  const auto row = [&](const GroupPartitionDescription* p, const GroupMemberDescription* member) {
    std::vector<std::string> cells(5, "-");
    if (p != nullptr)
      cells = {p->partition.topic, std::to_string(p->partition.partition.value()),
               p->committed ? grouped(p->committed->value()) : "-", grouped(p->log_end_offset.value()),
               grouped(p->lag)};
    if (member == nullptr)
      cells.insert(cells.end(), {"-", "-", "-", "-"});
    else
      cells.insert(cells.end(), {member->id, member->host, std::to_string(member->pid),
                                 human_nanoseconds(static_cast<std::uint64_t>(member->idle.count()))});
    partitions.add(std::move(cells));
  };
  for (const GroupPartitionDescription& p : group.partitions) {
    const auto member = std::ranges::find(group.members, p.member_id, &GroupMemberDescription::id);
    row(&p, member == group.members.end() ? nullptr : &*member);
  }
  for (const GroupMemberDescription& member : group.members)
    if (member.partitions.empty()) row(nullptr, &member);
  return text + "\n" + partitions.text(2);
}

int describe(const GlobalOptions& options, const std::string& id) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  const Result<GroupDescription> group = Admin(*log).describe_group(id);
  if (!group) return report(options, group.error());
  return finish(options, to_json(*group), to_text(*group));
}

// --- reset-offsets -------------------------------------------------------------------------------

struct ResetArguments {
  std::string group;
  std::string topic;
  std::optional<std::uint32_t> partition;
  bool to_earliest = false;
  bool to_latest = false;
  std::optional<std::int64_t> to_offset;
  std::string to_time;
  std::optional<std::int64_t> shift_by;
  bool dry_run = false;
};

Result<OffsetReset> parse_reset(const ResetArguments& arguments) {
  using To = OffsetReset::To;
  if (arguments.to_earliest) return OffsetReset{To::earliest, 0};
  if (arguments.to_latest) return OffsetReset{To::latest, 0};
  if (arguments.to_offset) return OffsetReset{To::offset, *arguments.to_offset};
  if (arguments.shift_by) return OffsetReset{To::shift_by, *arguments.shift_by};
  const Result<std::int64_t> time = parse_time(arguments.to_time, wall_clock_ns());
  if (!time) return std::unexpected(time.error());
  return OffsetReset{To::time, *time};
}

int reset_offsets(const GlobalOptions& options, const ResetArguments& arguments) {
  const Result<OffsetReset> reset = parse_reset(arguments);
  if (!reset) return report(options, reset.error());
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  std::optional<PartitionId> partition;
  if (arguments.partition) partition = PartitionId(*arguments.partition);
  const Result<std::vector<OffsetChange>> changes =
      Admin(*log).reset_group_offsets(arguments.group, arguments.topic, partition, *reset, arguments.dry_run);
  if (!changes) return report(options, changes.error());
  json objects = json::array();
  Table table({"topic", "partition", "from", "to"});
  for (const OffsetChange& change : *changes) {
    objects.push_back({{"topic", change.partition.topic},
                       {"partition", change.partition.partition.value()},
                       {"from", change.from ? json(change.from->value()) : json()},
                       {"to", change.to.value()}});
    table.add({change.partition.topic, std::to_string(change.partition.partition.value()),
               change.from ? grouped(change.from->value()) : "-", grouped(change.to.value())});
  }
  return finish(options, {{"group", arguments.group}, {"dry_run", arguments.dry_run}, {"offsets", objects}},
                table.text() + (arguments.dry_run ? "dry run: nothing was changed\n" : ""));
}

int remove(const GlobalOptions& options, const std::string& id) {
  const Result<Log> log = open_log(options, OpenMode::existing);
  if (!log) return report(options, log.error());
  if (const Status deleted = Admin(*log).delete_group(id); !deleted) return report(options, deleted.error());
  return finish(options, {{"group", id}, {"deleted", true}}, fmt::format("deleted group '{}'\n", id));
}

void add_reset(CLI::App& group, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<ResetArguments>();
  CLI::App* command =
      group.add_subcommand("reset-offsets", "Set a group's committed offsets; refused while it has members");
  command->add_option("GROUP", arguments->group, "The group")->required()->type_name("");
  command->add_option("--topic", arguments->topic, "The topic")->required()->type_name("TOPIC");
  command->add_option("--partition", arguments->partition, "This partition only")
      ->check(whole_number())
      ->type_name("N");
  CLI::Option_group* to = command->add_option_group("Target", "exactly one");
  to->add_flag("--to-earliest", arguments->to_earliest, "To the log start offset");
  to->add_flag("--to-latest", arguments->to_latest, "To the log end offset");
  to->add_option("--to-offset", arguments->to_offset, "To this offset, or the end of the log that is nearer")
      ->check(whole_number())
      ->type_name("N");
  to->add_option("--to-time", arguments->to_time,
                 "To the first record of this time or later: RFC 3339, epoch, or -5m")
      ->type_name("TIME");
  to->add_option("--shift-by", arguments->shift_by, "By so many records; negative: back")
      ->check(signed_number())
      ->type_name("N");
  to->require_option(1);
  command->add_flag("--dry-run", arguments->dry_run, "Show what would be changed");
  command->footer("Example:\n  ringtail group reset-offsets billing --topic orders --to-time -1h --dry-run");
  command->callback([&options, &exit_code, arguments] { exit_code = reset_offsets(options, *arguments); });
}

}  // namespace

void add_group(CLI::App& root, GlobalOptions& options, int& exit_code) {
  auto id = std::make_shared<std::string>();
  CLI::App* group = root.add_subcommand("group", "List, describe, reset and delete consumer groups");
  group->require_subcommand(1);
  group->footer("Example:\n  ringtail group describe billing");

  CLI::App* list_command = group->add_subcommand("list", "Print the groups, their state and members");
  list_command->footer("Example:\n  ringtail group list --json");
  list_command->callback([&options, &exit_code] { exit_code = list(options); });

  CLI::App* describe_command =
      group->add_subcommand("describe", "Show who reads what, how far, and how far behind");
  describe_command->add_option("GROUP", *id, "The group")->required()->type_name("");
  describe_command->footer(
      "committed is the next record the group will read, the lag counts from there to the log end; idle is "
      "the\n"
      "time since the member last polled.\n\nExample:\n  watch -n 1 ringtail group describe billing");
  describe_command->callback([&options, &exit_code, id] { exit_code = describe(options, *id); });

  add_reset(*group, options, exit_code);

  CLI::App* delete_command = group->add_subcommand("delete", "Forget a group; refused while it has members");
  delete_command->add_option("GROUP", *id, "The group")->required()->type_name("");
  delete_command->footer("Example:\n  ringtail group delete billing");
  delete_command->callback([&options, &exit_code, id] { exit_code = remove(options, *id); });
}

}  // namespace ringtail::tools
