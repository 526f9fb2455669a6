// ringtail top: as tables, as JSON, and on a terminal.
#include <gmock/gmock.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A program on a terminal of its own. Killed when it still runs at the end.
class Terminal {
 public:
  Terminal(std::vector<std::string> arguments, std::vector<std::string> environment, unsigned short rows = 24,
           unsigned short columns = 120) {
    // The child of a program with threads may do little before exec: all is laid out ahead.
    arguments.insert(arguments.begin(), "env");
    arguments.insert(arguments.begin() + 1, environment.begin(), environment.end());
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const winsize size{.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = ::forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      ::execvp(pointers[0], pointers.data());
      ::_exit(127);
    }
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    if (fd_ >= 0) ::close(fd_);
  }

  void press(std::string_view keys) const {
    ASSERT_EQ(::write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  void resize(unsigned short rows, unsigned short columns) const {
    const winsize size{.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    ASSERT_EQ(::ioctl(fd_, TIOCSWINSZ, &size), 0);
  }
  void signal(int number) const { ::kill(pid_, number); }

  // Reads until `text` was written, since the last text that was waited for. False at the end.
  bool wait_for(std::string_view text) {
    for (;;) {
      if (const auto found = output_.find(text, seen_); found != std::string::npos) {
        seen_ = found + text.size();
        return true;
      }
      if (!read_some()) return false;
    }
  }
  int wait() {
    while (read_some()) {
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::string& output() const { return output_; }

 private:
  bool read_some() {
    std::array<char, 4096> buffer;
    const ssize_t got = ::read(fd_, buffer.data(), buffer.size());
    if (got <= 0) return false;  // EIO: the program has ended
    output_.append(buffer.data(), static_cast<std::size_t>(got));
    return true;
  }

  pid_t pid_ = -1;
  int fd_ = -1;
  std::string output_;
  std::size_t seen_ = 0;
};

constexpr std::string_view kEnterScreen = "\x1b[?1049h";
constexpr std::string_view kLeaveScreen = "\x1b[?1049l";

class CliTopTest : public CliTest {
 protected:
  std::vector<std::string> terminal_environment(const std::string& type = "xterm") const {
    std::vector<std::string> all = environment();
    for (const char* entry : {"LC_ALL=C.UTF-8", "NO_COLOR=1"}) all.emplace_back(entry);
    all.push_back("TERM=" + type);
    return all;
  }
};

TEST_F(CliTopTest, PrintsATableEachIntervalWithoutATerminal) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"topic", "create", "quotes", "--config", "storage=memory"});
  run_ok({"produce", "orders"}, "one\ntwo\nthree\n");
  const std::vector<std::string> lines = lines_of(run_ok({"top", "-n", "2", "-i", "0.05"}));
  ASSERT_EQ(lines.size(), 8u);
  EXPECT_THAT(lines[0], AllOf(StartsWith("topic"), HasSubstr("records/s"), HasSubstr("not durable")));
  EXPECT_THAT(lines[1], AllOf(StartsWith("orders"), HasSubstr("disk")));
  EXPECT_THAT(lines[2], AllOf(StartsWith("quotes"), HasSubstr("memory")));
  EXPECT_EQ(lines[3], "");
  EXPECT_THAT(lines[4], StartsWith("topic"));
  EXPECT_THAT(run_ok({"top", "--plain", "-n", "1", "-i", "0.05", "--view", "processes"}),
              AllOf(HasSubstr("pid"), HasSubstr("keeper")));
}

TEST_F(CliTopTest, PrintsAnObjectALineWithJson) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"produce", "orders"}, "one\ntwo\nthree\n");
  Command consumer(command_line({"consume", "orders", "--from-beginning"}), environment());
  ASSERT_TRUE(consumer.wait_for_output("three"));
  const std::vector<std::string> lines = lines_of(run_ok({"top", "-n", "2", "-i", "0.05", "--json"}));
  ASSERT_EQ(lines.size(), 2u);
  for (const std::string& line : lines) {
    const json sample = json::parse(line);
    EXPECT_GE(sample["interval_s"], 0.05);
    ASSERT_EQ(sample["topics"].size(), 1u);
    const json& topic = sample["topics"][0];
    EXPECT_EQ(topic["topic"], "orders");
    EXPECT_EQ(topic["partitions"], 2);
    EXPECT_EQ(topic["records"], 3);
    EXPECT_EQ(topic["records_per_s"], 0.0);
    EXPECT_EQ(topic["durable_lag_records"], 0);
    ASSERT_EQ(sample["processes"].size(), 2u);
    EXPECT_EQ(sample["processes"][0]["role"], "keeper");
    EXPECT_EQ(sample["processes"][0]["pid"], consumer.pid());  // not the viewer
    const json& reader = sample["processes"][1];
    EXPECT_EQ(reader["role"], "consumer");
    EXPECT_EQ(reader["pid"], consumer.pid());
    EXPECT_EQ(reader["name"], "ringtail");
    EXPECT_EQ(reader["lag_records"], 0);
    EXPECT_EQ(reader["topics"], "orders");
  }
}

