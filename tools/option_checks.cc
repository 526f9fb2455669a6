#include "tools/option_checks.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string_view>

namespace ringtail::tools {
namespace {

std::string range_text(std::uint64_t least, std::uint64_t most) {
  if (most != kNoLimit) return fmt::format("from {} to {}", least, most);
  return least == 0 ? std::string("from 0 on") : fmt::format("of at least {}", least);
}

// All of `text`, in decimal.
template <class Number>
std::optional<Number> parse_all(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

const CLI::App& last_command(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : last_command(*chosen.back());
}

}  // namespace

CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        const auto number = parse_all<std::uint64_t>(text);
        if (!number || *number < least || *number > most)
          return fmt::format("'{}' is no whole number {}", text, range_text(least, most));
        text = std::to_string(*number);
        return std::string();
      },
      "");
}

CLI::Validator signed_number() {
  return CLI::Validator(
      [](std::string& text) {
        const auto number = parse_all<std::int64_t>(text);
        if (!number) return fmt::format("'{}' is no whole number", text);
        text = std::to_string(*number);
        return std::string();
      },
      "");
}

CLI::Validator number_above_zero() {
  return CLI::Validator(
      [](std::string& text) {
        const auto number = parse_all<double>(text);
        return number && *number > 0 && *number <= 1e9
                   ? std::string()
                   : fmt::format("'{}' is no number above 0, up to 1e9", text);
      },
      "");
}

void refuse_empty_values(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_expected_max() == 0) continue;  // a flag
    option->check([](const std::string& text) {
      return text.empty() ? std::string("an empty value names nothing; give one, or leave the option out")
                          : std::string();
    });
  }
  for (CLI::App* command : app.get_subcommands(nullptr)) refuse_empty_values(*command);
}

std::string command_so_far(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* chosen : app.get_subcommands()) name += " " + command_so_far(*chosen);
  return name;
}

std::string describe_mistake(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App& command = last_command(root);
  const std::vector<std::string> strangers = root.remaining(true);
  // The parser misses a sub-command before it looks at the word that stands in its place.
  if (command.get_require_subcommand_min() == 0 || strangers.empty()) return error.what();
  const std::string& word = strangers.front();
  return fmt::format("there is no {} '{}'", word.starts_with('-') ? "option" : "command", word);
}

}  // namespace ringtail::tools
