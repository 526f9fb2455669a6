#include "tools/top_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/clock.h"
#include "tools/output.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;
using Mood = Cell::Mood;

// From which fill on a ring looks bad: producers wait when it is full.
constexpr double kRingWarning = 0.5;
constexpr double kRingBad = 0.8;

const TopicDescription* find_topic(const Sample& sample, std::string_view name) {
  const auto found = std::ranges::find(sample.topics, name, &TopicDescription::name);
  return found == sample.topics.end() ? nullptr : &*found;
}

// One number each of a partition, or of all partitions of a topic.
struct Figures {
  std::optional<double> records_per_s;
  std::optional<double> bytes_per_s;
  double ring_fill = 0;  // of the fullest
  bool is_durable = true;
  std::uint64_t lag_records = 0;
  std::uint64_t lag_bytes = 0;
  std::uint64_t records = 0;
  std::uint64_t disk_bytes = 0;
  std::uint64_t ring_bytes = 0;
  std::size_t failed = 0;
  std::string failure;
};

// Marks move while they are read one after the other.
template <class Mark>
std::uint64_t distance(Mark from, Mark to) {
  return to > from ? to - from : 0;
}

void add(Figures& figures, const PartitionDescription& p) {
  figures.ring_fill = std::max(figures.ring_fill, p.ring_fill());
  figures.lag_records += distance(p.durable_offset, p.log_end_offset);
  figures.lag_bytes += distance(p.durable_position, p.log_end_position);
  figures.records += distance(p.log_start_offset, p.log_end_offset);
  figures.disk_bytes += p.disk_bytes;
  figures.ring_bytes += p.ring_bytes;
  if (p.failure) ++figures.failed, figures.failure = p.failure->message;
}

// Adds what came since the partition was looked at before.
void add_rate(Figures& figures, const PartitionDescription& before, const PartitionDescription& now,
              double seconds) {
  const auto records = static_cast<double>(distance(before.log_end_offset, now.log_end_offset));
  const auto bytes = static_cast<double>(distance(before.log_end_position, now.log_end_position));
  figures.records_per_s = figures.records_per_s.value_or(0) + records / seconds;
  figures.bytes_per_s = figures.bytes_per_s.value_or(0) + bytes / seconds;
}

double seconds_between(const Samples& samples) {
  const std::chrono::duration<double> elapsed = samples.now.taken - samples.before->taken;
  return std::max(elapsed.count(), 1e-3);
}

Figures figures_of(const Samples& samples, const TopicDescription& topic,
                   std::span<const PartitionDescription> partitions) {
  Figures figures;
  const auto storage = topic.configs.find("storage");
  figures.is_durable = storage == topic.configs.end() || storage->second != "memory";
  const TopicDescription* before = samples.before ? find_topic(*samples.before, topic.name) : nullptr;
  for (const PartitionDescription& p : partitions) {
    add(figures, p);
    const std::size_t number = p.partition.value();
    if (before != nullptr && number < before->partitions.size())
      add_rate(figures, before->partitions[number], p, seconds_between(samples));
  }
  return figures;
}

Cell text_cell(std::string text, Mood mood = Mood::plain) {
  json value = text;
  return {std::move(text), std::move(value), mood};
}

Cell count_cell(std::uint64_t count) { return {grouped(count), count, count == 0 ? Mood::dim : Mood::plain}; }

Cell bytes_cell(std::uint64_t bytes) {
  return {human_bytes(bytes), bytes, bytes == 0 ? Mood::dim : Mood::plain};
}

Cell unknown_cell() { return {"-", nullptr, Mood::dim}; }

Cell rate_cell(std::optional<double> rate, bool bytes) {
  if (!rate) return unknown_cell();
  return {bytes ? human_bytes(static_cast<std::uint64_t>(*rate)) : human_count(*rate), *rate,
          *rate == 0 ? Mood::dim : Mood::plain};
}

Cell ring_cell(const Figures& figures) {
  const double fill = figures.ring_fill;
  return {fmt::format("{:.0f}%", fill * 100), fill,
          fill >= kRingBad       ? Mood::bad
          : fill >= kRingWarning ? Mood::warning
                                 : Mood::plain,
          fill};
}

std::string storage_name(const Figures& figures) { return figures.is_durable ? "disk" : "memory"; }

