// What the parser of the command line lets pass, or refuses in words that help nobody.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>

namespace ringtail::tools {

inline constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

// A count or a number of something. The parser takes -1 for the largest number there is, 010 for eight, and
// what is too large for the largest.
CLI::Validator whole_number(std::uint64_t least = 0, std::uint64_t most = kNoLimit);
CLI::Validator signed_number();
// Up to a thousand million, so that a product of two of them, and one in nanoseconds, fits into 64 bits.
CLI::Validator number_above_zero();

// An empty value names nothing, and most commands would take it for no value at all: `--group ""` of a script whose
// variable is not set is a mistake. For all options of `app` and its sub-commands.
void refuse_empty_values(CLI::App& app);

// What is wrong with a command line, in one sentence.
std::string describe_mistake(const CLI::App& root, const CLI::ParseError& error);
// "ringtail topic create": the chain of sub-commands that was recognised before the mistake.
std::string command_so_far(const CLI::App& app);

}  // namespace ringtail::tools
