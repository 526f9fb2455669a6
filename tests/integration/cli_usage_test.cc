// What holds for every sub-command: help, examples, exit codes, errors.
#include "integration/cli.h"

#include <gmock/gmock.h>

namespace ringtail::test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::vector<std::vector<std::string>>& all_commands() {
  static const std::vector<std::vector<std::string>> commands = {{"topic"},
                                                                 {"topic", "create"},
                                                                 {"topic", "list"},
                                                                 {"topic", "describe"},
                                                                 {"topic", "alter"},
                                                                 {"topic", "delete"},
                                                                 {"produce"},
                                                                 {"consume"},
                                                                 {"group"},
                                                                 {"group", "list"},
                                                                 {"group", "describe"},
                                                                 {"group", "reset-offsets"},
                                                                 {"group", "delete"},
                                                                 {"import"},
                                                                 {"replay"},
                                                                 {"log"},
                                                                 {"log", "verify"},
                                                                 {"log", "dump"},
                                                                 {"doctor"},
                                                                 {"top"},
                                                                 {"completion"},
                                                                 {"perf"},
                                                                 {"perf", "latency"},
                                                                 {"perf", "throughput"}};
  return commands;
}

TEST_F(CliTest, EverySubCommandEndsItsHelpWithAnExampleOfItself) {
  for (std::vector<std::string> command : all_commands()) {
    std::string name = "ringtail";
    for (const std::string& word : command) name += " " + word;
    SCOPED_TRACE(name);
    command.push_back("--help");
    const std::string help = run_ok(command);
    const std::size_t example = help.rfind("Example:\n");
    ASSERT_NE(example, std::string::npos) << help;
    EXPECT_NE(help.find(name, example), std::string::npos) << help;
    for (const std::string& line : lines_of(help.substr(example + sizeof "Example:"))) {
      EXPECT_TRUE(line.empty() || line.starts_with("  ")) << "behind the example: " << line;
    }
  }
}

TEST_F(CliTest, TheRootHelpNamesEverySubCommandAndTheExitCodes) {
  const std::string help = run_ok({"--help"});
  for (const std::vector<std::string>& command : all_commands()) {
    EXPECT_THAT(help, HasSubstr("\n  " + command.front() + " "));
  }
  EXPECT_THAT(help, HasSubstr("Exit codes: 0 done, 1 failed, 2 wrong usage"));
}

TEST_F(CliTest, VersionIsPrintedOnStandardOutput) {
  EXPECT_THAT(run_ok({"--version"}), StartsWith("ringtail "));
}

TEST_F(CliTest, WrongUsageExitsWith2AndOneLineThatNamesTheHelp) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"nonsense"},
      {"topic"},
      {"topic", "create"},
      {"topic", "create", "a", "--partitions", "0"},
      {"topic", "create", "a", "--partitions", "many"},
      {"topic", "list", "--no-such-option"},
      {"topic", "alter", "a"},
      {"topic", "alter", "a", "--partitions", "0"},
      {"group"},
      {"group", "describe"},
      {"group", "reset-offsets", "g", "--topic", "a"},
      {"group", "reset-offsets", "g", "--topic", "a", "--to-latest", "--to-earliest"},
      {"consume", "a", "--group", "g", "--offset", "3"},
      {"consume", "a", "--group", "g", "--assignor", "fair"},
      {"produce"},
      {"produce", "a", "--acks", "2"},
      {"produce", "a", "--batch", "0"},
      {"produce", "a", "--batch", "4097"},
      {"consume", "a", "--from-beginning", "--offset", "3"},
      {"consume", "a", "--exit-at-end", "--follow"},
      {"consume", "a", "--offset", "three"},
      {"import", "xml", "file", "--topic", "a"},
      {"import", "csv", "file"},
      {"completion", "tcsh"},
  };
  for (const std::vector<std::string>& arguments : wrong) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, StartsWith("ringtail: "));
    EXPECT_THAT(result.err, HasSubstr("--help`"));
    EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
  }
}

