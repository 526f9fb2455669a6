// What the programs of bench/cluster share: a command line of one mode and its words, one JSON object as the answer.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <exception>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "support/temporary_log.h"

namespace ringtail::bench {

using Json = nlohmann::ordered_json;
using Words = std::span<const char* const>;

template <class Number>
Number number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    die(Error{Code::invalid_argument, 0, fmt::format("'{}' is no number", text)});
  return value;
}

struct Mode {
  std::string_view name;
  std::string_view usage;  // its words; the last of them, in brackets, may be left out
  Json (*run)(Words words);

  bool takes(Words words) const {
    const std::size_t most = 1 + static_cast<std::size_t>(std::ranges::count(usage, ' '));
    return words.size() == most || (usage.ends_with(']') && words.size() + 1 == most);
  }
};

// The whole of main(). Prints what the mode returns; the status is 1 when it throws, 2 when no mode was meant.
inline int run_program(int argc, const char* const* argv, std::span<const Mode> modes) try {
  const Words words(argv + std::min(argc, 2), argv + argc);
  for (const Mode& mode : modes) {
    if (argc < 2 || mode.name != argv[1] || !mode.takes(words)) continue;
    fmt::print("{}\n", mode.run(words).dump());
    return 0;
  }
  std::string_view before = "usage: ";
  for (const Mode& mode : modes) {
    fmt::print(stderr, "{}{} {} {}\n", before, argv[0], mode.name, mode.usage);
    before = "       ";
  }
  return 2;
} catch (const std::exception& error) {
  fmt::print(stderr, "{}: {}\n", argv[0], error.what());
  return 1;
}

}  // namespace ringtail::bench