Cell state_cell(const Figures& figures, std::size_t partitions) {
  if (figures.failed == 0) return text_cell("ok", Mood::dim);
  return text_cell(partitions == 1 ? "failed: " + figures.failure
                                   : fmt::format("{} failed: {}", figures.failed, figures.failure),
                   Mood::bad);
}

void add_flow_columns(View& view) {
  view.columns.push_back({"records/s", "records_per_s"});
  view.columns.push_back({"bytes/s", "bytes_per_s"});
  view.columns.push_back({"ring", "ring_fill"});
  view.columns.push_back({"not durable", "durable_lag_records"});
  view.columns.push_back({"bytes", "durable_lag_bytes"});
}

void add_flow_cells(std::vector<Cell>& row, const Figures& figures) {
  row.push_back(rate_cell(figures.records_per_s, false));
  row.push_back(rate_cell(figures.bytes_per_s, true));
  row.push_back(figures.is_durable ? ring_cell(figures) : unknown_cell());
  row.push_back(figures.is_durable ? count_cell(figures.lag_records) : unknown_cell());
  row.push_back(figures.is_durable ? bytes_cell(figures.lag_bytes) : unknown_cell());
}

View topics_view(const Samples& samples) {
  View view;
  view.columns = {{"topic", "topic", false}, {"parts", "partitions"}};
  add_flow_columns(view);
  view.columns.push_back({"records", "records"});
  view.columns.push_back({"on disk", "disk_bytes"});
  view.columns.push_back({"storage", "storage", false});
  view.columns.push_back({"state", "state", false});
  for (const TopicDescription& topic : samples.now.topics) {
    const Figures figures = figures_of(samples, topic, topic.partitions);
    std::vector<Cell> row = {text_cell(topic.name), count_cell(topic.partitions.size())};
    add_flow_cells(row, figures);
    row.push_back(count_cell(figures.records));
    row.push_back(figures.is_durable ? bytes_cell(figures.disk_bytes) : unknown_cell());
    row.push_back(text_cell(storage_name(figures), Mood::dim));
    row.push_back(state_cell(figures, topic.partitions.size()));
    view.rows.push_back(std::move(row));
  }
  return view;
}

