// ringtail completion: a completion script made from the parser itself, so that it knows every option.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "tools/commands.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) {
    return !command->get_name().empty() && !command->get_group().empty();  // hidden ones have no group
  });
}

// Those of the command itself and of its groups, which the parser takes for nameless commands.
std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  std::vector<const CLI::Option*> options = app.get_options();
  for (const CLI::App* group :
       app.get_subcommands([](const CLI::App* command) { return command->get_name().empty(); })) {
    const std::vector<const CLI::Option*> more = group->get_options();
    options.insert(options.end(), more.begin(), more.end());
  }
  return options;
}

// "--partition -p" and so on, of one option.
std::string names_of(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_lnames()) names += "--" + name + " ";
  for (const std::string& name : option.get_snames()) names += "-" + name + " ";
  return names;
}

// "{a,b}" in a type's name, as CLI::IsMember writes it -> "a b".
std::string choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t open = type.find('{');
  const std::size_t close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return {};
  std::string choices = type.substr(open + 1, close - open - 1);
  std::replace(choices.begin(), choices.end(), ',', ' ');
  return choices;
}

// The bash statement that completes a value of this option.
std::string complete_value(const CLI::Option& option) {
  // A positional says by its name what it is.
  const std::string type = option.get_positional() ? option.get_name(true, false) : option.get_type_name();
  if (const std::string choices = choices_of(option); !choices.empty()) {
    return fmt::format("_ringtail_words '{}'", choices);
  }
  if (type == "TOPIC" || type == "NAME") return "_ringtail_topics";
  if (type == "GROUP") return "_ringtail_groups";
  if (type == "DIR") return "_ringtail_files -d";
  if (type == "FILE" || type == "PATH") return "_ringtail_files -f";
  return ":";
}

std::string option_words(const CLI::App& app) {
  std::string words;
  for (const CLI::Option* option : options_of(app)) {
    if (option->nonpositional() && !option->get_group().empty()) words += names_of(*option);
  }
  return words;
}

// One line for each option that takes a value: "PATH:--option) statement ;;".
void append_value_cases(const CLI::App& app, const std::string& path, std::string& out) {
  for (const CLI::Option* option : options_of(app)) {
    if (!option->nonpositional() || option->get_expected_max() == 0) continue;
    std::string patterns;
    for (const std::string& name : option->get_lnames()) {
      // Options of the root may be given behind any sub-command.
      patterns += (patterns.empty() ? "" : "|") + (path.empty() ? "*" : "'" + path + "'") + ":--" + name;
    }
    if (!patterns.empty()) out += fmt::format("    {}) {}; return ;;\n", patterns, complete_value(*option));
  }
  for (const CLI::App* command : commands_of(app)) {
    append_value_cases(*command, path + " " + command->get_name(), out);
  }
}

// For each command, what may stand where no option's value is due.
void append_word_cases(const CLI::App& app, const std::string& path, const std::string& root_options,
                       std::string& out) {
  std::string words;
  for (const CLI::App* command : commands_of(app)) words += command->get_name() + " ";
  std::string positional;
  int index = 0;
  for (const CLI::Option* option : options_of(app)) {
    if (!option->get_positional()) continue;
    positional += fmt::format("[[ $position == {} ]] && {}; ", index++, complete_value(*option));
  }
  out += fmt::format("    '{}') _ringtail_words '{}{}{}'; {};;\n", path, words, option_words(app),
                     path.empty() ? "" : root_options, positional);
  for (const CLI::App* command : commands_of(app)) {
    append_word_cases(*command, path + " " + command->get_name(), root_options, out);
  }
}

// Which words are sub-commands, so that the script can follow the command line down to the last one.
void append_paths(const CLI::App& app, const std::string& path, std::string& out) {
  for (const CLI::App* command : commands_of(app)) {
    const std::string deeper = path + " " + command->get_name();
    out += fmt::format("{}'{}'", out.empty() ? "" : "|", deeper);
    append_paths(*command, deeper, out);
  }
}

// "--dir|--partition|...": the options of all commands that are followed by a value.
void append_options_with_value(const CLI::App& app, std::string& out) {
  for (const CLI::Option* option : options_of(app)) {
    if (!option->nonpositional() || option->get_expected_max() == 0) continue;
    for (const std::string& name : option->get_lnames()) out += (out.empty() ? "--" : "|--") + name;
  }
  for (const CLI::App* command : commands_of(app)) append_options_with_value(*command, out);
}

constexpr std::string_view kScript =
    R"bash(# bash completion for ringtail, printed by `ringtail completion bash`
_ringtail_words() {{ COMPREPLY+=($(compgen -W "$1" -- "$current")); }}
_ringtail_files() {{ compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen "$1" -- "$current")); }}
_ringtail_topics() {{
  [[ $current == -* ]] && return
  local topics=$("${{COMP_WORDS[0]}}" "${{directory[@]}}" topic list 2>/dev/null)
  COMPREPLY+=($(compgen -W "$topics" -- "$current"))
}}
_ringtail_groups() {{
  [[ $current == -* ]] && return
  local group  # not by compgen -W, which expands what a name contains
  while read -r group; do
    group=${{group%%  *}}  # columns stand two spaces apart
    [[ $group == "$current"* ]] && COMPREPLY+=("$(printf %q "$group")")
  done < <("${{COMP_WORDS[0]}}" "${{directory[@]}}" group list 2>/dev/null | tail -n +2)
}}
_ringtail() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local path= position=0 i directory=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${{COMP_WORDS[i]}} == --dir ]] && directory=(--dir "${{COMP_WORDS[i+1]}}")
    case ${{COMP_WORDS[i]}} in
    {}) ((++i)); continue ;;
    -*) continue ;;
    esac
    case "$path ${{COMP_WORDS[i]}}" in
    {}) path+=" ${{COMP_WORDS[i]}}" ;;
    *) ((++position)) ;;
    esac
  done
  case $path:$previous in
{}  esac
  case $path in
{}  esac
}}
complete -F _ringtail ringtail
)bash";

}  // namespace

std::string bash_completion(const CLI::App& root) {
  std::string paths;
  append_paths(root, "", paths);
  std::string values;
  append_value_cases(root, "", values);
  std::string words;
  append_word_cases(root, "", option_words(root), words);
  std::string with_value;
  append_options_with_value(root, with_value);
  return fmt::format(kScript, with_value, paths, values, words);
}

void add_completion(CLI::App& root, GlobalOptions& options, int& exit_code) {
  CLI::App* command = root.add_subcommand("completion", "Print a completion script for a shell");
  auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "The shell")->required()->check(CLI::IsMember({"bash"}));
  command->footer("Example:\n  source <(ringtail completion bash)");
  command->callback([&root, &options, &exit_code, shell] {
    const Status printed = print(bash_completion(root));
    exit_code = printed || printed.error().code == Code::closed ? kDone : report(options, printed.error());
  });
}

}  // namespace ringtail::tools