TEST_F(CliTopTest, ShowsGroupsWithTheirLag) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"produce", "orders", "--partition", "0"}, "1\n2\n3\n4\n");
  run_ok({"produce", "orders", "--partition", "1"}, "1\n2\n");
  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end"});
  run_ok({"produce", "orders", "--partition", "0"}, "5\n6\n7\n");
  run_ok({"produce", "orders", "--partition", "1"}, "3\n");
  const json sample = json::parse(run_ok({"top", "-n", "1", "-i", "0.05", "--json"}));
  ASSERT_EQ(sample["groups"].size(), 1u) << sample;
  const json& group = sample["groups"][0];
  EXPECT_EQ(group["group"], "billing");
  EXPECT_EQ(group["state"], "empty");
  EXPECT_EQ(group["members"], 0);
  EXPECT_EQ(group["partitions"], 2);
  EXPECT_EQ(group["lag_records"], 4);
  EXPECT_EQ(group["worst_lag_records"], 3);
  EXPECT_EQ(group["records_per_s"], 0.0);

  Command member(command_line({"consume", "orders", "--group", "billing", "--client-id", "till"}),
                 environment());
  ASSERT_TRUE(member.wait_for_output("7\n"));
  EXPECT_THAT(run_ok({"top", "-n", "1", "-i", "0.05", "--view", "groups"}),
              AllOf(HasSubstr("worst"), HasSubstr("billing"), HasSubstr("cooperative-sticky")));
  Terminal terminal(command_line({"top", "-i", "60"}), terminal_environment());
  ASSERT_TRUE(terminal.wait_for("orders"));
  terminal.press("g");
  ASSERT_TRUE(terminal.wait_for("cooperative-sticky"));
  terminal.press("\r");
  EXPECT_TRUE(terminal.wait_for("> billing"));
  EXPECT_TRUE(terminal.wait_for("orders-1"));
  EXPECT_TRUE(terminal.wait_for("till-"));
  terminal.press("q");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(CliTopTest, CountsCommittedRecords) {
  run_ok({"topic", "create", "orders"});
  run_ok({"produce", "orders"}, "1\n2\n3\n4\n5\n");
  const auto read = [&](const char* count) {
    run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--max-messages", count});
  };
  read("1");
  Command top(command_line({"top", "-i", "0.05", "--json"}), environment());
  ASSERT_TRUE(top.wait_for_output("\"lag_records\":4"));
  read("3");
  ASSERT_TRUE(top.wait_for_output("\"lag_records\":1"));
  top.signal(SIGTERM);
  double records = 0;
  for (const std::string& line : lines_of(top.wait().out)) {
    const json sample = json::parse(line);
    records += sample["groups"][0]["records_per_s"].get<double>() * sample["interval_s"].get<double>();
  }
  EXPECT_NEAR(records, 3, 0.01);
}

