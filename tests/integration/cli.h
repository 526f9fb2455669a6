// The fixture of tests that drive the command `ringtail` as a user does.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/run_command.h"

namespace ringtail::test {

// Each test has a log directory of its own, named by RINGTAIL_DIR.
class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ringtail-cli-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    environment_ = {"RINGTAIL_DIR=" + log_dir().string(), "TZ=America/New_York"};
  }
  ~CliTest() override {
    remove_shared_memory();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  // A place for the test's own files.
  const std::filesystem::path& directory() const { return directory_; }
  std::filesystem::path log_dir() const { return directory_ / "log"; }
  const std::vector<std::string>& environment() const { return environment_; }

  static std::vector<std::string> command_line(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), RINGTAIL_BINARY);
    return arguments;
  }

  CommandResult run(std::vector<std::string> arguments, std::string_view input = {}) const {
    return run_command(command_line(std::move(arguments)), input, environment_);
  }

  // Runs a command that must succeed and returns what it printed.
  std::string run_ok(std::vector<std::string> arguments, std::string_view input = {}) const {
    std::string shown;
    for (const std::string& argument : arguments) shown += " " + argument;
    const CommandResult result = run(std::move(arguments), input);
    EXPECT_EQ(result.exit_code, 0) << "ringtail" << shown << "\n" << result.err;
    return result.out;
  }

  nlohmann::json run_json(std::vector<std::string> arguments, std::string_view input = {}) const {
    arguments.push_back("--json");
    const std::string text = run_ok(std::move(arguments), input);
    nlohmann::json object = nlohmann::json::parse(text, nullptr, false);
    EXPECT_FALSE(object.is_discarded()) << text;
    return object;
  }

  std::string consume_all(const std::string& topic, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"consume", topic, "--from-beginning", "--exit-at-end"});
    return run_ok(std::move(more));
  }

  std::filesystem::path write_file(const std::string& name, std::string_view content) const {
    const std::filesystem::path path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  static std::string read_file(const std::filesystem::path& path) {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return content.str();
  }

  // The rings of every log below the test's directory.
  void remove_shared_memory() const {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_, ignored)) {
      if (entry.path().filename() != "ringtail.toml") continue;
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);) {
        const std::size_t quote = line.find('"');
        if (!line.starts_with("log_id") || quote == std::string::npos) continue;
        const std::string id = line.substr(quote + 1, line.find('"', quote + 1) - quote - 1);
        if (!id.empty()) std::filesystem::remove_all("/dev/shm/ringtail-" + id, ignored);
      }
    }
  }

 private:
  std::filesystem::path directory_;
  std::vector<std::string> environment_;
};

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The notes among what a command with --json wrote to standard error, each line of which has to be an object.
inline std::vector<std::string> notes_of(const std::string& err) {
  std::vector<std::string> notes;
  for (const std::string& line : lines_of(err)) {
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    EXPECT_TRUE(object.is_object()) << line;
    if (object.contains("note")) notes.push_back(object["note"].get<std::string>());
  }
  return notes;
}

}  // namespace ringtail::test
