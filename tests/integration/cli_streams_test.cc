// Standard streams that are full, or closed: what a command has done is what its exit code says.
#include <gmock/gmock.h>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using ::testing::HasSubstr;

class CliStreamsTest : public CliTest {
 protected:
  void SetUp() override {
    run_ok({"topic", "create", "t", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  }
  // Runs a command with its streams as a shell sets them up, such as "2>/dev/full".
  CommandResult run_with(const std::string& redirection, std::vector<std::string> arguments,
                         std::string_view input = {}) const {
    arguments = command_line(std::move(arguments));
    arguments.insert(arguments.begin(), {"sh", "-c", "exec \"$@\" " + redirection, "sh"});
    return run_command(arguments, input, environment());
  }
};

TEST_F(CliStreamsTest, AMessageThatCannotBeWrittenIsLostAndTheExitCodeIsNot) {
  for (const std::string redirection : {"2>/dev/full", "2>&-"}) {
    SCOPED_TRACE(redirection);
    EXPECT_EQ(run_with(redirection, {"-v", "produce", "t"}, "x\n").exit_code, 0);
    EXPECT_EQ(run_with(redirection, {"topic", "describe", "nope"}).exit_code, 1);
    EXPECT_EQ(run_with(redirection, {"topic", "describe", "nope", "--json"}).exit_code, 1);
    EXPECT_EQ(run_with(redirection, {"topic", "crate", "t"}).exit_code, 2);
  }
  EXPECT_EQ(consume_all("t"), "x\nx\n");
}

TEST_F(CliStreamsTest, AClosedInputIsAtItsEnd) {
  EXPECT_EQ(run_with("<&-", {"produce", "t"}).exit_code, 0);
  EXPECT_EQ(run_with("<&- >&- 2>&-", {"produce", "t"}).exit_code, 0);
  EXPECT_EQ(consume_all("t"), "");
}

TEST_F(CliStreamsTest, AResultThatNobodyGetsIsAFailure) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"topic", "list"}, {"topic", "list", "--json"}, {"--help"}, {"topic", "--help"}, {"--version"}}) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    const CommandResult closed = run_with(">&-", arguments);
    EXPECT_EQ(closed.exit_code, 1);
    EXPECT_THAT(closed.err, HasSubstr("cannot write to standard output: Bad file descriptor"));
    const CommandResult full = run_with(">/dev/full", arguments);
    EXPECT_EQ(full.exit_code, 1);
    EXPECT_THAT(full.err, HasSubstr("cannot write to standard output: No space left on device"));
  }
}

}  // namespace
}  // namespace ringtail::test
