#include "tools/perf_report.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/result.h"
#include "commit.h"
#include "tools/output.h"
#include "tools/perf_chart.h"

namespace ringtail::tools::perf {
namespace {

using Json = nlohmann::ordered_json;

struct Percentile {
  const char* key;
  const char* label;
  double percent;
};
constexpr std::array<Percentile, 5> kPercentiles{{{"p50", "p50", 50},
                                                  {"p90", "p90", 90},
                                                  {"p99", "p99", 99},
                                                  {"p99_9", "p99.9", 99.9},
                                                  {"p99_99", "p99.99", 99.99}}};

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      const std::size_t colon = line.find(':');
      return colon == std::string::npos || colon + 2 > line.size() ? "" : line.substr(colon + 2);
    }
  }
  return "unknown";
}

std::string kernel() {
  utsname names;
  if (::uname(&names) != 0) return "unknown";
  return fmt::format("{} {} {}", names.sysname, names.release, names.machine);
}

// Median, least and most of a figure over the repetitions.
struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};

template <class Figure>
Spread spread_of(const PerfResult& result, Figure figure) {
  std::vector<double> values;
  for (const RunResult& run : result.runs) values.push_back(figure(run));
  if (values.empty()) return {};
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

std::unique_ptr<Histogram> merged(const PerfResult& result) {
  auto all = std::make_unique<Histogram>();
  for (const RunResult& run : result.runs) all->merge(*run.latency_ns);
  return all;
}

Json latency_json(const Histogram& latency) {
  Json object;
  object["min"] = latency.min();
  for (const Percentile& p : kPercentiles) object[p.key] = latency.percentile(p.percent);
  object["max"] = latency.max();
  object["mean"] = std::round(latency.mean() * 10) / 10;
  object["stddev"] = std::round(latency.stddev() * 10) / 10;
  object["samples"] = latency.count();
  return object;
}

Json probe_json(double before, double after) {
  return {{"before", std::round(before * 10) / 10}, {"after", std::round(after * 10) / 10}};
}

std::string headline(const PerfOptions& options) {
  std::string text =
      fmt::format("{}, {}: {} B, storage={}, {} consumer", options.mode, to_string(options.method),
                  options.size, options.storage, to_string(options.wait));
  if (options.method != Method::ping_pong) {
    text += fmt::format(", {} producer{}", options.producers, options.producers == 1 ? "" : "s");
  }
  if (options.batch > 1) text += fmt::format(", batches of {}", options.batch);
  if (options.claim) text += ", written in place";
  if (options.exclusive) text += ", exclusive";
  if (options.rate > 0)
    text += fmt::format(", {} records/s", grouped(static_cast<std::uint64_t>(options.rate)));
  text += fmt::format(", CPUs {}", fmt::join(options.cpus, ","));
  return text;
}

std::string surroundings(const PerfResult& result) {
  return fmt::format(
      "cache-line round trip R: {:.0f} ns before, {:.0f} ns after (one shared line: {:.0f}, {:.0f})\n"
      "{}, {}\n",
      result.probe_before.two_lines, result.probe_after.two_lines, result.probe_before.one_line,
      result.probe_after.one_line, cpu_model(), kernel());
}

// Results of runs whose probes differ are those of two machines.
bool probes_agree(const PerfResult& result) {
  const double before = result.probe_before.two_lines;
  const double after = result.probe_after.two_lines;
  return std::abs(before - after) <= 0.15 * std::max(before, after);
}

Table latency_table(const PerfResult& result, const Histogram& all) {
  std::vector<std::string> header{"run", "records/s", "min"};
  for (const Percentile& p : kPercentiles) header.emplace_back(p.label);
  header.emplace_back("max");
  Table table(std::move(header));
  const auto add = [&](std::string name, double rate, const Histogram& latency) {
    std::vector<std::string> row{std::move(name), grouped(static_cast<std::uint64_t>(rate)),
                                 human_nanoseconds(latency.min())};
    for (const Percentile& p : kPercentiles) row.push_back(human_nanoseconds(latency.percentile(p.percent)));
    row.push_back(human_nanoseconds(latency.max()));
    table.add(std::move(row));
  };
  for (std::size_t i = 0; i < result.runs.size(); ++i) {
    add(fmt::format("{}", i + 1), result.runs[i].records_per_second(), *result.runs[i].latency_ns);
  }
  if (result.runs.size() > 1) {
    add("all", spread_of(result, [](const RunResult& run) { return run.records_per_second(); }).median, all);
  }
  return table;
}

Status write_file(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return fail_errno(errno, fmt::format("cannot create '{}'", path));
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const int write_errno = errno;
  const bool closed = std::fclose(file) == 0;
  if (written && closed) return {};
  return fail_errno(written ? errno : write_errno, fmt::format("cannot write '{}'", path));
}

}  // namespace

