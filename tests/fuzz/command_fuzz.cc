// Command lines of `ringtail`, a word a line; no sub-command does anything. They are understood, or refused with a
// reason; each time alike.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "fuzz/harness/input.h"
#include "tools/commands.h"

namespace ringtail::fuzz {
namespace {

struct Understood {};

struct CommandLine {
  tools::GlobalOptions options;
  int exit_code = 0;
  CLI::App root{"A shared-memory event log with Kafka's model.", "ringtail"};

  CommandLine() {
    tools::add_everything(root, options, exit_code);
    // Behind all that can be wrong with it, and ahead of what it would do.
    root.parse_complete_callback([] { throw Understood(); });
  }
};

void collect(const CLI::App& app, std::set<std::string>& names) {
  names.insert(app.get_name());
  for (const CLI::Option* const option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.insert("--" + name);
    for (const std::string& name : option->get_snames()) names.insert("-" + name);
  }
  for (const CLI::App* const sub : app.get_subcommands([](const CLI::App*) { return true; }))
    collect(*sub, names);
}

// What is understood by somebody, in an order of its own.
const std::vector<std::string>& known_words() {
  static const auto words = [] {
    std::set<std::string> names;
    collect(CommandLine().root, names);
    return std::vector<std::string>(names.begin(), names.end());
  }();
  return words;
}

constexpr char kKnown = 1;  // begins a line whose next byte chooses a known word

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.size() > 1 && line[0] == kKnown) {
      const auto choice = static_cast<unsigned char>(line[1]);
      words.push_back(known_words()[choice % known_words().size()] + std::string(line.substr(2)));
    } else {
      words.emplace_back(line);
    }
  }
  return words;
}

// How it was taken: the reason of a refusal, or nothing.
std::string take(std::vector<std::string> words) {
  CommandLine line;
  std::ranges::reverse(words);  // as the parser wants them
  try {
    line.root.parse(std::move(words));
    demand(false, "a command line is understood or refused");
  } catch (const Understood&) {
    demand(!line.root.get_subcommands().empty(), "a command line has a sub-command");
  } catch (const CLI::Success&) {  // --help, --version
    demand(!line.root.help().empty(), "help says something");
    return "help";
  } catch (const CLI::ParseError& error) {
    demand(!std::string_view(error.what()).empty(), "a refusal says why");
    return error.what();
  }
  return "";
}

}  // namespace
}  // namespace ringtail::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ringtail::fuzz;
  Input input(data, size);
  const std::vector<std::string> words = words_of(input.rest());
  demand(take(words) == take(words), "a command line means the same each time");
  return 0;
}
