// ringtail replay
#include <gmock/gmock.h>
#include <signal.h>

#include <map>

#include "integration/cli.h"
#include "ringtail/ringtail.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const std::filesystem::path kOrders = std::filesystem::path(RINGTAIL_SOURCE_DIR) / "tests/data/orders.csv";

class CliReplayTest : public CliTest {
 protected:
  void SetUp() override {
    run_ok({"import", "csv", kOrders.string(), "--topic", "feed", "--key-column", "order_id",
            "--timestamp-column", "ts_event"});
  }
  static void send_and_end(Producer& writer, const std::string& value, bool commits) {
    ASSERT_TRUE(writer.begin());
    ASSERT_TRUE(writer.send(value)) << to_string(writer.error());
    ASSERT_TRUE(commits ? writer.commit() : writer.abort());
  }
  // All of a topic, but for its name.
  std::vector<json> records_of(const std::string& topic) {
    std::vector<json> records;
    for (const std::string& line : lines_of(consume_all(topic, {"--json"}))) {
      records.push_back(json::parse(line));
      records.back().erase("topic");
    }
    return records;
  }
};

TEST_F(CliReplayTest, TheCopyEqualsTheRecordingAndTheReportSaysHowLateRecordsLeft) {
  const json report = run_json({"replay", "feed", "--speed", "5", "--to", "copy"});
  EXPECT_EQ(report["records"], 60);
  EXPECT_EQ(report["to"], "copy");
  const std::int64_t recorded_ns = report["recorded_ns"];
  EXPECT_GT(recorded_ns, 0);
  EXPECT_GE(report["elapsed_ns"].get<std::int64_t>(), recorded_ns / 5);
  const json& late = report["late_ns"];
  EXPECT_LE(late["min"], late["p50"]);
  EXPECT_LE(late["p50"], late["p99"]);
  EXPECT_LE(late["p99"], late["max"]);
  EXPECT_EQ(records_of("copy"), records_of("feed"));
}

TEST_F(CliReplayTest, TextNamesThePercentiles) {
  const std::string text = run_ok({"replay", "feed", "--speed", "100"});
  EXPECT_THAT(text, HasSubstr("replayed 60 records"));
  EXPECT_THAT(text, HasSubstr("behind schedule"));
  EXPECT_THAT(text, HasSubstr("p99.99"));
}

TEST_F(CliReplayTest, WithoutATargetTheNameGetsASuffixAndMaxHasNoSchedule) {
  const json report = run_json({"replay", "feed", "--speed", "max"});
  EXPECT_EQ(report["to"], "feed-replay");
  EXPECT_FALSE(report.contains("late_ns"));
  EXPECT_EQ(records_of("feed-replay"), records_of("feed"));
}

TEST_F(CliReplayTest, PartitionsHeadersAndConfigurationsAreKept) {
  run_ok({"topic", "create", "many", "--partitions", "3", "--config", "flush.ms=20"});
  for (int i = 0; i < 30; ++i) {
    run_ok({"produce", "many", "--partition", std::to_string(i % 3), "--header", "n=" + std::to_string(i)},
           std::to_string(i) + "\n");
  }
  run_ok({"replay", "many", "--speed", "max", "--to", "copy"});
  const json description = run_json({"topic", "describe", "copy"});
  EXPECT_EQ(description["partitions"].size(), 3u);
  EXPECT_EQ(description["configs"]["flush.ms"]["value"], "20");
  for (const char* partition : {"0", "1", "2"}) {
    const std::vector<std::string> format = {"--partition", partition, "--format", "%o %T %k %s %h\\n"};
    EXPECT_EQ(consume_all("copy", format), consume_all("many", format));
  }
}

TEST_F(CliReplayTest, PartitionsAreMergedByTime) {
  run_ok({"topic", "create", "two", "--partitions", "2"});
  for (int i = 0; i < 10; ++i) {
    run_ok({"produce", "two", "--partition", std::to_string(i % 2)}, std::to_string(i) + "\n");
  }
  run_ok(
      {"topic", "create", "times", "--partitions", "2", "--config", "message.timestamp.type=LogAppendTime"});
  run_ok({"replay", "two", "--speed", "max", "--to", "times"});
  // The target's own times tell in which order the records came.
  std::multimap<std::string, std::string> in_order;
  for (const std::string& line : lines_of(consume_all("times", {"--format", "%T %s\\n"}))) {
    in_order.emplace(line.substr(0, line.find(' ')), line.substr(line.find(' ') + 1));
  }
  std::string values;
  for (const auto& [time, value] : in_order) values += value;
  EXPECT_EQ(values, "0123456789");
}

