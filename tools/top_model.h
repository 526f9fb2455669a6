// What `ringtail top` shows: samples of a log, and tables made of two of them. No terminal here.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/ringtail.h"

namespace ringtail::tools {

// A look at a log.
struct Sample {
  std::chrono::steady_clock::time_point taken;
  std::int64_t wall_ns = 0;
  std::vector<TopicDescription> topics;
  std::vector<ProcessDescription> processes;
  std::vector<GroupDescription> groups;
};

// Errors: those of Admin::list_topics. Topics and groups that go meanwhile are left out.
Result<Sample> take_sample(const Log& log);

// The latest sample, and the one before it, which rates are made of.
struct Samples {
  std::optional<Sample> before;
  Sample now;
};

struct Cell {
  std::string text;
  nlohmann::json value;  // what is sorted by and given to programs; null: unknown
  enum class Mood { plain, dim, warning, bad } mood = Mood::plain;
  std::optional<double> bar = {};  // 0 to 1: a bar may be drawn before the text
};

struct Column {
  std::string title;
  std::string key;  // in JSON
  bool right = true;
};

struct View {
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;  // the first cell names the row
};

// A view of the log as a whole. Another one is another entry of `tabs`.
struct Tab {
  char key;  // that chooses it
  std::string_view name;
  View (*make)(const Samples&);
  std::size_t sort;  // column, at first
  bool descending;
  View (*details)(const Samples&, std::string_view row);  // the partitions behind a row; null: none
};
std::span<const Tab> tabs();

// Leaves the rows whose first text, or another, contains `filter`, and sorts them; what is unknown
// comes last, equals by their first cells.
void arrange(View& view, std::string_view filter, std::size_t column, bool descending);

nlohmann::json to_json(const View& view);

// Of all topics.
struct Totals {
  double records_per_s = 0;
  double bytes_per_s = 0;
};
std::optional<Totals> totals(const Samples& samples);

// 12345.6 -> "12.3k"; below ten thousand all digits.
std::string human_count(double count);

}  // namespace ringtail::tools