// "3 s", "12 min", "5 h", "2 d".
std::string human_age(std::int64_t ns) {
  const std::int64_t seconds = std::max<std::int64_t>(ns / 1'000'000'000, 0);
  if (seconds < 120) return fmt::format("{} s", seconds);
  if (seconds < 120 * 60) return fmt::format("{} min", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{} h", seconds / 3600);
  return fmt::format("{} d", seconds / 86400);
}

struct ReadFigures {
  std::uint64_t lag_records = 0;
  std::uint64_t lag_bytes = 0;
  std::string topics;
};

ReadFigures figures_of(const Sample& sample, const ProcessDescription& process) {
  ReadFigures figures;
  std::string_view last;
  for (const ReadPosition& read : process.reads) {
    if (read.partition.topic != last) figures.topics += (last.empty() ? "" : " ") + read.partition.topic;
    last = read.partition.topic;
    const TopicDescription* topic = find_topic(sample, read.partition.topic);
    const std::size_t number = read.partition.partition.value();
    if (topic == nullptr || number >= topic->partitions.size()) continue;
    figures.lag_records += distance(read.offset, topic->partitions[number].log_end_offset);
    figures.lag_bytes += distance(read.position, topic->partitions[number].log_end_position);
  }
  return figures;
}

View processes_view(const Samples& samples) {
  View view;
  view.columns = {{"pid", "pid"},         {"name", "name", false},     {"role", "role", false},
                  {"open", "age_s"},      {"reads", "partitions"},     {"lag", "lag_records"},
                  {"bytes", "lag_bytes"}, {"topics", "topics", false}, {"state", "state", false}};
  for (const ProcessDescription& process : samples.now.processes) {
    const bool reads = process.role == ProcessRole::consumer;
    const ReadFigures figures = figures_of(samples.now, process);
    const std::int64_t age_ns = samples.now.wall_ns - process.started_ns;
    view.rows.push_back({{std::to_string(process.pid), process.pid},
                         text_cell(process.name),
                         text_cell(std::string(to_string(process.role))),
                         process.started_ns == 0 ? unknown_cell()
                                                 : Cell{human_age(age_ns), static_cast<double>(age_ns) / 1e9},
                         reads ? count_cell(process.reads.size()) : unknown_cell(),
                         reads ? count_cell(figures.lag_records) : unknown_cell(),
                         reads ? bytes_cell(figures.lag_bytes) : unknown_cell(),
                         text_cell(figures.topics),
                         process.alive ? text_cell("alive", Mood::dim) : text_cell("dead", Mood::bad)});
  }
  return view;
}

View partitions_view(const Samples& samples, std::string_view topic) {
  View view;
  view.columns = {{"partition", "partition"}};
  add_flow_columns(view);
  view.columns.push_back({"log start", "log_start_offset"});
  view.columns.push_back({"durable", "durable_offset"});
  view.columns.push_back({"log end", "log_end_offset"});
  view.columns.push_back({"on disk", "disk_bytes"});
  view.columns.push_back({"ring size", "ring_bytes"});
  view.columns.push_back({"state", "state", false});
  const TopicDescription* described = find_topic(samples.now, topic);
  if (described == nullptr) return view;
  for (const PartitionDescription& p : described->partitions) {
    const Figures figures = figures_of(samples, *described, std::span(&p, 1));
    std::vector<Cell> row = {{std::to_string(p.partition.value()), p.partition.value()}};
    add_flow_cells(row, figures);
    row.push_back(count_cell(p.log_start_offset.value()));
    row.push_back(figures.is_durable ? count_cell(p.durable_offset.value()) : unknown_cell());
    row.push_back(count_cell(p.log_end_offset.value()));
    row.push_back(figures.is_durable ? bytes_cell(figures.disk_bytes) : unknown_cell());
    row.push_back(bytes_cell(figures.ring_bytes));
    row.push_back(state_cell(figures, 1));
    view.rows.push_back(std::move(row));
  }
  return view;
}

// --- Groups --------------------------------------------------------------------------------------

const GroupDescription* find_group(const Sample& sample, std::string_view id) {
  const auto found = std::ranges::find(sample.groups, id, &GroupDescription::id);
  return found == sample.groups.end() ? nullptr : &*found;
}

// How fast the committed offset of a partition moves; unknown before the second sample and the first commit.
std::optional<double> commit_rate(const Samples& samples, std::string_view id,
                                  const GroupPartitionDescription& now) {
  const GroupDescription* group = samples.before ? find_group(*samples.before, id) : nullptr;
  if (group == nullptr || !now.committed) return std::nullopt;
  const auto before =
      std::ranges::find(group->partitions, now.partition, &GroupPartitionDescription::partition);
  if (before == group->partitions.end() || !before->committed) return std::nullopt;
  return static_cast<double>(distance(*before->committed, *now.committed)) / seconds_between(samples);
}

Cell state_cell(const GroupDescription& group) {
  if (group.trouble) return text_cell("trouble: " + group.trouble->message, Mood::bad);
  return text_cell(std::string(to_string(group.state)),
                   group.state == GroupState::rebalancing ? Mood::warning : Mood::dim);
}

View groups_view(const Samples& samples) {
  View view;
  view.columns = {
      {"group", "group", false},      {"members", "members"},          {"gen", "generation"},
      {"parts", "partitions"},        {"lag", "lag_records"},          {"worst", "worst_lag_records"},
      {"records/s", "records_per_s"}, {"assignor", "assignor", false}, {"state", "state", false}};
  for (const GroupDescription& group : samples.now.groups) {
    std::uint64_t lag = 0, worst = 0;
    std::optional<double> rate;
    for (const GroupPartitionDescription& p : group.partitions) {
      lag += p.lag;
      worst = std::max(worst, p.lag);
      if (const auto one = commit_rate(samples, group.id, p)) rate = rate.value_or(0) + *one;
    }
    view.rows.push_back({text_cell(group.id), count_cell(group.members.size()), count_cell(group.generation),
                         count_cell(group.partitions.size()), count_cell(lag), count_cell(worst),
                         rate_cell(rate, false), text_cell(group.assignor, Mood::dim), state_cell(group)});
  }
  return view;
}

View group_partitions_view(const Samples& samples, std::string_view id) {
  View view;
  view.columns = {{"partition", "partition", false},
                  {"committed", "committed_offset"},
                  {"log end", "log_end_offset"},
                  {"lag", "lag_records"},
                  {"records/s", "records_per_s"},
                  {"idle", "idle_s"},
                  {"pid", "pid"},
                  {"member", "member", false}};
  const GroupDescription* group = find_group(samples.now, id);
  if (group == nullptr) return view;
  for (const GroupPartitionDescription& p : group->partitions) {
    const std::uint32_t number = p.partition.partition.value();
    const auto member = std::ranges::find(group->members, p.member_id, &GroupMemberDescription::id);
    const bool is_read = member != group->members.end();
    view.rows.push_back(
        {{fmt::format("{}-{}", p.partition.topic, number), json::array({p.partition.topic, number})},
         p.committed ? count_cell(p.committed->value()) : unknown_cell(),
         count_cell(p.log_end_offset.value()),
         count_cell(p.lag),
         rate_cell(commit_rate(samples, id, p), false),
         is_read ? Cell{human_age(member->idle.count()), static_cast<double>(member->idle.count()) / 1e9}
                 : unknown_cell(),
         is_read ? Cell{std::to_string(member->pid), member->pid} : unknown_cell(),
         is_read ? text_cell(member->id) : text_cell("nobody", Mood::warning)});
  }
  return view;
}

bool comes_before(const Cell& a, const Cell& b, bool descending) {
  if (a.value.is_null() || b.value.is_null()) return !a.value.is_null() && b.value.is_null();
  return descending ? b.value < a.value : a.value < b.value;
}

}  // namespace

Result<Sample> take_sample(const Log& log) {
  const Admin admin(log);
  Sample sample;
  const Result<std::vector<std::string>> names = admin.list_topics();
  if (!names) return std::unexpected(names.error());
  for (const std::string& name : *names) {
    if (Result<TopicDescription> topic = admin.describe_topic(name))
      sample.topics.push_back(std::move(*topic));
  }
  Result<std::vector<ProcessDescription>> processes = admin.list_processes();
  if (!processes) return std::unexpected(processes.error());
  sample.processes = std::move(*processes);
  // While the groups of a log are not restored yet, there are none to show.
  if (const Result<std::vector<GroupSummary>> groups = admin.list_groups()) {
    for (const GroupSummary& summary : *groups) {
      if (Result<GroupDescription> group = admin.describe_group(summary.id))
        sample.groups.push_back(std::move(*group));
    }
  }
  sample.taken = std::chrono::steady_clock::now();
  sample.wall_ns = wall_clock_ns();
  return sample;
}

std::span<const Tab> tabs() {
  static constexpr std::array<Tab, 3> kTabs = {{
      {'t', "topics", topics_view, 2, true, partitions_view},
      {'p', "processes", processes_view, 0, false, nullptr},
      {'g', "groups", groups_view, 4, true, group_partitions_view},
  }};
  return kTabs;
}

void arrange(View& view, std::string_view filter, std::size_t column, bool descending) {
  std::erase_if(view.rows, [&](const std::vector<Cell>& row) {
    return std::ranges::none_of(
        row, [&](const Cell& cell) { return cell.text.find(filter) != std::string::npos; });
  });
  std::ranges::sort(view.rows, [&](const std::vector<Cell>& a, const std::vector<Cell>& b) {
    if (comes_before(a[column], b[column], descending)) return true;
    if (comes_before(b[column], a[column], descending)) return false;
    return a.front().value < b.front().value;
  });
}

json to_json(const View& view) {
  json rows = json::array();
  for (const std::vector<Cell>& row : view.rows) {
    json object;
    for (std::size_t c = 0; c < row.size(); ++c) object[view.columns[c].key] = row[c].value;
    rows.push_back(std::move(object));
  }
  return rows;
}

std::optional<Totals> totals(const Samples& samples) {
  if (!samples.before) return std::nullopt;
  Totals sum;
  for (const TopicDescription& topic : samples.now.topics) {
    const Figures figures = figures_of(samples, topic, topic.partitions);
    sum.records_per_s += figures.records_per_s.value_or(0);
    sum.bytes_per_s += figures.bytes_per_s.value_or(0);
  }
  return sum;
}

std::string human_count(double count) {
  if (count < 9'999.5) return grouped(static_cast<std::uint64_t>(std::llround(count)));
  static constexpr std::array<std::string_view, 5> kUnits = {"", "k", "M", "G", "T"};
  std::size_t unit = 0;
  // What three digits would round up to a thousand goes to the next unit.
  while (count >= 999.5 && unit + 1 < kUnits.size()) count /= 1000, ++unit;
  return fmt::format("{:.{}f}{}", count, count < 9.995 ? 2 : count < 99.95 ? 1 : 0, kUnits[unit]);
}

}  // namespace ringtail::tools