std::string to_text(const PerfOptions& options, const PerfResult& result) {
  const auto all = merged(result);
  const Spread rate = spread_of(result, [](const RunResult& run) { return run.records_per_second(); });
  const Spread durable =
      spread_of(result, [](const RunResult& run) { return run.durable_records_per_second(); });
  const auto count = [](double number) { return grouped(static_cast<std::uint64_t>(number)); };
  const auto bytes = [&](double records) {
    return human_bytes(static_cast<std::uint64_t>(records * options.size));
  };
  std::string text = headline(options) + "\n\n" + latency_table(result, *all).text(2) + "\n";
  if (options.method == Method::ping_pong) {
    text += fmt::format("latency is the round trip; p50 is {:.2f} R\n",
                        static_cast<double>(all->percentile(50)) / result.probe_before.two_lines);
  } else {
    text += fmt::format("received {} records/s (from {} to {}), {}/s\n", count(rate.median), count(rate.min),
                        count(rate.max), bytes(rate.median));
    if (durable.median > 0) {
      text += fmt::format("synced   {} records/s (from {} to {}), {}/s\n", count(durable.median),
                          count(durable.min), count(durable.max), bytes(durable.median));
    }
  }
  text += surroundings(result);
  if (!probes_agree(result)) {
    text += "the probes differ: the machine changed meanwhile, so do not compare these figures with others\n";
  }
  return text;
}

std::string to_json(const PerfOptions& options, const PerfResult& result) {
  const auto all = merged(result);
  const Spread rate = spread_of(result, [](const RunResult& run) { return run.records_per_second(); });
  const Spread durable =
      spread_of(result, [](const RunResult& run) { return run.durable_records_per_second(); });
  std::uint64_t records = 0;
  for (const RunResult& run : result.runs) records += run.records;
  const auto whole = [](double number) { return static_cast<std::uint64_t>(number); };
  const double log_bytes = result.runs.empty() ? 0 : result.runs.back().log_bytes_per_record;

  Json object;
  object["mode"] = options.mode;
  object["method"] = to_string(options.method);
  object["storage"] = options.storage;
  object["size"] = options.size;
  object["count"] = records;
  object["producers"] = options.producers;
  object["batch"] = options.batch;
  object["claim"] = options.claim;
  object["exclusive"] = options.exclusive;
  object["rate"] = options.rate;
  object["wait"] = to_string(options.wait);
  object["cpus"] = options.cpus;
  object["repeat"] = options.repeat;
  object["records_per_second"] = whole(rate.median);
  object["records_per_second_min"] = whole(rate.min);
  object["records_per_second_max"] = whole(rate.max);
  object["bytes_per_second"] = whole(rate.median * options.size);
  if (durable.median > 0) {
    object["durable_records_per_second"] = whole(durable.median);
    object["durable_bytes_per_second"] = whole(durable.median * options.size);
    object["durable_log_bytes_per_second"] = whole(durable.median * log_bytes);
  }
  object["log_bytes_per_record"] = std::round(log_bytes * 100) / 100;
  object["latency_ns"] = latency_json(*all);
  object["probe_ns"] = probe_json(result.probe_before.two_lines, result.probe_after.two_lines);
  object["probe_one_line_ns"] = probe_json(result.probe_before.one_line, result.probe_after.one_line);
  object["probes_agree"] = probes_agree(result);
  object["runs"] = Json::array();
  for (const RunResult& run : result.runs) {
    object["runs"].push_back({{"records", run.records},
                              {"seconds", run.seconds},
                              {"records_per_second", whole(run.records_per_second())},
                              {"durable_records_per_second", whole(run.durable_records_per_second())},
                              {"latency_ns", latency_json(*run.latency_ns)}});
  }
  object["machine"] = cpu_model();
  object["kernel"] = kernel();
  object["version"] = RINGTAIL_VERSION;
  object["commit"] = kCommit;
  return object.dump() + "\n";
}

Status write_files(const PerfOptions& options, const PerfResult& result) {
  const auto all = merged(result);
  Status written;
  if (!options.hgrm_file.empty()) written = write_file(options.hgrm_file, all->to_hgrm());
  if (options.html_file.empty() || all->count() == 0) return written;
  constexpr std::size_t kMaxCurves = 8;
  std::vector<ChartSeries> series;
  for (const RunResult& run : result.runs) {
    if (run.latency_ns->count() == 0 || series.size() == kMaxCurves) continue;
    series.push_back({fmt::format("run {}", series.size() + 1), run.latency_ns.get()});
  }
  const std::string title = fmt::format("Ringtail {} ({})", options.mode, to_string(options.method));
  const std::string notes = headline(options) + "\n" + surroundings(result);
  const Status page = write_file(options.html_file, percentile_page(title, notes, series));
  return written ? page : written;
}

}  // namespace ringtail::tools::perf
