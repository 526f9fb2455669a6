// Prometheus' text as tests read it.
#pragma once

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

namespace ringtail::monitor {

// `name{labels}` -> value. What does not parse is an entry "?" with the line's number.
inline std::map<std::string, double> parse_metrics(const std::string& text) {
  std::map<std::string, double> values;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty() || line.starts_with("# HELP ") || line.starts_with("# TYPE ")) continue;
    const std::size_t space = line.rfind(' ');
    char* end = nullptr;
    const double value = space == std::string::npos ? 0 : std::strtod(line.c_str() + space + 1, &end);
    if (end == nullptr || *end != 0 || end == line.c_str() + space + 1)
      values["?"] = number;
    else
      values[line.substr(0, space)] = value;
  }
  return values;
}

}  // namespace ringtail::monitor