TEST_F(CliTest, EmptyValuesAndNegativeCountsAreNoSilentDefaults) {
  run_ok({"topic", "create", "a", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  const std::vector<std::vector<std::string>> wrong = {
      {"consume", "a", "--group", "", "--exit-at-end"},
      {"consume", "a", "--exit-at-end", "--from-time", ""},
      {"consume", "a", "--exit-at-end", "--format", ""},
      {"consume", "a", "--exit-at-end", "--max-messages", "-1"},
      {"consume", "a", "--exit-at-end", "--max-messages", "18446744073709551616"},
      {"consume", "a", "--exit-at-end", "--max-messages", "0x10"},
      {"consume", "a", "--exit-at-end", "--partition", "-1"},
      {"topic", "describe", ""},
      {"topic", "list", "--dir", ""},
      {"log", "dump", (log_dir() / "topics/a/0").string(), "--limit", "-1"},
      {"log", "dump", (log_dir() / "topics/a/0").string(), "--from-position", "-1"},
      {"log", "verify", ""},
      {"replay", "a", "--to", ""},
      {"perf", "latency", "--count", "-1"},
      {"perf", "latency", "--warmup", "-1"},
  };
  for (const std::vector<std::string>& arguments : wrong) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
    EXPECT_THAT(result.err,
                ::testing::AnyOf(HasSubstr("an empty value names nothing"), HasSubstr("is no whole number")));
  }
  // Decimal, as everywhere else.
  EXPECT_EQ(run({"consume", "a", "--exit-at-end", "--offset", "-010"}).exit_code, 0);
}

TEST_F(CliTest, AUsageErrorNamesTheWordThatIsWrongAndTheRangeThatThereIs) {
  EXPECT_THAT(run({"bogus"}).err, StartsWith("ringtail: there is no command 'bogus'; see `ringtail --help`"));
  EXPECT_THAT(run({"topic", "crate", "x"}).err,
              StartsWith("ringtail: there is no command 'crate'; see `ringtail topic --help`"));
  EXPECT_THAT(run({"topic"}).err, HasSubstr("subcommand is required"));
  EXPECT_THAT(run({"topic", "create", "a", "--partitions", "0"}).err,
              HasSubstr("--partitions: '0' is no whole number from 1 to 4096"));
  EXPECT_THAT(run({"top", "-n", "0"}).err, HasSubstr("'0' is no whole number of at least 1"));
  EXPECT_THAT(run({"perf", "latency", "--seconds", "0"}).err,
              HasSubstr("'0' is no number above 0, up to 1e9"));
}

TEST_F(CliTest, TheHelpThatAUsageErrorNamesIsThatOfTheSubCommand) {
  EXPECT_THAT(run({"topic", "create"}).err, HasSubstr("see `ringtail topic create --help`"));
}

TEST_F(CliTest, WithoutLogDirectoryTheErrorNamesBothWaysToGiveOne) {
  const CommandResult result = run_command(command_line({"topic", "list"}), {}, {"RINGTAIL_DIR"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.err, "ringtail: no log directory; give --dir DIR or set RINGTAIL_DIR\n");
}

TEST_F(CliTest, TheDirectoryOptionMayStandBeforeOrBehindTheSubCommandAndBeatsTheEnvironment) {
  const std::string other = (directory() / "other").string();
  run_ok({"--dir", other, "topic", "create", "elsewhere"});
  EXPECT_EQ(run_ok({"topic", "list", "--dir", other}), "elsewhere\n");
  EXPECT_FALSE(std::filesystem::exists(log_dir()));
}

TEST_F(CliTest, AMissingLogDirectoryIsAnErrorForReadersAndIsNotMade) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"topic", "list"}, {"consume", "a"}, {"produce", "a"}, {"replay", "a"}}) {
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 1) << arguments.front();
    EXPECT_THAT(result.err, HasSubstr(log_dir().string()));
  }
  EXPECT_FALSE(std::filesystem::exists(log_dir()));
}

