// docs/alerts.yml, as Prometheus' own tool reads it: when each rule fires, and what it says then (alerts_test.yml).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "support/run_command.h"

namespace ringtail::test {
namespace {

const std::filesystem::path kSource = RINGTAIL_SOURCE_DIR;
const std::filesystem::path kRules = kSource / "docs/alerts.yml";
const std::filesystem::path kTests = kSource / "tests/integration/alerts_test.yml";

// What stands behind the key, anywhere in the file.
std::set<std::string> names_behind(const std::string& key, const std::filesystem::path& file) {
  std::ifstream stream(file);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  const std::regex line("\\b" + key + ": (\\w+)");
  std::set<std::string> names;
  for (std::sregex_iterator found(text.begin(), text.end(), line), end; found != end; ++found)
    names.insert(found->str(1));
  return names;
}

TEST(AlertsTest, EachIsTested) {
  const std::set<std::string> rules = names_behind("alert", kRules);
  EXPECT_GE(rules.size(), 16u);
  EXPECT_EQ(names_behind("alertname", kTests), rules);
}

TEST(AlertsTest, EachFiresWhenItIsToAndNotBefore) {
  if (run_command({"sh", "-c", "command -v promtool"}).exit_code != 0)
    GTEST_SKIP() << "promtool is missing; install it: apt-get install prometheus";
  const CommandResult checked = run_command({"promtool", "check", "rules", kRules.string()});
  EXPECT_EQ(checked.exit_code, 0) << checked.out << checked.err;
  const CommandResult tested = run_command({"promtool", "test", "rules", kTests.string()});
  EXPECT_EQ(tested.exit_code, 0) << tested.out << tested.err;
}

}  // namespace
}  // namespace ringtail::test
