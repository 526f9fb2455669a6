// What people write into files and on command lines: numbers with units, points in time, topics' configurations,
// ringtail.toml, topic.toml, and the daemon's configuration. A refusal says why; what is accepted and written again
// is read as the same.
#include <filesystem>
#include <fstream>

#include "base/parse.h"
#include "base/toml_values.h"
#include "base/topic_config.h"
#include "daemon/config.h"
#include "fuzz/harness/input.h"
#include "log/catalog.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::fuzz {
namespace {

namespace fs = std::filesystem;

// In memory, for files are made by the thousand.
const fs::path& scratch() {
  static const shm::TempDir dir;
  return dir.path();
}

fs::path put(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

template <class T>
void expect_reason(const Result<T>& result) {
  demand(result.has_value() || !result.error().message.empty(), "a refusal says why");
}

void use_numbers(std::string_view text) {
  expect_reason(parse_integer(text));
  expect_reason(parse_duration(text, std::chrono::milliseconds(1)));
  expect_reason(parse_duration(text));
  expect_reason(parse_bytes(text));
  if (const auto decimal = parse_decimal(text))
    demand(parse_decimal(format_decimal(*decimal)).value() == *decimal,
           "a decimal is written as it was read");
  const auto time = parse_time(text, 1'700'000'000'000'000'000);
  expect_reason(time);
  if (time) demand(parse_time(format_time(*time), 0).value() == *time, "a time is written as it was read");
}

// A line is a configuration: "name=value".
void use_topic_config(std::string_view text) {
  TopicConfigs configs;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t equals = std::min(line.find('='), line.size());
    configs[std::string(line.substr(0, equals))] = line.substr(std::min(equals + 1, line.size()));
  }
  static_cast<void>(check_alterable(configs));
  const auto config = parse_topic_config(configs);
  expect_reason(config);
  if (config) {
    demand(parse_topic_config(format_topic_config(*config)).value() == *config,
           "a configuration is written as it was");
    demand(config->max_message_bytes <= config->term_bytes / 8, "a record fits into its term");
  }
  const auto merged = merge_topic_configs({}, configs);
  if (merged) demand(merge_topic_configs(*merged, {}).value() == *merged, "nothing merged changes nothing");
}

// A good text with something else at one place.
std::string spoil(std::string text, Input& input) {
  const std::size_t at = input.pick(text.size() + 1);
  const std::size_t cut = input.pick(20);
  return text.replace(at, std::min(cut, text.size() - at), input.rest());
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void use_log_files(Input& input) {
  static const auto catalog = log::Catalog::open(scratch() / "log", true).value();
  static const std::string identity = read(catalog.dir() / "ringtail.toml");
  static const std::string topic = [] {
    demand(catalog.create_topic({.name = "topic", .partitions = 3}).has_value(), "there is a topic");
    return read(catalog.topic_dir("topic") / "topic.toml");
  }();
  if (input.one_of(2)) {
    put(catalog.topic_dir("topic") / "topic.toml", spoil(topic, input));
    expect_reason(catalog.load_topic("topic"));
    expect_reason(catalog.list_topics());
  } else {
    put(catalog.dir() / "ringtail.toml", spoil(identity, input));
    expect_reason(log::Catalog::open(catalog.dir(), false));
  }
}

void use_identity_file(std::string_view text) {
  const fs::path dir = scratch() / "other";
  fs::create_directories(dir);
  put(dir / "ringtail.toml", text);
  expect_reason(log::Catalog::open(dir, false));
}

void use_toml(std::string_view text) {
  expect_reason(read_toml_values(put(scratch() / "values.toml", text)));
}

void use_daemon_config(Input& input) {
  std::vector<daemon::Override> overrides;
  for (std::uint64_t n = input.pick(3); n > 0; --n)
    overrides.push_back({.setting = std::string(input.text(24)), .value = std::string(input.text(24))});
  const auto loaded = daemon::load_config(put(scratch() / "ringtaild.toml", input.rest()), overrides);
  for (const auto& problem : loaded.problems)
    demand(!daemon::to_string(problem).empty(), "a problem has a name");
  if (!loaded.problems.empty()) return;
  static_cast<void>(daemon::warnings_of(loaded.config));
  const auto again = daemon::load_config(put(scratch() / "again.toml", daemon::to_toml(loaded.config)), {});
  for (const auto& problem : again.problems) std::fprintf(stderr, "%s\n", daemon::to_string(problem).c_str());
  demand(again.problems.empty(), "a configuration that is written is one that can be read");
  demand(daemon::changed_settings(loaded.config, again.config).empty(), "and the same");
}

void use_names(Input& input) {
  static_cast<void>(check_topic_name(input.text(40)));
  expect_reason(daemon::parse_endpoint(input.rest()));
}

}  // namespace
}  // namespace ringtail::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ringtail::fuzz;
  Input input(data, size);
  switch (input.pick(8)) {
    case 0: use_numbers(input.rest()); break;
    case 1: use_topic_config(input.rest()); break;
    case 2: use_log_files(input); break;
    case 3: use_identity_file(input.rest()); break;
    case 4: use_toml(input.rest()); break;
    case 5: use_names(input); break;
    default: use_daemon_config(input);
  }
  return 0;
}