TEST_F(CliTest, ErrorsAreObjectsOnStandardErrorWithJson) {
  run_ok({"topic", "create", "there"});
  const CommandResult missing = run({"topic", "describe", "missing", "--json"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_EQ(missing.out, "");
  const nlohmann::json error = nlohmann::json::parse(missing.err, nullptr, false);
  ASSERT_FALSE(error.is_discarded()) << missing.err;
  EXPECT_EQ(error["error"]["code"], "not_found");
  EXPECT_THAT(error["error"]["message"].get<std::string>(), HasSubstr("missing"));

  const CommandResult usage = run({"nonsense", "--json"});
  EXPECT_EQ(usage.exit_code, 2);
  EXPECT_EQ(nlohmann::json::parse(usage.err)["error"]["code"], "invalid_argument");
}

TEST_F(CliTest, ANameThatIsNotUtf8StillMakesAnErrorObject) {
  run_ok({"topic", "create", "there"});
  const CommandResult result = run({"topic", "describe", "\xff\xfe", "--json"});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_FALSE(nlohmann::json::parse(result.err, nullptr, false).is_discarded()) << result.err;
}

// In a working directory that is gone, a relative path has no absolute one.
TEST_F(CliTest, AnExceptionIsAnErrorAsAnyOther) {
  const auto run_nowhere = [this](std::vector<std::string> arguments) {
    const std::string script = "mkdir \"$1\" && cd \"$1\" && rmdir \"$1\" && shift && exec \"$@\"";
    arguments = command_line(std::move(arguments));
    arguments.insert(arguments.begin(), {"sh", "-c", script, "sh", (directory() / "gone").string()});
    return run_command(arguments, {}, environment());
  };
  const CommandResult text = run_nowhere({"log", "verify", "."});
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_THAT(text.err, HasSubstr("absolute path"));
  const CommandResult as_json = run_nowhere({"log", "verify", ".", "--json"});
  EXPECT_EQ(as_json.exit_code, 1);
  EXPECT_EQ(as_json.out, "");
  const nlohmann::json error = nlohmann::json::parse(as_json.err, nullptr, false);
  ASSERT_FALSE(error.is_discarded()) << as_json.err;
  EXPECT_EQ(error["error"]["code"], "system");
  EXPECT_EQ(text.err, "ringtail: " + error["error"]["message"].get<std::string>() + "\n");
}

// What bash offers in place of the last of `words`.
std::vector<std::string> completions(const std::filesystem::path& script, const std::string& words,
                                     const std::vector<std::string>& environment) {
  const std::string binary_dir = std::filesystem::path(RINGTAIL_BINARY).parent_path().string();
  const std::string program = "PATH=" + binary_dir + ":$PATH; source " + script.string() + "; COMP_WORDS=(" +
                              words +
                              "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _ringtail; "
                              "printf '%s\\n' \"${COMPREPLY[@]}\"";
  const CommandResult result = run_command({"bash", "-c", program}, {}, environment);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "") << words;
  return lines_of(result.out);
}

TEST_F(CliTest, CompletionKnowsCommandsOptionsChoicesAndTopics) {
  run_ok({"topic", "create", "orders"});
  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end"});
  const std::filesystem::path script = write_file("completion.bash", run_ok({"completion", "bash"}));
  const auto complete = [&](const std::string& words) { return completions(script, words, environment()); };
  using ::testing::Contains;
  using ::testing::ElementsAre;
  EXPECT_THAT(complete("ringtail topi"), ElementsAre("topic"));
  EXPECT_THAT(complete("ringtail topic de"), ::testing::UnorderedElementsAre("describe", "delete"));
  EXPECT_THAT(complete("ringtail consume --from"),
              ::testing::UnorderedElementsAre("--from-beginning", "--from-time"));
  EXPECT_THAT(complete("ringtail produce orders --acks ''"), ElementsAre("0", "1", "all"));
  EXPECT_THAT(complete("ringtail consume ord"), ElementsAre("orders"));
  EXPECT_THAT(complete("ringtail -v consume ord"), ElementsAre("orders"));
  EXPECT_THAT(complete("ringtail topic alter orders --par"), ElementsAre("--partitions"));
  EXPECT_THAT(complete("ringtail group de"), ::testing::UnorderedElementsAre("describe", "delete"));
  EXPECT_THAT(complete("ringtail group describe bil"), ElementsAre("billing"));
  EXPECT_THAT(complete("ringtail consume orders --group bil"), ElementsAre("billing"));
  EXPECT_THAT(complete("ringtail consume orders --assignor coop"), ElementsAre("cooperative-sticky"));
  EXPECT_THAT(complete("ringtail group reset-offsets billing --topic ord"), ElementsAre("orders"));
  EXPECT_THAT(complete("ringtail group reset-offsets billing --to-"),
              ::testing::UnorderedElementsAre("--to-earliest", "--to-latest", "--to-offset", "--to-time"));
  EXPECT_THAT(complete("ringtail top --view gr"), ElementsAre("groups"));
  EXPECT_THAT(complete("ringtail import js"), ElementsAre("jsonl"));
  EXPECT_THAT(complete("ringtail topic list --js"), ElementsAre("--json"));
  EXPECT_THAT(complete("ringtail import csv " + script.string().substr(0, script.string().size() - 3)),
              ElementsAre(script.string()));
}

TEST_F(CliTest, CompletionRunsNothingThatStandsInAGroupsName) {
  run_ok({"topic", "create", "orders"});
  const std::string trace = (directory() / "ran").string();
  for (const std::string& group : {"$(touch${IFS}" + trace + ")", std::string("two words")})
    run_ok({"consume", "orders", "--group", group, "--exit-at-end"});
  const std::filesystem::path script = write_file("completion.bash", run_ok({"completion", "bash"}));
  using ::testing::ElementsAre;
  EXPECT_THAT(completions(script, "ringtail group describe '$(t'", environment()),
              ElementsAre("\\$\\(touch\\$\\{IFS\\}" + trace + "\\)"));
  EXPECT_THAT(completions(script, "ringtail group describe two", environment()), ElementsAre("two\\ words"));
  EXPECT_FALSE(std::filesystem::exists(trace));
}

TEST_F(CliTest, DoctorFindsSomethingAboutEverythingItLooksAt) {
  const CommandResult result = run({"doctor", "--json"});
  EXPECT_THAT(result.exit_code, ::testing::AnyOf(0, 1));
  const nlohmann::json findings = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_TRUE(findings.is_array()) << result.out << result.err;
  std::vector<std::string> checks;
  bool works = true;
  for (const nlohmann::json& finding : findings) {
    checks.push_back(finding["check"]);
    EXPECT_NE(finding["found"], "") << finding;
    EXPECT_TRUE(finding["health"] == "ok" || finding["remedy"] != "") << finding;
    works = works && finding["health"] != "bad";
  }
  EXPECT_EQ(result.exit_code, works ? 0 : 1);
  for (const char* check : {"kernel", "io_uring", "locked memory", "open files", "/dev/shm", "huge pages",
                            "clock source", "CPUs", "CPU isolation", "futex_waitv", "O_DIRECT"}) {
    EXPECT_THAT(checks, ::testing::Contains(check));
  }
}

TEST_F(CliTest, DoctorSaysThatALogDirectoryCannotBeWritten) {
  const CommandResult result = run({"doctor", "--dir", "/proc/ringtail"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("bad"));
  EXPECT_THAT(result.out, HasSubstr("choose another --dir"));
}

}  // namespace
}  // namespace ringtail::test