TEST_F(CliTopTest, CountsWhatComes) {
  run_ok({"topic", "create", "orders"});
  Command producer(command_line({"produce", "orders"}), environment());
  Command top(command_line({"top", "-i", "0.05", "--json"}), environment());
  ASSERT_TRUE(top.wait_for_output("\n"));
  producer.write("one\ntwo\n");
  ASSERT_TRUE(top.wait_for_output("\"records\":2"));
  top.signal(SIGTERM);
  const CommandResult result = top.wait();
  EXPECT_EQ(result.exit_code, 143);
  double records = 0;
  for (const std::string& line : lines_of(result.out)) {
    const json sample = json::parse(line);
    records += sample["topics"][0]["records_per_s"].get<double>() * sample["interval_s"].get<double>();
  }
  EXPECT_NEAR(records, 2, 0.01);
}

TEST_F(CliTopTest, KeysMoveThroughTheScreenAndLeaveIt) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  Command consumer(command_line({"consume", "orders"}), environment());
  Terminal terminal(command_line({"top", "-i", "60"}), terminal_environment());
  ASSERT_TRUE(terminal.wait_for(kEnterScreen));
  ASSERT_TRUE(terminal.wait_for("ringtail top"));
  ASSERT_TRUE(terminal.wait_for("orders"));
  terminal.press("?");
  EXPECT_TRUE(terminal.wait_for("sample less often"));
  terminal.press("x\r");
  EXPECT_TRUE(terminal.wait_for("> orders"));
  terminal.press("p");
  EXPECT_TRUE(terminal.wait_for("alive"));
  terminal.press("/nobody\r");
  EXPECT_TRUE(terminal.wait_for("nothing matches"));
  terminal.resize(4, 30);
  EXPECT_TRUE(terminal.wait_for("needs 40 x 6"));
  terminal.resize(30, 100);
  EXPECT_TRUE(terminal.wait_for("nothing matches"));
  terminal.press("q");
  EXPECT_TRUE(terminal.wait_for(kLeaveScreen));
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(CliTopTest, ASignalLeavesTheTerminalAsItWas) {
  run_ok({"topic", "create", "orders"});
  for (const int number : {SIGTERM, SIGINT}) {
    Terminal terminal(command_line({"top", "-i", "60"}), terminal_environment());
    ASSERT_TRUE(terminal.wait_for("orders"));
    terminal.signal(number);
    EXPECT_TRUE(terminal.wait_for(kLeaveScreen));
    EXPECT_EQ(terminal.wait(), 128 + number);
  }
}

TEST_F(CliTopTest, ATerminalThatCannotBeDrawnUponGetsTables) {
  run_ok({"topic", "create", "orders"});
  for (const char* type : {"dumb", "no-such-terminal"}) {
    Terminal terminal(command_line({"top", "-i", "0.05"}), terminal_environment(type));
    ASSERT_TRUE(terminal.wait_for("orders")) << type;
    ASSERT_TRUE(terminal.wait_for("orders")) << type;
    terminal.press("\x03");
    EXPECT_EQ(terminal.wait(), 130) << type;
    EXPECT_THAT(terminal.output(), Not(HasSubstr("\x1b"))) << type;
  }
}

TEST_F(CliTopTest, SaysSoWhenThereIsNoLogOrItVanishes) {
  const CommandResult missing = run({"top"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr(log_dir().string()));

  run_ok({"topic", "create", "orders"});
  Terminal terminal(command_line({"top", "-i", "0.1"}), terminal_environment());
  ASSERT_TRUE(terminal.wait_for("orders"));
  std::filesystem::rename(log_dir(), directory() / "moved");
  EXPECT_TRUE(terminal.wait_for(kLeaveScreen));
  EXPECT_TRUE(terminal.wait_for("ringtail: "));
  EXPECT_EQ(terminal.wait(), 1);
  std::filesystem::rename(directory() / "moved", log_dir());
}

TEST_F(CliTopTest, RefusesWhatItCannotDo) {
  run_ok({"topic", "create", "orders"});
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"-i", "0"},
                                             {"-i", "soon"},
                                             {"-i", "nan", "-n", "1"},
                                             {"-n", "0"},
                                             {"--view", "nothing"},
                                             {"orders"}}) {
    std::vector<std::string> line = {"top"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    EXPECT_EQ(run(line).exit_code, 2) << arguments.front();
  }
}

}  // namespace
}  // namespace ringtail::test