TEST_F(CliReplayTest, OnlyTheWantedTimesArePlayed) {
  const std::vector<std::string> times = lines_of(consume_all("feed", {"--format", "%I\\n"}));
  const json report = run_json(
      {"replay", "feed", "--speed", "max", "--to", "copy", "--from-time", times[20], "--to-time", times[39]});
  const std::vector<std::string> played = lines_of(consume_all("copy", {"--format", "%I\\n"}));
  EXPECT_EQ(played.size(), report["records"]);
  EXPECT_GE(played.size(), 20u);
  EXPECT_EQ(played.front(), times[20]);
  EXPECT_EQ(played.back(), times[39]);
}

TEST_F(CliReplayTest, OfTransactionsCommittedOnesArePlayedWhenOnlyTheseAreWanted) {
  auto log = Log::open({.dir = log_dir()});
  ASSERT_TRUE(log) << to_string(log.error());
  ASSERT_TRUE(Admin(*log).create_topic({.name = "mixed"}));
  auto writer = Producer::open(*log, {.topic = "mixed", .transactional_id = "t"});
  auto plain = Producer::open(*log, {.topic = "mixed"});
  ASSERT_TRUE(writer && plain);
  send_and_end(*writer, "committed", true);
  send_and_end(*writer, "aborted", false);
  ASSERT_TRUE(plain->send("plain"));
  ASSERT_TRUE(writer->begin());
  ASSERT_TRUE(writer->send("open"));
  ASSERT_TRUE(plain->send("behind"));

  const std::vector<std::string> committed = {"--isolation-level", "read_committed"};
  const auto replay = [&](const std::string& to, std::vector<std::string> more) {
    more.insert(more.begin(), {"replay", "mixed", "--speed", "max", "--to", to});
    run_ok(std::move(more));
    return consume_all(to);
  };
  EXPECT_EQ(replay("all", {}), "committed\naborted\nplain\nopen\nbehind\n");
  EXPECT_EQ(replay("while-open", committed), "committed\nplain\n");
  EXPECT_EQ(consume_all("mixed", committed), "committed\nplain\n");
  ASSERT_TRUE(writer->commit());
  EXPECT_EQ(replay("when-done", committed), "committed\nplain\nopen\nbehind\n");
  EXPECT_EQ(consume_all("mixed", committed), "committed\nplain\nopen\nbehind\n");
}

TEST_F(CliReplayTest, NothingToPlayIsDone) {
  run_ok({"topic", "create", "empty"});
  EXPECT_EQ(run_json({"replay", "empty"})["records"], 0);
}

TEST_F(CliReplayTest, WrongArgumentsAreUsage) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--speed", "0"},
                                             {"--speed", "-1"},
                                             {"--speed", "fast"},
                                             {"--speed", "inf"},
                                             {"--speed", "2x"},
                                             {"--from-time", "then"},
                                             {"--isolation-level", "serializable"},
                                             {"--to", "feed"},
                                             {"--to", "a/b"}}) {
    std::vector<std::string> line = {"replay", "feed"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    EXPECT_EQ(run(line).exit_code, 2) << arguments[1];
  }
}

TEST_F(CliReplayTest, ATargetWithFewerPartitionsIsRefused) {
  run_ok({"topic", "create", "many", "--partitions", "3"});
  run_ok({"topic", "create", "few", "--partitions", "2"});
  const CommandResult result = run({"replay", "many", "--to", "few"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("has 2 partitions, 'many' has 3"));
}

TEST_F(CliReplayTest, AnInterruptEndsItWithTheReportOfWhatWasPlayed) {
  Command replay(command_line({"replay", "feed", "--speed", "0.000000001", "--to", "copy"}), environment());
  while (run({"consume", "copy", "--from-beginning", "--exit-at-end"}).out.empty()) {
  }
  replay.signal(SIGINT);
  const CommandResult result = replay.wait();
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(result.out, HasSubstr("replayed 1 record"));
}

}  // namespace
}  // namespace ringtail::test
